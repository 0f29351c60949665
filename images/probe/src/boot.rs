//! From the assembly in `boot.s` to the guest's main function, and what a freestanding program lacks.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::params::BootParams;
use crate::{interrupt, memory, port, println, smp};

global_asm!(include_str!("boot.s"));

static PARAMS: AtomicUsize = AtomicUsize::new(0);

/// What the boot loader told.
pub fn boot_params() -> BootParams {
    // SAFETY: `guest_start` stored the pointer that the boot protocol guarantees, before anything else.
    unsafe { BootParams::at(PARAMS.load(Ordering::Relaxed)) }
}

unsafe extern "C" {
    safe fn guest_main() -> !;
}

#[unsafe(no_mangle)]
extern "C" fn guest_start(params: usize) -> ! {
    PARAMS.store(params, Ordering::Relaxed);
    memory::start(&boot_params());
    interrupt::start();
    guest_main()
}

#[unsafe(no_mangle)]
extern "C" fn guest_further(processor: usize) -> ! {
    interrupt::enable_local();
    smp::run(processor)
}

/// Reports a fault and ends the machine.
#[unsafe(no_mangle)]
extern "C" fn guest_fault() -> ! {
    let fault = interrupt::fault_frame();
    println!(
        "\nPROBE FAIL fault {} error {:#x} at {:#x} (cs {:#x} rsp {:#x} cr2 {:#x})",
        fault[0], fault[1], fault[2], fault[3], fault[5], fault[6]
    );
    port::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("\nPROBE FAIL {info}");
    port::power_off()
}

/// The unwinder's hook that the prebuilt core library names; nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    port::power_off()
}

// The memory routines that the compiler calls. `rep` is the fast way here and cannot be turned back
// into a call of the routine itself.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller promises both ranges, as for C's memcpy.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: as promised by the caller; copying upwards does not overwrite what is still to be read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: as promised by the caller; `count` is above zero, so the last bytes exist.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") to.add(count).sub(1) => _,
            inout("rsi") from.add(count).sub(1) => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller promises the range.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller promises both ranges.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the caller promises both ranges.
    unsafe { memcmp(a, b, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller promises a terminated string.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
