//! Who looks at a screen and what they may there: said by the service in the headers of a websocket's opening request to the proxy.
//!
//! | header | value |
//! |---|---|
//! | [`MAY`] | what the viewer may, of `input`, `clipboard` and `sound`, with commas; empty: only look. Absent: everything, as who reaches the socket was let in |
//! | [`NAME`] | what the other viewers call them, in UTF-8, percent-encoded (RFC 3986 §2.1). Absent: nobody in particular |
//!
//! A value that is none is refused, so that a misunderstanding never gives more than was meant.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The header that says what a viewer may.
pub const MAY: &str = "yunju-may";

/// The header that says who a viewer is.
pub const NAME: &str = "yunju-name";

/// Most characters of a name.
pub const LONGEST_NAME: usize = 64;

/// Most bytes of a name in its header: each of its characters is at most four bytes, each of them three.
const LONGEST_VALUE: usize = LONGEST_NAME * 4 * 3;

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one of the words.
    #[error("a viewer may {0:?}, which is none of input, clipboard and sound")]
    Right(String),
    /// Too long, not UTF-8, or with characters that draw nothing.
    #[error(
        "a viewer's name is percent-encoded UTF-8 of at most {LONGEST_NAME} characters, none of them a control character"
    )]
    Name,
    /// Bytes that are no text, or two values.
    #[error("the header {0} is there twice or is no text")]
    Header(&'static str),
}

/// What a viewer may beside looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct May {
    /// Keys, pointer, typed text, the screen's size, a microphone.
    pub input: bool,
    /// Copying and pasting.
    pub clipboard: bool,
    /// To hear the machine.
    pub sound: bool,
}

impl May {
    /// Only to look.
    pub const NOTHING: Self = Self { input: false, clipboard: false, sound: false };
}

impl Default for May {
    fn default() -> Self {
        Self { input: true, clipboard: true, sound: true }
    }
}

impl fmt::Display for May {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.input, "input"), (self.clipboard, "clipboard"), (self.sound, "sound")];
        let mut comma = "";
        for (_, word) in words.into_iter().filter(|(may, _)| *may) {
            write!(to, "{comma}{word}")?;
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for May {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut may = Self::NOTHING;
        for word in text.split(',').map(str::trim) {
            match word {
                "input" => may.input = true,
                "clipboard" => may.clipboard = true,
                "sound" => may.sound = true,
                "" if text.trim().is_empty() => {}
                other => return Err(Error::Right(other.chars().take(40).collect())),
            }
        }
        Ok(may)
    }
}

/// Who looks, and what they may.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Viewer {
    name: String,
    /// What they may.
    pub may: May,
}

impl Viewer {
    /// Somebody by any name: what cannot be in one is left out, and what is too long cut off.
    pub fn new(name: &str, may: May) -> Self {
        Self { name: name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect(), may }
    }

    /// At most [`LONGEST_NAME`] characters, none of them a control character; empty for nobody in particular.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headers that say so, names in lower case.
    pub fn headers(&self) -> [(&'static str, String); 2] {
        [(MAY, self.may.to_string()), (NAME, utf8_percent_encode(&self.name, NON_ALPHANUMERIC).to_string())]
    }

    /// What a request's headers say; `values` are all values of the header of a name.
    pub fn of_headers<'a, V: Iterator<Item = &'a [u8]>>(values: impl Fn(&'static str) -> V) -> Result<Self, Error> {
        let one = |name| {
            let mut values = values(name);
            let (first, second) = (values.next(), values.next());
            let text = first.map(str::from_utf8).transpose().ok().filter(|_| second.is_none());
            text.ok_or(Error::Header(name))
        };
        Ok(Self {
            name: one(NAME)?.map(name_of).transpose()?.unwrap_or_default(),
            may: one(MAY)?.map(May::from_str).transpose()?.unwrap_or_default(),
        })
    }
}

fn name_of(value: &str) -> Result<String, Error> {
    if value.len() > LONGEST_VALUE {
        return Err(Error::Name);
    }
    let name = percent_decode_str(value).decode_utf8().map_err(|_| Error::Name)?;
    let fits = name.chars().count() <= LONGEST_NAME && !name.contains(char::is_control);
    fits.then(|| name.into_owned()).ok_or(Error::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &[u8])]) -> Result<Viewer, Error> {
        Viewer::of_headers(|name| headers.iter().filter(move |(of, _)| *of == name).map(|(_, value)| *value))
    }

    #[test]
    fn who_says_nothing_may_everything() {
        assert_eq!(
            read(&[]),
            Ok(Viewer { name: String::new(), may: May { input: true, clipboard: true, sound: true } })
        );
        assert_eq!(read(&[(MAY, b"")]), Ok(Viewer::new("", May::NOTHING)), "an empty list is one");
    }

    #[test]
    fn every_viewer_is_read_as_it_was_written() {
        for name in ["", "me", "Zoë O'Brien, 2 €", "云居", "a%41b", "100%", &"龘".repeat(LONGEST_NAME)] {
            for bits in 0..8u8 {
                let may = May { input: bits & 1 != 0, clipboard: bits & 2 != 0, sound: bits & 4 != 0 };
                let viewer = Viewer::new(name, may);
                assert_eq!(viewer.name(), name);
                let headers = viewer.headers();
                assert!(headers.iter().all(|(_, value)| value.bytes().all(|byte| byte.is_ascii_graphic())));
                let headers = headers.each_ref().map(|(name, value)| (*name, value.as_bytes()));
                assert_eq!(read(&headers), Ok(viewer));
            }
        }
        assert_eq!(read(&[(MAY, b" sound , input ")]).map(|viewer| viewer.may.to_string()), Ok("input,sound".into()));
    }

    #[test]
    fn what_was_not_meant_gives_nobody_anything() {
        for may in ["all", "input,", ",", "Input", "input;sound", "input sound", "*", &"x".repeat(100_000)] {
            assert!(matches!(read(&[(MAY, may.as_bytes())]), Err(Error::Right(word)) if word.len() <= 40), "{may:.20}");
        }
        assert_eq!(read(&[(MAY, b"\xff")]), Err(Error::Header(MAY)));
        assert_eq!(read(&[(MAY, b""), (MAY, b"input")]), Err(Error::Header(MAY)));
        assert_eq!(read(&[(NAME, b"a"), (NAME, b"b")]), Err(Error::Header(NAME)));
    }

    #[test]
    fn names_that_are_none_are_refused_and_made_fit_by_who_says_them() {
        let long = "a".repeat(LONGEST_NAME + 1);
        for name in ["%ff", "%00", "a%0ab", "%1b[31m", "%c2%85", &long, &"%41".repeat(LONGEST_VALUE)] {
            assert_eq!(read(&[(NAME, name.as_bytes())]), Err(Error::Name), "{name:.20}");
        }
        assert_eq!(Viewer::new("a\n\u{1b}b", May::default()).name(), "ab");
        assert_eq!(Viewer::new(&long, May::default()).name().len(), LONGEST_NAME);
    }
}
