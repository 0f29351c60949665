//! Operations that the kernel carries out while the thread goes on (`io_uring`, Linux 5.15 or later).
//!
//! Reads go through the ring: what is in the page cache is there at once, the rest comes when it comes. Most file systems,
//! ext4 among them, cannot begin a buffered write without perhaps waiting, so that the kernel hands each to a thread of its
//! own: more than twice the time and work of a plain write, which only copies into the page cache. So writes are made at
//! once by this thread, until one takes long because the kernel makes writers wait for the disk; then they go
//! through the ring for a while, and nobody who reads waits behind them.

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
}

// SAFETY: the ring is used by one thread at a time; nothing in the kernel ties it to the one that made it, as no flag for a
// single issuer is set.
unsafe impl Send for Uring {}

impl Uring {
    /// Makes a ring, if the kernel has any and this process may.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_coop_taskrun().build(ENTRIES).or_else(|_| IoUring::new(ENTRIES))?;
        ring.submitter().register_iowq_max_workers(&mut WORKERS.clone())?;
        let queue_writes_until = Instant::now();
        Ok(Self { ring, in_flight: Vec::new(), free: Vec::new(), ended: VecDeque::new(), queue_writes_until })
    }

    /// The same, with writes always through the ring.
    #[cfg(test)]
    pub fn with_queued_writes() -> io::Result<Self> {
        let mut ring = Self::new()?;
        ring.queue_writes_until += Duration::from_secs(3600);
        Ok(ring)
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
    fn submit(&mut self, tag: usize, op: Op) {
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
