//! A small font: the printable ASCII characters in cells of 8×16 pixels.
//!
//! `font.txt` draws each glyph in 5×8 points, the last row for what hangs below the line, sixteen to a
//! row of glyphs, from the space on. A point is one pixel wide and two high.

/// Columns of a cell.
pub const WIDTH: u32 = 8;
/// Rows of a cell.
pub const HEIGHT: u32 = 16;

const FIRST: u8 = b' ';
const GLYPHS: usize = 96;
const COLUMNS: usize = 5;
const ROWS: usize = 8;
const PER_SHEET: usize = 16;
const LINE: usize = PER_SHEET * (COLUMNS + 1);

/// The eight rows of each glyph, leftmost point in bit 4.
static FONT: [[u8; ROWS]; GLYPHS] = parse(include_bytes!("font.txt"));

const fn parse(art: &[u8]) -> [[u8; ROWS]; GLYPHS] {
    let mut font = [[0; ROWS]; GLYPHS];
    let mut glyph = 0;
    while glyph < GLYPHS {
        let (sheet, column) = (glyph / PER_SHEET, glyph % PER_SHEET);
        let mut row = 0;
        while row < ROWS {
            // A sheet is its rows and an empty line.
            let start = sheet * (ROWS * LINE + 1) + row * LINE + column * (COLUMNS + 1);
            let mut point = 0;
            while point < COLUMNS {
                font[glyph][row] = font[glyph][row] << 1 | (art[start + point] == b'#') as u8;
                point += 1;
            }
            row += 1;
        }
        glyph += 1;
    }
    font
}

/// Whether the pixel at a place in the character's cell is ink. What the font lacks looks like a block.
pub fn ink(character: u8, x: u32, y: u32) -> bool {
    let glyph = usize::from(character.wrapping_sub(FIRST)).min(GLYPHS - 1);
    let (column, row) = (x.wrapping_sub(1), y / 2);
    column < COLUMNS as u32 && row < ROWS as u32 && FONT[glyph][row as usize] >> (COLUMNS as u32 - 1 - column) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(character: u8) -> Vec<String> {
        (0..HEIGHT).map(|y| (0..WIDTH).map(|x| if ink(character, x, y) { '#' } else { '.' }).collect()).collect()
    }

    #[test]
    fn a_glyph_is_drawn_as_in_the_file_twice_as_high_and_with_a_margin() {
        let glyph = picture(b'L');
        assert_eq!(glyph[..12], [".#......"; 12]);
        assert_eq!(glyph[12..14], [".#####.."; 2]);
        assert_eq!(glyph[14..], ["........"; 2]);
    }

    #[test]
    fn no_two_printable_characters_look_alike() {
        let glyphs: Vec<_> = (b' '..=b'~').map(picture).collect();
        for (at, glyph) in glyphs.iter().enumerate() {
            let twin = glyphs[..at].iter().position(|other| other == glyph);
            assert_eq!(twin, None, "{:?} looks like another", char::from(b' ' + at as u8));
        }
    }
}
