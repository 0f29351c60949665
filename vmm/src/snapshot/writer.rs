//! Writing memory to its file: by this process while the guest stands still, or by a child that was forked.
//!
//! A fork gives the child the guest's memory as it was at that instant, and the guest goes on at once. The child is
//! alone with a copy of a process that had many threads: it makes system calls and nothing else.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, RawFd};

use super::memory::{Extent, PAGE, pieces};

/// What to write.
pub struct Plan {
    /// Address and length of each region of guest memory.
    pub regions: Vec<(usize, u64)>,
    /// The pages, ascending.
    pub extents: Vec<Extent>,
    /// Leave pages of zeros out: nothing lies below this file.
    pub skip_zeros: bool,
    /// Length of the file.
    pub size: u64,
}

impl Plan {
    /// Writes everything and makes it durable; returns the bytes written.
    ///
    /// # Safety
    /// The regions are mapped and nobody writes to them.
    pub unsafe fn carry_out(&self, file: &File) -> io::Result<u64> {
        // SAFETY: the caller's promise.
        unsafe { self.write(file.as_raw_fd()) }.map_err(io::Error::from_raw_os_error)
    }

    /// Starts a child that writes what memory holds now.
    pub fn fork(&self, file: &File) -> io::Result<Child> {
        let (report, answer) = io::pipe()?;
        let parent = std::process::id();
        // SAFETY: the child calls nothing but `as_child`, which keeps to system calls and does not return.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.as_child(parent, file.as_raw_fd(), answer.as_raw_fd()),
            pid => Ok(Child { pid, report }),
        }
    }

    /// The child's life. No allocation, no lock, no panic: another thread of the parent may have held any lock.
    fn as_child(&self, parent: u32, file: RawFd, answer: RawFd) -> ! {
        // SAFETY: only system calls on descriptors of this process, and memory that this process has for itself.
        unsafe {
            // A snapshot of a machine that has ended is nobody's.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 != parent {
                libc::_exit(1);
            }
            // Whoever waits for the end of a connection of the parent's must not wait for this process.
            libc::dup2(answer, 0);
            libc::dup2(file, 1);
            libc::close_range(2, u32::MAX, 0);
            let outcome = match self.write(1) {
                Ok(bytes) => [0, bytes],
                Err(error) => [error as u64, 0],
            };
            libc::write(0, outcome.as_ptr().cast(), size_of_val(&outcome));
            libc::_exit(0)
        }
    }

    /// See [`Plan::carry_out`]. The error is the system's number.
    unsafe fn write(&self, file: RawFd) -> Result<u64, i32> {
        let mut written = 0;
        // SAFETY: a system call on a descriptor.
        if unsafe { libc::ftruncate(file, self.size as i64) } != 0 {
            return Err(errno());
        }
        for extent in &self.extents {
            for (address, offset, length) in pieces(&self.regions, *extent) {
                // SAFETY: the caller's promise; a piece lies in a region.
                written += unsafe {
                    if self.skip_zeros {
                        write_sparsely(file, address, offset, length)?
                    } else {
                        write_all(file, address, offset, length)?
                    }
                };
            }
        }
        // SAFETY: a system call on a descriptor.
        if unsafe { libc::fdatasync(file) } != 0 {
            return Err(errno());
        }
        Ok(written)
    }
}

/// Writes the pages that hold something.
///
/// # Safety
/// `length` bytes at `address` are mapped, a whole number of pages.
unsafe fn write_sparsely(file: RawFd, address: usize, offset: u64, length: u64) -> Result<u64, i32> {
    let (mut written, mut start, mut at) = (0, 0, 0);
    while at <= length {
        // SAFETY: below `length`, so that the page is mapped.
        if at == length || unsafe { is_zero(address + at as usize) } {
            // SAFETY: from `start` to `at` all lies within.
            written += unsafe { write_all(file, address + start as usize, offset + start, at - start) }?;
            start = at + PAGE;
        }
        at += PAGE;
    }
    Ok(written)
}

