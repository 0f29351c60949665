//! Guest memory.

use std::io;
use std::ptr;

use vm_memory::mmap::{FromRangesError, MmapRegion};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};
use yunju_protocol::machine::ByteSize;

use crate::layout;

/// A guest's memory.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Least and most memory of a machine.
pub const MEMORY_MIN: u64 = 64 << 20;
/// See [`MEMORY_MIN`].
pub const MEMORY_MAX: u64 = 64 << 30;

/// Guest memory begins on such a boundary in this process, as it does in the guest, so that the host
/// can back it with huge pages: 41 faults a boot instead of some 16,000.
const HUGE_PAGE: usize = 2 << 20;

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no room.
    #[error("reserving {size} of guest memory: {source}; give the machine less")]
    Reserve {
        /// What was asked for.
        size: ByteSize,
        /// The system's answer.
        source: io::Error,
    },
    /// The regions do not fit together, a mistake in this program.
    #[error("laying out guest memory: {0}")]
    Layout(#[from] FromRangesError),
}

/// Reserves `size` bytes of guest memory. Nothing is used until the guest touches it.
pub fn allocate(size: ByteSize) -> Result<GuestMemory, Error> {
    let low = size.0.min(layout::HOLE_START);
    let mut ranges = vec![(0, low)];
    if size.0 > low {
        ranges.push((layout::HOLE_END, size.0 - low));
    }
    let mut regions = Vec::new();
    for (start, length) in ranges {
        let mapping = map(length as usize).map_err(|source| Error::Reserve { size, source })?;
        // A region cannot wrap around the address space: the greatest start and length are below 2^37.
        regions.push(GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or(FromRangesError::InvalidGuestRegion)?);
    }
    GuestMemory::from_regions(regions).map_err(|error| Error::Layout(FromRangesError::from(error)))
}

/// Makes memory as it was when it was reserved: zeros that take no room, and of no file. `huge`: in huge pages
/// where the host can. Nothing may use guest memory meanwhile.
pub fn clear(memory: &GuestMemory, huge: bool) -> io::Result<()> {
    for region in memory.iter() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let (start, length) = (region.as_ptr().cast(), region.len() as usize);
        // SAFETY: replaces a mapping that is this region's alone by one just like it; the caller promises that nobody
        // looks at it meanwhile.
        unsafe {
            if libc::mmap(start, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            advise(start, length, huge);
        }
    }
    Ok(())
}

/// # Safety
/// The bytes are a mapping of guest memory.
unsafe fn advise(start: *mut libc::c_void, length: usize, huge: bool) {
    // SAFETY: advice that leaves what is there as it is.
    unsafe {
        // Huge pages are a matter of speed: a kernel without them may refuse.
        libc::madvise(start, length, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        // A core dump of the monitor must not contain a person's memory.
        libc::madvise(start, length, libc::MADV_DONTDUMP);
    }
}

/// Maps `length` bytes, a multiple of the page size, on a huge page boundary: maps more and gives the ends back.
fn map(length: usize) -> io::Result<MmapRegion> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let reserved = length + HUGE_PAGE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), reserved, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let before = start.align_offset(HUGE_PAGE);
    // SAFETY: `before` is less than HUGE_PAGE, so that `length` bytes from there, and the ends that are
    // unmapped, all lie inside the mapping just made, which nothing else knows of.
    unsafe {
        let aligned = start.add(before);
        if before > 0 {
            libc::munmap(start, before);
        }
        libc::munmap(aligned.add(length), HUGE_PAGE - before);
        advise(aligned, length, true);
        MmapRegion::build_raw(aligned.cast(), length, protection, flags).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn memory_has_a_hole_below_four_gib_and_lies_on_huge_pages() {
        let memory = allocate(ByteSize(5 << 30)).unwrap();
        let regions: Vec<_> = memory.iter().map(|region| (region.start_addr().0, region.len())).collect();
        assert_eq!(regions, [(0, 3 << 30), (4 << 30, 2 << 30)]);
        for region in memory.iter() {
            assert!(region.as_ptr().cast::<u8>().align_offset(HUGE_PAGE) == 0);
        }
        memory.write_obj(0x1234_u16, GuestAddress((6 << 30) - 2)).unwrap();
        assert!(memory.write_obj(0x1234_u16, GuestAddress(3 << 30)).is_err());
    }
}
