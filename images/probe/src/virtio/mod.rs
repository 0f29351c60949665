//! Virtio over MMIO (virtio 1.2 §4.2): finding devices and bringing them up.

pub mod balloon;
pub mod block;
pub mod gpu;
pub mod input;
pub mod net;
mod queue;
pub mod rng;
pub mod snd;
pub mod vsock;

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{Ordering, fence};

pub use queue::{Buffer, Descriptor, INDIRECT, NEXT, Queue, WRITE};

use crate::interrupt;

const SLOTS: usize = 0xd000_0000;
const SLOT_SIZE: usize = 0x1000;
const SLOT_COUNT: u32 = 16;
const FIRST_LINE: u32 = 6;
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");

/// How long a device may take to answer.
pub const PATIENCE_MS: u32 = 2_000;

/// Registers (§4.2.2).
#[allow(missing_docs)]
pub mod register {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SELECT: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SELECT: usize = 0x024;
    pub const QUEUE_SELECT: usize = 0x030;
    pub const QUEUE_SIZE_MAX: usize = 0x034;
    pub const QUEUE_SIZE: usize = 0x038;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const INTERRUPT_STATUS: usize = 0x060;
    pub const INTERRUPT_ACK: usize = 0x064;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESCRIPTORS: usize = 0x080;
    pub const QUEUE_AVAILABLE: usize = 0x090;
    pub const QUEUE_USED: usize = 0x0a0;
    pub const CONFIG_GENERATION: usize = 0x0fc;
    pub const CONFIG: usize = 0x100;
}

/// Bits of the status register (§2.1).
#[allow(missing_docs)]
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// Device ids (§5).
#[allow(missing_docs)]
pub mod kind {
    pub const NET: u32 = 1;
    pub const BLOCK: u32 = 2;
    pub const RNG: u32 = 4;
    pub const BALLOON: u32 = 5;
    pub const GPU: u32 = 16;
    pub const INPUT: u32 = 18;
    pub const VSOCK: u32 = 19;
    pub const SOUND: u32 = 25;
}

/// The feature every device of version 2 has.
pub const VERSION_1: u64 = 1 << 32;
/// Chains may lie in a table of their own.
pub const INDIRECT_DESCRIPTORS: u64 = 1 << 28;

/// Why a device did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No such device in any slot.
    Absent,
    /// The device cleared FEATURES_OK.
    FeaturesRefused,
    /// The device has fewer queues than its kind needs.
    NoQueue(u16),
    /// A request came not back in time.
    Silent(u16),
    /// The device answered with this status instead of success.
    Refused(u32),
    /// The answer is none that the specification knows.
    Nonsense(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "no such device"),
            Self::FeaturesRefused => write!(f, "the device refused the features"),
            Self::NoQueue(queue) => write!(f, "the device has no queue {queue}"),
            Self::Silent(queue) => write!(f, "no answer on queue {queue}"),
            Self::Refused(status) => write!(f, "refused with status {status:#x}"),
            Self::Nonsense(value) => write!(f, "nonsense answer {value:#x}"),
        }
    }
}

/// The registers of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    slot: u32,
}

