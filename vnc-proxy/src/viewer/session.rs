//! What one viewer has asked for and is owed. No input or output happens here.

use std::time::{Duration, Instant};

use yunju_protocol::display::{Rect, Request};
use yunju_protocol::viewer::May;

use super::cutting::Cutting;
use super::pace::Pace;
use crate::encode::Limits;
use crate::input::{Keyboard, Pointer, scancodes};
use crate::picture::is_size;
use crate::rfb::encodings::Abilities;
use crate::rfb::incoming::Message;
use crate::rfb::outgoing::{
    self, FENCE_BLOCK_AFTER, FENCE_BLOCK_BEFORE, FENCE_REQUEST, FENCE_SYNC_NEXT, SizeReason, SizeStatus,
};
use crate::rfb::pixel::PixelFormat;
use crate::transport::STALLED;

/// Most bytes of answers that wait for a viewer to take them.
const MOST_REPLIES: usize = 8 << 10;

/// How long the machine may take to follow a viewer's wish for a size.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a viewer broke the rules.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Answers pile up.
    #[error("it asks without taking the answers")]
    Flood,
    /// A fence is not answered.
    #[error("it has acknowledged no update for {} s", STALLED.as_secs())]
    Silent,
    /// It cannot show another size.
    #[error("the picture is now {width}x{height} pixels and the viewer cannot follow; connect again")]
    CannotResize {
        /// The new size.
        width: u32,
        /// The new size.
        height: u32,
    },
}

/// What one viewer has asked for and is owed.
#[derive(Debug)]
pub struct Session {
    may: May,
    abilities: Abilities,
    format: PixelFormat,
    size: (u32, u32),
    /// Where it waits for an update.
    requested: Option<Rect>,
    /// What it says it has nothing of.
    forgotten: Vec<Rect>,
    /// Where it wants updates without asking.
    continuous: Option<Rect>,
    offered_continuous: bool,
    /// Bytes to be sent before the next update.
    replies: Vec<u8>,
    /// A fence to be answered together with the next message.
    held_fence: Option<(u32, Vec<u8>)>,
    /// Updates on their way, by the number in the fence that follows them.
    pace: Pace,
    wish: Option<Wish>,
    keyboard: Keyboard,
    pointer: Pointer,
    cutting: Cutting,
}

/// A viewer's wish for a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Asked { until: Instant },
    Answered(SizeStatus),
}

/// The next thing to be sent to a viewer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes.
    Replies(Vec<u8>),
    /// The picture's size.
    Size(SizeReason, SizeStatus),
    /// What has changed in this area.
    Update(Rect),
    /// Nothing, until something happens or this time.
    Wait(Option<Instant>),
}

/// What there is to send, apart from answers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<F> {
    /// Size of the screen's picture.
    pub size: (u32, u32),
    /// The viewer has not been told the size in the form that it would like.
    pub announce_size: bool,
    /// Whether something has changed in an area.
    pub changed: F,
    /// When something can be sent again without loss.
    pub refresh_at: Option<Instant>,
}

impl Session {
    /// A viewer that was told this size, and what it may.
    pub fn new(size: (u32, u32), may: May) -> Self {
        Self {
            may,
            abilities: Abilities::default(),
            format: PixelFormat::BGRX,
            size,
            requested: None,
            forgotten: Vec::new(),
            continuous: None,
            offered_continuous: false,
            replies: Vec::new(),
            held_fence: None,
            pace: Pace::default(),
            wish: None,
            keyboard: Keyboard::default(),
            pointer: Pointer::default(),
            cutting: Cutting::default(),
        }
    }

    /// What the viewer understands.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// How it wants its pixels.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// What its link bears.
    pub fn limits(&self) -> Limits {
        self.pace.limits()
    }

