//! Every port that ends or resets nothing, and addresses where there is no device.

use guest::params::BootParams;
use guest::{port, println};

use crate::{Outcome, ensure};

/// Ports that the interrupt controllers and the timer in the kernel answer.
const KERNEL: [core::ops::RangeInclusive<u16>; 5] = [0x20..=0x21, 0x40..=0x43, 0x61..=0x61, 0xa0..=0xa1, 0x4d0..=0x4d1];

/// Reads and writes where nobody answers, and the wrong things where somebody does.
pub fn everything(_: &BootParams) -> Outcome {
    let harmless = |p: u16| !(0x3f8..=0x3ff).contains(&p) && !KERNEL.iter().any(|range| range.contains(&p));
    for p in (0..0x700).filter(|p| harmless(*p)) {
        core::hint::black_box((port::read(p), port::read_u16(p), port::read_u32(p)));
        // Zero neither resets nor sleeps.
        if ![port::I8042_COMMAND, 0x70].contains(&p) {
            port::write(p, 0);
        }
        if !(port::SLEEP_CONTROL - 3..=port::RESET).contains(&p) {
            port::write_u16(p, 0);
            port::write_u32(p, 0);
        }
    }
    for p in [0xcf8, 0xcfc, 0xffff] {
        port::write(p, 0xff);
        core::hint::black_box(port::read_u32(p.min(0xfffc)));
    }
    for command in (0..=255).filter(|command| *command != 0xfe && command & 0xf0 != 0xf0) {
        port::write(port::I8042_COMMAND, command);
        port::write(0x60, 0xfe);
        core::hint::black_box((port::read(port::I8042_COMMAND), port::read(0x60)));
    }
    // Sleep states other than 5, without and with the bit that goes to sleep, and no reset but by 1.
    for value in (0..=255).filter(|value| *value & 1 << 5 == 0) {
        port::write(port::SLEEP_CONTROL, value);
    }
    for value in (0..=255).filter(|value| *value != 1) {
        port::write(port::RESET, value);
    }
    for register in 0..=255 {
        port::write(0x70, register);
        core::hint::black_box(port::read(0x71));
    }
    for address in [0xd001_0000_usize, 0xd000_f000, 0xdfff_fff8, 0xe000_0000, 0xff00_0000] {
        // SAFETY: mapped; no memory of this program is there.
        unsafe {
            let at = address as *mut u32;
            at.write_volatile(u32::MAX);
            at.read_volatile();
        }
    }
    // The serial port, in loopback and with every interrupt enabled, then as it was.
    for (register, value) in [(4, 0x1f), (1, 0xff), (3, 0x80), (0, 0xff), (1, 0xff), (3, 3), (2, 0xff), (1, 0), (4, 3)]
    {
        port::write(0x3f8 + register, value);
    }
    let status = port::read(0x3fd);
    ensure!(status & 0x20 != 0, "the serial port is not ready: {status:#x}");
    println!("still here");
    Ok(())
}
