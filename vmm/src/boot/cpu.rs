//! What a virtual processor claims to be (CPUID) and the registers it starts with.

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::layout;
use crate::memory::GuestMemory;

/// Why a processor could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM refused.
    #[error("setting {what} of a processor: {source}")]
    Kvm {
        /// Registers, CPUID…
        what: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// Page tables and descriptors do not fit into memory.
    #[error("writing page tables: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// What kvm-ioctls lacks (Linux's Documentation/virt/kvm/api.rst §4.105).
mod request {
    #![allow(missing_docs)]
    vmm_sys_util::ioctl_iow_nr!(KVM_X86_SETUP_MCE, kvm_bindings::KVMIO, 0x9c, u64);
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

/// The CPUID table of processor `id` of `count`: all that KVM supports here, as one package of `count` cores.
pub fn cpuid(kvm_fd: &Kvm, id: u8, count: u8) -> Result<CpuId, Error> {
    let supported = kvm_fd.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(kvm("CPUID"))?;
    let deadline = kvm_fd.check_extension(Cap::TscDeadlineTimer);
    let mut entries: Vec<kvm_cpuid_entry2> =
        supported.as_slice().iter().filter(|entry| !matches!(entry.function, 0xb | 0x1f)).copied().collect();
    let (id, cores) = (u32::from(id), u32::from(count));
    for entry in &mut entries {
        match entry.function {
            0x1 => {
                // Initial APIC id, logical processors, cache line of 64 bytes.
                entry.ebx = id << 24 | cores << 16 | 8 << 8 | entry.ebx & 0xff;
                // Under a hypervisor; the local APIC's timer counts the TSC, so that nothing else is needed to calibrate it.
                entry.ecx |= 1 << 31 | u32::from(deadline) << 24;
                entry.edx = entry.edx & !(1 << 28) | u32::from(count > 1) << 28;
            }
            // Cores of the package and processors that share a cache (Intel). Type 0 ends the list.
            0x4 if entry.eax & 0x1f != 0 => {
                let shared = if entry.eax >> 5 & 7 == 3 { cores.next_power_of_two() - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | (cores.next_power_of_two() - 1) << 26 | shared << 14;
            }
            // Cores of the package (AMD).
            0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (cores - 1) | cores.next_power_of_two().ilog2() << 12,
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
    }
    if entries.iter().any(|entry| entry.function == 0 && entry.eax >= 0xb) {
        let shift = cores.next_power_of_two().ilog2();
        let level = |index: u32, eax: u32, ebx: u32, kind: u32| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: kind << 8 | index,
            edx: id,
            ..Default::default()
        };
        // Threads of a core, cores of the package, end of list.
        entries.extend([level(0, 0, 1, 1), level(1, shift, cores, 2), level(2, 0, 0, 0)]);
    }
    entries.truncate(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
    // Cannot fail: the list was just cut to the table's greatest length.
    CpuId::from_entries(&entries).map_err(|_| Error::Kvm { what: "CPUID", source: kvm_ioctls::Error::new(libc::E2BIG) })
}

/// Descriptor table and page tables that the first processor starts with, and what stands in for
/// firmware at its reset vector.
pub fn write_tables(memory: &GuestMemory) -> Result<(), Error> {
    // Linux on hardware-reduced ACPI without EFI restarts by jumping to the reset vector in real mode. There it
    // finds: mov al, 0xfe; out 0x64, al; hlt; jmp to the hlt. That is the reset line of the keyboard controller.
    memory.write_slice(&[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd], GuestAddress(layout::RESET_VECTOR))?;
    // Empty, empty, 64-bit code (selector 0x10), data (0x18), task state (0x20): the selectors are the boot protocol's.
    let gdt: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_ffff];
    for (address, entry) in (layout::GDT..).step_by(8).zip(gdt) {
        memory.write_obj(entry, GuestAddress(address))?;
    }
    const PRESENT_WRITABLE: u64 = 3;
    const HUGE: u64 = 1 << 7;
    let (pml4, pdpt) = (layout::PAGE_TABLES, layout::PAGE_TABLES + 0x1000);
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(pml4))?;
    for gib in 0..4 {
        let directory = layout::PAGE_TABLES + 0x2000 + gib * 0x1000;
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + gib * 8))?;
        for page in 0..512 {
            let address = gib << 30 | page << 21;
            memory.write_obj(address | HUGE | PRESENT_WRITABLE, GuestAddress(directory + page * 8))?;
        }
    }
    Ok(())
}

