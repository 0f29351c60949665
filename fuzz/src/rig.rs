//! A driver that does whatever the input says: registers, rings, chains, guest memory.
//!
//! An input is a list of instructions, each one byte and what it needs:
//!
//! | byte modulo 16 | instruction | operands |
//! |---|---|---|
//! | 0–5 | put a chain into a queue and notify | queue; descriptors − 1 (bits 0–2), in an indirect table (bit 7); each descriptor |
//! | 6, 7 | let the device work | |
//! | 8 | write a register | offset/4, value (4 bytes) |
//! | 9 | read (bit 7 of the length: write) the configuration space | offset, length, value (4) |
//! | 10 | write guest memory | address (4), length, bytes |
//! | 11 | save and restore | |
//! | 12 | something happens outside | length, bytes for the target |
//! | 13 | reset and start again | |
//! | 14 | any access at all | offset (2), length, value (4) |
//! | 15 | run on the device's own thread and pause again | |
//!
//! A descriptor is a byte of flags (bit 0 writable, bit 1 wild) and, when wild, address (4) and length (4); else a
//! length (2) and, when it is readable, that many bytes. A length of a readable one ends with the input.

use std::sync::Arc;

use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::EventFd;
use yunju_vmm::bus::BusDevice;
use yunju_vmm::devices::virtio::Device;
use yunju_vmm::devices::virtio::transport::{Transport, TransportState};
use yunju_vmm::memory::GuestMemory;

use crate::Bytes;

/// Guest memory in bytes; buffers are taken from the second half, round and round.
const MEMORY: u64 = 2 << 20;
/// Where the rings begin, and the room of each queue: descriptors, available ring, used ring.
const RINGS: u64 = 0x1_0000;
const RING_SPACE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0xa000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// ACKNOWLEDGE, DRIVER; with FEATURES_OK; with DRIVER_OK.
const STATUS: [u32; 3] = [3, 11, 15];
const DRIVER_OK: u32 = 4;

/// A device behind its registers, and its driver.
pub struct Rig {
    transport: Transport,
    memory: Arc<GuestMemory>,
    sizes: Vec<u16>,
    /// The next descriptor and the next place in the available ring of each queue.
    positions: Vec<(u16, u16)>,
    free: u64,
}

/// Does what `data` says to `device`. `outside` is what happens on its other side.
pub fn drive(device: Box<dyn Device>, data: &[u8], mut outside: impl FnMut(&mut Bytes)) {
    let mut rig = Rig::new(device);
    rig.start();
    let mut input = Bytes::new(data);
    while !input.is_empty() {
        rig.instruction(&mut input, &mut outside);
    }
    rig.end();
}

