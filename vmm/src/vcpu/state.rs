//! The whole state of a virtual processor, and whether this host can give it to one.

use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::Vcpu;
use super::counter::{self, MSR_TSC, Moment};

/// The counter's value at which the local APIC's timer fires. Needs the local APIC and the counter to be set.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// How far apart two hosts' counters may tick, in millionths: what KVM tolerates by default, and guests by NTP.
const TSC_TOLERANCE: u64 = 250;

/// Why a processor's state could not be had or set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM refused.
    #[error("{what} of a processor: {source}")]
    Kvm {
        /// Reading or setting which part.
        what: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// A register that the snapshot has and this host does not take.
    #[error(
        "this host's KVM does not take the value {value:#x} of model-specific register {index:#x}; restore on a host like the snapshot's"
    )]
    Msr {
        /// Its number.
        index: u32,
        /// Its value.
        value: u64,
    },
    /// The guest was told of something that this host lacks.
    #[error(
        "this host's processor or KVM lacks {0}, which the snapshot's guest was told to be there; restore on a host that has it"
    )]
    Feature(String),
    /// The guest counts on a clock rate.
    #[error(
        "the snapshot's time-stamp counter ticks at {saved} kHz, this host's at {host} kHz and its KVM cannot scale it; restore on a host of that rate"
    )]
    Rate {
        /// Of the snapshot.
        saved: u32,
        /// Of this host.
        host: u32,
    },
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

/// All that a processor is besides memory.
#[derive(Default, Serialize, Deserialize)]
pub struct VcpuState {
    /// What the guest was told that its processor is.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debugregs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// The state of a processor that does not run.
    /// `msrs` are the numbers of the registers that KVM says are to be kept. The counter is as it was at `moment`, which is just over.
    pub fn save(vcpu: &Vcpu, msrs: &[u32], moment: Moment) -> Result<Self, Error> {
        let fd = &vcpu.fd;
        // First, because reading it makes KVM take INIT and SIPI that wait, which changes the rest.
        let mp_state = fd.get_mp_state().map_err(kvm("reading the run state"))?;
        let counter = counter::read(fd, moment).map_err(kvm("reading the time-stamp counter"))?;
        let mut msrs = read_msrs(fd, msrs)?;
        msrs.iter_mut().filter(|entry| entry.index == MSR_TSC).for_each(|entry| entry.data = counter);
        Ok(Self {
            cpuid: vcpu.cpuid.as_slice().to_vec(),
            tsc_khz: fd.get_tsc_khz().map_err(kvm("reading the clock rate"))?,
            mp_state,
            regs: fd.get_regs().map_err(kvm("reading registers"))?,
            sregs: fd.get_sregs().map_err(kvm("reading segments"))?,
            // 4 KiB hold all that a guest can have without AMX, which a process must ask for; we do not.
            xsave: Box::new(fd.get_xsave().map_err(kvm("reading vector registers"))?),
            xcrs: fd.get_xcrs().map_err(kvm("reading XCR0"))?,
            debugregs: fd.get_debug_regs().map_err(kvm("reading debug registers"))?,
            lapic: fd.get_lapic().map_err(kvm("reading the local APIC"))?,
            msrs,
            events: fd.get_vcpu_events().map_err(kvm("reading pending events"))?,
        })
    }

    /// The CPUID table, which the processor must have before [`VcpuState::restore`].
    pub fn cpuid_table(&self) -> Result<CpuId, Error> {
        CpuId::from_entries(&self.cpuid).map_err(|_| too_long("CPUID"))
    }

    /// The time-stamp counter at the moment of the machine's clock that was saved with it.
    pub fn counter(&self) -> Option<u64> {
        self.msrs.iter().find(|entry| entry.index == MSR_TSC).map(|entry| entry.data)
    }

    /// Ticks of the counter in `nanoseconds`.
    pub fn ticks(&self, nanoseconds: u64) -> u64 {
        // The counter wraps around by nature.
        (u128::from(nanoseconds) * u128::from(self.tsc_khz) / 1_000_000) as u64
    }

