//! Operations that the kernel carries out while the thread goes on (`io_uring`, Linux 5.15 or later).
//!
//! What the page cache has is read at once by this thread, without the ring's overhead; the rest comes through the ring when
//! it comes. Most file systems, ext4 among them, cannot begin a buffered write without perhaps waiting, so that the kernel
//! hands each to a thread of its own: more than twice the time and work of a plain write, which only copies into the page
//! cache. So writes are made at once by this thread, until one takes long because the kernel makes writers wait for the
//! disk; then they go through the ring for a while, and nobody who reads waits behind them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use super::sync::{self, MOST_PIECES};
use super::{Action, Engine, Op};

/// Entries of the submission queue; the completion queue has twice as many, more than a device has in flight.
const ENTRIES: u32 = 128;
/// Threads of the kernel for what has to wait for a disk, and for what is not a file's (nothing). They count as tasks of this process.
const WORKERS: [u32; 2] = [4, 1];

/// A write that takes longer was made to wait.
const LONG: Duration = Duration::from_millis(2);
/// How long writes go through the ring then.
const WHILE: Duration = Duration::from_millis(200);

/// A ring of this thread's own.
pub struct Uring {
    ring: IoUring,
    /// By the number in the entry's user data. What the kernel works with stays here until it has ended.
    in_flight: Vec<Option<(usize, Op)>>,
    free: Vec<usize>,
    /// Ended without the ring.
    ended: VecDeque<(usize, io::Result<()>)>,
    /// Writes go through the ring until then.
    queue_writes_until: Instant,
    /// A file system could not say whether a read would wait: all reads go through the ring.
    queue_reads: bool,
}

// SAFETY: the ring is used by one thread at a time; nothing in the kernel ties it to the one that made it, as no flag for a
// single issuer is set.
unsafe impl Send for Uring {}

impl Uring {
    /// Makes a ring, if the kernel has any and this process may.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_coop_taskrun().build(ENTRIES).or_else(|_| IoUring::new(ENTRIES))?;
        ring.submitter().register_iowq_max_workers(&mut WORKERS.clone())?;
        Ok(Self {
            ring,
            in_flight: Vec::new(),
            free: Vec::new(),
            ended: VecDeque::new(),
            queue_writes_until: Instant::now(),
            queue_reads: false,
        })
    }

    /// The same, with everything through the ring.
    #[cfg(test)]
    pub fn with_all_queued() -> io::Result<Self> {
        let mut ring = Self::new()?;
        ring.queue_writes_until += Duration::from_secs(3600);
        ring.queue_reads = true;
        Ok(ring)
    }

    /// Reads what the page cache has. True if that was all; what is left, an error too, is the ring's.
    fn read(&mut self, op: &mut Op) -> bool {
        let read = sync::read_cached(op);
        if let Err(error) = &read {
            self.queue_reads = error.raw_os_error() == Some(libc::EOPNOTSUPP);
        }
        read.is_ok() && op.pieces.length() == 0
    }

    /// Writes at once, and notes whether that took long.
    fn write(&mut self, tag: usize, op: Op, now: Instant) {
        self.ended.push_back((tag, sync::run(op)));
        let end = Instant::now();
        if end - now > LONG {
            self.queue_writes_until = end + WHILE;
        }
    }

    fn count(&self) -> usize {
        self.in_flight.len() - self.free.len()
    }

    /// Queues what is left of an operation.
    fn push(&mut self, number: usize) {
        let Some(Some((_, op))) = self.in_flight.get(number) else {
            return;
        };
        let entry = entry(op).user_data(number as u64);
        loop {
            // SAFETY: the file and the memory that the entry names are held by `in_flight` until it has ended, and `drop`
            // waits for that.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full. Errors come again in `start`, and are told there.
            if self.enter(0).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Hands the queue to the kernel and waits for `want` ends.
    fn enter(&self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submitter().submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel is short of memory for the moment.
                    Some(libc::EAGAIN | libc::EBUSY) => std::thread::sleep(Duration::from_millis(1)),
                    _ => return Err(error),
                },
            }
        }
    }

    /// What an entry's end means; `None` if there is more to do.
    fn end(&mut self, number: usize, result: i32) -> Option<(usize, io::Result<()>)> {
        let (_, op) = self.in_flight.get_mut(number)?.as_mut()?;
        let moves = matches!(op.action, Action::Read | Action::Write);
        let result = match usize::try_from(result) {
            Ok(0) if moves && op.pieces.length() > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) if moves && length < op.pieces.length() => {
                op.pieces.advance(length);
                op.place += length as u64;
                self.push(number);
                return None;
            }
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        let (tag, op) = self.in_flight[number].take()?;
        self.free.push(number);
        let again = [libc::EAGAIN, libc::EINTR, libc::EINVAL, libc::EOPNOTSUPP];
        match result {
            // What the ring or the file system cannot do in this way; the plain call has the last word.
            Err(error) if error.raw_os_error().is_some_and(|code| again.contains(&code)) => Some((tag, sync::run(op))),
            result => Some((tag, result)),
        }
    }
}

