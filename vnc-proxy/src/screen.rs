//! What the machine's screen shows now: one picture, cursor and lamps, shared by all viewers.

use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Instant;

use tokio::sync::Notify;
use yunju_protocol::display::Rect;

use crate::film::Studio;
use crate::motion::{Motion, Region};
use crate::picture::Picture;
use crate::tiles::{SIDE, TileSet};

/// Size of the black picture that is shown before the machine has painted its first.
pub const FIRST_SIZE: (u32, u32) = (1280, 800);

/// The pointer's picture.
#[derive(Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Pixels a row; zero hides the pointer.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The pixel that points.
    pub hot: (u32, u32),
    /// Blue, green, red, premultiplied alpha.
    pub pixels: Vec<u8>,
}

/// What the machine's screen shows now.
///
/// The surface writes, viewers read. No lock is held while anything waits or encodes.
#[derive(Debug)]
pub struct Screen {
    picture: RwLock<Picture>,
    cursor: Mutex<Option<Arc<Cursor>>>,
    leds: Mutex<u8>,
    watches: Mutex<Vec<Arc<Watch>>>,
    motion: Mutex<Motion>,
    studio: Studio,
}

/// One viewer's view of what has changed since it last looked.
#[derive(Debug)]
pub struct Watch {
    damage: Mutex<TileSet>,
    bell: Notify,
}

const LOCK: &str = "no holder of a screen's lock panics";

impl Default for Screen {
    fn default() -> Self {
        Self {
            picture: RwLock::new(Picture::black(FIRST_SIZE.0, FIRST_SIZE.1)),
            cursor: Mutex::default(),
            leds: Mutex::default(),
            watches: Mutex::default(),
            motion: Mutex::new(Motion::new(FIRST_SIZE.0, FIRST_SIZE.1)),
            studio: Studio::default(),
        }
    }
}

impl Screen {
    /// The present picture. Hold it shortly: the machine's next frame waits.
    pub fn picture(&self) -> RwLockReadGuard<'_, Picture> {
        self.picture.read().expect(LOCK)
    }

    /// The pointer's picture, if the machine has given one.
    pub fn cursor(&self) -> Option<Arc<Cursor>> {
        self.cursor.lock().expect(LOCK).clone()
    }

    /// The keyboard's lamps: bit 0 scroll lock, bit 1 num lock, bit 2 caps lock.
    pub fn leds(&self) -> u8 {
        *self.leds.lock().expect(LOCK)
    }

    /// Shows a picture of the given size. Only `damage` may differ from the present one, unless the size does.
    /// `read_row(x, y, pixels)` reads pixels of the new picture; those it cannot read stay as they are.
    pub fn show(&self, size: (u32, u32), damage: Rect, read_row: impl FnMut(u32, u32, &mut [u32]) -> bool) {
        self.show_at(Instant::now(), size, damage, read_row);
    }

    /// As [`Screen::show`], at a time of the caller's choice.
    pub fn show_at(
        &self,
        now: Instant,
        size: (u32, u32),
        damage: Rect,
        mut read_row: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        let mut picture = self.picture.write().expect(LOCK);
        let resized = picture.size() != size;
        if resized {
            *picture = Picture::black(size.0, size.1);
        }
        let damage = if resized { picture.bounds() } else { damage.intersection(&picture.bounds()) };
        let parts = absorb(&mut picture, damage, &mut read_row);
        let mut changed = TileSet::none(size.0, size.1);
        if resized {
            changed = TileSet::all(size.0, size.1);
            self.motion().resize(size.0, size.1);
        } else if !parts.is_empty() {
            parts.iter().for_each(|(index, _)| changed.insert_index(*index));
            self.motion().note(&picture, &parts, now);
        }
        // Still under the picture's lock: neither a watch nor a region speaks of another picture than this.
        self.announce(&changed);
    }

    /// The areas in sustained motion.
    pub fn regions(&self) -> Vec<Region> {
        self.motion().regions().to_vec()
    }

    /// The region in motion that is exactly this area.
    pub fn region(&self, rect: Rect) -> Option<Region> {
        self.motion().regions().iter().copied().find(|region| region.rect == rect)
    }

    /// These tiles are known to move as a whole, as a scrolled text does: that is no video.
    pub fn calm(&self, tiles: &TileSet) {
        self.motion().calm(tiles);
    }

    /// Where areas in motion are coded.
    pub fn studio(&self) -> &Studio {
        &self.studio
    }

    /// Shows black.
    pub fn blank(&self) {
        let size = self.picture().size();
        self.show(size, Rect::of_size(size.0, size.1), |_, _, row| {
            row.fill(0);
            true
        });
    }

    /// Changes the pointer's picture.
    pub fn set_cursor(&self, cursor: Option<Cursor>) {
        *self.cursor.lock().expect(LOCK) = cursor.map(Arc::new);
        self.ring();
    }

    /// Changes the keyboard's lamps.
    pub fn set_leds(&self, lit: u8) {
        *self.leds.lock().expect(LOCK) = lit;
        self.ring();
    }

    /// Starts to note changes for a viewer, until the watch is given to [`Screen::unwatch`].
    pub fn watch(&self) -> Arc<Watch> {
        let picture = self.picture();
        let damage = TileSet::none(picture.width(), picture.height());
        let watch = Arc::new(Watch { damage: Mutex::new(damage), bell: Notify::new() });
        self.watches().push(watch.clone());
        watch
    }

    /// Ends a watch.
    pub fn unwatch(&self, watch: &Arc<Watch>) {
        self.watches().retain(|other| !Arc::ptr_eq(other, watch));
    }

    fn announce(&self, changed: &TileSet) {
        for watch in self.watches().iter() {
            let mut damage = watch.damage.lock().expect(LOCK);
            if !changed.is_empty() || damage.size() != changed.size() {
                damage.merge(changed);
                watch.bell.notify_one();
            }
        }
    }

    fn ring(&self) {
        self.watches().iter().for_each(|watch| watch.bell.notify_one());
    }

    fn motion(&self) -> MutexGuard<'_, Motion> {
        self.motion.lock().expect(LOCK)
    }

    fn watches(&self) -> MutexGuard<'_, Vec<Arc<Watch>>> {
        self.watches.lock().expect(LOCK)
    }
}

