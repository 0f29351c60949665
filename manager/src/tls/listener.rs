//! Connections that become HTTPS, each at its own speed; one that speaks HTTP is told where HTTPS is.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Certificate;

/// A connection may take this long to become one.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many may be about to at once: others wait.
const BEGINNING: usize = 1024;
/// The first byte of a TLS record with a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// A TCP listener whose connections are HTTPS.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Listener {
    /// Begins to listen.
    pub fn new(tcp: TcpListener, certificate: Arc<Certificate>) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let (sender, ready) = mpsc::channel(16);
        tokio::spawn(accept_all(tcp, move |stream, peer| {
            let (certificate, sender) = (certificate.clone(), sender.clone());
            async move {
                if let Some(stream) = shake(stream, &certificate, address.port()).await {
                    let _ = sender.send((stream, peer)).await; // the service ends
                }
            }
        }));
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(one) => one,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Tells all who connect that the service is at `port`, by HTTPS.
pub async fn redirect_all(tcp: TcpListener, port: u16) {
    accept_all(tcp, move |stream, _| redirect(stream, port)).await;
}

/// Does `with` each connection what is to be done before it is handed on, many at a time.
async fn accept_all<F>(tcp: TcpListener, with: impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(BEGINNING));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match tcp.accept().await {
            Ok((stream, peer)) => {
                let work = with(stream, peer);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, work).await; // who is slower is cut off
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                // of descriptors there may be more in a moment
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn shake(stream: TcpStream, certificate: &Certificate, port: u16) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0] != HANDSHAKE {
        redirect(stream, port).await;
        return None;
    }
    match TlsAcceptor::from(certificate.now()).accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a connection did not become HTTPS");
            None
        }
    }
}

async fn redirect(stream: TcpStream, port: u16) {
    let answer = hyper::service::service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(elsewhere(&request, port))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let http = http.timer(TokioTimer::new()).keep_alive(false);
    let _ = http.serve_connection(TokioIo::new(stream), answer).await; // whoever that was
}

/// The same address by HTTPS: 308 keeps method and body.
fn elsewhere(request: &Request<Incoming>, port: u16) -> Response<Empty<Bytes>> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok()).map(|authority| authority.host().to_owned());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = host.and_then(|host| HeaderValue::try_from(format!("https://{host}{port}{path}")).ok());
    let mut response = Response::new(Empty::new());
    match location {
        Some(location) => {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
        }
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}
