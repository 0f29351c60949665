//! The control API: HTTP/1.1 with JSON on a Unix socket (see [`yunju_protocol::control`]).

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::OpenApi;
use yunju_protocol::control::{
    Afterwards, BalloonRequest, Counters, MachineInfo, MachineState, MemoryInfo, Problem, ScreenSize, SnapshotInfo,
    SnapshotRequest,
};

use crate::machine::Command;
use crate::snapshot::client::MAX_FILES;
use crate::snapshot::{Files, Order};
use crate::threads::{self, Kind};

/// Longest head of a request, and longest body.
const MAX_REQUEST: usize = 8 << 10;
/// Connections served at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take to send a request or to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stack of a connection's thread: making the OpenAPI description takes some hundred KiB in builds that are checked.
const STACK: usize = 1 << 20;

/// The picture as PNG; `None` when nothing is shown.
pub type Screenshot = Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>;

/// Serves requests on threads of its own until the process ends.
pub fn serve(listener: UnixListener, commands: Sender<Command>, screenshot: Screenshot) -> io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    threads::spawn(Kind::Control, "control", 128 << 10, move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, most likely: let others give some back.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            if connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                connections.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (commands, screenshot, served) = (commands.clone(), screenshot.clone(), connections.clone());
            let spawned = threads::spawn(Kind::Control, "control", STACK, move || {
                // A client that goes away in the middle has nobody to be told.
                let _ = converse(stream, &commands, &screenshot);
                served.fetch_sub(1, Ordering::SeqCst);
            });
            if spawned.is_err() {
                connections.fetch_sub(1, Ordering::SeqCst);
            }
        }
    })?;
    Ok(())
}

/// One request, one answer, and the connection is closed.
fn converse(mut stream: UnixStream, commands: &Sender<Command>, screenshot: &Screenshot) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A machine that ends with its answer waits until this thread is done with it.
    let (telling, told) = channel();
    let answer = match receive(&stream)? {
        Received::Request(request) => respond(request, told, commands, screenshot),
        Received::Refused(answer) => answer,
        Received::Nothing => return Ok(()),
    };
    let sent = answer.send(&mut stream);
    drop((stream, telling));
    sent
}

struct Request {
    method: String,
    path: String,
    body: Vec<u8>,
    files: Vec<OwnedFd>,
}

enum Received {
    Request(Request),
    Refused(Answer),
    /// The client has gone.
    Nothing,
}

/// Reads a request and the descriptors that come with it.
fn receive(stream: &UnixStream) -> io::Result<Received> {
    let refused = |status, error: &str| Ok(Received::Refused(Answer::problem(status, error)));
    let (mut bytes, mut files) = (Vec::with_capacity(512), Vec::new());
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(head)) => {
                let Some(length) = content_length(request.headers).filter(|length| *length <= MAX_REQUEST) else {
                    return refused(413, "the request's body is too long");
                };
                if bytes.len() >= head + length {
                    let (method, path) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
                    let (method, path) = (method.to_owned(), path.to_owned());
                    let body = bytes[head..head + length].to_vec();
                    return Ok(Received::Request(Request { method, path, body, files }));
                }
            }
            Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => {}
            Ok(httparse::Status::Partial) => return refused(431, "the request is too long"),
            Err(error) => return refused(400, &format!("not an HTTP request: {error}")),
        }
        match read(stream, &mut bytes, &mut files) {
            Ok(0) => return Ok(Received::Nothing),
            Ok(_) if files.len() <= MAX_FILES => {}
            Ok(_) => return refused(400, &format!("more than {MAX_FILES} descriptors")),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return refused(400, &error.to_string()),
            Err(error) => return Err(error),
        }
    }
}

