//! Raw encoding (RFC 6143 §7.7.1).

use yunju_protocol::display::Rect;

use crate::picture::Picture;
use crate::rfb::pixel::Writer;

/// Appends a rectangle's pixels.
pub fn encode(picture: &Picture, rect: Rect, pixels: &Writer, out: &mut Vec<u8>) {
    picture.rows(rect).for_each(|row| pixels.pixels(row, out));
}
