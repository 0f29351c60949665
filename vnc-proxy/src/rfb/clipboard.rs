//! Clipboard text in RFB: Latin-1 of old (RFC 6143 §7.5.6, §7.6.4), or the extended clipboard pseudo-encoding of the
//! RFB community's document, of which plain text is spoken here.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use yunju_protocol::seat::Kind;

/// Format: text.
const TEXT: u32 = 1;
const CAPS: u32 = 1 << 24;
const REQUEST: u32 = 1 << 25;
const PEEK: u32 = 1 << 26;
const NOTIFY: u32 = 1 << 27;
const PROVIDE: u32 = 1 << 28;

/// Most bytes of a viewer's clipboard message that are kept: text as long as may be, with two bytes at each end of
/// a line, should it not be compressible.
pub const MOST_CUT: usize = 2 * Kind::Text.limit() as usize + (64 << 10);

/// What a viewer says of its clipboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// It holds this text.
    Text(String),
    /// It holds text that can be asked for.
    Notify,
    /// It would like to have ours.
    Request,
    /// It would like to know whether there is any here.
    Peek,
    /// Nothing that concerns text, or nothing that can be understood.
    Nothing,
}

/// Reads the content of a clipboard message. Total: what cannot be understood is [`Cut::Nothing`].
pub fn parse(extended: bool, bytes: &[u8]) -> Cut {
    if !extended {
        return Cut::Text(bytes.iter().map(|byte| char::from(*byte)).filter(|c| *c != '\r').collect());
    }
    let Some((flags, rest)) = bytes.split_first_chunk::<4>() else { return Cut::Nothing };
    let flags = u32::from_be_bytes(*flags);
    match flags & (CAPS | REQUEST | PEEK | NOTIFY | PROVIDE) {
        REQUEST if flags & TEXT != 0 => Cut::Request,
        PEEK => Cut::Peek,
        NOTIFY if flags & TEXT != 0 => Cut::Notify,
        PROVIDE if flags & TEXT != 0 => inflate(rest).map_or(Cut::Nothing, Cut::Text),
        _ => Cut::Nothing,
    }
}

/// Text with its length before it, its lines ending with CR LF and itself with a zero. It comes first of all formats.
fn inflate(bytes: &[u8]) -> Option<String> {
    let mut stream = ZlibDecoder::new(bytes);
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= MOST_CUT)?;
    let mut text = Vec::new();
    stream.take(length as u64).read_to_end(&mut text).ok().filter(|count| *count == length)?;
    if text.last() == Some(&0) {
        text.pop();
    }
    Some(String::from_utf8(text).ok()?.replace("\r\n", "\n"))
}

/// Text for a viewer that knows only Latin-1.
pub fn latin1(text: &str) -> Vec<u8> {
    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    let mut out = vec![3, 0, 0, 0];
    // A clip has at most 1 MiB.
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
    out
}

/// What we can: text, asked for both ways.
pub fn caps() -> Vec<u8> {
    // The viewer does not send text before it is asked for it.
    extended(CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, &0u32.to_be_bytes())
}

/// There is text here, or nothing.
pub fn notify(text: bool) -> Vec<u8> {
    extended(NOTIFY | if text { TEXT } else { 0 }, &[])
}

/// The viewer's text is welcome.
pub fn request() -> Vec<u8> {
    extended(REQUEST | TEXT, &[])
}

/// The text that is here.
pub fn provide(text: &str) -> Vec<u8> {
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n") + "\0";
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail; a clip has at most 1 MiB, and twice that with all ends of lines.
    let _ = zlib.write_all(&(text.len() as u32).to_be_bytes());
    let _ = zlib.write_all(text.as_bytes());
    extended(PROVIDE | TEXT, &zlib.finish().unwrap_or_default())
}

fn extended(flags: u32, content: &[u8]) -> Vec<u8> {
    let mut out = vec![3, 0, 0, 0];
    // Its length is negative: that tells it from Latin-1.
    out.extend((-(4 + content.len() as i32)).to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the other side reads in a message of ours.
    fn back(message: &[u8]) -> Cut {
        assert_eq!(message[..4], [3, 0, 0, 0]);
        let length = i32::from_be_bytes(message[4..8].try_into().unwrap());
        assert_eq!(length.unsigned_abs() as usize, message.len() - 8);
        parse(length < 0, &message[8..])
    }

    #[test]
    fn text_survives_the_way() {
        for text in ["", "one\ntwo\n", "汉字 😀", "café"] {
            assert_eq!(back(&provide(text)), Cut::Text(text.into()));
        }
        assert_eq!(back(&provide("a\r\nb")), Cut::Text("a\nb".into()), "ends of lines are line feeds here");
        assert_eq!(back(&latin1("café 汉")), Cut::Text("café ?".into()));
    }

    #[test]
    fn messages_without_text_are_told_apart() {
        assert_eq!(back(&request()), Cut::Request);
        assert_eq!(back(&notify(true)), Cut::Notify);
        assert_eq!(back(&notify(false)), Cut::Nothing);
        assert_eq!(back(&caps()), Cut::Nothing);
        assert_eq!(parse(true, &(1u32 << 26).to_be_bytes()), Cut::Peek);
    }

    #[test]
    fn a_message_that_grows_without_end_is_nothing() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        let huge = MOST_CUT as u32 + 1;
        zlib.write_all(&huge.to_be_bytes()).unwrap();
        zlib.write_all(&vec![b'x'; huge as usize]).unwrap();
        let message = [&(PROVIDE | TEXT).to_be_bytes()[..], &zlib.finish().unwrap()].concat();
        assert!(message.len() < 8192);
        assert_eq!(parse(true, &message), Cut::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(extended: bool, flags in 0u32..1 << 29, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(extended, &bytes);
            parse(true, &[&flags.to_be_bytes()[..], &bytes].concat());
        }
    }
}
