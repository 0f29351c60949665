//! How fast a viewer's link is, as told by the fences that follow its updates.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::encode::{Limits, Thrift};

/// Most updates on their way to a viewer that wants them without asking.
pub const MOST_IN_FLIGHT: usize = 2;

/// An update of so many bytes tells how many the link bears; shorter ones tell how far away the viewer is.
const TELLING: usize = 16 << 10;
/// An update may occupy the link for so long: what comes next waits that long at most.
const SHARE: Duration = Duration::from_millis(100);
/// Fewest bytes of an update that are sent on any link.
const LEAST_SHARE: usize = 8 << 10;
/// A link that bears more than this is not limited at all.
const FAST: f64 = 16e6;
/// Links that bear fewer bytes a second need thrift.
const SLOW: f64 = 400e3;
const VERY_SLOW: f64 = 120e3;
/// What was learnt of a link is doubted after so long without an update that tells: thrift itself makes them rare.
const DOUBT: Duration = Duration::from_secs(10);
/// Thrift ends when a link bears so many times as much as made it begin.
const MARGIN: f64 = 1.5;
/// Answers this much later than usual mean that something fills up on the way.
const LATE: Duration = Duration::from_millis(80);
/// After so long the shortest time that an answer took is forgotten: the way may have changed.
const MEMORY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Update {
    number: u32,
    begun: Instant,
    /// When its first bytes went to the socket, and how many bytes it has, if it has been sent.
    sent: Option<(Instant, usize)>,
}

/// How fast a viewer's link is, and what is on its way.
#[derive(Debug, Default)]
pub struct Pace {
    in_flight: VecDeque<Update>,
    last: u32,
    answered: Option<Instant>,
    /// The shortest time until an answer, and when it was seen.
    shortest: Option<(Duration, Instant)>,
    late: bool,
    /// Bytes a second.
    rate: Option<f64>,
    /// When that was learnt or doubted.
    told: Option<Instant>,
    thrift: Option<Thrift>,
}

impl Pace {
    /// Whether another update may be sent.
    pub fn may_send(&self) -> bool {
        self.in_flight.len() < if self.late { 1 } else { MOST_IN_FLIGHT }
    }

    /// Whether nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// When the oldest update on its way was begun.
    pub fn oldest(&self) -> Option<Instant> {
        self.in_flight.front().map(|update| update.begun)
    }

