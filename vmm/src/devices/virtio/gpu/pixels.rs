//! Pixels in a memfd: written here, mapped by display clients for reading.

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Bytes that this process alone can write.
#[derive(Debug)]
pub struct Pixels {
    file: Arc<File>,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value, as a `Box<[u8]>` would; nothing depends on the thread.
unsafe impl Send for Pixels {}

impl Pixels {
    /// `length` zeros, at least one. Memory is used only when it is touched.
    pub fn new(length: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create("yunju-pixels", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3 does not know the flag.
            Err(Errno::INVAL) => memfd_create("yunju-pixels", flags)?,
            outcome => outcome?,
        };
        ftruncate(&fd, length as u64)?;
        // SAFETY: a mapping at an address of the kernel's choice touches nothing of ours.
        let start =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)? };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let pixels = Self { file: Arc::new(fd.into()), start, length };
        // From here on the file keeps its length, and nobody else can map it for writing or write to it.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&pixels.file, seals)?;
        // SAFETY: the mapping was just made, and what a core dump contains changes no byte of it.
        // A dump must not contain a person's screen; a kernel that refuses still shows pictures.
        let _ = unsafe { madvise(start.as_ptr().cast(), length, Advice::LinuxDontDump) };
        Ok(pixels)
    }

    /// The file, for those who look.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped from `start` until `self` is dropped. They change only through
        // `bytes_mut`: the file was sealed against all other writing while nobody else had it.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// All bytes, to be changed. Other processes may see a change halfway.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only access in this process, and others only read.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow of it outlives the value.
        // There is nobody to tell if the kernel would not: the address range stays reserved then.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_reader_sees_what_is_written_and_can_change_nothing() {
        let mut pixels = Pixels::new(5000).unwrap();
        pixels.bytes_mut()[4999] = 7;
        let file = pixels.file().clone();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4999).unwrap();
        assert_eq!((byte, pixels.bytes()[4999]), ([7], 7));
        assert!(file.write_at(&[1], 0).is_err());
        assert!(file.set_len(1).is_err());
        assert!(file.set_len(10_000).is_err());
        let map = |protection| {
            // SAFETY: a mapping at an address of the kernel's choice touches nothing of ours.
            unsafe { mmap(ptr::null_mut(), 5000, protection, MapFlags::SHARED, &file, 0) }
        };
        assert!(map(ProtFlags::READ | ProtFlags::WRITE).is_err());
        let reader = map(ProtFlags::READ).unwrap();
        pixels.bytes_mut()[10] = 9;
        // SAFETY: 5,000 bytes are mapped for reading, and nothing writes at the same time.
        assert_eq!(unsafe { *reader.cast::<u8>().add(10) }, 9);
        // SAFETY: the mapping was made above and is used no more.
        unsafe { munmap(reader, 5000).unwrap() };
    }
}
