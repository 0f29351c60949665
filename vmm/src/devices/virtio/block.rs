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
        (whole && inside).then_some(sector * SECTOR)
    }

    fn read(&mut self, sector: u64, writer: &mut Writer<'_>) -> Outcome {
        let total = writer.available_bytes();
        let Some(mut offset) = self.place(sector, total as u64) else {
            return Outcome::Failed;
        };
        self.buffer.resize(total.min(PIECE), 0);
        let mut left = total;
        while left > 0 {
            let piece = &mut self.buffer[..left.min(PIECE)];
            if self.file.read_exact_at(piece, offset).and_then(|()| writer.write_all(piece)).is_err() {
                return Outcome::Failed;
            }
            offset += piece.len() as u64;
            left -= piece.len();
        }
        self.traffic.read.fetch_add(total as u64, Ordering::Relaxed);
        Outcome::Done
    }

    fn write(&mut self, sector: u64, reader: &mut Reader<'_>) -> Outcome {
        let total = reader.available_bytes();
        let Some(mut offset) = self.place(sector, total as u64) else {
            return Outcome::Failed;
        };
        self.buffer.resize(total.min(PIECE), 0);
        let mut left = total;
        while left > 0 {
            let piece = &mut self.buffer[..left.min(PIECE)];
            if reader.read_exact(piece).and_then(|()| self.file.write_all_at(piece, offset)).is_err() {
                return Outcome::Failed;
            }
            offset += piece.len() as u64;
            left -= piece.len();
        }
        self.traffic.written.fetch_add(total as u64, Ordering::Relaxed);
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
