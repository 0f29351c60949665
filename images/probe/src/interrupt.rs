//! The local APIC, the IOAPIC, and waiting for interrupts with a time limit.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::{cpu, port};

const LAPIC: usize = 0xfee0_0000;
const LAPIC_ID: usize = 0x20;
const SPURIOUS: usize = 0xf0;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;
const MASKED: u32 = 1 << 16;

const IOAPIC: usize = 0xfec0_0000;
const IOAPIC_WINDOW: usize = IOAPIC + 0x10;

/// Vector of interrupt line (GSI) 0; line n has vector `LINES + n`.
const LINES: u8 = 0x20;
const TIMER: u8 = 0xe0;
/// Vector of interrupts between processors.
pub const CROSS: u8 = 0xe1;

/// KVM's local APIC timer counts nanoseconds.
const TICKS_PER_MS: u32 = 1_000_000;

unsafe extern "C" {
    static interrupt_counts: [AtomicU64; 256];
    static woken: [AtomicU8; 8];
    static fault_words: [u64; 8];
}

fn lapic(register: usize) -> *mut u32 {
    (LAPIC + register) as *mut u32
}

fn lapic_write(register: usize, value: u32) {
    // SAFETY: the local APIC's page, mapped and in the kernel; registers used here reach no memory.
    unsafe { lapic(register).write_volatile(value) }
}

fn lapic_read(register: usize) -> u32 {
    // SAFETY: as in `lapic_write`.
    unsafe { lapic(register).read_volatile() }
}

/// The processor's local APIC id, which in these machines is its number.
pub fn processor() -> usize {
    (lapic_read(LAPIC_ID) >> 24) as usize
}

/// Sets up the first processor.
pub(crate) fn start() {
    // The PIC would deliver the same lines a second time.
    port::write(0x21, 0xff);
    port::write(0xa1, 0xff);
    enable_local();
}

/// Sets up the local APIC of the processor that calls.
pub(crate) fn enable_local() {
    lapic_write(LVT_LINT0, MASKED);
    lapic_write(SPURIOUS, 0x1ff);
    lapic_write(TIMER_DIVIDE, 0b1011);
    lapic_write(LVT_TIMER, u32::from(TIMER));
}

/// Sends an interrupt command to processor `to`.
pub(crate) fn command(to: usize, command: u32) {
    lapic_write(COMMAND_HIGH, (to as u32) << 24);
    lapic_write(COMMAND_LOW, command);
}

/// Interrupts processor `to` with vector [`CROSS`].
pub fn cross(to: usize) {
    command(to, 0x4000 | u32::from(CROSS));
}

/// Times that vector came, on all processors.
pub fn count(vector: u8) -> u64 {
    // SAFETY: defined in boot.s; only ever added to, atomically.
    unsafe { interrupt_counts[usize::from(vector)].load(Ordering::Acquire) }
}

/// Times that interrupt line came.
pub fn line_count(gsi: u32) -> u64 {
    count(LINES + gsi as u8)
}

/// Delivers an interrupt line (edge, active high) to a processor.
pub fn route_line(gsi: u32, to: usize) {
    let register = 0x10 + gsi * 2;
    // SAFETY: the IOAPIC's page; its registers reach no memory.
    unsafe {
        let (select, window) = (IOAPIC as *mut u32, IOAPIC_WINDOW as *mut u32);
        select.write_volatile(register + 1);
        window.write_volatile((to as u32) << 24);
        select.write_volatile(register);
        window.write_volatile(u32::from(LINES) + gsi);
    }
}

/// Forgets that an interrupt came, on the processor that calls; see [`cpu::halt`].
pub fn clear_woken(processor: usize) {
    // SAFETY: defined in boot.s; single bytes, accessed atomically.
    unsafe { woken[processor].store(0, Ordering::SeqCst) }
}

/// Waits, without cost, until `ready` returns something. For the first processor.
pub fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    loop {
        clear_woken(0);
        if let Some(value) = ready() {
            return value;
        }
        cpu::halt();
    }
}

/// Waits at most `milliseconds`. For the first processor.
pub fn wait_for<T>(milliseconds: u32, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(value) = ready() {
        return Some(value);
    }
    lapic_write(TIMER_INITIAL, milliseconds.saturating_mul(TICKS_PER_MS).max(1));
    let result = wait(|| match ready() {
        Some(value) => Some(Some(value)),
        None if lapic_read(TIMER_CURRENT) == 0 => Some(None),
        None => None,
    });
    lapic_write(TIMER_INITIAL, 0);
    result
}

/// Lets time pass.
pub fn sleep(milliseconds: u32) {
    wait_for(milliseconds, || None::<()>);
}

/// The fault that boot.s caught: vector, error code, rip, cs, rflags, rsp, cr2, count.
pub(crate) fn fault_frame() -> [u64; 8] {
    // SAFETY: defined in boot.s, which wrote it before it came here.
    unsafe { fault_words }
}
