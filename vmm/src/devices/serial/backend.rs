//! Where the serial port's bytes go and come from. The guest never waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::PollFlags;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use vmm_sys_util::eventfd::EventFd;

use super::Serial;
use crate::event::{borrow, wait};
use crate::threads::{self, Kind};

/// Bytes of output that a new client of a socket is shown, and that a slow one may be behind.
const HISTORY: usize = 64 << 10;
/// Ctrl-], which ends the machine when typed at the terminal.
const ESCAPE: u8 = 0x1d;

/// Where output goes.
#[derive(Clone)]
pub enum Output {
    /// Nowhere.
    None,
    /// Standard output, or a file that is appended to.
    File(Arc<File>),
    /// The client of a socket.
    Socket(Arc<Outbox>),
}

/// Output on its way to a socket's client.
pub struct Outbox {
    recent: Mutex<Recent>,
    wake: EventFd,
}

#[derive(Default)]
struct Recent {
    bytes: VecDeque<u8>,
    /// How many bytes at the end of `bytes` the client has not been sent.
    unsent: usize,
}

impl Outbox {
    /// An empty one that signals `wake` when there is something to send.
    pub fn new(wake: EventFd) -> Arc<Self> {
        Arc::new(Self { recent: Mutex::default(), wake })
    }

    fn add(&self, bytes: &[u8]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.bytes.extend(bytes);
        recent.unsent += bytes.len();
        let excess = recent.bytes.len().saturating_sub(HISTORY);
        recent.bytes.drain(..excess);
        recent.unsent = recent.unsent.min(recent.bytes.len());
        // A full counter has already woken the thread.
        let _ = self.wake.write(1);
    }

    fn has_unsent(&self) -> bool {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).unsent > 0
    }

    /// A new client is shown all that is remembered.
    fn rewind(&self) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.unsent = recent.bytes.len();
    }

    fn send(&self, client: &mut UnixStream) -> io::Result<()> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let start = recent.bytes.len() - recent.unsent;
        let (first, second) = recent.bytes.as_slices();
        let piece = if start < first.len() { &first[start..] } else { &second[start - first.len()..] };
        match client.write(piece) {
            Ok(sent) => recent.unsent -= sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None => {}
            Self::File(file) => file.as_ref().write_all(bytes)?,
            Self::Socket(outbox) => outbox.add(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves a listening socket: one client at a time, the newest.
pub fn serve_socket(listener: UnixListener, serial: Serial, outbox: Arc<Outbox>, wake: EventFd) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    threads::spawn(Kind::Serial, "serial", 128 << 10, move || {
        let mut client: Option<UnixStream> = None;
        loop {
            let mut interest = vec![(listener.as_fd(), PollFlags::IN), (borrow(&wake), PollFlags::IN)];
            if let Some(client) = &client {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, serial.capacity() > 0);
                flags.set(PollFlags::OUT, outbox.has_unsent());
                interest.push((client.as_fd(), flags));
            }
            let Ok(ready) = wait(&interest) else { return };
            if !ready[1].is_empty() {
                // Resets the counter.
                let _ = wake.read();
            }
            if ready.get(2).is_some_and(|flags| !flags.is_empty())
                && let Some(stream) = &mut client
                && exchange(stream, ready[2], &serial, &outbox).is_err()
            {
                client = None;
            }
            if !ready[0].is_empty()
                && let Ok((stream, _)) = listener.accept()
                && stream.set_nonblocking(true).is_ok()
            {
                outbox.rewind();
                client = Some(stream);
            }
        }
    })?;
    Ok(())
}

/// Sends output and types input. An error means that the client is gone.
fn exchange(stream: &mut UnixStream, ready: PollFlags, serial: &Serial, outbox: &Outbox) -> io::Result<()> {
    if ready.contains(PollFlags::OUT) {
        outbox.send(stream)?;
    }
    if ready.contains(PollFlags::IN) {
        let mut bytes = [0; 64];
        let room = serial.capacity().min(bytes.len());
        match stream.read(&mut bytes[..room]) {
            Ok(0) if room > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => serial.type_bytes(&bytes[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    } else if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(())
}

/// Types what comes from standard input. Ctrl-] at a terminal calls `escape`.
pub fn serve_stdin(serial: Serial, wake: EventFd, escape: impl Fn() + Send + 'static) -> io::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let terminal = rustix::termios::isatty(&stdin);
    threads::spawn(Kind::Serial, "serial", 128 << 10, move || {
        let mut input = File::from(stdin);
        loop {
            let mut interest = vec![(borrow(&wake), PollFlags::IN)];
            if serial.capacity() > 0 {
                interest.push((input.as_fd(), PollFlags::IN));
            }
            let Ok(ready) = wait(&interest) else { return };
            if !ready[0].is_empty() {
                // Resets the counter.
                let _ = wake.read();
            }
            if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
                let mut bytes = [0; 64];
                let room = serial.capacity().min(bytes.len());
                match input.read(&mut bytes[..room]) {
                    Ok(0) | Err(_) if room > 0 => return,
                    Ok(length) if terminal && bytes[..length].contains(&ESCAPE) => escape(),
                    Ok(length) => serial.type_bytes(&bytes[..length]),
                    Err(_) => {}
                }
            }
        }
    })?;
    Ok(())
}

/// A terminal in raw mode, put back as it was when dropped.
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw if it is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let terminal = io::stdin().as_fd().try_clone_to_owned()?;
        if !rustix::termios::isatty(&terminal) {
            return Ok(None);
        }
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output keeps its line ends: our own messages go to the same terminal.
        raw.output_modes = before.output_modes;
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_client_is_shown_what_was_before_and_what_it_types_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let (line, wake) = (event(), event());
        let outbox = Outbox::new(wake.try_clone().unwrap());
        let mut serial = Serial::new(line, wake.try_clone().unwrap(), Output::Socket(outbox.clone()));
        serve_socket(UnixListener::bind(&path).unwrap(), serial.clone(), outbox, wake).unwrap();

        use crate::bus::BusDevice;
        for byte in b"before " {
            serial.write(0, &[*byte]);
        }
        let mut client = UnixStream::connect(&path).unwrap();
        let mut text = [0; 7];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"before ");
        client.write_all(&[b'x'; 200]).unwrap();
        let mut read = 0;
        while read < 200 {
            if serial.capacity() < 64 {
                let mut byte = [0];
                serial.read(0, &mut byte);
                assert_eq!(byte, *b"x");
                read += 1;
            }
            std::thread::yield_now();
        }
        // A second client takes the place of the first.
        let mut second = UnixStream::connect(&path).unwrap();
        second.read_exact(&mut text).unwrap();
        assert_eq!(client.read(&mut text).unwrap(), 0);
    }

    #[test]
    fn output_without_a_reader_is_bounded() {
        let outbox = Outbox::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        for _ in 0..100 {
            outbox.add(&[1; 4096]);
        }
        assert_eq!(outbox.recent.lock().unwrap().bytes.len(), HISTORY);
    }
}