/// The length of the body; none if it is said in a way that is not understood.
fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let mut lengths = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    match (lengths.next(), lengths.next()) {
        (None, _) => Some(0),
        (Some(length), None) => std::str::from_utf8(length.value).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// Reads a piece, and takes the descriptors that come with it.
fn read(stream: &UnixStream, bytes: &mut Vec<u8>, files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut piece = [0; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {MAX_FILES} descriptors")));
    }
    bytes.extend_from_slice(&piece[..message.bytes]);
    Ok(message.bytes)
}

/// What a body says.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| Answer::problem(400, &format!("the body: {error}")))
}

struct Answer {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, value: &impl Serialize) -> Self {
        // Our own types always serialize.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self { status, content_type: "application/json", body }
    }

    fn problem(status: u16, error: &str) -> Self {
        Self::json(status, &Problem { error: error.to_owned() })
    }

    fn send(&self, stream: &mut UnixStream) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            413 => "Content Too Large",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            507 => "Insufficient Storage",
            _ => "Service Unavailable",
        };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)
    }
}

fn respond(request: Request, told: Receiver<()>, commands: &Sender<Command>, screenshot: &Screenshot) -> Answer {
    let (method, path) = (request.method.as_str(), request.path.as_str());
    match (method, path) {
        ("GET", "/machine") => ask(commands, Command::Info),
        ("POST", "/machine/pause") => ask(commands, Command::Pause),
        ("POST", "/machine/resume") => ask(commands, Command::Resume),
        ("POST", "/machine/power-button") => tell(commands, Command::PowerButton),
        ("POST", "/machine/kill") => tell(commands, Command::Kill),
        ("GET", "/machine/counters") => ask(commands, Command::Counters),
        ("POST", "/machine/snapshot") => snapshot(&request.body, request.files, told, commands),
        ("GET", "/machine/memory") => match put(commands, Command::Memory) {
            Some(info) => memory(info),
            None => ending(),
        },
        ("POST", "/machine/balloon") => match parse(&request.body) {
            Ok(request) => balloon(&request, commands),
            Err(answer) => answer,
        },
        ("GET", "/machine/screenshot") => match screenshot() {
            Some(body) => Answer { status: 200, content_type: "image/png", body },
            None => Answer::problem(404, "the machine shows no picture"),
        },
        ("GET", "/openapi.json") => Answer::json(200, &Api::openapi()),
        (
            _,
            "/machine"
            | "/machine/pause"
            | "/machine/resume"
            | "/machine/power-button"
            | "/machine/kill"
            | "/machine/counters"
            | "/machine/memory"
            | "/machine/balloon"
            | "/machine/screenshot"
            | "/machine/snapshot"
            | "/openapi.json",
        ) => Answer::problem(405, &format!("{path} does not know {method}; see /openapi.json")),
        _ => Answer::problem(404, &format!("there is no {path}; see /openapi.json")),
    }
}

fn ask<T: Serialize>(commands: &Sender<Command>, command: impl FnOnce(SyncSender<T>) -> Command) -> Answer {
    put(commands, command).map_or_else(ending, |value| Answer::json(200, &value))
}

/// Asks the machine and waits for what it says; `None` if it is ending.
fn put<T>(commands: &Sender<Command>, command: impl FnOnce(SyncSender<T>) -> Command) -> Option<T> {
    let (reply, answer) = sync_channel(1);
    commands.send(command(reply)).ok()?;
    answer.recv_timeout(PATIENCE).ok()
}

fn balloon(request: &BalloonRequest, commands: &Sender<Command>) -> Answer {
    match put(commands, |reply| Command::Balloon(request.size, reply)) {
        Some(Some(info)) => memory(info),
        Some(None) => Answer::problem(409, "the machine has no balloon: start it with one"),
        None => ending(),
    }
}

fn memory(info: io::Result<MemoryInfo>) -> Answer {
    match info {
        Ok(info) => Answer::json(200, &info),
        Err(error) => Answer::problem(500, &format!("counting the guest's pages: {error}")),
    }
}

