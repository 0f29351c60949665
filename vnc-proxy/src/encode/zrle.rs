//! ZRLE encoding (RFC 6143 §7.7.6).

use yunju_protocol::display::Rect;

use super::palette::Palette;
use super::zlib::Stream;
use crate::picture::Picture;
use crate::rfb::pixel::Writer;
use crate::tiles::SIDE;

const RAW: u8 = 0;
const PLAIN_RUNS: u8 = 128;

/// Most colours whose numbers are packed into bits.
const MOST_PACKED: usize = 16;
/// Most colours of which runs can be told.
const MOST_RUNS: usize = 127;

/// ZRLE encoding of one viewer's picture.
pub struct Zrle {
    stream: Stream,
    palette: Palette,
    runs: Vec<(u32, usize)>,
    /// Data before compression.
    data: Vec<u8>,
}

impl Default for Zrle {
    fn default() -> Self {
        Self { stream: Stream::new(1), palette: Palette::default(), runs: Vec::new(), data: Vec::new() }
    }
}

impl Zrle {
    /// Sets the effort of compression, 0 to 9.
    pub fn set_level(&mut self, level: u8) {
        self.stream.set_level(level.clamp(1, 6));
    }

    /// Appends a rectangle.
    pub fn encode(&mut self, picture: &Picture, rect: Rect, pixels: &Writer, out: &mut Vec<u8>) {
        self.data.clear();
        for y in (rect.y..rect.bottom()).step_by(SIDE as usize) {
            for x in (rect.x..rect.right()).step_by(SIDE as usize) {
                self.tile(picture, Rect { x, y, width: SIDE, height: SIDE }.intersection(&rect), pixels);
            }
        }
        let start = out.len();
        out.extend([0; 4]);
        self.stream.write(&self.data, out);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes a tile in whichever way is shortest before compression.
    fn tile(&mut self, picture: &Picture, tile: Rect, pixels: &Writer) {
        let size = pixels.compact_bytes();
        self.find_runs(picture, tile);
        let raw = tile.area() as usize * size;
        let plain: usize = self.runs.iter().map(|(_, length)| size + length_bytes(*length)).sum();
        let few = self.palette.count(picture, tile, MOST_RUNS);
        let colours = self.palette.colours();
        let indexed = if few {
            let bytes = |length| if length == 1 { 1 } else { 1 + length_bytes(length) };
            colours.len() * size + self.runs.iter().map(|(_, length)| bytes(*length)).sum::<usize>()
        } else {
            usize::MAX
        };
        let packed = if few && colours.len() <= MOST_PACKED {
            let row = (tile.width * packed_bits(colours.len())).div_ceil(8);
            colours.len() * size + (row * tile.height) as usize
        } else {
            usize::MAX
        };
        if few && colours.len() == 1 {
            self.data.push(1);
            self.palette_colours(pixels);
        } else if packed <= raw.min(plain).min(indexed) {
            self.packed(tile, pixels);
        } else if indexed <= raw.min(plain) {
            self.indexed_runs(pixels);
        } else if plain < raw {
            self.data.push(PLAIN_RUNS);
            for (pixel, length) in &self.runs {
                pixels.compact(*pixel, &mut self.data);
                run_length(*length, &mut self.data);
            }
        } else {
            self.data.push(RAW);
            picture.rows(tile).flatten().for_each(|pixel| pixels.compact(*pixel, &mut self.data));
        }
    }

    fn find_runs(&mut self, picture: &Picture, tile: Rect) {
        self.runs.clear();
        for &pixel in picture.rows(tile).flatten() {
            match self.runs.last_mut() {
                Some((colour, length)) if *colour == pixel => *length += 1,
                _ => self.runs.push((pixel, 1)),
            }
        }
    }

    fn palette_colours(&mut self, pixels: &Writer) {
        self.palette.colours().iter().for_each(|colour| pixels.compact(*colour, &mut self.data));
    }

    fn packed(&mut self, tile: Rect, pixels: &Writer) {
        let colours = self.palette.colours().len();
        let bits = packed_bits(colours);
        self.data.push(colours as u8);
        self.palette_colours(pixels);
        for row in self.palette.indices().chunks(tile.width as usize) {
            for pack in row.chunks((8 / bits) as usize) {
                let byte = (1u32..).zip(pack).fold(0, |byte, (nth, index)| byte | index << (8 - nth * bits));
                self.data.push(byte);
            }
        }
    }

    fn indexed_runs(&mut self, pixels: &Writer) {
        self.data.push(PLAIN_RUNS + self.palette.colours().len() as u8);
        self.palette_colours(pixels);
        let mut at = 0;
        for (_, length) in &self.runs {
            let index = self.palette.indices()[at];
            at += length;
            if *length == 1 {
                self.data.push(index);
            } else {
                self.data.push(index | 0x80);
                run_length(*length, &mut self.data);
            }
        }
    }
}

fn packed_bits(colours: usize) -> u32 {
    match colours {
        0..=2 => 1,
        3..=4 => 2,
        _ => 4,
    }
}

/// Bytes that a run's length takes.
fn length_bytes(length: usize) -> usize {
    (length - 1) / 255 + 1
}

fn run_length(length: usize, out: &mut Vec<u8>) {
    let less_one = length - 1;
    out.extend(std::iter::repeat_n(255, less_one / 255));
    out.push((less_one % 255) as u8);
}
