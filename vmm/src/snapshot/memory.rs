//! Which pages of guest memory a snapshot must hold, and how they come back.
//!
//! Guest memory is private to this process, and starts as nothing or as pages of a snapshot's files. A page that
//! the guest or a device has written to since is anonymous, and the kernel's page table says so: no log of writes is
//! kept, and a running guest pays nothing. What the guest gave back is not anonymous any more, and not written.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::GuestMemory;

/// Bytes of a page, the unit of all here.
pub const PAGE: u64 = 4096;
/// Extents nearer to each other than this are written as one: 64 KiB.
const GAP: u64 = (64 << 10) / PAGE;
/// Most extents of a snapshot: each becomes a mapping, of which a process may have 65,530.
pub const MAX_EXTENTS: usize = 16 << 10;

/// Pages next to each other, counted from the start of guest memory: its regions one behind the other, as in a
/// memory file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first one.
    pub page: u64,
    /// How many.
    pub count: u64,
}

impl Extent {
    fn end(&self) -> u64 {
        self.page.saturating_add(self.count)
    }
}

/// Where guest memory lies in this process: address and bytes of each region.
pub fn regions(memory: &GuestMemory) -> Vec<(usize, u64)> {
    memory.iter().map(|region| (region.as_ptr() as usize, region.len())).collect()
}

/// This process' page table.
pub struct Pagemap(File);

impl Pagemap {
    /// Opens it. It stays this process', whatever is opened later and wherever.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// The pages of guest memory that are this process' own: in memory or swapped out, and of no file.
    pub fn own(&self, memory: &GuestMemory) -> io::Result<Vec<Extent>> {
        // Documentation/admin-guide/mm/pagemap.rst
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const OF_FILE: u64 = 1 << 61;
        const ENTRY: usize = 8;
        let mut found = Vec::new();
        let mut entries = vec![0; 64 << 10];
        let mut first = 0;
        for (address, length) in regions(memory) {
            let (start, pages) = (address as u64 / PAGE, length / PAGE);
            let mut done = 0;
            while done < pages {
                let wanted = entries.len().min((pages - done) as usize * ENTRY);
                let piece = &mut entries[..wanted];
                self.0.read_exact_at(piece, (start + done) * ENTRY as u64)?;
                for entry in piece.as_chunks::<ENTRY>().0 {
                    let entry = u64::from_le_bytes(*entry);
                    if entry & SWAPPED != 0 || entry & (PRESENT | OF_FILE) == PRESENT {
                        add(&mut found, first + done);
                    }
                    done += 1;
                }
            }
            first += pages;
        }
        Ok(found)
    }
}

/// Appends a page behind all others.
fn add(extents: &mut Vec<Extent>, page: u64) {
    match extents.last_mut() {
        Some(last) if last.end() == page => last.count += 1,
        _ => extents.push(Extent { page, count: 1 }),
    }
}

/// What is in either list, both ascending.
pub fn union(a: &[Extent], b: &[Extent]) -> Vec<Extent> {
    let mut all: Vec<_> = a.iter().chain(b).copied().collect();
    all.sort_unstable_by_key(|extent| extent.page);
    join(&all, 0)
}

/// Closes gaps until there are few enough extents to be mapped.
pub fn bridge(extents: &[Extent]) -> Vec<Extent> {
    let mut gap = GAP;
    loop {
        let joined = join(extents, gap);
        if joined.len() <= MAX_EXTENTS {
            return joined;
        }
        gap *= 2;
    }
}

/// Makes one of neighbours that are at most `gap` pages apart.
fn join(extents: &[Extent], gap: u64) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last) if extent.page <= last.end() + gap => last.count = last.count.max(extent.end() - last.page),
            _ => joined.push(*extent),
        }
    }
    joined
}

/// The pages of a file that are not in holes of it. A file system may say that a hole is none, never the contrary.
pub fn data(file: &File, size: u64) -> io::Result<Vec<Extent>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?.max(start + 1);
        let (first, end) = (start / PAGE, at.min(size).div_ceil(PAGE));
        found.push(Extent { page: first, count: end.saturating_sub(first) });
    }
    Ok(join(&found, 0))
}

/// Whether a list from a file makes sense for `size` bytes of memory.
pub fn is_valid(extents: &[Extent], size: u64) -> bool {
    let mut end = 0;
    extents.len() <= MAX_EXTENTS
        && extents.iter().all(|extent| {
            let apart = extent.page >= end && extent.count > 0;
            end = extent.end();
            apart && end <= size / PAGE
        })
}

