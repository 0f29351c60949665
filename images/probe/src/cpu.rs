//! Single instructions, those of ring 0 by way of the service gate in `boot.s`.

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

/// Waits for an interrupt, unless one came since [`crate::interrupt::clear_woken`].
pub fn halt() {
    // SAFETY: faults into ring 0, which halts there and goes on after the instruction.
    unsafe { asm!("hlt", options(nostack)) }
}

/// Registers as `cpuid` leaves them: eax, ebx, ecx, edx.
pub type Leaf = [u32; 4];

/// `cpuid` in ring 0: what the VMM shows (software KVM shows ring 3 the host's).
pub fn cpuid(leaf: u32, subleaf: u32) -> Leaf {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: service 1 changes only these registers; rbx is kept for the compiler.
    unsafe {
        asm!("mov {b}, rbx", "int3", "xchg {b}, rbx", b = out(reg) b, in("edi") 1,
            inout("eax") leaf => a, inout("ecx") subleaf => c, out("edx") d);
    }
    [a, b as u32, c, d]
}

/// Reads a model-specific register.
pub fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: service 2 changes only these registers.
    unsafe { asm!("int3", in("edi") 2, in("ecx") register, out("eax") low, out("edx") high) }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must not take away what this program stands on.
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("int3", in("edi") 3, in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32) }
}

/// Makes the processor shut down.
pub fn triple_fault() -> ! {
    // SAFETY: service 4 does not come back.
    unsafe { asm!("int3", in("edi") 4, options(noreturn)) }
}

/// The time-stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has it, in every ring.
    unsafe { _rdtsc() }
}
