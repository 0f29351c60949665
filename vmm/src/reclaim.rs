//! Giving the host back what lies behind guest memory.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::GuestMemory;
use crate::snapshot::memory::PAGE;

/// Gives the host back what lies behind `length` bytes of guest memory at `start`, and returns how many bytes that
/// were. Only whole pages are, and nothing if any part is not memory, or if the host refuses.
///
/// Afterwards the guest finds zeros there, or what the file behind its memory has, if it was restored from one.
pub fn release(memory: &GuestMemory, start: u64, length: u64) -> u64 {
    let first = start.checked_next_multiple_of(PAGE);
    let end = start.checked_add(length).map(|end| end / PAGE * PAGE);
    let (Some(first), Some(end)) = (first, end) else {
        return 0;
    };
    let Some(length) = end.checked_sub(first).filter(|length| *length > 0) else {
        return 0;
    };
    let Some(region) = memory.find_region(GuestAddress(first)) else {
        return 0;
    };
    let offset = first - region.start_addr().0;
    if length > region.len() - offset {
        return 0;
    }
    // SAFETY: the range was just found to lie inside the region's private mapping, which only the guest and accesses
    // that expect it to change under their eyes look at.
    let done =
        unsafe { libc::madvise(region.as_ptr().add(offset as usize).cast(), length as usize, libc::MADV_DONTNEED) };
    if done == 0 { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use vm_memory::Bytes;
    use yunju_protocol::machine::ByteSize;

    use super::*;
    use crate::memory::allocate;
    use crate::snapshot::memory::Pagemap;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_written_takes_memory_until_it_is_released() {
        let (memory, pagemap) = (allocate(ByteSize::mib(64)).unwrap(), Pagemap::open().unwrap());
        let taken = || pagemap.own(&memory).unwrap().iter().map(|extent| extent.count * PAGE).sum::<u64>();
        assert_eq!(taken(), 0, "nothing is used before it is touched");
        memory.write_slice(&vec![7; 8 << 20], GuestAddress(16 * MIB)).unwrap();
        assert_eq!(taken(), 8 * MIB);
        assert_eq!(release(&memory, 18 * MIB, 4 * MIB), 4 * MIB);
        assert_eq!(taken(), 4 * MIB);
        let bytes = [17, 18, 21, 22].map(|mib| memory.read_obj::<u8>(GuestAddress(mib * MIB)).unwrap());
        assert_eq!(bytes, [7, 0, 0, 7]);
    }

    #[test]
    fn only_whole_pages_inside_memory_are_released() {
        let memory = allocate(ByteSize(5 << 30)).unwrap();
        let (hole, end) = (3 << 30, 6 << 30);
        for (start, length, released) in [
            (0, 0, 0),
            (1, 4095, 0),
            (1, 8191, 4096),
            (hole - 4096, 4096, 4096),
            (hole - 4096, 8192, 0),
            (hole, 4096, 0),
            (hole - 4096, 2 << 30, 0),
            (end - 4096, 4096, 4096),
            (end - 4096, 4097, 4096),
            (end - 4096, 8192, 0),
            (u64::MAX, 1, 0),
            (u64::MAX - 4095, 4096, 0),
            (4096, u64::MAX, 0),
        ] {
            assert_eq!(release(&memory, start, length), released, "{length:#x} bytes at {start:#x}");
        }
    }

    proptest! {
        #[test]
        fn neighbours_of_a_released_range_keep_their_contents(page in 0u64..200, start in any::<u16>(), length in 0u64..200_000) {
            let memory = allocate(ByteSize::mib(64)).unwrap();
            let area = GuestAddress(MIB);
            memory.write_slice(&vec![1; MIB as usize], area).unwrap();
            let start = page * PAGE + u64::from(start) % PAGE;
            let released = release(&memory, MIB + start, length);
            let mut bytes = vec![0; MIB as usize];
            memory.read_slice(&mut bytes, area).unwrap();
            prop_assert_eq!(bytes.iter().filter(|byte| **byte == 0).count() as u64, released);
            let outside = |at: usize| (at as u64) < start || at as u64 >= start + length;
            prop_assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == 1 || !outside(at)));
        }
    }
}
