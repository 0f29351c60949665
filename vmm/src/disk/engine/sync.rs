//! Operations carried out one after the other by the thread that asks.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Action, Engine, Op, Pieces};

/// Most pieces of one system call (`UIO_MAXIOV`).
pub(super) const MOST_PIECES: usize = 1024;

/// Does each operation when it is submitted.
#[derive(Default)]
pub struct Sync {
    ended: VecDeque<(usize, io::Result<()>)>,
}

impl Engine for Sync {
    fn submit(&mut self, tag: usize, op: Op) {
        self.ended.push_back((tag, run(op)));
    }

    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next(&mut self, _wait: bool) -> io::Result<Option<(usize, io::Result<()>)>> {
        Ok(self.ended.pop_front())
    }
}

/// Carries one operation out.
pub(super) fn run(op: Op) -> io::Result<()> {
    match op.action {
        Action::Read | Action::Write => transfer(op),
        Action::Clear => clear(&op.file, op.place, op.length),
        Action::Sync => op.file.sync_data(),
    }
}

/// Reads or writes all of an operation's pieces.
fn transfer(mut op: Op) -> io::Result<()> {
    while op.pieces.length() > 0 {
        let done = match op.action {
            Action::Read => vectored(libc::preadv, &op.file, &op.pieces, op.place),
            _ => vectored(libc::pwritev, &op.file, &op.pieces, op.place),
        };
        match done {
            // A file that is shorter than it was, or a device without room that says so in this way.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                op.pieces.advance(length);
                op.place += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads of an operation's pieces what needs no waiting, and leaves in it what is left.
pub(super) fn read_cached(op: &mut Op) -> io::Result<()> {
    /// `preadv` that fails rather than wait for a disk (preadv2(2)).
    unsafe extern "C" fn preadv_nowait(fd: i32, pieces: *const libc::iovec, count: i32, place: i64) -> isize {
        // SAFETY: the caller's promises are those that this call asks for.
        unsafe { libc::preadv2(fd, pieces, count, place, libc::RWF_NOWAIT) }
    }
    let length = vectored(preadv_nowait, &op.file, &op.pieces, op.place)?;
    op.pieces.advance(length);
    op.place += length as u64;
    Ok(())
}

type Vectored = unsafe extern "C" fn(i32, *const libc::iovec, i32, i64) -> isize;

fn vectored(call: Vectored, file: &File, pieces: &Pieces, place: u64) -> io::Result<usize> {
    let count = pieces.pieces.len().min(MOST_PIECES);
    let place = i64::try_from(place).map_err(io::Error::other)?;
    // SAFETY: the pieces are mapped for as long as `pieces` lives; what a guest does to its memory meanwhile is between
    // it and the kernel.
    let done = unsafe { call(file.as_raw_fd(), pieces.pieces.as_ptr(), count as i32, place) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Makes a range of a file zeros: a hole, or written zeros where the file system has no holes.
pub(super) fn clear(file: &File, mut place: u64, mut length: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    if length == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, place, length) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error.into()),
        }
    }
    while length > 0 {
        let piece = length.min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], place)?;
        place += piece;
        length -= piece;
    }
    Ok(())
}
