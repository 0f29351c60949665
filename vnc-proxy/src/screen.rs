//! What the machine's screen shows now: one picture, cursor and lamps, shared by all viewers.

use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use tokio::sync::Notify;
use yunju_protocol::display::Rect;

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
    pub fn show(&self, size: (u32, u32), damage: Rect, mut read_row: impl FnMut(u32, u32, &mut [u32]) -> bool) {
        let mut picture = self.picture.write().expect(LOCK);
        let resized = picture.size() != size;
        if resized {
            *picture = Picture::black(size.0, size.1);
        }
        let damage = if resized { picture.bounds() } else { damage.intersection(&picture.bounds()) };
        let mut changed = absorb(&mut picture, damage, &mut read_row);
        if resized {
            changed = TileSet::all(size.0, size.1);
        }
        // Still under the picture's lock: a watch never speaks of another size than the picture's.
        self.announce(&changed);
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

/// Takes over what differs inside `damage` and returns the tiles that do.
fn absorb(picture: &mut Picture, damage: Rect, read_row: &mut impl FnMut(u32, u32, &mut [u32]) -> bool) -> TileSet {
    let mut changed = TileSet::none(picture.width(), picture.height());
    let mut fresh = vec![0; damage.width as usize];
    for y in damage.y..damage.bottom() {
        if !read_row(damage.x, y, &mut fresh) {
            continue;
        }
        let shadow = picture.span_mut(damage.x, y, damage.width);
        let mut start = 0;
        while start < fresh.len() {
            let column = (damage.x + start as u32) / SIDE;
            let end = fresh.len().min(((column + 1) * SIDE - damage.x) as usize);
            if shadow[start..end] != fresh[start..end] {
                shadow[start..end].copy_from_slice(&fresh[start..end]);
                changed.insert(column, y / SIDE);
            }
            start = end;
        }
    }
    changed
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