    /// Takes a message in and returns what the machine is to be told, and whether it must be: a pointer that only
    /// moves will move again. `leds` are the lamps of the machine's keyboard.
    pub fn on_message(&mut self, message: Message, leds: u8, now: Instant) -> Result<Vec<(Request, bool)>, Error> {
        let held_fence = self.held_fence.take();
        let mut requests = Vec::new();
        match message {
            Message::SetPixelFormat(format) => self.format = format,
            Message::SetEncodings(list) => self.set_abilities(Abilities::of(&list)),
            Message::UpdateRequest { incremental, area } => self.on_update_request(incremental, area),
            Message::ContinuousUpdates { enable: true, area } => {
                self.continuous = Some(area);
                self.requested = None;
            }
            Message::ContinuousUpdates { enable: false, .. } => {
                self.continuous = None;
                outgoing::end_of_continuous_updates(&mut self.replies);
            }
            Message::Fence { flags, payload } if flags & FENCE_REQUEST == 0 => self.on_fence_answer(&payload, now),
            Message::Fence { flags, payload } if flags & FENCE_SYNC_NEXT != 0 => {
                self.held_fence = Some((flags, payload))
            }
            Message::Fence { flags, payload } => self.answer_fence(flags, &payload),
            Message::SetDesktopSize { .. } if !self.may.input => {
                self.wish = Some(Wish::Answered(SizeStatus::Prohibited));
            }
            Message::Key { .. } | Message::ScanCode { .. } | Message::Pointer { .. } if !self.may.input => {}
            Message::SetDesktopSize { width, height } => {
                requests.extend(self.on_wish(width.into(), height.into(), now))
            }
            Message::Key { keysym, down } => requests.extend(self.keyboard.symbol(keysym, down, leds & 4 != 0)),
            Message::ScanCode { keysym, code, down } => match scancodes::to_linux(code) {
                Some(code) => requests.extend(self.keyboard.key(code, down)),
                None => requests.extend(self.keyboard.symbol(keysym, down, leds & 4 != 0)),
            },
            Message::Pointer { x, y, buttons } => {
                let must = self.pointer.presses(buttons);
                let moved = self.pointer.moved(x, y, self.size, buttons);
                return self.checked(held_fence, moved.into_iter().map(|request| (request, must)).collect());
            }
            Message::CutText { length, extended } => self.cutting.begin(extended, length as usize, self.may.clipboard),
        }
        self.checked(held_fence, requests.into_iter().map(|request| (request, true)).collect())
    }

    fn checked(
        &mut self,
        fence: Option<(u32, Vec<u8>)>,
        done: Vec<(Request, bool)>,
    ) -> Result<Vec<(Request, bool)>, Error> {
        if let Some((flags, payload)) = fence {
            self.answer_fence(flags, &payload);
        }
        if self.replies.len() > MOST_REPLIES { Err(Error::Flood) } else { Ok(done) }
    }

    fn set_abilities(&mut self, abilities: Abilities) {
        self.abilities = abilities;
        self.cutting.set_extended(abilities.extended_clipboard && self.may.clipboard);
        if abilities.fence && abilities.continuous && !self.offered_continuous {
            self.offered_continuous = true;
            outgoing::end_of_continuous_updates(&mut self.replies);
        }
    }

    fn on_update_request(&mut self, incremental: bool, area: Rect) {
        let area = area.intersection(&Rect::of_size(self.size.0, self.size.1));
        if !incremental {
            // Many areas are joined to one rather than kept.
            let joined = self.forgotten.drain(..).fold(area, |all, one| all.union(&one));
            self.forgotten.push(joined);
        }
        if self.continuous.is_none() {
            self.requested = Some(self.requested.map_or(area, |before| before.union(&area)));
        }
    }

    fn on_fence_answer(&mut self, payload: &[u8], now: Instant) {
        if let Ok(number) = payload.try_into().map(u32::from_be_bytes) {
            self.pace.answer(number, now);
        }
    }

    fn answer_fence(&mut self, flags: u32, payload: &[u8]) {
        let known = FENCE_BLOCK_BEFORE | FENCE_BLOCK_AFTER | FENCE_SYNC_NEXT;
        outgoing::fence(flags & known, payload, &mut self.replies);
    }

    fn on_wish(&mut self, width: u32, height: u32, now: Instant) -> Option<Request> {
        if !is_size(width, height) {
            self.wish = Some(Wish::Answered(SizeStatus::InvalidLayout));
            return None;
        }
        if (width, height) == self.size {
            self.wish = Some(Wish::Answered(SizeStatus::Done));
            return None;
        }
        self.wish = Some(Wish::Asked { until: now + PATIENCE });
        Some(Request::Resize { width, height })
    }

    /// The viewer's clipboard.
    pub fn cutting(&mut self) -> &mut Cutting {
        &mut self.cutting
    }

