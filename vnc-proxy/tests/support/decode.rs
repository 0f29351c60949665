//! A decoder of RFB updates, written from the specification and not from the encoder.

#[cfg(feature = "h264")]
use std::collections::HashMap;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress};
use yunju_protocol::display::Rect;

/// A format that a viewer asks for: bits, depth, big endian, maxima, shifts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format(pub u8, pub u8, pub bool, pub [u16; 3], pub [u8; 3]);

/// What the server begins with.
pub const BGRX: Format = Format(32, 24, false, [255; 3], [16, 8, 0]);
/// What noVNC asks for.
pub const RGBX: Format = Format(32, 24, false, [255; 3], [0, 8, 16]);

impl Format {
    /// The wire form.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = vec![self.0, self.1, self.2.into(), 1];
        wire.extend(self.3.iter().flat_map(|max| max.to_be_bytes()));
        wire.extend(self.4);
        wire.extend([0; 3]);
        wire
    }

    fn bytes(&self) -> usize {
        usize::from(self.0) / 8
    }

    fn colour(&self, bytes: &[u8]) -> u32 {
        let fold = |value, byte: &u8| value << 8 | u32::from(*byte);
        let value = if self.2 { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
        let level = |channel: usize| {
            let max = u32::from(self.3[channel]);
            ((value >> self.4[channel]) & max) * 255 / max
        };
        level(0) << 16 | level(1) << 8 | level(2)
    }

    /// What a colour looks like after a journey in this format.
    pub fn shown(&self, colour: u32) -> u32 {
        let level = |channel: usize| {
            let max = f64::from(self.3[channel]);
            let full = f64::from(colour >> (16 - 8 * channel) & 255);
            ((full * max / 255.0).round() * 255.0 / max) as u32
        };
        level(0) << 16 | level(1) << 8 | level(2)
    }

    fn is_tight_short(&self) -> bool {
        self.0 == 32 && self.1 == 24 && self.3 == [255; 3]
    }
}

/// What a rectangle was besides pixels.
#[derive(Debug, Clone, PartialEq)]
pub enum Extra {
    Size(u32, u32),
    ExtendedSize { reason: u32, status: u32, width: u32, height: u32 },
    Cursor { hot: (u32, u32), size: (u32, u32), rgba: Vec<u8> },
    Name(String),
    Leds(u8),
    QemuKeys,
    MouseButtons,
}

/// One update, as it was sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Rectangles and their encodings, in order.
    pub rects: Vec<(Rect, i32)>,
    /// What was no pixels.
    pub extras: Vec<Extra>,
    /// Rectangles sent as JPEG.
    pub jpegs: usize,
    /// Pictures sent as H.264.
    pub frames: usize,
}

/// A viewer's picture and the state of its decoders.
pub struct Decoder {
    pub format: Format,
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u32>,
    /// Updates are read but not decoded.
    pub skims: bool,
    zrle: Decompress,
    tight: [Decompress; 4],
    #[cfg(feature = "h264")]
    films: HashMap<Rect, openh264::decoder::Decoder>,
}

