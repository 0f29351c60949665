//! What differs between a viewer's picture and the screen's.

use yunju_protocol::display::Rect;

use crate::picture::Picture;
use crate::tiles::{TileSet, join};

/// What of a tile lies outside of some areas, in rectangles.
pub fn outside(tile: Rect, areas: &[Rect]) -> Vec<Rect> {
    let mut parts = vec![tile];
    for area in areas {
        parts = parts.into_iter().flat_map(|part| without(part, *area)).collect();
    }
    parts
}

/// What of a rectangle lies outside of an area: above, below, left and right of it.
fn without(rect: Rect, area: Rect) -> impl Iterator<Item = Rect> {
    let common = rect.intersection(&area);
    let parts = if common.is_empty() {
        [rect, Rect::default(), Rect::default(), Rect::default()]
    } else {
        let beside = |x: u32, end: u32| Rect { x, width: end - x, ..common };
        [
            Rect { height: common.y - rect.y, ..rect },
            Rect { y: common.bottom(), height: rect.bottom() - common.bottom(), ..rect },
            beside(rect.x, common.x),
            beside(common.right(), rect.right()),
        ]
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

/// Makes a tile of `has` equal to `picture` and returns the smallest rectangle that holds all differences.
pub fn take_over(has: &mut Picture, picture: &Picture, tile: Rect) -> Option<Rect> {
    let mut differs = Rect::default();
    for y in tile.y..tile.bottom() {
        let fresh = picture.span(tile.x, y, tile.width);
        let mine = has.span_mut(tile.x, y, tile.width);
        if mine == fresh {
            continue;
        }
        let unequal = |at: &usize| mine[*at] != fresh[*at];
        let first = (0..fresh.len()).find(unequal).unwrap_or(0);
        let last = (0..fresh.len()).rev().find(unequal).unwrap_or(first);
        differs = differs.union(&Rect { x: tile.x + first as u32, y, width: (last - first) as u32 + 1, height: 1 });
        mine.copy_from_slice(fresh);
    }
    (!differs.is_empty()).then_some(differs)
}

/// Joins the changed parts of neighbouring tiles of one kind: the tiles, the pixels that cover all the parts, the kind.
pub fn merge<K: PartialEq + Copy>(
    grid: &TileSet,
    changed: &[Option<Rect>],
    mut kind: impl FnMut(usize, Rect) -> K,
    limit: impl Fn(K) -> (u32, u32),
) -> Vec<(Rect, Rect, K)> {
    let kinds: Vec<Option<K>> =
        changed.iter().enumerate().map(|(index, rect)| rect.map(|rect| kind(index, rect))).collect();
    let cover = |range: Rect| {
        let rows = range.y..range.bottom();
        let tiles = rows.flat_map(|row| (range.x..range.right()).map(move |column| (column, row)));
        tiles
            .filter_map(|(column, row)| changed[grid.index(column, row)])
            .fold(Rect::default(), |all, of| all.union(&of))
    };
    join(grid, &kinds, limit).into_iter().map(|(range, kind)| (range, cover(range), kind)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rects() -> impl Strategy<Value = Rect> {
        (0u32..20, 0u32..20, 0u32..20, 0u32..20).prop_map(|(x, y, width, height)| Rect { x, y, width, height })
    }

    proptest! {
        #[test]
        fn each_pixel_outside_is_in_one_part_and_none_inside_is(tile in rects(), areas in prop::collection::vec(rects(), 0..3)) {
            let within = |rect: &Rect, x, y| rect.intersection(&Rect { x, y, width: 1, height: 1 }).area() == 1;
            let parts = outside(tile, &areas);
            for (x, y) in (0..40).flat_map(|y| (0..40).map(move |x| (x, y))) {
                let expected = within(&tile, x, y) && !areas.iter().any(|area| within(area, x, y));
                let times = parts.iter().filter(|part| within(part, x, y)).count();
                prop_assert_eq!(times, usize::from(expected), "{} {}", x, y);
            }
        }
    }
}
