//! A picture on the host's side and the guest memory that it is copied from.

use std::io;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use yunju_protocol::display::Rect;

use super::commands::{BackingEntry, Refusal};
use super::pixels::Pixels;
use crate::memory::GuestMemory;

/// Greatest width and height in pixels.
pub const MAX_SIDE: u32 = 16_384;

/// Bytes a pixel, in every format.
pub const PIXEL: u32 = 4;

/// Where the guest's formats (virtio 1.2 §5.7.6.8, `virtio_gpu_formats`) have blue, green, red and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// As in our buffers.
    Bgrx,
    /// The other way round.
    Xrgb,
    /// Red and blue exchanged.
    Rgbx,
    /// The rest first.
    Xbgr,
}

impl Format {
    /// The format of a number in a command.
    pub fn from_number(number: u32) -> Result<Self, Refusal> {
        match number {
            1 | 2 => Ok(Self::Bgrx),
            3 | 4 => Ok(Self::Xrgb),
            67 | 134 => Ok(Self::Rgbx),
            68 | 121 => Ok(Self::Xbgr),
            _ => Err(Refusal::InvalidParameter),
        }
    }

    /// Puts the bytes of pixels into the order of our buffers.
    fn convert(self, pixels: &mut [u8]) {
        let pixels = pixels.as_chunks_mut::<4>().0.iter_mut();
        match self {
            Self::Bgrx => {}
            Self::Xrgb => pixels.for_each(|pixel| pixel.reverse()),
            Self::Rgbx => pixels.for_each(|pixel| pixel.swap(0, 2)),
            Self::Xbgr => pixels.for_each(|pixel| pixel.rotate_left(1)),
        }
    }
}

/// A piece of guest memory, and where it is in the whole backing.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u64,
    address: GuestAddress,
    length: u32,
}

/// The guest memory of a resource: pieces in a row.
#[derive(Debug, Clone, Default)]
pub struct Backing {
    pieces: Vec<Piece>,
    length: u64,
}

impl Backing {
    /// Adds a piece, which must lie in memory.
    pub fn add(&mut self, entry: BackingEntry, memory: &GuestMemory) -> Result<(), Refusal> {
        let address = GuestAddress(entry.address);
        if !memory.check_range(address, entry.length as usize) {
            return Err(Refusal::InvalidParameter);
        }
        self.push(address, entry.length);
        Ok(())
    }

    fn push(&mut self, address: GuestAddress, length: u32) {
        if length > 0 {
            self.pieces.push(Piece { start: self.length, address, length });
            // No overflow: 2^32 pieces of 2^32 bytes at most, and far fewer are let in.
            self.length += u64::from(length);
        }
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Copies `bytes.len()` bytes from `offset`.
    fn read(&self, memory: &GuestMemory, offset: u64, mut bytes: &mut [u8]) -> Result<(), Refusal> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(Refusal::InvalidParameter);
        }
        let first = self.pieces.partition_point(|piece| piece.start + u64::from(piece.length) <= offset);
        let mut skip = self.pieces.get(first).map_or(0, |piece| offset - piece.start);
        for piece in &self.pieces[first..] {
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len().min((u64::from(piece.length) - skip) as usize);
            let (now, later) = bytes.split_at_mut(length);
            memory.read_slice(now, GuestAddress(piece.address.0 + skip)).map_err(|_| Refusal::InvalidParameter)?;
            bytes = later;
            skip = 0;
        }
        Ok(())
    }
}

/// A picture.
pub struct Resource {
    pub width: u32,
    pub height: u32,
    pub pixels: Pixels,
    pub backing: Option<Backing>,
    /// Its name on the display, once it was shown.
    pub buffer: Option<u32>,
    format: Format,
}

/// A resource's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub id: u32,
    format: Format,
    width: u32,
    height: u32,
    /// Address and length of each piece.
    backing: Option<Vec<(u64, u32)>>,
    #[serde(with = "crate::snapshot::bytes")]
    pixels: Vec<u8>,
}

/// Bytes of a picture of that size, if such a picture is allowed.
pub fn size(width: u32, height: u32) -> Option<usize> {
    let sides = 1..=MAX_SIDE;
    (sides.contains(&width) && sides.contains(&height)).then(|| (width * height * PIXEL) as usize)
}

impl Resource {
    /// A black picture whose size [`size`] allows.
    pub fn new(format: Format, width: u32, height: u32) -> io::Result<Self> {
        let length = size(width, height).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { width, height, pixels: Pixels::new(length)?, backing: None, buffer: None, format })
    }

    /// Bytes a row.
    pub fn stride(&self) -> u32 {
        self.width * PIXEL
    }

    /// Copies an area, which must lie in the picture, from the backing. `offset` is where its first pixel is
    /// there; the rows are as far apart as in the picture.
    pub fn transfer(&mut self, area: Rect, offset: u64, memory: &GuestMemory) -> Result<(), Refusal> {
        let backing = self.backing.as_ref().ok_or(Refusal::Unspecified)?;
        if area.is_empty() {
            return Ok(());
        }
        let stride = self.width as usize * PIXEL as usize;
        let start = area.y as usize * stride + area.x as usize * PIXEL as usize;
        let row = area.width as usize * PIXEL as usize;
        let rows = area.height as usize;
        // Whole rows lie one behind the other on both sides.
        let (length, count) = if row == stride { (row * rows, 1) } else { (row, rows) };
        for index in 0..count {
            let from = offset.checked_add((index * stride) as u64).ok_or(Refusal::InvalidParameter)?;
            let at = start + index * stride;
            let pixels = &mut self.pixels.bytes_mut()[at..at + length];
            backing.read(memory, from, pixels)?;
            self.format.convert(pixels);
        }
        Ok(())
    }

    /// The state of the resource that the guest calls `id`.
    pub fn save(&self, id: u32) -> State {
        let list = |backing: &Backing| backing.pieces.iter().map(|piece| (piece.address.0, piece.length)).collect();
        State {
            id,
            format: self.format,
            width: self.width,
            height: self.height,
            backing: self.backing.as_ref().map(list),
            pixels: self.pixels.bytes().to_vec(),
        }
    }

    /// The resource of a state; `None` if its size is not allowed or not that of its pixels.
    pub fn restore(state: &State) -> io::Result<Self> {
        let mut resource = Self::new(state.format, state.width, state.height)?;
        if resource.pixels.bytes().len() != state.pixels.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        resource.pixels.bytes_mut().copy_from_slice(&state.pixels);
        resource.backing = state.backing.as_ref().map(|pieces| {
            let mut backing = Backing::default();
            pieces.iter().for_each(|(address, length)| backing.push(GuestAddress(*address), *length));
            backing
        });
        Ok(resource)
    }
}
