//! What the card shows: keys, pointer, lamps, starts. And which parts of it changed.

use alloc::format;
use alloc::string::String;

use guest::keys::{self, Key};
use guest::virtio::gpu::Rect;
use guest::virtio::input::{Event, event};

use crate::scene::{self, CROSS, Line};

/// Characters of the typed line that are shown.
const LINE_LENGTH: usize = 60;
/// Buttons from `BTN_LEFT` on.
const FIRST_BUTTON: u16 = 0x110;

/// All of it.
pub struct State {
    pub width: u32,
    pub height: u32,
    pub boots: Option<u64>,
    /// The pointer's pixel.
    pub x: u32,
    pub y: u32,
    /// Bit 0 left, 1 right, 2 middle, 3 side, 4 extra.
    pub buttons: u8,
    /// Wheel clicks, up and to the right.
    pub wheel: (i32, i32),
    /// Keys that went down, repetitions not counted.
    pub presses: u32,
    /// The last key and whether it is down.
    pub last_key: Option<(u16, bool)>,
    /// Bit 0 num lock, 1 caps lock, 2 scroll lock.
    pub lamps: u8,
    pub typed: String,
    range: (u32, u32),
    axes: (u32, u32),
    shifts: u8,
    changes: Changes,
}

/// What differs from what was painted.
#[derive(Default, Clone, Copy)]
pub struct Changes {
    pub keys: bool,
    pub lamps: bool,
    pub pointer: bool,
    old_pointer: (u32, u32),
    new_pointer: (u32, u32),
}

impl State {
    pub fn new(width: u32, height: u32, boots: Option<u64>, range: (u32, u32)) -> Self {
        Self {
            width,
            height,
            boots,
            x: 0,
            y: 0,
            buttons: 0,
            wheel: (0, 0),
            presses: 0,
            last_key: None,
            lamps: 0,
            typed: String::new(),
            range,
            axes: (0, 0),
            shifts: 0,
            changes: Changes::default(),
        }
    }

    /// A new picture size; the pointer stays at its place relative to it.
    pub fn resize(&mut self, width: u32, height: u32) {
        (self.width, self.height) = (width, height);
        self.place_pointer();
    }

    /// Takes an event of the keyboard; returns whether there is something to paint.
    pub fn key(&mut self, event: Event) -> bool {
        if event.kind != event::KEY {
            return false;
        }
        let down = event.value != 0;
        self.last_key = Some((event.code, down));
        self.changes.keys = true;
        let shift = match event.code {
            keys::LEFT_SHIFT => 1,
            keys::RIGHT_SHIFT => 2,
            _ => 0,
        };
        self.shifts = if down { self.shifts | shift } else { self.shifts & !shift };
        if event.value == 1 {
            self.presses += 1;
            let lamp = match event.code {
                keys::NUM_LOCK => 1,
                keys::CAPS_LOCK => 2,
                keys::SCROLL_LOCK => 4,
                _ => 0,
            };
            self.lamps ^= lamp;
            self.changes.lamps |= lamp != 0;
        }
        if down {
            self.type_key(event.code);
        }
        true
    }

    fn type_key(&mut self, code: u16) {
        match code {
            keys::BACKSPACE => drop(self.typed.pop()),
            keys::ENTER => self.typed.clear(),
            _ => {
                if let Some(character) = keys::typed(code, self.shifts != 0, self.lamps & 2 != 0) {
                    if self.typed.len() == LINE_LENGTH {
                        self.typed.clear();
                    }
                    self.typed.push(char::from(character));
                }
            }
        }
    }

