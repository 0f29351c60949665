//! Text as keys: a keyboard is made up that has each character of the text on a key of its own.

use std::collections::HashMap;
use std::fmt::Write;

/// Linux codes of the keys that print something on any keyboard: programs that look at codes take them for text.
const CODES: [std::ops::RangeInclusive<u32>; 4] = [2..=13, 16..=27, 30..=41, 43..=53];

/// A made-up keyboard and what to press on it, in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// In xkb's text form.
    pub keymap: String,
    /// Linux codes.
    pub keys: Vec<u32>,
}

/// The pieces that type a text. Line ends are the return key; other control characters are left out.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut board = Board::default();
    let mut rest = text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).peekable();
    while let Some(character) = rest.peek().copied() {
        if board.press(character) {
            rest.next();
        } else {
            pieces.push(std::mem::take(&mut board).piece());
        }
    }
    if !board.keys.is_empty() {
        pieces.push(board.piece());
    }
    pieces
}

/// A keyboard that is being made up.
#[derive(Default)]
struct Board {
    codes: HashMap<char, u32>,
    symbols: Vec<(u32, String)>,
    keys: Vec<u32>,
}

impl Board {
    /// Presses the key of a character; false if there is none for it left.
    fn press(&mut self, character: char) -> bool {
        let code = match (self.codes.get(&character), character) {
            (Some(code), _) => *code,
            (None, '\n') => self.add(character, 28, "Return".to_owned()),
            (None, '\t') => self.add(character, 15, "Tab".to_owned()),
            (None, _) => {
                let used = self.symbols.iter().filter(|(code, _)| CODES.iter().any(|run| run.contains(code))).count();
                let Some(code) = CODES.iter().cloned().flatten().nth(used) else { return false };
                self.add(character, code, format!("U{:04X}", u32::from(character)))
            }
        };
        self.keys.push(code);
        true
    }

    fn add(&mut self, character: char, code: u32, symbol: String) -> u32 {
        self.codes.insert(character, code);
        self.symbols.push((code, symbol));
        code
    }

    fn piece(self) -> Piece {
        let (mut codes, mut symbols) = (String::new(), String::new());
        for (code, symbol) in &self.symbols {
            // xkb counts from eight.
            let _ = writeln!(codes, "<K{code}> = {};", code + 8);
            let _ = writeln!(symbols, "key <K{code}> {{ [ {symbol} ] }};");
        }
        let keymap = format!(
            "xkb_keymap {{\nxkb_keycodes \"typed\" {{\nminimum = 8;\nmaximum = 255;\n{codes}}};\n\
             xkb_types \"typed\" {{ include \"complete\" }};\nxkb_compatibility \"typed\" {{ include \"complete\" }};\n\
             xkb_symbols \"typed\" {{\n{symbols}}};\n}};\n"
        );
        Piece { keymap, keys: self.keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_has_a_key_and_comes_back_to_it() {
        let [piece] = &pieces("汉a汉\n")[..] else { panic!("one keyboard is enough") };
        assert_eq!(piece.keys, [2, 3, 2, 28]);
        for line in [
            "<K2> = 10;",
            "<K28> = 36;",
            "key <K2> { [ U6C49 ] };",
            "key <K3> { [ U0061 ] };",
            "key <K28> { [ Return ] };",
        ] {
            assert!(piece.keymap.contains(line), "{line} in {}", piece.keymap);
        }
    }

    #[test]
    fn many_characters_take_several_keyboards() {
        let text: String = ('\u{4e00}'..).take(100).collect();
        let pieces = pieces(&text);
        assert_eq!(pieces.iter().map(|piece| piece.keys.len()).collect::<Vec<_>>(), [47, 47, 6]);
        assert!(pieces.iter().flat_map(|piece| &piece.keys).all(|code| (2..=53).contains(code)));
    }

    #[test]
    fn what_cannot_be_typed_is_left_out() {
        assert!(pieces("").is_empty());
        assert!(pieces("\u{1b}\0\u{7f}").is_empty());
        assert_eq!(pieces("a\u{1b}\r\n😀")[0].keys, [2, 28, 3]);
        assert!(pieces("😀")[0].keymap.contains("U1F600"));
    }
}
