//! Finds contents that have moved in any direction, as a dragged window does.
//!
//! Some striking patches of the new picture are looked for at every place of the old one. The distance that most of
//! them have moved by is then checked block by block.

use std::collections::HashMap;

use yunju_protocol::display::Rect;

use super::moves::Move;
use crate::picture::Picture;
use crate::tiles::TileSet;

/// Pixels of a row that make a patch.
const PATCH: usize = 16;
/// Colours must change so often in a patch for it to be striking.
const LEAST_CHANGES: usize = 3;
/// Most patches that are looked for.
const MOST_PATCHES: usize = 160;
/// Most patches of one tile, so that they come from everywhere.
const MOST_OF_TILE: usize = 3;
/// Fewer patches that have moved by one distance are chance.
const FEWEST_VOTES: u32 = 10;
/// Side of the blocks that are checked.
const BLOCK: u32 = 16;
/// Fewer blocks that have moved are not worth a rectangle.
const FEWEST_BLOCKS: u64 = 16;
/// Most rectangles that one drag is told in.
const MOST_MOVES: usize = 12;

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The moves by one distance that take `before` near to `after`. Only `changed` tiles may differ. A move may be wrong
/// in some pixels: compare again after making it.
pub fn detect(before: &Picture, after: &Picture, changed: &TileSet) -> Vec<Move> {
    let patches = striking(before, after, changed);
    if patches.len() < FEWEST_VOTES as usize {
        return Vec::new();
    }
    match elect(before, &patches, changed) {
        Some(distance) => Blocks::check(before, after, changed, distance).moves(before, after),
        None => Vec::new(),
    }
}

fn hash(patch: &[u32]) -> u64 {
    patch.iter().fold(0, |hash, pixel| roll(hash, *pixel))
}

fn roll(hash: u64, pixel: u32) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(u64::from(pixel) + 1)
}

/// Striking patches of the new picture by their hash; one that is there twice tells nothing.
fn striking(before: &Picture, after: &Picture, changed: &TileSet) -> HashMap<u64, Option<(u32, u32)>> {
    let mut patches = HashMap::new();
    let step = (changed.len() * MOST_OF_TILE / MOST_PATCHES).max(1);
    for index in changed.indices().step_by(step) {
        let tile = changed.tile(index);
        // One of a row at most, since neighbours say the same.
        let found = (tile.y + 5..tile.bottom()).step_by(9).filter_map(|y| {
            (tile.x..=tile.right().checked_sub(PATCH as u32)?).step_by(PATCH).find_map(|x| {
                let patch = after.span(x, y, PATCH as u32);
                let changes = patch.windows(2).filter(|pair| pair[0] != pair[1]).count();
                let striking = changes >= LEAST_CHANGES && before.span(x, y, PATCH as u32) != patch;
                striking.then(|| (hash(patch), (x, y)))
            })
        });
        for (hash, place) in found.take(MOST_OF_TILE) {
            patches.entry(hash).and_modify(|known| *known = None).or_insert(Some(place));
        }
    }
    patches
}

/// The distance that most patches have moved by.
fn elect(before: &Picture, patches: &HashMap<u64, Option<(u32, u32)>>, changed: &TileSet) -> Option<(i32, i32)> {
    // Most places are ruled out by a few bits, which are quicker to look up than a map.
    let mut filter = [0u64; 1024];
    let bit = |hash: u64| ((hash >> 48) as usize / 64, 1u64 << (hash >> 48 & 63));
    for hash in patches.keys() {
        let (word, bit) = bit(*hash);
        filter[word] |= bit;
    }
    let oldest = (0..PATCH).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut votes: HashMap<(i32, i32), u32> = HashMap::new();
    for strip in strips(changed) {
        for y in strip.y..strip.bottom() {
            let row = before.span(strip.x, y, strip.width);
            let Some((first, _)) = row.split_at_checked(PATCH) else { continue };
            let mut rolling = hash(first);
            for end in PATCH..=row.len() {
                let (word, bit) = bit(rolling);
                if filter[word] & bit != 0
                    && let Some(Some((x, to_y))) = patches.get(&rolling)
                {
                    let from = strip.x as i32 + (end - PATCH) as i32;
                    *votes.entry((*x as i32 - from, *to_y as i32 - y as i32)).or_default() += 1;
                }
                if let Some(pixel) = row.get(end) {
                    let leaving = (u64::from(row[end - PATCH]) + 1).wrapping_mul(oldest);
                    rolling = roll(rolling, *pixel).wrapping_sub(leaving);
                }
            }
        }
    }
    votes.remove(&(0, 0));
    let (distance, most) = votes.into_iter().max_by_key(|(by, count)| (*count, -(by.0.abs() + by.1.abs())))?;
    (most >= FEWEST_VOTES && most as usize * 5 >= patches.len()).then_some(distance)
}