    /// An update is begun; returns its number.
    pub fn begin(&mut self, now: Instant) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.in_flight.push_back(Update { number: self.last, begun: now, sent: None });
        self.last
    }

    /// An update has been handed to the socket, from `start` on.
    pub fn sent(&mut self, number: u32, start: Instant, bytes: usize) {
        if let Some(update) = self.in_flight.iter_mut().find(|update| update.number == number) {
            update.sent = Some((start, bytes));
        }
    }

    /// An update was none.
    pub fn cancel(&mut self, number: u32) {
        self.in_flight.retain(|update| update.number != number);
    }

    /// The viewer has taken this update and all before.
    pub fn answer(&mut self, number: u32, now: Instant) {
        let Some(place) = self.in_flight.iter().position(|update| update.number == number) else { return };
        let taken: Vec<Update> = self.in_flight.drain(..=place).collect();
        if let [Update { sent: Some((start, bytes)), .. }] = taken[..] {
            self.learn(start, bytes, now);
        }
        self.answered = Some(now);
    }

    fn learn(&mut self, start: Instant, bytes: usize, now: Instant) {
        let took = now.saturating_duration_since(start);
        if self.shortest.is_none_or(|(shortest, seen)| took <= shortest || now.saturating_duration_since(seen) > MEMORY)
        {
            self.shortest = Some((took, now));
        }
        let (shortest, _) = self.shortest.unwrap_or((took, now));
        self.late = took > shortest + LATE;
        if bytes < TELLING {
            if !self.late && self.told.is_some_and(|told| now.saturating_duration_since(told) > DOUBT) {
                self.set_rate(self.rate.unwrap_or(FAST) * 2.0, now);
            }
            return;
        }
        // While the update before was still on its way, the link was not this one's.
        let alone = self.answered.map_or(took, |before| took.min(now.saturating_duration_since(before)));
        let on_link = if alone < took { alone } else { took.saturating_sub(shortest) };
        let seen = bytes as f64 / on_link.as_secs_f64().max(1e-3);
        self.set_rate(self.rate.map_or(seen, |known| (known * 3.0 + seen) / 4.0), now);
    }

    fn set_rate(&mut self, rate: f64, now: Instant) {
        (self.rate, self.told) = (Some(rate), Some(now));
        self.thrift = Some(self.thrift_at(rate));
    }

    fn thrift_at(&self, rate: f64) -> Thrift {
        let before = self.thrift.unwrap_or(Thrift::None);
        let bound = |bound: f64, thrift: Thrift| if before >= thrift { bound * MARGIN } else { bound };
        if rate < bound(VERY_SLOW, Thrift::Much) {
            Thrift::Much
        } else if rate < bound(SLOW, Thrift::Some) {
            Thrift::Some
        } else {
            Thrift::None
        }
    }

    /// What the link bears.
    pub fn limits(&self) -> Limits {
        let bytes = match self.rate {
            Some(rate) if rate < FAST => ((rate * SHARE.as_secs_f64()) as usize).max(LEAST_SHARE),
            Some(_) => usize::MAX,
            // Not to fill an unknown link with a first picture that nobody can interrupt.
            None => 256 << 10,
        };
        Limits { bytes, thrift: self.thrift.unwrap_or(Thrift::None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends updates of so many bytes one after the other over a link of this rate and delay.
    fn drive(pace: &mut Pace, mut now: Instant, bytes: usize, rate: f64, delay: Duration, times: u32) -> Instant {
        for _ in 0..times {
            let number = pace.begin(now);
            pace.sent(number, now, bytes);
            now += delay + Duration::from_secs_f64(bytes as f64 / rate);
            pace.answer(number, now);
        }
        now
    }

    #[test]
    fn two_updates_are_on_their_way_and_one_when_answers_come_late() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let near = Duration::from_millis(5);
        let now = drive(&mut pace, now, 100, 1e9, near, 3);
        pace.begin(now);
        assert!(pace.may_send());
        let number = pace.begin(now);
        assert!(!pace.may_send());
        pace.answer(number, now + near);
        assert!(pace.is_idle(), "an answer stands for those before it");
        let now = drive(&mut pace, now + near, 100, 1e9, Duration::from_millis(200), 1);
        pace.begin(now);
        assert!(!pace.may_send());
    }

    #[test]
    fn a_slow_link_is_learnt_and_given_its_share_whatever_its_delay() {
        for delay in [1, 80, 300] {
            let (mut pace, now) = (Pace::default(), Instant::now());
            let delay = Duration::from_millis(delay);
            let now = drive(&mut pace, now, 200, 100e3, delay, 2);
            let now = drive(&mut pace, now, 40_000, 100e3, delay, 8);
            let Limits { bytes, thrift } = pace.limits();
            assert!((8_000..13_000).contains(&bytes), "{bytes} with {delay:?}");
            assert_eq!(thrift, Thrift::Much);
            drive(&mut pace, now + DOUBT, 200, 100e3, delay, 2);
            assert_eq!(pace.limits().thrift, Thrift::Some, "doubted");
        }
    }

    #[test]
    fn a_fast_link_is_not_limited_and_thrift_ends_when_it_is_needed_no_more() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let near = Duration::from_millis(1);
        let now = drive(&mut pace, now, 200, 1e9, near, 1);
        let now = drive(&mut pace, now, 100_000, 300e3, near, 20);
        assert_eq!(pace.limits().thrift, Thrift::Some);
        drive(&mut pace, now, 100_000, 1e9, near, 20);
        assert_eq!(pace.limits(), Limits::NONE);
    }

    #[test]
    fn an_update_of_nothing_is_forgotten() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let number = pace.begin(now);
        pace.cancel(number);
        assert!(pace.is_idle());
        pace.answer(77, now);
    }
}
