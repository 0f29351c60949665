//! Network device (virtio 1.2 §5.1): one pair of queues, no offloads.
//!
//! ```text
//!            ┌─ chains ─▶ transmit ─ frames ─▶┐
//!   driver ──┤                                ├── backend
//!            └◀─ chains ─ receive ◀─ frames ──┘
//! ```
//!
//! Each side can make the other wait. A backend that takes no more leaves the driver's chains in their
//! queue until it is writable; a driver without receive buffers leaves frames in the backend until it
//! brings some. A backend that ends takes the link down, and the device lives on.

mod backend;
mod mac;
mod stream;
mod tap;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use self::backend::{MAX_FRAME, MIN_FRAME};
use super::limit::Limit;
use super::{ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};

pub use self::backend::Backend;
pub use self::mac::{MacError, parse_mac, random_mac};

/// Bytes of the header before each frame in a chain (§5.1.6).
const HEADER: usize = 12;
/// The header of a received frame: nothing but `num_buffers` (offset 10), which is always 1.
const RECEIVED: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// The longest payload of a frame that the driver should send or must expect.
const MTU: u16 = 1500;
/// Reads of the backend before the other direction gets its turn.
const TURN: usize = 16;

const RX: usize = 0;
const TX: usize = 1;

const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;

const S_LINK_UP: u8 = 1;

/// Offsets in the configuration space (§5.1.4).
const CONFIG_STATUS: usize = 6;
const CONFIG_LENGTH: usize = 12;

/// Bytes of frames moved, without their virtio headers.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the world to the guest.
    pub received: AtomicU64,
    /// From the guest to the world.
    pub sent: AtomicU64,
}

/// A network interface.
pub struct Net {
    /// `None` once it has ended.
    backend: Option<Backend>,
    config: Arc<Mutex<Vec<u8>>>,
    traffic: Arc<Traffic>,
    /// A frame waits for the driver to bring a buffer.
    starved: bool,
    /// Frames wait for the backend to take them.
    blocked: bool,
    limit: Option<Limit>,
    /// Frames of either direction wait for the limit's timer.
    delayed: bool,
    /// A restored driver has not been told yet that its link has changed.
    announce: bool,
}

/// An interface's state. What was on its way is lost, as networks may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    mac: [u8; 6],
    link_up: bool,
}

impl Net {
    /// An interface with the address `mac`.
    pub fn new(backend: Backend, mac: [u8; 6], traffic: Arc<Traffic>) -> io::Result<Self> {
        let (backend, config) = (Some(backend), Arc::new(Mutex::new(configuration(mac))));
        let (starved, blocked, delayed, announce) = (false, false, false, false);
        Ok(Self { backend, config, traffic, starved, blocked, limit: None, delayed, announce })
    }

    /// The same with a limit.
    pub fn with_limit(self, limit: Option<Limit>) -> Self {
        Self { limit, ..self }
    }

    /// Whether another frame may pass now; if not, both directions go on when the limit's timer says so.
    fn may_pass(limit: &mut Option<Limit>, delayed: &mut bool) -> io::Result<bool> {
        let may = limit.as_mut().map_or(Ok(true), Limit::allows)?;
        *delayed |= !may;
        Ok(may)
    }

    fn passed(limit: &mut Option<Limit>, length: usize) {
        if let Some(limit) = limit {
            limit.charge(length as u64);
        }
    }

    /// Goes on in both directions after a delay.
    fn go_on(&mut self, io: &mut Io) -> Result<(), Fault> {
        self.delayed = false;
        if let Some(limit) = &mut self.limit {
            limit.ask_again();
        }
        self.transmit(io)?;
        self.receive(io)
    }

