//! Key codes (Linux `KEY_*`) and what they type on a US keyboard.

/// What a key means to someone who types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Types one character, and another with shift.
    Character(u8, u8),
    /// Types nothing; has a name.
    Named(&'static str),
    /// Neither.
    Unknown,
}

/// Characters from a code on, each plain and with shift.
const ROWS: [(u16, &[u8], &[u8]); 5] = [
    (2, b"1234567890-=", b"!@#$%^&*()_+"),
    (16, b"qwertyuiop[]", b"QWERTYUIOP{}"),
    (30, b"asdfghjkl;'`", b"ASDFGHJKL:\"~"),
    (43, b"\\zxcvbnm,./", b"|ZXCVBNM<>?"),
    (57, b" ", b" "),
];

const NAMES: [(u16, &str); 46] = [
    (1, "Esc"),
    (14, "Backspace"),
    (15, "Tab"),
    (28, "Enter"),
    (29, "LeftCtrl"),
    (42, "LeftShift"),
    (54, "RightShift"),
    (55, "KP*"),
    (56, "LeftAlt"),
    (58, "CapsLock"),
    (59, "F1"),
    (60, "F2"),
    (61, "F3"),
    (62, "F4"),
    (63, "F5"),
    (64, "F6"),
    (65, "F7"),
    (66, "F8"),
    (67, "F9"),
    (68, "F10"),
    (69, "NumLock"),
    (70, "ScrollLock"),
    (74, "KP-"),
    (78, "KP+"),
    (83, "KP."),
    (86, "102nd"),
    (87, "F11"),
    (88, "F12"),
    (96, "KPEnter"),
    (97, "RightCtrl"),
    (98, "KP/"),
    (99, "SysRq"),
    (100, "RightAlt"),
    (102, "Home"),
    (103, "Up"),
    (104, "PageUp"),
    (105, "Left"),
    (106, "Right"),
    (107, "End"),
    (108, "Down"),
    (109, "PageDown"),
    (110, "Insert"),
    (111, "Delete"),
    (119, "Pause"),
    (125, "LeftMeta"),
    (127, "Menu"),
];

/// Digits of the key pad, from code 71 on, with the rows' last codes (74 and 78) in between.
const PAD: [(u16, &str); 10] = [
    (71, "KP7"),
    (72, "KP8"),
    (73, "KP9"),
    (75, "KP4"),
    (76, "KP5"),
    (77, "KP6"),
    (79, "KP1"),
    (80, "KP2"),
    (81, "KP3"),
    (82, "KP0"),
];

/// Caps lock.
pub const CAPS_LOCK: u16 = 58;
/// Num lock.
pub const NUM_LOCK: u16 = 69;
/// Scroll lock.
pub const SCROLL_LOCK: u16 = 70;
/// Left shift.
pub const LEFT_SHIFT: u16 = 42;
/// Right shift.
pub const RIGHT_SHIFT: u16 = 54;
/// Enter.
pub const ENTER: u16 = 28;
/// Backspace.
pub const BACKSPACE: u16 = 14;

/// What a key is.
pub fn key(code: u16) -> Key {
    for (first, plain, shifted) in ROWS {
        let at = usize::from(code.wrapping_sub(first));
        if let (Some(plain), Some(shifted)) = (plain.get(at), shifted.get(at)) {
            return Key::Character(*plain, *shifted);
        }
    }
    let named = NAMES.iter().chain(&PAD).find(|(known, _)| *known == code);
    named.map_or(Key::Unknown, |(_, name)| Key::Named(name))
}

/// The character that a key types with or without shift and caps lock.
pub fn typed(code: u16, shift: bool, caps: bool) -> Option<u8> {
    match key(code) {
        Key::Character(plain, shifted) if shift != (caps && plain.is_ascii_alphabetic()) => Some(shifted),
        Key::Character(plain, _) => Some(plain),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_can_be_typed() {
        for character in b' '..=b'~' {
            let found = (0..128).any(|code| [false, true].iter().any(|s| typed(code, *s, false) == Some(character)));
            assert!(found, "{:?}", char::from(character));
        }
    }

    #[test]
    fn caps_lock_turns_letters_only_and_shift_turns_them_back() {
        assert_eq!(typed(30, false, true), Some(b'A'));
        assert_eq!(typed(30, true, true), Some(b'a'));
        assert_eq!(typed(2, false, true), Some(b'1'));
        assert_eq!(typed(2, true, true), Some(b'!'));
    }

    #[test]
    fn keys_that_type_nothing_have_names() {
        assert_eq!(key(ENTER), Key::Named("Enter"));
        assert_eq!(key(71), Key::Named("KP7"));
        assert_eq!(key(240), Key::Unknown);
        assert_eq!(typed(ENTER, false, false), None);
    }
}