impl Decoder {
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            format: BGRX,
            width,
            height,
            pixels: vec![0; (width * height) as usize],
            skims: false,
            zrle: Decompress::new(true),
            tight: [0; 4].map(|_| Decompress::new(true)),
            #[cfg(feature = "h264")]
            films: HashMap::new(),
        }
    }

    /// Reads an update of which the message type has been read.
    pub fn update(&mut self, input: &mut dyn Read) -> io::Result<Decoded> {
        let mut decoded = Decoded::default();
        take(input, 1)?;
        let count = u16(input)?;
        for _ in 0..count {
            let [x, y, width, height] = [u16(input)?, u16(input)?, u16(input)?, u16(input)?].map(u32::from);
            let rect = Rect { x, y, width, height };
            let encoding = u32(input)? as i32;
            if encoding == -224 {
                return Ok(decoded);
            }
            self.rect(input, rect, encoding, &mut decoded)?;
            decoded.rects.push((rect, encoding));
        }
        assert!(count < u16::MAX, "an update without known count ends with a last rectangle");
        Ok(decoded)
    }

    fn rect(&mut self, input: &mut dyn Read, rect: Rect, encoding: i32, decoded: &mut Decoded) -> io::Result<()> {
        let mut extra = |extra| decoded.extras.push(extra);
        match encoding {
            0 | 1 | 7 | 16 | 50 => {
                assert!(rect.right() <= self.width && rect.bottom() <= self.height, "{rect:?} is outside");
                assert!(!rect.is_empty(), "a rectangle of pixels has some");
                match encoding {
                    0 => {
                        let bytes = take(input, rect.area() as usize * self.format.bytes())?;
                        let format = self.format;
                        self.put(rect, bytes.chunks(format.bytes()).map(|pixel| format.colour(pixel)).collect());
                    }
                    1 => {
                        let from = Rect { x: u16(input)?.into(), y: u16(input)?.into(), ..rect };
                        let copied = self.get(from);
                        self.put(rect, copied);
                    }
                    7 => decoded.jpegs += usize::from(self.tight(input, rect)?),
                    50 => decoded.frames += self.film(input, rect)?,
                    _ => self.zrle(input, rect)?,
                }
            }
            -223 => {
                extra(Extra::Size(rect.width, rect.height));
                self.resize(rect.width, rect.height);
            }
            -308 => {
                let screens = take(input, 4)?[0];
                take(input, 16 * usize::from(screens))?;
                let Rect { x: reason, y: status, width, height } = rect;
                extra(Extra::ExtendedSize { reason, status, width, height });
                if (width, height) != (self.width, self.height) {
                    self.resize(width, height);
                }
            }
            0x574d5664 => {
                assert_eq!(take(input, 2)?[0], 1, "a cursor with alpha");
                extra(cursor(rect, take(input, rect.area() as usize * 4)?));
            }
            -314 => {
                assert_eq!(u32(input)?, 0, "a raw cursor");
                extra(cursor(rect, take(input, rect.area() as usize * 4)?));
            }
            -239 => {
                let pixels = take(input, rect.area() as usize * self.format.bytes())?;
                let stride = rect.width.div_ceil(8) as usize;
                let mask = take(input, stride * rect.height as usize)?;
                let mut rgba = Vec::new();
                for (at, pixel) in pixels.chunks(self.format.bytes()).enumerate() {
                    let (x, y) = (at % rect.width as usize, at / rect.width as usize);
                    let opaque = mask[y * stride + x / 8] >> (7 - x % 8) & 1;
                    let [_, r, g, b] = self.format.colour(pixel).to_be_bytes();
                    rgba.extend([r, g, b, opaque * 255]);
                }
                extra(cursor(rect, rgba));
            }
            -307 => {
                let length = u32(input)?;
                let name = String::from_utf8(take(input, length as usize)?);
                extra(Extra::Name(name.expect("names are UTF-8")));
            }
            -261 => extra(Extra::Leds(take(input, 1)?[0])),
            -258 => extra(Extra::QemuKeys),
            -316 => extra(Extra::MouseButtons),
            other => panic!("a rectangle of unknown encoding {other}"),
        }
        Ok(())
    }

    fn resize(&mut self, width: u32, height: u32) {
        (self.width, self.height, self.pixels) = (width, height, vec![0; (width * height) as usize]);
    }

    fn get(&self, rect: Rect) -> Vec<u32> {
        let at = |x: u32, y: u32| (y * self.width + x) as usize;
        (rect.y..rect.bottom()).flat_map(|y| self.pixels[at(rect.x, y)..at(rect.right(), y)].to_vec()).collect()
    }

    fn put(&mut self, rect: Rect, pixels: Vec<u32>) {
        if self.skims {
            return;
        }
        assert_eq!(pixels.len() as u64, rect.area());
        for (row, y) in pixels.chunks(rect.width as usize).zip(rect.y..) {
            let start = (y * self.width + rect.x) as usize;
            self.pixels[start..start + row.len()].copy_from_slice(row);
        }
    }

    /// Whether it was JPEG.
    fn tight(&mut self, input: &mut dyn Read, rect: Rect) -> io::Result<bool> {
        assert!(rect.width <= 2048, "Tight rectangles are at most 2048 wide");
        let control = take(input, 1)?[0];
        for (at, stream) in self.tight.iter_mut().enumerate() {
            if control >> at & 1 == 1 {
                stream.reset(true);
            }
        }
        let format = self.format;
        let size = if format.is_tight_short() { 3 } else { format.bytes() };
        let colour = |bytes: &[u8]| match bytes {
            [r, g, b] => u32::from_be_bytes([0, *r, *g, *b]),
            bytes => format.colour(bytes),
        };
        match control >> 4 {
            8 => {
                let colour = colour(&take(input, size)?);
                self.put(rect, vec![colour; rect.area() as usize]);
            }
            9 => {
                assert!(matches!(format.0, 16 | 32), "JPEG is for 16 and 32 bits");
                let length = compact_length(input)?;
                let jpeg = take(input, length)?;
                if self.skims {
                    return Ok(true);
                }
                let mut decoder = jpeg_decoder::Decoder::new(&jpeg[..]);
                let rgb = decoder.decode().expect("a JPEG picture");
                let info = decoder.info().expect("a JPEG header");
                assert_eq!((u32::from(info.width), u32::from(info.height)), (rect.width, rect.height));
                self.put(rect, rgb.chunks(3).map(colour).collect());
                return Ok(true);
            }
            basic @ 0..8 => {
                let filter = if basic & 4 != 0 { take(input, 1)?[0] } else { 0 };
                let palette = match filter {
                    0 => None,
                    1 => {
                        let count = usize::from(take(input, 1)?[0]) + 1;
                        Some(take(input, count * size)?.chunks(size).map(colour).collect::<Vec<_>>())
                    }
                    other => panic!("Tight filter {other}"),
                };
                let row = match &palette {
                    Some(palette) if palette.len() <= 2 => rect.width.div_ceil(8) as usize,
                    Some(_) => rect.width as usize,
                    None => rect.width as usize * size,
                };
                let length = row * rect.height as usize;
                let data = if length < 12 {
                    take(input, length)?
                } else {
                    let packed = compact_length(input)?;
                    let packed = take(input, packed)?;
                    if self.skims {
                        return Ok(false);
                    }
                    inflate(&mut self.tight[usize::from(basic & 3)], &packed, Some(length))
                };
                let pixels = match &palette {
                    None => data.chunks(size).map(colour).collect(),
                    Some(palette) if palette.len() <= 2 => {
                        let bit = |row: &[u8], x: usize| usize::from(row[x / 8] >> (7 - x % 8) & 1);
                        let rows = data.chunks(row);
                        rows.flat_map(|row| (0..rect.width as usize).map(move |x| palette[bit(row, x)])).collect()
                    }
                    Some(palette) => data.iter().map(|index| palette[usize::from(*index)]).collect(),
                };
                self.put(rect, pixels);
            }
            other => panic!("Tight control {other}"),
        }
        Ok(false)
    }

    /// Open H.264 (<https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst#open-h-264-encoding>), read as noVNC
    /// does: each slice is a picture, and each picture must come out as soon as it is put in.
    #[cfg(feature = "h264")]
    fn film(&mut self, input: &mut dyn Read, rect: Rect) -> io::Result<usize> {
        let (length, flags) = (u32(input)? as usize, u32(input)?);
        match flags {
            0 => {}
            1 => drop(self.films.remove(&rect)),
            2 => self.films.clear(),
            other => panic!("H.264 flags {other}"),
        }
        let bytes = take(input, length)?;
        if self.skims {
            return Ok(1);
        }
        let mut starts: Vec<usize> =
            (0..length.saturating_sub(3)).filter(|at| bytes[*at..].starts_with(&[0, 0, 1])).collect();
        let kind = |start: &usize| bytes[start + 3] & 31;
        let fresh = !self.films.contains_key(&rect);
        assert!(
            !fresh || starts.first().is_some_and(|first| kind(first) == 7),
            "a new film begins with its parameters"
        );
        let film = self.films.entry(rect).or_insert_with(|| openh264::decoder::Decoder::new().expect("a decoder"));
        starts.push(length);
        let (mut begin, mut pictures, mut shown) = (0, 0, Vec::new());
        for pair in starts.windows(2) {
            if matches!(kind(&pair[0]), 1 | 5) {
                let unflushed =
                    openh264::decoder::DecodeOptions::new().flush_after_decode(openh264::decoder::Flush::NoFlush);
                let picture = film.decode_with_options(&bytes[begin..pair[1]], unflushed).expect("H.264");
                shown = colours(&picture.expect("a picture at once"), rect);
                (begin, pictures) = (pair[1], pictures + 1);
            }
        }
        if pictures > 0 {
            self.put(rect, shown);
        }
        Ok(pictures)
    }

    #[cfg(not(feature = "h264"))]
    fn film(&mut self, _: &mut dyn Read, _: Rect) -> io::Result<usize> {
        panic!("a proxy without H.264 sends none");
    }

    fn zrle(&mut self, input: &mut dyn Read, rect: Rect) -> io::Result<()> {
        let length = u32(input)? as usize;
        let packed = take(input, length)?;
        let data = inflate(&mut self.zrle, &packed, None);
        let mut data = &data[..];
        let format = self.format;
        let mask = format.3.iter().zip(format.4).fold(0u32, |mask, (max, shift)| mask | u32::from(*max) << shift);
        let short = format.0 == 32 && format.1 <= 24 && (mask < 1 << 24 || mask & 255 == 0);
        let low = mask < 1 << 24;
        let pixel = |data: &mut &[u8]| -> u32 {
            if !short {
                let bytes = take(data, format.bytes()).expect("a pixel");
                return format.colour(&bytes);
            }
            let mut bytes = take(data, 3).expect("a short pixel");
            bytes.insert(if low != format.2 { 3 } else { 0 }, 0);
            format.colour(&bytes)
        };
        for y in (rect.y..rect.bottom()).step_by(64) {
            for x in (rect.x..rect.right()).step_by(64) {
                let tile = Rect { x, y, width: 64, height: 64 }.intersection(&rect);
                let area = tile.area() as usize;
                let kind = usize::from(take(&mut data, 1)?[0]);
                let mut pixels = Vec::with_capacity(area);
                match kind {
                    0 => (0..area).for_each(|_| pixels.push(pixel(&mut data))),
                    1 => pixels = vec![pixel(&mut data); area],
                    2..=16 => {
                        let palette: Vec<u32> = (0..kind).map(|_| pixel(&mut data)).collect();
                        let bits = if kind == 2 {
                            1
                        } else if kind <= 4 {
                            2
                        } else {
                            4
                        };
                        for _ in 0..tile.height {
                            let row = take(&mut data, (tile.width as usize * bits).div_ceil(8))?;
                            for at in 0..tile.width as usize {
                                let shift = 8 - bits - at * bits % 8;
                                pixels.push(palette[usize::from(row[at * bits / 8] >> shift) & ((1 << bits) - 1)]);
                            }
                        }
                    }
                    128 => {
                        while pixels.len() < area {
                            let colour = pixel(&mut data);
                            let length = run(&mut data)?;
                            pixels.extend(vec![colour; length]);
                        }
                    }
                    130..=255 => {
                        let palette: Vec<u32> = (128..kind).map(|_| pixel(&mut data)).collect();
                        while pixels.len() < area {
                            let index = take(&mut data, 1)?[0];
                            let length = if index & 128 != 0 { run(&mut data)? } else { 1 };
                            pixels.extend(vec![palette[usize::from(index & 127)]; length]);
                        }
                    }
                    other => panic!("ZRLE tile of kind {other}"),
                }
                self.put(tile, pixels);
            }
        }
        assert!(data.is_empty(), "nothing is left after the last tile");
        Ok(())
    }
}

