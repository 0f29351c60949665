//! Which areas of the screen are in sustained motion, as a video is: they are sent as H.264 to viewers that know it.

use std::time::{Duration, Instant};

use yunju_protocol::display::Rect;

use crate::encode::palette::Palette;
use crate::picture::Picture;
use crate::tiles::{SIDE, TileSet};

/// A tile that has not changed for this long has come to rest.
const GAP: Duration = Duration::from_millis(250);
/// A tile that has changed without rest for this long is in sustained motion.
const SUSTAINED: Duration = Duration::from_millis(700);
/// A region that fits no motion any more is kept for this long, so that it does not come and go.
const KEPT: Duration = Duration::from_secs(2);
/// How often regions are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// A region without change for this long may be sent again without loss.
pub const AT_REST: Duration = Duration::from_millis(300);
/// Most regions at a time.
pub const MOST_REGIONS: usize = 2;
/// Smaller areas are better served as they are.
const LEAST_AREA: u64 = 200 * 150;
/// Largest area that an encoder of ours takes, either way up.
const MOST_PIXELS: (u32, u32) = (3840, 2160);
/// What changes in neighbouring tiles with a wider gap between is not one thing.
const NEAR: u32 = 16;
/// More colours than this in a tile are a photograph's.
const MANY_COLOURS: usize = 200;
/// Tiles of an area that are looked at to tell a video from a text.
const SAMPLES: usize = 12;

/// An area in sustained motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Even in all its sides.
    pub rect: Rect,
    /// The number of the screen's picture that last differed inside.
    pub generation: u64,
    /// When it changed last.
    pub changed: Instant,
    /// When it last fitted what moves.
    fitted: Instant,
}

impl Region {
    /// Until when what it shows is not worth sending without loss.
    pub fn rests_at(&self) -> Instant {
        self.changed + AT_REST
    }
}

#[derive(Debug, Clone, Copy)]
struct Tile {
    /// When the present run of changes began, and when it last went on.
    run: Option<(Instant, Instant)>,
    /// What has changed during the run.
    bounds: Rect,
}

/// Follows what moves on the screen.
#[derive(Debug)]
pub struct Motion {
    grid: TileSet,
    tiles: Vec<Tile>,
    regions: Vec<Region>,
    looked: Option<Instant>,
    pictures: u64,
    palette: Palette,
}

impl Motion {
    /// For a picture of this size, at rest.
    pub fn new(width: u32, height: u32) -> Self {
        let grid = TileSet::none(width, height);
        let tiles = vec![Tile { run: None, bounds: Rect::default() }; grid.capacity()];
        Self { grid, tiles, regions: Vec::new(), looked: None, pictures: 0, palette: Palette::default() }
    }

    /// The picture has another size: all is at rest.
    pub fn resize(&mut self, width: u32, height: u32) {
        // Numbers of pictures are not used twice.
        *self = Self { pictures: self.pictures, ..Self::new(width, height) };
    }

    /// The areas in sustained motion.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Takes note of a new picture: the tiles, by their running numbers, and the parts of them that have changed.
    pub fn note(&mut self, picture: &Picture, changed: &[(usize, Rect)], now: Instant) {
        self.pictures += 1;
        for (index, part) in changed {
            let Some(tile) = self.tiles.get_mut(*index) else { continue };
            match tile.run {
                Some((since, last)) if now.duration_since(last) <= GAP => {
                    tile.run = Some((since, now));
                    tile.bounds = tile.bounds.union(part);
                }
                _ => *tile = Tile { run: Some((now, now)), bounds: *part },
            }
        }
        for region in &mut self.regions {
            if changed.iter().any(|(_, part)| !part.intersection(&region.rect).is_empty()) {
                region.generation = self.pictures;
                region.changed = now;
            }
        }
        if self.looked.is_none_or(|at| now.duration_since(at) >= LOOK) {
            self.looked = Some(now);
            self.look(picture, now);
        }
    }

    /// These tiles move as a whole, which is told in fewer bytes: their run begins anew.
    pub fn calm(&mut self, tiles: &TileSet) {
        if tiles.size() == self.grid.size() {
            tiles.indices().for_each(|index| self.tiles[index].run = None);
        }
    }