/// Answers when the snapshot is durable, or is not to be.
fn snapshot(body: &[u8], files: Vec<OwnedFd>, told: Receiver<()>, commands: &Sender<Command>) -> Answer {
    let request: SnapshotRequest = match serde_json::from_slice(if body.is_empty() { b"{}" } else { body }) {
        Ok(request) => request,
        Err(error) => return Answer::problem(400, &format!("the body is no snapshot request: {error}")),
    };
    let files = match empty_files(files) {
        Ok(files) => files,
        Err(error) => return Answer::problem(400, &error),
    };
    let (reply, answer) = sync_channel(1);
    if commands.send(Command::Snapshot(Box::new(Order { request, files, reply, told }))).is_err() {
        return ending();
    }
    // It takes as long as the disk takes.
    match answer.recv() {
        Ok(Ok(info)) => Answer::json(200, &info),
        Ok(Err(refusal)) => Answer::problem(refusal.status, &refusal.error),
        Err(_) => ending(),
    }
}

/// The descriptors as what they must be: files that hold nothing and can be written.
fn empty_files(files: Vec<OwnedFd>) -> Result<Files, String> {
    let mut checked = Vec::with_capacity(files.len());
    for (number, file) in files.into_iter().enumerate() {
        let status = fstat(&file).map_err(|error| format!("descriptor {number}: {error}"))?;
        let mode = fcntl_getfl(&file).map_err(|error| format!("descriptor {number}: {error}"))? & OFlags::RWMODE;
        let complaint = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile if status.st_size != 0 => "is not empty",
            FileType::RegularFile if mode != OFlags::RDWR => "is not open for reading and writing",
            FileType::RegularFile => "",
            _ => "is no regular file",
        };
        if !complaint.is_empty() {
            return Err(format!("descriptor {number} {complaint}; send new files: state, memory, layers"));
        }
        checked.push(File::from(file));
    }
    let mut checked = checked.into_iter();
    match (checked.next(), checked.next()) {
        (Some(state), Some(memory)) => Ok(Files { state, memory, layers: checked.collect() }),
        _ => Err("a snapshot needs the descriptors of a state file and a memory file with the request".into()),
    }
}

fn tell(commands: &Sender<Command>, command: Command) -> Answer {
    match commands.send(command) {
        Ok(()) => Answer { status: 202, content_type: "application/json", body: b"{}".to_vec() },
        Err(_) => ending(),
    }
}

fn ending() -> Answer {
    Answer::problem(503, "the machine is ending")
}

/// The control API of one Yunju machine.
#[derive(OpenApi)]
#[openapi(
    info(title = "yunju-vmm control", description = "Controls one machine, over HTTP/1.1 on a Unix socket."),
    paths(
        paths::machine,
        paths::pause,
        paths::resume,
        paths::power_button,
        paths::kill,
        paths::screenshot,
        paths::snapshot,
        paths::memory,
        paths::balloon,
        paths::counters
    ),
    components(schemas(
        MachineInfo,
        MachineState,
        ScreenSize,
        Counters,
        SnapshotRequest,
        Afterwards,
        SnapshotInfo,
        MemoryInfo,
        BalloonRequest,
        Problem
    ))
)]
struct Api;

/// Descriptions of the paths for OpenAPI; [`respond`] serves them.
#[allow(dead_code)]
mod paths {
    use super::{BalloonRequest, Counters, MachineInfo, MemoryInfo, Problem, SnapshotInfo, SnapshotRequest};

    /// The machine as it is now
    #[utoipa::path(get, path = "/machine", responses((status = 200, body = MachineInfo)))]
    fn machine() {}

    /// Stop processors and devices where they are
    #[utoipa::path(post, path = "/machine/pause", responses((status = 200, body = MachineInfo)))]
    fn pause() {}

    /// Let a paused machine go on
    #[utoipa::path(post, path = "/machine/resume", responses((status = 200, body = MachineInfo)))]
    fn resume() {}

    /// Ask the guest to shut down
    #[utoipa::path(post, path = "/machine/power-button", responses((status = 202)))]
    fn power_button() {}

    /// End the machine at once
    #[utoipa::path(post, path = "/machine/kill", responses((status = 202)))]
    fn kill() {}

