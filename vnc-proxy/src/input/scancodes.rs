//! Scan codes of a PC keyboard (set 1) as Linux input event codes (`KEY_*`).

/// Up to here a plain scan code and its Linux code are the same number.
const SAME_UP_TO: u32 = 88;

/// Plain scan codes whose Linux code is another number.
const PLAIN: &[(u8, u8)] = &[
    (0x54, 99),
    (0x55, 186),
    (0x59, 117),
    (0x5a, 190),
    (0x5d, 183),
    (0x5e, 184),
    (0x5f, 185),
    (0x64, 134),
    (0x65, 135),
    (0x6d, 193),
    (0x6f, 194),
    (0x70, 93),
    (0x71, 123),
    (0x72, 122),
    (0x73, 89),
    (0x74, 191),
    (0x76, 85),
    (0x77, 91),
    (0x78, 90),
    (0x79, 92),
    (0x7b, 94),
    (0x7d, 124),
    (0x7e, 121),
];

/// Scan codes after the prefix `0xe0`.
const EXTENDED: &[(u8, u8)] = &[
    (0x03, 187),
    (0x04, 189),
    (0x05, 129),
    (0x06, 130),
    (0x07, 131),
    (0x10, 165),
    (0x19, 163),
    (0x1c, 96),
    (0x1d, 97),
    (0x20, 113),
    (0x21, 140),
    (0x22, 164),
    (0x24, 166),
    (0x25, 205),
    (0x2e, 114),
    (0x30, 115),
    (0x32, 172),
    (0x35, 98),
    (0x38, 100),
    (0x3c, 137),
    (0x41, 136),
    (0x46, 119),
    (0x47, 102),
    (0x48, 103),
    (0x49, 104),
    (0x4b, 105),
    (0x4d, 106),
    (0x4f, 107),
    (0x50, 108),
    (0x51, 109),
    (0x52, 110),
    (0x53, 111),
    (0x5b, 125),
    (0x5c, 126),
    (0x5d, 127),
    (0x5e, 116),
    (0x5f, 142),
    (0x63, 143),
    (0x65, 217),
    (0x66, 156),
    (0x67, 173),
    (0x68, 128),
    (0x69, 159),
    (0x6a, 158),
    (0x6b, 157),
    (0x6c, 155),
    (0x6d, 226),
    (0x75, 138),
    (0x76, 179),
    (0x77, 188),
    (0x78, 133),
    (0x79, 192),
    (0x7b, 180),
    (0x7d, 162),
];

/// The Linux code of a scan code in QEMU's form: `0x80` stands for the prefix `0xe0`. `None` for no key.
pub fn to_linux(code: u32) -> Option<u16> {
    let (table, short) = if code & 0x80 != 0 { (EXTENDED, code & 0x7f) } else { (PLAIN, code) };
    let short = u8::try_from(short).ok().filter(|_| code < 0x100)?;
    let listed = table.iter().find(|(scan, _)| *scan == short).map(|(_, linux)| u16::from(*linux));
    let same = (1..=SAME_UP_TO).contains(&code).then_some(u16::from(short));
    listed.or(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_pc_keyboard_are_known() {
        for (name, code, linux) in [
            ("escape", 0x01, 1),
            ("a", 0x1e, 30),
            ("enter", 0x1c, 28),
            ("keypad enter", 0x9c, 96),
            ("right control", 0x9d, 97),
            ("right alt", 0xb8, 100),
            ("left meta", 0xdb, 125),
            ("menu", 0xdd, 127),
            ("up", 0xc8, 103),
            ("delete", 0xd3, 111),
            ("print screen", 0x54, 99),
            ("pause", 0xc6, 119),
            ("f12", 0x58, 88),
            ("num lock", 0x45, 69),
            ("volume up", 0xb0, 115),
            ("yen", 0x7d, 124),
        ] {
            assert_eq!(to_linux(code), Some(linux), "{name}");
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for code in [0, 0x80, 0xff, 0x100, 0xe01c, u32::MAX] {
            assert_eq!(to_linux(code), None, "{code:#x}");
        }
    }

    #[test]
    fn every_code_is_a_key_below_256() {
        assert!((0..0x200).filter_map(to_linux).all(|linux| (1..256).contains(&linux)));
    }
}