fn entry(op: &Op) -> squeue::Entry {
    let fd = types::Fd(op.file.as_raw_fd());
    let pieces = &op.pieces.pieces;
    let count = pieces.len().min(MOST_PIECES) as u32;
    match (op.action, pieces.as_slice()) {
        // Operations are much shorter than 4 GiB.
        (Action::Read, [one]) => {
            opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32).offset(op.place).build()
        }
        (Action::Write, [one]) => {
            opcode::Write::new(fd, one.iov_base.cast(), one.iov_len as u32).offset(op.place).build()
        }
        (Action::Read, _) => opcode::Readv::new(fd, pieces.as_ptr(), count).offset(op.place).build(),
        (Action::Write, _) => opcode::Writev::new(fd, pieces.as_ptr(), count).offset(op.place).build(),
        (Action::Clear, _) => {
            let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd, op.length).offset(op.place).mode(hole).build()
        }
        (Action::Sync, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

impl Engine for Uring {
    fn submit(&mut self, tag: usize, mut op: Op) {
        if op.action == Action::Read && !self.queue_reads && self.read(&mut op) {
            return self.ended.push_back((tag, Ok(())));
        }
        if op.action == Action::Write {
            let now = Instant::now();
            if now >= self.queue_writes_until {
                return self.write(tag, op, now);
            }
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.in_flight.push(None);
            self.in_flight.len() - 1
        });
        self.in_flight[number] = Some((tag, op));
        self.push(number);
    }

    fn start(&mut self) -> io::Result<()> {
        let queued = !self.ring.submission().is_empty();
        if queued { self.enter(0) } else { Ok(()) }
    }

    fn next(&mut self, wait: bool) -> io::Result<Option<(usize, io::Result<()>)>> {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Ok(Some(ended));
            }
            let entry = self.ring.completion().next();
            match entry {
                Some(entry) => {
                    if let Some(ended) = self.end(entry.user_data() as usize, entry.result()) {
                        return Ok(Some(ended));
                    }
                    self.start()?;
                }
                None if wait && self.count() > 0 => self.enter(1)?,
                None => return Ok(None),
            }
        }
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor stays open for as long as the ring, which `self` holds. It is readable while an end
        // waits to be taken.
        (self.count() > 0).then(|| unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }
}

impl Drop for Uring {
    /// Waits for what is in flight: it uses memory that may be gone afterwards.
    fn drop(&mut self) {
        while self.count() > 0 {
            if let Err(error) = self.next(true) {
                // The kernel may still write to memory that would be unmapped: better no process than a broken one.
                eprintln!("yunju-vmm: io_uring cannot be waited for: {error}");
                std::process::abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::num::NonZeroU64;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use rustix::fs::{Advice, fadvise};

    use super::super::Pieces;
    use super::*;

    /// Reads `length` bytes at `place` in pieces of uneven lengths; pieces are ours, as no guest is there.
    fn read(ring: &mut Uring, file: &Arc<File>, place: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0_u8; length];
        let pieces = buffer.chunks_mut(12_345);
        let pieces = pieces.map(|piece| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() });
        // SAFETY: the pieces lie in `buffer`, which outlives the operation: its end is waited for.
        let pieces = unsafe { Pieces::of_guest(pieces.collect(), Arc::default()) };
        ring.submit(7, Op { action: Action::Read, file: file.clone(), place, length: length as u64, pieces });
        ring.start()?;
        let (tag, result) = ring.next(true)?.expect("one was submitted");
        assert_eq!(tag, 7);
        result.map(|()| buffer)
    }

    #[test]
    fn a_read_is_whole_whatever_of_it_is_in_the_page_cache() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..4_u32 << 20).map(|at| (at / 4096 + at % 251) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        let mut ring = Uring::new().expect("io_uring, without which this test says nothing");
        for (start, end) in [(0, 1 << 20), (1 << 20, 3 << 20), (3 << 20, 4 << 20), (0, 4 << 20)] {
            fadvise(&file, start, NonZeroU64::new(end - start), Advice::DontNeed).unwrap();
            assert!(read(&mut ring, &file, 100, (4 << 20) - 100).unwrap() == bytes[100..], "without {start}..{end}");
        }
        let error = read(&mut ring, &file, 4 << 20, 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(read(&mut ring, &file, (4 << 20) - 4096, 8192).is_err(), "half of it is not there");
    }

    #[test]
    fn a_file_system_that_cannot_tell_whether_a_read_would_wait_is_asked_once() {
        let file = Arc::new(File::open("/proc/version").unwrap());
        let mut ring = Uring::new().expect("io_uring, without which this test says nothing");
        for _ in 0..2 {
            assert_eq!(read(&mut ring, &file, 0, 5).unwrap(), b"Linux");
            assert!(ring.queue_reads);
        }
    }
}
