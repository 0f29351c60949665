//! A picture's area as tiles of 64×64 pixels.

use yunju_protocol::display::Rect;

/// Side of a tile in pixels.
pub const SIDE: u32 = 64;

/// A set of tiles of a picture of a certain size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TileSet {
    width: u32,
    height: u32,
    columns: u32,
    words: Vec<u64>,
}

impl TileSet {
    /// No tile of a picture of this size.
    pub fn none(width: u32, height: u32) -> Self {
        let (columns, rows) = (width.div_ceil(SIDE), height.div_ceil(SIDE));
        let words = (columns as usize * rows as usize).div_ceil(64);
        Self { width, height, columns, words: vec![0; words] }
    }

    /// Every tile of a picture of this size.
    pub fn all(width: u32, height: u32) -> Self {
        let mut tiles = Self::none(width, height);
        tiles.insert_rect(Rect::of_size(width, height));
        tiles
    }

    /// Size of the picture.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Tiles a row.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Rows of tiles.
    pub fn rows(&self) -> u32 {
        self.height.div_ceil(SIDE)
    }

    /// Number of all tiles, in the set or not.
    pub fn capacity(&self) -> usize {
        self.columns as usize * self.rows() as usize
    }

    /// Whether no tile is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Number of tiles in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether a tile is in the set.
    pub fn contains(&self, column: u32, row: u32) -> bool {
        self.contains_index(self.index(column, row))
    }

    /// Whether the tile with this running number is in the set.
    pub fn contains_index(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Adds a tile.
    pub fn insert(&mut self, column: u32, row: u32) {
        let index = self.index(column, row);
        self.insert_index(index);
    }

    /// Adds the tile with this running number.
    pub fn insert_index(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Takes the tile with this running number out.
    pub fn remove_index(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Adds every tile that a rectangle touches.
    pub fn insert_rect(&mut self, rect: Rect) {
        let rect = rect.intersection(&Rect::of_size(self.width, self.height));
        if rect.is_empty() {
            return;
        }
        for row in rect.y / SIDE..=(rect.bottom() - 1) / SIDE {
            for column in rect.x / SIDE..=(rect.right() - 1) / SIDE {
                self.insert(column, row);
            }
        }
    }

    /// Adds the tiles of another set of the same size; a set of another size is taken whole.
    pub fn merge(&mut self, other: &Self) {
        if self.size() != other.size() {
            self.clone_from(other);
            return;
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Takes out, and returns, the tiles that a rectangle touches.
    pub fn take_within(&mut self, rect: Rect) -> Self {
        let mut within = Self::none(self.width, self.height);
        if rect.intersection(&Rect::of_size(self.width, self.height)) == Rect::of_size(self.width, self.height) {
            std::mem::swap(&mut within, self);
            return within;
        }
        within.insert_rect(rect);
        for (inside, mine) in within.words.iter_mut().zip(&mut self.words) {
            *inside &= *mine;
            *mine &= !*inside;
        }
        within
    }

    /// Whether a rectangle touches a tile of the set.
    pub fn touches(&self, rect: Rect) -> bool {
        !self.is_empty() && !self.within(rect).is_empty()
    }

    /// The tiles that a rectangle touches.
    pub fn within(&self, rect: Rect) -> Self {
        self.clone().take_within(rect)
    }

    /// The running numbers of the tiles in the set.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                (left != 0).then(|| {
                    left &= left - 1;
                    at * 64 + bit
                })
            })
        })
    }

    /// The pixels of the tile with this running number.
    pub fn tile(&self, index: usize) -> Rect {
        let (column, row) = self.position(index);
        Rect { x: column * SIDE, y: row * SIDE, width: SIDE, height: SIDE }
            .intersection(&Rect::of_size(self.width, self.height))
    }

    /// Column and row of the tile with this running number.
    pub fn position(&self, index: usize) -> (u32, u32) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let columns = self.columns.max(1);
        (index % columns, index / columns)
    }

    /// The running number of a tile.
    pub fn index(&self, column: u32, row: u32) -> usize {
        row as usize * self.columns as usize + column as usize
    }
}

/// Joins neighbouring tiles of equal key to rectangles of at most as many columns and rows of tiles as `limit` says.
/// Each is given as the range of tiles (a rectangle counted in tiles) and its key; a tile without key is left out.
pub fn join<K: PartialEq + Copy>(
    tiles: &TileSet,
    keys: &[Option<K>],
    limit: impl Fn(K) -> (u32, u32),
) -> Vec<(Rect, K)> {
    let mut joined = Vec::new();
    let mut done = TileSet::none(tiles.width, tiles.height);
    let key = |column, row| keys.get(tiles.index(column, row)).copied().flatten();
    for row in 0..tiles.rows() {
        for column in 0..tiles.columns {
            let Some(first) = key(column, row).filter(|_| !done.contains(column, row)) else { continue };
            let (max_columns, max_rows) = limit(first);
            let free = |c: u32, r: u32| key(c, r) == Some(first) && !done.contains(c, r);
            let right = (column + 1..tiles.columns.min(column + max_columns)).take_while(|c| free(*c, row)).count();
            let width = 1 + right as u32;
            let below = (row + 1..tiles.rows().min(row + max_rows))
                .take_while(|r| (column..column + width).all(|c| free(c, *r)))
                .count();
            let range = Rect { x: column, y: row, width, height: 1 + below as u32 };
            for r in range.y..range.bottom() {
                for c in range.x..range.right() {
                    done.insert(c, r);
                }
            }
            joined.push((range, first));
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rectangle_touches_the_tiles_it_overlaps() {
        let mut tiles = TileSet::none(200, 130);
        tiles.insert_rect(Rect { x: 63, y: 64, width: 2, height: 1 });
        let found: Vec<_> = tiles.indices().map(|index| tiles.position(index)).collect();
        assert_eq!(found, [(0, 1), (1, 1)]);
        assert_eq!(tiles.tile(tiles.index(3, 2)), Rect { x: 192, y: 128, width: 8, height: 2 });
    }

    #[test]
    fn a_rectangle_outside_touches_nothing() {
        let mut tiles = TileSet::none(100, 100);
        tiles.insert_rect(Rect { x: 100, y: 0, width: u32::MAX, height: u32::MAX });
        assert!(tiles.is_empty());
    }

    #[test]
    fn taking_within_a_rectangle_leaves_the_rest() {
        let mut tiles = TileSet::all(256, 256);
        let taken = tiles.take_within(Rect { x: 0, y: 0, width: 128, height: 64 });
        assert_eq!((taken.len(), tiles.len()), (2, 14));
    }

    proptest! {
        #[test]
        fn joined_rectangles_cover_each_tile_once_and_mix_no_keys(
            keys in proptest::collection::vec(proptest::option::of(0u8..3), 30),
            limits in (1u32..5, 1u32..5),
        ) {
            let tiles = TileSet::all(6 * SIDE, 5 * SIDE);
            let mut covered = vec![None; 30];
            for (range, key) in join(&tiles, &keys, |_| limits) {
                prop_assert!(range.width <= limits.0 && range.height <= limits.1);
                for row in range.y..range.bottom() {
                    for column in range.x..range.right() {
                        let slot = &mut covered[tiles.index(column, row)];
                        prop_assert_eq!(*slot, None);
                        *slot = Some(key);
                    }
                }
            }
            prop_assert_eq!(covered, keys);
        }
    }
}
