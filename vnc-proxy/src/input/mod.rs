//! From a viewer's keys and pointer to what the machine's keyboard and tablet do.

pub mod keysyms;
pub mod scancodes;

use std::collections::BTreeSet;

use yunju_protocol::display::{POINTER_MAX, Request};

const LEFT_SHIFT: u16 = 42;
const RIGHT_SHIFT: u16 = 54;

/// The keys that one viewer holds down.
#[derive(Debug, Default)]
pub struct Keyboard {
    held: BTreeSet<u16>,
}

impl Keyboard {
    /// A key by its Linux code. Repeats of a key that is down already are the machine's own business.
    pub fn key(&mut self, code: u16, down: bool) -> Option<Request> {
        let news = if down { self.held.insert(code) } else { self.held.remove(&code) };
        news.then_some(Request::Key { code, down })
    }

    /// A key by its symbol: with shift held or let go as the symbol needs it. `caps` says that caps lock is on.
    pub fn symbol(&mut self, keysym: u32, down: bool, caps: bool) -> Vec<Request> {
        let Some(stroke) = keysyms::stroke(keysym) else { return Vec::new() };
        let held: Vec<u16> = [LEFT_SHIFT, RIGHT_SHIFT].into_iter().filter(|code| self.held.contains(code)).collect();
        let wanted = stroke.shift.map(|shift| shift != (stroke.letter && caps));
        let Some(key) = self.key(stroke.code, down) else { return Vec::new() };
        let key = std::iter::once(key);
        let press = |code| Request::Key { code, down: true };
        let release = |code| Request::Key { code, down: false };
        match wanted {
            Some(true) if down && held.is_empty() => {
                std::iter::once(press(LEFT_SHIFT)).chain(key).chain([release(LEFT_SHIFT)]).collect()
            }
            Some(false) if down && !held.is_empty() => {
                let again: Vec<Request> = held.iter().copied().map(press).collect();
                held.into_iter().map(release).chain(key).chain(again).collect()
            }
            _ => key.collect(),
        }
    }

    /// Lets every key go.
    pub fn release(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.held).into_iter().map(|code| Request::Key { code, down: false }).collect()
    }
}

/// The pointer of one viewer.
#[derive(Debug, Default)]
pub struct Pointer {
    x: u16,
    y: u16,
    buttons: u16,
}

/// The viewer's buttons 4 to 7, from bit 3 on: clicks of a wheel up, down, left and right.
const WHEEL: [(u16, i8, i8); 4] = [(1 << 3, 0, 1), (1 << 4, 0, -1), (1 << 5, -1, 0), (1 << 6, 1, 0)];

impl Pointer {
    /// The pointer is at `x`, `y` of a picture of `size`, with these buttons as RFB counts them.
    pub fn moved(&mut self, x: u16, y: u16, size: (u32, u32), buttons: u16) -> Vec<Request> {
        let pressed = buttons & !self.buttons;
        (self.x, self.y, self.buttons) = (scale(x, size.0), scale(y, size.1), buttons);
        let clicks = WHEEL.iter().filter(|(bit, ..)| pressed & bit != 0);
        let wheel =
            clicks.map(|(_, horizontal, vertical)| Request::Wheel { horizontal: *horizontal, vertical: *vertical });
        std::iter::once(self.request()).chain(wheel).collect()
    }

    /// Whether the viewer holds other buttons than these, so that telling the machine must not be left out.
    pub fn presses(&self, buttons: u16) -> bool {
        self.buttons != buttons
    }

    /// Lets every button go.
    pub fn release(&mut self) -> Option<Request> {
        let held = self.request();
        self.buttons = 0;
        Some(self.request()).filter(|released| *released != held)
    }

    fn request(&self) -> Request {
        let buttons = self.buttons & 7 | self.buttons >> 4 & 0x18;
        Request::Pointer { x: self.x, y: self.y, buttons: buttons as u8 }
    }
}

/// The middle of a pixel on the tablet's scale.
fn scale(at: u16, size: u32) -> u16 {
    let size = u64::from(size.max(1));
    let at = u64::from(at).min(size - 1);
    ((2 * at + 1) * (u64::from(POINTER_MAX) + 1) / (2 * size)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(requests: Vec<Request>) -> Vec<(u16, bool)> {
        let key = |request| match request {
            Request::Key { code, down } => (code, down),
            other => panic!("{other:?}"),
        };
        requests.into_iter().map(key).collect()
    }

    #[test]
    fn a_capital_without_shift_gets_shift() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keys(keyboard.symbol(0x41, true, false)), [(42, true), (30, true), (42, false)]);
        assert_eq!(keys(keyboard.symbol(0x41, false, false)), [(30, false)]);
    }

    #[test]
    fn a_capital_with_shift_or_caps_lock_is_one_key() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keys(keyboard.symbol(0xffe2, true, false)), [(54, true)]);
        assert_eq!(keys(keyboard.symbol(0x41, true, false)), [(30, true)]);
        let mut keyboard = Keyboard::default();
        assert_eq!(keys(keyboard.symbol(0x41, true, true)), [(30, true)]);
        assert_eq!(keys(keyboard.symbol(0x21, true, true)), [(42, true), (2, true), (42, false)]);
    }

    #[test]
    fn a_symbol_that_is_unshifted_here_lets_shift_go_for_a_moment() {
        let mut keyboard = Keyboard::default();
        keyboard.symbol(0xffe1, true, false);
        assert_eq!(keys(keyboard.symbol(0x2f, true, false)), [(42, false), (53, true), (42, true)]);
    }

    #[test]
    fn a_key_that_is_down_is_not_pressed_again() {
        let mut keyboard = Keyboard::default();
        assert!(keyboard.key(30, true).is_some());
        assert!(keyboard.key(30, true).is_none());
        assert!(keyboard.key(31, false).is_none(), "nor let go when it is up");
    }

    #[test]
    fn all_that_is_held_is_let_go() {
        let mut keyboard = Keyboard::default();
        keyboard.key(30, true);
        keyboard.key(42, true);
        assert_eq!(keys(keyboard.release()), [(30, false), (42, false)]);
        assert!(keyboard.release().is_empty());
        let mut pointer = Pointer::default();
        pointer.moved(5, 5, (10, 10), 1);
        assert!(matches!(pointer.release(), Some(Request::Pointer { buttons: 0, .. })));
        assert_eq!(pointer.release(), None);
    }

    #[test]
    fn buttons_and_wheel_are_told_apart() {
        let mut pointer = Pointer::default();
        let requests = pointer.moved(0, 0, (100, 100), 0b1_1000_0101);
        assert!(matches!(requests[..], [Request::Pointer { buttons: 0b11101, .. }]));
        let requests = pointer.moved(0, 0, (100, 100), 0b10_1000);
        assert_eq!(
            requests[1..],
            [Request::Wheel { horizontal: 0, vertical: 1 }, Request::Wheel { horizontal: -1, vertical: 0 }]
        );
        assert_eq!(pointer.moved(0, 0, (100, 100), 0b10_1000).len(), 1, "a click is told once");
    }

    #[test]
    fn every_pixel_finds_itself_again_on_the_tablets_scale() {
        for size in [1, 2, 640, 1279, 1920, 16384] {
            for at in 0..size {
                let scaled = u64::from(scale(at as u16, size));
                assert!(scaled <= POINTER_MAX.into());
                assert_eq!((scaled * u64::from(size)) >> 15, u64::from(at), "{at} of {size}");
            }
        }
        assert_eq!(scale(u16::MAX, 100), scale(99, 100));
    }
}
