//! What viewers say (RFC 6143 §7.5). Parsing is a total function over bytes.

use yunju_protocol::display::Rect;

use super::pixel::{self, PixelFormat};

/// Most encodings in a list; known viewers send about forty.
pub const MAX_ENCODINGS: usize = 1024;

/// Most bytes in a clipboard message. What is too long to be kept is skipped.
pub const MAX_CUT_TEXT: u32 = 64 << 20;

/// Most bytes in a fence.
pub const MAX_FENCE: usize = 64;

/// No message is longer than this, clipboard text left out.
pub const MAX_MESSAGE: usize = 4 + 4 * MAX_ENCODINGS;

/// What viewers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// How pixels shall be sent from now on.
    SetPixelFormat(PixelFormat),
    /// What the viewer understands, the best first.
    SetEncodings(Vec<i32>),
    /// It would like an update.
    UpdateRequest {
        /// Only of what has changed.
        incremental: bool,
        /// Where.
        area: Rect,
    },
    /// A key by its symbol (X11 keysym).
    Key {
        /// Which.
        keysym: u32,
        /// Down or up.
        down: bool,
    },
    /// A key by its symbol and scan code (PC set 1, `0x80` for the prefix `0xe0`).
    ScanCode {
        /// Which, in the viewer's keyboard layout.
        keysym: u32,
        /// Which, on the keyboard.
        code: u32,
        /// Down or up.
        down: bool,
    },
    /// Where the pointer is.
    Pointer {
        /// Column.
        x: u16,
        /// Row.
        y: u16,
        /// Buttons that are down: left, middle, right, wheel up, down, left, right, back, forward from bit 0 on.
        buttons: u16,
    },
    /// Clipboard content of this many bytes follows the message, as [`super::clipboard::parse`] reads it.
    CutText {
        /// Bytes.
        length: u32,
        /// It is of the extended clipboard.
        extended: bool,
    },
    /// Updates need no requests from now on, or need them again.
    ContinuousUpdates {
        /// From now on, or no longer.
        enable: bool,
        /// Where.
        area: Rect,
    },
    /// A mark in the stream.
    Fence {
        /// What kind.
        flags: u32,
        /// To be sent back.
        payload: Vec<u8>,
    },
    /// The picture should have this size.
    SetDesktopSize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What no viewer may say.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// An unknown message.
    #[error("unknown message type {0}")]
    Type(u8),
    /// An unknown message of QEMU's.
    #[error("unknown QEMU message type {0}")]
    QemuType(u8),
    /// See [`pixel::Error`].
    #[error(transparent)]
    PixelFormat(#[from] pixel::Error),
    /// Too long a list.
    #[error("a list of {0} encodings (at most {MAX_ENCODINGS})")]
    Encodings(usize),
    /// Too much text.
    #[error("clipboard text of {0} bytes (at most {MAX_CUT_TEXT})")]
    CutText(u32),
    /// Too long a fence.
    #[error("a fence of {0} bytes (at most {MAX_FENCE})")]
    Fence(usize),
}

/// The first message in `bytes` and the bytes it takes; `None` if more bytes are needed to tell.
///
/// `mouse_buttons` says that the extension of more than eight mouse buttons has been agreed on.
pub fn parse(bytes: &[u8], mouse_buttons: bool) -> Result<Option<(Message, usize)>, Error> {
    let mut input = Input { bytes, used: 0 };
    match input.message(mouse_buttons) {
        Ok(message) => Ok(Some((message, input.used))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Wrong(error)) => Err(error),
    }
}

enum Stop {
    More,
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Input<'a> {
    fn message(&mut self, mouse_buttons: bool) -> Result<Message, Stop> {
        Ok(match self.u8()? {
            0 => {
                self.take(3)?;
                Message::SetPixelFormat(PixelFormat::parse(&self.array()?).map_err(Error::from)?)
            }
            2 => {
                self.take(1)?;
                let count = usize::from(self.u16()?);
                if count > MAX_ENCODINGS {
                    return Err(Error::Encodings(count).into());
                }
                let list = self.take(4 * count)?;
                let number = |bytes: &[u8]| bytes.try_into().map(i32::from_be_bytes).unwrap_or(0);
                Message::SetEncodings(list.chunks_exact(4).map(number).collect())
            }
            3 => Message::UpdateRequest { incremental: self.u8()? != 0, area: self.rect()? },
            4 => {
                let down = self.u8()? != 0;
                self.take(2)?;
                Message::Key { keysym: self.u32()?, down }
            }
            5 => {
                let mask = u16::from(self.u8()?);
                let (x, y) = (self.u16()?, self.u16()?);
                // With the extension, bit 7 says that one more byte holds the buttons from the eighth on.
                let extended = mouse_buttons && mask & 0x80 != 0;
                let buttons = if extended { mask & 0x7f | u16::from(self.u8()?) << 7 } else { mask };
                Message::Pointer { x, y, buttons }
            }
            6 => {
                self.take(3)?;
                // The extended clipboard writes its length negative.
                let signed = self.u32()?.cast_signed();
                let (length, extended) = (signed.unsigned_abs(), signed < 0);
                if length > MAX_CUT_TEXT {
                    return Err(Error::CutText(length).into());
                }
                Message::CutText { length, extended }
            }
            150 => Message::ContinuousUpdates { enable: self.u8()? != 0, area: self.rect()? },
            248 => {
                self.take(3)?;
                let flags = self.u32()?;
                let length = usize::from(self.u8()?);
                if length > MAX_FENCE {
                    return Err(Error::Fence(length).into());
                }
                Message::Fence { flags, payload: self.take(length)?.to_vec() }
            }
            251 => {
                self.take(1)?;
                let (width, height) = (self.u16()?, self.u16()?);
                let screens = usize::from(self.u8()?);
                self.take(1 + 16 * screens)?;
                Message::SetDesktopSize { width, height }
            }
            255 => match self.u8()? {
                0 => Message::ScanCode { down: self.u16()? != 0, keysym: self.u32()?, code: self.u32()? },
                other => return Err(Error::QemuType(other).into()),
            },
            other => return Err(Error::Type(other).into()),
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let taken = self.bytes.get(self.used..self.used + count).ok_or(Stop::More)?;
        self.used += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::More)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_be_bytes)
    }

