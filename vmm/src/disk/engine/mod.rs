//! Carries operations on files out.
//!
//! A [`Block`](crate::devices::virtio::block::Block) device starts many operations and learn of each one's end. All that changes a
//! disk's files while a machine runs goes this way.

mod sync;
mod uring;

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Once};

use crate::memory::GuestMemory;

pub use self::sync::Sync;
pub use self::uring::Uring;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fill the pieces from it.
    Read,
    /// Write the pieces to it.
    Write,
    /// Make `length` bytes zeros, giving their room back if the file system can.
    Clear,
    /// Make all data durable whose operations have ended (`fdatasync`).
    Sync,
}

/// Memory that an operation reads or fills, in pieces: the guest's, where it is, and bytes of our own.
#[derive(Default)]
pub struct Pieces {
    pieces: Vec<libc::iovec>,
    length: usize,
    /// Keeps the guest's memory mapped.
    guest: Option<Arc<GuestMemory>>,
    /// Our own bytes, each allocation in its place for as long as this lives.
    own: Vec<Box<[u8]>>,
}

// SAFETY: the pieces point to memory that `guest` and `own` keep where it is, whichever thread drops them.
unsafe impl Send for Pieces {}

/// One operation on one file.
pub struct Op {
    /// What to do.
    pub action: Action,
    /// To which file.
    pub file: Arc<File>,
    /// Where.
    pub place: u64,
    /// How many bytes: those of the pieces if it has any, which are together less than 2 GiB.
    pub length: u64,
    /// From or to where.
    pub pieces: Pieces,
}

/// Starts operations and tells when they have ended. Dropping one waits for all.
pub trait Engine: Send {
    /// Takes an operation, to be called `tag` when it ends.
    fn submit(&mut self, tag: usize, op: Op);

    /// Starts all that was taken. Errors of operations are told by [`Engine::next`].
    fn start(&mut self) -> io::Result<()>;

    /// An operation that has ended: wholly done, or failed. With `wait`, waits for one if any was started.
    fn next(&mut self, wait: bool) -> io::Result<Option<(usize, io::Result<()>)>>;

    /// Becomes readable when an operation has ended, if that is not always at once.
    fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The best engine that this kernel lets us have: a kernel may be old, or forbid rings to this process or to all.
pub fn best() -> Box<dyn Engine> {
    static TOLD: Once = Once::new();
    match Uring::new() {
        Ok(ring) => Box::new(ring),
        Err(error) => {
            TOLD.call_once(|| eprintln!("yunju-vmm: no io_uring for disks: {error}; their requests go one by one"));
            Box::new(Sync::default())
        }
    }
}

impl Pieces {
    /// Pieces of a guest's memory.
    ///
    /// # Safety
    /// Each piece lies in `memory`.
    pub unsafe fn of_guest(pieces: Vec<libc::iovec>, memory: Arc<GuestMemory>) -> Self {
        let length = pieces.iter().map(|piece| piece.iov_len).sum();
        Self { pieces, length, guest: Some(memory), own: Vec::new() }
    }

    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Puts bytes of our own behind the others.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut bytes = bytes.into_boxed_slice();
        self.pieces.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        self.length += bytes.len();
        self.own.push(bytes);
    }

    /// Puts others behind these.
    pub fn append(&mut self, other: Self) {
        self.pieces.extend(other.pieces);
        self.length += other.length;
        self.guest = self.guest.take().or(other.guest);
        self.own.extend(other.own);
    }

    /// The pieces of the first `length` bytes.
    fn first(&self, length: usize) -> impl Iterator<Item = libc::iovec> {
        let mut left = length;
        self.pieces.iter().map_while(move |piece| {
            let iov_len = piece.iov_len.min(left);
            let more = left > 0;
            left -= iov_len;
            more.then_some(libc::iovec { iov_base: piece.iov_base, iov_len })
        })
    }

    /// Takes the first `length` bytes, or all if there are fewer. Of a part, guest memory only.
    pub fn take(&mut self, length: usize) -> Self {
        if length >= self.length {
            return std::mem::replace(self, Self { guest: self.guest.clone(), ..Self::default() });
        }
        let pieces = self.first(length).collect();
        self.advance(length);
        Self { pieces, length, guest: self.guest.clone(), own: Vec::new() }
    }

    /// Drops the first `length` bytes, at most all, which were read or written.
    fn advance(&mut self, length: usize) {
        let mut left = length;
        let mut whole = 0;
        for piece in &mut self.pieces {
            if piece.iov_len > left {
                piece.iov_base = piece.iov_base.wrapping_byte_add(left);
                piece.iov_len -= left;
                break;
            }
            left -= piece.iov_len;
            whole += 1;
        }
        self.pieces.drain(..whole);
        self.length -= length;
    }

    /// Copies into the first bytes and drops them; fewer if there is not that much room.
    pub fn fill(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.length);
        let mut from = bytes;
        for piece in self.first(length) {
            let (now, later) = from.split_at(piece.iov_len);
            // SAFETY: the piece is mapped, as `of_guest` and `push` saw to. A guest that accesses its memory
            // meanwhile gets what it deserves.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), piece.iov_base.cast(), now.len()) };
            from = later;
        }
        self.advance(length);
    }

    /// Takes the first bytes out, if there are that many.
    pub fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.length < N {
            return None;
        }
        let mut bytes = [0_u8; N];
        let mut done = 0;
        for piece in self.first(N) {
            let into = &mut bytes[done..done + piece.iov_len];
            // SAFETY: as in `fill`.
            unsafe { std::ptr::copy_nonoverlapping(piece.iov_base.cast(), into.as_mut_ptr(), into.len()) };
            done += piece.iov_len;
        }
        self.advance(N);
        Some(bytes)
    }

    /// All bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            // SAFETY: as in `fill`; no guest runs in a test.
            bytes.extend(unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) });
        }
        bytes
    }

    /// Makes all of it zeros.
    pub fn clear(self) {
        for piece in self.pieces {
            // SAFETY: as in `fill`.
            unsafe { std::ptr::write_bytes(piece.iov_base.cast::<u8>(), 0, piece.iov_len) };
        }
    }
}