    /// Puts the state into a new processor that has its CPUID. At `moment`, which is just over, the clock of its machine had gone on by `passed`
    /// nanoseconds since it was saved: so has the time-stamp counter.
    pub fn restore(&self, fd: &VcpuFd, passed: u64, moment: Moment) -> Result<(), Error> {
        let rate = self.set_rate(fd)?;
        fd.set_mp_state(self.mp_state).map_err(kvm("setting the run state"))?;
        fd.set_regs(&self.regs).map_err(kvm("setting registers"))?;
        fd.set_sregs(&self.sregs).map_err(kvm("setting segments"))?;
        fd.set_xcrs(&self.xcrs).map_err(kvm("setting XCR0"))?;
        // SAFETY: the structure has the 4 KiB that KVM reads of a process that has not asked for AMX.
        unsafe { fd.set_xsave(&self.xsave) }.map_err(kvm("setting vector registers"))?;
        fd.set_debug_regs(&self.debugregs).map_err(kvm("setting debug registers"))?;
        // After the APIC base in the segments' structure, which says in which mode it is.
        fd.set_lapic(&self.lapic).map_err(kvm("setting the local APIC"))?;
        self.set_msrs(fd, rate, passed, moment)?;
        fd.set_vcpu_events(&self.events).map_err(kvm("setting pending events"))?;
        // Tells the guest's watchdogs that it stood still. Refused where the guest has no such clock.
        let _ = fd.kvmclock_ctrl();
        Ok(())
    }

    /// Lets the counter tick as the guest knows it, and says at how many kHz the host's does if that is another rate.
    fn set_rate(&self, fd: &VcpuFd) -> Result<Option<u32>, Error> {
        let host = fd.get_tsc_khz().map_err(kvm("reading the clock rate"))?;
        let apart = u64::from(host.abs_diff(self.tsc_khz));
        if apart * 1_000_000 <= u64::from(self.tsc_khz) * TSC_TOLERANCE {
            return Ok(None);
        }
        fd.set_tsc_khz(self.tsc_khz).map_err(|_| Error::Rate { saved: self.tsc_khz, host })?;
        Ok(Some(host))
    }

    fn set_msrs(&self, fd: &VcpuFd, rate: Option<u32>, passed: u64, moment: Moment) -> Result<(), Error> {
        let counter = self.counter().map(|saved| saved.wrapping_add(self.ticks(passed)));
        let mut entries = self.msrs.clone();
        entries.retain(|entry| entry.index != MSR_TSC);
        entries.sort_by_key(|entry| entry.index == MSR_TSC_DEADLINE);
        if let Some(counter) = counter.filter(|counter| rate.is_some() || !counter::write(fd, *counter, moment)) {
            // A register shows what is written to it from now on.
            let since = counter::host().wrapping_sub(moment.host);
            let host = u128::from(rate.unwrap_or(self.tsc_khz).max(1));
            let since = u128::from(since) * u128::from(self.tsc_khz) / host;
            let now = counter.wrapping_add(since as u64);
            write_msrs(fd, &[kvm_msr_entry { index: MSR_TSC, data: now, ..Default::default() }])?;
        }
        write_msrs(fd, &entries)
    }
}

fn too_long(what: &'static str) -> Error {
    Error::Kvm { what, source: kvm_ioctls::Error::new(libc::E2BIG) }
}

/// As many registers as one call takes.
const MSRS_AT_ONCE: usize = kvm_bindings::KVM_MAX_MSR_ENTRIES;

/// Those of the registers that can be read.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
    let wanted: Vec<_> = indices.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    let mut found = Vec::with_capacity(wanted.len());
    let mut left = wanted.as_slice();
    while !left.is_empty() {
        let piece = &left[..left.len().min(MSRS_AT_ONCE)];
        let mut msrs = Msrs::from_entries(piece).map_err(|_| too_long("model-specific registers"))?;
        let count = fd.get_msrs(&mut msrs).map_err(kvm("reading model-specific registers"))?;
        found.extend_from_slice(&msrs.as_slice()[..count]);
        // KVM stops at the first one that this processor does not have.
        left = &left[count + usize::from(count < piece.len())..];
    }
    Ok(found)
}

