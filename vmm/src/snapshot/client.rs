//! `yunju-vmm snapshot`: asks a machine for a snapshot and keeps it as a folder.
//!
//! The files are written in a folder of another name, which gets its name when all is durable: a snapshot that
//! was there before stays whole until that instant, whoever dies when.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use yunju_protocol::control::{Afterwards, Problem, SnapshotInfo, SnapshotRequest};
use yunju_protocol::machine::Endpoint;

use crate::sockets;

/// Most descriptors of a request: two files, and a layer for each disk.
pub const MAX_FILES: usize = 18;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The machine cannot be reached.
    #[error(transparent)]
    Socket(#[from] sockets::Error),
    /// The machine went away.
    #[error("asking the machine: {0}; it may have ended")]
    Machine(#[from] io::Error),
    /// The machine refused.
    #[error("{0}")]
    Refused(String),
}

/// What to ask for.
pub struct Wanted {
    /// The machine's control socket.
    pub control: Endpoint,
    /// The folder.
    pub folder: PathBuf,
    /// New top layers.
    pub layers: Vec<PathBuf>,
    /// End the machine.
    pub end: bool,
    /// Even if a difference would do.
    pub whole: bool,
}

/// Takes a snapshot.
pub fn take(wanted: &Wanted) -> Result<SnapshotInfo, Error> {
    let folder = &wanted.folder;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path: path.clone(), source }
    };
    let partial = beside(folder, ".partial");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&partial)(error)),
        _ => {}
    }
    fs::create_dir(&partial).map_err(failed(&partial))?;
    let mut files = Vec::new();
    for name in ["state", "memory"] {
        let path = partial.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        files.push(options.open(&path).map_err(failed(&path))?);
    }
    for path in &wanted.layers {
        files.push(OpenOptions::new().read(true).write(true).open(path).map_err(failed(path))?);
    }
    let replaces = folder.exists();
    let request = SnapshotRequest {
        afterwards: if wanted.end { Afterwards::End } else { Afterwards::Resume },
        // The one that is replaced may be the one that a difference would be to.
        whole: wanted.whole || replaces,
    };
    let outcome = ask(&wanted.control, &request, &files);
    let info = match outcome {
        Ok(info) => info,
        Err(error) => {
            // The next one removes it too.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    };
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let sync = |path: &Path| File::open(path).and_then(|folder| folder.sync_all());
    sync(&partial).map_err(failed(&partial))?;
    put_in_place(&partial, folder).map_err(failed(folder))?;
    sync(parent).map_err(failed(parent))?;
    if replaces {
        fs::remove_dir_all(&partial).map_err(failed(&partial))?;
    }
    Ok(info)
}

/// `path` with `suffix` behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Gives `partial` the name of `folder`, and `folder`, if there is one, that of `partial`.
fn put_in_place(partial: &Path, folder: &Path) -> io::Result<()> {
    let rename = |flags| renameat_with(CWD, partial, CWD, folder, flags);
    match rename(RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => Ok(rename(RenameFlags::EXCHANGE)?),
        other => Ok(other?),
    }
}

/// Sends a request with the files and reads the answer.
fn ask(control: &Endpoint, request: &SnapshotRequest, files: &[File]) -> Result<SnapshotInfo, Error> {
    let stream = UnixStream::from(sockets::connect_stream(control)?);
    // Our own types always serialize.
    let body = serde_json::to_string(request).unwrap_or_default();
    let message = format!(
        "POST /machine/snapshot HTTP/1.1\r\nHost: machine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    send(&stream, message.as_bytes(), files)?;
    let mut bytes = Vec::new();
    (&stream).read_to_end(&mut bytes)?;
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(head)), Some(status)) = (answer.parse(&bytes), answer.code) else {
        return Err(Error::Machine(io::ErrorKind::UnexpectedEof.into()));
    };
    let body = &bytes[head..];
    let nonsense = |error: serde_json::Error| Error::Machine(error.into());
    match status {
        200 => serde_json::from_slice(body).map_err(nonsense),
        _ => Err(Error::Refused(serde_json::from_slice::<Problem>(body).map_err(nonsense)?.error)),
    }
}

/// Sends a short message, the descriptors with its first byte.
fn send(stream: &UnixStream, message: &[u8], files: &[File]) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other(format!("more than {} layers", MAX_FILES - 2)));
    }
    let sent = sendmsg(stream, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    io::Write::write_all(&mut &*stream, &message[sent..])
}