/// Colours by BT.709 with limited range.
#[cfg(feature = "h264")]
fn colours(picture: &openh264::decoder::DecodedYUV<'_>, rect: Rect) -> Vec<u32> {
    use openh264::formats::YUVSource;
    let (width, height) = picture.dimensions();
    assert!(width >= rect.width as usize && height >= rect.height as usize);
    let (luma_stride, chroma_stride, _) = picture.strides();
    let mut pixels = Vec::with_capacity(rect.area() as usize);
    for y in 0..rect.height as usize {
        for x in 0..rect.width as usize {
            let chroma = y / 2 * chroma_stride + x / 2;
            let luma = 1.1644 * (f32::from(picture.y()[y * luma_stride + x]) - 16.0);
            let (blue, red) = (f32::from(picture.u()[chroma]) - 128.0, f32::from(picture.v()[chroma]) - 128.0);
            let parts = [luma + 1.7927 * red, luma - 0.2132 * blue - 0.5329 * red, luma + 2.1124 * blue];
            // Casts to bytes saturate.
            let [r, g, b] = parts.map(|part| (part + 0.5) as u8);
            pixels.push(u32::from_be_bytes([0, r, g, b]));
        }
    }
    pixels
}

fn cursor(rect: Rect, rgba: Vec<u8>) -> Extra {
    Extra::Cursor { hot: (rect.x, rect.y), size: (rect.width, rect.height), rgba }
}

