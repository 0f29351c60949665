//! From the screen's picture to the rectangles of an update.

mod capture;
pub mod classify;
pub mod cursor;
pub mod drag;
pub mod h264;
pub mod jpeg;
pub mod moves;
pub mod palette;
pub mod raw;
pub mod scroll;
pub mod tight;
pub mod zlib;
pub mod zrle;

use std::time::{Duration, Instant};

use yunju_protocol::display::Rect;

use self::capture::{merge, outside, take_over};
use self::classify::{Kind, classify};
use self::h264::Grade;
use self::moves::{Finder, Move};
use self::palette::Palette;
use self::tight::Tight;
use self::zrle::Zrle;
use crate::film::{Seats, Showing};
use crate::picture::{Picture, UNKNOWN};
use crate::rfb::encodings::{self, Abilities, Encoding};
use crate::rfb::outgoing::Update;
use crate::rfb::pixel::{PixelFormat, Writer};
use crate::screen::Screen;
use crate::tiles::{SIDE, TileSet};

/// How long a part sent with loss must have been still before it is sent again without.
pub const STILL: Duration = Duration::from_millis(200);

/// Most tiles that are sent again without loss in one update, so that what changes next need not wait long.
const MOST_REFRESHED: usize = 64;

/// Bytes of a tile sent without loss, as long as none was.
const COST_OF_TILE: usize = 6000;

/// The viewer must forget all that it has decoded of this area's film, or of all.
const FORGET_THIS: u32 = 1;
const FORGET_ALL: u32 = 2;

/// What a viewer's link bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an update after which the rest waits for the next.
    pub bytes: usize,
    /// How much must be saved.
    pub thrift: Thrift,
}

/// How much must be saved on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thrift {
    /// Nothing.
    None,
    /// Some.
    Some,
    /// As much as can be.
    Much,
}

impl Limits {
    /// Of a link that bears anything.
    pub const NONE: Self = Self { bytes: usize::MAX, thrift: Thrift::None };

    /// The quality of JPEG that is borne, at most as wished.
    fn quality(self, wished: u8) -> u8 {
        match self.thrift {
            Thrift::None => wished,
            Thrift::Some => wished.min(4),
            Thrift::Much => wished.min(2),
        }
    }

    /// The quality of video that is borne, at most as wished.
    fn grade(self, wished: Option<u8>) -> Grade {
        match (self.thrift, wished) {
            (Thrift::None, Some(8..)) => Grade::Sharp,
            (Thrift::None, Some(0..3)) | (Thrift::Some, _) => Grade::Soft,
            (Thrift::None, _) => Grade::Good,
            (Thrift::Much, _) => Grade::Coarse,
        }
    }
}

