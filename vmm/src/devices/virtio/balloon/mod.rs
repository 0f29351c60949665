//! Memory balloon (virtio 1.2 §5.5): the guest gives memory back, free pages by itself and more when asked.
//!
//! A hostile guest can only lose pages of its own: see [`reclaim::release`]. Page poisoning is not offered, so that
//! a guest that relies on the contents of free pages does not report them (§5.5.6.5).

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use virtio_queue::DescriptorChain;
use vmm_sys_util::eventfd::EventFd;

use super::{ConfigSpace, Device, DeviceState, Fault, Io, Kind, Queue, StateError, read_config};
use crate::memory::GuestMemory;
use crate::reclaim;

const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_REPORTING: u64 = 1 << 5;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
/// Of the driver's statistics, if it accepted them.
const STATS: usize = 2;

/// Bytes that a page of the balloon stands for, whatever the guest's own pages are (§5.5.6).
const PAGE: u64 = 4096;
/// Most page numbers that are read from one request; Linux sends 256. The pages of more are not released, which
/// no driver can tell.
const MOST_PAGES: usize = 4096;
/// Most ranges that are released of one report; Linux sends 32.
const MOST_RANGES: usize = 256;
/// Bytes of one statistic: a 16-bit tag and a 64-bit value (§5.5.6.3).
const STATISTIC: usize = 10;
const MOST_STATISTICS: usize = 64;
const S_AVAIL: u16 = 6;

/// Bytes of the configuration space: `num_pages`, `actual`, and two fields of features that are not offered (§5.5.4).
const CONFIG: usize = 16;
const ACTUAL: usize = 4;

/// The host's side of a balloon.
pub struct Control {
    size: Arc<Mutex<Size>>,
    /// Signalled when the driver must hear of something.
    wake: EventFd,
    resized: AtomicBool,
    asked: AtomicBool,
    reported: AtomicU64,
    available: AtomicU64,
}

/// The configuration space, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Size {
    target: u32,
    actual: u32,
}

/// What the guest did not tell.
const UNKNOWN: u64 = u64::MAX;

impl Control {
    /// A balloon that is to hold nothing.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            size: Arc::default(),
            wake: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            resized: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            reported: AtomicU64::new(0),
            available: AtomicU64::new(UNKNOWN),
        }))
    }

    /// Asks the guest to do without `bytes`, cut to whole pages.
    pub fn resize(&self, bytes: u64) {
        self.size().target = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.resized.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Bytes that the balloon is to hold.
    pub fn target(&self) -> u64 {
        u64::from(self.size().target) * PAGE
    }

    /// Bytes that it holds, as the driver says.
    pub fn actual(&self) -> u64 {
        u64::from(self.size().actual) * PAGE
    }

    /// Bytes that the guest reported as free and that were released.
    pub fn reported(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    /// Bytes that the guest could do without, as it last said. Asks it for a newer figure.
    pub fn available(&self) -> Option<u64> {
        self.asked.store(true, Ordering::SeqCst);
        self.wake();
        Some(self.available.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    fn wake(&self) {
        // A full counter has already woken the device.
        let _ = self.wake.write(1);
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        // Fields are set one by one, each whole.
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConfigSpace for Size {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; CONFIG];
        space[..ACTUAL].copy_from_slice(&self.target.to_le_bytes());
        space[ACTUAL..ACTUAL + 4].copy_from_slice(&self.actual.to_le_bytes());
        read_config(&space, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (true, Ok(actual)) = (offset == ACTUAL as u64, data.try_into()) {
            self.actual = u32::from_le_bytes(actual);
        }
    }
}

/// The device.
pub struct Balloon {
    control: Arc<Control>,
    features: u64,
}

/// The whole state: what the host wants and what the driver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State(Size);

impl Balloon {
    /// The device that `control` controls.
    pub fn new(control: Arc<Control>) -> Self {
        Self { control, features: 0 }
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Takes pages into the balloon.
    fn inflate(&self, queue: &mut Queue) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        while let Some(mut chain) = queue.pop(&memory)? {
            let mut bytes = vec![0; chain.reader.available_bytes().min(MOST_PAGES * 4)];
            chain.reader.read_exact(&mut bytes)?;
            let mut pages: Vec<u32> =
                bytes.chunks_exact(4).filter_map(|page| page.try_into().ok()).map(u32::from_le_bytes).collect();
            pages.sort_unstable();
            // In runs as long as possible, so that huge pages go whole.
            for run in pages.chunk_by(|page, next| page.checked_add(1) == Some(*next)) {
                reclaim::release(&memory, u64::from(run[0]) * PAGE, run.len() as u64 * PAGE);
            }
            queue.push(chain.head, 0)?;
            queue.signal()?;
        }
        Ok(())
    }

    /// Gives back each chain unread: what leaves the balloon comes back by being touched.
    fn acknowledge(queue: &mut Queue) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        while let Some(chain) = queue.pop(&memory)? {
            queue.push(chain.head, 0)?;
            queue.signal()?;
        }
        Ok(())
    }

    /// Releases what the guest reports as free; it does not use it before the chain is back (§5.5.6.6).
    fn report(&self, queue: &mut Queue) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        while let Some((head, released)) =
            queue.pop_with(&memory, |head, chain| Some((head, release(&memory, chain))))?
        {
            self.control.reported.fetch_add(released, Ordering::Relaxed);
            queue.push(head, 0)?;
            queue.signal()?;
        }
        Ok(())
    }

    /// Reads the statistics and leaves their buffer in the queue until newer ones are wanted.
    fn look(&self, queue: &mut Queue) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        if let Some(mut chain) = queue.pop(&memory)? {
            let mut bytes = vec![0; chain.reader.available_bytes().min(MOST_STATISTICS * STATISTIC)];
            chain.reader.read_exact(&mut bytes)?;
            let available = statistic(&bytes, S_AVAIL).unwrap_or(UNKNOWN);
            self.control.available.store(available, Ordering::Relaxed);
            queue.unpop();
        }
        Ok(())
    }

    /// Gives the statistics' buffer back, which asks for newer ones.
    fn ask(queue: &mut Queue) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        if let Some(chain) = queue.pop(&memory)? {
            queue.push(chain.head, 0)?;
            queue.signal()?;
        }
        Ok(())
    }
}