    /// Decides what to send next.
    pub fn next(&mut self, offer: Offer<impl Fn(Rect) -> bool>, now: Instant) -> Result<Step, Error> {
        if !self.replies.is_empty() {
            return Ok(Step::Replies(std::mem::take(&mut self.replies)));
        }
        if let Some(message) = self.cutting.next_message() {
            return Ok(Step::Replies(message));
        }
        let silent_at = self.pace.oldest().map(|begun| begun + STALLED);
        if silent_at.is_some_and(|at| at <= now) {
            return Err(Error::Silent);
        }
        let may_send = match self.continuous {
            Some(_) => self.pace.may_send(),
            None => self.requested.is_some(),
        };
        let Some(area) = self.continuous.or(self.requested).filter(|_| may_send) else {
            return Ok(Step::Wait(silent_at));
        };
        if offer.size != self.size {
            let (width, height) = offer.size;
            if !self.abilities.desktop_size && !self.abilities.extended_desktop_size {
                return Err(Error::CannotResize { width, height });
            }
            self.size = offer.size;
            let reason = if self.wish.take().is_some() { SizeReason::Viewer } else { SizeReason::Server };
            return Ok(Step::Size(reason, SizeStatus::Done));
        }
        let expires = match self.wish {
            Some(Wish::Answered(status)) => {
                self.wish = None;
                return Ok(Step::Size(SizeReason::Viewer, status));
            }
            Some(Wish::Asked { until }) if until <= now => {
                self.wish = None;
                return Ok(Step::Size(SizeReason::Viewer, SizeStatus::NoResources));
            }
            Some(Wish::Asked { until }) => Some(until),
            None => None,
        };
        if offer.announce_size {
            return Ok(Step::Size(SizeReason::Server, SizeStatus::Done));
        }
        // What is sent again must not stand in the way of news: one at a time.
        let refresh_at = offer.refresh_at.filter(|_| self.pace.is_idle());
        if (offer.changed)(area) || refresh_at.is_some_and(|at| at <= now) {
            return Ok(Step::Update(area));
        }
        Ok(Step::Wait([silent_at, expires, refresh_at].into_iter().flatten().min()))
    }

    /// What the viewer has said since that it has nothing of.
    pub fn take_forgotten(&mut self) -> Vec<Rect> {
        std::mem::take(&mut self.forgotten)
    }

    /// An update is about to be sent; returns what must follow it. If nothing is sent after all, it must be told to
    /// [`Session::cancel_update`].
    pub fn begin_update(&mut self, now: Instant) -> Begun {
        let mut fence = Vec::new();
        let number = (self.continuous.is_some() && self.abilities.fence).then(|| self.pace.begin(now));
        if let Some(number) = number {
            outgoing::fence(FENCE_REQUEST | FENCE_BLOCK_BEFORE, &number.to_be_bytes(), &mut fence);
        }
        Begun { fence, number, requested: self.requested.take() }
    }

    /// An update has been handed to the socket, its first bytes at `start`.
    pub fn update_sent(&mut self, begun: &Begun, start: Instant, bytes: usize) {
        if let Some(number) = begun.number {
            self.pace.sent(number, start, bytes);
        }
    }

    /// There was nothing to send.
    pub fn cancel_update(&mut self, begun: Begun) {
        if let Some(number) = begun.number {
            self.pace.cancel(number);
        }
        if self.continuous.is_none() {
            self.requested = match (begun.requested, self.requested) {
                (Some(before), Some(since)) => Some(before.union(&since)),
                (before, since) => before.or(since),
            };
        }
    }

    /// Lets all keys and buttons go that the viewer holds.
    pub fn release(&mut self) -> Vec<Request> {
        let mut requests = self.keyboard.release();
        requests.extend(self.pointer.release());
        requests
    }
}

/// An update that is about to be sent.
#[derive(Debug)]
pub struct Begun {
    /// The bytes of the fence that follows the update, if one does.
    pub fence: Vec<u8>,
    number: Option<u32>,
    requested: Option<Rect>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (100, 80);
    const WHOLE: Rect = Rect::of_size(100, 80);

    fn offer(changed: bool) -> Offer<impl Fn(Rect) -> bool> {
        Offer { size: SIZE, announce_size: false, changed: move |_| changed, refresh_at: None }
    }

    fn say(session: &mut Session, message: Message, now: Instant) {
        session.on_message(message, 0, now).unwrap();
    }

