//! Pixel formats, and pixels in a viewer's format.

/// How a viewer wants its pixels (RFC 6143 §7.4). True colour only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    bits: u8,
    depth: u8,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

/// A pixel format that is none of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Colours by palette.
    #[error("the viewer asks for a colour map; only true colour is served, set your viewer to full colour")]
    ColourMap,
    /// Numbers that make no pixel.
    #[error("the viewer asks for an impossible pixel format: {0:02x?}")]
    Impossible([u8; 16]),
}

impl PixelFormat {
    /// Blue, green, red, unused: what we begin with.
    pub const BGRX: Self = Self { bits: 32, depth: 24, big_endian: false, max: [255; 3], shift: [16, 8, 0] };

    /// Reads the wire form.
    pub fn parse(wire: &[u8; 16]) -> Result<Self, Error> {
        let [bits, depth, big_endian, true_colour, r1, r0, g1, g0, b1, b0, r, g, b, ..] = *wire;
        if true_colour == 0 {
            return Err(Error::ColourMap);
        }
        let max = [[r1, r0], [g1, g0], [b1, b0]].map(u16::from_be_bytes);
        let shift = [r, g, b];
        let fits = max.iter().zip(shift).all(|(max, shift)| {
            let width = 16 - max.leading_zeros();
            *max > 0 && max.wrapping_add(1) & max == 0 && u32::from(shift) + width <= u32::from(bits)
        });
        if !matches!(bits, 8 | 16 | 32) || depth > bits || !fits {
            return Err(Error::Impossible(*wire));
        }
        Ok(Self { bits, depth, big_endian: big_endian != 0, max, shift })
    }

    /// The wire form.
    pub fn wire(&self) -> [u8; 16] {
        let [[r1, r0], [g1, g0], [b1, b0]] = self.max.map(u16::to_be_bytes);
        let [r, g, b] = self.shift;
        [self.bits, self.depth, self.big_endian.into(), 1, r1, r0, g1, g0, b1, b0, r, g, b, 0, 0, 0]
    }

    /// Whether it has 24 bits of colour in pixels of 32: what Tight's short pixels and JPEG are for.
    pub fn is_full_colour(&self) -> bool {
        self.bits == 32 && self.depth == 24 && self.max == [255; 3]
    }

    /// Bytes a pixel.
    pub fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Bytes of a pixel that ZRLE sends (RFC 6143 §7.7.5, CPIXEL), as a range of [`PixelFormat::bytes`].
    fn compact(&self) -> std::ops::Range<usize> {
        let all = 0..self.bytes();
        if self.bits != 32 || self.depth > 24 {
            return all;
        }
        let mask = self.max.iter().zip(self.shift).fold(0, |mask, (max, shift)| mask | u32::from(*max) << shift);
        match (mask & 0xff00_0000 == 0, mask & 0xff == 0, self.big_endian) {
            (true, _, false) | (false, true, true) => 0..3,
            (true, _, true) | (false, true, false) => 1..4,
            (false, false, _) => all,
        }
    }
}

/// Writes pixels in a viewer's format.
#[derive(Debug, Clone)]
pub struct Writer {
    format: PixelFormat,
    compact: std::ops::Range<usize>,
    /// What each level of red, green and blue adds to a pixel.
    levels: Box<[[u32; 256]; 3]>,
}

impl Writer {
    /// A writer of pixels of this format.
    pub fn new(format: PixelFormat) -> Self {
        let mut levels = Box::new([[0; 256]; 3]);
        for (channel, (max, shift)) in levels.iter_mut().zip(format.max.iter().zip(format.shift)) {
            for (level, value) in (0u32..).zip(channel.iter_mut()) {
                *value = ((level * u32::from(*max) + 127) / 255) << shift;
            }
        }
        Self { format, compact: format.compact(), levels }
    }

    /// The format.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Bytes of a compact pixel.
    pub fn compact_bytes(&self) -> usize {
        self.compact.len()
    }

    /// Writes whole pixels (PIXEL).
    pub fn pixels(&self, row: &[u32], out: &mut Vec<u8>) {
        if self.format == PixelFormat::BGRX {
            out.extend(row.iter().flat_map(|pixel| pixel.to_le_bytes()));
        } else if (PixelFormat { shift: [0, 8, 16], ..PixelFormat::BGRX }) == self.format {
            out.extend(row.iter().flat_map(|pixel| (pixel.swap_bytes() >> 8).to_le_bytes()));
        } else {
            match self.format.bits {
                32 => out.extend(row.iter().flat_map(|pixel| self.bytes(*pixel))),
                bits => row.iter().for_each(|pixel| out.extend(&self.bytes(*pixel)[..usize::from(bits / 8)])),
            }
        }
    }

