//! Contents that have moved, to be copied by the viewer instead of sent.

use yunju_protocol::display::Rect;

use super::{drag, scroll};
use crate::picture::Picture;
use crate::tiles::TileSet;

/// A rectangle whose contents were elsewhere before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Where the contents are now.
    pub to: Rect,
    /// Columns moved, positive to the right.
    pub dx: i32,
    /// Rows moved, positive down.
    pub dy: i32,
}

impl Move {
    /// Where the contents were.
    pub fn from(&self) -> Rect {
        let Rect { x, y, .. } = self.to;
        Rect { x: x.saturating_add_signed(-self.dx), y: y.saturating_add_signed(-self.dy), ..self.to }
    }
}

/// Fewer changed tiles are not worth a search.
const FEWEST_TILES: usize = 6;
/// After so many searches in vain only some pictures are searched.
const PATIENCE: u32 = 4;
/// One picture in so many is searched then.
const SELDOM: u32 = 8;

/// Looks for moves, less often where there are none.
#[derive(Debug, Default)]
pub struct Finder {
    in_vain: u32,
}

impl Finder {
    /// The moves by one distance that take `before` nearest to `after`, in the order in which they must be made. Only
    /// `changed` tiles may differ. A move may be wrong in some pixels: compare again after making it.
    pub fn find(&mut self, before: &Picture, after: &Picture, changed: &TileSet) -> Vec<Move> {
        if changed.len() < FEWEST_TILES {
            return Vec::new();
        }
        let mut moves = scroll::detect(before, after, changed);
        if moves.is_empty() && (self.in_vain < PATIENCE || self.in_vain.is_multiple_of(SELDOM)) {
            moves = drag::detect(before, after, changed);
        }
        self.in_vain = if moves.is_empty() { self.in_vain.wrapping_add(1) } else { 0 };
        moves
    }
}