    /// The picture
    #[utoipa::path(get, path = "/machine/screenshot", responses(
        (status = 200, content_type = "image/png", body = Vec<u8>),
        (status = 404, body = Problem, description = "nothing is shown"),
    ))]
    fn screenshot() {}

    /// Write the machine to the files whose descriptors come with the request (SCM_RIGHTS): state, memory, new layers
    #[utoipa::path(post, path = "/machine/snapshot", request_body = SnapshotRequest, responses(
        (status = 200, body = SnapshotInfo, description = "all of it is durable"),
        (status = 400, body = Problem, description = "the descriptors are not those of new files"),
        (status = 409, body = Problem, description = "another one is being made, or this machine cannot have one"),
        (status = 507, body = Problem, description = "the disk is full"),
    ))]
    fn snapshot() {}

    /// What the machine did since it started
    #[utoipa::path(get, path = "/machine/counters", responses((status = 200, body = Counters)))]
    fn counters() {}

    /// What the guest's memory takes of the host's
    #[utoipa::path(get, path = "/machine/memory", responses((status = 200, body = MemoryInfo)))]
    fn memory() {}

    /// Ask the guest to do without some of its memory
    #[utoipa::path(post, path = "/machine/balloon", request_body = BalloonRequest, responses(
        (status = 200, body = MemoryInfo),
        (status = 409, body = Problem, description = "the machine has no balloon"),
    ))]
    fn balloon() {}
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn talk(request: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let (sender, receiver) = channel();
        serve(UnixListener::bind(&path).unwrap(), sender, Arc::new(|| None)).unwrap();
        thread::spawn(move || {
            while let Ok(command) = receiver.recv() {
                match command {
                    Command::Counters(reply) => reply.send(Counters { frames: 7, ..Counters::default() }).unwrap(),
                    Command::Memory(reply) => {
                        reply.send(Ok(MemoryInfo { private: 5, ..MemoryInfo::default() })).unwrap();
                    }
                    Command::Balloon(balloon_target, reply) => {
                        let info = MemoryInfo { balloon_target, ..MemoryInfo::default() };
                        reply.send((balloon_target != 13).then_some(Ok(info))).unwrap();
                    }
                    _ => {}
                }
            }
        });
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn requests_are_answered_with_a_status_and_json() {
        for (request, status, part) in [
            ("GET /machine/counters HTTP/1.1\r\n\r\n", "200 OK", "\"frames\":7"),
            ("POST /machine/kill HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "202 Accepted", "{}"),
            ("GET /machine/screenshot HTTP/1.1\r\n\r\n", "404 Not Found", "no picture"),
            ("GET /machine/kill HTTP/1.1\r\n\r\n", "405", "does not know GET"),
            ("GET /machine/memory HTTP/1.1\r\n\r\n", "200 OK", "\"private\":5"),
            (
                "POST /machine/balloon HTTP/1.1\r\ncontent-length: 12\r\n\r\n{\"size\":900}",
                "200 OK",
                "\"balloon_target\":900",
            ),
            ("POST /machine/balloon HTTP/1.1\r\nContent-Length: 11\r\n\r\n{\"size\":13}", "409", "no balloon"),
            ("POST /machine/balloon HTTP/1.1\r\nContent-Length: 11\r\n\r\n{\"seize\":1}", "400", "seize"),
            ("POST /machine/balloon HTTP/1.1\r\n\r\n{\"size\":1}", "400", "the body"),
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", "404", "there is no /etc/passwd"),
            ("GET /openapi.json HTTP/1.1\r\n\r\n", "200", "power-button"),
            ("\x16\x03\x01 hello\r\n\r\n", "400", "not an HTTP request"),
        ] {
            let answer = talk(request.as_bytes());
            assert!(answer.contains(status) && answer.contains(part), "{request}: {answer}");
        }
    }

    #[test]
    fn an_endless_request_is_cut_off() {
        let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
        request.resize(MAX_REQUEST, b'x');
        assert!(talk(&request).contains("431"));
    }
}