/// Puts `extents` of a memory file in the place of what is there: read when touched, written to in private.
/// All else stays. Nothing may use guest memory meanwhile.
pub fn map(memory: &GuestMemory, file: &File, extents: &[Extent]) -> io::Result<()> {
    for extent in extents {
        for (address, offset, length) in pieces(&regions(memory), *extent) {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let offset = i64::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: `pieces` yields parts of guest memory's own mappings, which stay mapped, readable and writable;
            // the caller promises that nobody looks at them meanwhile.
            let mapped = unsafe {
                let mapped = libc::mmap(address as _, length as usize, protection, flags, file.as_raw_fd(), offset);
                // As for all guest memory: it is nobody's business in a core dump.
                libc::madvise(address as _, length as usize, libc::MADV_DONTDUMP);
                mapped
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// The parts of an extent in the regions of memory: address in this process, offset in a memory file, bytes.
/// Allocates nothing, so that it may be used after a fork.
pub fn pieces(regions: &[(usize, u64)], extent: Extent) -> impl Iterator<Item = (usize, u64, u64)> {
    let (start, end) = (extent.page.saturating_mul(PAGE), extent.end().saturating_mul(PAGE));
    let mut first = 0;
    regions.iter().filter_map(move |(address, length)| {
        let (from, to) = (start.max(first), end.min(first + length));
        let place = (from < to).then(|| (address + (from - first) as usize, from, to - from));
        first += length;
        place
    })
}

/// All of memory.
pub fn all(memory: &GuestMemory) -> Extent {
    Extent { page: 0, count: memory.iter().map(|region| region.len()).sum::<u64>() / PAGE }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};
    use yunju_protocol::machine::ByteSize;

    use super::*;
    use crate::memory::allocate;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|(page, count)| Extent { page: *page, count: *count }).collect()
    }

    #[test]
    fn only_pages_that_were_written_to_since_they_were_mapped_are_the_process_own() {
        let memory = allocate(ByteSize::mib(64)).unwrap();
        crate::memory::clear(&memory, false).unwrap();
        let pagemap = Pagemap::open().unwrap();
        assert_eq!(pagemap.own(&memory).unwrap(), []);
        memory.write_obj(1_u8, GuestAddress(5 * PAGE)).unwrap();
        memory.write_obj(1_u8, GuestAddress((64 << 20) - 1)).unwrap();
        assert_eq!(pagemap.own(&memory).unwrap(), extents(&[(5, 1), ((64 << 8) - 1, 1)]));

        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"file", 7 * PAGE).unwrap();
        map(&memory, &file, &extents(&[(6, 4)])).unwrap();
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(7 * PAGE)).unwrap(), *b"file");
        memory.write_obj(1_u8, GuestAddress(8 * PAGE)).unwrap();
        assert_eq!(pagemap.own(&memory).unwrap(), extents(&[(5, 1), (8, 1), ((64 << 8) - 1, 1)]));
        assert_eq!(data(&file, 64 << 20).unwrap(), extents(&[(7, 1)]));
    }

    #[test]
    fn gaps_are_closed_and_neighbours_joined() {
        let a = extents(&[(0, 2), (10, 1), (100, 5)]);
        assert_eq!(union(&a, &extents(&[(1, 3), (11, 1), (200, 1)])), extents(&[(0, 4), (10, 2), (100, 5), (200, 1)]));
        assert_eq!(bridge(&a), extents(&[(0, 11), (100, 5)]));
        let scattered: Vec<_> = (0..100_000).map(|at| Extent { page: at * 40, count: 1 }).collect();
        let few = bridge(&scattered);
        assert!(few.len() <= MAX_EXTENTS);
        assert!(is_valid(&few, 40 * 100_000 * PAGE));
    }

    #[test]
    fn lists_that_overlap_or_go_beyond_memory_are_refused() {
        for bad in [vec![(0, 0)], vec![(0, 2), (1, 1)], vec![(5, 1), (1, 1)], vec![(0, 17)], vec![(u64::MAX, u64::MAX)]]
        {
            assert!(!is_valid(&extents(&bad), 16 * PAGE), "{bad:?}");
        }
        assert!(is_valid(&extents(&[(0, 2), (2, 14)]), 16 * PAGE));
    }

    proptest! {
        #[test]
        fn a_union_has_every_page_of_both_and_no_other(a in pages(), b in pages()) {
            let (a, b): (Vec<_>, Vec<_>) = (listed(&a), listed(&b));
            let joined = union(&a, &b);
            let has = |list: &[Extent], page| list.iter().any(|extent| (extent.page..extent.end()).contains(&page));
            for page in 0..70 {
                prop_assert_eq!(has(&joined, page), has(&a, page) || has(&b, page));
            }
            prop_assert!(is_valid(&joined, 70 * PAGE));
        }
    }

    fn pages() -> impl Strategy<Value = Vec<bool>> {
        prop::collection::vec(any::<bool>(), 64)
    }

    fn listed(pages: &[bool]) -> Vec<Extent> {
        let mut list = Vec::new();
        (0..).zip(pages).filter(|(_, set)| **set).for_each(|(page, _)| add(&mut list, page));
        list
    }
}
