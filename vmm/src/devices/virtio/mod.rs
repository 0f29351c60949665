//! Virtio devices (virtio 1.2) behind memory-mapped registers.
//!
//! What every device needs is written once: registers and feature negotiation in [`transport`], rings
//! and interrupts in [`queue`], the thread a device runs on in [`worker`]. A device is a state machine
//! in one file that says what it offers and what to do when a queue has work.
//!
//! ```text
//!               DRIVER_OK                      fault
//!   ┌──────┐ ─────────────▶ ┌─────────┐ ─────────────────▶ ┌─────────────┐
//!   │ Idle │                │ Running │                    │ needs reset │
//!   └──────┘ ◀───────────── └─────────┘ ◀──┐               └─────────────┘
//!      ▲        status = 0    │     ▲      │ resume            │ status = 0
//!      │                pause ▼     │      │                   │
//!      │                  ┌────────┐│──────┘                   │
//!      └──────────────────│ Parked │◀──────────────────────────┘
//!           status = 0    └────────┘
//! ```
//!
//! A device sees guest memory only through the [`Io`] it is handed while it runs.

pub mod balloon;
pub mod block;
pub mod gpu;
pub mod input;
pub mod limit;
pub mod net;
pub mod queue;
#[cfg(feature = "record")]
mod record;
pub mod rng;
pub mod snd;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod vsock;
pub mod worker;

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

pub use self::queue::{Chain, Interrupt, Queue};

/// Virtio device ids (virtio 1.2 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// §5.1
    Net = 1,
    /// §5.2
    Block = 2,
    /// §5.4
    Entropy = 4,
    /// §5.5
    Balloon = 5,
    /// §5.7
    Gpu = 16,
    /// §5.8
    Input = 18,
    /// §5.10
    Vsock = 19,
    /// §5.14
    Sound = 25,
}

/// A virtio device. Its methods are called by one thread at a time.
pub trait Device: Send {
    /// Which device it is.
    fn kind(&self) -> Kind;

    /// The greatest size of each queue, powers of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// Feature bits beyond those of the transport (`VERSION_1`, `EVENT_IDX`, `INDIRECT_DESC`).
    fn features(&self) -> u64 {
        0
    }

    /// The configuration space, shared with the registers.
    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>>;

    /// The driver is ready and has accepted `features`.
    fn activate(&mut self, _features: u64) {}

    /// The driver put something in queue `index`, or the device has just started.
    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault>;

    /// Appends the descriptors to wait for besides the queues. Asked again before each wait.
    fn sources<'a>(&'a self, _interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {}

    /// Source number `index` of the last [`Device::sources`] has `events`.
    fn source_ready(&mut self, _index: usize, _events: PollFlags, _io: &mut Io) -> Result<(), Fault> {
        Ok(())
    }

    /// The device's thread is about to end, at a pause or reset or after a fault: finishes what is in flight.
    fn settle(&mut self, _io: &mut Io) -> Result<(), Fault> {
        Ok(())
    }

    /// Goes on with an empty file as its topmost layer, and never writes again to what it has written to until now, which
    /// is durable when this returns. Called while the device does not run. Only disks that the guest can write to can.
    fn new_layer(&mut self, _file: File) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only a disk that can be written to takes a new layer"))
    }

    /// Makes durable what was written. Called while the device does not run.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Back to the state before the driver came.
    fn reset(&mut self) {}

    /// The device's whole state besides its queues and configuration.
    fn save(&self) -> DeviceState;

    /// Takes a saved state on.
    fn restore(&mut self, state: DeviceState) -> Result<(), StateError>;
}

/// A device's configuration space (virtio 1.2 §2.5).
pub trait ConfigSpace: Send {
    /// Fills `data` from `offset`; what lies outside reads as zero.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// The driver writes; most devices ignore it.
    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

/// Copies `data.len()` bytes at `offset` of a configuration space; what lies outside reads as zero.
pub fn read_config(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(space.len());
    let length = data.len().min(space.len() - start);
    data[..length].copy_from_slice(&space[start..start + length]);
}

impl ConfigSpace for Vec<u8> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        read_config(self, offset, data);
    }
}

/// What a running device works with.
pub struct Io {
    /// The queues, in the device's order. A queue that the driver left out is never ready.
    pub queues: Vec<Queue>,
    /// For configuration changes; queues raise their own interrupts.
    pub interrupt: Interrupt,
}

/// The driver broke the rules, or the host failed the device, so that it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A ring or chain that makes no sense.
    #[error("queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// What the device stands on failed.
    #[error("host: {0}")]
    Host(#[from] io::Error),
    /// A request that the device cannot make sense of or answer.
    #[error("driver: {0}")]
    Driver(&'static str),
}

/// The state of any device: plain data that round-trips.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// See [`balloon`].
    Balloon(balloon::State),
    /// See [`block`].
    Block(block::State),
    /// See [`gpu`].
    Gpu(gpu::State),
    /// See [`input`].
    Input(input::State),
    /// See [`net`].
    Net(net::State),
    /// See [`rng`]: it has none.
    Rng,
    /// See [`vsock`].
    Vsock(vsock::State),
    /// See [`snd`].
    Sound(snd::State),
}

/// A saved state that does not fit the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the saved state of a virtio device does not fit: {0}")]
pub struct StateError(pub String);
