//! The picture: every pixel of it follows from the state, so any rectangle can be painted alone.

use guest::font;
use guest::virtio::gpu::Rect;

use crate::state::State;

/// The square whose colour changes with every key press.
pub const PATCH: Rect = Rect { x: 40, y: 160, width: 200, height: 200 };
/// The colours that it goes through: after n presses, colour n modulo 8.
const PATCH_COLOURS: [u32; 8] = [0x404040, 0xff0000, 0x00ff00, 0x0000ff, 0xffff00, 0x00ffff, 0xff00ff, 0xffffff];

/// Height of the colour bars at the top.
const BARS: u32 = 120;
const BAR_COLOURS: [u32; 8] = [0xffffff, 0xc0c000, 0x00c0c0, 0x00c000, 0xc000c0, 0xc00000, 0x0000c0, 0x000000];

const GROUND: u32 = 0x182230;
const GRID: u32 = 0x26364a;
const GRID_PITCH: u32 = 40;

/// The circle's centre is so far from the right edge, and its radius.
const CIRCLE_RIGHT: u32 = 120;
const CIRCLE_Y: u32 = 260;
const CIRCLE_RADIUS: u32 = 90;

const INK: u32 = 0xe8eef4;
const TITLE: &str = "Yunju test card";
const TITLE_AT: (u32, u32) = (40, 124);

/// Rows of bits: one number a row, 16 cells, the highest bit first, white is one.
pub const NUMBERS: usize = 8;
const NUMBERS_AT: (u32, u32) = (280, 164);
const CELL: (u32, u32) = (8, 12);
const NUMBER_PITCH: u32 = 24;

/// Half the length of the cross at the pointer.
pub const CROSS: u32 = 10;
const CROSS_COLOUR: u32 = 0xff4040;

const TEXT_X: u32 = 40;
const TEXT_Y: u32 = 376;
const LINE_PITCH: u32 = 20;
const LINE_WIDTH: u32 = 62 * font::WIDTH;

/// The lines of text, top to bottom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Screen,
    Pointer,
    Key,
    Lamps,
    Typed,
}

const LINES: [Line; 5] = [Line::Screen, Line::Pointer, Line::Key, Line::Lamps, Line::Typed];

/// Where a line is.
pub fn line(line: Line) -> Rect {
    Rect { x: TEXT_X, y: TEXT_Y + line as u32 * LINE_PITCH, width: LINE_WIDTH, height: font::HEIGHT }
}

/// Where some numbers are.
pub fn numbers(first: u32, count: u32) -> Rect {
    let y = NUMBERS_AT.1 + first * NUMBER_PITCH;
    Rect { x: NUMBERS_AT.0, y, width: 16 * CELL.0, height: (count - 1) * NUMBER_PITCH + CELL.1 }
}

/// The picture of a state.
pub struct Scene<'a> {
    state: &'a State,
}

impl<'a> Scene<'a> {
    pub fn of(state: &'a State) -> Self {
        Self { state }
    }

    /// Paints a rectangle that lies within the picture; `pixels` has rows of `stride`.
    pub fn paint(&self, pixels: &mut [u32], stride: u32, area: Rect) {
        for y in area.y..area.y + area.height {
            let row = &mut pixels[(y * stride + area.x) as usize..][..area.width as usize];
            for (x, pixel) in (area.x..).zip(row) {
                *pixel = self.ground(x, y);
            }
        }
        let mut canvas = Canvas { pixels, stride, area };
        canvas.text(TITLE_AT, TITLE, 2);
        for (row, number) in (0..).zip(self.state.numbers()) {
            for bit in 0..16 {
                let colour = if number >> (15 - bit) & 1 == 1 { 0xffffff } else { 0x000000 };
                let (x, y) = (NUMBERS_AT.0 + bit * CELL.0, NUMBERS_AT.1 + row * NUMBER_PITCH);
                canvas.fill(Rect { x, y, width: CELL.0, height: CELL.1 }, colour);
            }
        }
        for name in LINES {
            let place = line(name);
            if canvas.meets(place) {
                canvas.text((place.x, place.y), &self.state.text(name), 1);
            }
        }
        let (x, y) = (self.state.x, self.state.y);
        let (left, top) = (x.saturating_sub(CROSS), y.saturating_sub(CROSS));
        canvas.fill(Rect { x: left, y, width: x + CROSS + 1 - left, height: 1 }, CROSS_COLOUR);
        canvas.fill(Rect { x, y: top, width: 1, height: y + CROSS + 1 - top }, CROSS_COLOUR);
    }

    fn ground(&self, x: u32, y: u32) -> u32 {
        let width = self.state.width;
        if y < BARS {
            return BAR_COLOURS[(x * 8 / width) as usize % 8];
        }
        if x.wrapping_sub(PATCH.x) < PATCH.width && y.wrapping_sub(PATCH.y) < PATCH.height {
            return PATCH_COLOURS[self.state.presses as usize % 8];
        }
        let (dx, dy) = (x.wrapping_sub(width - CIRCLE_RIGHT) as i32, y as i32 - CIRCLE_Y as i32);
        let radius = CIRCLE_RADIUS as i32;
        if dx.abs() <= radius && dy.abs() <= radius && dx * dx + dy * dy <= radius * radius {
            let level = |at: i32| ((at + radius) * 255 / (2 * radius)) as u32;
            return level(dx) << 16 | level(dy) << 8 | level(-dx);
        }
        if x.is_multiple_of(GRID_PITCH) || y.is_multiple_of(GRID_PITCH) { GRID } else { GROUND }
    }
}

/// Pixels of which only a rectangle may be painted.
struct Canvas<'a> {
    pixels: &'a mut [u32],
    stride: u32,
    area: Rect,
}

impl Canvas<'_> {
    fn meets(&self, other: Rect) -> bool {
        other.x < self.area.x + self.area.width
            && self.area.x < other.x + other.width
            && other.y < self.area.y + self.area.height
            && self.area.y < other.y + other.height
    }

    fn fill(&mut self, rect: Rect, colour: u32) {
        if !self.meets(rect) {
            return;
        }
        let area = self.area;
        for y in rect.y.max(area.y)..(rect.y + rect.height).min(area.y + area.height) {
            for x in rect.x.max(area.x)..(rect.x + rect.width).min(area.x + area.width) {
                self.pixels[(y * self.stride + x) as usize] = colour;
            }
        }
    }

    fn text(&mut self, at: (u32, u32), text: &str, scale: u32) {
        for (column, character) in (0..).zip(text.bytes()) {
            let left = at.0 + column * font::WIDTH * scale;
            let cell = Rect { x: left, y: at.1, width: font::WIDTH * scale, height: font::HEIGHT * scale };
            if !self.meets(cell) {
                continue;
            }
            for y in 0..font::HEIGHT {
                for x in (0..font::WIDTH).filter(|x| font::ink(character, *x, y)) {
                    let point = Rect { x: left + x * scale, y: at.1 + y * scale, width: scale, height: scale };
                    self.fill(point, INK);
                }
            }
        }
    }
}
