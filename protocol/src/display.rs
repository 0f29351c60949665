//! The display protocol: a machine's screen, keyboard and pointer over a Unix `SOCK_SEQPACKET` socket.
//!
//! Each packet is one message in [postcard](https://postcard.jamesmunns.com/wire-format) form. The
//! machine speaks first: [`Event::Hello`], then what is needed to show the present picture, then
//! changes. Pixels do not cross the socket: a [`Event::Buffer`] carries a memfd, sealed against
//! resizing and further writable mappings, that the client maps and reads.
//!
//! A client that reads slowly is sent fewer, larger damage rectangles; it never delays the guest.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The protocol's version, in [`Event::Hello`]. A client closes on any other.
pub const VERSION: u16 = 2;

/// Largest packet in bytes; larger ones are refused by [`send`] and [`receive`].
pub const MAX_PACKET: usize = 128 * 1024;

/// Greatest width and height of a cursor in pixels.
pub const MAX_CURSOR: u32 = 128;

/// Full scale of [`Request::Pointer`] coordinates.
pub const POINTER_MAX: u16 = 32767;

/// Frames of sound in a second, both ways.
pub const SAMPLE_RATE: u32 = 48_000;

/// Bytes of one frame of [`Event::Sound`]: left and right, each a 16-bit little-endian sample.
pub const SOUND_FRAME: usize = 4;

/// Most bytes in an [`Event::Sound`].
pub const MAX_SOUND: usize = 16 * 1024;

/// Bytes of one frame of [`Request::Microphone`]: one 16-bit little-endian sample.
pub const MICROPHONE_FRAME: usize = 2;

/// Most bytes in a [`Request::Microphone`].
pub const MAX_MICROPHONE: usize = 16 * 1024;

/// A rectangle in pixels, origin at the top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// The rectangle of a whole picture.
    pub const fn of_size(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// Whether it covers no pixel.
    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// First column to the right of it.
    pub const fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// First row below it.
    pub const fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    /// Pixels covered.
    pub const fn area(&self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// What both cover; empty if they do not meet.
    pub fn intersection(&self, other: &Self) -> Self {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        Self {
            x,
            y,
            width: self.right().min(other.right()).saturating_sub(x),
            height: self.bottom().min(other.bottom()).saturating_sub(y),
        }
    }

    /// The smallest rectangle that covers both; an empty one adds nothing.
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() {
            return *other;
        }
        if other.is_empty() {
            return *self;
        }
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self { x, y, width: self.right().max(other.right()) - x, height: self.bottom().max(other.bottom()) - y }
    }
}

/// What a machine tells a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u16,
    },
    /// A buffer the guest draws in, with its memfd of `stride * height` bytes or more. Pixels are
    /// four bytes: blue, green, red, unused.
    Buffer {
        /// Names the buffer in later messages; unique until [`Event::BufferGone`].
        id: u32,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes from one row to the next.
        stride: u32,
    },
    /// The buffer is gone and its id may come again. It is not the one shown: another [`Event::Frame`] or
    /// [`Event::Blank`] came before.
    BufferGone {
        /// See [`Event::Buffer`].
        id: u32,
    },
    /// The screen shows `area` of a buffer. Nothing outside `damage` differs from the picture before,
    /// but `damage` may be much larger than what changed. The picture's size is `area`'s.
    Frame {
        /// A buffer announced before.
        buffer: u32,
        /// The part of the buffer that is the screen.
        area: Rect,
        /// What may have changed, relative to `area`'s corner.
        damage: Rect,
    },
    /// The screen is off.
    Blank,
    /// The pointer's picture.
    Cursor {
        /// Pixels, at most [`MAX_CURSOR`]; zero hides the pointer.
        width: u32,
        /// Pixels, at most [`MAX_CURSOR`].
        height: u32,
        /// The pixel that points.
        hot_x: u32,
        /// The pixel that points.
        hot_y: u32,
        /// `width * height` pixels of blue, green, red, alpha (premultiplied).
        pixels: Vec<u8>,
    },
    /// Lamps on the keyboard.
    Leds {
        /// Bit 0 scroll lock, bit 1 num lock, bit 2 caps lock.
        lit: u8,
    },
    /// What the machine plays, to clients that listen. Between two of these there may be silence, or sound that the
    /// client was too slow for: `time` tells.
    Sound {
        /// When the first frame is played, in microseconds since some fixed time.
        time: u64,
        /// Whole frames of [`SOUND_FRAME`] bytes, at most [`MAX_SOUND`] bytes.
        samples: Vec<u8>,
    },
}