    /// Writes a pixel of ZRLE (CPIXEL).
    pub fn compact(&self, pixel: u32, out: &mut Vec<u8>) {
        out.extend(&self.bytes(pixel)[self.compact.clone()]);
    }

    /// Writes pixels of Tight (TPIXEL).
    pub fn tight(&self, row: &[u32], out: &mut Vec<u8>) {
        if self.format.is_full_colour() {
            out.extend(row.iter().flat_map(|pixel| {
                let [blue, green, red, _] = pixel.to_le_bytes();
                [red, green, blue]
            }));
        } else {
            self.pixels(row, out);
        }
    }

    /// A pixel's bytes in the viewer's order; those past the format's width mean nothing.
    fn bytes(&self, pixel: u32) -> [u8; 4] {
        let [blue, green, red, _] = pixel.to_le_bytes().map(usize::from);
        let value = self.levels[0][red] | self.levels[1][green] | self.levels[2][blue];
        if self.format.big_endian {
            (value << (32 - u32::from(self.format.bits))).to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RGB565: PixelFormat =
        PixelFormat { bits: 16, depth: 16, big_endian: true, max: [31, 63, 31], shift: [11, 5, 0] };

    fn written(format: PixelFormat, pixel: u32) -> Vec<u8> {
        let mut out = Vec::new();
        Writer::new(format).pixels(&[pixel], &mut out);
        out
    }

    #[test]
    fn formats_survive_the_wire() {
        for format in [PixelFormat::BGRX, RGB565] {
            assert_eq!(PixelFormat::parse(&format.wire()), Ok(format));
        }
    }

    #[test]
    fn pixels_are_written_in_every_width_and_order() {
        assert_eq!(written(PixelFormat::BGRX, 0x112233), [0x33, 0x22, 0x11, 0]);
        assert_eq!(written(PixelFormat { shift: [0, 8, 16], ..PixelFormat::BGRX }, 0x112233), [0x11, 0x22, 0x33, 0]);
        assert_eq!(written(PixelFormat { big_endian: true, ..PixelFormat::BGRX }, 0x112233), [0, 0x11, 0x22, 0x33]);
        assert_eq!(written(RGB565, 0xff0000), [0xf8, 0]);
        assert_eq!(written(PixelFormat { big_endian: false, ..RGB565 }, 0x00ff00), [0xe0, 7]);
        let rgb332 = PixelFormat { bits: 8, depth: 8, big_endian: false, max: [7, 7, 3], shift: [0, 3, 6] };
        assert_eq!(written(rgb332, 0xff00ff), [0xc7]);
    }

    #[test]
    fn compact_pixels_leave_the_unused_byte_out() {
        let compact = |format| {
            let mut out = Vec::new();
            Writer::new(format).compact(0x112233, &mut out);
            out
        };
        assert_eq!(compact(PixelFormat::BGRX), [0x33, 0x22, 0x11]);
        assert_eq!(compact(PixelFormat { big_endian: true, ..PixelFormat::BGRX }), [0x11, 0x22, 0x33]);
        assert_eq!(compact(PixelFormat { shift: [24, 16, 8], ..PixelFormat::BGRX }), [0x33, 0x22, 0x11]);
        assert_eq!(compact(PixelFormat { depth: 32, ..PixelFormat::BGRX }).len(), 4);
        assert_eq!(compact(RGB565).len(), 2);
    }

    #[test]
    fn impossible_formats_are_refused() {
        let refuse = |at: usize, value: u8| {
            let mut wire = PixelFormat::BGRX.wire();
            wire[at] = value;
            PixelFormat::parse(&wire).unwrap_err()
        };
        assert_eq!(refuse(3, 0), Error::ColourMap);
        for (at, value) in [(0, 24), (0, 8), (1, 33), (5, 254), (5, 0), (10, 25), (10, 255), (4, 0x80)] {
            assert!(matches!(refuse(at, value), Error::Impossible(_)), "byte {at} = {value}");
        }
    }
}
