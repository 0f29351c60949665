//! How often somebody may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::neighbourhood;

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A user, from wherever they ask.
    User(Uuid),
    /// Somebody unknown at this address.
    Address(IpAddr),
}

/// A bucket for each: it fills evenly, each request takes one, and an empty one refuses.
#[derive(Debug, Default)]
pub struct Rate(Mutex<HashMap<Who, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rate {
    /// So many requests at once.
    pub const BURST: f64 = 300.0;
    /// So many a second for ever.
    pub const PER_SECOND: f64 = 50.0;
    const MOST: usize = 10_000;

    /// Takes one, or says after how long there is one again.
    pub fn take(&self, who: Who) -> Result<(), Duration> {
        self.take_at(who, Instant::now())
    }

    fn take_at(&self, who: Who, now: Instant) -> Result<(), Duration> {
        let who = match who {
            Who::Address(address) => Who::Address(neighbourhood(address)),
            user => user,
        };
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= Self::MOST && !buckets.contains_key(&who) {
            // who has a full one is like who has none; if all are busy the one least used makes room
            buckets.retain(|_, bucket| bucket.left_at(now) < Self::BURST);
            if buckets.len() >= Self::MOST
                && let Some(fullest) = buckets.iter().max_by(|a, b| a.1.left.total_cmp(&b.1.left)).map(|(who, _)| *who)
            {
                buckets.remove(&fullest);
            }
        }
        let bucket = buckets.entry(who).or_insert(Bucket { left: Self::BURST, at: now });
        let left = bucket.left_at(now);
        *bucket = Bucket { left, at: now };
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / Self::PER_SECOND));
        }
        bucket.left = left - 1.0;
        Ok(())
    }
}

impl Bucket {
    fn left_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + since * Rate::PER_SECOND).min(Rate::BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_a_steady_flow_and_others_are_not_held() {
        let rate = Rate::default();
        let now = Instant::now();
        let (alice, bob) = (Who::User(Uuid::from_u128(1)), Who::User(Uuid::from_u128(2)));
        for _ in 0..300 {
            rate.take_at(alice, now).unwrap();
        }
        let wait = rate.take_at(alice, now).unwrap_err();
        assert!(wait <= Duration::from_millis(20), "{wait:?}");
        assert_eq!(rate.take_at(bob, now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| rate.take_at(alice, later).is_ok()).count(), 50);
    }

    #[test]
    fn neighbours_in_a_network_of_ipv6_are_counted_together() {
        let rate = Rate::default();
        let now = Instant::now();
        for n in 0..300_u16 {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n);
            rate.take_at(Who::Address(address.into()), now).unwrap();
        }
        let one = Who::Address("2001:db8:0:1::ffff".parse().unwrap());
        let other = Who::Address("2001:db8:0:2::1".parse().unwrap());
        assert!(rate.take_at(one, now).is_err() && rate.take_at(other, now).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rate = Rate::default();
        let now = Instant::now();
        for n in 0..10_100 {
            let _ = rate.take_at(Who::User(Uuid::from_u128(n)), now);
        }
        assert!(rate.0.lock().unwrap().len() <= 10_000);
    }
}
