//! The serial port's input.

use alloc::string::String;

use guest::params::BootParams;
use guest::serial::Serial;
use guest::{interrupt, println};

use crate::{Outcome, ensure};

const LINE: u32 = 4;

/// Waits for a byte from the host, by interrupt.
pub fn wait_for_byte() -> u8 {
    interrupt::wait(|| Serial.receive())
}

/// Makes [`wait_for_byte`] work.
pub fn listen() {
    interrupt::route_line(LINE, 0);
    Serial.interrupt_on_input();
}

/// Repeats lines until one says `end`.
pub fn echo(_: &BootParams) -> Outcome {
    listen();
    println!("READY");
    loop {
        let mut line = String::new();
        loop {
            match wait_for_byte() {
                b'\n' => break,
                byte => line.push(char::from(byte)),
            }
        }
        println!("echo {line}");
        if line == "end" {
            break;
        }
    }
    // The kernel delivers it by itself; a guest that happens to look at the right moment may be faster.
    let interrupted = interrupt::wait_for(1000, || (interrupt::line_count(LINE) > 0).then_some(()));
    ensure!(interrupted.is_some(), "input came without an interrupt");
    Ok(())
}
