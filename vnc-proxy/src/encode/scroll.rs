//! Finds contents that have moved up or down, to be copied by the viewer instead of sent.

use std::collections::HashMap;

use yunju_protocol::display::Rect;

use super::moves::Move;
use crate::picture::Picture;
use crate::tiles::{SIDE, TileSet};

/// Fewer rows that have moved by one distance are chance.
const FEWEST_VOTES: u32 = 12;
/// Rows that are compared together when looking for the distance: single rows repeat too often in text.
const TOGETHER: usize = 8;
/// Shorter moved parts are not worth a rectangle.
const FEWEST_ROWS: u32 = 16;

/// One column of tiles, cut to the pixels that have changed at its outer sides.
struct Strip {
    x: u32,
    width: u32,
    y: u32,
    before: Vec<u64>,
    after: Vec<u64>,
}

/// The moves by one distance that take `before` nearest to `after`, in the order in which they must be made.
/// Only `changed` tiles may differ. A move may be wrong in some pixels: compare again after making it.
pub fn detect(before: &Picture, after: &Picture, changed: &TileSet) -> Vec<Move> {
    let strips: Vec<Strip> =
        (0..changed.columns()).filter_map(|column| strip(before, after, changed, column)).collect();
    let Some(dy) = elect(&strips) else { return Vec::new() };
    let mut moves: Vec<Move> = Vec::new();
    for strip in &strips {
        for (start, length) in moved_runs(strip, dy) {
            let to = Rect { x: strip.x, y: start, width: strip.width, height: length };
            let joins = |of: &&mut Move| of.to.right() == to.x && (of.to.y, of.to.height) == (to.y, to.height);
            match moves.iter_mut().find(joins) {
                Some(left) => left.to.width += to.width,
                None => moves.push(Move { to, dx: 0, dy }),
            }
        }
    }
    // A move must not overwrite what a later one copies from.
    moves.sort_by_key(|of| if dy < 0 { i64::from(of.to.y) } else { -i64::from(of.to.y) });
    moves
}

fn strip(before: &Picture, after: &Picture, changed: &TileSet, column: u32) -> Option<Strip> {
    let any = |column: u32| (0..changed.rows()).any(|row| changed.contains(column, row));
    let mut rows = (0..changed.rows()).filter(|row| changed.contains(column, *row));
    let first = rows.next()?;
    let last = rows.next_back().unwrap_or(first);
    let top = changed.tile(changed.index(column, first));
    let whole = top.union(&changed.tile(changed.index(column, last)));
    // What stands still beside a scrolling window would spoil every row of the window's outermost strips.
    let differs = |x: u32| (whole.y..whole.bottom()).any(|y| before.span(x, y, 1) != after.span(x, y, 1));
    let left_open = column == 0 || !any(column - 1);
    let right_open = column + 1 == changed.columns() || !any(column + 1);
    let x = if left_open { (whole.x..whole.right()).find(|x| differs(*x))? } else { whole.x };
    let end = if right_open { (x..whole.right()).rev().find(|x| differs(*x))? + 1 } else { whole.right() };
    let rect = Rect { x, width: end - x, ..whole };
    let hashes = |picture: &Picture| picture.rows(rect).map(hash).collect();
    Some(Strip { x, width: end - x, y: whole.y, before: hashes(before), after: hashes(after) })
}

/// The distance that most rows have moved by.
fn elect(strips: &[Strip]) -> Option<i32> {
    let mut votes: HashMap<i32, u32> = HashMap::new();
    let mut voters = 0;
    let mut places: HashMap<u64, Option<usize>> = HashMap::new();
    for strip in strips {
        places.clear();
        for (y, rows) in strip.before.windows(TOGETHER).enumerate() {
            // What is there twice, as blank rows are, tells nothing.
            places.entry(mix_all(rows)).and_modify(|place| *place = None).or_insert(Some(y));
        }
        for (y, rows) in strip.after.windows(TOGETHER).enumerate() {
            if strip.before[y..y + TOGETHER] == *rows {
                continue;
            }
            voters += 1;
            if let Some(Some(from)) = places.get(&mix_all(rows)) {
                *votes.entry(y as i32 - *from as i32).or_default() += 1;
            }
        }
    }
    let (dy, most) = votes.into_iter().max_by_key(|(dy, count)| (*count, -dy.abs()))?;
    (most >= FEWEST_VOTES && most * 4 >= voters).then_some(dy)
}