    fn rect(&mut self) -> Result<Rect, Stop> {
        let [x, y, width, height] = [self.u16()?, self.u16()?, self.u16()?, self.u16()?].map(u32::from);
        Ok(Rect { x, y, width, height })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(bytes: &[u8]) -> Message {
        let (message, used) = parse(bytes, true).unwrap().unwrap();
        assert_eq!(used, bytes.len());
        message
    }

    #[test]
    fn each_message_is_read() {
        assert_eq!(
            one(&[3, 1, 0, 1, 0, 2, 1, 0, 0, 4]),
            Message::UpdateRequest { incremental: true, area: Rect { x: 1, y: 2, width: 256, height: 4 } }
        );
        assert_eq!(one(&[4, 1, 0, 0, 0, 0, 0xff, 0x0d]), Message::Key { keysym: 0xff0d, down: true });
        assert_eq!(one(&[5, 0x81, 0, 9, 0, 8, 2]), Message::Pointer { x: 9, y: 8, buttons: 0x101 });
        assert_eq!(one(&[5, 1, 0, 9, 0, 8]), Message::Pointer { x: 9, y: 8, buttons: 1 });
        assert_eq!(parse(&[5, 0x80, 0, 9, 0, 8], false), Ok(Some((Message::Pointer { x: 9, y: 8, buttons: 0x80 }, 6))));
        assert_eq!(one(&[2, 0, 0, 2, 0, 0, 0, 7, 255, 255, 255, 17]), Message::SetEncodings(vec![7, -239]));
        assert_eq!(one(&[6, 0, 0, 0, 0, 0, 1, 0]), Message::CutText { length: 256, extended: false });
        assert_eq!(one(&[6, 0, 0, 0, 255, 255, 255, 252]), Message::CutText { length: 4, extended: true });
        assert_eq!(
            one(&[248, 0, 0, 0, 0x80, 0, 0, 1, 2, 7, 8]),
            Message::Fence { flags: 0x8000_0001, payload: vec![7, 8] }
        );
        assert_eq!(
            one(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e]),
            Message::ScanCode { keysym: 0x61, code: 0x1e, down: true }
        );
        let mut resize = vec![251, 0, 4, 0, 3, 0, 1, 0];
        resize.extend([0; 16]);
        assert_eq!(one(&resize), Message::SetDesktopSize { width: 1024, height: 768 });
    }

    #[test]
    fn absurd_messages_are_errors_before_their_bytes_arrive() {
        assert_eq!(parse(&[2, 0, 0xff, 0xff], true), Err(Error::Encodings(65535)));
        assert_eq!(parse(&[6, 0, 0, 0, 0x7f, 255, 255, 255], true), Err(Error::CutText(0x7fff_ffff)));
        assert_eq!(parse(&[6, 0, 0, 0, 0x80, 0, 0, 0], true), Err(Error::CutText(0x8000_0000)));
        assert_eq!(parse(&[248, 0, 0, 0, 0, 0, 0, 0, 65], true), Err(Error::Fence(65)));
        assert_eq!(parse(&[99], true), Err(Error::Type(99)));
        assert_eq!(parse(&[255, 1], true), Err(Error::QemuType(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_an_error_or_too_few(bytes in proptest::collection::vec(any::<u8>(), 0..6000), buttons: bool) {
            let mut rest = &bytes[..];
            while let Ok(Some((_, used))) = parse(rest, buttons) {
                prop_assert!(used > 0 && used <= rest.len() && used <= MAX_MESSAGE);
                rest = &rest[used..];
            }
            if parse(rest, buttons) == Ok(None) {
                prop_assert!(rest.len() < MAX_MESSAGE, "no message is longer than said");
            }
        }

        #[test]
        fn a_message_is_the_same_wherever_the_stream_is_cut(
            kind in prop::sample::select(vec![0u8, 2, 3, 4, 5, 6, 150, 248, 251, 255]),
            body in proptest::collection::vec(0u8..4, 0..300),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = vec![kind];
            bytes.extend(body);
            if let Ok(Some((message, used))) = parse(&bytes, true) {
                for cut in 0..used {
                    prop_assert_eq!(parse(&bytes[..cut], true), Ok(None));
                }
                bytes.truncate(used);
                bytes.extend(tail);
                prop_assert_eq!(parse(&bytes, true), Ok(Some((message, used))));
            }
        }
    }
}
