//! What is drawn on both servers. Each workload is a number of steps at a rate; a step draws and says where.

use yunju_protocol::display::Rect;

use crate::canvas::{Canvas, Font, HEIGHT, Texture, WIDTH, hash, ink, on_paper, pixel};

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A clock that changes each second and a caret that blinks.
    Idle,
    /// A key 30 times a second.
    Type,
    /// A text window of 1600x900 that scrolls 48 pixels 30 times a second, damaged as a whole.
    Scroll,
    /// A text window of 800x600 that is dragged about over a photograph, 60 times a second.
    Move,
    /// A video of 1280x720 in the middle of a still photograph.
    Video720,
    /// A video of the whole screen.
    Video,
}

pub const ALL: [Kind; 6] = [Kind::Idle, Kind::Type, Kind::Scroll, Kind::Move, Kind::Video720, Kind::Video];

const TEXT: Rect = Rect { x: 160, y: 90, width: 1600, height: 900 };
const FRAMES: u32 = 24;

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Type => "type",
            Self::Scroll => "scroll",
            Self::Move => "move",
            Self::Video720 => "video720",
            Self::Video => "video",
        }
    }

    /// Steps a second.
    pub fn rate(self) -> f64 {
        match self {
            Self::Idle => 2.0,
            Self::Type | Self::Scroll | Self::Video720 | Self::Video => 30.0,
            Self::Move => 60.0,
        }
    }

    /// Steps before measuring begins, and steps that are measured.
    pub fn steps(self) -> (u32, u32) {
        match self {
            Self::Idle => (6, 40),
            Self::Type => (30, 300),
            Self::Scroll => (30, 150),
            Self::Move => (60, 300),
            Self::Video720 | Self::Video => (90, 180),
        }
    }

    /// Pixels that a step changes.
    pub fn pixels(self) -> u64 {
        match self {
            Self::Idle => 200 * 32,
            Self::Type => 9 * 16,
            Self::Scroll => TEXT.area(),
            Self::Move => 800 * 600,
            Self::Video720 => 1280 * 720,
            Self::Video => u64::from(WIDTH * HEIGHT),
        }
    }

    /// Where a video is, if this is one.
    pub fn video(self) -> Option<Rect> {
        match self {
            Self::Video720 => Some(Rect { x: 321, y: 181, width: 1280, height: 720 }),
            Self::Video => Some(Rect::of_size(WIDTH, HEIGHT)),
            _ => None,
        }
    }
}

/// Draws one workload.
pub struct Stage<'a> {
    pub kind: Kind,
    font: Font,
    texture: &'a Texture,
    wallpaper: Vec<u32>,
    frames: Vec<Vec<u32>>,
    window: Rect,
}

impl<'a> Stage<'a> {
    pub fn new(kind: Kind, texture: &'a Texture) -> Self {
        let wallpaper = || {
            let places = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
            places.map(|(x, y)| pixel(texture.at(x as f32 * 0.6, y as f32 * 0.6))).collect()
        };
        let mut stage = Self {
            kind,
            font: Font::new(),
            texture,
            wallpaper: Vec::new(),
            frames: Vec::new(),
            window: Rect::default(),
        };
        if matches!(kind, Kind::Move | Kind::Video720) {
            stage.wallpaper = wallpaper();
        }
        if let Some(area) = kind.video() {
            stage.frames = (0..FRAMES).map(|frame| stage.film(area, frame)).collect();
        }
        stage
    }

    /// A camera that pans over a textured landscape while three things cross it, with the grain of film.
    fn film(&self, area: Rect, frame: u32) -> Vec<u32> {
        let time = frame as f32;
        let things =
            [(300.0, 260.0, 9.0, 2.5, 150.0), (900.0, 500.0, -7.0, 4.0, 190.0), (600.0, 350.0, 4.0, -6.0, 120.0)];
        let scale = area.width as f32 / 1280.0;
        let places = (0..area.height).flat_map(|y| (0..area.width).map(move |x| (x, y)));
        places
            .map(|(x, y)| {
                let (u, v) = (x as f32 / scale, y as f32 / scale);
                let thing = things.iter().position(|(left, top, right, down, radius)| {
                    (u - left - right * time).powi(2) + (v - top - down * time).powi(2) < radius * radius
                });
                let colour = match thing {
                    Some(of) => {
                        let (_, _, right, down, _) = things[of];
                        let offset = 700.0 * (of as f32 + 1.0);
                        let [r, g, b] = self.texture.at(u - right * time + offset, v - down * time + offset);
                        [r * 1.2, g, b * 0.8 + 20.0]
                    }
                    None => self.texture.at(u + 2.3 * time, v + 0.7 * time),
                };
                let grain = (hash(x, y, frame + 77) % 7) as f32 - 3.0;
                pixel(colour.map(|channel| channel + grain))
            })
            .collect()
    }

