//! A websocket, through the edge or to what stands behind it.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::load::connect;

/// What a frame of pictures has.
const PIECE: usize = 32 << 10;

/// Stands in for the proxy: what it is sent it sends back, and after four bytes so many pieces.
pub async fn stand_in() {
    let arguments: Vec<String> = std::env::args().collect();
    let socket = arguments.iter().skip_while(|argument| *argument != "--websocket").nth(1).unwrap();
    let listener = UnixListener::bind(socket.strip_prefix("unix:").unwrap()).unwrap();
    let piece = bytes::Bytes::from(vec![7; PIECE]);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let piece = piece.clone();
        tokio::spawn(async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            while let Some(Ok(message)) = socket.next().await {
                let data = message.into_data();
                let Ok(count) = <[u8; 4]>::try_from(&data[..]) else {
                    if socket.send(Message::Binary(data)).await.is_err() {
                        return;
                    }
                    continue;
                };
                for _ in 0..u32::from_be_bytes(count) {
                    if socket.send(Message::Binary(piece.clone())).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

pub type Stream = WebSocketStream<UnixStream>;

pub async fn open(socket: &Path, path: &str) -> Stream {
    let stream = connect(socket).await;
    tokio_tungstenite::client_async(format!("ws://localhost{path}"), stream).await.unwrap().0
}

/// Takes so many bytes; megabytes a second.
pub async fn bulk(stream: &mut Stream, bytes: usize) -> f64 {
    let pieces = bytes / PIECE;
    let start = Instant::now();
    stream.send(Message::binary(u32::try_from(pieces).unwrap().to_be_bytes().to_vec())).await.unwrap();
    for _ in 0..pieces {
        assert_eq!(stream.next().await.unwrap().unwrap().len(), PIECE);
    }
    (pieces * PIECE) as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// How long single messages take there and back.
pub async fn echoes(stream: &mut Stream, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.send(Message::binary(vec![1; 64])).await.unwrap();
        stream.next().await.unwrap().unwrap();
        times.push(start.elapsed());
    }
    times
}
