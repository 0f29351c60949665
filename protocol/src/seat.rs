//! What the agent in a person's session and the machine's proxy tell each other: clipboard, typed text, keyboard layout.
//!
//! The agent connects to [`PORT`] of the host (CID 2) and says [`FromSeat::Hello`]. The connection breaks when the machine is
//! snapshotted or restored; the agent connects again. Whatever speaks in a guest may lie: a newer connection replaces an older one, and
//! everything else works without one.
//!
//! A frame is a line of JSON of at most [`LONGEST_LINE`] bytes and as many bytes behind it as its `length` says, none if it has none.
//! Pages speak to the proxy in frames of the same form (`page.rs`). This file is also the agent's, so it stands on its own.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The host's port that the agent connects to.
pub const PORT: u32 = 1078;

/// The line of a frame has at most this many bytes, its end included.
pub const LONGEST_LINE: usize = 1024;

/// Most bytes of text to be typed in one frame.
pub const MOST_TYPED: u32 = 16 << 10;

/// The longest name of a layout or variant of a keyboard.
pub const LONGEST_NAME: usize = 32;

/// What a clipboard can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// UTF-8, lines end with a line feed.
    Text,
    /// A PNG file.
    Png,
}

impl Kind {
    /// Most bytes of it.
    pub const fn limit(self) -> u32 {
        match self {
            Self::Text => 1 << 20,
            Self::Png => 8 << 20,
        }
    }

    /// Whether these bytes look like it. Only the beginning of a PNG file is looked at (PNG 3rd ed. §5.2).
    pub fn fits(self, bytes: &[u8]) -> bool {
        bytes.len() <= self.limit() as usize
            && match self {
                Self::Text => std::str::from_utf8(bytes).is_ok(),
                Self::Png => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
            }
    }
}

/// Which way what is copied may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From people to the guest.
    pub to_guest: bool,
    /// From the guest to people.
    pub from_guest: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { to_guest: true, from_guest: true }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (to_guest, from_guest) = match text {
            "both" => (true, true),
            "to-guest" => (true, false),
            "from-guest" => (false, true),
            "off" => (false, false),
            _ => return Err("write both, to-guest, from-guest or off".into()),
        };
        Ok(Self { to_guest, from_guest })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match (self.to_guest, self.from_guest) {
            (true, true) => "both",
            (true, false) => "to-guest",
            (false, true) => "from-guest",
            (false, false) => "off",
        })
    }
}

/// Which symbols are on which keys, as xkb names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// `us`, `de`, `fr` …
    pub layout: String,
    /// `nodeadkeys` …; empty for the usual one.
    #[serde(default)]
    pub variant: String,
}

impl Layout {
    /// Whether these can be names of xkb's: nothing that means anything to a file, a path or a shell.
    pub fn is_name(&self) -> bool {
        let fits = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            name.len() <= LONGEST_NAME && name.bytes().all(plain)
        };
        !self.layout.is_empty() && fits(&self.layout) && fits(&self.variant)
    }
}

/// Proxy to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum ToSeat {
    /// The guest's clipboard shall hold what follows.
    Clip {
        /// What it is.
        kind: Kind,
        /// Its bytes, at most [`Kind::limit`].
        length: u32,
    },
    /// The text that follows shall be typed where the keyboard's focus is.
    Type {
        /// Bytes of UTF-8, at most [`MOST_TYPED`].
        length: u32,
    },
    /// The keyboard shall have this layout.
    Layout(Layout),
}

/// Agent to proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum FromSeat {
    /// First frame of a connection.
    Hello {
        /// The agent's version.
        version: String,
        /// The session has a clipboard that can be read and set.
        clipboard: bool,
        /// Text can be typed in it.
        text: bool,
    },
    /// Something was copied in the guest; it follows.
    Clip {
        /// What it is.
        kind: Kind,
        /// Its bytes, at most [`Kind::limit`].
        length: u32,
    },
    /// The guest's clipboard holds what it was told to.
    Taken,
    /// The text of one [`ToSeat::Type`] has been typed: keys that come now come after it.
    Typed,
    /// The keyboard has been given this layout.
    Layout(Layout),
}

/// What is wrong with a frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No end of line.
    #[error("a frame's line has more than {LONGEST_LINE} bytes")]
    Line,
    /// No message.
    #[error("a frame's line is no message: {0}")]
    Message(String),
    /// Too many bytes.
    #[error("a frame of {length} bytes (at most {limit} for its kind)")]
    Length {
        /// Bytes that are said to follow.
        length: u32,
        /// Bytes that may.
        limit: u32,
    },
}

/// The line of a frame.
pub trait Head: DeserializeOwned + Serialize {
    /// How many bytes follow it, and how many may.
    fn body(&self) -> (u32, u32);
}

impl Head for ToSeat {
    fn body(&self) -> (u32, u32) {
        match self {
            Self::Clip { kind, length } => (*length, kind.limit()),
            Self::Type { length } => (*length, MOST_TYPED),
            Self::Layout(_) => (0, 0),
        }
    }
}

impl Head for FromSeat {
    fn body(&self) -> (u32, u32) {
        match self {
            Self::Clip { kind, length } => (*length, kind.limit()),
            Self::Hello { .. } | Self::Taken | Self::Typed | Self::Layout(_) => (0, 0),
        }
    }
}

