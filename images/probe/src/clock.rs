//! KVM's clock (Documentation/virt/kvm/x86/msr.rst): nanoseconds, in a page that KVM keeps.

use core::hint::black_box;

use crate::{cpu, memory};

const SYSTEM_TIME: u32 = 0x4b56_4d01;

/// The clock of the first processor.
pub struct Clock(&'static [u8]);

impl Clock {
    /// Asks KVM for it.
    pub fn start() -> Self {
        let page = memory::zeroed(4096, 4096);
        // SAFETY: the page is given to the clock for ever.
        unsafe { cpu::write_msr(SYSTEM_TIME, page.as_ptr() as u64 | 1) };
        Self(page)
    }

    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        loop {
            let version = self.read(0) as u32;
            let (stamp, time, scale) = (self.read(8), self.read(16), self.read(24));
            let (multiplier, shift) = (scale as u32, (scale >> 32) as i8);
            let passed = cpu::ticks().wrapping_sub(stamp);
            let scaled = if shift < 0 { passed >> -shift } else { passed << shift };
            let now = time.wrapping_add(((u128::from(scaled) * u128::from(multiplier)) >> 32) as u64);
            // Odd while KVM writes, another one after it did.
            if version & 1 == 0 && self.read(0) as u32 == version {
                return now;
            }
        }
    }

    fn read(&self, at: usize) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|byte| black_box(self.0)[at + byte]))
    }
}
