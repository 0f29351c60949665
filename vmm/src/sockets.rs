//! Unix sockets by path or inherited descriptor.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use yunju_protocol::machine::Endpoint;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody listens there already.
    #[error("socket {}: address in use; another machine listens there", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("socket {endpoint}: {source}")]
    Io {
        /// Which socket.
        endpoint: Endpoint,
        /// The system's answer.
        source: io::Error,
    },
}

/// A listening stream socket.
pub fn listen_stream(endpoint: &Endpoint) -> Result<UnixListener, Error> {
    listener(endpoint, SocketType::STREAM).map(UnixListener::from)
}

/// A listening socket that keeps packets apart.
pub fn listen_packets(endpoint: &Endpoint) -> Result<OwnedFd, Error> {
    listener(endpoint, SocketType::SEQPACKET)
}

/// A connected stream socket.
pub fn connect_stream(endpoint: &Endpoint) -> Result<OwnedFd, Error> {
    match endpoint {
        Endpoint::Fd(number) => inherited(*number).map_err(error(endpoint)),
        Endpoint::Unix(path) => open(path, SocketType::STREAM)
            .and_then(|(socket, address)| connect(&socket, &address).map(|()| socket).map_err(io::Error::from))
            .map_err(error(endpoint)),
    }
}

fn listener(endpoint: &Endpoint, kind: SocketType) -> Result<OwnedFd, Error> {
    let path = match endpoint {
        Endpoint::Fd(number) => return inherited(*number).map_err(error(endpoint)),
        Endpoint::Unix(path) => path,
    };
    let attempt = || -> io::Result<OwnedFd> {
        let (socket, address) = open(path, kind)?;
        bind(&socket, &address)?;
        listen(&socket, 16)?;
        Ok(socket)
    };
    match attempt() {
        Err(refused) if refused.kind() == io::ErrorKind::AddrInUse => {
            // A socket file that nobody listens on is what a killed process left behind.
            let (probe, address) = open(path, kind).map_err(error(endpoint))?;
            match connect(&probe, &address) {
                Err(rustix::io::Errno::CONNREFUSED) => {
                    std::fs::remove_file(path).and_then(|()| attempt()).map_err(error(endpoint))
                }
                _ => Err(Error::InUse(path.clone())),
            }
        }
        other => other.map_err(error(endpoint)),
    }
}

fn open(path: &Path, kind: SocketType) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let address = SocketAddrUnix::new(path)?;
    Ok((socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?, address))
}

fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD only changes a flag of a descriptor, or fails if there is none.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::other("no such inherited descriptor"));
    }
    // SAFETY: it is open, and each configured descriptor is taken by one part of the machine only, which
    // `config` checks.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn error(endpoint: &Endpoint) -> impl Fn(io::Error) -> Error {
    let endpoint = endpoint.clone();
    move |source| Error::Io { endpoint: endpoint.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(folder.path().join("s"));
        let first = listen_stream(&endpoint).unwrap();
        assert!(matches!(listen_stream(&endpoint), Err(Error::InUse(_))));
        drop(first);
        let _second = listen_stream(&endpoint).unwrap();
        connect_stream(&endpoint).unwrap();
        let packets = Endpoint::Unix(folder.path().join("p"));
        let first = listen_packets(&packets).unwrap();
        assert!(matches!(listen_packets(&packets), Err(Error::InUse(_))));
        drop(first);
        listen_packets(&packets).unwrap();
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        let error = listen_stream(&Endpoint::Fd(9999)).unwrap_err();
        assert!(error.to_string().contains("fd:9999"), "{error}");
    }
}