/// Neighbouring changed tiles of each row of tiles as one rectangle each.
fn strips(changed: &TileSet) -> Vec<Rect> {
    let mut strips: Vec<Rect> = Vec::new();
    for index in changed.indices() {
        let tile = changed.tile(index);
        match strips.last_mut() {
            Some(left) if left.y == tile.y && left.right() == tile.x => left.width += tile.width,
            _ => strips.push(tile),
        }
    }
    strips
}

/// Which blocks of an area are what they were at some distance.
struct Blocks {
    /// Where the area is.
    area: Rect,
    distance: (i32, i32),
    columns: u32,
    moved: Vec<bool>,
    /// Those which differ from what was there before.
    changed: Vec<bool>,
}

/// Whether a rectangle of `after` is what was at some distance in `before`.
fn is_moved(before: &Picture, after: &Picture, rect: Rect, (dx, dy): (i32, i32)) -> bool {
    let from = rect.x.checked_add_signed(-dx).zip(rect.y.checked_add_signed(-dy));
    let Some((x, y)) = from.filter(|_| !rect.is_empty()) else { return false };
    let inside = |rect: Rect| rect.right() <= before.width() && rect.bottom() <= before.height();
    inside(rect) && inside(Rect { x, y, ..rect }) && after.rows(rect).eq(before.rows(Rect { x, y, ..rect }))
}

impl Blocks {
    fn check(before: &Picture, after: &Picture, changed: &TileSet, distance: (i32, i32)) -> Self {
        let area = changed.indices().fold(Rect::default(), |all, index| all.union(&changed.tile(index)));
        let (columns, rows) = (area.width / BLOCK, area.height / BLOCK);
        let mut blocks = Self { area, distance, columns, moved: Vec::new(), changed: Vec::new() };
        for row in 0..rows {
            for column in 0..columns {
                let block = blocks.rect(Rect { x: column, y: row, width: 1, height: 1 });
                blocks.moved.push(is_moved(before, after, block, distance));
                blocks.changed.push(!before.rows(block).eq(after.rows(block)));
            }
        }
        blocks
    }

    /// The pixels of a range of blocks.
    fn rect(&self, range: Rect) -> Rect {
        let Rect { x, y, width, height } = range;
        Rect { x: self.area.x + x * BLOCK, y: self.area.y + y * BLOCK, width: width * BLOCK, height: height * BLOCK }
    }

    fn moves(mut self, before: &Picture, after: &Picture) -> Vec<Move> {
        let (dx, dy) = self.distance;
        let mut moves = Vec::new();
        for _ in 0..MOST_MOVES {
            let range = self.largest();
            if range.area() < FEWEST_BLOCKS {
                break;
            }
            if self.count_changed(range) * 8 >= range.area() {
                moves.push(Move { to: self.widen(before, after, self.rect(range)), dx, dy });
            }
            self.take(range);
        }
        // A move must not overwrite what a later one copies from.
        let ahead = |at: u32, by: i32| if by > 0 { -i64::from(at) } else { i64::from(at) };
        moves.sort_by_key(|of| (if dy == 0 { 0 } else { ahead(of.to.y, dy) }, ahead(of.to.x, dx)));
        moves
    }

    /// The largest rectangle of moved blocks.
    fn largest(&self) -> Rect {
        let columns = self.columns as usize;
        let mut best = Rect::default();
        // How many moved blocks stand on one another in each column, up to the present row.
        let mut heights = vec![0u32; columns];
        for (row, blocks) in (1u32..).zip(self.moved.chunks_exact(columns.max(1))) {
            for (height, moved) in heights.iter_mut().zip(blocks) {
                *height = if *moved { *height + 1 } else { 0 };
            }
            // Columns where a rectangle could begin and how high it would be, rising.
            let mut open: Vec<(u32, u32)> = Vec::new();
            for (column, height) in (0u32..).zip(heights.iter().copied().chain([0])) {
                let mut start = column;
                while let Some((left, high)) = open.pop_if(|(_, high)| *high > height) {
                    let rect = Rect { x: left, y: row - high, width: column - left, height: high };
                    best = if rect.area() > best.area() { rect } else { best };
                    start = left;
                }
                if height > 0 {
                    open.push((start, height));
                }
            }
        }
        best
    }