fn run(data: &mut &[u8]) -> io::Result<usize> {
    let mut length = 1;
    loop {
        let byte = usize::from(take(data, 1)?[0]);
        length += byte;
        if byte != 255 {
            return Ok(length);
        }
    }
}

fn inflate(stream: &mut Decompress, mut packed: &[u8], expected: Option<usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(expected.unwrap_or(1 << 16));
    loop {
        let before = stream.total_in();
        stream.decompress_vec(packed, &mut out, FlushDecompress::Sync).expect("zlib data");
        packed = &packed[(stream.total_in() - before) as usize..];
        if packed.is_empty() && out.len() < out.capacity() {
            break;
        }
        if packed.is_empty() && expected == Some(out.len()) {
            break;
        }
        out.reserve(1 << 16);
    }
    if let Some(expected) = expected {
        assert_eq!(out.len(), expected, "zlib data of the rectangle's length");
    }
    out
}

fn compact_length(input: &mut dyn Read) -> io::Result<usize> {
    let mut length = 0;
    for (at, mask) in [(0, 0x7f), (7, 0x7f), (14, 0xff)] {
        let byte = take(input, 1)?[0];
        length |= usize::from(byte & mask) << at;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(length)
}

/// Reads that many bytes.
pub fn take(input: &mut dyn Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a number.
pub fn u16(input: &mut dyn Read) -> io::Result<u16> {
    Ok(u16::from_be_bytes([take(input, 1)?[0], take(input, 1)?[0]]))
}

/// Reads a number.
pub fn u32(input: &mut dyn Read) -> io::Result<u32> {
    Ok(u32::from(u16(input)?) << 16 | u32::from(u16(input)?))
}
