//! The PC's keyboard controller, of which only the reset line exists: kernels told `reboot=k` use it.

use std::sync::mpsc::Sender;

use crate::bus::BusDevice;
use crate::machine::Command;

const COMMAND: u64 = 4;
const PULSE_RESET: u8 = 0xfe;

/// Ports 0x60 to 0x64. It has no state: reads are zero, "nothing to read, ready for a command".
pub struct I8042(pub Sender<Command>);

impl BusDevice for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == COMMAND && data[0] == PULSE_RESET {
            // Without a receiver the machine is ending already.
            let _ = self.0.send(Command::GuestReset);
        }
    }
}
