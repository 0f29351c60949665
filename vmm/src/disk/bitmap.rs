//! Which blocks a layer has: bit n % 8 of byte n / 8, mapped from the file so that only what is looked at takes memory.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::header::{BITMAP_START, BLOCK, Header};

/// Blocks whose bits are in one page of the file, the unit in which new bits are written.
pub const BLOCKS_PER_PAGE: u64 = BLOCK * 8;

/// A layer's bitmap in memory.
pub struct Bitmap {
    words: NonNull<AtomicU64>,
    /// Bytes mapped, a multiple of the page size.
    length: usize,
    blocks: u64,
}

// SAFETY: the mapping belongs to this value alone and is only accessed by atomic operations.
unsafe impl Send for Bitmap {}

impl Bitmap {
    /// Maps the bitmap of a layer whose file is as long as its header says. Changes of a writable one stay in
    /// memory, where [`Bitmap::page`] finds them; those of one that is not are a mistake.
    pub fn map(file: &File, header: &Header, writable: bool) -> io::Result<Self> {
        let length = usize::try_from(header.bitmap_length()).map_err(io::Error::other)?;
        let (protection, flags) = match writable {
            true => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE),
            false => (ProtFlags::READ, MapFlags::SHARED),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, file, BITMAP_START) }?;
        let words = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { words, length, blocks: header.blocks() })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.length / 8, "block {} of {}", index * 64, self.blocks);
        // SAFETY: the index was checked; the mapping is page-aligned and lives as long as `self`. Another process can
        // change a shared mapping, which an atomic access allows.
        unsafe { self.words.add(index).as_ref() }
    }

    fn load(&self, index: usize) -> u64 {
        u64::from_le(self.word(index).load(Ordering::Relaxed))
    }

    /// Whether the layer has the block. One beyond its end it has not.
    pub fn has(&self, block: u64) -> bool {
        block < self.blocks && self.load((block / 64) as usize) & 1 << (block % 64) != 0
    }

    /// Whether the layer has `block`, and the first block after it, at most `end`, with which it is otherwise.
    pub fn run(&self, block: u64, end: u64) -> (bool, u64) {
        if block >= self.blocks {
            return (false, end);
        }
        let has = self.has(block);
        let flip = if has { u64::MAX } else { 0 };
        let (mut at, last) = (block, end.min(self.blocks));
        while at < last {
            // The bits from `at` on that differ from the first.
            let others = (self.load((at / 64) as usize) ^ flip) >> (at % 64);
            if others != 0 {
                return (has, (at + u64::from(others.trailing_zeros())).min(last));
            }
            at = (at / 64 + 1) * 64;
        }
        (has, if has { last } else { end })
    }

    /// Notes that the layer has the blocks now; true for each page in which that changed something.
    pub fn set(&self, blocks: std::ops::Range<u64>, mut changed: impl FnMut(u64)) {
        assert!(blocks.end <= self.blocks, "blocks to {} of {}", blocks.end, self.blocks);
        let mut at = blocks.start;
        while at < blocks.end {
            let next = ((at / 64 + 1) * 64).min(blocks.end);
            let mask = (u64::MAX >> (64 - (next - at))) << (at % 64);
            let old = self.load((at / 64) as usize);
            if old & mask != mask {
                self.word((at / 64) as usize).store((old | mask).to_le(), Ordering::Relaxed);
                changed(at / BLOCKS_PER_PAGE);
            }
            at = next;
        }
    }

    /// The bytes of a page as they are to be in the file.
    pub fn page(&self, page: u64) -> Vec<u8> {
        let words = BLOCK as usize / 8;
        let first = page as usize * words;
        (first..first + words).flat_map(|index| self.load(index).to_le_bytes()).collect()
    }
}

impl Drop for Bitmap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing borrows from it any more.
        // Unmapping what is mapped does not fail.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::{Parent, Uuid};
    use super::*;

    fn bitmap(blocks: u64) -> Bitmap {
        let header = Header { length: blocks * BLOCK, uuid: Uuid([0; 16]), parent: Parent::None };
        let file = tempfile::tempfile().unwrap();
        file.set_len(header.file_length()).unwrap();
        Bitmap::map(&file, &header, true).unwrap()
    }

    #[test]
    fn a_block_beyond_the_end_is_never_there() {
        let bitmap = bitmap(100);
        bitmap.set(0..100, |_| {});
        assert_eq!((bitmap.has(99), bitmap.has(100), bitmap.has(u64::MAX)), (true, false, false));
        assert_eq!(bitmap.run(90, 200), (true, 100));
        assert_eq!(bitmap.run(100, 200), (false, 200));
    }

    #[test]
    fn only_pages_that_changed_are_told() {
        let bitmap = bitmap(3 * BLOCKS_PER_PAGE);
        let mut told = std::collections::BTreeSet::new();
        bitmap.set(BLOCKS_PER_PAGE - 1..BLOCKS_PER_PAGE + 1, |page| {
            told.insert(page);
        });
        assert_eq!(told, [0, 1].into());
        assert_eq!((bitmap.page(0)[4095], bitmap.page(1)[0], bitmap.page(2)), (0x80, 1, vec![0; 4096]));
        bitmap.set(BLOCKS_PER_PAGE..BLOCKS_PER_PAGE + 1, |page| panic!("page {page} did not change"));
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_blocks(
            sets in proptest::collection::vec((0u64..300, 0u64..80), 0..8), from in 0u64..320, to in 0u64..80,
        ) {
            let bitmap = bitmap(300);
            let mut model = vec![false; 400];
            for (start, length) in sets {
                let end = (start + length).min(300);
                bitmap.set(start..end, |_| {});
                model[start as usize..end as usize].fill(true);
            }
            for block in 0..400 {
                prop_assert_eq!(bitmap.has(block), model[block as usize]);
            }
            let end = from + 1 + to;
            let has = model[from as usize];
            let next = (from..end).find(|at| model[*at as usize] != has).unwrap_or(end);
            prop_assert_eq!(bitmap.run(from, end), (has, next));
        }
    }
}
