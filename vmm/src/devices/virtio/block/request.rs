//! What a driver asks of a disk (virtio 1.2 §5.2.6): a header, then data or room for it, then room for one byte of status.

use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory as _, Permissions};

use crate::disk::engine::Pieces;
use crate::memory::GuestMemory;

/// A request as it lies in the guest's memory. Its addresses were checked, its contents may change at any time.
pub struct Request {
    /// Names the chain when it is given back.
    pub head: u16,
    /// What to do and where.
    pub header: Option<Header>,
    /// What the driver wrote behind the header.
    pub data: Pieces,
    /// Where the answer goes.
    pub room: Pieces,
    /// Where the status goes; `None` if there is no room for one.
    pub status: Option<Pieces>,
}

/// §5.2.6
#[derive(Clone, Copy)]
pub struct Header {
    /// One of the request types.
    pub kind: u32,
    /// Where, for reads and writes.
    pub sector: u64,
}

/// One range of a discard or write-zeroes request (§5.2.6.1).
#[derive(Clone, Copy)]
pub struct Range {
    pub sector: u64,
    pub sectors: u32,
    pub flags: u32,
}

impl Request {
    /// Walks a chain once. `None` if a part of it lies outside memory.
    pub fn parse(head: u16, chain: DescriptorChain<&GuestMemory>, memory: &Arc<GuestMemory>) -> Option<Self> {
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let mut total = 0_usize;
        for descriptor in chain {
            let (list, access) = match descriptor.is_write_only() {
                true => (&mut writable, Permissions::Write),
                false => (&mut readable, Permissions::Read),
            };
            let length = descriptor.len() as usize;
            total = total.checked_add(length)?;
            for slice in memory.get_slices(descriptor.addr(), length, access).ok()? {
                let slice = slice.ok()?;
                let start = slice.ptr_guard_mut().as_ptr();
                list.push(libc::iovec { iov_base: start.cast(), iov_len: slice.len() });
            }
        }
        // SAFETY: each piece is a slice of `memory`.
        let (mut data, mut room) =
            unsafe { (Pieces::of_guest(readable, memory.clone()), Pieces::of_guest(writable, memory.clone())) };
        let header = data.read().map(|bytes: [u8; 16]| Header { kind: number(&bytes, 0), sector: long(&bytes, 8) });
        let status = room.length().checked_sub(1).map(|length| {
            let answer = room.take(length);
            std::mem::replace(&mut room, answer)
        });
        Some(Self { head, header, data, room, status })
    }
}

impl Range {
    /// Takes the next range.
    pub fn read(data: &mut Pieces) -> Option<Self> {
        let bytes: [u8; 16] = data.read()?;
        Some(Self { sector: long(&bytes, 0), sectors: number(&bytes, 8), flags: number(&bytes, 12) })
    }
}

fn number(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(number(bytes, at)) | u64::from(number(bytes, at + 4)) << 32
}
