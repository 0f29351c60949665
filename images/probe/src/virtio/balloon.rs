//! Memory balloon (virtio 1.2 §5.5).

use super::{Buffer, Device, Error, Transport, kind};
use alloc::vec::Vec;

/// The host may ask for statistics.
pub const STATISTICS: u64 = 1 << 1;
/// The balloon may shrink by itself when memory is short.
pub const DEFLATE_ON_OOM: u64 = 1 << 2;
/// Free pages may be reported.
pub const REPORTING: u64 = 1 << 5;

/// Bytes of a page of the balloon.
pub const PAGE: u64 = 4096;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
/// Drivers count only the queues whose features they use: there are no hints.
const REPORT: u16 = 3;
const TARGET: usize = 0;
const ACTUAL: usize = 4;

/// A balloon.
pub struct Balloon {
    /// The device with its four queues.
    pub device: Device,
}

impl Balloon {
    /// Brings up the balloon with all of its features.
    pub fn open() -> Result<Self, Error> {
        let wanted = STATISTICS | DEFLATE_ON_OOM | REPORTING;
        Ok(Self { device: Device::start(Transport::find(kind::BALLOON, 0)?, wanted, 4)? })
    }

    /// Pages that the host wants.
    pub fn target(&self) -> u32 {
        self.device.transport.config_u32(TARGET)
    }

    /// Tells the host how many pages the balloon holds.
    pub fn set_actual(&self, pages: u32) {
        self.device.transport.write(super::register::CONFIG + ACTUAL, pages);
    }

    /// Puts `count` pages from `first` on into the balloon.
    pub fn inflate(&mut self, first: u32, count: u32) -> Result<(), Error> {
        self.tell(INFLATE, first, count)
    }

    /// Takes them out.
    pub fn deflate(&mut self, first: u32, count: u32) -> Result<(), Error> {
        self.tell(DEFLATE, first, count)
    }

    fn tell(&mut self, queue: u16, first: u32, count: u32) -> Result<(), Error> {
        let pages: Vec<u32> = (first..first + count).collect();
        for pages in pages.chunks(256) {
            self.device.exchange(queue, &[Buffer::read(pages)])?;
        }
        Ok(())
    }

    /// Reports free memory: addresses and bytes.
    pub fn report(&mut self, ranges: &[(u64, u32)]) -> Result<(), Error> {
        let chain: Vec<Buffer> = ranges.iter().map(|(at, length)| Buffer::raw(*at, *length, true)).collect();
        self.device.exchange(REPORT, &chain).map(drop)
    }

    /// Gives the host a buffer of statistics (§5.5.6.3).
    pub fn give_statistics(&mut self, statistics: &[u8]) {
        self.device.give(STATS, &[Buffer::read(statistics)]);
    }

    /// Whether the host wants newer ones.
    pub fn takes_statistics(&mut self) -> bool {
        self.device.take(STATS).is_some()
    }
}
