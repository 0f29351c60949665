//! How fast a device may be used. A request that comes too early waits by a timer; nobody waits for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;
use yunju_protocol::machine::RateLimit;

/// What may be used at once, and then needs as long to come back.
const BURST: Duration = Duration::from_secs(1);
/// No single request costs more time than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// One thing that is limited, as the time at which all that was used so far would have been used at a steady rate.
struct Meter {
    per_second: u64,
    used_until: Instant,
}

impl Meter {
    fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, used_until: now }
    }

    /// How long until something may be used.
    fn wait(&self, now: Instant) -> Duration {
        // At the very end of the burst something may still be used, and then costs what it costs.
        self.used_until.saturating_duration_since(now).saturating_sub(BURST)
    }

    fn charge(&mut self, amount: u64, now: Instant) {
        let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.max(1));
        let cost = u64::try_from(nanoseconds).map_or(LONGEST, Duration::from_nanos).min(LONGEST);
        self.used_until = self.used_until.max(now) + cost;
    }
}

/// The limit of one device. A request larger than a second's worth is let through and paid for afterwards.
pub struct Limit {
    bytes: Option<Meter>,
    operations: Option<Meter>,
    timer: TimerFd,
    armed: bool,
}

impl Limit {
    /// Counts from now on; `None` without a limit.
    pub fn new(rate: Option<&RateLimit>) -> io::Result<Option<Self>> {
        let Some(rate) = rate else {
            return Ok(None);
        };
        let now = Instant::now();
        let timer = TimerFd::new().map_err(io::Error::from)?;
        let bytes = rate.bytes.map(|bytes| Meter::new(bytes.0, now));
        let operations = rate.operations.map(|count| Meter::new(count.into(), now));
        Ok(Some(Self { bytes, operations, timer, armed: false }))
    }

    /// Whether a request may be begun. If not, [`Limit::source`] says when to ask again.
    pub fn allows(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let wait = self.meters().map(|meter| meter.wait(now)).max().unwrap_or_default();
        if wait.is_zero() {
            return Ok(true);
        }
        self.timer.reset(wait, None).map_err(io::Error::from)?;
        self.armed = true;
        Ok(false)
    }

    /// A request of `bytes` was begun.
    pub fn charge(&mut self, bytes: u64) {
        let now = Instant::now();
        if let Some(meter) = &mut self.bytes {
            meter.charge(bytes, now);
        }
        if let Some(meter) = &mut self.operations {
            meter.charge(1, now);
        }
    }

    /// All that was refused is about to ask again.
    pub fn ask_again(&mut self) {
        self.armed = false;
    }

    /// A descriptor that becomes readable when a request may be begun, from when one was refused until [`Limit::ask_again`].
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor stays open for as long as the timer, which `self` holds.
        self.armed.then(|| unsafe { BorrowedFd::borrow_raw(self.timer.as_raw_fd()) })
    }

    fn meters(&self) -> impl Iterator<Item = &Meter> {
        self.bytes.iter().chain(&self.operations)
    }
}

#[cfg(test)]
mod tests {
    use yunju_protocol::machine::ByteSize;

    use super::*;

    #[test]
    fn a_second_of_use_is_free_and_then_time_pays() {
        let start = Instant::now();
        let mut meter = Meter::new(1000, start);
        for _ in 0..11 {
            assert_eq!(meter.wait(start), Duration::ZERO);
            meter.charge(100, start);
        }
        assert_eq!(meter.wait(start), Duration::from_millis(100));
        assert_eq!(meter.wait(start + Duration::from_millis(100)), Duration::ZERO);
        meter.charge(u64::MAX, start);
        assert!(meter.wait(start) <= LONGEST + BURST);
    }

    #[test]
    fn rest_is_not_saved_for_more_than_a_second() {
        let start = Instant::now();
        let mut meter = Meter::new(1000, start);
        let later = start + Duration::from_secs(3600);
        meter.charge(1500, later);
        assert_eq!(meter.wait(later), Duration::from_millis(500));
    }

    #[test]
    fn the_stricter_limit_counts_and_a_refused_request_is_called_back() {
        assert!(Limit::new(None).unwrap().is_none());
        let rate = RateLimit { bytes: Some(ByteSize(1 << 30)), operations: Some(100) };
        let mut limit = Limit::new(Some(&rate)).unwrap().unwrap();
        let mut begun = 0;
        while limit.allows().unwrap() {
            assert!(limit.source().is_none());
            limit.charge(4096);
            begun += 1;
        }
        assert!(begun >= 100, "{begun} of 100 at once");
        let source = limit.source().unwrap();
        crate::event::wait(&[(source, rustix::event::PollFlags::IN)]).unwrap();
        limit.ask_again();
        assert!(limit.allows().unwrap());
        assert!(limit.source().is_none());
    }
}
