//! The first serial port, a 16550 at 0x3f8.

use core::fmt;

#[doc(hidden)]
pub use alloc::format;

use crate::port;

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const FIFO_CONTROL: u16 = DATA + 2;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const FIFO: usize = 16;

/// The port as a sink of text; see [`crate::println`].
pub struct Serial;

impl Serial {
    /// Sends bytes, a FIFO at a time.
    pub fn send(&self, bytes: &[u8]) {
        for chunk in bytes.chunks(FIFO) {
            while port::read(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            for byte in chunk {
                port::write(DATA, *byte);
            }
        }
    }

    /// A received byte, if there is one.
    pub fn receive(&self) -> Option<u8> {
        (port::read(LINE_STATUS) & DATA_READY != 0).then(|| port::read(DATA))
    }

    /// Asks for an interrupt when a byte arrives.
    pub fn interrupt_on_input(&self) {
        port::write(FIFO_CONTROL, 1);
        port::write(MODEM_CONTROL, 0x0b); // OUT2 connects the interrupt line
        port::write(INTERRUPT_ENABLE, 1);
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

/// Prints a line on the serial port, in one piece.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        let mut line = $crate::serial::format!($($argument)*);
        line.push('\n');
        $crate::serial::Serial.send(line.as_bytes());
    }};
}
