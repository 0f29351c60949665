//! The host's side of connection set-up: the listening socket, and clients that have not said yet which
//! port they want.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Longest first line of a client: `CONNECT 4294967295\n`.
const LINE: usize = 19;

/// A listening Unix socket, whose file goes when it does.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    services: PathBuf,
    /// Given up for a moment to refuse a client when the process has no descriptors left: a client that
    /// is never accepted would wake the device for ever.
    spare: Option<OwnedFd>,
}

impl Listener {
    /// Listens at `path`. A socket that was left behind by a process that is gone is replaced.
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        let socket = match UnixListener::bind(&path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && abandoned(&path) => {
                fs::remove_file(&path)?;
                UnixListener::bind(&path)
            }
            result => result,
        };
        let socket =
            socket.map_err(|error| io::Error::new(error.kind(), format!("listen at {}: {error}", path.display())))?;
        socket.set_nonblocking(true)?;
        let spare = spare(&socket);
        Ok(Self { socket, services: path.clone(), path, spare })
    }

    /// The next client, if one waits.
    pub fn accept(&mut self) -> Option<UnixStream> {
        match self.socket.accept() {
            Ok((client, _)) => Some(client),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.spare = None;
                drop(self.socket.accept());
                self.spare = spare(&self.socket);
                None
            }
            // Nobody waits, or who waited has gone.
            Err(_) => None,
        }
    }

    /// Reaches services by a path relative to their folder from now on.
    pub fn reach_from_its_folder(&mut self) {
        self.services = self.path.file_name().map(Into::into).unwrap_or_default();
    }

    /// Where guests' connections to `port` go.
    pub fn service(&self, port: u32) -> PathBuf {
        let mut path = self.services.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }
}

/// Any descriptor will do; no file can be opened in a jail.
fn spare(socket: &UnixListener) -> Option<OwnedFd> {
    socket.as_fd().try_clone_to_owned().ok()
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A file that somebody else removed already is what we want.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether `path` is a socket that nobody listens on.
fn abandoned(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A client of which the first line, `CONNECT <port>\n`, is not complete.
pub struct Client {
    pub id: u64,
    pub socket: UnixStream,
    line: Vec<u8>,
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Not all yet.
    Incomplete,
    /// A guest's port.
    Port(u32),
    /// Nonsense, or it has gone.
    Nothing,
}

impl Client {
    pub fn new(id: u64, socket: UnixStream) -> Self {
        Self { id, socket, line: Vec::new() }
    }

    /// Reads on, but not beyond the end of the line: what follows is for the guest.
    pub fn read(&mut self) -> Wish {
        let mut bytes = [0; LINE];
        let room = &mut bytes[..LINE - self.line.len()];
        let seen = match recv(&self.socket, &mut *room, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Wish::Nothing,
            Ok((_, seen)) => seen,
            Err(Errno::AGAIN | Errno::INTR) => return Wish::Incomplete,
            Err(_) => return Wish::Nothing,
        };
        let end = room[..seen].iter().position(|byte| *byte == b'\n');
        let take = end.map_or(seen, |end| end + 1);
        if !matches!(recv(&self.socket, &mut room[..take], RecvFlags::DONTWAIT), Ok((_, taken)) if taken == take) {
            return Wish::Nothing;
        }
        self.line.extend_from_slice(&room[..end.unwrap_or(take)]);
        match end {
            Some(_) => port(&self.line).map_or(Wish::Nothing, Wish::Port),
            None if self.line.len() < LINE => Wish::Incomplete,
            None => Wish::Nothing,
        }
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    // `parse` alone would also take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn client() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(0, ours), theirs)
    }

    #[test]
    fn a_first_line_may_come_in_pieces_and_what_follows_is_not_read() {
        let (mut client, mut peer) = client();
        assert_eq!(client.read(), Wish::Incomplete);
        peer.write_all(b"CONN").unwrap();
        assert_eq!(client.read(), Wish::Incomplete);
        peer.write_all(b"ECT 4294967295\nhello").unwrap();
        assert_eq!(client.read(), Wish::Port(u32::MAX));
        let mut rest = [0; 5];
        client.socket.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
    }

    #[test]
    fn nonsense_is_refused() {
        for line in
            ["\n", "CONNECT\n", "CONNECT \n", "CONNECT +5\n", "CONNECT 4294967296\n", "connect 5\n", "CONNECT 5\r\n"]
        {
            let (mut client, mut peer) = client();
            peer.write_all(line.as_bytes()).unwrap();
            assert_eq!(client.read(), Wish::Nothing, "{line:?}");
        }
        let (mut client, mut peer) = client();
        peer.write_all(&[b'a'; 100]).unwrap();
        assert_eq!(client.read(), Wish::Nothing, "a line without end");
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(path.clone()).unwrap();
        let error = Listener::bind(path.clone()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("vsock"), "{error}");
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(Listener::bind(path.clone()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
