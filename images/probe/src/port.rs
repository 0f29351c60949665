//! Input/output ports, and what single bytes there do to the machine.

use core::arch::asm;

/// ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI reset register.
pub const RESET: u16 = 0x602;
/// Command port of the keyboard controller.
pub const I8042_COMMAND: u16 = 0x64;

/// Writes a byte to a port.
pub fn write(port: u16, value: u8) {
    // SAFETY: reaches a device, never this program's memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads a byte from a port.
pub fn read(port: u16) -> u8 {
    let value;
    // SAFETY: as in `write`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Writes two bytes.
pub fn write_u16(port: u16, value: u16) {
    // SAFETY: as in `write`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads two bytes.
pub fn read_u16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `write`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Writes four bytes.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads four bytes.
pub fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `write`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Ends the machine: ACPI state S5 (SLP_TYP 5, SLP_EN).
pub fn power_off() -> ! {
    write(SLEEP_CONTROL, 5 << 2 | 1 << 5);
    // A machine that does not know the port is stopped by a triple fault.
    crate::cpu::triple_fault()
}