    fn at(&self, column: u32, row: u32) -> usize {
        (row * self.columns + column) as usize
    }

    fn count_changed(&self, range: Rect) -> u64 {
        let rows = range.y..range.bottom();
        rows.flat_map(|row| (range.x..range.right()).map(move |column| (column, row)))
            .filter(|(column, row)| self.changed[self.at(*column, *row)])
            .count() as u64
    }

    fn take(&mut self, range: Rect) {
        for row in range.y..range.bottom() {
            for column in range.x..range.right() {
                let at = self.at(column, row);
                self.moved[at] = false;
            }
        }
    }

    /// Moves each side outwards, less than a block, as long as the pixels there have moved too.
    fn widen(&self, before: &Picture, after: &Picture, mut rect: Rect) -> Rect {
        let moved = |rect: Rect| is_moved(before, after, rect, self.distance);
        for _ in 1..BLOCK {
            if rect.x > 0 && moved(Rect { x: rect.x - 1, width: 1, ..rect }) {
                (rect.x, rect.width) = (rect.x - 1, rect.width + 1);
            }
            if moved(Rect { x: rect.right(), width: 1, ..rect }) {
                rect.width += 1;
            }
            if rect.y > 0 && moved(Rect { y: rect.y - 1, height: 1, ..rect }) {
                (rect.y, rect.height) = (rect.y - 1, rect.height + 1);
            }
            if moved(Rect { y: rect.bottom(), height: 1, ..rect }) {
                rect.height += 1;
            }
        }
        rect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (640, 480);

    fn noise(x: u32, y: u32) -> u32 {
        (x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x2c1b_3c6d) >> 8
    }

    /// A window of 300x200 pixels before a wallpaper.
    fn desktop(left: u32, top: u32) -> Picture {
        let mut picture = Picture::black(SIZE.0, SIZE.1);
        for y in 0..SIZE.1 {
            for (x, pixel) in (0..).zip(picture.span_mut(0, y, SIZE.0)) {
                let inside = (left..left + 300).contains(&x) && (top..top + 200).contains(&y);
                *pixel = if inside { noise((x - left) / 3, (y - top) / 2) } else { (x / 40 + y / 30) * 0x050309 };
            }
        }
        picture
    }

    fn changed(before: &Picture, after: &Picture) -> TileSet {
        let mut tiles = TileSet::none(SIZE.0, SIZE.1);
        for index in 0..tiles.capacity() {
            if !before.rows(tiles.tile(index)).eq(after.rows(tiles.tile(index))) {
                tiles.insert_index(index);
            }
        }
        tiles
    }

    #[test]
    fn a_dragged_window_is_copied_whole_in_every_direction() {
        for (dx, dy) in [(7, 0), (-13, 0), (3, -21), (-40, 17), (0, 9), (64, 64), (1, 1)] {
            let before = desktop(150, 130);
            let after = desktop(150u32.wrapping_add_signed(dx), 130u32.wrapping_add_signed(dy));
            let moves = detect(&before, &after, &changed(&before, &after));
            let mut copied = before.clone();
            moves.iter().for_each(|of| copied.shift(of.to, of.dx, of.dy));
            let rows = copied.rows(copied.bounds()).zip(after.rows(after.bounds()));
            let wrong: usize = rows.map(|(a, b)| a.iter().zip(b).filter(|(a, b)| a != b).count()).sum();
            let uncovered = 300 * 200 - (300 - dx.unsigned_abs()) * (200 - dy.unsigned_abs());
            assert!(wrong <= uncovered as usize, "{dx} {dy}: {wrong} of {uncovered} by {moves:?}");
            assert!(moves.len() <= 2, "{dx} {dy}: {moves:?}");
        }
    }

    #[test]
    fn what_is_new_is_not_copied() {
        let before = desktop(100, 100);
        let mut after = before.clone();
        for y in 100..300 {
            (0..).zip(after.span_mut(100, y, 300)).for_each(|(x, pixel)| *pixel = noise(x + 7777, y + 999));
        }
        assert_eq!(detect(&before, &after, &changed(&before, &after)), []);
        assert_eq!(detect(&before, &Picture::black(SIZE.0, SIZE.1), &TileSet::all(SIZE.0, SIZE.1)), []);
    }

    #[test]
    fn what_is_not_known_is_not_copied_from() {
        let (mut before, after) = (desktop(150, 130), desktop(170, 150));
        before.fill(Rect { x: 150, y: 130, width: 300, height: 200 }, crate::picture::UNKNOWN);
        assert_eq!(detect(&before, &after, &changed(&before, &after)), []);
    }
}
