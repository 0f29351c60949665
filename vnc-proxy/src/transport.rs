//! The byte stream to a viewer: a plain socket, or binary messages of a websocket (RFC 6455).

use std::io;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use yunju_protocol::viewer::{self, Viewer};

/// A viewer that takes no byte for this long is given up.
pub const STALLED: Duration = Duration::from_secs(60);

/// Largest message that a viewer may send on a websocket.
const MAX_MESSAGE: usize = 1 << 20;

/// Pieces that are handed to the socket at once.
const PIECE: usize = 64 << 10;

/// A connected socket.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

type Plain = Box<dyn Socket>;

/// Why a viewer's stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The viewer has gone.
    #[error("it has closed the connection")]
    Closed,
    /// The socket failed.
    #[error("its connection failed: {0}")]
    Io(#[from] io::Error),
    /// The websocket failed.
    #[error("its websocket failed: {0}")]
    Websocket(Box<tungstenite::Error>),
    /// Text instead of bytes.
    #[error("it sent a text message on its websocket; RFB is binary")]
    Text,
    /// It takes nothing.
    #[error("it has taken nothing for {} s", STALLED.as_secs())]
    Stalled,
}

impl From<tungstenite::Error> for Error {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            tungstenite::Error::Io(error) => Self::Io(error),
            error => Self::Websocket(Box::new(error)),
        }
    }
}

/// The bytes that a viewer sends.
pub enum Source {
    /// From a plain socket.
    Plain(ReadHalf<Plain>),
    /// From a websocket.
    Websocket(SplitStream<WebSocketStream<Plain>>),
}

/// The bytes that go to a viewer.
pub enum Sink {
    /// To a plain socket.
    Plain(WriteHalf<Plain>),
    /// To a websocket.
    Websocket(SplitSink<WebSocketStream<Plain>, Message>),
}

/// Speaks plain RFB on a socket.
pub fn plain(socket: impl Socket + 'static) -> (Source, Sink) {
    let (source, sink) = tokio::io::split(Box::new(socket) as Plain);
    (Source::Plain(source), Sink::Plain(sink))
}

/// A websocket that was opened.
pub type Websocket = WebSocketStream<Box<dyn Socket>>;

/// What a websocket is for, by the path that it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// RFB: any path but those below.
    Screen,
    /// `/audio`: what the machine plays, and a microphone.
    Sound,
    /// `/io`: what a person's browser and the guest tell each other beside RFB.
    Side,
}

impl Purpose {
    fn of(path: &str) -> Self {
        match path {
            "/audio" => Self::Sound,
            "/io" => Self::Side,
            _ => Self::Screen,
        }
    }
}

/// Answers a websocket's opening request: what it is for and whose it is. One that does not say clearly who that is is refused.
pub async fn websocket(socket: impl Socket + 'static) -> Result<(Purpose, Viewer, Websocket), Error> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = 16 << 10;
    // Each message goes out at once.
    config.write_buffer_size = 0;
    config.max_write_buffer_size = 4 * PIECE;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let (mut purpose, mut viewer) = (Purpose::Screen, Viewer::default());
    #[expect(clippy::result_large_err, reason = "the signature is the websocket library's")]
    let agree = |request: &Request, response| {
        purpose = Purpose::of(request.uri().path());
        viewer = who(request).map_err(refusal)?;
        Ok::<_, ErrorResponse>(agree_on_binary(request, response))
    };
    let stream = accept_hdr_async_with_config(Box::new(socket) as Plain, agree, Some(config)).await?;
    Ok((purpose, viewer, stream))
}

fn who(request: &Request) -> Result<Viewer, viewer::Error> {
    Viewer::of_headers(|name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes))
}

fn refusal(error: viewer::Error) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(error.to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Speaks RFB over a websocket.
pub fn over_websocket(stream: Websocket) -> (Source, Sink) {
    let (sink, source) = stream.split();
    (Source::Websocket(source), Sink::Websocket(sink))
}

fn agree_on_binary(request: &Request, mut response: Response) -> Response {
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offer| offer.to_str().ok());
    if offers.flat_map(|offer| offer.split(',')).any(|offer| offer.trim() == "binary") {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    }
    response
}

impl Source {
    /// Waits for bytes and appends them.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Plain(socket) => {
                buffer.reserve(4096);
                if socket.read_buf(buffer).await? == 0 { Err(Error::Closed) } else { Ok(()) }
            }
            Self::Websocket(socket) => loop {
                match socket.next().await.ok_or(Error::Closed)?? {
                    Message::Binary(bytes) => {
                        buffer.extend_from_slice(&bytes);
                        return Ok(());
                    }
                    Message::Text(_) => return Err(Error::Text),
                    Message::Close(_) => return Err(Error::Closed),
                    // Pings are answered by the library.
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            },
        }
    }
}

impl Sink {
    /// Sends bytes now.
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
            match self {
                Self::Plain(socket) => {
                    timeout(STALLED, socket.write_all(piece)).await.map_err(|_| Error::Stalled)??
                }
                Self::Websocket(socket) => {
                    let message = Message::Binary(piece.to_vec().into());
                    timeout(STALLED, socket.send(message)).await.map_err(|_| Error::Stalled)??;
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Tells the viewer why it is given up, if it will hear, and closes.
    pub async fn close(&mut self, reason: &str) {
        let closing = async {
            match self {
                Self::Plain(socket) => drop(socket.shutdown().await),
                Self::Websocket(socket) => {
                    // A close frame holds at most 123 bytes of reason.
                    let mut reason = reason.to_owned();
                    reason.truncate(reason.floor_char_boundary(123));
                    let frame = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
                    drop(socket.send(Message::Close(Some(frame))).await);
                }
            }
        };
        // Who does not hear is cut off.
        drop(timeout(Duration::from_secs(1), closing).await);
    }
}
