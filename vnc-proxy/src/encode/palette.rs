//! The colours of a rectangle, if they are few.

use yunju_protocol::display::Rect;

use crate::picture::Picture;

const SLOTS: usize = 1024;

/// The distinct colours of a rectangle, each pixel given as a number into them.
#[derive(Debug)]
pub struct Palette {
    colours: Vec<u32>,
    indices: Vec<u8>,
    /// Open addressing: colour and its number, or `FREE`.
    slots: Box<[(u32, u16); SLOTS]>,
}

const FREE: (u32, u16) = (0, u16::MAX);

impl Default for Palette {
    fn default() -> Self {
        Self { colours: Vec::new(), indices: Vec::new(), slots: Box::new([FREE; SLOTS]) }
    }
}

impl Palette {
    /// Counts the colours of a rectangle; false if there are more than `most`, which is at most 256.
    pub fn count(&mut self, picture: &Picture, rect: Rect, most: usize) -> bool {
        debug_assert!(most <= 256);
        self.slots.fill(FREE);
        self.colours.clear();
        self.indices.clear();
        let mut last = (u32::MAX, 0);
        for row in picture.rows(rect) {
            for &pixel in row {
                if pixel != last.0 {
                    let Some(index) = self.index(pixel, most) else { return false };
                    last = (pixel, index);
                }
                self.indices.push(last.1);
            }
        }
        true
    }

    /// The colours in order of first appearance.
    pub fn colours(&self) -> &[u32] {
        &self.colours
    }

    /// Each pixel's colour as a number into [`Palette::colours`].
    pub fn indices(&self) -> &[u8] {
        &self.indices
    }

    fn index(&mut self, pixel: u32, most: usize) -> Option<u8> {
        let mut at = (pixel.wrapping_mul(0x9e37_79b1) >> 22) as usize;
        loop {
            match self.slots[at] {
                FREE => break,
                (colour, index) if colour == pixel => return u8::try_from(index).ok(),
                _ => at = (at + 1) % SLOTS,
            }
        }
        let index = u8::try_from(self.colours.len()).ok().filter(|index| usize::from(*index) < most)?;
        self.slots[at] = (pixel, index.into());
        self.colours.push(pixel);
        Some(index)
    }
}
