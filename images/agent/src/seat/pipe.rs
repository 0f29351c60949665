//! Bytes through pipes to and from programs that may be slow, hang or never stop.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A program that neither takes nor gives a byte for this long is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is asked whether anybody still wants to know.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Reads to the end, at most `limit` bytes, for as long as `wanted`.
pub fn read(from: OwnedFd, limit: usize, wanted: impl Fn() -> bool) -> io::Result<Vec<u8>> {
    let mut from = non_blocking(from)?;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        ready(&from, PollFlags::IN, &wanted)?;
        match from.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) if bytes.len() + count > limit => {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
            }
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if again(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of `bytes`.
pub fn write(to: OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    let mut to = non_blocking(to)?;
    while !bytes.is_empty() {
        ready(&to, PollFlags::OUT, &|| true)?;
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if again(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn non_blocking(fd: OwnedFd) -> io::Result<File> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(File::from(fd))
}

/// Waits until there is something to do.
fn ready(fd: impl AsFd, for_what: PollFlags, wanted: &impl Fn() -> bool) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        if !wanted() {
            return Err(io::Error::other("something newer was copied"));
        }
        let mut fds = [PollFd::new(&fd, for_what)];
        match poll(&mut fds, Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn what_is_written_is_read_to_its_end() {
        let (reader, writer) = pipe().unwrap();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let sent = bytes.clone();
        let writing = thread::spawn(move || write(writer, &sent));
        assert_eq!(read(reader, 1_000_000, || true).unwrap(), bytes);
        writing.join().unwrap().unwrap();
    }

    #[test]
    fn more_than_may_be_is_nothing() {
        let (reader, writer) = pipe().unwrap();
        let writing = thread::spawn(move || write(writer, &[7; 1_000_000]));
        assert_eq!(read(reader, 300_000, || true).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(writing.join().unwrap().is_err(), "nobody reads the rest");
    }

    #[test]
    fn a_program_that_hangs_is_left_when_something_newer_is_wanted() {
        let (reader, _writer) = pipe().unwrap();
        let begun = Instant::now();
        assert!(read(reader, 10, || begun.elapsed() < Duration::from_millis(50)).is_err());
    }
}
