//! What the screen says about itself: EDID 1.4 (VESA E-EDID release A revision 2).

/// Bytes of a block.
const BLOCK: usize = 128;

/// Greatest width and height that a detailed timing of the base block can say: 12 bits.
const MAX_DETAILED: u32 = 4095;

/// Pictures a second that the timing asks for.
const REFRESH: u32 = 60;

/// Blanking as of "reduced blanking" (VESA CVT 1.2 §3.4): columns, front porch, sync.
const H_BLANK: u32 = 160;
const H_FRONT: u32 = 48;
const H_SYNC: u32 = 32;
/// Rows of front porch and sync, the least back porch, and the least time of them all in microseconds.
const V_FRONT: u32 = 3;
const V_SYNC: u32 = 6;
const V_BACK: u32 = 6;
const V_BLANK_US: u32 = 460;

/// Standard timings that a guest may offer besides: width, aspect ratio's code, at 60 Hz (§3.9).
const STANDARD: [(u32, u8); 8] = [
    (1920, ASPECT_16_9),
    (1920, ASPECT_16_10),
    (1680, ASPECT_16_10),
    (1600, ASPECT_16_9),
    (1440, ASPECT_16_10),
    (1280, ASPECT_5_4),
    (1280, ASPECT_16_10),
    (1280, ASPECT_16_9),
];
const ASPECT_16_10: u8 = 0;
const ASPECT_5_4: u8 = 2;
const ASPECT_16_9: u8 = 3;

/// The EDID of a screen at 96 dots an inch that prefers `width` by `height` pixels, at most 65,535 each:
/// one block, or two if the size is too great for the first.
pub fn edid(width: u32, height: u32) -> Vec<u8> {
    let timing = Timing::new(width, height);
    let fits = width.max(height) <= MAX_DETAILED;
    let mut edid = base(&timing, fits).to_vec();
    if !fits {
        edid.extend(display_id(&timing));
    }
    edid
}

struct Timing {
    width: u32,
    height: u32,
    /// Rows without a picture.
    v_blank: u32,
    /// Pixel clock in 10 kHz.
    clock: u32,
}

impl Timing {
    fn new(width: u32, height: u32) -> Self {
        // What remains of a picture's time for its rows, and how many rows the blanking time is worth.
        let active_us = 1_000_000 / REFRESH - V_BLANK_US;
        let v_blank = (V_BLANK_US * height / active_us + 1).max(V_FRONT + V_SYNC + V_BACK);
        let clock = u64::from(width + H_BLANK) * u64::from(height + v_blank) * u64::from(REFRESH) / 10_000;
        Self { width, height, v_blank, clock: clock.min(0xff_ffff) as u32 }
    }
}

fn base(timing: &Timing, fits: bool) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[0..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    block[8..10].copy_from_slice(&manufacturer(*b"YUN").to_be_bytes());
    block[10..12].copy_from_slice(&1_u16.to_le_bytes()); // product
    block[16] = 0xff; // the year is that of the model
    block[17] = (2026 - 1990) as u8;
    block[18..20].copy_from_slice(&[1, 4]);
    block[20] = 0xa0; // digital, 8 bits a colour
    block[21] = centimetres(timing.width);
    block[22] = centimetres(timing.height);
    block[23] = 120; // gamma 2.2
    block[24] = 0x06; // sRGB; the first timing is preferred
    block[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]); // sRGB
    block[35..38].copy_from_slice(&[0x21, 0x08, 0]); // 640x480, 800x600, 1024x768 at 60 Hz
    for (place, (width, aspect)) in block[38..54].as_chunks_mut::<2>().0.iter_mut().zip(STANDARD) {
        *place = [(width / 8 - 31) as u8, aspect << 6 | (REFRESH - 60) as u8];
    }
    if fits {
        block[54..72].copy_from_slice(&detailed(timing));
    } else {
        block[54..72].copy_from_slice(&descriptor(DUMMY, b""));
        block[126] = 1; // one more block follows
    }
    block[72..90].copy_from_slice(&descriptor(NAME, b"Yunju\n       "));
    block[90..108].copy_from_slice(&descriptor(DUMMY, b""));
    block[108..126].copy_from_slice(&descriptor(DUMMY, b""));
    block[127] = checksum(&block);
    block
}

/// Three letters of five bits (§3.4.1).
fn manufacturer(letters: [u8; 3]) -> u16 {
    letters.iter().fold(0, |id, letter| id << 5 | u16::from(letter - b'A' + 1))
}

fn millimetres(pixels: u32) -> u32 {
    pixels * 254 / 960
}

fn centimetres(pixels: u32) -> u8 {
    millimetres(pixels).div_ceil(10).min(255) as u8
}

const NAME: u8 = 0xfc;
const DUMMY: u8 = 0x10;

