//! A machine without a guest, to try pages and viewers on:
//!
//!     cargo run -p yunju-vnc-proxy --example fake-machine -- unix:/tmp/d.sock [WIDTHxHEIGHT]
//!
//! Paints a test picture, changes the colour of a bar at each key press, draws a cross where the pointer is (red while
//! a button is down), scrolls a list by the wheel, plays a video from one V to the next, follows wishes for a size, and writes each request to standard
//! output as a line of JSON, of a microphone's only how loud it is. While somebody listens it plays a tone of 440 Hz on
//! the left and of 660 Hz on the right, which is silent while a key is down.

#[path = "../tests/support/machine.rs"]
mod machine;

use std::io;
use std::path::Path;
use std::time::Instant;

use machine::{Buffer, Display, Machine};
use yunju_protocol::display::{Event, POINTER_MAX, Rect, Request, SAMPLE_RATE};

/// The bar that shows key presses: its colour is `BAR_COLOURS[presses % 6]`.
const BAR: Rect = Rect { x: 100, y: 40, width: 200, height: 60 };
const BAR_COLOURS: [u32; 6] = [0x202020, 0xd03030, 0x30b030, 0x3050d0, 0xd0c030, 0xf0f0f0];

/// The list that the wheel scrolls.
const LIST: Rect = Rect { x: 340, y: 40, width: 240, height: 240 };

/// Where the video plays, 30 pictures a second, and the key that starts and stops it.
const VIDEO: Rect = Rect { x: 100, y: 320, width: 480, height: 270 };
const KEY_V: u16 = 47;

/// Half the cross's side.
const ARM: u32 = 12;

struct Picture {
    buffer: Buffer,
    presses: u32,
    scrolled: i32,
    pointer: Option<(u32, u32, bool)>,
    /// Where a pointer that only tells its steps is.
    steps: (i32, i32),
    /// Pictures of the video that were shown, once it has begun.
    played: Option<u32>,
    plays: bool,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().and_then(|path| Some(path.strip_prefix("unix:")?.to_owned()));
    let Some(path) = path else {
        eprintln!("usage: fake-machine unix:/PATH [WIDTHxHEIGHT]");
        std::process::exit(2);
    };
    let size = arguments.next().and_then(|size| {
        let (width, height) = size.split_once('x')?;
        Some((width.parse().ok()?, height.parse().ok()?))
    });
    let mut size = size.unwrap_or((1280, 800));
    let machine = Machine::listen(Path::new(&path));
    loop {
        eprintln!("fake-machine: waiting for a proxy on {path}");
        let ended = machine.accept().and_then(|display| attend(&display, &mut size));
        eprintln!("fake-machine: {}", ended.err().map_or("ended".into(), |error| error.to_string()));
    }
}

fn attend(display: &Display, size: &mut (u32, u32)) -> io::Result<()> {
    let mut picture = Picture::new(1, *size);
    display.announce(&picture.buffer)?;
    picture.show(display, picture.buffer.bounds())?;
    display.tell(&arrow())?;
    display.tell(&Event::Leds { lit: 0 })?;
    let mut lit = 0;
    let mut tone: Option<Tone> = None;
    loop {
        let patience = if picture.plays { 33 } else { 60_000 };
        let request = display.request(if tone.is_some() { 10 } else { patience })?;
        if let Some(tone) = &mut tone {
            tone.play(display)?;
        }
        if picture.plays {
            picture.played = Some(picture.played.map_or(0, |played| played + 1));
            picture.show(display, VIDEO)?;
        }
        if let Some(request) = request {
            println!("{}", in_words(&request));
            match request {
                Request::Key { code: 58, down: true } => {
                    lit ^= 4;
                    display.tell(&Event::Leds { lit })?;
                }
                Request::Key { code: KEY_V, down: true } => picture.plays = !picture.plays,
                Request::Key { down, .. } => {
                    tone.iter_mut().for_each(|tone| tone.silent = down);
                    if down {
                        picture.presses += 1;
                        picture.show(display, BAR)?;
                    }
                }
                Request::Listen { on } => tone = on.then(Tone::new),
                Request::Microphone { .. } => {}
                Request::Pointer { x, y, buttons } => picture.point(display, x, y, buttons != 0)?,
                Request::Wheel { vertical, .. } => {
                    picture.scrolled -= i32::from(vertical) * 20;
                    picture.show(display, LIST)?;
                }
                Request::Move { x, y, buttons } => {
                    let (width, height) = (picture.buffer.width as i32, picture.buffer.height as i32);
                    picture.steps =
                        ((picture.steps.0 + i32::from(x)) % width, (picture.steps.1 + i32::from(y)) % height);
                    let scale = |at: i32, side: i32| (at.rem_euclid(side) * 32768 / side) as u16;
                    let at = (scale(picture.steps.0, width), scale(picture.steps.1, height));
                    picture.point(display, at.0, at.1, buttons != 0)?;
                }
                Request::Scroll { vertical, .. } => {
                    picture.scrolled -= i32::from(vertical) / 6;
                    picture.show(display, LIST)?;
                }
                Request::Resize { width, height } => {
                    *size = (width.clamp(64, 4096), height.clamp(64, 4096));
                    let old = picture.buffer.id;
                    let next = Picture::new(old + 1, *size);
                    picture = Picture { buffer: next.buffer, ..picture };
                    display.announce(&picture.buffer)?;
                    picture.show(display, picture.buffer.bounds())?;
                    display.tell(&Event::BufferGone { id: old })?;
                }
            }
        }
    }
}

