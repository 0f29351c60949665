//! The buffers that a machine's guest draws in.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use yunju_protocol::display::Rect;

use super::mapping::{self, Mapping};
use crate::picture::{MAX_SIDE, is_size};

/// Most buffers of a machine at a time.
const MAX_BUFFERS: usize = 64;

/// Most bytes from one row to the next: wide pictures with generous padding.
const MAX_STRIDE: u32 = MAX_SIDE * 4 * 2;

/// What a machine said of its buffers that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A buffer's size.
    #[error("the machine announced a buffer of {width}x{height} pixels with rows of {stride} bytes")]
    Size {
        /// Said width.
        width: u32,
        /// Said height.
        height: u32,
        /// Said bytes a row.
        stride: u32,
    },
    /// Too many buffers.
    #[error("the machine announced more than {MAX_BUFFERS} buffers")]
    TooMany,
    /// A buffer's id is taken.
    #[error("the machine announced buffer {0}, which is there already")]
    Taken(u32),
    /// A buffer without descriptor.
    #[error("the machine announced buffer {0} without a descriptor")]
    NoDescriptor(u32),
    /// A buffer that is not there.
    #[error("the machine spoke of buffer {0}, which is not there")]
    Unknown(u32),
    /// A frame outside of its buffer.
    #[error("the machine showed {area:?} of a buffer of {width}x{height} pixels")]
    Outside {
        /// Said area.
        area: Rect,
        /// The buffer's width.
        width: u32,
        /// The buffer's height.
        height: u32,
    },
    /// The memory cannot be used.
    #[error("the machine's buffer {id} cannot be mapped: {error}")]
    Mapping {
        /// The buffer.
        id: u32,
        /// Why not.
        error: mapping::Error,
    },
}

/// The buffers that a machine's guest draws in.
#[derive(Default)]
pub struct Buffers(HashMap<u32, Buffer>);

struct Buffer {
    width: u32,
    height: u32,
    stride: u32,
    memory: Mapping,
}

/// A part of a buffer that is the screen's picture.
pub struct Frame<'a> {
    buffer: &'a Buffer,
    area: Rect,
}

impl Buffers {
    /// Maps a new buffer.
    pub fn insert(&mut self, id: u32, width: u32, height: u32, stride: u32, fd: Option<OwnedFd>) -> Result<(), Error> {
        if !is_size(width, height) || stride < width * 4 || stride > MAX_STRIDE {
            return Err(Error::Size { width, height, stride });
        }
        if self.0.len() == MAX_BUFFERS {
            return Err(Error::TooMany);
        }
        if self.0.contains_key(&id) {
            return Err(Error::Taken(id));
        }
        let fd = fd.ok_or(Error::NoDescriptor(id))?;
        let length = stride as usize * height as usize;
        let memory = Mapping::new(&fd, length).map_err(|error| Error::Mapping { id, error })?;
        self.0.insert(id, Buffer { width, height, stride, memory });
        Ok(())
    }

    /// Unmaps a buffer.
    pub fn remove(&mut self, id: u32) -> Result<(), Error> {
        self.0.remove(&id).map(drop).ok_or(Error::Unknown(id))
    }

    /// A part of a buffer, checked to lie inside.
    pub fn frame(&self, id: u32, area: Rect) -> Result<Frame<'_>, Error> {
        let buffer = self.0.get(&id).ok_or(Error::Unknown(id))?;
        let whole = Rect::of_size(buffer.width, buffer.height);
        if area.is_empty() || area.intersection(&whole) != area {
            return Err(Error::Outside { area, width: buffer.width, height: buffer.height });
        }
        Ok(Frame { buffer, area })
    }
}

impl Frame<'_> {
    /// Reads a row's pixels from the column `x` of the picture on; false if they lie outside.
    pub fn read(&self, x: u32, y: u32, row: &mut [u32]) -> bool {
        let at = (self.area.y as usize + y as usize) * self.buffer.stride as usize;
        self.buffer.memory.read(at + (self.area.x as usize + x as usize) * 4, row)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn memory(length: u64, seals: SealFlags) -> Option<OwnedFd> {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, length).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        Some(fd)
    }

    #[test]
    fn a_buffer_is_read_at_its_stride_and_area() {
        let fd = memory(2 * 20, SealFlags::SHRINK).unwrap();
        let bytes: Vec<u8> = (0..40).collect();
        rustix::io::pwrite(&fd, &bytes, 0).unwrap();
        let mut buffers = Buffers::default();
        buffers.insert(1, 4, 2, 20, Some(fd)).unwrap();
        let frame = buffers.frame(1, Rect { x: 1, y: 1, width: 3, height: 1 }).unwrap();
        let mut row = [0; 2];
        assert!(frame.read(1, 0, &mut row));
        assert_eq!(row, [0x1e1d1c, 0x222120], "blue, green, red, and the fourth byte masked");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let mut buffers = Buffers::default();
        for (width, height, stride) in
            [(0, 1, 4), (1, 0, 4), (16385, 1, 65540), (16384, 16384, 65536), (4, 4, 15), (1, 1, u32::MAX)]
        {
            let refused = buffers.insert(1, width, height, stride, memory(4096, SealFlags::SHRINK));
            assert_eq!(refused, Err(Error::Size { width, height, stride }));
        }
    }

    #[test]
    fn memory_that_could_vanish_is_refused() {
        let mut buffers = Buffers::default();
        let unsealed = buffers.insert(1, 4, 4, 16, memory(64, SealFlags::GROW));
        assert_eq!(unsealed, Err(Error::Mapping { id: 1, error: mapping::Error::NotSealed }));
        let short = buffers.insert(1, 4, 4, 16, memory(63, SealFlags::SHRINK));
        assert_eq!(short, Err(Error::Mapping { id: 1, error: mapping::Error::TooShort { length: 63, needed: 64 } }));
        assert_eq!(buffers.insert(1, 4, 4, 16, None), Err(Error::NoDescriptor(1)));
    }

    #[test]
    fn frames_outside_their_buffer_are_refused() {
        let mut buffers = Buffers::default();
        buffers.insert(1, 4, 4, 16, memory(64, SealFlags::SHRINK)).unwrap();
        for area in [
            Rect { x: 1, y: 0, width: 4, height: 4 },
            Rect { x: u32::MAX, y: 0, width: 2, height: 1 },
            Rect { x: 0, y: 0, width: 0, height: 1 },
        ] {
            assert!(buffers.frame(1, area).is_err(), "{area:?}");
        }
        assert!(buffers.frame(2, Rect::of_size(1, 1)).is_err());
        assert_eq!(buffers.insert(1, 4, 4, 16, None), Err(Error::Taken(1)));
    }
}