/// One viewer's picture and the state of its encodings.
pub struct Encoder {
    /// What the viewer has, where it is exact; [`UNKNOWN`] where nobody knows. Hollow while that is everywhere, as during a
    /// film of the whole screen.
    has: Picture,
    /// Tiles of which the viewer has nothing that counts.
    missing: TileSet,
    /// Tiles among them that had to wait for others already.
    late: TileSet,
    /// Tiles whose pixels are all [`UNKNOWN`].
    blank: TileSet,
    /// When each tile was sent with loss, if what the viewer has of it is not exact.
    lossy: Vec<Option<Instant>>,
    limits: Limits,
    cost_of_tile: usize,
    finder: Finder,
    seats: Seats,
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
            has: Picture::unknown(width, height),
            lossy: vec![None; missing.capacity()],
            blank: missing.clone(),
            late: TileSet::none(width, height),
            missing,
            limits: Limits::NONE,
            cost_of_tile: COST_OF_TILE,
            finder: Finder::default(),
            seats: Seats::default(),
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
        self.has = Picture::unknown(width, height);
        self.missing = TileSet::all(width, height);
        self.blank = self.missing.clone();
        self.late = TileSet::none(width, height);
        self.lossy = vec![None; self.missing.capacity()];
        self.seats.clear();
    }

    /// Pixels are sent in this format from now on.
    pub fn set_format(&mut self, format: PixelFormat) {
        if format != self.pixels.format() {
            self.pixels = Writer::new(format);
        }
    }

    /// The viewer's link bears so much from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The viewer says that it has nothing of this area.
    pub fn forget(&mut self, area: Rect) {
        let mut tiles = TileSet::none(self.has.width(), self.has.height());
        tiles.insert_rect(area);
        tiles.indices().for_each(|index| self.lose(index));
    }

    /// When the earliest tile that was sent with loss will have been still for long enough.
    pub fn refresh_at(&self, screen: &Screen) -> Option<Instant> {
        let due = |(index, sent): (usize, &Option<Instant>)| sent.map(|sent| (index, sent + STILL));
        let mut due = self.lossy.iter().enumerate().filter_map(due).peekable();
        due.peek()?;
        let regions = screen.regions();
        let rests = |index| regions.iter().filter(move |region| self.touches(index, region.rect));
        let at = |(index, due): (usize, Instant)| rests(index).map(|region| region.rests_at()).fold(due, Instant::max);
        due.map(at).min()
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
        now: Instant,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        damaged.merge(&self.missing.within(area));
        let showings = self.show(screen, &damaged, area, abilities, now);
        let films: Vec<Rect> = showings.iter().map(|showing| showing.rect).collect();
        self.add(screen, damaged, &films, abilities, Some(now), update)?;
        showings.into_iter().filter(|showing| !showing.reel.is_empty()).for_each(|of| self.project(&of, now, update));
        Ok(())
    }

    /// Adds to an update, exactly, some of what was sent with loss and has been still.
    pub fn refresh(
        &mut self,
        screen: &Screen,
        abilities: &Abilities,
        now: Instant,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        let regions = screen.regions();
        let rests = |index| !regions.iter().any(|of| of.rests_at() > now && self.touches(index, of.rect));
        let due =
            |(index, sent): &(usize, &Option<Instant>)| sent.is_some_and(|sent| sent + STILL <= now) && rests(*index);
        let most = (self.limits.bytes / self.cost_of_tile.max(1)).clamp(1, MOST_REFRESHED);
        let still: Vec<usize> = self.lossy.iter().enumerate().filter(due).map(|(index, _)| index).take(most).collect();
        let mut tiles = TileSet::none(self.has.width(), self.has.height());
        for index in &still {
            tiles.insert_index(*index);
            self.missing.insert_index(*index);
        }
        let before = update.bytes();
        self.add(screen, tiles, &[], abilities, None, update)?;
        if let Some(cost) = (update.bytes() - before).checked_div(still.len()) {
            self.cost_of_tile = (self.cost_of_tile + cost).div_ceil(2);
        }
        Ok(())
    }

    /// `lossy`: the present time, if loss is allowed.
    fn add(
        &mut self,
        screen: &Screen,
        tiles: TileSet,
        films: &[Rect],
        abilities: &Abilities,
        lossy: Option<Instant>,
        update: &mut Update<'_>,
    ) -> Result<(), Resized> {
        self.tight.set_level(abilities.compression);
        self.zrle.set_level(abilities.compression);
        let changed = self.capture(screen, tiles, films, abilities.copy_rect, update)?;
        match abilities.encoding {
            Encoding::Raw | Encoding::Zrle => {
                for (range, rect, ()) in merge(&self.missing, &changed, |_, _| (), |()| (16, 4)) {
                    if abilities.encoding == Encoding::Raw {
                        raw::encode(&self.has, rect, &self.pixels, update.rect(rect, encodings::RAW));
                    } else {
                        self.zrle.encode(&self.has, rect, &self.pixels, update.rect(rect, encodings::ZRLE));
                    }
                    self.note(range, rect, None);
                }
            }
            Encoding::Tight => {
                let quality = abilities.quality.filter(|_| self.pixels.format().is_full_colour());
                let lossy = lossy.map(|now| (now, quality.map(|wished| self.limits.quality(wished))));
                self.encode_tight(&changed, lossy, update);
            }
        }
        Ok(())
    }

    /// What is small and new goes first; what exceeds the limit waits for the next update. `lossy`: the present time
    /// and the quality of JPEG, if loss is allowed; all is sent if it is not.
    fn encode_tight(
        &mut self,
        changed: &[Option<Rect>],
        lossy: Option<(Instant, Option<u8>)>,
        update: &mut Update<'_>,
    ) {
        let (has, palette) = (&self.has, &mut self.palette);
        let kind = |_, rect: Rect| classify(has, rect, palette);
        let mut parts = merge(&self.missing, changed, kind, Kind::limit);
        let waited = |range: Rect| self.late.contains(range.x, range.y);
        parts.sort_by_key(|(range, _, kind)| (waited(*range), matches!(kind, Kind::Photo | Kind::Mixed)));
        let start = update.bytes();
        for (range, rect, kind) in parts {
            if !update.is_heard() {
                return;
            }
            if lossy.is_some() && update.bytes() - start >= self.limits.bytes {
                self.put_off(range);
                continue;
            }
            let quality = lossy.and_then(|(_, quality)| quality).filter(|_| kind == Kind::Photo);
            let out = update.rect(rect, encodings::TIGHT);
            let jpeg = self.tight.encode(&self.has, rect, &self.pixels, quality, out);
            self.note(range, rect, lossy.map(|(now, _)| now).filter(|_| jpeg));
        }
    }

    /// Leaves a range of tiles to a later update.
    fn put_off(&mut self, range: Rect) {
        for row in range.y..range.bottom() {
            for column in range.x..range.right() {
                self.lose(self.missing.index(column, row));
                self.late.insert(column, row);
            }
        }
    }

    /// The viewer has nothing that counts of this tile.
    fn lose(&mut self, index: usize) {
        self.missing.insert_index(index);
        self.blank.insert_index(index);
        if !self.has.is_hollow() {
            self.has.fill(self.missing.tile(index), UNKNOWN);
        }
    }

    /// Notes for a range of tiles, of which `rect` was sent, when it was sent with loss, or that it was not.
    fn note(&mut self, range: Rect, rect: Rect, lossy: Option<Instant>) {
        for row in range.y..range.bottom() {
            for column in range.x..range.right() {
                let index = self.missing.index(column, row);
                let tile = self.missing.tile(index);
                let whole = rect.intersection(&tile) == tile;
                // What was not sent is as inexact as it was.
                self.lossy[index] = if whole { lossy } else { lossy.or(self.lossy[index]) };
                self.late.remove_index(index);
                self.blank.remove_index(index);
            }
        }
    }

    fn touches(&self, index: usize, rect: Rect) -> bool {
        !self.missing.tile(index).intersection(&rect).is_empty()
    }

    /// Takes over what differs on the screen, outside of the areas of films: as moves, which are added to the update,
    /// and for the rest as the part of each tile that must be sent.
    fn capture(
        &mut self,
        screen: &Screen,
        mut tiles: TileSet,
        films: &[Rect],
        moves: bool,
        update: &mut Update<'_>,
    ) -> Result<Vec<Option<Rect>>, Resized> {
        let picture = screen.picture();
        if picture.size() != self.has.size() {
            return Err(Resized);
        }
        let filmed = |tile: Rect| films.iter().any(|film| film.intersection(&tile) == tile);
        for index in tiles.clone().indices().filter(|index| filmed(tiles.tile(*index))).collect::<Vec<_>>() {
            tiles.remove_index(index);
            self.missing.remove_index(index);
            self.late.remove_index(index);
        }
        if self.has.is_hollow() && !tiles.is_empty() {
            self.has = Picture::unknown(picture.width(), picture.height());
        }
        if moves && !tiles.is_empty() {
            for of in self.finder.find(&self.has, &picture, &tiles) {
                let reached = self.copy(of, update);
                screen.calm(&reached);
                tiles.merge(&reached);
            }
        }
        let mut changed = vec![None; tiles.capacity()];
        for index in tiles.indices() {
            let tile = tiles.tile(index);
            let mut differs = Rect::default();
            for part in outside(tile, films) {
                differs = differs.union(&take_over(&mut self.has, &picture, part).unwrap_or_default());
            }
            let missing = self.missing.contains_index(index);
            self.missing.remove_index(index);
            if missing {
                take_over(&mut self.has, &picture, tile);
                differs = tile;
            }
            changed[index] = Some(differs).filter(|differs| !differs.is_empty());
        }
        Ok(changed)
    }

    /// Adds a move and returns the tiles that it reaches.
    fn copy(&mut self, of: Move, update: &mut Update<'_>) -> TileSet {
        let from = of.from();
        let out = update.rect(of.to, encodings::COPY_RECT);
        out.extend((from.x as u16).to_be_bytes());
        out.extend((from.y as u16).to_be_bytes());
        self.has.shift(of.to, of.dx, of.dy);
        let touched = |rect: Rect| {
            let mut touched = TileSet::none(self.has.width(), self.has.height());
            touched.insert_rect(rect);
            touched
        };
        let inexact = touched(from).indices().filter_map(|index| self.lossy[index]).max();
        let reached = touched(of.to);
        for index in reached.indices() {
            self.blank.remove_index(index);
            self.lossy[index] = inexact.or(self.lossy[index]);
        }
        reached
    }

    /// What there is to be sent of films that are damaged and lie inside `area`.
    fn show(
        &mut self,
        screen: &Screen,
        damaged: &TileSet,
        area: Rect,
        abilities: &Abilities,
        now: Instant,
    ) -> Vec<Showing> {
        let possible = h264::AVAILABLE && abilities.h264 && self.pixels.format().is_full_colour();
        if !possible || damaged.size() != self.size() {
            self.seats.clear();
            return Vec::new();
        }
        let grade = self.limits.grade(abilities.quality);
        let wanted = |rect: Rect| area.intersection(&rect) == rect && damaged.touches(rect);
        self.seats.show(screen, &screen.regions(), wanted, grade, now)
    }

    fn project(&mut self, showing: &Showing, now: Instant, update: &mut Update<'_>) {
        let out = update.rect(showing.rect, encodings::H264);
        let flags = match (showing.reel.anew, showing.alone) {
            (false, _) => 0,
            (true, false) => FORGET_THIS,
            (true, true) => FORGET_ALL,
        };
        out.extend((showing.reel.len() as u32).to_be_bytes());
        out.extend(flags.to_be_bytes());
        showing.reel.write(out);
        let mut tiles = TileSet::none(self.has.width(), self.has.height());
        tiles.insert_rect(showing.rect);
        for index in tiles.indices() {
            self.lossy[index] = Some(now);
            let (tile, filmed) = (tiles.tile(index), tiles.tile(index).intersection(&showing.rect));
            if !self.blank.contains_index(index) {
                self.has.fill(filmed, UNKNOWN);
            }
            if filmed == tile {
                self.blank.insert_index(index);
            }
        }
        if self.blank.len() == self.blank.capacity() && !self.has.is_hollow() {
            self.has = Picture::hollow(self.has.width(), self.has.height());
        }
    }
}

const _: () = assert!(SIDE * 4 * SIDE * 4 <= 1 << 16, "rectangles of Tight stay short");
