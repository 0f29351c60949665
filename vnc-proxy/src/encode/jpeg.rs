//! JPEG, as Tight carries it.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use yunju_protocol::display::Rect;

use crate::picture::Picture;

/// JPEG's own quality for the levels 0 to 9 of RFB, as other servers have them.
const QUALITY: [u8; 10] = [15, 29, 41, 42, 62, 77, 79, 86, 92, 100];

/// From this level on colour is as sharp as brightness.
const SHARP_COLOUR: u8 = 8;

/// A rectangle as JPEG of a quality level 0 to 9; `None` if it is too large for that.
pub fn encode(picture: &Picture, rect: Rect, level: u8) -> Option<Vec<u8>> {
    let (width, height) = (u16::try_from(rect.width).ok()?, u16::try_from(rect.height).ok()?);
    let pixels: Vec<u8> = picture.rows(rect).flatten().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let mut out = Vec::with_capacity(pixels.len() / 16);
    let mut encoder = Encoder::new(&mut out, QUALITY[usize::from(level.min(9))]);
    let sampling = if level >= SHARP_COLOUR { SamplingFactor::F_1_1 } else { SamplingFactor::F_2_2 };
    encoder.set_sampling_factor(sampling);
    encoder.encode(&pixels, width, height, ColorType::Bgra).ok()?;
    Some(out)
}
