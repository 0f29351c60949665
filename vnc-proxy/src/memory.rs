//! How the allocator keeps memory that was given back.

/// What is this long is mapped on its own, and so given back when it is freed: pictures are.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 1 << 20;

/// So much at the end of the heap is kept.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 512 << 10;

/// By itself the GNU allocator gives each thread a heap of its own, and, once a picture was freed, keeps freed memory of the
/// size of pictures. Desktops are many, so each shall have little. Call it while there is one thread.
pub fn be_thrifty() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, MAPPED), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: `mallopt` takes two numbers and changes how later allocations are made, not those there are.
        unsafe { libc::mallopt(what, value) };
    }
}
