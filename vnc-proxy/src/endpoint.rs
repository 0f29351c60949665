//! Where to listen: `unix:/path`, `tcp:ADDRESS:PORT` or `fd:N`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::AddressFamily;

use crate::transport::Socket;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket at a path.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
    /// A listening socket that this process was started with.
    Fd(RawFd),
}

/// What is wrong with an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written as one.
    #[error("{0:?} is no endpoint: write unix:/PATH, tcp:ADDRESS:PORT or fd:NUMBER")]
    Syntax(String),
    /// Somebody listens there.
    #[error("cannot listen on {0}: address in use")]
    InUse(Endpoint),
    /// A file that is no socket.
    #[error("cannot listen on {0}: a file that is no socket is there")]
    NotASocket(Endpoint),
    /// The system refused.
    #[error("cannot listen on {0}: {1}")]
    Listen(Endpoint, io::Error),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let endpoint = match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().ok().map(Self::Tcp),
            Some(("fd", number)) => number.parse().ok().filter(|fd| *fd > 2).map(Self::Fd),
            _ => None,
        };
        endpoint.ok_or_else(|| Error::Syntax(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(to, "unix:{}", path.display()),
            Self::Tcp(address) => write!(to, "tcp:{address}"),
            Self::Fd(number) => write!(to, "fd:{number}"),
        }
    }
}

/// A listening socket, for which no runtime is needed. One of ours at a path is removed in the end.
#[derive(Debug)]
pub struct Listener {
    socket: Kind,
    remove: Option<PathBuf>,
}

#[derive(Debug)]
enum Kind {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. A Unix socket at whose path nobody listens any more is replaced.
    pub fn bind(endpoint: &Endpoint) -> Result<Self, Error> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::InUse(endpoint.clone()),
            _ => Error::Listen(endpoint.clone(), error),
        };
        let (socket, remove) = match endpoint {
            Endpoint::Unix(path) => {
                remove_stale(path, endpoint)?;
                (
                    Kind::Unix(UnixListener::bind(path).map_err(failed)?),
                    Some(std::path::absolute(path).map_err(failed)?),
                )
            }
            Endpoint::Tcp(address) => (Kind::Tcp(TcpListener::bind(address).map_err(failed)?), None),
            Endpoint::Fd(number) => (inherit(*number).map_err(failed)?, None),
        };
        let listener = Self { socket, remove };
        match &listener.socket {
            Kind::Unix(socket) => socket.set_nonblocking(true),
            Kind::Tcp(socket) => socket.set_nonblocking(true),
        }
        .map_err(failed)?;
        Ok(listener)
    }

    /// The address, if it is TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix(_) => None,
        }
    }

    /// The way in for viewers. Needs a tokio runtime.
    pub fn door(&self) -> io::Result<Door> {
        match &self.socket {
            Kind::Unix(listener) => tokio::net::UnixListener::from_std(listener.try_clone()?).map(Door::Unix),
            Kind::Tcp(listener) => tokio::net::TcpListener::from_std(listener.try_clone()?).map(Door::Tcp),
        }
    }
}

/// Where viewers come in.
#[derive(Debug)]
pub enum Door {
    /// A Unix socket.
    Unix(tokio::net::UnixListener),
    /// A TCP socket.
    Tcp(tokio::net::TcpListener),
}

impl Door {
    /// Waits for a viewer.
    pub async fn accept(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(Box::new(socket))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            // Somebody may have removed it before.
            drop(std::fs::remove_file(path));
        }
    }
}

fn remove_stale(path: &Path, endpoint: &Endpoint) -> Result<(), Error> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(Error::NotASocket(endpoint.clone()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| Error::Listen(endpoint.clone(), error))
        }
        _ => Err(Error::InUse(endpoint.clone())),
    }
}

fn inherit(number: RawFd) -> io::Result<Kind> {
    // SAFETY: any number may be asked of F_GETFD; it tells whether a descriptor is open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(borrowed)?;
    // SAFETY: the number is of an open descriptor that whoever started this process passed on its command line for
    // this use. Numbers up to 2 are refused, and nothing else here uses descriptors by number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::net::sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => Ok(Kind::Unix(fd.into())),
        _ => Ok(Kind::Tcp(fd.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_written() {
        for text in ["unix:/run/ws.sock", "tcp:127.0.0.1:5900", "tcp:[::1]:0", "fd:3"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "/run/ws.sock", "tcp:localhost", "tcp:1.2.3.4:99999", "fd:x", "fd:1", "udp:1.2.3.4:5"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(folder.path().join("s"));
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap());
        let listener = Listener::bind(&endpoint).unwrap();
        let refused = Listener::bind(&endpoint).unwrap_err().to_string();
        assert!(refused.ends_with("address in use"), "{refused}");
        drop(listener);
        assert!(!folder.path().join("s").exists(), "our socket is removed in the end");
        std::fs::write(folder.path().join("s"), "data").unwrap();
        assert!(matches!(Listener::bind(&endpoint), Err(Error::NotASocket(_))));
    }

    #[tokio::test]
    async fn a_descriptor_that_is_not_open_is_refused() {
        assert!(matches!(Listener::bind(&Endpoint::Fd(987)), Err(Error::Listen(..))));
    }
}