impl Transport {
    /// The devices there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT).map(|slot| Self { slot }).filter(|transport| {
            transport.read(register::MAGIC) == MAGIC_VALUE
                && transport.read(register::VERSION) == 2
                && transport.read(register::DEVICE_ID) != 0
        })
    }

    /// The `nth` device of a kind, from 0.
    pub fn find(kind: u32, nth: usize) -> Result<Self, Error> {
        Self::all().filter(|t| t.kind() == kind).nth(nth).ok_or(Error::Absent)
    }

    /// The device id, one of [`kind`].
    pub fn kind(&self) -> u32 {
        self.read(register::DEVICE_ID)
    }

    /// The slot's number.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The interrupt line.
    pub fn line(&self) -> u32 {
        FIRST_LINE + self.slot
    }

    fn address(&self, offset: usize) -> usize {
        SLOTS + self.slot as usize * SLOT_SIZE + offset
    }

    /// The device's page, for accesses that no honest driver makes.
    pub fn page(&self) -> *mut u8 {
        self.address(0) as *mut u8
    }

    /// Reads a register.
    pub fn read(&self, register: usize) -> u32 {
        // SAFETY: a device's page, mapped, never memory of this program.
        unsafe { (self.address(register) as *const u32).read_volatile() }
    }

    /// Writes a register.
    pub fn write(&self, register: usize, value: u32) {
        // SAFETY: as in `read`; what a device may do to memory is decided by the queues set up.
        unsafe { (self.address(register) as *mut u32).write_volatile(value) }
    }

    /// Reads one byte of the configuration space.
    pub fn config_u8(&self, offset: usize) -> u8 {
        // SAFETY: as in `read`.
        unsafe { (self.address(register::CONFIG + offset) as *const u8).read_volatile() }
    }

    /// Writes one byte of the configuration space.
    pub fn write_config_u8(&self, offset: usize, value: u8) {
        // SAFETY: as in `write`.
        unsafe { (self.address(register::CONFIG + offset) as *mut u8).write_volatile(value) }
    }

    /// Reads four bytes of the configuration space.
    pub fn config_u32(&self, offset: usize) -> u32 {
        self.read(register::CONFIG + offset)
    }

    /// Reads eight bytes of the configuration space, which change together (§2.5.3).
    pub fn config_u64(&self, offset: usize) -> u64 {
        loop {
            let generation = self.read(register::CONFIG_GENERATION);
            let value = u64::from(self.config_u32(offset)) | u64::from(self.config_u32(offset + 4)) << 32;
            if self.read(register::CONFIG_GENERATION) == generation {
                return value;
            }
        }
    }

    /// The features that the device offers.
    pub fn features(&self) -> u64 {
        let half = |select| {
            self.write(register::DEVICE_FEATURES_SELECT, select);
            u64::from(self.read(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Brings the device back to its first state.
    pub fn reset(&self) {
        self.write(register::STATUS, 0);
        while self.read(register::STATUS) != 0 {}
    }

    /// Resets the device and agrees on the wanted features that it offers (§3.1.1 steps 1 to 6).
    pub fn negotiate(&self, wanted: u64) -> Result<u64, Error> {
        self.reset();
        self.write(register::STATUS, status::ACKNOWLEDGE);
        self.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let features = self.features() & (wanted | VERSION_1);
        for select in 0..2 {
            self.write(register::DRIVER_FEATURES_SELECT, select);
            self.write(register::DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.write(register::STATUS, agreed);
        if self.read(register::STATUS) & status::FEATURES_OK == 0 {
            return Err(Error::FeaturesRefused);
        }
        Ok(features)
    }

    /// The greatest size of a queue; 0 if there is none of that number.
    pub fn queue_size_max(&self, queue: u16) -> u32 {
        self.write(register::QUEUE_SELECT, u32::from(queue));
        self.read(register::QUEUE_SIZE_MAX)
    }

    /// Tells the device a queue of a size and three addresses, whatever they are.
    pub fn set_queue(&self, queue: u16, size: u32, rings: [u64; 3]) {
        self.write(register::QUEUE_SELECT, u32::from(queue));
        self.write(register::QUEUE_SIZE, size);
        let at = [register::QUEUE_DESCRIPTORS, register::QUEUE_AVAILABLE, register::QUEUE_USED];
        for (register, address) in at.into_iter().zip(rings) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// Tells the device that the driver is ready (§3.1.1 step 8).
    pub fn ready(&self) {
        self.write(register::STATUS, self.read(register::STATUS) | status::DRIVER_OK);
    }

    /// Tells the device that a queue has work.
    pub fn notify(&self, queue: u16) {
        fence(Ordering::SeqCst);
        self.write(register::QUEUE_NOTIFY, u32::from(queue));
    }

    /// Takes the interrupt status: bit 0 used buffers, bit 1 configuration change.
    pub fn take_interrupts(&self) -> u32 {
        let pending = self.read(register::INTERRUPT_STATUS);
        if pending != 0 {
            self.write(register::INTERRUPT_ACK, pending);
        }
        pending
    }
}

/// A device that is up, with its queues.
pub struct Device {
    /// Its registers.
    pub transport: Transport,
    /// What was agreed on.
    pub features: u64,
    /// Its queues, by number.
    pub queues: Vec<Queue>,
    acknowledged: u64,
    config_changed: bool,
}

impl Device {
    /// Resets a device and brings it up with `queues` queues, its interrupts going to processor 0.
    pub fn start(transport: Transport, wanted: u64, queues: u16) -> Result<Self, Error> {
        let features = transport.negotiate(wanted)?;
        interrupt::route_line(transport.line(), 0);
        let queues = (0..queues)
            .map(|number| match transport.queue_size_max(number) {
                0 => Err(Error::NoQueue(number)),
                most => {
                    let queue = Queue::new(most.min(64) as u16);
                    transport.set_queue(number, u32::from(queue.size()), queue.rings());
                    Ok(queue)
                }
            })
            .collect::<Result<_, _>>()?;
        let acknowledged = interrupt::line_count(transport.line());
        transport.ready();
        Ok(Self { transport, features, queues, acknowledged, config_changed: false })
    }

    /// Hands a chain of buffers to the device and tells it.
    pub fn give(&mut self, queue: u16, chain: &[Buffer]) -> u16 {
        let head = self.queues[usize::from(queue)].push(chain);
        self.transport.notify(queue);
        head
    }

    /// A chain that the device is done with: its head, and the bytes written into it.
    pub fn take(&mut self, queue: u16) -> Option<(u16, u32)> {
        let used = self.queues[usize::from(queue)].pop();
        if used.is_some() {
            return used;
        }
        self.acknowledge();
        self.queues[usize::from(queue)].pop()
    }

    /// Whether the configuration changed since the last call.
    pub fn take_config_change(&mut self) -> bool {
        self.acknowledge();
        core::mem::take(&mut self.config_changed)
    }

    /// Acknowledges interrupts, if any came: asking the device costs an exit, looking at the count nothing.
    fn acknowledge(&mut self) {
        let count = interrupt::line_count(self.transport.line());
        if count != self.acknowledged {
            self.acknowledged = count;
            self.config_changed |= self.transport.take_interrupts() & 2 != 0;
        }
    }

    /// Hands over a chain and waits until it comes back. Returns the bytes written into it.
    pub fn exchange(&mut self, queue: u16, chain: &[Buffer]) -> Result<u32, Error> {
        let head = self.give(queue, chain);
        match interrupt::wait_for(PATIENCE_MS, || self.take(queue)) {
            Some((back, length)) if back == head => Ok(length),
            Some((other, _)) => Err(Error::Nonsense(u32::from(other))),
            None => Err(Error::Silent(queue)),
        }
    }
}
