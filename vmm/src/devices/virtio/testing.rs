//! A guest driver in memory, for the tests of devices.

use std::collections::HashMap;
use std::sync::Arc;

use virtio_queue::{Queue as Ring, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{Device, Fault, Interrupt, Io, Queue};
use crate::event::wait;
use crate::memory::GuestMemory;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Guest memory in bytes; buffers are taken from the second half, round and round.
pub const MEMORY: u64 = 32 << 20;
const RINGS: u64 = 0x1_0000;
const RING_SPACE: u64 = 0x1_0000;

/// The driver's side of all queues of one device.
pub struct Driver {
    pub memory: Arc<GuestMemory>,
    pub io: Io,
    line: EventFd,
    sizes: Vec<u16>,
    free: u64,
    next_descriptor: Vec<u16>,
    seen: Vec<u16>,
    writable: HashMap<(usize, u16), Vec<(u64, usize)>>,
}

impl Driver {
    /// Sets all of a device's queues up, with all features of the transport but `EVENT_IDX`.
    pub fn new(device: &dyn Device) -> Self {
        let memory = Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap());
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(line.try_clone().unwrap());
        let sizes = device.queue_sizes().to_vec();
        let queues = sizes.iter().enumerate().map(|(index, size)| {
            let base = RINGS + index as u64 * RING_SPACE;
            let mut ring = Ring::new(*size).unwrap();
            ring.set_desc_table_address(Some(base as u32), Some(0));
            ring.set_avail_ring_address(Some(base as u32 + 0x8000), Some(0));
            ring.set_used_ring_address(Some(base as u32 + 0xa000), Some(0));
            ring.set_ready(true);
            Queue::new(ring, EventFd::new(libc::EFD_NONBLOCK).unwrap(), memory.clone(), interrupt.clone())
        });
        let queues: Vec<_> = queues.collect();
        let count = sizes.len();
        let io = Io { queues, interrupt: interrupt.clone() };
        Self {
            memory,
            io,
            line,
            sizes,
            free: MEMORY / 2,
            next_descriptor: vec![0; count],
            seen: vec![0; count],
            writable: HashMap::new(),
        }
    }

    /// An address of `length` bytes that nothing else uses for now.
    pub fn room(&mut self, length: usize) -> u64 {
        if self.free + length as u64 > MEMORY {
            self.free = MEMORY / 2;
        }
        let address = self.free;
        self.free += (length as u64).next_multiple_of(16).max(16);
        address
    }

    /// Puts bytes into memory and tells where.
    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let address = self.room(bytes.len());
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
        address
    }

    /// Makes a chain of readable buffers and empty writable ones available and returns its head.
    pub fn send(&mut self, queue: usize, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let mut descriptors: Vec<(u64, u32, u16)> = Vec::new();
        for bytes in readable {
            descriptors.push((self.place(bytes), bytes.len() as u32, 0));
        }
        let mut places = Vec::new();
        for length in writable {
            let address = self.room(*length);
            self.memory.write_slice(&vec![0; *length], GuestAddress(address)).unwrap();
            descriptors.push((address, *length as u32, WRITE));
            places.push((address, *length));
        }
        let head = self.send_raw(queue, &descriptors);
        self.writable.insert((queue, head), places);
        head
    }

    /// Makes a chain of `(address, length, flags)` available, whatever it says, and returns its head.
    /// `NEXT` is added to all but the last.
    pub fn send_raw(&mut self, queue: usize, descriptors: &[(u64, u32, u16)]) -> u16 {
        let size = self.sizes[queue];
        let head = self.next_descriptor[queue];
        for (position, (address, length, flags)) in descriptors.iter().enumerate() {
            let index = (head + position as u16) % size;
            let last = position + 1 == descriptors.len();
            let flags = if last { *flags } else { flags | NEXT };
            self.descriptor(queue, index, (*address, *length, flags, (index + 1) % size));
        }
        self.next_descriptor[queue] = (head + descriptors.len() as u16) % size;
        self.offer(queue, head);
        head
    }

    /// Writes one descriptor: address, length, flags, next.
    pub fn descriptor(&mut self, queue: usize, index: u16, value: (u64, u32, u16, u16)) {
        let address = GuestAddress(RINGS + queue as u64 * RING_SPACE + u64::from(index) * 16);
        let (at, length, flags, next) = value;
        self.memory.write_obj(at, address).unwrap();
        self.memory.write_obj(length, GuestAddress(address.0 + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(address.0 + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(address.0 + 14)).unwrap();
    }

    /// Makes the chain that starts at `head` available.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = RINGS + queue as u64 * RING_SPACE + 0x8000;
        let index: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let slot = ring + 4 + u64::from(index % self.sizes[queue]) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.memory.write_obj(index.wrapping_add(1), GuestAddress(ring + 2)).unwrap();
    }

    /// Writes the available ring's index.
    pub fn set_available_index(&mut self, queue: usize, index: u16) {
        let ring = RINGS + queue as u64 * RING_SPACE + 0x8000;
        self.memory.write_obj(index, GuestAddress(ring + 2)).unwrap();
    }

    /// The next chain given back: head and length.
    pub fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let ring = RINGS + queue as u64 * RING_SPACE + 0xa000;
        let index: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        if index == self.seen[queue] {
            return None;
        }
        let slot = ring + 4 + u64::from(self.seen[queue] % self.sizes[queue]) * 8;
        self.seen[queue] = self.seen[queue].wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        Some((head as u16, length))
    }

    /// What the device wrote into the writable buffers of a chain made by [`Driver::send`].
    pub fn written(&mut self, queue: usize, head: u16) -> Vec<u8> {
        let places = self.writable.remove(&(queue, head)).unwrap_or_default();
        let mut bytes = Vec::new();
        for (address, length) in places {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            self.memory.read_slice(&mut bytes[start..], GuestAddress(address)).unwrap();
        }
        bytes
    }

    /// One request and its answer: the writable buffer's bytes, `length` of them.
    pub fn request(&mut self, device: &mut dyn Device, queue: usize, readable: &[&[u8]], length: usize) -> Vec<u8> {
        let head = self.send(queue, readable, &[length]);
        device.queue_ready(queue, &mut self.io).unwrap();
        assert_eq!(self.wait_used(device, queue), head);
        self.written(queue, head)
    }

    /// Lets the device work until it gives a chain back, and returns that one's head.
    pub fn wait_used(&mut self, device: &mut dyn Device, queue: usize) -> u16 {
        loop {
            if let Some((head, _)) = self.used(queue) {
                return head;
            }
            let mut interest = Vec::new();
            device.sources(&mut interest);
            assert!(!interest.is_empty(), "the device does not answer and waits for nothing");
            let ready = wait(&interest).unwrap();
            for (index, events) in ready.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
                device.source_ready(index, events, &mut self.io).unwrap();
            }
        }
    }

    /// Lets the device work on a queue.
    pub fn kick(&mut self, device: &mut dyn Device, queue: usize) -> Result<(), Fault> {
        device.queue_ready(queue, &mut self.io)
    }

    /// Whether the device has interrupted since the last call.
    pub fn interrupted(&mut self) -> bool {
        self.line.read().is_ok()
    }
}
