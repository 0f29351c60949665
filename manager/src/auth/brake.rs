//! The brake on guessing passwords and codes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::neighbourhood;

/// Slows down whoever keeps failing: after a few free attempts each failure doubles the wait. It holds a user at one
/// address, and an address: nobody locks somebody else out.
#[derive(Debug, Default)]
pub struct Brake {
    of_user: Failures<(String, IpAddr)>,
    of_address: Failures<IpAddr>,
}

impl Brake {
    /// How long this user at this address must wait before the next attempt counts.
    pub fn wait(&self, user: &str, address: IpAddr) -> Option<Duration> {
        let (now, address) = (Instant::now(), neighbourhood(address));
        self.of_user.wait(&(user.to_owned(), address), now).max(self.of_address.wait(&address, now))
    }

    /// An attempt failed.
    pub fn failed(&self, user: &str, address: IpAddr) {
        let (now, address) = (Instant::now(), neighbourhood(address));
        self.of_user.add((user.to_owned(), address), 4, now);
        self.of_address.add(address, 30, now);
    }

    /// An attempt succeeded.
    pub fn succeeded(&self, user: &str, address: IpAddr) {
        self.of_user.forget(&(user.to_owned(), neighbourhood(address)));
    }
}

/// Failures by key, with when the next attempt may come. Bounded: the oldest make room.
#[derive(Debug)]
struct Failures<K>(Mutex<HashMap<K, (u32, Instant)>>);

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Failures<K> {
    const LONGEST: Duration = Duration::from_secs(60);
    const FORGET: Duration = Duration::from_secs(900);
    const MOST: usize = 10_000;

    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).and_then(|(_, until)| until.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    fn add(&self, key: K, free: u32, now: Instant) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= Self::MOST {
            map.retain(|_, (_, until)| *until + Self::FORGET > now);
            if map.len() >= Self::MOST
                && let Some(oldest) = map.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
            {
                map.remove(&oldest);
            }
        }
        let (count, until) = map.entry(key).or_insert((0, now));
        if *until + Self::FORGET < now {
            *count = 0;
        }
        *count += 1;
        let wait = match count.checked_sub(free) {
            None | Some(0) => Duration::ZERO,
            Some(excess) => Duration::from_secs(1 << excess.min(6)).min(Self::LONGEST),
        };
        *until = now + wait;
    }

    fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_beyond_the_free_ones_wait_longer_each_time_up_to_a_minute() {
        let failures = Failures::default();
        let now = Instant::now();
        let waits: Vec<u64> = (0..14)
            .map(|_| {
                failures.add("k", 4, now);
                failures.wait(&"k", now).map_or(0, |wait| wait.as_secs())
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        assert_eq!(failures.wait(&"other", now), None);
        failures.add("k", 4, now + Duration::from_secs(3600));
        assert_eq!(failures.wait(&"k", now + Duration::from_secs(3600)), None, "an old failure is forgotten");
    }

    #[test]
    fn the_brake_holds_one_user_at_one_address_and_lets_others_pass() {
        let brake = Brake::default();
        let (here, there): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..6 {
            brake.failed("alice", here);
        }
        assert!(brake.wait("alice", here).is_some());
        assert!(brake.wait("alice", there).is_none());
        assert!(brake.wait("bob", here).is_none());
        brake.succeeded("alice", here);
        assert!(brake.wait("alice", here).is_none());
        for n in 0..40 {
            brake.failed(&format!("user{n}"), here);
        }
        assert!(brake.wait("bob", here).is_some(), "an address that tries many names waits too");
    }

    #[test]
    fn what_the_brake_remembers_is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for key in 0..10_100 {
            failures.add(key, 1, now);
        }
        assert!(failures.0.lock().unwrap().len() <= 10_000);
    }
}
