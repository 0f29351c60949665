//! The first serial port: a 16550 in front of a [`backend`].

pub mod backend;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{SerialEvents, SerialState};
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;

use self::backend::Output;
use crate::bus::BusDevice;

/// The interrupt line.
pub struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Wakes the backend when the guest has read all that was typed.
pub struct Room(EventFd);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // A full counter has already woken the backend.
        let _ = self.0.write(1);
    }
}

/// The port, shared by the processors and the backend's thread.
#[derive(Clone)]
pub struct Serial(Arc<Mutex<Uart<Line, Room, Output>>>);

/// The port's whole state (16550 registers and what was typed but not read).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    typed: Vec<u8>,
}

impl Serial {
    /// A port that interrupts through `line`, writes to `output` and tells `room` when more can be typed.
    pub fn new(line: EventFd, room: EventFd, output: Output) -> Self {
        Self(Arc::new(Mutex::new(Uart::with_events(Line(line), Room(room), output))))
    }

    /// How many bytes can be typed now.
    pub fn capacity(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// Types at most [`Serial::capacity`] bytes.
    pub fn type_bytes(&self, bytes: &[u8]) {
        // In loopback mode, or if somebody else typed meanwhile, the bytes are lost as on a real line.
        let _ = self.lock().enqueue_raw_bytes(bytes);
    }

    /// The whole state.
    pub fn save(&self) -> State {
        let state = self.lock().state();
        State {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            typed: state.in_buffer,
        }
    }

    /// Takes a saved state on. What was typed meanwhile comes behind what waits there, as far as there is room.
    pub fn restore(&self, state: State) -> io::Result<()> {
        let state = SerialState {
            baud_divisor_low: state.divisor[0],
            baud_divisor_high: state.divisor[1],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.typed,
        };
        let mut uart = self.lock();
        let meanwhile = uart.state().in_buffer;
        set(&mut uart, &state)?;
        let room = meanwhile.len().min(uart.fifo_capacity());
        // In loopback mode they are lost, as on a real line.
        let _ = uart.enqueue_raw_bytes(&meanwhile[..room]);
        Ok(())
    }

    /// Back to how the port is at power-on.
    pub fn reset(&self) -> io::Result<()> {
        set(&mut self.lock(), &SerialState::default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Uart<Line, Room, Output>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(uart: &mut Uart<Line, Room, Output>, state: &SerialState) -> io::Result<()> {
    let line = Line(uart.interrupt_evt().0.try_clone()?);
    let room = Room(uart.events().0.try_clone()?);
    let output = uart.writer().clone();
    *uart = Uart::from_state(state, line, room, output).map_err(io::Error::other)?;
    Ok(())
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Ok(offset), [value]) = (u8::try_from(offset), data) {
            *value = self.lock().read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Ok(offset), [value]) = (u8::try_from(offset), data) {
            // What the output cannot take is lost, as on a line with nobody at its end.
            let _ = self.lock().write(offset, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> (Serial, EventFd, EventFd) {
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let room = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let serial = Serial::new(line.try_clone().unwrap(), room.try_clone().unwrap(), Output::None);
        (serial, line, room)
    }

    #[test]
    fn typed_bytes_interrupt_are_read_in_order_and_make_room_when_read() {
        let (mut serial, line, room) = port();
        serial.write(1, &[1]); // interrupt when data is received
        serial.type_bytes(b"ok");
        assert!(line.read().is_ok() && room.read().is_err());
        let mut byte = [0];
        for expected in b"ok" {
            serial.read(0, &mut byte);
            assert_eq!(byte[0], *expected);
        }
        assert!(room.read().is_ok());
    }

    #[test]
    fn wide_and_distant_accesses_are_harmless() {
        let (mut serial, ..) = port();
        serial.write(0, &[1, 2, 3, 4]);
        serial.write(500, &[1]);
        let mut data = [0xff; 8];
        serial.read(5, &mut data);
        assert_eq!(data, [0; 8]);
    }

    #[test]
    fn the_state_round_trips_and_a_reset_forgets_it() {
        let (mut serial, ..) = port();
        serial.write(7, &[0x42]);
        serial.type_bytes(b"x");
        let json = serde_json::to_string(&serial.save()).unwrap();
        let (other, ..) = port();
        other.restore(serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(other.save(), serial.save());
        other.type_bytes(b"y");
        other.restore(serial.save()).unwrap();
        assert_eq!(other.save().typed, b"xxy", "what was typed before a restore is not lost");
        let fresh = port().0.save();
        other.reset().unwrap();
        assert_eq!(other.save(), fresh);
        let hostile = State { typed: vec![0; 100_000], ..fresh };
        assert!(other.restore(hostile).is_err());
    }
}