    fn continuous(now: Instant) -> Session {
        let mut session = Session::new(SIZE, May::default());
        say(&mut session, Message::SetEncodings(vec![7, -312, -313]), now);
        assert_eq!(session.next(offer(false), now), Ok(Step::Replies(vec![150])));
        say(&mut session, Message::ContinuousUpdates { enable: true, area: WHOLE }, now);
        session
    }

    #[test]
    fn one_request_is_one_update() {
        let now = Instant::now();
        let mut session = Session::new(SIZE, May::default());
        assert_eq!(session.next(offer(true), now), Ok(Step::Wait(None)), "nothing was asked for");
        say(&mut session, Message::UpdateRequest { incremental: true, area: WHOLE }, now);
        assert_eq!(session.next(offer(false), now), Ok(Step::Wait(None)), "nothing has changed");
        assert_eq!(session.next(offer(true), now), Ok(Step::Update(WHOLE)));
        let begun = session.begin_update(now);
        assert!(begun.fence.is_empty());
        assert_eq!(session.next(offer(true), now), Ok(Step::Wait(None)));
        session.cancel_update(begun);
        assert_eq!(session.next(offer(true), now), Ok(Step::Update(WHOLE)), "an update of nothing was none");
    }

    #[test]
    fn two_updates_are_in_flight_until_one_is_acknowledged() {
        let now = Instant::now();
        let mut session = continuous(now);
        for _ in 0..2 {
            assert_eq!(session.next(offer(true), now), Ok(Step::Update(WHOLE)));
            assert!(!session.begin_update(now).fence.is_empty());
        }
        assert_eq!(session.next(offer(true), now), Ok(Step::Wait(Some(now + STALLED))));
        say(&mut session, Message::Fence { flags: 1, payload: vec![0, 0, 0, 1] }, now);
        assert_eq!(session.next(offer(true), now), Ok(Step::Update(WHOLE)));
        say(&mut session, Message::Fence { flags: 1, payload: vec![9; 4] }, now);
        say(&mut session, Message::Fence { flags: 1, payload: vec![] }, now);
        session.begin_update(now);
        let full = session.next(offer(true), now);
        assert_eq!(full, Ok(Step::Wait(Some(now + STALLED))), "fences that are not ours acknowledge nothing");
    }

    #[test]
    fn a_viewer_that_acknowledges_nothing_is_given_up_in_the_end() {
        let now = Instant::now();
        let mut session = continuous(now);
        session.begin_update(now);
        assert!(session.next(offer(true), now + STALLED - Duration::from_millis(1)).is_ok());
        assert_eq!(session.next(offer(true), now + STALLED), Err(Error::Silent));
    }

    #[test]
    fn what_was_sent_with_loss_is_sent_again_only_when_nothing_is_in_flight() {
        let now = Instant::now();
        let mut session = continuous(now);
        let refresh = |at| Offer { refresh_at: Some(at), ..offer(false) };
        let later = now + Duration::from_millis(200);
        assert_eq!(session.next(refresh(later), now), Ok(Step::Wait(Some(later))));
        assert_eq!(session.next(refresh(later), later), Ok(Step::Update(WHOLE)));
        session.begin_update(later);
        assert_eq!(session.next(refresh(later), later), Ok(Step::Wait(Some(later + STALLED))));
    }

    #[test]
    fn pixels_change_their_format_together_with_the_fence_that_says_so() {
        let now = Instant::now();
        let mut session = Session::new(SIZE, May::default());
        say(&mut session, Message::Fence { flags: FENCE_REQUEST | FENCE_SYNC_NEXT, payload: vec![] }, now);
        assert_eq!(session.next(offer(false), now), Ok(Step::Wait(None)), "not before the next message");
        say(&mut session, Message::SetPixelFormat(PixelFormat::BGRX), now);
        assert!(matches!(session.next(offer(false), now), Ok(Step::Replies(_))));
    }

    #[test]
    fn a_pointer_that_only_moves_may_be_left_out_and_one_that_clicks_may_not() {
        let now = Instant::now();
        let mut session = Session::new(SIZE, May::default());
        let mut must = |buttons| {
            let requests = session.on_message(Message::Pointer { x: 1, y: 1, buttons }, 0, now).unwrap();
            requests.iter().all(|(_, must)| *must)
        };
        assert!([must(1), must(0)].iter().all(|must| *must));
        assert!(!must(0));
    }
}
