//! The driver's side of a split virtqueue (virtio 1.2 §2.7).

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use crate::memory;

/// Descriptor flag: the chain goes on.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// One entry of the descriptor table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Guest physical.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The next entry.
    pub next: u16,
}

/// Memory that a device reads or writes. The owner keeps it alive until the chain is back.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    address: u64,
    length: u32,
    flags: u16,
}

impl Buffer {
    /// What the device is to read.
    pub fn read<T: ?Sized>(value: &T) -> Self {
        Self { address: core::ptr::from_ref(value).addr() as u64, length: size_of_val(value) as u32, flags: 0 }
    }

    /// Where the device is to write.
    pub fn write<T: ?Sized>(value: &mut T) -> Self {
        let length = size_of_val(value) as u32;
        Self { address: core::ptr::from_mut(value).addr() as u64, length, flags: WRITE }
    }

    /// Any address and length, for requests that no honest driver makes.
    pub fn raw(address: u64, length: u32, writable: bool) -> Self {
        Self { address, length, flags: if writable { WRITE } else { 0 } }
    }
}

/// A queue, its rings in memory of its own.
pub struct Queue {
    size: u16,
    descriptors: *mut Descriptor,
    available: *mut u16,
    used: *mut u16,
    free: Vec<u16>,
    pushed: u16,
    popped: u16,
}

impl Queue {
    /// A queue of `size` entries, a power of two.
    pub fn new(size: u16) -> Self {
        let entries = usize::from(size);
        Self {
            size,
            descriptors: memory::zeroed(entries * 16, 16).as_mut_ptr().cast(),
            available: memory::zeroed(6 + entries * 2, 4096).as_mut_ptr().cast(),
            used: memory::zeroed(6 + entries * 8, 4096).as_mut_ptr().cast(),
            free: (0..size).rev().collect(),
            pushed: 0,
            popped: 0,
        }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Addresses of the descriptor table, the available ring and the used ring.
    pub fn rings(&self) -> [u64; 3] {
        [self.descriptors as u64, self.available as u64, self.used as u64]
    }

    /// Writes an entry of the descriptor table.
    pub fn describe(&mut self, entry: u16, descriptor: Descriptor) {
        assert!(entry < self.size);
        // SAFETY: within the table.
        unsafe { self.descriptors.add(usize::from(entry)).write_volatile(descriptor) }
    }

    /// Makes a chain available as `head`, which need not be a sane one.
    pub fn offer(&mut self, head: u16) {
        let slot = 2 + usize::from(self.pushed % self.size);
        // SAFETY: within the available ring: flags, index, then `size` heads.
        unsafe { self.available.add(slot).write_volatile(head) }
        self.set_available_index(self.pushed.wrapping_add(1));
    }

    /// Writes the available index.
    pub fn set_available_index(&mut self, index: u16) {
        self.pushed = index;
        fence(Ordering::SeqCst);
        // SAFETY: the second word of the ring.
        unsafe { self.available.add(1).write_volatile(index) }
    }

    /// Makes a chain of buffers available and returns its head.
    pub fn push(&mut self, chain: &[Buffer]) -> u16 {
        assert!(!chain.is_empty() && chain.len() <= self.free.len(), "the queue is full");
        // Backwards, so that each descriptor knows the next.
        let (mut next, mut more) = (0, 0);
        for buffer in chain.iter().rev() {
            let entry = self.free.pop().expect("there are enough");
            let flags = buffer.flags | more;
            self.describe(entry, Descriptor { address: buffer.address, length: buffer.length, flags, next });
            (next, more) = (entry, NEXT);
        }
        self.offer(next);
        next
    }

    /// The used index, as the device left it.
    pub fn used_index(&self) -> u16 {
        // SAFETY: the second word of the ring.
        unsafe { self.used.add(1).read_volatile() }
    }

    /// Takes back the next chain that the device is done with: its head, and the bytes written into it.
    pub fn pop(&mut self) -> Option<(u16, u32)> {
        if self.used_index() == self.popped {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = 2 + usize::from(self.popped % self.size) * 4;
        // SAFETY: within the used ring: flags, index, then `size` pairs of 32-bit words.
        let (head, length) = unsafe {
            let pair = self.used.add(slot).cast::<u32>();
            (pair.read_volatile(), pair.add(1).read_volatile())
        };
        self.popped = self.popped.wrapping_add(1);
        self.reclaim(head as u16);
        Some((head as u16, length))
    }

    fn reclaim(&mut self, head: u16) {
        let mut entry = head;
        loop {
            assert!(entry < self.size && self.free.len() < usize::from(self.size), "the device returned chain {head}");
            self.free.push(entry);
            // SAFETY: within the table.
            let descriptor = unsafe { self.descriptors.add(usize::from(entry)).read_volatile() };
            if descriptor.flags & NEXT == 0 {
                return;
            }
            entry = descriptor.next;
        }
    }
}
