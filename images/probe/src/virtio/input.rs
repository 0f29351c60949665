//! Keyboards and tablets (virtio 1.2 §5.8).

use super::{Buffer, Device, Error, Transport, kind};
use crate::memory;

const EVENTS: u16 = 0;
const STATUS: u16 = 1;
const BUFFERS: usize = 32;

/// What the configuration space is asked (§5.8.5).
#[allow(missing_docs)]
pub mod select {
    pub const NAME: u8 = 0x01;
    pub const EVENT_BITS: u8 = 0x11;
    pub const ABSOLUTE_INFO: u8 = 0x12;
}

/// Event types (Linux `input-event-codes.h`).
#[allow(missing_docs)]
pub mod event {
    pub const SYNCHRONISE: u16 = 0;
    pub const KEY: u16 = 1;
    pub const RELATIVE: u16 = 2;
    pub const ABSOLUTE: u16 = 3;
    pub const LED: u16 = 17;
}

/// One event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event {
    /// One of [`event`].
    pub kind: u16,
    /// Which key, axis or lamp.
    pub code: u16,
    /// What of it.
    pub value: i32,
}

/// A keyboard or tablet.
pub struct Input {
    /// The device, queue 0 for events and 1 for lamps.
    pub device: Device,
    buffers: &'static mut [u8],
    heads: [u16; BUFFERS],
}

impl Input {
    /// Brings up the `nth` input device and gives it buffers for events.
    pub fn open(nth: usize) -> Result<Self, Error> {
        Self::start(Transport::find(kind::INPUT, nth)?)
    }

    /// Brings up this input device.
    pub fn start(transport: Transport) -> Result<Self, Error> {
        let device = Device::start(transport, 0, 2)?;
        let mut input = Self { device, buffers: memory::zeroed(BUFFERS * 8, 8), heads: [0; BUFFERS] };
        for buffer in 0..BUFFERS {
            input.refill(buffer);
        }
        Ok(input)
    }

    fn refill(&mut self, buffer: usize) {
        self.heads[buffer] = self.device.give(EVENTS, &[Buffer::write(&mut self.buffers[buffer * 8..][..8])]);
    }

    /// Reads what the configuration space says about a question, at most 128 bytes.
    pub fn ask(&self, select: u8, subselect: u8) -> alloc::vec::Vec<u8> {
        let transport = &self.device.transport;
        transport.write_config_u8(0, select);
        transport.write_config_u8(1, subselect);
        let size = usize::from(transport.config_u8(2)).min(128);
        (0..size).map(|byte| transport.config_u8(8 + byte)).collect()
    }

    /// Whether it can send events of a type.
    pub fn has(&self, kind: u16) -> bool {
        self.ask(select::EVENT_BITS, kind as u8).iter().any(|byte| *byte != 0)
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<Event> {
        let (head, length) = self.device.take(EVENTS)?;
        let buffer = self.heads.iter().position(|known| *known == head).expect("the device returns what it was given");
        assert!(length == 8, "an input event has {length} bytes");
        let bytes: [u8; 8] = core::array::from_fn(|byte| self.buffers[buffer * 8 + byte]);
        self.refill(buffer);
        Some(Event {
            kind: u16::from_le_bytes([bytes[0], bytes[1]]),
            code: u16::from_le_bytes([bytes[2], bytes[3]]),
            value: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }

    /// Switches a lamp: 0 num lock, 1 caps lock, 2 scroll lock.
    pub fn set_led(&mut self, led: u16, lit: bool) -> Result<(), Error> {
        let events = [Event { kind: event::LED, code: led, value: i32::from(lit) }, Event::default()];
        for event in &events {
            self.device.exchange(STATUS, &[Buffer::read(event)])?;
        }
        Ok(())
    }
}
