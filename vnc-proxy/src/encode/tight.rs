//! Tight encoding (<https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst#tight-encoding>).

use yunju_protocol::display::Rect;

use super::jpeg;
use super::palette::Palette;
use super::zlib::Stream;
use crate::picture::Picture;
use crate::rfb::pixel::Writer;

const FILL: u8 = 8 << 4;
const JPEG: u8 = 9 << 4;
/// A filter's number follows.
const EXPLICIT_FILTER: u8 = 4 << 4;
const FILTER_PALETTE: u8 = 1;
const FILTER_COPY: u8 = 0;

/// Shorter data is sent as it is.
const SHORTEST_COMPRESSED: usize = 12;

/// A palette pays from so many pixels a colour on: it is not compressed, and what was sent as pixels before can be
/// told again in a few bytes, as a glyph is.
const COLOUR_PAYS: u64 = 24;

/// Which of the streams each kind of data goes to.
const FULL: usize = 0;
const MONO: usize = 1;
const INDEXED: usize = 2;

/// Tight encoding of one viewer's picture.
pub struct Tight {
    streams: [Stream; 3],
    palette: Palette,
    /// Data before compression.
    data: Vec<u8>,
}

impl Default for Tight {
    fn default() -> Self {
        Self { streams: [1; 3].map(Stream::new), palette: Palette::default(), data: Vec::new() }
    }
}

impl Tight {
    /// Sets the effort of compression, 0 to 9.
    pub fn set_level(&mut self, level: u8) {
        // Higher levels cost much and gain little on screen contents.
        self.streams.iter_mut().for_each(|stream| stream.set_level(level.clamp(1, 6)));
    }

    /// Appends a rectangle of at most 2048 columns and 64 Ki pixels (unless of one colour), as JPEG of this quality
    /// if that is given and the colours are many. Says whether it was JPEG.
    pub fn encode(
        &mut self,
        picture: &Picture,
        rect: Rect,
        pixels: &Writer,
        quality: Option<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        let few = usize::try_from(rect.area() / COLOUR_PAYS).unwrap_or(256).clamp(2, 256);
        if self.palette.count(picture, rect, few) {
            self.encode_palette(rect, pixels, out);
            return false;
        }
        if let Some(jpeg) = quality.and_then(|level| jpeg::encode(picture, rect, level)) {
            out.push(JPEG);
            compact_length(jpeg.len(), out);
            out.extend(jpeg);
            return true;
        }
        self.data.clear();
        picture.rows(rect).for_each(|row| pixels.tight(row, &mut self.data));
        out.extend([EXPLICIT_FILTER | (FULL as u8) << 4, FILTER_COPY]);
        self.compress(FULL, out);
        false
    }

    fn encode_palette(&mut self, rect: Rect, pixels: &Writer, out: &mut Vec<u8>) {
        let colours = self.palette.colours();
        if colours.len() <= 1 {
            out.push(FILL);
            pixels.tight(colours, out);
            return;
        }
        let stream = if colours.len() == 2 { MONO } else { INDEXED };
        out.extend([EXPLICIT_FILTER | (stream as u8) << 4, FILTER_PALETTE, (colours.len() - 1) as u8]);
        pixels.tight(colours, out);
        self.data.clear();
        if stream == MONO {
            for row in self.palette.indices().chunks(rect.width.max(1) as usize) {
                let bits = |eight: &[u8]| eight.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at));
                self.data.extend(row.chunks(8).map(bits));
            }
        } else {
            self.data.extend(self.palette.indices());
        }
        self.compress(stream, out);
    }

    fn compress(&mut self, stream: usize, out: &mut Vec<u8>) {
        if self.data.len() < SHORTEST_COMPRESSED {
            out.extend(&self.data);
            return;
        }
        let mut compressed = Vec::with_capacity(self.data.len() / 4 + 64);
        self.streams[stream].write(&self.data, &mut compressed);
        compact_length(compressed.len(), out);
        out.extend(compressed);
    }
}

/// Seven bits a byte, the lowest first; the third byte has eight.
fn compact_length(length: usize, out: &mut Vec<u8>) {
    debug_assert!(length < 1 << 22, "rectangles are small enough");
    let [low, middle, high] = [length & 0x7f, length >> 7 & 0x7f, length >> 14].map(|part| part as u8);
    match (middle, high) {
        (0, 0) => out.push(low),
        (_, 0) => out.extend([low | 0x80, middle]),
        _ => out.extend([low | 0x80, middle | 0x80, high]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        let of = |length| {
            let mut out = Vec::new();
            compact_length(length, &mut out);
            out
        };
        assert_eq!(of(0), [0]);
        assert_eq!(of(127), [0x7f]);
        assert_eq!(of(10_000), [0x90, 0x4e]);
        assert_eq!(of(1 << 14), [0x80, 0x80, 1]);
        assert_eq!(of((1 << 22) - 1), [0xff, 0xff, 0xff]);
    }
}
