//! Frames on a stream socket, each after its length as a big-endian `u32`: what passt and QEMU speak.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use virtio_queue::Reader;

use super::backend::{Carrier, MAX_FRAME, MIN_FRAME};

const LENGTH: usize = size_of::<u32>();
/// Bytes read at once. Holds the longest frame and as much again, so that one read takes many.
const INCOMING: usize = 128 << 10;
/// With so many bytes to send no further frame is taken: a reader that stalls stalls the guest.
const ENOUGH: usize = 64 << 10;

/// A connected stream socket.
pub(super) struct Stream {
    socket: OwnedFd,
    incoming: Vec<u8>,
    /// What was read and not consumed is `incoming[start..end]`.
    start: usize,
    end: usize,
    /// Bytes still to come of a frame that is not wanted.
    skip: usize,
    outgoing: Vec<u8>,
    /// How much of `outgoing` has been sent.
    sent: usize,
}

impl Stream {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let incoming = vec![0; INCOMING];
        Self { socket, incoming, start: 0, end: 0, skip: 0, outgoing: Vec::new(), sent: 0 }
    }

    /// The length of the frame at `start`, as soon as it is known. Frames of absurd lengths are skipped.
    fn next_length(&mut self) -> Option<usize> {
        loop {
            let skipped = self.skip.min(self.end - self.start);
            self.skip -= skipped;
            self.start += skipped;
            let length = self.incoming[self.start..self.end].first_chunk::<LENGTH>()?;
            let length = u32::from_be_bytes(*length) as usize;
            if (MIN_FRAME..=MAX_FRAME).contains(&length) {
                return Some(length);
            }
            self.start += LENGTH;
            self.skip = length;
        }
    }
}

impl Carrier for Stream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn fill(&mut self) -> io::Result<bool> {
        // What is left is less than a frame: moving it to the front makes room for its rest.
        self.incoming.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match recv(&self.socket, &mut self.incoming[self.end..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the socket")),
            Ok((_, length)) => {
                self.end += length;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn frame(&mut self) -> Option<&[u8]> {
        let length = self.next_length()?;
        self.incoming[self.start + LENGTH..self.end].get(..length)
    }

    fn consume(&mut self) {
        if let Some(length) = self.next_length() {
            self.start += LENGTH + length;
        }
    }

    fn has_room(&self) -> bool {
        self.outgoing.len() - self.sent < ENOUGH
    }

    fn enqueue(&mut self, frame: &mut Reader<'_>, length: usize) -> io::Result<()> {
        self.outgoing.drain(..self.sent);
        self.sent = 0;
        let start = self.outgoing.len();
        self.outgoing.extend_from_slice(&(length as u32).to_be_bytes());
        self.outgoing.resize(start + LENGTH + length, 0);
        frame.read_exact(&mut self.outgoing[start + LENGTH..])
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.outgoing.len() {
            match send(&self.socket, &self.outgoing[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => self.sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(true)
    }
}