    fn look(&mut self, picture: &Picture, now: Instant) {
        let areas = self.areas(now);
        for region in &mut self.regions {
            let fits = |area: &Rect| {
                let common = area.intersection(&region.rect).area();
                common == area.area() && common * 2 >= region.rect.area()
            };
            if areas.iter().any(fits) {
                region.fitted = now;
            }
        }
        self.regions.retain(|region| now.duration_since(region.fitted) < KEPT);
        for area in areas {
            let taken = self.regions.iter().any(|region| !region.rect.intersection(&area).is_empty());
            if self.regions.len() < MOST_REGIONS && !taken && self.is_photographic(picture, area) {
                self.regions.push(Region { rect: area, generation: self.pictures, changed: now, fitted: now });
            }
        }
    }

    /// Bounds of each group of neighbouring tiles in sustained motion that fill them well, largest first.
    fn areas(&mut self, now: Instant) -> Vec<Rect> {
        let mut open = self.grid.clone();
        for (index, tile) in self.tiles.iter().enumerate() {
            let sustained = |(since, last): (Instant, Instant)| now - last <= GAP && last - since >= SUSTAINED;
            if tile.run.is_some_and(sustained) {
                open.insert_index(index);
            }
        }
        let mut areas = Vec::new();
        for first in open.clone().indices() {
            if !open.contains_index(first) {
                continue;
            }
            let (mut bounds, mut filled) = (Rect::default(), 0);
            let mut reached = vec![first];
            open.remove_index(first);
            while let Some(index) = reached.pop() {
                bounds = bounds.union(&self.tiles[index].bounds);
                filled += self.tiles[index].bounds.area();
                let (column, row) = self.grid.position(index);
                let sides = [
                    (column.wrapping_sub(1), row),
                    (column + 1, row),
                    (column, row.wrapping_sub(1)),
                    (column, row + 1),
                ];
                for (column, row) in sides {
                    let next = self.grid.index(column, row);
                    let inside = column < self.grid.columns() && row < self.grid.rows();
                    if inside && open.contains_index(next) && self.are_near(index, next) {
                        open.remove_index(next);
                        reached.push(next);
                    }
                }
            }
            let area = even(bounds, self.grid.size());
            let (long, short) = (area.width.max(area.height), area.width.min(area.height));
            let possible = long <= MOST_PIXELS.0 && short <= MOST_PIXELS.1;
            if area.area() >= LEAST_AREA && filled * 10 >= bounds.area() * 6 && possible {
                areas.push(area);
            }
        }
        areas.sort_by_key(|area| std::cmp::Reverse(area.area()));
        areas
    }

    /// Whether what changes in two tiles is one thing.
    fn are_near(&self, one: usize, other: usize) -> bool {
        let Rect { x, y, width, height } = self.tiles[one].bounds;
        let (left, top) = (x.saturating_sub(NEAR), y.saturating_sub(NEAR));
        let around = Rect { x: left, y: top, width: x - left + width + NEAR, height: y - top + height + NEAR };
        !around.intersection(&self.tiles[other].bounds).is_empty()
    }

    /// Whether most of some tiles have so many colours as only photographs have.
    fn is_photographic(&mut self, picture: &Picture, area: Rect) -> bool {
        let mut inside = TileSet::none(self.grid.size().0, self.grid.size().1);
        inside.insert_rect(area);
        let step = (inside.len() / SAMPLES).max(1);
        let (mut seen, mut colourful) = (0, 0);
        for index in inside.indices().step_by(step) {
            let part = inside.tile(index).intersection(&area);
            // At the edges few colours are there because few pixels are.
            if part.area() * 2 >= u64::from(SIDE * SIDE) {
                seen += 1;
                colourful += usize::from(!self.palette.count(picture, part, MANY_COLOURS));
            }
        }
        colourful * 2 > seen
    }
}

