//! Block device (virtio 1.2 §5.2) on a raw file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use virtio_queue::{Reader, Writer};
use vm_memory::ByteValued;

use super::{Chain, ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};

/// Bytes of a sector, the unit of every address and length (§5.2).
pub const SECTOR: u64 = 512;

/// Longest list of ranges of one discard or write-zeroes request.
const MAX_RANGES: u32 = 32;
/// Longest piece that is copied between file and guest at once.
const PIECE: usize = 256 << 10;
/// Bytes of a device's serial number (§5.2.6).
const SERIAL_LENGTH: usize = 20;

const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// Bytes moved by all disks of a machine.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes read.
    pub read: AtomicU64,
    /// Bytes written.
    pub written: AtomicU64,
}

/// A disk. All its state is in its file and configuration: a request is finished before the next is taken.
pub struct Block {
    file: File,
    sectors: u64,
    readonly: bool,
    serial: [u8; SERIAL_LENGTH],
    config: Arc<Mutex<Vec<u8>>>,
    traffic: Arc<Traffic>,
    buffer: Vec<u8>,
}

/// A disk's state: what a restored machine's disk must have in common with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    sectors: u64,
    readonly: bool,
}

/// §5.2.6
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RequestHeader {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// §5.2.6.1
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

// SAFETY: integers only, without padding.
unsafe impl ByteValued for RequestHeader {}
// SAFETY: integers only, without padding.
unsafe impl ByteValued for Range {}

impl Block {
    /// A disk on `file`, whose length is a multiple of [`SECTOR`]. `serial` is cut to 20 bytes.
    pub fn new(file: File, readonly: bool, serial: &str, traffic: Arc<Traffic>) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR;
        let mut id = [0; SERIAL_LENGTH];
        let length = serial.len().min(SERIAL_LENGTH);
        id[..length].copy_from_slice(&serial.as_bytes()[..length]);
        let config = Arc::new(Mutex::new(configuration(sectors)));
        Ok(Self { file, sectors, readonly, serial: id, config, traffic, buffer: Vec::new() })
    }

    /// Carries one request out and returns how many bytes of the chain were written.
    fn request(&mut self, chain: &mut Chain<'_>) -> Result<u32, Fault> {
        let writable = chain.writer.available_bytes();
        let Some(data_length) = writable.checked_sub(1) else {
            // Without room for a status there is no way to answer.
            return Ok(0);
        };
        let mut status = chain.writer.split_at(data_length)?;
        let outcome = match chain.reader.read_obj::<RequestHeader>() {
            Ok(header) => self.execute(header, &mut chain.reader, &mut chain.writer),
            Err(_) => Outcome::Failed,
        };
        let code = match outcome {
            Outcome::Done => S_OK,
            Outcome::Failed => S_IOERR,
            Outcome::Unsupported => S_UNSUPP,
        };
        status.write_all(&[code])?;
        // The length counts from the chain's first writable byte to the last one written: the status.
        Ok(u32::try_from(writable).unwrap_or(u32::MAX))
    }

    fn execute(&mut self, header: RequestHeader, reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> Outcome {
        match header.kind {
            T_IN => self.read(header.sector, writer),
            T_OUT if self.readonly => Outcome::Failed,
            T_OUT => self.write(header.sector, reader),
            T_FLUSH => self.file.sync_data().into(),
            T_GET_ID => writer.write_all(&self.serial[..SERIAL_LENGTH.min(writer.available_bytes())]).into(),
            T_DISCARD | T_WRITE_ZEROES if self.readonly => Outcome::Failed,
            T_DISCARD | T_WRITE_ZEROES => self.clear(reader, header.kind == T_WRITE_ZEROES),
            _ => Outcome::Unsupported,
        }
    }

    /// Where `length` bytes from `sector` are in the file; `None` if they are not all on the disk.
    fn place(&self, sector: u64, length: u64) -> Option<u64> {
        let whole = length.is_multiple_of(SECTOR);
        let inside = sector.checked_add(length / SECTOR)? <= self.sectors;
        (whole && inside).then(|| sector * SECTOR)
    }

    fn read(&mut self, sector: u64, writer: &mut Writer<'_>) -> Outcome {
        let total = writer.available_bytes();
        let outcome = self.move_pieces(sector, total, |file, piece, offset| {
            file.read_exact_at(piece, offset)?;
            writer.write_all(piece)
        });
        if matches!(outcome, Outcome::Done) {
            self.traffic.read.fetch_add(total as u64, Ordering::Relaxed);
        }
        outcome
    }

    fn write(&mut self, sector: u64, reader: &mut Reader<'_>) -> Outcome {
        let total = reader.available_bytes();
        let outcome = self.move_pieces(sector, total, |file, piece, offset| {
            reader.read_exact(piece)?;
            file.write_all_at(piece, offset)
        });
        if matches!(outcome, Outcome::Done) {
            self.traffic.written.fetch_add(total as u64, Ordering::Relaxed);
        }
        outcome
    }

    /// Moves `total` bytes at `sector` between the file and the guest, through a buffer of bounded length.
    fn move_pieces(
        &mut self,
        sector: u64,
        total: usize,
        mut move_piece: impl FnMut(&File, &mut [u8], u64) -> io::Result<()>,
    ) -> Outcome {
        let Some(mut offset) = self.place(sector, total as u64) else {
            return Outcome::Failed;
        };
        self.buffer.resize(total.min(PIECE), 0);
        let mut left = total;
        while left > 0 {
            let piece = &mut self.buffer[..left.min(PIECE)];
            if move_piece(&self.file, piece, offset).is_err() {
                return Outcome::Failed;
            }
            offset += piece.len() as u64;
            left -= piece.len();
        }
        Outcome::Done
    }

    /// Discards or zeroes ranges: both punch holes, which read as zeros and take no room.
    fn clear(&mut self, reader: &mut Reader<'_>, zero: bool) -> Outcome {
        let size = size_of::<Range>();
        if !reader.available_bytes().is_multiple_of(size) || reader.available_bytes() / size > MAX_RANGES as usize {
            return Outcome::Failed;
        }
        while let Ok(range) = reader.read_obj::<Range>() {
            // Bit 0 asks for unmapping and exists only for write-zeroes (§5.2.6.2).
            if range.flags & !u32::from(zero) != 0 {
                return Outcome::Unsupported;
            }
            let length = u64::from(range.sectors) * SECTOR;
            let Some(offset) = self.place(range.sector, length) else {
                return Outcome::Failed;
            };
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let cleared = length == 0 || fallocate(self.file.as_fd(), hole, offset, length).is_ok();
            if !cleared && zero && self.write_zeros(offset, length).is_err() {
                return Outcome::Failed;
            }
        }
        Outcome::Done
    }

    /// For file systems that cannot punch holes.
    fn write_zeros(&mut self, mut offset: u64, mut length: u64) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(PIECE, 0);
        while length > 0 {
            let piece = length.min(PIECE as u64);
            self.file.write_all_at(&self.buffer[..piece as usize], offset)?;
            offset += piece;
            length -= piece;
        }
        Ok(())
    }
}