impl Watch {
    /// What has changed; the holder may take from it.
    pub fn damage(&self) -> MutexGuard<'_, TileSet> {
        self.damage.lock().expect(LOCK)
    }

    /// Waits until something may have changed since the last wait.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }

    /// Wakes who waits in [`Watch::changed`].
    pub fn ring(&self) {
        self.bell.notify_one();
    }
}

/// Takes over what differs inside `damage` and returns the tiles that do, by number, and the part that does of each.
fn absorb(
    picture: &mut Picture,
    damage: Rect,
    read_row: &mut impl FnMut(u32, u32, &mut [u32]) -> bool,
) -> Vec<(usize, Rect)> {
    // One without pixels may lie outside of the picture.
    if damage.is_empty() {
        return Vec::new();
    }
    let columns = picture.width().div_ceil(SIDE);
    let mut parts = Vec::new();
    let mut fresh = vec![0; damage.width as usize];
    // What has changed in the present row of tiles.
    let mut row = vec![Rect::default(); columns as usize];
    for y in damage.y..damage.bottom() {
        if read_row(damage.x, y, &mut fresh) {
            absorb_row(picture, (damage.x, y), &fresh, &mut row);
        }
        if (y + 1) % SIDE == 0 || y + 1 == damage.bottom() {
            let first = (y / SIDE * columns) as usize;
            let changed = row.iter_mut().enumerate().filter(|(_, part)| !part.is_empty());
            parts.extend(changed.map(|(column, part)| (first + column, std::mem::take(part))));
        }
    }
    parts
}

/// Takes over one row from (x, y) on; `parts` are those of each tile in this row of tiles that have changed.
fn absorb_row(picture: &mut Picture, (x, y): (u32, u32), fresh: &[u32], parts: &mut [Rect]) {
    let shadow = picture.span_mut(x, y, fresh.len() as u32);
    let mut start = 0;
    while start < fresh.len() {
        let column = (x + start as u32) / SIDE;
        let end = fresh.len().min(((column + 1) * SIDE - x) as usize);
        let (mine, theirs) = (&mut shadow[start..end], &fresh[start..end]);
        if mine != theirs {
            let differs = |at: &usize| mine[*at] != theirs[*at];
            let first = (0..mine.len()).find(differs).unwrap_or(0);
            let last = (0..mine.len()).rev().find(differs).unwrap_or(first);
            let part = Rect { x: x + (start + first) as u32, y, width: (last - first) as u32 + 1, height: 1 };
            let known = &mut parts[column as usize];
            *known = known.union(&part);
            mine.copy_from_slice(theirs);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Rect = Rect::of_size(FIRST_SIZE.0, FIRST_SIZE.1);

    fn paint(screen: &Screen, damage: Rect, pixel: impl Fn(u32, u32) -> u32) {
        let size = screen.picture().size();
        screen.show(size, damage, |x, y, row| {
            row.iter_mut().zip(x..).for_each(|(out, x)| *out = pixel(x, y));
            true
        });
    }

    #[test]
    fn false_damage_reaches_no_viewer() {
        let screen = Screen::default();
        let watch = screen.watch();
        paint(&screen, WHOLE, |_, _| 0);
        assert!(watch.damage().is_empty());
    }

    #[test]
    fn only_tiles_that_differ_are_damaged() {
        let screen = Screen::default();
        let watch = screen.watch();
        paint(&screen, WHOLE, |x, y| u32::from((x, y) == (64, 127)));
        let damage = watch.damage();
        assert_eq!(damage.indices().map(|index| damage.position(index)).collect::<Vec<_>>(), [(1, 1)]);
    }

    #[test]
    fn what_lies_outside_the_damage_is_not_read() {
        let screen = Screen::default();
        let damage = Rect { x: 10, y: 20, width: 5, height: 6 };
        paint(&screen, damage, |x, y| {
            assert!((10..15).contains(&x) && (20..26).contains(&y));
            7
        });
        assert_eq!(screen.picture().span(9, 20, 7), [0, 7, 7, 7, 7, 7, 0]);
    }

    #[test]
    fn damage_beyond_the_picture_is_none() {
        let screen = Screen::default();
        screen.show((2, 2), Rect::default(), |_, _, _| true);
        for damage in [Rect { x: 64, y: 0, width: 9, height: 2 }, Rect { x: 1, y: 0, width: 0, height: 2 }] {
            screen.show((2, 2), damage, |_, _, _| true);
        }
        assert_eq!(screen.picture().span(0, 0, 2), [0, 0]);
    }

    #[test]
    fn another_size_damages_everything() {
        let screen = Screen::default();
        let watch = screen.watch();
        screen.show((100, 70), Rect::default(), |_, _, _| false);
        assert_eq!(*watch.damage(), TileSet::all(100, 70));
    }

    #[test]
    fn an_ended_watch_is_forgotten() {
        let screen = Screen::default();
        let watch = screen.watch();
        screen.unwatch(&watch);
        paint(&screen, WHOLE, |_, _| 1);
        assert!(watch.damage().is_empty());
    }
}
