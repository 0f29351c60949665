//! Memory shared with the machine, read only. All `unsafe` of shared pixels is here.

use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Why memory cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a memfd, or one that the machine could shorten under us.
    #[error("its descriptor is not a memfd sealed against shrinking")]
    NotSealed,
    /// Less than promised.
    #[error("it has {length} bytes, {needed} are needed")]
    TooShort {
        /// The memory's bytes.
        length: u64,
        /// Bytes of the picture.
        needed: usize,
    },
    /// The system refused.
    #[error("the system refused to map {needed} bytes: {error}")]
    System {
        /// Bytes of the picture.
        needed: usize,
        /// What it said.
        error: Errno,
    },
}

/// Memory shared with the machine, which writes to it at any time.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, stays where it is until it is dropped, and is only ever copied from.
unsafe impl Send for Mapping {}
// SAFETY: as above; reading from several threads is no different from reading while the machine writes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes, at least one, of a memfd.
    pub fn new(fd: impl AsFd, length: usize) -> Result<Self, Error> {
        let refused = |error| Error::System { needed: length, error };
        // A sealed size is what makes access safe from SIGBUS; only memfds have seals.
        let seals = fcntl_get_seals(&fd).map_err(|_| Error::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::NotSealed);
        }
        let has = u64::try_from(fstat(&fd).map_err(refused)?.st_size).unwrap_or(0);
        if has < length as u64 {
            return Err(Error::TooShort { length: has, needed: length });
        }
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, fd, 0) };
        let start = NonNull::new(start.map_err(refused)?.cast()).ok_or_else(|| refused(Errno::NOMEM))?;
        Ok(Self { start, length })
    }

    /// Copies pixels from byte `offset` on, as `0x00RRGGBB`; false if they lie outside.
    pub fn read(&self, offset: usize, pixels: &mut [u32]) -> bool {
        let bytes = size_of_val(pixels);
        if offset.checked_add(bytes).is_none_or(|end| end > self.length) {
            return false;
        }
        // SAFETY: source and destination are both valid for `bytes` bytes (checked above) and cannot overlap, the
        // destination being ours alone. The machine may write meanwhile, so no reference to its memory is made: we
        // copy once into private memory, where any mix of old and new bytes is a valid picture, and look only there.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), pixels.as_mut_ptr().cast::<u8>(), bytes);
        }
        pixels.iter_mut().for_each(|pixel| *pixel = u32::from_le(*pixel) & 0x00ff_ffff);
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are of a mapping made in `new`; `self` is going, so nobody can use it again.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}