fn in_words(request: &Request) -> String {
    match request {
        Request::Microphone { samples } => {
            let loudness =
                samples.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs());
            format!(r#"{{"Microphone":{{"bytes":{},"loudest":{}}}}}"#, samples.len(), loudness.max().unwrap_or(0))
        }
        request => serde_json::to_string(request).expect("requests are plain data"),
    }
}

/// Sound in time.
struct Tone {
    since: Instant,
    frames: u64,
    silent: bool,
}

impl Tone {
    fn new() -> Self {
        Self { since: Instant::now(), frames: 0, silent: false }
    }

    /// Plays what is due.
    fn play(&mut self, display: &Display) -> io::Result<()> {
        let due = self.since.elapsed().as_micros() as u64 * u64::from(SAMPLE_RATE) / 1_000_000;
        while self.frames + 480 <= due {
            let wave = |frame: u64, hertz: f64| {
                let angle = frame as f64 * hertz * std::f64::consts::TAU / f64::from(SAMPLE_RATE);
                ((angle.sin() * if self.silent { 0.0 } else { 8000.0 }) as i16).to_le_bytes()
            };
            let frames = self.frames..self.frames + 480;
            let samples = frames.flat_map(|frame| [wave(frame, 440.0), wave(frame, 660.0)].concat()).collect();
            let time = self.frames * 1_000_000 / u64::from(SAMPLE_RATE);
            display.tell(&Event::Sound { time, samples })?;
            self.frames += 480;
        }
        Ok(())
    }
}

impl Picture {
    fn new(id: u32, size: (u32, u32)) -> Self {
        Self {
            buffer: Buffer::new(id, size.0, size.1),
            presses: 0,
            scrolled: 0,
            pointer: None,
            steps: (0, 0),
            played: None,
            plays: false,
        }
    }

    fn show(&self, display: &Display, damage: Rect) -> io::Result<()> {
        let damage = damage.intersection(&self.buffer.bounds());
        self.buffer.paint(damage, |x, y| self.pixel(x, y));
        display.show(&self.buffer, damage)
    }

    fn point(&mut self, display: &Display, x: u16, y: u16, down: bool) -> io::Result<()> {
        let at = |scaled: u16, size: u32| u32::from(scaled) * size / (u32::from(POINTER_MAX) + 1);
        let now = (at(x, self.buffer.width), at(y, self.buffer.height), down);
        let before = self.pointer.replace(now);
        for (x, y, _) in before.into_iter().chain([now]) {
            let side = 2 * ARM + 1;
            self.show(display, Rect { x: x.saturating_sub(ARM), y: y.saturating_sub(ARM), width: side, height: side })?;
        }
        Ok(())
    }

    fn pixel(&self, x: u32, y: u32) -> u32 {
        if let Some((px, py, down)) = self.pointer {
            let (dx, dy) = (x.abs_diff(px), y.abs_diff(py));
            if dx.min(dy) == 0 && dx.max(dy) <= ARM {
                return if down { 0xff0000 } else { 0xffffff };
            }
        }
        let inside = |rect: Rect| (rect.x..rect.right()).contains(&x) && (rect.y..rect.bottom()).contains(&y);
        if inside(BAR) {
            BAR_COLOURS[self.presses as usize % BAR_COLOURS.len()]
        } else if inside(LIST) {
            // Lines of pretended text, each of its own pattern.
            let line = (y as i32 + self.scrolled).div_euclid(20);
            let row = (y as i32 + self.scrolled).rem_euclid(20);
            let ink = (x / 3).wrapping_mul(2654435761).wrapping_add((line as u32).wrapping_mul(40503)) >> 13 & 3;
            if (4..16).contains(&row) && ink == 0 { 0x101010 } else { 0xf4f4f0 }
        } else if let Some(played) = self.played.filter(|_| inside(VIDEO)) {
            // Red to the right, green down, and grain that is another in each picture.
            let grain = (x.wrapping_mul(2654435761) ^ y.wrapping_mul(2246822519)).wrapping_mul(played * 2 + 1) >> 28;
            let (red, green) = (30 + (x - VIDEO.x) * 200 / VIDEO.width, 30 + (y - VIDEO.y) * 200 / VIDEO.height);
            (red + grain) << 16 | (green + grain) << 8 | (90 + grain)
        } else if y * 2 > self.buffer.height && x * 2 > self.buffer.width {
            // A photograph, more or less.
            let wave =
                |a: u32, b: u32| ((f64::from(a) / 31.0).sin() * (f64::from(b) / 23.0).cos() * 60.0 + 128.0) as u32;
            let grain = (x.wrapping_mul(2654435761) ^ y.wrapping_mul(2246822519)) >> 27;
            (wave(x, y) + grain) << 16 | (wave(y, x) + grain) << 8 | (wave(x + y, x) + grain)
        } else {
            // A calm background.
            let shade = 40 + 60 * y / self.buffer.height;
            shade << 16 | (shade + 20) << 8 | (shade + 60)
        }
    }
}

/// A white arrow with a black edge.
fn arrow() -> Event {
    let (width, height) = (12, 18);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let inside = x <= y * 2 / 3;
            let edge = x == 0 || x == y * 2 / 3 || y == height - 1;
            pixels.extend(match (inside, edge) {
                (false, _) => [0; 4],
                (true, true) => [0, 0, 0, 255],
                (true, false) => [255; 4],
            });
        }
    }
    Event::Cursor { width, height, hot_x: 0, hot_y: 0, pixels }
}