/// Releases the ranges of a report and returns how many bytes they were: never more than there is memory, so that
/// a guest cannot keep the host busy by reporting the same again and again.
fn release(memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> u64 {
    let size: u64 = vm_memory::GuestMemoryBackend::iter(memory).map(vm_memory::GuestMemoryRegion::len).sum();
    let (mut left, mut released) = (size, 0);
    for range in chain.filter(|range| range.is_write_only()).take(MOST_RANGES) {
        let length = u64::from(range.len());
        let Some(rest) = left.checked_sub(length) else {
            break;
        };
        left = rest;
        released += reclaim::release(memory, range.addr().0, length);
    }
    released
}

/// The value with a tag.
fn statistic(bytes: &[u8], tag: u16) -> Option<u64> {
    let found = bytes.chunks_exact(STATISTIC).find(|entry| entry[..2] == tag.to_le_bytes())?;
    found[2..].try_into().ok().map(u64::from_le_bytes)
}

impl Device for Balloon {
    fn kind(&self) -> Kind {
        Kind::Balloon
    }

    /// The last two are both for reports: the fourth where drivers have them, which leave out the queue of a feature
    /// that was not agreed on (hints of free pages, statistics), the fifth where the specification has them (§5.5.2).
    fn queue_sizes(&self) -> &'static [u16] {
        &[128; 5]
    }

    fn features(&self) -> u64 {
        F_STATS_VQ | F_DEFLATE_ON_OOM | F_PAGE_REPORTING
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.control.size.clone()
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[index];
        match index {
            INFLATE => self.inflate(queue),
            DEFLATE => Self::acknowledge(queue),
            STATS if self.has(F_STATS_VQ) => self.look(queue),
            _ if self.has(F_PAGE_REPORTING) => self.report(queue),
            _ => Self::acknowledge(queue),
        }
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        interest.push((crate::event::borrow(&self.control.wake), PollFlags::IN));
    }

    fn source_ready(&mut self, _index: usize, _events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        // Reading resets the counter; it is non-blocking, and a spurious wake-up does no harm.
        let _ = self.control.wake.read();
        if self.control.resized.swap(false, Ordering::SeqCst) {
            io.interrupt.config_changed()?;
        }
        if self.control.asked.swap(false, Ordering::SeqCst) && self.has(F_STATS_VQ) {
            Self::ask(&mut io.queues[STATS])?;
        }
        Ok(())
    }

    /// The guest's memory is whole again; what the host wants stays.
    fn reset(&mut self) {
        self.features = 0;
        self.control.size().actual = 0;
        self.control.available.store(UNKNOWN, Ordering::Relaxed);
    }

    fn save(&self) -> DeviceState {
        DeviceState::Balloon(State(*self.control.size()))
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        match state {
            DeviceState::Balloon(State(size)) => {
                *self.control.size() = size;
                Ok(())
            }
            other => Err(StateError(format!("{other:?} instead of a balloon's"))),
        }
    }
}