/// Puts a processor at `entry` in long mode with `boot_params` in RSI. The others wait for a start-up
/// interrupt, as KVM makes them; they need no registers.
pub fn set_boot_registers(vcpu: &VcpuFd, entry: GuestAddress) -> Result<(), Error> {
    let segment = |selector: u16, type_: u8, s: u8| kvm_segment {
        base: 0,
        limit: if s == 1 { u32::MAX } else { 0xffff },
        selector,
        type_,
        present: 1,
        s,
        g: s,
        ..Default::default()
    };
    let code = kvm_segment { l: 1, ..segment(0x10, 0xb, 1) };
    let data = kvm_segment { db: 1, ..segment(0x18, 0x3, 1) };
    let mut sregs = vcpu.get_sregs().map_err(kvm("segments"))?;
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(0x20, 0xb, 0);
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = 0x8000_0011; // paging, extension type, protection
    sregs.cr3 = layout::PAGE_TABLES;
    sregs.cr4 = 0x20; // physical address extension
    sregs.efer = 0x500; // long mode enabled and active
    vcpu.set_sregs(&sregs).map_err(kvm("segments"))?;
    let regs = kvm_regs { rip: entry.0, rsi: layout::BOOT_PARAMS, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).map_err(kvm("registers"))?;
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(kvm("the FPU"))
}

/// What firmware does on every processor: memory is write-back cached, fast string operations are on,
/// and the local APIC passes the board's interrupt and NMI lines through.
pub fn set_firmware_state(vcpu: &VcpuFd) -> Result<(), Error> {
    // One bank of machine check registers instead of 32: nothing ever reports to them, and Linux reads and writes
    // each with some six exits. It must be one, or Linux complains. A KVM without machine checks may refuse.
    let banks = 1u64;
    // SAFETY: the ioctl reads one u64, which lives through the call.
    unsafe { ioctl_with_ref(vcpu, request::KVM_X86_SETUP_MCE(), &banks) };

    // AVX is on (XCR0). Kernels that use it do this themselves, but where KVM itself runs on an emulated processor it can
    // miss that: it then tells a wrong size of the registers, and Linux warns with a trace and some two dozen exits. Without AVX
    // KVM refuses, and nothing is lost.
    let mut avx = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    avx.xcrs[0] = kvm_xcr { xcr: 0, value: 7, ..Default::default() };
    let _ = vcpu.set_xcrs(&avx);

    const MISC_ENABLE: u32 = 0x1a0;
    const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let msrs = [msr(MISC_ENABLE, 1), msr(MTRR_DEFAULT_TYPE, 1 << 11 | 6)];
    // Two entries always fit.
    let msrs = Msrs::from_entries(&msrs)
        .map_err(|_| Error::Kvm { what: "MSRs", source: kvm_ioctls::Error::new(libc::E2BIG) })?;
    vcpu.set_msrs(&msrs).map_err(kvm("MSRs"))?;

    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    let mut lapic = vcpu.get_lapic().map_err(kvm("the local APIC"))?;
    for (register, mode) in [(LVT_LINT0, 7u32), (LVT_LINT1, 4)] {
        for (byte, value) in lapic.regs[register..register + 4].iter_mut().zip((mode << 8).to_le_bytes()) {
            *byte = value as _;
        }
    }
    vcpu.set_lapic(&lapic).map_err(kvm("the local APIC"))
}