impl Rig {
    /// Registers in front of `device`, which nobody drives yet.
    pub fn new(device: Box<dyn Device>) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory fits");
        let memory = Arc::new(memory);
        let sizes = device.queue_sizes().to_vec();
        let line = EventFd::new(libc::EFD_NONBLOCK).expect("descriptors are left");
        let transport = Transport::new(device, memory.clone(), line).expect("descriptors are left");
        Self { transport, memory, positions: vec![(0, 0); sizes.len()], sizes, free: MEMORY / 2 }
    }

    /// Lets the device work.
    pub fn turn(&mut self) {
        self.transport.turn();
    }

    /// Takes a state on, if it fits, and works with it.
    pub fn go_on(&mut self, state: TransportState) {
        if self.transport.restore(state).is_ok() {
            self.turn();
            self.save_and_restore();
            self.transport.resume();
            self.transport.pause();
        }
    }

    /// Whatever a driver did, the next one finds a device that starts.
    pub fn end(&mut self) {
        self.turn();
        self.start();
        assert!(self.read(0x70) & DRIVER_OK != 0, "a reset did not repair the device");
    }

    /// Any access at all.
    pub fn access(&mut self, input: &mut Bytes) {
        let (offset, length) = (u64::from(input.u16() & 0xfff), input.u8());
        let mut data = [0; 8];
        data[..4].copy_from_slice(&input.u32().to_le_bytes());
        let width = usize::from(length % 8 + 1);
        if length & 0x80 == 0 {
            self.transport.write(offset, &data[..width]);
        } else {
            self.transport.read(offset, &mut data[..width]);
        }
        // Where that started the device, it goes on only when told to.
        self.transport.pause();
    }

    fn instruction(&mut self, input: &mut Bytes, outside: &mut impl FnMut(&mut Bytes)) {
        match input.u8() % 16 {
            0..=5 => self.chain(input),
            6 | 7 => self.turn(),
            8 => {
                let (register, value) = (u64::from(input.u8() % 64) * 4, input.u32());
                self.write(register, value);
            }
            9 => {
                let (offset, length) = (u64::from(input.u8()), input.u8());
                let mut data = [0; 8];
                data[..4].copy_from_slice(&input.u32().to_le_bytes());
                let width = usize::from(length % 8 + 1);
                if length & 0x80 != 0 {
                    self.transport.write(0x100 + offset, &data[..width]);
                } else {
                    self.transport.read(0x100 + offset, &mut data[..width]);
                }
            }
            10 => {
                let (address, length) = (u64::from(input.u32()) % MEMORY, usize::from(input.u8()));
                let bytes = input.take(length);
                // What reaches over the end of memory is cut off.
                let _ = self.memory.write(bytes, GuestAddress(address));
            }
            11 => self.save_and_restore(),
            12 => {
                let length = usize::from(input.u8());
                outside(&mut Bytes::new(input.take(length)));
            }
            13 => self.start(),
            14 => self.access(input),
            _ => {
                self.transport.resume();
                self.transport.pause();
            }
        }
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
        self.transport.pause();
    }

    /// What a good driver does from reset until DRIVER_OK.
    fn start(&mut self) {
        self.write(0x70, 0);
        self.write(0x70, STATUS[0]);
        for half in 0..2 {
            self.write(0x14, half);
            let offered = self.read(0x10);
            self.write(0x24, half);
            // Without EVENT_IDX: notifications are then never left out.
            self.write(0x20, if half == 0 { offered & !(1 << 29) } else { offered });
        }
        self.write(0x70, STATUS[1]);
        for queue in 0..self.sizes.len() {
            let base = (RINGS + queue as u64 * RING_SPACE) as u32;
            self.write(0x30, queue as u32);
            self.write(0x38, u32::from(self.sizes[queue]));
            for (register, address) in [(0x80, base), (0x90, base + AVAILABLE as u32), (0xa0, base + USED as u32)] {
                self.write(register, address);
                self.write(register + 4, 0);
            }
            for ring in [AVAILABLE, USED] {
                self.put(u64::from(base) + ring, &[0; 4]);
            }
            self.positions[queue] = (0, 0);
            self.write(0x44, 1);
        }
        self.write(0x70, STATUS[2]);
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("the driver's own structures lie in memory");
    }

    /// Room for `length` bytes; the oldest buffer is reused when there is no more.
    fn room(&mut self, length: u64) -> u64 {
        if self.free + length > MEMORY {
            self.free = MEMORY / 2;
        }
        let address = self.free;
        self.free += length.next_multiple_of(16);
        address
    }

    fn chain(&mut self, input: &mut Bytes) {
        let queue = usize::from(input.u8()) % self.sizes.len();
        let shape = input.u8();
        let mut table = Vec::new();
        let count = usize::from(shape % 8) + 1;
        for index in 0..count {
            let flags = input.u8();
            let (address, length) = match flags & 3 {
                0 => {
                    let length = usize::from(input.u16());
                    let bytes = input.take(length);
                    let address = self.room(bytes.len() as u64);
                    self.put(address, bytes);
                    (address, bytes.len() as u32)
                }
                1 => {
                    let length = u32::from(input.u16());
                    (self.room(length.into()), length)
                }
                _ => (u64::from(input.u32()), input.u32()),
            };
            let last = index + 1 == count;
            table.push((address, length, if flags & 1 != 0 { WRITE } else { 0 } | if last { 0 } else { NEXT }));
        }
        if shape & 0x80 != 0 {
            let entries: Vec<u8> = (1..).zip(&table).flat_map(|(next, entry)| descriptor(*entry, next)).collect();
            let address = self.room(entries.len() as u64);
            self.put(address, &entries);
            table = vec![(address, entries.len() as u32, INDIRECT)];
        }
        self.offer(queue, &table);
        self.write(0x50, queue as u32);
    }

    /// Makes a chain available.
    fn offer(&mut self, queue: usize, chain: &[(u64, u32, u16)]) {
        let (base, size) = (RINGS + queue as u64 * RING_SPACE, self.sizes[queue]);
        let (head, place) = self.positions[queue];
        for (index, entry) in (0..).zip(chain) {
            let at = (head + index) % size;
            self.put(base + u64::from(at) * 16, &descriptor(*entry, (at + 1) % size));
        }
        self.put(base + AVAILABLE + 4 + u64::from(place % size) * 2, &head.to_le_bytes());
        self.put(base + AVAILABLE + 2, &place.wrapping_add(1).to_le_bytes());
        self.positions[queue] = ((head + chain.len() as u16) % size, place.wrapping_add(1));
    }

    fn save_and_restore(&mut self) {
        let state = self.transport.save().expect("the device is not lost");
        let bytes = postcard::to_stdvec(&state).expect("a state is plain data");
        let state = postcard::from_bytes(&bytes).expect("a state round-trips");
        self.transport.restore(state).expect("a device takes its own state back");
    }
}

/// One entry of a descriptor table (virtio 1.2 §2.7.5).
fn descriptor((address, length, flags): (u64, u32, u16), next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}
