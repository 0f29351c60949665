//! The serial port of a running machine, shared: one connection to the VMM, any number of listeners,
//! and `serial.log`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

use super::spawn::{append_log, fresh_log};

/// What a new listener sees of the past, and what the VMM replays to a new connection.
const HISTORY: usize = 64 << 10;

/// `serial.log` starts anew beyond this; the one before is kept.
const LOG_LIMIT: u64 = 4 << 20;

/// A handle to the serial port.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Mutex<Shared>>,
    input: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
struct Shared {
    history: VecDeque<u8>,
    output: broadcast::Sender<Bytes>,
}

impl Console {
    /// Makes the handle and the work behind it, which runs until it is dropped. With `resume` the log
    /// of the running machine goes on, else a new one begins.
    pub fn new(socket: PathBuf, log: PathBuf, resume: bool) -> (Self, impl Future<Output = ()> + Send) {
        let (input, typed) = mpsc::channel(64);
        let (output, _) = broadcast::channel(256);
        let shared = Arc::new(Mutex::new(Shared { history: VecDeque::new(), output }));
        let console = Self { shared: shared.clone(), input };
        (console, async move {
            if let Err(error) = run(&socket, &log, resume, &shared, typed).await {
                tracing::warn!(log = %log.display(), %error, "the serial port is no longer recorded");
            }
        })
    }

    /// The latest output so far, and what comes after it.
    pub fn listen(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (Bytes::copy_from_slice(shared.history.make_contiguous()), shared.output.subscribe())
    }

    /// Where typed bytes go.
    pub fn input(&self) -> mpsc::Sender<Bytes> {
        self.input.clone()
    }
}

impl Shared {
    fn publish(&mut self, bytes: &Bytes) {
        self.history.extend(bytes);
        let excess = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..excess);
        let _ = self.output.send(bytes.clone()); // nobody may be listening
    }
}

async fn run(
    socket: &Path,
    log: &Path,
    resume: bool,
    shared: &Mutex<Shared>,
    mut typed: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut known = if resume { tail(log)? } else { Vec::new() };
    let mut file = if resume { append_log(log)? } else { fresh_log(log)? };
    let mut take = |bytes: Bytes| {
        if bytes.is_empty() {
            return Ok(());
        }
        if file.metadata()?.len() > LOG_LIMIT {
            file = fresh_log(log)?;
        }
        file.write_all(&bytes)?;
        shared.lock().unwrap_or_else(PoisonError::into_inner).publish(&bytes);
        io::Result::Ok(())
    };
    if !known.is_empty() {
        shared.lock().unwrap_or_else(PoisonError::into_inner).publish(&Bytes::copy_from_slice(&known));
    }
    loop {
        let mut stream = connect(socket).await;
        let replay = replayed(&mut stream).await;
        take(Bytes::copy_from_slice(&replay[overlap(&known, &replay)..]))?;
        let (mut reader, mut writer) = stream.into_split();
        let mut buffer = vec![0; 16 << 10];
        loop {
            tokio::select! {
                count = reader.read(&mut buffer) => match count {
                    Ok(0) | Err(_) => break,
                    Ok(count) => take(Bytes::copy_from_slice(&buffer[..count]))?,
                },
                Some(bytes) = typed.recv() => {
                    // a guest that reads nothing must not stop its output from being read
                    let write = tokio::time::timeout(Duration::from_secs(1), writer.write_all(&bytes));
                    if !matches!(write.await, Ok(Ok(()))) {
                        tracing::debug!(socket = %socket.display(), "typed bytes were dropped");
                    }
                }
            }
        }
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        known = shared.history.make_contiguous().to_vec();
    }
}

async fn connect(socket: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What arrives at once on a new connection.
async fn replayed(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HISTORY);
    while bytes.len() < HISTORY {
        match tokio::time::timeout(Duration::from_millis(50), stream.read_buf(&mut bytes)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => break,
        }
    }
    bytes
}

fn tail(log: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map(|bytes| bytes[bytes.len().saturating_sub(HISTORY)..].to_vec()),
    }
}

/// How many bytes at the start of `replay` are the end of what is `known`: the longest such, found in
/// linear time by the prefix function of Knuth, Morris and Pratt.
fn overlap(known: &[u8], replay: &[u8]) -> usize {
    let mut borders = vec![0; replay.len()];
    let mut matched = 0;
    for index in 1..replay.len() {
        while matched > 0 && replay[index] != replay[matched] {
            matched = borders[matched - 1];
        }
        matched += usize::from(replay[index] == replay[matched]);
        borders[index] = matched;
    }
    matched = 0;
    for &byte in known {
        while matched > 0 && (matched == replay.len() || byte != replay[matched]) {
            matched = borders[matched - 1];
        }
        matched += usize::from(replay.get(matched) == Some(&byte));
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[test]
    fn a_replay_overlaps_what_is_known_as_far_as_its_start_is_the_known_end() {
        for (known, replay, count) in [
            ("", "abc", 0),
            ("abc", "", 0),
            ("abc", "abcdef", 3),
            ("xxabc", "abcdef", 3),
            ("abc", "bcdef", 2),
            ("abc", "def", 0),
            ("aaa", "aaaa", 3),
            ("abab", "ababab", 4),
            ("abcabc", "abc", 3),
        ] {
            assert_eq!(overlap(known.as_bytes(), replay.as_bytes()), count, "{known} {replay}");
        }
    }

    #[tokio::test]
    async fn output_reaches_the_log_and_listeners_once_across_a_reconnection() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("s"), folder.path().join("serial.log"));
        let listener = UnixListener::bind(&socket).unwrap();
        let (console, work) = Console::new(socket, log.clone(), false);
        let work = tokio::spawn(work);
        let (mut vmm, _) = listener.accept().await.unwrap();
        vmm.write_all(b"one\n").await.unwrap();
        console.input().send(Bytes::from_static(b"typed")).await.unwrap();
        let mut typed = [0; 5];
        vmm.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"typed");
        drop(vmm);
        let (mut vmm, _) = listener.accept().await.unwrap();
        vmm.write_all(b"one\ntwo\n").await.unwrap();
        for _ in 0..100 {
            if console.listen().0.ends_with(b"two\n") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(console.listen().0, "one\ntwo\n");
        assert_eq!(std::fs::read(&log).unwrap(), b"one\ntwo\n");
        work.abort();
    }
}
