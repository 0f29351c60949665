//! From the screen's picture to the rectangles of an update.

pub mod classify;
pub mod cursor;
pub mod jpeg;
pub mod palette;
pub mod raw;
pub mod scroll;
pub mod tight;
pub mod zlib;
pub mod zrle;

use std::time::{Duration, Instant};

use yunju_protocol::display::Rect;

use self::classify::{Kind, classify};
use self::palette::Palette;
use self::tight::Tight;
use self::zrle::Zrle;
use crate::picture::Picture;
use crate::rfb::encodings::{self, Abilities, Encoding};
use crate::rfb::outgoing::Update;
use crate::rfb::pixel::{PixelFormat, Writer};
use crate::screen::Screen;
use crate::tiles::{SIDE, TileSet, join};

/// How long a part sent as JPEG must have been still before it is sent again without loss.
pub const STILL: Duration = Duration::from_millis(200);

/// Most tiles that are sent again without loss in one update, so that what changes next need not wait long.
const MOST_REFRESHED: usize = 64;

/// One viewer's picture and the state of its encodings.
pub struct Encoder {
    /// What the viewer has, where it is exact.
    has: Picture,
    /// Tiles of which the viewer has nothing.
    missing: TileSet,
    /// When each tile was sent with loss, if what the viewer has of it is not exact.
    lossy: Vec<Option<Instant>>,
    pixels: Writer,
    palette: Palette,
    tight: Tight,
    zrle: Zrle,
}

/// The screen has another size than the viewer.
#[derive(Debug, PartialEq, Eq)]
pub struct Resized;

impl Encoder {
    /// For a viewer that has been told this size and has no pixels yet.
    pub fn new(width: u32, height: u32) -> Self {
        let missing = TileSet::all(width, height);
        Self {
            has: Picture::black(width, height),
            lossy: vec![None; missing.capacity()],
            missing,
            pixels: Writer::new(PixelFormat::BGRX),
            palette: Palette::default(),
            tight: Tight::default(),
            zrle: Zrle::default(),
        }
    }

    /// The size that the viewer has been told.
    pub fn size(&self) -> (u32, u32) {
        self.has.size()
    }