enum Outcome {
    Done,
    Failed,
    Unsupported,
}

impl From<io::Result<()>> for Outcome {
    fn from(result: io::Result<()>) -> Self {
        if result.is_ok() { Self::Done } else { Self::Failed }
    }
}

/// The configuration space (§5.2.4).
fn configuration(sectors: u64) -> Vec<u8> {
    let mut space = vec![0; 60];
    space[0..8].copy_from_slice(&sectors.to_le_bytes());
    let longest = u32::MAX / SECTOR as u32;
    let mut put = |offset: usize, value: u32| space[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    put(20, SECTOR as u32); // blk_size
    put(36, longest); // max_discard_sectors
    put(40, MAX_RANGES); // max_discard_seg
    put(44, 8); // discard_sector_alignment: 4 KiB, what file systems can free
    put(48, longest); // max_write_zeroes_sectors
    put(52, MAX_RANGES); // max_write_zeroes_seg
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
        F_FLUSH | if self.readonly { F_RO } else { F_DISCARD | F_WRITE_ZEROES }
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[index];
        let memory = queue.memory().clone();
        while let Some(mut chain) = queue.pop(&memory)? {
            let written = self.request(&mut chain)?;
            queue.push(chain.head, written)?;
            queue.signal()?;
        }
        Ok(())
    }

    fn save(&self) -> DeviceState {
        DeviceState::Block(State { sectors: self.sectors, readonly: self.readonly })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let own = self.save();
        if state == own { Ok(()) } else { Err(StateError(format!("{state:?} instead of {own:?}"))) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Driver, MEMORY, WRITE};
    use super::*;

    fn disk(contents: &[u8], readonly: bool) -> (Block, File) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(contents, 0).unwrap();
        let own = file.try_clone().unwrap();
        (Block::new(file, readonly, "a-serial-number-that-is-too-long", Arc::default()).unwrap(), own)
    }

    fn header(kind: u32, sector: u64) -> Vec<u8> {
        RequestHeader { kind, reserved: 0, sector }.as_slice().to_vec()
    }

    fn pattern(sectors: usize) -> Vec<u8> {
        (0..sectors * 512).map(|index| (index / 512 + index % 251) as u8).collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_is_in_the_file() {
        let (mut disk, file) = disk(&pattern(16), false);
        let mut driver = Driver::new(&disk);
        let read = driver.request(&mut disk, 0, &[&header(T_IN, 3)], 1025);
        assert_eq!((&read[..1024], read[1024]), (&pattern(16)[3 * 512..5 * 512], S_OK));
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, 4), &[7; 512]], 1), [S_OK]);
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_FLUSH, 0)], 1), [S_OK]);
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 4 * 512).unwrap();
        assert_eq!(sector, [7; 512]);
        assert_eq!(disk.traffic.read.load(Ordering::Relaxed), 1024);
        assert_eq!(disk.traffic.written.load(Ordering::Relaxed), 512);
        assert!(driver.interrupted());
    }

    #[test]
    fn a_request_beyond_the_end_or_with_half_a_sector_fails_and_changes_nothing() {
        let (mut disk, file) = disk(&pattern(4), false);
        let mut driver = Driver::new(&disk);
        for (sector, length) in [(3, 1024), (4, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
            let answer = driver.request(&mut disk, 0, &[&header(T_IN, sector)], length + 1);
            assert_eq!(*answer.last().unwrap(), S_IOERR, "read of {length} at {sector}");
            assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, sector), &vec![1; length]], 1), [S_IOERR]);
        }
        let mut after = vec![0; 2048];
        file.read_exact_at(&mut after, 0).unwrap();
        assert_eq!((after, file.metadata().unwrap().len()), (pattern(4), 2048));
    }

    #[test]
    fn a_readonly_disk_refuses_every_change() {
        let (mut disk, _) = disk(&pattern(4), true);
        assert_eq!(disk.features() & (F_RO | F_DISCARD), F_RO);
        let mut driver = Driver::new(&disk);
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, 0), &[1; 512]], 1), [S_IOERR]);
        let range = Range { sector: 0, sectors: 1, flags: 0 };
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), range.as_slice()], 1), [S_IOERR]);
    }

    #[test]
    fn discarded_and_zeroed_ranges_read_as_zeros() {
        let (mut disk, file) = disk(&pattern(64), false);
        let mut driver = Driver::new(&disk);
        for (kind, sector) in [(T_DISCARD, 8), (T_WRITE_ZEROES, 24)] {
            let range = Range { sector, sectors: 8, flags: 0 };
            assert_eq!(driver.request(&mut disk, 0, &[&header(kind, 0), range.as_slice()], 1), [S_OK]);
            let mut cleared = vec![1; 4096];
            file.read_exact_at(&mut cleared, sector * 512).unwrap();
            assert!(cleared.iter().all(|byte| *byte == 0));
        }
        let outside = Range { sector: 60, sectors: 8, flags: 0 };
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), outside.as_slice()], 1), [S_IOERR]);
        let unknown = Range { sector: 0, sectors: 8, flags: 6 };
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), unknown.as_slice()], 1), [S_UNSUPP]);
    }

    #[test]
    fn the_serial_number_is_cut_and_unknown_requests_are_unsupported() {
        let (mut disk, _) = disk(&pattern(1), false);
        let mut driver = Driver::new(&disk);
        let answer = driver.request(&mut disk, 0, &[&header(T_GET_ID, 0)], 21);
        assert_eq!((&answer[..20], answer[20]), (&b"a-serial-number-that"[..], S_OK));
        assert_eq!(driver.request(&mut disk, 0, &[&header(99, 0)], 1), [S_UNSUPP]);
        assert_eq!(driver.request(&mut disk, 0, &[&[1, 2, 3]], 1), [S_IOERR]);
    }

    #[test]
    fn the_state_round_trips_and_another_disks_is_refused() {
        let (mut small, _) = disk(&pattern(1), false);
        let (large, _) = disk(&pattern(2), false);
        let json = serde_json::to_string(&small.save()).unwrap();
        small.restore(serde_json::from_str(&json).unwrap()).unwrap();
        assert!(small.restore(large.save()).is_err());
    }

    proptest! {
        #[test]
        fn any_chain_is_answered_or_faults(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            chain in proptest::collection::vec((MEMORY / 2..2 * MEMORY, 0u32..1 << 20, any::<bool>()), 1..6),
        ) {
            let (mut disk, _) = disk(&pattern(8), false);
            let mut driver = Driver::new(&disk);
            let start = driver.place(&bytes);
            let mut descriptors = vec![(start, bytes.len() as u32, 0)];
            descriptors.extend(chain.iter().map(|(at, length, write)| (*at, *length, if *write { WRITE } else { 0 })));
            driver.send_raw(0, &descriptors);
            let _ = driver.kick(&mut disk, 0);
            while driver.used(0).is_some() {}
            // The disk still works.
            let answer = driver.request(&mut disk, 0, &[&header(T_IN, 0)], 513);
            prop_assert_eq!(answer[512], S_OK);
        }
    }
}
