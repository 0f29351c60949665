//! Guest memory: all of it mapped, and a heap in what follows the program.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::params::BootParams;

const GIB: u64 = 1 << 30;
const LARGE_PAGE: u64 = 2 << 20;
/// Present, writable, user; and for 2 MiB entries, large.
const TABLE: u64 = 7;
const PAGE: u64 = 0x87;

unsafe extern "C" {
    static image_end: u8;
    static mut pdpt: [u64; 512];
}

/// Memory is handed out upwards; only the piece handed out last can be given back or grow in place.
/// That is enough for guests that allocate at start and format text afterwards.
struct Heap {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

// SAFETY: every piece is handed out once, by an atomic step of `next` within memory that the boot
// loader declared usable and nothing else uses.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut start = 0;
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            start = next.next_multiple_of(layout.align());
            start.checked_add(layout.size()).filter(|end| *end <= self.end.load(Ordering::Relaxed))
        });
        if taken.is_ok() { start as *mut u8 } else { core::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let end = piece as usize + layout.size();
        let _ = self.next.compare_exchange(end, piece as usize, Ordering::Relaxed, Ordering::Relaxed);
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (start, end) = (piece as usize, piece as usize + layout.size());
        if start + size <= self.end.load(Ordering::Relaxed)
            && self.next.compare_exchange(end, start + size, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return piece;
        }
        // SAFETY: the caller's promise: `size` fits the alignment; both pieces hold the smaller of both sizes.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(piece, layout.size().min(size));
            }
            moved
        }
    }
}

/// Bytes that the heap can still hand out.
pub fn free() -> usize {
    HEAP.end.load(Ordering::Relaxed) - HEAP.next.load(Ordering::Relaxed)
}

/// Where memory starts that nothing uses while nothing more is allocated from the heap than 1 MiB.
pub fn free_from() -> u64 {
    HEAP.next.load(Ordering::Relaxed) as u64 + (1 << 20)
}

/// Zeroed memory for ever, at an address that is a multiple of `align`.
pub fn zeroed(size: usize, align: usize) -> &'static mut [u8] {
    let layout = Layout::from_size_align(size, align).expect("the alignment is a power of two");
    // SAFETY: freshly allocated, never freed, and checked not to be null.
    unsafe {
        let piece = alloc::alloc::alloc_zeroed(layout);
        assert!(!piece.is_null(), "out of memory for {size} bytes");
        core::slice::from_raw_parts_mut(piece, size)
    }
}

pub(crate) fn start(params: &BootParams) {
    let program_end = &raw const image_end as usize as u64;
    let Some(home) = params.regions().find(|r| r.kind == 1 && (r.start..r.start + r.size).contains(&(program_end - 1)))
    else {
        // No heap, so no text: the boot loader's memory map does not hold the program itself.
        crate::port::power_off()
    };
    HEAP.next.store(program_end as usize, Ordering::Relaxed);
    HEAP.end.store((home.start + home.size) as usize, Ordering::Relaxed);
    let top = params.regions().filter(|r| r.kind == 1).map(|r| r.start + r.size).max().unwrap_or(0);
    for gib in 4..top.div_ceil(GIB).min(512) {
        map_gib(gib);
    }
}

/// Maps the `gib`-th GiB to itself. `boot.s` did it for the first four.
fn map_gib(gib: u64) {
    let directory = zeroed(4096, 4096);
    for (entry, bytes) in directory.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&((gib * GIB + entry as u64 * LARGE_PAGE) | PAGE).to_le_bytes());
    }
    // SAFETY: `gib` is below 512; the entry was not present, so no processor has cached it.
    unsafe { (&raw mut pdpt[gib as usize]).write_volatile(directory.as_ptr() as u64 | TABLE) }
}
