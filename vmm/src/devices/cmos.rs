//! The PC's clock (MC146818) at ports 0x70 and 0x71: tells the host's time in UTC; setting it has no effect.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;

const INDEX: u64 = 0;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
const SIZE: usize = 128;

/// The clock and its 128 bytes, of which those that are no clock registers are plain memory.
pub struct Cmos {
    state: State,
    now: fn() -> u64,
}

/// The clock's whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    index: u8,
    bytes: Vec<u8>,
}

impl Default for Cmos {
    fn default() -> Self {
        Self { state: State { index: 0, bytes: vec![0; SIZE] }, now: unix_time }
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Cmos {
    /// The whole state.
    pub fn save(&self) -> State {
        self.state.clone()
    }

    /// Takes a saved state on.
    pub fn restore(&mut self, mut state: State) {
        state.bytes.resize(SIZE, 0);
        state.index &= 0x7f;
        self.state = state;
    }

    fn register(&self) -> u8 {
        let time = (self.now)();
        let (year, month, day) = date(time / 86_400);
        let value = match self.state.index {
            0 => time % 60,
            2 => time / 60 % 60,
            4 => time / 3600 % 24,
            6 => (time / 86_400 + 4) % 7 + 1,
            7 => day,
            8 => month,
            9 => year % 100,
            CENTURY => year / 100,
            // Never in the middle of an update: a guest that waits for the end of one does not wait.
            STATUS_A => return 0x26,
            // 24 hours, binary-coded decimal.
            STATUS_B => return 0x02,
            STATUS_C => return 0,
            // The battery is good.
            STATUS_D => return 0x80,
            index => return self.state.bytes[usize::from(index)],
        };
        // At most two decimal digits.
        (((value / 10) << 4) | (value % 10)) as u8
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Years that begin in March have the leap day at their end; 1600-03-01 begins a cycle of 400.
    let day = days + 135_080;
    let (cycle, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_OF_400_YEARS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (1600 + 400 * cycle + year + u64::from(calendar_month <= 2), calendar_month, day_of_month)
}

impl BusDevice for Cmos {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(if offset == INDEX { self.state.index } else { self.register() });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == INDEX {
            // The top bit masks NMIs, of which there are none.
            self.state.index = data[0] & 0x7f;
        } else {
            self.state.bytes[usize::from(self.state.index)] = data[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cmos: &mut Cmos, register: u8) -> u8 {
        cmos.write(0, &[register]);
        let mut data = [0];
        cmos.read(1, &mut data);
        data[0]
    }

    #[test]
    fn the_clock_tells_the_time_in_bcd() {
        // Thursday 2024-02-29 23:59:58 UTC, a leap day.
        let mut cmos = Cmos { now: || 1_709_251_198, ..Cmos::default() };
        let values = [0, 2, 4, 6, 7, 8, 9, CENTURY].map(|register| read(&mut cmos, register));
        assert_eq!(values, [0x58, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20]);
        assert_eq!(read(&mut cmos, STATUS_A) & 0x80, 0, "never updating");
    }

    #[test]
    fn dates_are_right_around_month_year_and_century_ends() {
        for (seconds, expected) in [
            (0, (1970, 1, 1)),
            (68_169_600, (1972, 2, 29)),
            (951_782_400, (2000, 2, 29)),
            (951_868_800, (2000, 3, 1)),
            (1_798_675_200, (2026, 12, 31)),
            (4_107_542_400, (2100, 3, 1)),
            (4_107_456_000, (2100, 2, 28)),
        ] {
            assert_eq!(date(seconds / 86_400), expected, "{seconds}");
        }
    }

    #[test]
    fn memory_is_kept_and_the_state_round_trips() {
        let mut cmos = Cmos::default();
        cmos.write(0, &[0xc0]);
        cmos.write(1, &[0x5a]);
        let json = serde_json::to_string(&cmos.save()).unwrap();
        let mut other = Cmos::default();
        other.restore(serde_json::from_str(&json).unwrap());
        assert_eq!(other.save(), cmos.save());
        assert_eq!(read(&mut other, 0x40), 0x5a);
    }
}