    /// The viewer has been told another size.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.has = Picture::black(width, height);
        self.missing = TileSet::all(width, height);
        self.lossy = vec![None; self.missing.capacity()];
    }

    /// Pixels are sent in this format from now on.
    pub fn set_format(&mut self, format: PixelFormat) {
        if format != self.pixels.format() {
            self.pixels = Writer::new(format);
        }
    }

    /// The viewer says that it has nothing of this area.
    pub fn forget(&mut self, area: Rect) {
        self.missing.insert_rect(area);
    }

    /// When the earliest tile that was sent with loss will have been still for long enough.
    pub fn refresh_at(&self) -> Option<Instant> {
        self.lossy.iter().flatten().min().map(|sent| *sent + STILL)
    }

    /// The viewer's pixel writer.
    pub fn pixels(&self) -> &Writer {
        &self.pixels
    }

    /// Whether the viewer has nothing of some tile in this area.
    pub fn misses(&self, area: Rect) -> bool {
        self.missing.touches(area)
    }

    /// Adds to an update what the viewer has not of `damaged` tiles, and what it has nothing of inside `area`. Tiles
    /// in which nothing differs cost nothing.
    pub fn encode(
        &mut self,
        screen: &Screen,
        mut damaged: TileSet,
        area: Rect,
        abilities: &Abilities,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        damaged.merge(&self.missing.within(area));
        self.add(screen, damaged, abilities, false, update)
    }

    /// Adds to an update, exactly, some of what was sent with loss and has been still.
    pub fn refresh(
        &mut self,
        screen: &Screen,
        abilities: &Abilities,
        now: Instant,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        let mut tiles = TileSet::none(self.has.width(), self.has.height());
        let due = |sent: &Option<Instant>| sent.is_some_and(|sent| sent + STILL <= now);
        let still = self.lossy.iter().enumerate().filter(|(_, sent)| due(sent)).map(|(index, _)| index);
        still.take(MOST_REFRESHED).for_each(|index| tiles.insert_index(index));
        self.missing.merge(&tiles);
        self.add(screen, tiles, abilities, true, update)
    }

    fn add(
        &mut self,
        screen: &Screen,
        tiles: TileSet,
        abilities: &Abilities,
        exact: bool,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        self.tight.set_level(abilities.compression);
        self.zrle.set_level(abilities.compression);
        let changed = self.capture(screen, tiles, abilities.copy_rect, update)?;
        match abilities.encoding {
            Encoding::Raw | Encoding::Zrle => {
                for (range, rect, ()) in merge(&self.missing, &changed, |_, _| (), |()| (16, 4)) {
                    if abilities.encoding == Encoding::Raw {
                        raw::encode(&self.has, rect, &self.pixels, update.rect(rect, encodings::RAW));
                    } else {
                        self.zrle.encode(&self.has, rect, &self.pixels, update.rect(rect, encodings::ZRLE));
                    }
                    self.note(range, None);
                }
            }
            Encoding::Tight => self.encode_tight(&changed, abilities.quality.filter(|_| !exact), update),
        }
        Ok(())
    }

    fn encode_tight(&mut self, changed: &[Option<Rect>], quality: Option<u8>, update: &mut Update<'_>) {
        let quality = quality.filter(|_| self.pixels.format().is_full_colour());
        let (has, palette) = (&self.has, &mut self.palette);
        let kind = |_, rect: Rect| classify(has, rect, palette);
        let now = Instant::now();
        for (range, rect, kind) in merge(&self.missing, changed, kind, Kind::limit) {
            if !update.is_heard() {
                return;
            }
            let quality = quality.filter(|_| kind == Kind::Photo);
            let out = update.rect(rect, encodings::TIGHT);
            let lossy = self.tight.encode(&self.has, rect, &self.pixels, quality, out);
            self.note(range, lossy.then_some(now));
        }
    }

    /// Notes for a range of tiles when they were sent with loss, or that they were not.
    fn note(&mut self, range: Rect, lossy: Option<Instant>) {
        for row in range.y..range.bottom() {
            for column in range.x..range.right() {
                self.lossy[self.missing.index(column, row)] = lossy;
            }
        }
    }

    /// Takes over what differs on the screen: as moves, which are added to the update, and for the rest as the
    /// part of each tile that must be sent.
    fn capture(
        &mut self,
        screen: &Screen,
        mut tiles: TileSet,
        moves: bool,
        update: &mut Update<'_>,
    ) -> Result<Vec<Option<Rect>>, Resized> {
        let picture = screen.picture();
        if picture.size() != self.has.size() {
            return Err(Resized);
        }
        if moves && self.missing.is_empty() {
            for of in scroll::detect(&self.has, &picture, &tiles) {
                self.copy(of, &mut tiles, update);
            }
        }
        let mut changed = vec![None; tiles.capacity()];
        for index in tiles.indices() {
            let tile = tiles.tile(index);
            let differs = take_over(&mut self.has, &picture, tile);
            let missing = self.missing.contains_index(index);
            self.missing.remove_index(index);
            // What was sent with loss is sent whole, so that it is either exact or not.
            let whole = missing || differs.is_some() && self.lossy[index].is_some();
            changed[index] = if whole { Some(tile) } else { differs };
        }
        Ok(changed)
    }

    fn copy(&mut self, of: scroll::Move, tiles: &mut TileSet, update: &mut Update<'_>) {
        let from = Rect { y: of.to.y.saturating_add_signed(-of.dy), ..of.to };
        let out = update.rect(of.to, encodings::COPY_RECT);
        out.extend((from.x as u16).to_be_bytes());
        out.extend((from.y as u16).to_be_bytes());
        self.has.shift(of.to, of.dy);
        let touched = |rect: Rect| {
            let mut touched = TileSet::none(tiles.size().0, tiles.size().1);
            touched.insert_rect(rect);
            touched
        };
        let inexact = touched(from).indices().filter_map(|index| self.lossy[index]).max();
        if let Some(sent) = inexact {
            touched(of.to).indices().for_each(|index| self.lossy[index] = Some(sent));
        }
        tiles.merge(&touched(of.to));
    }
}

/// Makes a tile of `has` equal to `picture` and returns the smallest rectangle that holds all differences.
fn take_over(has: &mut Picture, picture: &Picture, tile: Rect) -> Option<Rect> {
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
fn merge<K: PartialEq + Copy>(
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

const _: () = assert!(SIDE * 4 * SIDE * 4 <= 1 << 16, "rectangles of Tight stay short");