/// # Safety
/// A page is mapped at `address`.
unsafe fn is_zero(address: usize) -> bool {
    const WORD: usize = 16;
    let page = address as *const libc::c_void;
    // SAFETY: all within the page. If the first word is zero and each byte is that of a word before, all are.
    unsafe { page.cast::<u128>().read() == 0 && libc::memcmp(page, page.add(WORD), PAGE as usize - WORD) == 0 }
}

/// # Safety
/// `length` bytes at `address` are mapped.
unsafe fn write_all(file: RawFd, address: usize, offset: u64, length: u64) -> Result<u64, i32> {
    let mut done = 0;
    while done < length {
        // SAFETY: the caller's promise; what is not mapped any more is an error of the call.
        let written = unsafe {
            libc::pwrite(file, (address + done as usize) as _, (length - done) as usize, (offset + done) as i64)
        };
        match written {
            0 => return Err(libc::ENOSPC),
            count if count > 0 => done += count as u64,
            _ if errno() == libc::EINTR => {}
            _ => return Err(errno()),
        }
    }
    Ok(length)
}

fn errno() -> i32 {
    // SAFETY: a thread's own number, always there.
    unsafe { *libc::__errno_location() }
}

/// A child that writes.
pub struct Child {
    pid: libc::pid_t,
    report: PipeReader,
}

impl Child {
    /// Waits until all is durable; returns the bytes written.
    pub fn wait(mut self) -> io::Result<u64> {
        let mut report = [0; 16];
        let read = self.report.read_exact(&mut report);
        // SAFETY: the child is ours and is waited for once.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        read.map_err(|_| io::Error::other("the process that wrote it was killed"))?;
        let (error, bytes) = report.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        match word(error) {
            0 => Ok(word(bytes)),
            number => Err(io::Error::from_raw_os_error(number as i32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn plan(memory: &[u8], skip_zeros: bool) -> Plan {
        let pages = memory.len() as u64 / PAGE;
        Plan {
            regions: vec![(memory.as_ptr() as usize, memory.len() as u64)],
            extents: vec![Extent { page: 0, count: pages }],
            skip_zeros,
            size: memory.len() as u64,
        }
    }

    fn memory() -> Vec<u128> {
        let mut words = vec![0; 64 * PAGE as usize / 16];
        for page in [0, 3, 4, 63] {
            words[page * 256 + page] = 1 + page as u128;
        }
        words
    }

    fn bytes(words: &[u128]) -> &[u8] {
        // SAFETY: the same memory, seen as bytes.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }

    #[test]
    fn pages_of_zeros_become_holes_where_nothing_lies_below() {
        let words = memory();
        for (skip_zeros, expected) in [(true, 4 * PAGE), (false, 64 * PAGE)] {
            let file = tempfile::tempfile().unwrap();
            // SAFETY: the words stay where they are.
            let written = unsafe { plan(bytes(&words), skip_zeros).carry_out(&file) }.unwrap();
            assert_eq!(written, expected);
            let mut found = vec![0; 64 * PAGE as usize];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, bytes(&words));
            assert!(!skip_zeros || file.metadata().unwrap().blocks() * 512 < 32 * PAGE);
        }
    }

    #[test]
    fn a_child_writes_what_memory_held_when_it_was_forked() {
        let mut words = memory();
        let file = tempfile::tempfile().unwrap();
        let expected = bytes(&words).to_vec();
        let child = plan(bytes(&words), true).fork(&file).unwrap();
        words.fill(u128::MAX);
        assert_eq!(child.wait().unwrap(), 4 * PAGE);
        let mut found = vec![0; 64 * PAGE as usize];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_child_cannot_write_is_told() {
        let words = memory();
        let file = File::open("/dev/null").unwrap();
        let error = plan(bytes(&words), true).fork(&file).unwrap().wait().unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF)), "{error}");
    }
}