/// A display descriptor (§3.10.3).
fn descriptor(tag: u8, text: &[u8]) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[3] = tag;
    bytes[5..5 + text.len()].copy_from_slice(text);
    bytes
}

/// A detailed timing (§3.10.2) of a size that fits.
fn detailed(timing: &Timing) -> [u8; 18] {
    let low = |value: u32| (value & 0xff) as u8;
    // The upper four bits of two values share a byte.
    let high = |first: u32, second: u32| ((first >> 8 & 0xf) << 4 | second >> 8 & 0xf) as u8;
    let Timing { width, height, v_blank, clock } = *timing;
    // A clock that is too fast for 16 bits is given as the fastest; the picture then comes less often.
    let [clock_low, clock_high] = (clock.min(0xffff) as u16).to_le_bytes();
    let (h_mm, v_mm) = (millimetres(width), millimetres(height));
    [
        clock_low,
        clock_high,
        low(width),
        low(H_BLANK),
        high(width, H_BLANK),
        low(height),
        low(v_blank),
        high(height, v_blank),
        low(H_FRONT),
        low(H_SYNC),
        (V_FRONT << 4 | V_SYNC) as u8,
        0, // upper bits of porches and syncs, which are all small
        low(h_mm),
        low(v_mm),
        high(h_mm, v_mm),
        0, // no border
        0,
        0x1a, // separate syncs, horizontal positive, vertical negative
    ]
}

/// An extension block with a DisplayID 1.3 type I timing, whose numbers have 16 bits.
fn display_id(timing: &Timing) -> [u8; BLOCK] {
    const SECTION: usize = 23;
    let mut block = [0; BLOCK];
    block[0..5].copy_from_slice(&[0x70, 0x13, SECTION as u8, 0x03, 0]); // a stand-alone display
    block[5..8].copy_from_slice(&[0x03, 0, 20]); // one type I timing
    let positive = 1 << 15;
    let values = [
        timing.width - 1,
        H_BLANK - 1,
        (H_FRONT - 1) | positive,
        H_SYNC - 1,
        timing.height - 1,
        timing.v_blank - 1,
        V_FRONT - 1,
        V_SYNC - 1,
    ];
    block[8..11].copy_from_slice(&(timing.clock - 1).to_le_bytes()[..3]);
    block[11] = 0x88; // preferred, aspect ratio not stated
    for (place, value) in block[12..28].as_chunks_mut::<2>().0.iter_mut().zip(values) {
        *place = (value as u16).to_le_bytes();
    }
    block[28] = checksum(&block[1..28]);
    block[127] = checksum(&block);
    block
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn the_preferred_timing_is_that_of_reduced_blanking() {
        let edid = edid(1920, 1080);
        assert_eq!(edid.len(), 128);
        assert_eq!(sum(&edid), 0);
        // 2080 columns, 1111 rows, 138.65 MHz; CVT rounds to 138.5.
        assert_eq!(u16::from_le_bytes([edid[54], edid[55]]), 13_865);
        assert_eq!(edid[56..62], [0x80, 0xa0, 0x70, 0x38, 0x1f, 0x40]);
        assert_eq!((edid[66], edid[67], edid[68]), (0xfc, 0x1d, 0x11), "508 by 285 mm are 96 dots an inch");
        assert_eq!(&edid[77..83], b"Yunju\n");
        assert_eq!(edid[8..10], [0x66, 0xae], "YUN");
    }

    #[test]
    fn a_size_beyond_twelve_bits_is_in_an_extension() {
        let edid = edid(5120, 1440);
        assert_eq!((edid.len(), edid[126]), (256, 1));
        assert_eq!((sum(&edid[..128]), sum(&edid[128..]), sum(&edid[129..157])), (0, 0, 0));
        let word = |at: usize| u32::from(u16::from_le_bytes([edid[at], edid[at + 1]]));
        assert_eq!((word(140) + 1, word(148) + 1), (5120, 1440));
        let clock = word(136) | u32::from(edid[138]) << 16;
        assert_eq!(clock + 1, (5120 + 160) * (1440 + word(150) + 1) * 60 / 10_000);
    }

    proptest! {
        #[test]
        fn any_size_has_its_blocks_and_checksums(width in 1_u32..=7680, height in 1_u32..=7680) {
            let edid = edid(width, height);
            prop_assert_eq!(edid.len(), 128 * (1 + usize::from(edid[126])));
            for block in edid.chunks(128) {
                prop_assert_eq!(sum(block), 0);
            }
            if edid.len() == 128 {
                let high = |byte: u8| u32::from(byte & 0xf0) << 4;
                prop_assert_eq!(u32::from(edid[56]) | high(edid[58]), width);
                prop_assert_eq!(u32::from(edid[59]) | high(edid[61]), height);
            }
        }
    }
}