/// The smallest rectangle with even sides around `rect`; the largest inside the picture where that would not fit.
fn even(rect: Rect, (width, height): (u32, u32)) -> Rect {
    let (x, y) = (rect.x & !1, rect.y & !1);
    let side = |end: u32, start: u32, most: u32| ((end + 1) & !1).min(most & !1).saturating_sub(start);
    Rect { x, y, width: side(rect.right(), x, width), height: side(rect.bottom(), y, height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (1000, 701);
    const VIDEO: Rect = Rect { x: 101, y: 99, width: 500, height: 300 };

    fn noise(many: bool) -> Picture {
        let mut picture = Picture::black(SIZE.0, SIZE.1);
        for y in 0..SIZE.1 {
            for (x, pixel) in (0..).zip(picture.span_mut(0, y, SIZE.0)) {
                *pixel = (x * 31 + y * 977).wrapping_mul(0x9e37_79b1) >> 8;
                *pixel &= if many { 0xff_ffff } else { 0x010101 };
            }
        }
        picture
    }

    fn parts(rect: Rect) -> Vec<(usize, Rect)> {
        let mut tiles = TileSet::none(SIZE.0, SIZE.1);
        tiles.insert_rect(rect);
        tiles.indices().map(|index| (index, tiles.tile(index).intersection(&rect))).collect()
    }

    /// Changes `rect` every so often for some time and returns the time then.
    fn run(motion: &mut Motion, rect: Rect, picture: &Picture, from: Instant, every: u64, times: u32) -> Instant {
        let step = Duration::from_millis(every);
        (0..times).for_each(|nth| motion.note(picture, &parts(rect), from + step * nth));
        from + step * times
    }

    fn rects(motion: &Motion) -> Vec<Rect> {
        motion.regions().iter().map(|region| region.rect).collect()
    }

    #[test]
    fn what_changes_without_rest_becomes_a_region_of_exactly_that_area_made_even() {
        let mut motion = Motion::new(SIZE.0, SIZE.1);
        let (picture, now) = (noise(true), Instant::now());
        let now = run(&mut motion, VIDEO, &picture, now, 33, 15);
        assert_eq!(motion.regions(), [], "not yet after half a second");
        run(&mut motion, VIDEO, &picture, now, 33, 20);
        assert_eq!(rects(&motion), [Rect { x: 100, y: 98, width: 502, height: 302 }]);
        assert!(motion.regions()[0].generation > 0);
    }

    #[test]
    fn an_odd_picture_keeps_its_last_row_out() {
        let mut motion = Motion::new(SIZE.0, SIZE.1);
        let whole = Rect::of_size(SIZE.0, SIZE.1);
        run(&mut motion, whole, &noise(true), Instant::now(), 33, 40);
        assert_eq!(rects(&motion), [Rect::of_size(1000, 700)]);
    }

    #[test]
    fn text_slow_changes_small_areas_and_moves_are_no_regions() {
        let (now, small) = (Instant::now(), Rect { width: 120, height: 100, ..VIDEO });
        for (rect, many, every) in [(VIDEO, false, 33), (VIDEO, true, 300), (small, true, 33)] {
            let mut motion = Motion::new(SIZE.0, SIZE.1);
            run(&mut motion, rect, &noise(many), now, every, 60);
            assert_eq!(motion.regions(), [], "{rect:?} {many} {every}");
        }
        let mut motion = Motion::new(SIZE.0, SIZE.1);
        for nth in 0..60 {
            run(&mut motion, VIDEO, &noise(true), now + Duration::from_millis(33) * nth, 33, 1);
            motion.calm(&TileSet::all(SIZE.0, SIZE.1));
        }
        assert_eq!(motion.regions(), []);
    }

    #[test]
    fn a_region_outlives_a_short_rest_and_not_a_long_one() {
        let mut motion = Motion::new(SIZE.0, SIZE.1);
        let picture = noise(true);
        let now = run(&mut motion, VIDEO, &picture, Instant::now(), 33, 40);
        let corner = [(0, Rect::of_size(1, 1))];
        motion.note(&picture, &corner, now + Duration::from_secs(1));
        assert_eq!(motion.regions().len(), 1);
        assert!(motion.regions()[0].rests_at() < now + Duration::from_secs(1));
        motion.note(&picture, &corner, now + Duration::from_secs(3));
        assert_eq!(motion.regions(), []);
    }

    #[test]
    fn two_videos_are_two_regions() {
        let mut motion = Motion::new(SIZE.0, SIZE.1);
        let other = Rect { x: 700, y: 420, width: 280, height: 200 };
        let picture = noise(true);
        let now = Instant::now();
        for nth in 0..40 {
            let both = [parts(VIDEO), parts(other)].concat();
            motion.note(&picture, &both, now + Duration::from_millis(33) * nth);
        }
        assert_eq!(rects(&motion), [Rect { x: 100, y: 98, width: 502, height: 302 }, other]);
    }
}
