//! Block device (virtio 1.2 §5.2) on a [`Disk`].
//!
//! ```text
//!   driver ─ chains ─▶ job ─ operations ─▶ engine ─▶ files
//!      ▲               one request         many in flight
//!      └── status ── requests ◀── ends ────┘
//! ```
//!
//! A request is cut into operations of the engine, each with the guest's own buffers; it is answered when its last one has
//! ended. The next request is taken while those of others are still in flight. What waits is bounded: by
//! [`MAX_REQUESTS`], [`MAX_OPERATIONS`] and the longest chain.

mod flush;
mod request;
mod slots;
#[cfg(test)]
mod tests;
mod work;

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use self::flush::Flushes;
use self::slots::Slots;
use self::work::{Job, Pending, Running};
use super::limit::Limit;
use super::{ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};
use crate::disk::engine::Engine;
use crate::disk::{BLOCK, Disk, SECTOR};

/// Longest list of ranges of one discard or write-zeroes request.
const MAX_RANGES: u32 = 32;
/// Longest list of pieces of a read or write that drivers are asked to keep to: header and status need a descriptor each.
const MAX_SEGMENTS: u32 = 254;
/// Requests that were taken and not answered yet, flushes among them.
const MAX_REQUESTS: usize = 256;
/// Operations in flight before no further one is begun.
const MAX_OPERATIONS: usize = 128;
/// Bytes of a device's serial number (§5.2.6).
const SERIAL_LENGTH: usize = 20;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Bytes moved by all disks of a machine.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes read.
    pub read: AtomicU64,
    /// Bytes written.
    pub written: AtomicU64,
}

/// Makes an engine on the thread that will use it.
pub type MakeEngine = Box<dyn FnMut() -> Box<dyn Engine> + Send>;

/// A disk. All its state is in its files and configuration: when it does not run, every request is answered.
pub struct Block {
    /// While the device runs, on the device's thread. Dropped before the disk.
    engine: Option<Box<dyn Engine>>,
    make_engine: MakeEngine,
    disk: Disk,
    serial: [u8; SERIAL_LENGTH],
    config: Arc<Mutex<Vec<u8>>>,
    traffic: Arc<Traffic>,
    limit: Option<Limit>,
    /// The request whose operations are being begun.
    job: Option<Job>,
    requests: Slots<Pending>,
    operations: Slots<Running>,
    flushes: Flushes,
    /// Requests all of whose operations were begun, and whether that failed.
    ended: Vec<(usize, bool)>,
    /// The operation in flight allows no other besides it.
    alone: bool,
    /// Chains were given back of which the driver was not told.
    answered: bool,
}

/// A disk's state: what a restored machine's disk must have in common with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    sectors: u64,
    readonly: bool,
}

impl Block {
    /// A device on `disk`. `serial` is cut to 20 bytes.
    pub fn new(disk: Disk, serial: &str, limit: Option<Limit>, traffic: Arc<Traffic>, make_engine: MakeEngine) -> Self {
        let mut id = [0; SERIAL_LENGTH];
        let length = serial.len().min(SERIAL_LENGTH);
        id[..length].copy_from_slice(&serial.as_bytes()[..length]);
        let config = Arc::new(Mutex::new(configuration(disk.length() / SECTOR)));
        Self {
            engine: None,
            make_engine,
            disk,
            serial: id,
            config,
            traffic,
            limit,
            job: None,
            requests: Slots::default(),
            operations: Slots::default(),
            flushes: Flushes::default(),
            ended: Vec::new(),
            alone: false,
            answered: false,
        }
    }

    fn engine(&mut self) -> &mut dyn Engine {
        self.engine.get_or_insert_with(&mut self.make_engine).as_mut()
    }
}

/// A device on a raw file, for the tests of others.
#[cfg(test)]
pub fn raw_for_tests(file: File) -> Block {
    let disk = Disk::open(vec![("disk".into(), file)], true).expect("a raw file");
    Block::new(disk, "disk", None, Arc::default(), Box::new(crate::disk::engine::best))
}

/// The configuration space (§5.2.4).
fn configuration(sectors: u64) -> Vec<u8> {
    let mut space = vec![0; 60];
    space[0..8].copy_from_slice(&sectors.to_le_bytes());
    let longest = u32::MAX / SECTOR as u32;
    let mut put = |offset: usize, value: u32| space[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    put(12, MAX_SEGMENTS); // seg_max
    put(20, SECTOR as u32); // blk_size
    put(36, longest); // max_discard_sectors
    put(40, MAX_RANGES); // max_discard_seg
    put(44, (BLOCK / SECTOR) as u32); // discard_sector_alignment: what file systems can free
    put(48, longest); // max_write_zeroes_sectors
    put(52, MAX_RANGES); // max_write_zeroes_seg
    space[24] = 3; // topology: 2^3 sectors are a physical block, which a write should not be smaller than
    space[26] = 8; // topology: min_io_size in sectors
    space[56] = 1; // write_zeroes_may_unmap
    space
}

impl Device for Block {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[256]
    }

    fn features(&self) -> u64 {
        let writable = if self.disk.is_writable() { F_DISCARD | F_WRITE_ZEROES } else { F_RO };
        F_FLUSH | F_SEG_MAX | F_BLK_SIZE | F_TOPOLOGY | writable
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn queue_ready(&mut self, _index: usize, io: &mut Io) -> Result<(), Fault> {
        self.work(io)
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let ends = self.engine.as_ref().and_then(|engine| engine.source());
        let time = self.limit.as_ref().and_then(Limit::source);
        interest.extend(ends.into_iter().chain(time).map(|source| (source, PollFlags::IN)));
    }

    fn source_ready(&mut self, _index: usize, _events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        if let Some(limit) = &mut self.limit {
            limit.ask_again();
        }
        self.work(io)
    }

    fn settle(&mut self, io: &mut Io) -> Result<(), Fault> {
        let settled = self.finish_all(io);
        self.engine = None;
        settled
    }

    fn new_layer(&mut self, file: File) -> io::Result<()> {
        if !self.disk.is_writable() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the guest cannot write to this disk"));
        }
        self.flush_now()?;
        self.disk.add_layer(file).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.disk.is_writable() { self.flush_now() } else { Ok(()) }
    }

    fn reset(&mut self) {
        // After a fault in `settle` something may be left; the engine, which waits for its operations, is gone.
        self.job = None;
        self.requests = Slots::default();
        self.operations = Slots::default();
        self.flushes.reset();
        self.ended.clear();
        (self.alone, self.answered) = (false, false);
    }

    fn save(&self) -> DeviceState {
        let readonly = !self.disk.is_writable();
        DeviceState::Block(State { sectors: self.disk.length() / SECTOR, readonly })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let own = self.save();
        if state == own { Ok(()) } else { Err(StateError(format!("{state:?} instead of {own:?}"))) }
    }
}

impl Drop for Block {
    /// A machine that ends leaves nothing behind that only its memory knew.
    fn drop(&mut self) {
        self.engine = None;
        if self.disk.has_new_bits()
            && let Err(error) = self.flush_now()
        {
            eprintln!("yunju-vmm: a disk could not be flushed at the end: {error}");
        }
    }
}
