//! A picture in private memory.

use yunju_protocol::display::Rect;

/// Greatest width and height of a picture.
pub const MAX_SIDE: u32 = 16384;

/// Greatest number of pixels of a picture: 8K, with some room.
pub const MAX_PIXELS: u64 = 1 << 25;

/// Whether a picture of this size is one we take.
pub fn is_size(width: u32, height: u32) -> bool {
    (1..=MAX_SIDE).contains(&width)
        && (1..=MAX_SIDE).contains(&height)
        && u64::from(width) * u64::from(height) <= MAX_PIXELS
}

/// What no pixel is: stands for one that is not known.
pub const UNKNOWN: u32 = 0xff00_0000;

/// Rows of pixels, each `0x00RRGGBB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

impl Picture {
    /// A black picture.
    pub fn black(width: u32, height: u32) -> Self {
        Self { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    /// A picture of which nothing is known.
    pub fn unknown(width: u32, height: u32) -> Self {
        Self { width, height, pixels: vec![UNKNOWN; width as usize * height as usize] }
    }

    /// As [`Picture::unknown`], without memory: it has no pixels to be read or written before it is made another.
    pub fn hollow(width: u32, height: u32) -> Self {
        Self { width, height, pixels: Vec::new() }
    }

    /// Whether it is [`Picture::hollow`].
    pub fn is_hollow(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Gives all pixels of a rectangle that lies inside one colour.
    pub fn fill(&mut self, rect: Rect, pixel: u32) {
        (rect.y..rect.bottom()).for_each(|y| self.span_mut(rect.x, y, rect.width).fill(pixel));
    }

    /// Pixels a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// All of it.
    pub fn bounds(&self) -> Rect {
        Rect::of_size(self.width, self.height)
    }

    /// `width` pixels of row `y` from column `x` on. They must lie inside.
    pub fn span(&self, x: u32, y: u32, width: u32) -> &[u32] {
        let start = self.index(x, y);
        &self.pixels[start..start + width as usize]
    }

    /// As [`Picture::span`], to be written.
    pub fn span_mut(&mut self, x: u32, y: u32, width: u32) -> &mut [u32] {
        let start = self.index(x, y);
        &mut self.pixels[start..start + width as usize]
    }

    /// The rows of a rectangle that lies inside.
    pub fn rows(&self, rect: Rect) -> impl Iterator<Item = &[u32]> {
        (rect.y..rect.bottom()).map(move |y| self.span(rect.x, y, rect.width))
    }

    /// Moves what is `dx` columns left of `to` and `dy` rows above (right and below, if negative) there. Both must lie
    /// inside.
    pub fn shift(&mut self, to: Rect, dx: i32, dy: i32) {
        let mut shift_row = |y: u32| {
            let from = self.index(to.x.saturating_add_signed(-dx), y.saturating_add_signed(-dy));
            let start = self.index(to.x, y);
            self.pixels.copy_within(from..from + to.width as usize, start);
        };
        if dy > 0 {
            (to.y..to.bottom()).rev().for_each(&mut shift_row);
        } else {
            (to.y..to.bottom()).for_each(&mut shift_row);
        }
    }

    fn index(&self, x: u32, y: u32) -> usize {
        y as usize * self.width as usize + x as usize
    }
}
