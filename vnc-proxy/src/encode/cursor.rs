//! The pointer's picture in the forms that viewers know.

use crate::rfb::encodings::{self, CursorForm};
use crate::rfb::outgoing::Update;
use crate::rfb::pixel::Writer;
use crate::screen::Cursor;
use yunju_protocol::display::Rect;

/// Adds the pointer's picture to an update.
pub fn encode(cursor: &Cursor, form: CursorForm, pixels: &Writer, update: &mut Update<'_>) {
    let rect = Rect { x: cursor.hot.0, y: cursor.hot.1, width: cursor.width, height: cursor.height };
    match form {
        CursorForm::Vmware => {
            let out = update.rect(rect, encodings::VMWARE_CURSOR);
            // 1: with alpha; one byte of padding.
            out.extend([1, 0]);
            out.extend(bgra(cursor).flat_map(|pixel| {
                let [blue, green, red, alpha] = straight(pixel);
                [red, green, blue, alpha]
            }));
        }
        CursorForm::Alpha => {
            let out = update.rect(rect, encodings::CURSOR_WITH_ALPHA);
            out.extend(encodings::RAW.to_be_bytes());
            out.extend(bgra(cursor).flat_map(|[blue, green, red, alpha]| [red, green, blue, alpha]));
        }
        CursorForm::Mask => {
            let out = update.rect(rect, encodings::CURSOR);
            for pixel in bgra(cursor) {
                let [blue, green, red, _] = straight(pixel);
                pixels.pixels(&[u32::from_le_bytes([blue, green, red, 0])], out);
            }
            let opaque: Vec<bool> = bgra(cursor).map(|[.., alpha]| alpha >= 128).collect();
            for row in opaque.chunks(cursor.width.max(1) as usize) {
                let bits =
                    |eight: &[bool]| (0..).zip(eight).fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at));
                out.extend(row.chunks(8).map(bits));
            }
        }
    }
}

fn bgra(cursor: &Cursor) -> impl Iterator<Item = [u8; 4]> {
    cursor.pixels.chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2], pixel[3]])
}

/// Takes the alpha out of colours that are multiplied with it.
fn straight([blue, green, red, alpha]: [u8; 4]) -> [u8; 4] {
    let whole = u32::from(alpha.max(1));
    let part = |value: u8| ((u32::from(value) * 255 + whole / 2) / whole).min(255) as u8;
    [part(blue), part(green), part(red), alpha]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rfb::pixel::PixelFormat;

    fn encoded(form: CursorForm) -> Vec<u8> {
        let pixels = vec![10, 20, 30, 255, 5, 10, 15, 128, 0, 0, 0, 0, 255, 255, 255, 255];
        let cursor = Cursor { width: 2, height: 2, hot: (1, 0), pixels };
        let mut bytes = Vec::new();
        let mut sink = |piece: Vec<u8>| {
            bytes.extend(piece);
            true
        };
        let mut update = Update::new(true, &mut sink);
        super::encode(&cursor, form, &Writer::new(PixelFormat::BGRX), &mut update);
        update.end(&[]);
        assert_eq!(bytes[4..12], [0, 1, 0, 0, 0, 2, 0, 2], "hot spot and size");
        bytes.split_off(16)
    }

    #[test]
    fn vmware_cursors_have_straight_alpha_in_the_order_of_novnc() {
        let expected = [1, 0, 30, 20, 10, 255, 30, 20, 10, 128, 0, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(encoded(CursorForm::Vmware), expected);
    }

    #[test]
    fn alpha_cursors_stay_premultiplied() {
        let expected = [0, 0, 0, 0, 30, 20, 10, 255, 15, 10, 5, 128, 0, 0, 0, 0, 255, 255, 255, 255];
        assert_eq!(encoded(CursorForm::Alpha), expected);
    }

    #[test]
    fn plain_cursors_have_a_mask_bit_a_pixel() {
        let expected = [10, 20, 30, 0, 10, 20, 30, 0, 0, 0, 0, 0, 255, 255, 255, 0, 0xc0, 0x40];
        assert_eq!(encoded(CursorForm::Mask), expected);
    }
}
