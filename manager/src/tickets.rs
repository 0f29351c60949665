//! Tickets: whoever may open a desktop is given one on the portal and shows it on the desktop's own host name, where it is exchanged
//! for a cookie. Good once and for a moment; a service that is started anew knows none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::auth;

/// What a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The host name that it is shown on, by its first part.
    pub label: String,
    /// What is opened.
    pub desktop: Uuid,
    /// The hash of the login that it was given to.
    pub session: Option<Vec<u8>>,
    /// The share that it was given for.
    pub share: Option<Uuid>,
    /// What who opens it is called.
    pub name: String,
}

/// Those that were given and not shown yet, by their hashes.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<Vec<u8>, (Admission, Instant)>>);

impl Tickets {
    /// One that was not shown by then is worth nothing.
    pub const GOOD_FOR: Duration = Duration::from_secs(30);
    /// So many may be under way for one login or share: the oldest make room.
    const MOST_FOR_ONE: usize = 16;
    /// And so many in all.
    const MOST: usize = 10_000;

    /// Gives one: 256 random bits.
    pub fn give(&self, admission: Admission) -> String {
        self.give_at(admission, Instant::now())
    }

    fn give_at(&self, admission: Admission, now: Instant) -> String {
        let ticket = auth::token();
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, (_, at)| now.saturating_duration_since(*at) <= Self::GOOD_FOR);
        let same = |other: &Admission| (&other.session, other.share) == (&admission.session, admission.share);
        let oldest = |of: &dyn Fn(&Admission) -> bool, most: usize| {
            let mut all: Vec<_> = given.iter().filter(|(_, (other, _))| of(other)).collect();
            all.sort_by_key(|(_, (_, at))| *at);
            let excess = (all.len() + 1).saturating_sub(most);
            all.into_iter().take(excess).map(|(hash, _)| hash.clone()).collect::<Vec<_>>()
        };
        let mut gone = oldest(&same, Self::MOST_FOR_ONE);
        if given.len() >= Self::MOST {
            gone.extend(oldest(&|_| true, Self::MOST));
        }
        for hash in gone {
            given.remove(&hash);
        }
        given.insert(auth::token_hash(&ticket), (admission, now));
        ticket
    }

    /// Takes one that is shown on the host name of `label`; whatever is wrong with it, it is used up.
    pub fn take(&self, ticket: &str, label: &str) -> Option<Admission> {
        self.take_at(ticket, label, Instant::now())
    }

    fn take_at(&self, ticket: &str, label: &str, now: Instant) -> Option<Admission> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (admission, at) = given.remove(&auth::token_hash(ticket))?;
        let good = now.saturating_duration_since(at) <= Self::GOOD_FOR && admission.label == label;
        good.then_some(admission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(session: u8) -> Admission {
        let (desktop, name) = (Uuid::from_u128(1), "alice".to_owned());
        Admission { label: "here".to_owned(), desktop, session: Some(vec![session]), share: None, name }
    }

    #[test]
    fn a_ticket_is_good_once_on_its_host_name_for_thirty_seconds() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let one = tickets.give_at(admission(1), now);
        assert_eq!(one.len(), 64);
        assert_eq!(tickets.take_at(&one, "here", now), Some(admission(1)));
        assert_eq!(tickets.take_at(&one, "here", now), None, "used");
        let two = tickets.give_at(admission(1), now);
        assert_eq!(tickets.take_at(&two, "there", now), None);
        assert_eq!(tickets.take_at(&two, "here", now), None, "it was shown to the wrong one");
        let three = tickets.give_at(admission(1), now);
        assert!(tickets.take_at(&three, "here", now + Duration::from_secs(31)).is_none(), "late");
        assert!(tickets.take_at("", "here", now).is_none());
    }

    #[test]
    fn a_thousand_that_nobody_shows_leave_sixteen_and_push_nobody_elses_out() {
        let tickets = Tickets::default();
        let others = tickets.give(admission(2));
        let all: Vec<_> = (0..1000).map(|_| tickets.give(admission(1))).collect();
        assert_eq!(all.iter().filter(|ticket| tickets.take(ticket, "here").is_some()).count(), 16);
        assert!(tickets.take(&others, "here").is_some());
        for n in 0..=u8::MAX {
            for _ in 0..50 {
                tickets.give(admission(n));
            }
        }
        assert!(tickets.0.lock().unwrap().len() <= Tickets::MOST);
    }
}
