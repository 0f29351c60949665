//! Input devices (virtio 1.2 §5.8): a keyboard with lamps and an absolute pointer with wheel.
//!
//! Codes are those of Linux (`input-event-codes.h`), as the standard says. A key that is held down is
//! repeated by the guest itself.

mod config;
mod events;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use vm_memory::ByteValued;

use self::config::Config;
pub use self::events::{CLICK, Events, wheel};
use super::{ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};
use crate::display::Display;
use crate::event::borrow;

const EVENT_QUEUE: usize = 0;
const STATUS_QUEUE: usize = 1;

const EV_SYN: u16 = 0x00;
const EV_KEY: u16 = 0x01;
const EV_REL: u16 = 0x02;
const EV_ABS: u16 = 0x03;
const EV_LED: u16 = 0x11;
const EV_REP: u16 = 0x14;

/// The codes that the keyboard has.
pub const KEYS: RangeInclusive<u16> = 1..=247;

/// Buttons of the pointer.
pub const BTN_LEFT: u16 = 0x110;
/// See [`BTN_LEFT`].
pub const BTN_RIGHT: u16 = 0x111;
/// See [`BTN_LEFT`].
pub const BTN_MIDDLE: u16 = 0x112;
/// See [`BTN_LEFT`]; pages treat it as "back".
pub const BTN_SIDE: u16 = 0x113;
/// See [`BTN_LEFT`]; pages treat it as "forward".
pub const BTN_EXTRA: u16 = 0x114;

/// Where the pointer is, from the left.
pub const ABS_X: u16 = 0x00;
/// Where the pointer is, from the top.
pub const ABS_Y: u16 = 0x01;

/// Steps of the pointer to the right.
pub const REL_X: u16 = 0x00;
/// Steps of the pointer down.
pub const REL_Y: u16 = 0x01;

/// Clicks of the wheel to the right.
pub const REL_HWHEEL: u16 = 0x06;
/// Clicks of the wheel away from the person.
pub const REL_WHEEL: u16 = 0x08;
const REL_WHEEL_HI_RES: u16 = 0x0b;
const REL_HWHEEL_HI_RES: u16 = 0x0c;

/// Lamps by code, and their bits in [`yunju_protocol::display::Event::Leds`].
const LEDS: [(u16, u8); 3] = [(0, 1 << 1), (1, 1 << 2), (2, 1 << 0)];

/// `struct virtio_input_event` (§5.8.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InputEvent {
    kind: u16,
    code: u16,
    value: u32,
}

// SAFETY: integers only, without padding.
unsafe impl ByteValued for InputEvent {}

impl InputEvent {
    /// A key or button went down or up.
    pub const fn key(code: u16, down: bool) -> Self {
        Self { kind: EV_KEY, code, value: down as u32 }
    }

    /// The position on an axis.
    pub const fn absolute(axis: u16, value: u16) -> Self {
        Self { kind: EV_ABS, code: axis, value: value as u32 }
    }

    /// A change on an axis.
    pub const fn relative(axis: u16, value: i32) -> Self {
        Self { kind: EV_REL, code: axis, value: value.cast_unsigned() }
    }

    /// The end of what happened at one time.
    pub const SYN: Self = Self { kind: EV_SYN, code: 0, value: 0 };
}

/// A keyboard or tablet.
pub struct Input {
    events: Arc<Events>,
    config: Arc<Mutex<Config>>,
    lamps: Option<Lamps>,
}

/// A keyboard's lamps and where they are shown.
struct Lamps {
    lit: u8,
    display: Arc<Display>,
}

/// A keyboard's or tablet's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    select: u8,
    subsel: u8,
    leds: u8,
    /// What the guest believes to be down. A restored machine lets go of it: nobody holds it there.
    down: Vec<u16>,
}

impl Input {
    /// A keyboard that types `events` and shows its lamps on `display`.
    pub fn keyboard(events: Arc<Events>, display: Arc<Display>) -> Self {
        Self { events, config: Config::keyboard(), lamps: Some(Lamps { lit: 0, display }) }
    }

    /// A pointer that moves by `events`.
    pub fn tablet(events: Arc<Events>) -> Self {
        Self { events, config: Config::tablet(), lamps: None }
    }

    /// Hands events to the driver for as long as it has room for them.
    fn deliver(&mut self, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[EVENT_QUEUE];
        let memory = queue.memory().clone();
        let mut delivered = false;
        while self.events.waiting() {
            let Some(mut chain) = queue.pop(&memory)? else {
                break;
            };
            // A chain that is too short for an event is given back as it is.
            let fits = chain.writer.available_bytes() >= size_of::<InputEvent>();
            let written = match fits.then(|| self.events.take()).flatten() {
                Some(event) => {
                    chain.writer.write_all(event.as_slice())?;
                    size_of::<InputEvent>() as u32
                }
                None => 0,
            };
            queue.push(chain.head, written)?;
            delivered = true;
        }
        if delivered {
            queue.signal()?;
        }
        Ok(())
    }

    /// Takes what the driver says of lamps; all else that it may say changes nothing here.
    fn take_status(&mut self, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[STATUS_QUEUE];
        let memory = queue.memory().clone();
        while let Some(mut chain) = queue.pop(&memory)? {
            while let Ok(event) = chain.reader.read_obj::<InputEvent>() {
                if let Some(lamps) = &mut self.lamps {
                    lamps.change(&event);
                }
            }
            queue.push(chain.head, 0)?;
            queue.signal()?;
        }
        if let Some(lamps) = &self.lamps {
            lamps.show();
        }
        Ok(())
    }
}

impl Lamps {
    fn change(&mut self, event: &InputEvent) {
        let lamp = LEDS.iter().find(|(code, _)| event.kind == EV_LED && event.code == *code);
        if let Some((_, bit)) = lamp {
            self.lit = if event.value == 0 { self.lit & !bit } else { self.lit | bit };
        }
    }

    fn show(&self) {
        self.display.leds(self.lit);
    }
}

impl Device for Input {
    fn kind(&self) -> Kind {
        Kind::Input
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[64, 64]
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn activate(&mut self, _features: u64) {
        self.events.open();
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        match index {
            EVENT_QUEUE => self.deliver(io),
            _ => self.take_status(io),
        }
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        interest.push((borrow(self.events.arrived()), PollFlags::IN));
    }

    fn source_ready(&mut self, _index: usize, _events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        // Reading resets the counter; it is non-blocking, and a spurious wake-up does no harm.
        let _ = self.events.arrived().read();
        self.deliver(io)
    }

    fn reset(&mut self) {
        self.events.close();
        config::lock(&self.config).select(0, 0);
        if let Some(lamps) = &mut self.lamps {
            lamps.lit = 0;
            lamps.show();
        }
    }

    fn save(&self) -> DeviceState {
        let (select, subsel) = config::lock(&self.config).selected();
        let leds = self.lamps.as_ref().map_or(0, |lamps| lamps.lit);
        DeviceState::Input(State { select, subsel, leds, down: self.events.down() })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let DeviceState::Input(state) = state else {
            return Err(StateError(format!("{state:?} is no input device's")));
        };
        config::lock(&self.config).select(state.select, state.subsel);
        self.events.let_go(&state.down);
        if let Some(lamps) = &mut self.lamps {
            lamps.lit = state.leds;
            lamps.show();
        }
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.reset();
    }
}
