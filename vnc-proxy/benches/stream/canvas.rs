//! A picture to draw workloads on, and what they are drawn from: textures, glyphs and random numbers that are the
//! same in each run.

use yunju_protocol::display::Rect;

pub const WIDTH: u32 = 1920;
pub const HEIGHT: u32 = 1080;

/// Pixels `0x00RRGGBB` of a whole screen.
pub struct Canvas(pub Vec<u32>);

impl Canvas {
    pub fn new() -> Self {
        Self(vec![0; (WIDTH * HEIGHT) as usize])
    }

    pub fn paint(&mut self, rect: Rect, pixel: impl Fn(u32, u32) -> u32) {
        for y in rect.y..rect.bottom() {
            for x in rect.x..rect.right() {
                self.0[(y * WIDTH + x) as usize] = pixel(x, y);
            }
        }
    }

    /// The bytes of a rectangle's rows: blue, green, red, unused.
    pub fn rows(&self, rect: Rect) -> impl Iterator<Item = (u32, Vec<u8>)> {
        (rect.y..rect.bottom()).map(move |y| {
            let start = (y * WIDTH + rect.x) as usize;
            (y, self.0[start..start + rect.width as usize].iter().flat_map(|pixel| pixel.to_le_bytes()).collect())
        })
    }
}

/// A number that looks random but is always the same for the same arguments.
pub fn hash(x: u32, y: u32, seed: u32) -> u32 {
    let mut value = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b) ^ seed.wrapping_mul(0xc2b2_ae35);
    value = (value ^ value >> 15).wrapping_mul(0x2c1b_3c6d);
    value = (value ^ value >> 12).wrapping_mul(0x297a_2d39);
    value ^ value >> 15
}

/// Coverage (0 to 255) of a pixel of a glyph in its cell of 9x16: a few strokes with soft edges.
pub fn ink(glyph: u32, x: u32, y: u32) -> u32 {
    let strokes = 2 + hash(glyph, 0, 1) % 3;
    let near = (0..strokes).map(|stroke| {
        let end =
            |at: u32| (1.5 + (hash(glyph, stroke, at) % 6) as f32, 3.0 + (hash(glyph, stroke, at + 9) % 10) as f32);
        let ((ax, ay), (bx, by)) = (end(10), end(30));
        let (px, py) = (x as f32 + 0.5 - ax, y as f32 + 0.5 - ay);
        let (dx, dy) = (bx - ax, by - ay);
        let along = ((px * dx + py * dy) / (dx * dx + dy * dy).max(0.01)).clamp(0.0, 1.0);
        ((px - along * dx).powi(2) + (py - along * dy).powi(2)).sqrt()
    });
    let distance = near.fold(9.0, f32::min);
    // Sixteen levels, as rasterizers of fonts have them.
    ((1.3 - distance).clamp(0.0, 1.0) * 15.0) as u32 * 17
}

/// Black ink on white paper.
pub fn on_paper(coverage: u32) -> u32 {
    (255 - coverage) * 0x01_0101
}

/// Each glyph's pixels, to be drawn quickly.
pub struct Font(Vec<[u32; 9 * 16]>);

impl Font {
    pub fn new() -> Self {
        let glyph = |glyph| std::array::from_fn(|at| on_paper(ink(glyph, at as u32 % 9, at as u32 / 9)));
        Self((0..64).map(glyph).collect())
    }

    /// A pixel of a text of lines that are 20 pixels high; each has its own words and length.
    pub fn text(&self, x: u32, y: u32) -> u32 {
        let (line, row) = (y / 20, y % 20);
        let column = x / 9;
        let length = hash(line, 0, 5) % 150 + 10;
        if column >= length || row >= 16 || hash(column, line, 6).is_multiple_of(6) {
            return 0xff_ffff;
        }
        self.0[(hash(column, line, 7) % 64) as usize][(row * 9 + x % 9) as usize]
    }
}

const TEXTURE: u32 = 2048;

/// A picture like a photograph's: smooth areas, edges and fine grain, as much of each as natural pictures have
/// (amplitudes fall with the frequency).
pub struct Texture(Vec<[f32; 3]>);

impl Texture {
    pub fn new() -> Self {
        let mut texture = vec![[118.0, 112.0, 104.0]; (TEXTURE * TEXTURE) as usize];
        for octave in 1..10 {
            let step = 1u32 << octave;
            let height = 1.6 * (step as f32).powf(0.6);
            let knots = TEXTURE / step;
            let knot = |x: u32, y: u32, channel: u32| {
                let common = hash(x % knots, y % knots, octave) % 1000;
                let own = hash(x % knots, y % knots, octave * 4 + 100 + channel) % 1000;
                (common as f32 * 0.75 + own as f32 * 0.25) / 500.0 - 1.0
            };
            for y in 0..TEXTURE {
                for x in 0..TEXTURE {
                    let (kx, ky) = (x / step, y / step);
                    let soft = |at: u32| {
                        let part = (at % step) as f32 / step as f32;
                        part * part * (3.0 - 2.0 * part)
                    };
                    let (fx, fy) = (soft(x), soft(y));
                    for channel in 0..3 {
                        let at = |dx, dy| knot(kx + dx, ky + dy, channel);
                        let top = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
                        let bottom = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
                        texture[(y * TEXTURE + x) as usize][channel as usize] +=
                            (top * (1.0 - fy) + bottom * fy) * height;
                    }
                }
            }
        }
        Self(texture)
    }

    /// The colour at a place, between its pixels too.
    pub fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let pixel = |dx: i32, dy: i32| {
            let wrap = |at: f32, by: i32| (at as i32 + by).rem_euclid(TEXTURE as i32) as usize;
            self.0[wrap(top, dy) * TEXTURE as usize + wrap(left, dx)]
        };
        let (a, b, c, d) = (pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1));
        std::array::from_fn(|of| {
            (a[of] * (1.0 - fx) + b[of] * fx) * (1.0 - fy) + (c[of] * (1.0 - fx) + d[of] * fx) * fy
        })
    }
}

/// A pixel of three channels.
pub fn pixel(channels: [f32; 3]) -> u32 {
    let [r, g, b] = channels.map(|channel| channel.clamp(0.0, 255.0) as u8);
    u32::from_be_bytes([0, r, g, b])
}
