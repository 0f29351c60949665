//! What carries Ethernet frames: a stream socket or a tap interface.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use virtio_queue::Reader;

use super::stream::Stream;
use super::tap::Tap;

/// Shortest frame that is carried: an Ethernet header.
pub const MIN_FRAME: usize = 14;
/// Longest frame that is carried: an Ethernet header and 64 KiB.
pub const MAX_FRAME: usize = 65_550;

/// Carries Ethernet frames without ever blocking. An error of any method means that it carries no more.
pub(super) trait Carrier: Send {
    /// What to wait for.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes what has arrived. False if nothing has. Called only when [`Carrier::frame`] has nothing.
    fn fill(&mut self) -> io::Result<bool>;

    /// The oldest frame that was taken and not yet consumed.
    fn frame(&mut self) -> Option<&[u8]>;

    /// Drops the frame that [`Carrier::frame`] returned.
    fn consume(&mut self);

    /// Whether there is room for another frame to send.
    fn has_room(&self) -> bool;

    /// Takes a frame of `length` bytes, [`MIN_FRAME`] to [`MAX_FRAME`], to send at the next flush.
    fn enqueue(&mut self, frame: &mut Reader<'_>, length: usize) -> io::Result<()>;

    /// Sends what was taken. False if some of it must wait.
    fn flush(&mut self) -> io::Result<bool>;
}

/// What carries Ethernet frames between a machine and the world.
pub struct Backend(pub(super) Box<dyn Carrier>);

impl Backend {
    /// A connected stream socket on which each frame follows its length as a big-endian `u32`.
    pub fn stream(socket: OwnedFd) -> Self {
        Self(Box::new(Stream::new(socket)))
    }

    /// The tap interface `name`, which is made if it does not exist and the caller may make it.
    pub fn tap(name: &str) -> io::Result<Self> {
        Ok(Self(Box::new(Tap::open(name)?)))
    }
}