    /// Hands frames of the backend to the driver.
    fn receive(&mut self, io: &mut Io) -> Result<(), Fault> {
        for _ in 0..TURN {
            self.deliver(io)?;
            let Some(Backend(carrier)) = &mut self.backend else {
                return Ok(());
            };
            if self.starved || self.delayed {
                return Ok(());
            }
            match carrier.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return self.disconnect(&error, io),
            }
        }
        self.deliver(io)
    }

    /// Hands over the frames that were taken from the backend already.
    fn deliver(&mut self, io: &mut Io) -> Result<(), Fault> {
        let Some(Backend(carrier)) = &mut self.backend else {
            return Ok(());
        };
        let queue = &mut io.queues[RX];
        let memory = queue.memory().clone();
        let mut delivered = false;
        self.starved = false;
        while let Some(frame) = carrier.frame() {
            if !Self::may_pass(&mut self.limit, &mut self.delayed)? {
                break;
            }
            let Some(mut chain) = queue.pop(&memory)? else {
                self.starved = true;
                break;
            };
            let fits = chain.writer.available_bytes() >= HEADER + frame.len();
            let written = if fits {
                chain.writer.write_all(&RECEIVED)?;
                chain.writer.write_all(frame)?;
                self.traffic.received.fetch_add(frame.len() as u64, Ordering::Relaxed);
                (HEADER + frame.len()) as u32
            } else {
                // The frame is lost, and the chain, which is too short for any frame or for this one, is not kept.
                0
            };
            Self::passed(&mut self.limit, frame.len());
            carrier.consume();
            queue.push(chain.head, written)?;
            delivered = true;
        }
        if delivered { queue.signal() } else { Ok(()) }
    }

    /// Hands frames of the driver to the backend, until there are no more or it takes no more.
    fn transmit(&mut self, io: &mut Io) -> Result<(), Fault> {
        let memory = io.queues[TX].memory().clone();
        let mut taken = false;
        loop {
            let queue = &mut io.queues[TX];
            let mut rest = false;
            while self.backend.as_ref().is_none_or(|Backend(carrier)| carrier.has_room()) {
                if !Self::may_pass(&mut self.limit, &mut self.delayed)? {
                    rest = true;
                    break;
                }
                let Some(mut chain) = queue.pop(&memory)? else {
                    rest = true;
                    break;
                };
                let length = chain.reader.available_bytes().saturating_sub(HEADER);
                if let Some(Backend(carrier)) = &mut self.backend
                    && (MIN_FRAME..=MAX_FRAME).contains(&length)
                {
                    // No offload was offered, so nothing in the header matters.
                    let mut frame = chain.reader.split_at(HEADER)?;
                    carrier.enqueue(&mut frame, length)?;
                    self.traffic.sent.fetch_add(length as u64, Ordering::Relaxed);
                }
                Self::passed(&mut self.limit, length);
                queue.push(chain.head, 0)?;
                taken = true;
            }
            match self.backend.as_mut().map(|Backend(carrier)| carrier.flush()) {
                Some(Ok(sent)) => self.blocked = !sent,
                Some(Err(error)) => self.disconnect(&error, io)?,
                None => {}
            }
            if self.blocked || rest {
                break;
            }
        }
        if taken { io.queues[TX].signal() } else { Ok(()) }
    }

    /// Takes the link down for good.
    fn disconnect(&mut self, error: &io::Error, io: &mut Io) -> Result<(), Fault> {
        eprintln!("yunju-vmm: the network link is down: {error}");
        self.backend = None;
        (self.starved, self.blocked) = (false, false);
        self.set_config(CONFIG_STATUS, &[0, 0]);
        io.interrupt.config_changed()?;
        Ok(())
    }

    fn set_config(&self, offset: usize, value: &[u8]) {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config[offset..offset + value.len()].copy_from_slice(value);
    }
}

/// The configuration space (§5.1.4) with the link up.
fn configuration(mac: [u8; 6]) -> Vec<u8> {
    let mut space = vec![0; CONFIG_LENGTH];
    space[..6].copy_from_slice(&mac);
    space[CONFIG_STATUS] = S_LINK_UP;
    space[8] = 1; // max_virtqueue_pairs
    space[10..12].copy_from_slice(&MTU.to_le_bytes());
    space
}

impl Device for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[256, 256]
    }

    fn features(&self) -> u64 {
        F_MAC | F_STATUS | F_MTU
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        if std::mem::take(&mut self.announce) {
            io.interrupt.config_changed()?;
        }
        if self.delayed {
            return self.go_on(io);
        }
        match index {
            // Buffers that nothing waits for stay in their queue.
            RX if self.starved => self.receive(io),
            TX if !self.blocked => self.transmit(io),
            _ => Ok(()),
        }
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        interest.extend(self.limit.as_ref().and_then(Limit::source).map(|timer| (timer, PollFlags::IN)));
        let Some(Backend(carrier)) = &self.backend else {
            return;
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.starved && !self.delayed);
        flags.set(PollFlags::OUT, self.blocked);
        // A descriptor waited for with no flags would still report a hang-up, again and again.
        if !flags.is_empty() {
            interest.push((carrier.fd(), flags));
        }
    }

    fn source_ready(&mut self, _index: usize, events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        if self.delayed {
            return self.go_on(io);
        }
        if self.blocked && events.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            self.transmit(io)?;
        }
        if !self.starved && events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive(io)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        // What the backend holds stays: half a frame on a stream must be followed by its other half.
        (self.starved, self.delayed) = (false, false);
    }

    fn save(&self) -> DeviceState {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mac = [0; 6];
        mac.copy_from_slice(&config[..6]);
        DeviceState::Net(State { mac, link_up: self.backend.is_some() })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let DeviceState::Net(state) = state else {
            return Err(StateError(format!("{state:?} instead of a network device's")));
        };
        // The guest knows its address; the link is what this backend says.
        self.set_config(0, &state.mac);
        self.announce = state.link_up != self.backend.is_some();
        Ok(())
    }
}
