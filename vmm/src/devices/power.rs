//! Power: sleep control and status (ACPI 6.5 §4.8.3.7), of which only "soft off" exists, and reset.

use std::sync::mpsc::Sender;

use crate::boot::acpi::SLEEP_TYPE_OFF;
use crate::bus::BusDevice;
use crate::machine::Command;

const SLEEP_CONTROL: u64 = 0;
const RESET: u64 = 2;
const SLEEP_ENABLE: u8 = 1 << 5;

/// Three ports; see [`crate::layout::POWER_PORT`]. It has no state.
pub struct Power(pub Sender<Command>);

impl BusDevice for Power {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let command = match (offset, data[0]) {
            (SLEEP_CONTROL, value) if value & SLEEP_ENABLE != 0 && value >> 2 & 7 == SLEEP_TYPE_OFF => {
                Command::GuestPowerOff
            }
            (RESET, 1) => Command::GuestReset,
            _ => return,
        };
        // Without a receiver the machine is ending already.
        let _ = self.0.send(command);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_soft_off_with_the_enable_bit_powers_off_and_only_one_resets() {
        let (sender, receiver) = channel();
        let mut power = Power(sender);
        for (offset, value) in [(0, 0), (0, 5 << 2), (0, 1 << 5), (0, 3 << 2 | 1 << 5), (1, 0xff), (2, 0)] {
            power.write(offset, &[value]);
        }
        assert!(receiver.try_recv().is_err());
        power.write(SLEEP_CONTROL, &[5 << 2 | 1 << 5]);
        assert!(matches!(receiver.try_recv(), Ok(Command::GuestPowerOff)));
        power.write(RESET, &[1]);
        assert!(matches!(receiver.try_recv(), Ok(Command::GuestReset)));
    }
}
