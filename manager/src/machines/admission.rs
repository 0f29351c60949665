//! How much memory machines may be promised together: a machine that the host could not feed is not started.

use std::fs;
use std::io;

use yunju_protocol::machine::ByteSize;

const MEMINFO: &str = "/proc/meminfo";

/// Kept back for the host's system, the service and the machines' own processes: this, or a sixteenth of a large host.
const RESERVE: u64 = 512 << 20;

/// Why a machine was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the machine needs {needed} of memory, and running machines have {promised} of the {limit} that this host can give: \
     stop another one, or raise `yunju serve --memory-overcommit`"
)]
pub struct NoMemory {
    needed: ByteSize,
    promised: ByteSize,
    limit: ByteSize,
}

/// The most memory that running machines may have together, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission(u64);

impl Admission {
    /// Whatever is asked for is given.
    pub const UNLIMITED: Self = Self(u64::MAX);

    /// `overcommit` times the memory of this host less a reserve. More than 1 counts on machines that do not use
    /// all that they have, share pages with their forks, and give back what is free.
    pub fn of_host(overcommit: f64) -> io::Result<Self> {
        let text = fs::read_to_string(MEMINFO)?;
        let total = total(&text).ok_or_else(|| io::Error::other(format!("{MEMINFO} has no MemTotal")))?;
        Ok(Self::of(total, overcommit))
    }

    fn of(total: u64, overcommit: f64) -> Self {
        let given = total.saturating_sub(RESERVE.max(total / 16));
        // Rounding is of no consequence, and what is too large for a u64 becomes the greatest one.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = (given as f64 * overcommit) as u64;
        Self(limit >> 20 << 20)
    }

    /// Whether a machine with `needed` bytes may run beside those that have the `running` bytes.
    pub fn admit(self, needed: u64, running: impl Iterator<Item = u64>) -> Result<(), NoMemory> {
        let promised = running.fold(0, u64::saturating_add);
        if promised.saturating_add(needed) <= self.0 {
            return Ok(());
        }
        Err(NoMemory { needed: ByteSize(needed), promised: ByteSize(promised), limit: ByteSize(self.0) })
    }
}

/// The `MemTotal` of `/proc/meminfo` in bytes (proc(5)).
fn total(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_limit_is_the_hosts_memory_less_a_reserve_times_the_overcommit() {
        assert_eq!(Admission::of(16 * GIB, 1.0), Admission(15 * GIB));
        assert_eq!(Admission::of(16 * GIB, 1.5), Admission(45 * GIB / 2));
        assert_eq!(Admission::of(2 * GIB, 1.0), Admission(3 * GIB / 2), "a small host keeps 512 MiB");
        assert_eq!(Admission::of(GIB / 4, 1.0), Admission(0));
        assert!(Admission::of_host(1.0).unwrap().0 > 0);
    }

    #[test]
    fn a_machine_is_admitted_up_to_the_limit_and_the_refusal_says_what_is_missing() {
        let admission = Admission(3 * GIB);
        assert_eq!(admission.admit(GIB, [GIB, GIB].into_iter()), Ok(()));
        let refused = admission.admit(GIB + 1, [GIB, GIB].into_iter()).unwrap_err().to_string();
        assert!(refused.contains("2G of the 3G") && refused.contains("--memory-overcommit"), "{refused}");
        assert!(admission.admit(u64::MAX, [u64::MAX, GIB].into_iter()).is_err(), "sums do not wrap");
        assert_eq!(Admission::UNLIMITED.admit(64 * GIB, [u64::MAX / 2].into_iter()), Ok(()));
    }

    #[test]
    fn the_total_is_read_in_kib_or_not_at_all() {
        assert_eq!(total("MemTotal:       24689904 kB\nMemFree: 1 kB\n"), Some(24_689_904 << 10));
        for text in ["", "MemFree: 1 kB", "MemTotal: 1", "MemTotal: x kB", "MemTotal: 99999999999999999999 kB"] {
            assert_eq!(total(text), None, "{text}");
        }
    }
}
