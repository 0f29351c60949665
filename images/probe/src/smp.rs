//! Starting further processors: INIT, then a start-up interrupt, as on hardware.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{cpu, interrupt};

/// Where a woken processor starts; the page number goes into the start-up interrupt.
const TRAMPOLINE: usize = 0x8000;
const INIT: u32 = 0x4500;
const START_UP: u32 = 0x4600 | (TRAMPOLINE >> 12) as u32;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static processors_started: AtomicU32;
}

static WORK: AtomicUsize = AtomicUsize::new(0);

/// Starts processors 1 to `count - 1`, each of which calls `work` with its order of arrival, once.
/// Returns how many run, this one included.
pub fn start(count: usize, work: fn(usize)) -> usize {
    WORK.store(work as usize, Ordering::Release);
    // SAFETY: boot.s holds code between the two labels; low memory at TRAMPOLINE is free for the
    // guest: the command line and the memory map are read from elsewhere.
    unsafe {
        let (from, to) = (&raw const trampoline_start, &raw const trampoline_end);
        (TRAMPOLINE as *mut u8).copy_from_nonoverlapping(from, to as usize - from as usize);
    }
    for processor in 1..count {
        let before = started();
        interrupt::command(processor, INIT);
        interrupt::sleep(1);
        for _ in 0..2 {
            interrupt::command(processor, START_UP);
            if interrupt::wait_for(200, || (started() > before).then_some(())).is_some() {
                break;
            }
        }
    }
    started()
}

fn started() -> usize {
    // SAFETY: defined in boot.s, counted up atomically.
    unsafe { processors_started.load(Ordering::Acquire) as usize }
}

/// What a further processor does.
pub(crate) fn run(processor: usize) -> ! {
    // SAFETY: `start` stored a function of this type before it woke this processor.
    let work: fn(usize) = unsafe { core::mem::transmute(WORK.load(Ordering::Acquire)) };
    interrupt::cross(0); // lets processor 0 look at once
    work(processor);
    loop {
        interrupt::clear_woken(processor);
        cpu::halt();
    }
}