    /// What is there before the first step.
    pub fn begin(&mut self, canvas: &mut Canvas) {
        let whole = Rect::of_size(WIDTH, HEIGHT);
        match self.kind {
            Kind::Move | Kind::Video720 => canvas.0.copy_from_slice(&self.wallpaper),
            _ => canvas.paint(whole, |_, y| 0x30_4050 + y / 60 * 0x01_0101),
        }
        if matches!(self.kind, Kind::Idle | Kind::Type | Kind::Scroll) {
            canvas.paint(TEXT, |x, y| self.font.text(x - TEXT.x, y - TEXT.y));
        }
        self.step(canvas, 0);
    }

    /// Draws a step and returns where.
    pub fn step(&mut self, canvas: &mut Canvas, nth: u32) -> Rect {
        match self.kind {
            Kind::Idle if nth.is_multiple_of(2) => {
                let clock = Rect { x: 1700, y: 16, width: 72, height: 16 };
                let digit = |place: u32| hash(nth / 2 / 10u32.pow(7 - place), place, 3) % 64;
                canvas.paint(clock, |x, y| on_paper(ink(digit((x - clock.x) / 9), (x - clock.x) % 9, y - clock.y)));
                clock.union(&caret(canvas, nth))
            }
            Kind::Idle => caret(canvas, nth),
            Kind::Type => {
                let (column, line) = (nth % 150, nth / 150 % 40);
                let cell = Rect { x: TEXT.x + column * 9, y: TEXT.y + line * 20, width: 9, height: 16 };
                let glyph = hash(nth, 1, 4) % 64;
                canvas.paint(cell, |x, y| on_paper(ink(glyph, x - cell.x, y - cell.y)));
                cell
            }
            Kind::Scroll => {
                let font = &self.font;
                canvas.paint(TEXT, |x, y| font.text(x - TEXT.x, y - TEXT.y + nth * 48));
                TEXT
            }
            Kind::Move => self.drag(canvas, nth),
            Kind::Video720 | Kind::Video => {
                let area = self.kind.video().expect("these are videos");
                let pixels = self.frame(nth);
                canvas.paint(area, |x, y| pixels[((y - area.y) * area.width + x - area.x) as usize]);
                mark(canvas, area, nth);
                area
            }
        }
    }

    /// The picture of a video's step: forwards and backwards in turns.
    pub fn frame(&self, nth: u32) -> &[u32] {
        let turn = nth % (2 * FRAMES - 2);
        &self.frames[turn.min(2 * FRAMES - 2 - turn) as usize]
    }

    fn drag(&mut self, canvas: &mut Canvas, nth: u32) -> Rect {
        let angle = nth as f32 / 40.0;
        let at = |middle: f32, by: f32| (middle + by * 220.0) as u32;
        let window =
            Rect { x: at(560.0, angle.sin() * 2.0), y: at(240.0, (angle * 1.3).cos()), width: 800, height: 600 };
        let before = std::mem::replace(&mut self.window, window);
        let (font, wallpaper) = (&self.font, &self.wallpaper);
        canvas.paint(before, |x, y| wallpaper[(y * WIDTH + x) as usize]);
        canvas.paint(window, |x, y| match (x - window.x, y - window.y) {
            (_, 0..28) => 0x3a_5a8a,
            (x, y) => font.text(x, y - 28),
        });
        before.union(&window)
    }
}

fn caret(canvas: &mut Canvas, nth: u32) -> Rect {
    let caret = Rect { x: 700, y: 500, width: 2, height: 16 };
    canvas.paint(caret, |_, _| if nth.is_multiple_of(2) { 0 } else { 0xff_ffff });
    caret
}

const MARK: u32 = 32;

/// Writes a step's number into the corner of a video in large black and white squares.
fn mark(canvas: &mut Canvas, area: Rect, nth: u32) {
    let marks = Rect { width: MARK * 10, height: MARK, ..area };
    canvas.paint(marks, |x, _| if nth >> ((x - area.x) / MARK) & 1 == 1 { 0xeb_ebeb } else { 0x10_1010 });
}

/// Reads the number of a step from what a viewer has.
pub fn read_mark(pixels: &[u32], area: Rect) -> u32 {
    (0..10).fold(0, |number, bit| {
        let (x, y) = (area.x + bit * MARK + MARK / 2, area.y + MARK / 2);
        number | u32::from(pixels[(y * WIDTH + x) as usize] >> 8 & 255 > 128) << bit
    })
}

/// Peak signal to noise ratio of the brightness, in decibels, without the marks.
pub fn psnr(pixels: &[u32], area: Rect, truth: &[u32]) -> f64 {
    let luma = |pixel: u32| {
        let [_, r, g, b] = pixel.to_be_bytes().map(f64::from);
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let mut error = 0.0;
    for y in MARK..area.height {
        let start = ((area.y + y) * WIDTH + area.x) as usize;
        let row = &truth[(y * area.width) as usize..][..area.width as usize];
        error += pixels[start..].iter().zip(row).map(|(is, should)| (luma(*is) - luma(*should)).powi(2)).sum::<f64>();
    }
    let mean = error / f64::from(area.width * (area.height - MARK));
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}