/// Where, and how many, rows of a strip are what was `dy` rows above.
fn moved_runs(strip: &Strip, dy: i32) -> Vec<(u32, u32)> {
    let moved = |y: usize| {
        let from = y.checked_add_signed(-(dy as isize)).and_then(|from| strip.before.get(from));
        from == Some(&strip.after[y])
    };
    let mut runs = Vec::new();
    let mut y = 0;
    while y < strip.after.len() {
        let length = (y..strip.after.len()).take_while(|y| moved(*y)).count();
        let changed = (y..y + length).any(|y| strip.before[y] != strip.after[y]);
        if length as u32 >= FEWEST_ROWS && changed {
            runs.push((strip.y + y as u32, length as u32));
        }
        y += length + 1;
    }
    runs
}

fn mix(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

fn mix_all(words: &[u64]) -> u64 {
    words.iter().fold(0, |state, word| mix(state, *word))
}

/// A row's pixels as a number; in two lanes, which a processor works on at the same time.
fn hash(row: &[u32]) -> u64 {
    let mut lanes = [1, 2];
    let mut fours = row.chunks_exact(4);
    for four in &mut fours {
        for (lane, pair) in lanes.iter_mut().zip(four.chunks_exact(2)) {
            *lane = mix(*lane, u64::from(pair[0]) << 32 | u64::from(pair[1]));
        }
    }
    fours.remainder().iter().fold(mix(lanes[0], lanes[1]), |state, pixel| mix(state, u64::from(*pixel)))
}

const _: () = assert!(FEWEST_ROWS < SIDE);

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a scrolling window at (70, 30) of 300×200 pixels, before a standing background.
    fn window(offset: u32) -> Picture {
        let mut picture = Picture::black(500, 300);
        for y in 0..300 {
            for (x, pixel) in (0..).zip(picture.span_mut(0, y, 500)) {
                let inside = (70..370).contains(&x) && (30..230).contains(&y);
                let seed = if inside { x * 7 + (y + offset) * 131 } else { x * y };
                *pixel = seed.wrapping_mul(0x9e37_79b1) >> 9;
            }
        }
        picture
    }

    fn changed(before: &Picture, after: &Picture) -> TileSet {
        let mut tiles = TileSet::none(500, 300);
        for index in 0..tiles.capacity() {
            if !before.rows(tiles.tile(index)).eq(after.rows(tiles.tile(index))) {
                tiles.insert_index(index);
            }
        }
        tiles
    }

    fn apply(mut picture: Picture, moves: &[Move]) -> Picture {
        moves.iter().for_each(|of| picture.shift(of.to, of.dx, of.dy));
        picture
    }

    fn differing(a: &Picture, b: &Picture) -> usize {
        a.rows(a.bounds()).zip(b.rows(b.bounds())).map(|(a, b)| a.iter().zip(b).filter(|(a, b)| a != b).count()).sum()
    }

    #[test]
    fn a_scrolled_window_is_copied_all_but_the_rows_that_appear() {
        for (from, to) in [(0, 17), (40, 3), (5, 4), (0, 100)] {
            let (before, after) = (window(from), window(to));
            let moves = detect(&before, &after, &changed(&before, &after));
            assert!(moves.len() < 4, "{moves:?}");
            let rest = differing(&apply(before, &moves), &after);
            assert_eq!(rest, 300 * from.abs_diff(to) as usize, "{from} to {to}: {moves:?}");
        }
    }

    #[test]
    fn a_changed_picture_that_has_not_moved_is_not_copied() {
        let (before, mut after) = (window(0), window(0));
        for y in 0..300 {
            after.span_mut(0, y, 500).iter_mut().for_each(|pixel| *pixel = pixel.wrapping_mul(31) & 0xff_ffff);
        }
        assert_eq!(detect(&before, &after, &TileSet::all(500, 300)), []);
        assert_eq!(detect(&before, &Picture::black(500, 300), &TileSet::all(500, 300)), []);
    }
}
