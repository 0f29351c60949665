//! The screen (virtio 1.2 §5.7), two dimensions.

use alloc::vec::Vec;

use super::{Buffer, Device, Error, PATIENCE_MS, Transport, kind};
use crate::{interrupt, memory};

/// The device describes its monitor.
pub const EDID: u64 = 1 << 1;

/// Control queue.
pub const CONTROL: u16 = 0;
/// Cursor queue.
pub const CURSOR: u16 = 1;

/// Blue, green, red, unused.
pub const B8G8R8X8: u32 = 2;
/// Blue, green, red, alpha.
pub const B8G8R8A8: u32 = 1;

/// Commands and answers (§5.7.6.7).
#[allow(missing_docs)]
pub mod command {
    pub const GET_DISPLAY_INFO: u32 = 0x100;
    pub const RESOURCE_CREATE_2D: u32 = 0x101;
    pub const RESOURCE_UNREF: u32 = 0x102;
    pub const SET_SCANOUT: u32 = 0x103;
    pub const RESOURCE_FLUSH: u32 = 0x104;
    pub const TRANSFER_TO_HOST_2D: u32 = 0x105;
    pub const RESOURCE_ATTACH_BACKING: u32 = 0x106;
    pub const RESOURCE_DETACH_BACKING: u32 = 0x107;
    pub const GET_EDID: u32 = 0x10a;
    pub const UPDATE_CURSOR: u32 = 0x300;
    pub const MOVE_CURSOR: u32 = 0x301;
    pub const OK_NODATA: u32 = 0x1100;
    pub const OK_DISPLAY_INFO: u32 = 0x1101;
    pub const OK_EDID: u32 = 0x1104;
}

/// A rectangle in pixels.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Bytes of a header, of a command or an answer.
const HEADER: usize = 24;
/// Bytes of the longest answer, the monitor's description.
const ANSWER: usize = HEADER + 8 + 1024;
const REQUEST: usize = 4096;

