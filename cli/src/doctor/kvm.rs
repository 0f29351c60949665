//! Whether `/dev/kvm` runs guest kernels on the processor or emulates them.
//!
//! Some hosts offer the whole KVM API without virtualization hardware and interpret a guest's kernel
//! code with an emulator that knows few instructions. So a guest of two instructions is really run:
//! `popcnt` in long mode at privilege level 0 works on hardware, and such an emulator refuses it.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// What runs a guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The processor.
    Hardware,
    /// An emulator, which stock kernels do not survive.
    Software,
    /// Nothing: KVM cannot be used.
    None,
}

/// Why the guest did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anything that KVM says.
    #[error("{doing}: {error}")]
    Kvm {
        /// What was being done.
        doing: &'static str,
        /// What the kernel says.
        error: kvm_ioctls::Error,
    },
    /// The guest's memory.
    #[error("guest memory: {0}")]
    Memory(String),
    /// It ended in a way that neither hardware nor a known emulator does.
    #[error("the guest ended with {0}")]
    Exit(String),
}

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x4000;
const SIZE: usize = 0x1_0000;

/// `popcnt eax, ecx; hlt`
const GUEST: [u8; 5] = [0xf3, 0x0f, 0xb8, 0xc1, 0xf4];

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

/// Runs the guest.
pub fn probe(kvm: &Kvm) -> Result<Kind, Error> {
    let failed = |doing| move |error| Error::Kvm { doing, error };
    let memory = memory().map_err(Error::Memory)?;
    let vm = kvm.create_vm().map_err(failed("making a virtual machine"))?;
    let host = memory.get_host_address(GuestAddress(0)).map_err(|error| Error::Memory(error.to_string()))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: SIZE as u64,
        userspace_addr: host as u64,
    };
    // SAFETY: the region is the whole mapping of `memory`, which is dropped after `vm` and its processor.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("giving it memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("giving it a processor"))?;

    let mut special = vcpu.get_sregs().map_err(failed("reading registers"))?;
    special.cr0 = 0x8000_0011; // paging, protected mode, x87
    special.cr3 = PML4;
    special.cr4 = 0x20; // physical address extension
    special.efer = 0x500; // long mode, enabled and active
    let segment =
        kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, selector: 0x10, type_: 3, db: 1, ..Default::default() };
    special.cs = kvm_segment { selector: 0x8, type_: 11, l: 1, db: 0, ..segment };
    (special.ds, special.es, special.ss) = (segment, segment, segment);
    vcpu.set_sregs(&special).map_err(failed("setting registers"))?;
    let registers = kvm_regs { rip: CODE, rcx: 0xff, rflags: 2, ..Default::default() };
    vcpu.set_regs(&registers).map_err(failed("setting registers"))?;

    match vcpu.run().map_err(failed("running it"))? {
        VcpuExit::Hlt => {
            let counted = vcpu.get_regs().map_err(failed("reading registers"))?.rax;
            if counted == 8 { Ok(Kind::Hardware) } else { Ok(Kind::Software) }
        }
        VcpuExit::InternalError => Ok(Kind::Software),
        exit => Err(Error::Exit(format!("{exit:?}"))),
    }
}

/// The guest and an identity mapping of the first 2 MiB.
fn memory() -> Result<GuestMemoryMmap, String> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), SIZE)]).map_err(|error| error.to_string())?;
    let tables = [(PML4, PDPT | PRESENT_WRITABLE), (PDPT, PD | PRESENT_WRITABLE), (PD, LARGE_PAGE | PRESENT_WRITABLE)];
    for (table, entry) in tables {
        memory.write_obj(entry, GuestAddress(table)).map_err(|error| error.to_string())?;
    }
    memory.write_slice(&GUEST, GuestAddress(CODE)).map_err(|error| error.to_string())?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_tells_hardware_from_an_emulator_as_the_loaded_module_does() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("no /dev/kvm here");
            return;
        };
        let loaded = |name: &str| std::path::Path::new("/sys/module").join(name).exists();
        let kind = probe(&kvm).unwrap();
        if loaded("kvm_pvm") {
            assert_eq!(kind, Kind::Software);
        } else if loaded("kvm_intel") || loaded("kvm_amd") {
            assert_eq!(kind, Kind::Hardware);
        }
    }
}