    /// Takes an event of the tablet; returns whether there is something to paint.
    pub fn pointer(&mut self, event: Event) -> bool {
        match (event.kind, event.code) {
            (event::ABSOLUTE, 0) => self.axes.0 = (event.value.max(0) as u32).min(self.range.0),
            (event::ABSOLUTE, 1) => self.axes.1 = (event.value.max(0) as u32).min(self.range.1),
            (event::RELATIVE, 6) => self.wheel.1 = self.wheel.1.wrapping_add(event.value),
            (event::RELATIVE, 8) => self.wheel.0 = self.wheel.0.wrapping_add(event.value),
            (event::KEY, code @ FIRST_BUTTON..=0x117) => {
                let bit = 1 << (code - FIRST_BUTTON);
                self.buttons = if event.value != 0 { self.buttons | bit } else { self.buttons & !bit };
            }
            _ => return false,
        }
        if !self.changes.pointer {
            self.changes.pointer = true;
            self.changes.old_pointer = (self.x, self.y);
        }
        self.place_pointer();
        true
    }

    fn place_pointer(&mut self) {
        let place = |value: u32, range: u32, pixels: u32| {
            ((u64::from(value) * u64::from(pixels - 1) + u64::from(range / 2)) / u64::from(range)) as u32
        };
        self.x = place(self.axes.0, self.range.0, self.width);
        self.y = place(self.axes.1, self.range.1, self.height);
        self.changes.new_pointer = (self.x, self.y);
    }

    /// What to paint since the last time.
    pub fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.changes)
    }

    /// The text of a line.
    pub fn text(&self, line: Line) -> String {
        match line {
            Line::Screen => match self.boots {
                Some(boots) => format!("screen {}x{}  boot {boots}", self.width, self.height),
                None => format!("screen {}x{}  no disk of ours", self.width, self.height),
            },
            Line::Pointer => format!(
                "pointer {},{}  buttons {:05b}  wheel {},{}",
                self.x, self.y, self.buttons, self.wheel.0, self.wheel.1
            ),
            Line::Key => match self.last_key {
                None => "key -".into(),
                Some((code, down)) => {
                    let way = if down { "down" } else { "up" };
                    match keys::key(code) {
                        Key::Character(plain, _) => format!("key {} ({code}) {way}", char::from(plain)),
                        Key::Named(name) => format!("key {name} ({code}) {way}"),
                        Key::Unknown => format!("key {code} {way}"),
                    }
                }
            },
            Line::Lamps => {
                let lamp = |bit: u8, name| if self.lamps & bit != 0 { name } else { "" };
                format!("lamps{}{}{}", lamp(1, " num"), lamp(2, " caps"), lamp(4, " scroll"))
            }
            Line::Typed => format!("> {}", self.typed),
        }
    }

    /// The numbers that the card shows as rows of bits, top to bottom.
    pub fn numbers(&self) -> [u16; scene::NUMBERS] {
        [
            self.presses as u16,
            self.last_key.map_or(0, |(code, down)| code | u16::from(down) << 15),
            self.x as u16,
            self.y as u16,
            u16::from(self.buttons),
            self.wheel.0 as u16,
            u16::from(self.lamps),
            self.boots.unwrap_or(0) as u16,
        ]
    }
}

impl Changes {
    /// The rectangles to paint, the most urgent first.
    pub fn areas(self) -> impl Iterator<Item = Rect> {
        let cross = |(x, y): (u32, u32)| {
            let (left, top) = (x.saturating_sub(CROSS), y.saturating_sub(CROSS));
            Rect { x: left, y: top, width: x + CROSS + 1 - left, height: y + CROSS + 1 - top }
        };
        let keys = [scene::PATCH, scene::numbers(0, 2), scene::line(Line::Key), scene::line(Line::Typed)];
        let lamps = [scene::numbers(6, 1), scene::line(Line::Lamps)];
        let pointer =
            [cross(self.old_pointer), cross(self.new_pointer), scene::numbers(2, 4), scene::line(Line::Pointer)];
        (keys.into_iter().filter(move |_| self.keys))
            .chain(pointer.into_iter().filter(move |_| self.pointer))
            .chain(lamps.into_iter().filter(move |_| self.lamps))
    }
}