/// Writes a command as the device reads it: a header, then words.
fn encode_into(request: &mut [u8], command: u32, words: &[u32]) -> Buffer {
    let header = [command, 0, 0, 0, 0, 0];
    let length = HEADER + words.len() * 4;
    for (bytes, word) in request[..length].chunks_exact_mut(4).zip(header.iter().chain(words)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Buffer::read(&request[..length])
}

/// The gpu.
pub struct Gpu {
    /// The device, queue 0 for commands and 1 for the cursor.
    pub device: Device,
    request: &'static mut [u8],
    answer: &'static mut [u8],
}

impl Gpu {
    /// Brings up the gpu.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            device: Device::start(Transport::find(kind::GPU, 0)?, EDID, 2)?,
            request: memory::zeroed(REQUEST, 64),
            answer: memory::zeroed(ANSWER, 64),
        })
    }

    fn encode(&mut self, command: u32, words: &[u32]) -> Buffer {
        encode_into(self.request, command, words)
    }

    /// Hands over any request and returns the kind of the answer and what follows the answer's header.
    pub fn exchange(&mut self, queue: u16, request: Buffer) -> Result<(u32, &[u8]), Error> {
        self.answer.fill(0);
        let length = self.device.exchange(queue, &[request, Buffer::write(self.answer)])? as usize;
        let answer = self.answer.get(..length.max(HEADER)).ok_or(Error::Nonsense(length as u32))?;
        Ok((u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]), &answer[HEADER..]))
    }

    /// Sends a command and returns what follows the answer's header.
    pub fn command(&mut self, command: u32, words: &[u32], expected: u32) -> Result<&[u8], Error> {
        let request = self.encode(command, words);
        match self.exchange(CONTROL, request)? {
            (kind, answer) if kind == expected => Ok(answer),
            (kind, _) => Err(Error::Refused(kind)),
        }
    }

    fn simple(&mut self, command: u32, words: &[u32]) -> Result<(), Error> {
        self.command(command, words, command::OK_NODATA).map(drop)
    }

    /// The size that the first screen should have, if it is on.
    pub fn preferred_size(&mut self) -> Result<Option<(u32, u32)>, Error> {
        let info = self.command(command::GET_DISPLAY_INFO, &[], command::OK_DISPLAY_INFO)?;
        let word = |at: usize| u32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        Ok((word(16) != 0).then(|| (word(8), word(12))))
    }

    /// The monitor's description.
    pub fn edid(&mut self) -> Result<Vec<u8>, Error> {
        let answer = self.command(command::GET_EDID, &[0, 0], command::OK_EDID)?;
        let size = u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
        answer.get(8..8 + size).map(<[u8]>::to_vec).ok_or(Error::Nonsense(size as u32))
    }

    /// Creates a picture.
    pub fn create(&mut self, resource: u32, format: u32, width: u32, height: u32) -> Result<(), Error> {
        self.simple(command::RESOURCE_CREATE_2D, &[resource, format, width, height])
    }

    /// Gives a picture memory.
    pub fn attach(&mut self, resource: u32, memory: &[u32]) -> Result<(), Error> {
        self.attach_pieces(resource, &[(memory.as_ptr() as u64, size_of_val(memory) as u32)])
    }

    /// Gives a picture memory in pieces of any address and length.
    pub fn attach_pieces(&mut self, resource: u32, pieces: &[(u64, u32)]) -> Result<(), Error> {
        let mut words = alloc::vec![resource, pieces.len() as u32];
        for (address, length) in pieces {
            words.extend([*address as u32, (*address >> 32) as u32, *length, 0]);
        }
        self.simple(command::RESOURCE_ATTACH_BACKING, &words)
    }

    /// Takes a picture's memory away.
    pub fn detach(&mut self, resource: u32) -> Result<(), Error> {
        self.simple(command::RESOURCE_DETACH_BACKING, &[resource, 0])
    }

    /// Forgets a picture.
    pub fn unref(&mut self, resource: u32) -> Result<(), Error> {
        self.simple(command::RESOURCE_UNREF, &[resource, 0])
    }

    /// Shows a part of a picture, or nothing for resource 0.
    pub fn scan_out(&mut self, area: Rect, resource: u32) -> Result<(), Error> {
        self.simple(command::SET_SCANOUT, &[area.x, area.y, area.width, area.height, 0, resource])
    }

    /// Copies from guest memory, whose first pixel of the rectangle is at `offset`.
    pub fn transfer(&mut self, resource: u32, area: Rect, offset: u64) -> Result<(), Error> {
        let offset = [offset as u32, (offset >> 32) as u32];
        let words = [area.x, area.y, area.width, area.height, offset[0], offset[1], resource, 0];
        self.simple(command::TRANSFER_TO_HOST_2D, &words)
    }

    /// Shows what was copied.
    pub fn flush(&mut self, resource: u32, area: Rect) -> Result<(), Error> {
        self.simple(command::RESOURCE_FLUSH, &[area.x, area.y, area.width, area.height, resource, 0])
    }

    /// Copies a rectangle of a picture whose memory has rows of `stride` pixels, and shows it: both
    /// commands in one go.
    pub fn show(&mut self, resource: u32, area: Rect, stride: u32) -> Result<(), Error> {
        let offset = (area.y * stride + area.x) * 4;
        let both = [
            (command::TRANSFER_TO_HOST_2D, [area.x, area.y, area.width, area.height, offset, 0, resource, 0]),
            (command::RESOURCE_FLUSH, [area.x, area.y, area.width, area.height, resource, 0, 0, 0]),
        ];
        let half = REQUEST / 2;
        for (at, (command, words)) in both.iter().enumerate() {
            let request = encode_into(&mut self.request[at * half..], *command, words);
            let answer = Buffer::write(&mut self.answer[at * HEADER..][..HEADER]);
            self.device.queues[usize::from(CONTROL)].push(&[request, answer]);
        }
        self.device.transport.notify(CONTROL);
        for at in 0..both.len() {
            let device = &mut self.device;
            interrupt::wait_for(PATIENCE_MS, || device.take(CONTROL)).ok_or(Error::Silent(CONTROL))?;
            let answer = &self.answer[at * HEADER..];
            let kind = u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]);
            if kind != command::OK_NODATA {
                return Err(Error::Refused(kind));
            }
        }
        Ok(())
    }

    /// Puts a picture of 64×64 pixels at the pointer; resource 0 hides it.
    pub fn update_cursor(&mut self, resource: u32, hot: (u32, u32), at: (u32, u32)) -> Result<(), Error> {
        self.cursor(command::UPDATE_CURSOR, resource, hot, at)
    }

    /// Moves the pointer.
    pub fn move_cursor(&mut self, at: (u32, u32)) -> Result<(), Error> {
        self.cursor(command::MOVE_CURSOR, 0, (0, 0), at)
    }

    fn cursor(&mut self, command: u32, resource: u32, hot: (u32, u32), at: (u32, u32)) -> Result<(), Error> {
        let request = self.encode(command, &[0, at.0, at.1, 0, resource, hot.0, hot.1, 0]);
        // Like Linux, without room for an answer.
        self.device.exchange(CURSOR, &[request]).map(drop)
    }

    /// Whether the device would like to be asked again for its preferred size; forgets it.
    pub fn take_display_event(&mut self) -> bool {
        if !self.device.take_config_change() {
            return false;
        }
        let event = self.device.transport.config_u32(0) & 1 != 0;
        if event {
            self.device.transport.write(super::register::CONFIG + 4, 1);
        }
        event
    }
}