/// What a client asks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A key went down or up.
    Key {
        /// Linux input event code (`KEY_*`), below 256.
        code: u16,
        /// Down or up.
        down: bool,
    },
    /// Where the pointer is and which buttons are held.
    Pointer {
        /// 0 at the left edge to [`POINTER_MAX`] at the right.
        x: u16,
        /// 0 at the top edge to [`POINTER_MAX`] at the bottom.
        y: u16,
        /// Bit 0 left, 1 middle, 2 right, 3 back, 4 forward.
        buttons: u8,
    },
    /// Wheel clicks.
    Wheel {
        /// Positive to the right.
        horizontal: i8,
        /// Positive up.
        vertical: i8,
    },
    /// The client would like the picture to have this size. The guest decides; a [`Event::Frame`] tells.
    Resize {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Whether the client would like to have [`Event::Sound`]; at first it would not.
    Listen {
        /// It would.
        on: bool,
    },
    /// What a microphone hears.
    Microphone {
        /// Whole frames of [`MICROPHONE_FRAME`] bytes, at most [`MAX_MICROPHONE`] bytes.
        samples: Vec<u8>,
    },
    /// The pointer moves from where it is, and these buttons are held.
    Move {
        /// Steps to the right.
        x: i16,
        /// Steps down.
        y: i16,
        /// As in [`Request::Pointer`].
        buttons: u8,
    },
    /// The wheel turns by parts of a click, as touchpads and fine wheels do.
    Scroll {
        /// 120th of a click to the right.
        horizontal: i16,
        /// 120th of a click up.
        vertical: i16,
    },
}

/// What can go wrong on the socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("display socket: {0}")]
    Io(#[from] io::Error),
    /// The peer sent something that is no message.
    #[error("display socket: the peer sent {length} bytes that are no message")]
    Malformed {
        /// The packet's length.
        length: usize,
    },
    /// A message would be longer than [`MAX_PACKET`].
    #[error("display socket: a message is longer than {MAX_PACKET} bytes")]
    TooLong,
}

impl Error {
    /// Whether the call would have had to wait on a non-blocking socket.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Sends one message, with a descriptor if given. The descriptor may be closed afterwards.
pub fn send<M: Serialize>(socket: impl AsFd, message: &M, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let packet = postcard::to_stdvec(message).map_err(|_| Error::TooLong)?;
    if packet.len() > MAX_PACKET {
        return Err(Error::TooLong);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
    Ok(())
}

/// Receives one message and the descriptor that came with it; `None` when the peer has closed.
///
/// `packet` is scratch space of at least [`MAX_PACKET`] bytes.
pub fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
    packet: &mut [u8],
) -> Result<Option<(M, Option<OwnedFd>)>, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = packet
        .get(..received.bytes)
        .and_then(|bytes| postcard::from_bytes(bytes).ok())
        .ok_or(Error::Malformed { length: received.bytes })?;
    Ok(Some((message, fd)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_buffer_arrives_with_its_descriptor() {
        let (machine, client) = pair();
        let file = tempfile_with(b"pixels");
        let sent = Event::Buffer { id: 1, width: 2, height: 3, stride: 8 };
        send(&machine, &sent, Some(file.as_fd())).unwrap();
        let mut packet = vec![0; MAX_PACKET];
        let (event, fd) = receive::<Event>(&client, &mut packet).unwrap().unwrap();
        assert_eq!(event, sent);
        let mut text = String::new();
        File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "pixels");
    }

    #[test]
    fn the_end_of_the_peer_is_no_error() {
        let (machine, client) = pair();
        drop(machine);
        assert!(receive::<Event>(&client, &mut vec![0; MAX_PACKET]).unwrap().is_none());
    }

    #[test]
    fn the_largest_cursor_fits() {
        let (machine, client) = pair();
        let side = MAX_CURSOR;
        let pixels = vec![0xff; (side * side * 4) as usize];
        let sent = Event::Cursor { width: side, height: side, hot_x: 1, hot_y: 1, pixels };
        send(&machine, &sent, None).unwrap();
        let (event, _) = receive::<Event>(&client, &mut vec![0; MAX_PACKET]).unwrap().unwrap();
        assert_eq!(event, sent);
    }

    fn tempfile_with(bytes: &[u8]) -> File {
        use std::io::{Seek, Write};
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            let (a, b) = pair();
            rustix::io::write(&a, &bytes).unwrap();
            let _ = receive::<Request>(&b, &mut vec![0; MAX_PACKET]);
            rustix::io::write(&b, &bytes).unwrap();
            let _ = receive::<Event>(&a, &mut vec![0; MAX_PACKET]);
        }

        #[test]
        fn union_covers_both_and_intersection_is_covered_by_both(
            a in (0u32..100, 0u32..100, 0u32..100, 0u32..100), b in (0u32..100, 0u32..100, 0u32..100, 0u32..100),
        ) {
            let a = Rect { x: a.0, y: a.1, width: a.2, height: a.3 };
            let b = Rect { x: b.0, y: b.1, width: b.2, height: b.3 };
            let both = a.union(&b);
            if !a.is_empty() { prop_assert_eq!(both.intersection(&a), a); }
            if !b.is_empty() { prop_assert_eq!(both.intersection(&b), b); }
            let common = a.intersection(&b);
            if !common.is_empty() { prop_assert_eq!(common.intersection(&a), common); }
        }
    }
}
