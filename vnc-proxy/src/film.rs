//! Areas in motion as H.264, coded once for all viewers that are in step.
//!
//! A film is one area in one grade. Viewers take its coded pictures at their own pace: one that comes late is given
//! all that it lacks at once, since each picture is told in terms of the one before. Who cannot follow, or comes anew,
//! waits for the next picture that stands for itself and is sent its pixels otherwise until then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use yunju_protocol::display::Rect;

use crate::encode::h264::{Codec, Coded, Grade, Planes};
use crate::motion::Region;
use crate::screen::Screen;

/// Coded pictures that are kept for viewers that come late.
const MOST_KEPT: usize = 12;
/// Bytes of coded pictures that are kept, the newest picture apart.
const MOST_BYTES: usize = 1 << 20;
/// Key pictures are large: for those who wait for one, no more often than this.
const KEYS_APART: Duration = Duration::from_secs(1);

/// All films of one screen.
#[derive(Debug, Default)]
pub struct Studio(Mutex<Vec<Weak<Film>>>);

/// One area in motion, in one grade.
pub struct Film {
    rect: Rect,
    grade: Grade,
    state: Mutex<State>,
}

impl std::fmt::Debug for Film {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Film").field("rect", &self.rect).field("grade", &self.grade).finish_non_exhaustive()
    }
}

struct State {
    codec: Option<Codec>,
    planes: Planes,
    reel: VecDeque<Arc<Picture>>,
    /// The next picture's number.
    next: u64,
    /// What the newest picture shows.
    shown: Option<u64>,
    wanted: bool,
    key_at: Option<Instant>,
}

struct Picture {
    number: u64,
    coded: Coded,
}

/// What a viewer is to be sent of a film.
#[derive(Default)]
pub struct Reel {
    pictures: Vec<Arc<Picture>>,
    /// The viewer must forget what it had decoded before.
    pub anew: bool,
}

impl Reel {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// Number of the newest picture.
    pub fn last(&self) -> Option<u64> {
        self.pictures.last().map(|picture| picture.number)
    }

    /// Bytes of all pictures.
    pub fn len(&self) -> usize {
        self.pictures.iter().map(|picture| picture.coded.bytes.len()).sum()
    }

    /// Appends the coded pictures.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.pictures.iter().for_each(|picture| out.extend_from_slice(&picture.coded.bytes));
    }
}

impl Studio {
    /// The film of an area in a grade; begun if there is none.
    pub fn film(&self, rect: Rect, grade: Grade) -> Arc<Film> {
        let mut films = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        films.retain(|film| film.strong_count() > 0);
        let same = films.iter().filter_map(Weak::upgrade).find(|film| (film.rect, film.grade) == (rect, grade));
        same.unwrap_or_else(|| {
            let film = Arc::new(Film::new(rect, grade));
            films.push(Arc::downgrade(&film));
            film
        })
    }
}

impl Film {
    fn new(rect: Rect, grade: Grade) -> Self {
        let state = State {
            codec: Codec::new(rect.width, rect.height, grade),
            planes: Planes::new(rect.width, rect.height),
            reel: VecDeque::new(),
            next: 0,
            shown: None,
            wanted: true,
            key_at: None,
        };
        Self { rect, grade, state: Mutex::new(state) }
    }

    /// The area.
    pub fn rect(&self) -> Rect {
        self.rect
    }

    /// How well it is coded.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// What a viewer that has the pictures up to `has` lacks, up to what the screen shows now; `None` if it cannot be
    /// shown the film at present. Codes the present picture if nobody has asked for it before.
    pub fn reel(&self, screen: &Screen, has: Option<u64>, now: Instant) -> Option<Reel> {
        let mut state = self.state();
        let follows = |state: &State| {
            let first = state.reel.front()?;
            has.filter(|has| *has + 1 >= first.number && *has < state.next)
        };
        if follows(&state).is_none() && state.reel.front().is_none_or(|first| !first.coded.key) {
            state.wanted = true;
        }
        state.advance(screen, self.rect, now)?;
        let (after, anew) = match follows(&state) {
            Some(has) => (has + 1, false),
            None => (state.reel.front().filter(|first| first.coded.key)?.number, true),
        };
        let pictures = state.reel.iter().filter(|picture| picture.number >= after).cloned().collect();
        Some(Reel { pictures, anew })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Codes what the screen shows now, if it is new or a key picture is due. `None` if the area moves no more, or
    /// there is no encoder.
    fn advance(&mut self, screen: &Screen, rect: Rect, now: Instant) -> Option<()> {
        let codec = self.codec.as_mut()?;
        let key = self.wanted && self.key_at.is_none_or(|at| now.saturating_duration_since(at) >= KEYS_APART);
        let generation = {
            let picture = screen.picture();
            let generation = screen.region(rect)?.generation;
            if self.shown == Some(generation) && !key {
                return Some(());
            }
            self.planes.take(&picture, rect);
            generation
        };
        let Some(coded) = codec.encode(&self.planes, key) else {
            self.codec = None;
            return None;
        };
        if coded.key {
            self.reel.clear();
            self.wanted = false;
            self.key_at = Some(now);
        }
        self.shown = Some(generation);
        self.reel.push_back(Arc::new(Picture { number: self.next, coded }));
        self.next += 1;
        while self.reel.len() > 1 && (self.reel.len() > MOST_KEPT || self.kept_bytes() > MOST_BYTES) {
            self.reel.pop_front();
        }
        Some(())
    }

    fn kept_bytes(&self) -> usize {
        self.reel.iter().rev().skip(1).map(|picture| picture.coded.bytes.len()).sum()
    }
}

/// A viewer's place in the films of a screen.
#[derive(Debug, Default)]
pub struct Seats(Vec<Seat>);

#[derive(Debug)]
struct Seat {
    film: Arc<Film>,
    has: Option<u64>,
}

/// What a viewer is to be sent of one film now.
pub struct Showing {
    /// The film's area.
    pub rect: Rect,
    /// The coded pictures, if there are new ones.
    pub reel: Reel,
    /// It has no other films: it may forget all that it had decoded.
    pub alone: bool,
}

impl Seats {
    /// Leaves all films.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What is new in those films of `regions` that are wanted; films that the viewer cannot be shown at present are
    /// left out.
    pub fn show(
        &mut self,
        screen: &Screen,
        regions: &[Region],
        wanted: impl Fn(Rect) -> bool,
        grade: Grade,
        now: Instant,
    ) -> Vec<Showing> {
        let goes_on = |film: &Film| film.grade() == grade && regions.iter().any(|region| region.rect == film.rect());
        self.0.retain(|seat| goes_on(&seat.film));
        let mut showings = Vec::new();
        for region in regions.iter().filter(|region| wanted(region.rect)) {
            let place = self.0.iter().position(|seat| seat.film.rect() == region.rect).unwrap_or_else(|| {
                self.0.push(Seat { film: screen.studio().film(region.rect, grade), has: None });
                self.0.len() - 1
            });
            let alone = self.0.iter().enumerate().all(|(other, seat)| other == place || seat.has.is_none());
            let seat = &mut self.0[place];
            let Some(reel) = seat.film.reel(screen, seat.has, now) else {
                seat.has = None;
                continue;
            };
            seat.has = reel.last().or(seat.has);
            showings.push(Showing { rect: region.rect, reel, alone });
        }
        showings
    }
}
