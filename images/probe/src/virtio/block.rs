//! Disks (virtio 1.2 §5.2).

use super::{Buffer, Device, Error, Transport, kind};

/// The device is read-only.
pub const READ_ONLY: u64 = 1 << 5;
/// Flush requests are understood.
pub const FLUSH: u64 = 1 << 9;
/// Discard requests are understood.
pub const DISCARD: u64 = 1 << 13;
/// Write-zeroes requests are understood.
pub const WRITE_ZEROES: u64 = 1 << 14;

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Request types.
#[allow(missing_docs)]
pub mod request {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// Answers.
#[allow(missing_docs)]
pub mod answer {
    pub const OK: u8 = 0;
    pub const IO_ERROR: u8 = 1;
    pub const UNSUPPORTED: u8 = 2;
}

#[repr(C)]
struct Header {
    request: u32,
    reserved: u32,
    sector: u64,
}

#[repr(C)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

/// A disk.
pub struct Disk {
    /// The device, queue 0 for requests.
    pub device: Device,
}

impl Disk {
    /// Brings up the `nth` disk.
    pub fn open(nth: usize) -> Result<Self, Error> {
        let wanted = READ_ONLY | FLUSH | DISCARD | WRITE_ZEROES;
        Ok(Self { device: Device::start(Transport::find(kind::BLOCK, nth)?, wanted, 1)? })
    }

    /// Sectors.
    pub fn sectors(&self) -> u64 {
        self.device.transport.config_u64(0)
    }

    /// Whether the device agreed on a feature.
    pub fn has(&self, feature: u64) -> bool {
        self.device.features & feature != 0
    }

    /// One request of any type with any buffers between header and status.
    pub fn request(&mut self, request: u32, sector: u64, data: &[Buffer]) -> Result<(), Error> {
        let header = Header { request, reserved: 0, sector };
        let mut status = 0xff_u8;
        let mut chain = alloc::vec![Buffer::read(&header)];
        chain.extend_from_slice(data);
        chain.push(Buffer::write(&mut status));
        self.device.exchange(0, &chain)?;
        match core::hint::black_box(&mut status) {
            0 => Ok(()),
            other => Err(Error::Refused(u32::from(*other))),
        }
    }

    /// Reads whole sectors.
    pub fn read(&mut self, sector: u64, data: &mut [u8]) -> Result<(), Error> {
        self.request(request::READ, sector, &[Buffer::write(data)])
    }

    /// Writes whole sectors.
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Error> {
        self.request(request::WRITE, sector, &[Buffer::read(data)])
    }

    /// Makes what was written durable.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.request(request::FLUSH, 0, &[])
    }

    /// Gives sectors back, or zeroes them.
    pub fn clear(&mut self, request: u32, sector: u64, sectors: u32) -> Result<(), Error> {
        self.request(request, 0, &[Buffer::read(&Range { sector, sectors, flags: 0 })])
    }

    /// The disk's name.
    pub fn id(&mut self) -> Result<[u8; 20], Error> {
        let mut id = [0; 20];
        self.request(request::GET_ID, 0, &[Buffer::write(&mut id)])?;
        Ok(*core::hint::black_box(&mut id))
    }
}
