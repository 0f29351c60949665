//! HTTP/1.1 to somebody on a Unix socket: a machine's control API, a desktop's proxy, the service itself.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("cannot connect to {path}: {error}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The other side does not speak HTTP as it should.
    #[error("no proper answer from {path}: {error}", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("no answer from {path} within {seconds} s", path = path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Sends one request on a connection of its own. The answer may be an upgrade.
pub async fn send(socket: &Path, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
    send_with(socket, request, Vec::new()).await
}

async fn send_with(
    socket: &Path,
    request: Request<Full<Bytes>>,
    descriptors: Vec<OwnedFd>,
) -> Result<Response<Incoming>, Error> {
    let stream =
        UnixStream::connect(socket).await.map_err(|error| Error::Connect { path: socket.to_owned(), error })?;
    let answer = |error: hyper::Error| Error::Answer { path: socket.to_owned(), error: error.into() };
    let stream = TokioIo::new(Bearer { stream, descriptors });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(answer)?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(answer)
}

/// Sends a request without a body and reads the whole answer, which may have `limit` bytes.
pub async fn fetch(
    socket: &Path,
    method: Method,
    path: &str,
    limit: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), Error> {
    exchange(socket, request(method, path, Bytes::new()), Vec::new(), limit, timeout).await
}

/// Posts `body`, whose first byte the descriptors go with, and reads the whole answer, which may have `limit` bytes.
pub async fn post(
    socket: &Path,
    path: &str,
    body: impl Into<Bytes>,
    descriptors: Vec<OwnedFd>,
    limit: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), Error> {
    exchange(socket, request(Method::POST, path, body.into()), descriptors, limit, timeout).await
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    request.body(Full::new(body)).expect("the path is one of ours")
}

async fn exchange(
    socket: &Path,
    request: Request<Full<Bytes>>,
    descriptors: Vec<OwnedFd>,
    limit: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), Error> {
    let exchange = async {
        let response = send_with(socket, request, descriptors).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| Error::Answer { path: socket.to_owned(), error })?;
        Ok((status, body.to_bytes()))
    };
    let late = |_| Error::Timeout { path: socket.to_owned(), seconds: timeout.as_secs() };
    tokio::time::timeout(timeout, exchange).await.map_err(late)?
}

/// A connection whose first bytes bear descriptors (`SCM_RIGHTS`).
struct Bearer {
    stream: UnixStream,
    descriptors: Vec<OwnedFd>,
}

impl Bearer {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other(format!("more than {MOST_DESCRIPTORS} descriptors for one request")));
        }
        Ok(sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
    }
}

/// A request bears at most so many descriptors.
const MOST_DESCRIPTORS: usize = 32;

impl AsyncRead for Bearer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Bearer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.descriptors.is_empty() {
            std::task::ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.descriptors.clear();
                    return Poll::Ready(Ok(count));
                }
            }
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
