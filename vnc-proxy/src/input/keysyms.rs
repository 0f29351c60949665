//! Key symbols (X11 keysyms) as keys of a keyboard with US layout, for viewers that send no scan codes.

/// How to type a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stroke {
    /// Linux input event code (`KEY_*`).
    pub code: u16,
    /// Whether shift must be down, or must not be; `None` if it is the same.
    pub shift: Option<bool>,
    /// Caps lock swaps what shift does.
    pub letter: bool,
}

/// Linux code of the left-most key, and what the keys from there on type, alone and with shift.
const ROWS: &[(u16, &str, &str)] = &[
    (2, "1234567890-=", "!@#$%^&*()_+"),
    (16, "qwertyuiop[]", "QWERTYUIOP{}"),
    (30, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (43, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (57, " ", " "),
];

/// First symbol, last symbol, Linux code of the first.
const RUNS: &[(u32, u32, u16)] = &[
    (0xffbe, 0xffc7, 59),  // F1 – F10
    (0xffc8, 0xffc9, 87),  // F11, F12
    (0xffca, 0xffd5, 183), // F13 – F24
    (0xffb7, 0xffb9, 71),  // keypad 7 8 9
    (0xffb4, 0xffb6, 75),  // keypad 4 5 6
    (0xffb1, 0xffb3, 79),  // keypad 1 2 3
];

/// Symbol, Linux code.
const SINGLE: &[(u32, u16)] = &[
    (0xff08, 14),       // BackSpace
    (0xff09, 15),       // Tab
    (0xfe20, 15),       // ISO_Left_Tab
    (0xff0d, 28),       // Return
    (0xff13, 119),      // Pause
    (0xff14, 70),       // Scroll_Lock
    (0xff15, 99),       // Sys_Req
    (0xff1b, 1),        // Escape
    (0xff21, 92),       // Kanji
    (0xff22, 94),       // Muhenkan
    (0xff23, 92),       // Henkan
    (0xff27, 93),       // Hiragana_Katakana
    (0xff31, 122),      // Hangul
    (0xff34, 123),      // Hangul_Hanja
    (0xff50, 102),      // Home
    (0xff51, 105),      // Left
    (0xff52, 103),      // Up
    (0xff53, 106),      // Right
    (0xff54, 108),      // Down
    (0xff55, 104),      // Page_Up
    (0xff56, 109),      // Page_Down
    (0xff57, 107),      // End
    (0xff61, 99),       // Print
    (0xff63, 110),      // Insert
    (0xff67, 127),      // Menu
    (0xff6b, 119),      // Break
    (0xff7e, 100),      // Mode_switch
    (0xff7f, 69),       // Num_Lock
    (0xff8d, 96),       // KP_Enter
    (0xff95, 71),       // KP_Home
    (0xff96, 75),       // KP_Left
    (0xff97, 72),       // KP_Up
    (0xff98, 77),       // KP_Right
    (0xff99, 80),       // KP_Down
    (0xff9a, 73),       // KP_Page_Up
    (0xff9b, 81),       // KP_Page_Down
    (0xff9c, 79),       // KP_End
    (0xff9d, 76),       // KP_Begin
    (0xff9e, 82),       // KP_Insert
    (0xff9f, 83),       // KP_Delete
    (0xffaa, 55),       // KP_Multiply
    (0xffab, 78),       // KP_Add
    (0xffad, 74),       // KP_Subtract
    (0xffae, 83),       // KP_Decimal
    (0xffaf, 98),       // KP_Divide
    (0xffb0, 82),       // KP_0
    (0xffbd, 117),      // KP_Equal
    (0xffe1, 42),       // Shift_L
    (0xffe2, 54),       // Shift_R
    (0xffe3, 29),       // Control_L
    (0xffe4, 97),       // Control_R
    (0xffe5, 58),       // Caps_Lock
    (0xffe7, 56),       // Meta_L
    (0xffe8, 100),      // Meta_R
    (0xffe9, 56),       // Alt_L
    (0xffea, 100),      // Alt_R
    (0xffeb, 125),      // Super_L
    (0xffec, 126),      // Super_R
    (0xffff, 111),      // Delete
    (0xfe03, 100),      // ISO_Level3_Shift
    (0x1008_ff11, 114), // XF86AudioLowerVolume
    (0x1008_ff12, 113), // XF86AudioMute
    (0x1008_ff13, 115), // XF86AudioRaiseVolume
    (0x1008_ff14, 164), // XF86AudioPlay
    (0x1008_ff15, 166), // XF86AudioStop
    (0x1008_ff16, 165), // XF86AudioPrev
    (0x1008_ff17, 163), // XF86AudioNext
];

/// How to type a symbol; `None` if a US keyboard cannot.
pub fn stroke(keysym: u32) -> Option<Stroke> {
    // Unicode symbols (0x0100_0000 and up) of ASCII mean the same as the symbols that ASCII has.
    let keysym = if (0x0100_0020..=0x0100_007e).contains(&keysym) { keysym & 0x7f } else { keysym };
    if let Some(symbol) = u8::try_from(keysym).ok().filter(|byte| (0x20..0x7f).contains(byte)) {
        return ROWS.iter().find_map(|(first, plain, shifted)| {
            let at = |row: &str| row.bytes().position(|byte| byte == symbol);
            let (place, shift) = at(plain).map(|at| (at, false)).or_else(|| at(shifted).map(|at| (at, true)))?;
            let shift = (symbol != b' ').then_some(shift);
            Some(Stroke { code: first + place as u16, shift, letter: symbol.is_ascii_alphabetic() })
        });
    }
    let run = RUNS.iter().find(|(first, last, _)| (*first..=*last).contains(&keysym));
    let run = run.map(|(first, _, code)| code + (keysym - first) as u16);
    let single = || SINGLE.iter().find(|(symbol, _)| *symbol == keysym).map(|(_, code)| *code);
    run.or_else(single).map(|code| Stroke { code, shift: None, letter: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_ascii_symbol_can_be_typed() {
        for symbol in 0x20..0x7f {
            assert!(stroke(symbol).is_some(), "{:?}", symbol as u8 as char);
        }
    }

    #[test]
    fn symbols_are_where_a_us_keyboard_has_them() {
        for (keysym, code, shift) in [
            (u32::from(b'a'), 30, Some(false)),
            (u32::from(b'Z'), 44, Some(true)),
            (u32::from(b'0'), 11, Some(false)),
            (u32::from(b'~'), 41, Some(true)),
            (u32::from(b'|'), 43, Some(true)),
            (u32::from(b'/'), 53, Some(false)),
            (0x0100_0000 | u32::from(b'?'), 53, Some(true)),
            (u32::from(b' '), 57, None),
            (0xff0d, 28, None),
            (0xffc9, 88, None),
            (0xffb9, 73, None),
            (0xffe1, 42, None),
        ] {
            let stroke = stroke(keysym).unwrap();
            assert_eq!((stroke.code, stroke.shift), (code, shift), "{keysym:#x}");
        }
    }

    #[test]
    fn symbols_of_other_keyboards_are_none() {
        for keysym in [0, 0xe9, 0x20ac, 0x0100_4e2d, u32::MAX] {
            assert_eq!(stroke(keysym), None, "{keysym:#x}");
        }
    }
}