fn write_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), Error> {
    let mut left = entries;
    while !left.is_empty() {
        let piece = &left[..left.len().min(MSRS_AT_ONCE)];
        let msrs = Msrs::from_entries(piece).map_err(|_| too_long("model-specific registers"))?;
        let count = fd.set_msrs(&msrs).map_err(kvm("setting model-specific registers"))?;
        // One that was never used need not be there.
        if let Some(refused) = piece.get(count).filter(|entry| entry.data != 0) {
            return Err(Error::Msr { index: refused.index, value: refused.data });
        }
        left = &left[count + usize::from(count < piece.len())..];
    }
    Ok(())
}

/// Words of CPUID that are sets of features: leaf, subleaf, register, and what the word is called.
const WORDS: [(u32, u32, Register); 14] = [
    (0x1, 0, Register::Ecx),
    (0x1, 0, Register::Edx),
    (0x7, 0, Register::Ebx),
    (0x7, 0, Register::Ecx),
    (0x7, 0, Register::Edx),
    (0x7, 1, Register::Eax),
    (0xd, 0, Register::Eax),
    (0xd, 1, Register::Eax),
    (0x8000_0001, 0, Register::Ecx),
    (0x8000_0001, 0, Register::Edx),
    (0x8000_0007, 0, Register::Edx),
    (0x8000_0008, 0, Register::Ebx),
    (0x8000_0021, 0, Register::Eax),
    (0x4000_0001, 0, Register::Eax),
];

/// What people call the features that differ between hosts most often.
const NAMES: [(u32, Register, u32, &str); 16] = [
    (0x1, Register::Ecx, 0, "SSE3"),
    (0x1, Register::Ecx, 9, "SSSE3"),
    (0x1, Register::Ecx, 12, "FMA"),
    (0x1, Register::Ecx, 19, "SSE4.1"),
    (0x1, Register::Ecx, 20, "SSE4.2"),
    (0x1, Register::Ecx, 21, "x2APIC"),
    (0x1, Register::Ecx, 23, "POPCNT"),
    (0x1, Register::Ecx, 25, "AES"),
    (0x1, Register::Ecx, 26, "XSAVE"),
    (0x1, Register::Ecx, 28, "AVX"),
    (0x1, Register::Ecx, 30, "RDRAND"),
    (0x7, Register::Ebx, 3, "BMI1"),
    (0x7, Register::Ebx, 5, "AVX2"),
    (0x7, Register::Ebx, 8, "BMI2"),
    (0x7, Register::Ebx, 16, "AVX-512"),
    (0x7, Register::Ebx, 29, "SHA"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

fn word(table: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32, register: Register) -> u32 {
    let entry = table.iter().find(|entry| (entry.function, entry.index) == (leaf, subleaf));
    entry.map_or(0, |entry| match register {
        Register::Eax => entry.eax,
        Register::Ebx => entry.ebx,
        Register::Ecx => entry.ecx,
        Register::Edx => entry.edx,
    })
}

/// Whether a processor whose table would be `host` can be the one whose table is `saved`.
pub fn check_features(saved: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Result<(), Error> {
    for (leaf, subleaf, register) in WORDS {
        let missing = word(saved, leaf, subleaf, register) & !word(host, leaf, subleaf, register);
        if missing != 0 {
            let bit = missing.trailing_zeros();
            let name = NAMES.iter().find(|(of, word, at, _)| (*of, *word, *at) == (leaf, register, bit));
            let place = format!("CPUID leaf {leaf:#x}.{subleaf} {register:?} bit {bit}").to_lowercase();
            return Err(Error::Feature(name.map_or(place.clone(), |(.., name)| format!("{name} ({place})"))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_the_host_lacks_is_named_and_more_than_the_guest_knows_is_no_harm() {
        let entry = |ecx, edx| kvm_cpuid_entry2 { function: 1, ecx, edx, ..Default::default() };
        check_features(&[entry(1, 1)], &[entry(3, 1)]).unwrap();
        let error = check_features(&[entry(1 << 28, 1)], &[entry(3, 1)]).unwrap_err().to_string();
        assert!(error.contains("AVX (cpuid leaf 0x1.0 ecx bit 28)"), "{error}");
        let error = check_features(&[entry(0, 3)], &[]).unwrap_err().to_string();
        assert!(error.contains("lacks cpuid leaf 0x1.0 edx bit 0"), "{error}");
    }
}
