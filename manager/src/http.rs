//! HTTP/1.1 to somebody on a Unix socket: a machine's control API, a desktop's proxy, the service itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
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
    let stream =
        UnixStream::connect(socket).await.map_err(|error| Error::Connect { path: socket.to_owned(), error })?;
    let answer = |error: hyper::Error| Error::Answer { path: socket.to_owned(), error: error.into() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(answer)?;
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
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::default())
        .expect("the path is one of ours");
    let exchange = async {
        let response = send(socket, request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        let body = body.map_err(|error| Error::Answer { path: socket.to_owned(), error })?;
        Ok((status, body.to_bytes()))
    };
    let late = |_| Error::Timeout { path: socket.to_owned(), seconds: timeout.as_secs() };
    tokio::time::timeout(timeout, exchange).await.map_err(late)?
}