/// The first frame in `bytes`: its head, and where its body is, whose end is the frame's; `None` if more bytes are needed.
pub fn parse<H: Head>(bytes: &[u8]) -> Result<Option<(H, Range<usize>)>, Error> {
    let line = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n');
    let Some(end) = line else {
        return if bytes.len() >= LONGEST_LINE { Err(Error::Line) } else { Ok(None) };
    };
    let head: H = serde_json::from_slice(&bytes[..end]).map_err(|error| Error::Message(error.to_string()))?;
    let (length, limit) = head.body();
    if length > limit {
        return Err(Error::Length { length, limit });
    }
    let body = end + 1..end + 1 + length as usize;
    Ok((bytes.len() >= body.end).then_some((head, body)))
}

/// A frame. `body` has as many bytes as its head says.
pub fn frame(head: &impl Head, body: &[u8]) -> Vec<u8> {
    debug_assert_eq!(head.body().0 as usize, body.len());
    let mut bytes = serde_json::to_vec(head).unwrap_or_default();
    bytes.reserve_exact(1 + body.len());
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Option<(ToSeat, Range<usize>)>, Error> {
        parse(line.as_bytes())
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_and_not_before_it_is_whole() {
        let head = ToSeat::Clip { kind: Kind::Text, length: 5 };
        let mut bytes = frame(&head, b"a\nb\0c");
        assert_eq!(bytes, b"{\"type\":\"clip\",\"kind\":\"text\",\"length\":5}\na\nb\0c");
        for cut in 0..bytes.len() {
            assert_eq!(parse::<ToSeat>(&bytes[..cut]), Ok(None));
        }
        let whole = bytes.len();
        bytes.extend(b"next");
        let (read, body) = parse::<ToSeat>(&bytes).unwrap().unwrap();
        assert_eq!((read, &bytes[body.clone()], body.end), (head, &b"a\nb\0c"[..], whole));
    }

    #[test]
    fn every_message_keeps_its_name_on_the_wire() {
        let layout = || Layout { layout: "de".into(), variant: String::new() };
        let line = "{\"type\":\"layout\",\"layout\":\"de\",\"variant\":\"\"}\n";
        assert_eq!(frame(&ToSeat::Layout(layout()), b""), line.as_bytes());
        let (head, _): (ToSeat, _) = parse(b"{\"type\":\"layout\",\"layout\":\"de\"}\n").unwrap().unwrap();
        assert_eq!(head, ToSeat::Layout(layout()));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let clip =
            |kind, length: u32| typed(&format!("{{\"type\":\"clip\",\"kind\":\"{kind}\",\"length\":{length}}}\n"));
        assert_eq!(clip("text", 1 << 20), Ok(None));
        assert_eq!(clip("text", (1 << 20) + 1), Err(Error::Length { length: (1 << 20) + 1, limit: 1 << 20 }));
        assert_eq!(clip("png", 8 << 20), Ok(None));
        assert_eq!(clip("png", u32::MAX), Err(Error::Length { length: u32::MAX, limit: 8 << 20 }));
        assert_eq!(typed(&"x".repeat(LONGEST_LINE)), Err(Error::Line));
        assert_eq!(typed(&"x".repeat(LONGEST_LINE - 1)), Ok(None));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for line in [
            "",
            "null",
            "[]",
            "{\"type\":\"explode\"}",
            "{\"type\":\"clip\",\"kind\":\"exe\",\"length\":1}",
            "{\"type\":\"clip\",\"kind\":\"png\",\"length\":-1}",
            "{\"type\":\"type\"}",
            &"[".repeat(1000),
        ] {
            assert!(matches!(typed(&format!("{line}\n")), Err(Error::Message(_))), "{line}");
        }
        assert!(matches!(parse::<FromSeat>(b"\xff\xfe\n"), Err(Error::Message(_))));
    }

    #[test]
    fn names_of_layouts_mean_nothing_elsewhere() {
        let layout = |layout: &str, variant: &str| Layout { layout: layout.into(), variant: variant.into() }.is_name();
        assert!(layout("us", "") && layout("de", "nodeadkeys") && layout("fr", "oss_latin9"));
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in ["", "../x", "us\n", "us;reboot", "$(x)", "é", "us,de", long.as_str()] {
            assert!(!layout(bad, ""), "{bad}");
        }
        assert!(!layout("us", "a b"));
    }

    #[test]
    fn a_policy_is_one_of_four_words() {
        for word in ["both", "to-guest", "from-guest", "off"] {
            assert_eq!(word.parse::<Policy>().unwrap().to_string(), word);
        }
        assert!("yes".parse::<Policy>().is_err());
        assert_eq!(Policy::default().to_string(), "both");
    }

    #[test]
    fn a_clip_is_what_it_says() {
        assert!(Kind::Text.fits("汉字".as_bytes()) && Kind::Text.fits(b""));
        assert!(!Kind::Text.fits(b"\xff") && !Kind::Text.fits(&[b'x'; (1 << 20) + 1]));
        assert!(Kind::Png.fits(b"\x89PNG\r\n\x1a\nrest") && !Kind::Png.fits(b"GIF89a"));
    }
}
