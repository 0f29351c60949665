//! Requests, one after the other on several connections, and how long each took.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::{CONNECTIONS, REQUESTS};

/// What is asked.
pub struct Question {
    path: &'static str,
    writes: bool,
}

impl Question {
    pub const fn read(path: &'static str) -> Self {
        Self { path, writes: false }
    }

    /// Adds something with a name of its own.
    pub const fn write(path: &'static str) -> Self {
        Self { path, writes: true }
    }
}

/// How long answers took.
#[derive(Default)]
pub struct Answers {
    times: Vec<Duration>,
    whole: Duration,
}

impl Answers {
    pub fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.whole.as_secs_f64()
    }

    pub fn p99(&self) -> f64 {
        p99(self.times.clone())
    }
}

/// In milliseconds.
pub fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e3
}

pub async fn ask(socket: &Path, question: &Question, round: usize) -> Answers {
    let begun = Instant::now();
    let ask = async |connection: usize| {
        let mut times = Vec::new();
        let mut stream = Connection::open(socket).await;
        for n in 0..REQUESTS / CONNECTIONS {
            let body = question.writes.then(|| json!({"name": format!("g{round}-{connection}-{n}")}));
            let start = Instant::now();
            let (status, answer) =
                stream.send(if question.writes { "POST" } else { "GET" }, question.path, body.as_ref()).await;
            times.push(start.elapsed());
            assert!(status < 300, "{}: {status} {answer}", question.path);
        }
        times
    };
    let times = futures_util::future::join_all((0..CONNECTIONS).map(ask)).await.concat();
    Answers { times, whole: begun.elapsed() }
}

/// Connects as soon as somebody listens there.
pub async fn connect(socket: &Path) -> UnixStream {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > until => panic!("{}: {error}", socket.display()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// One that is kept.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(socket: &Path) -> Self {
        let (sender, connection) = handshake(TokioIo::new(connect(socket).await)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::from(body.map(Value::to_string).unwrap_or_default()))
            .unwrap();
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}
