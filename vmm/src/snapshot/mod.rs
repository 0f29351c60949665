//! Snapshots: a machine as files, from which it goes on, any number of times.
//!
//! ```text
//!  pause ─▶ processors, devices ─▶ State ───────────────────┐
//!        ─▶ page table ─▶ Plan ─▶ fork ─▶ child: memory ─▶ state file
//!        resume ◀────────────────┘
//! ```
//!
//! [`state`] is the state file, [`memory`] says which pages count and maps them back, [`writer`] writes them,
//! [`generation`] tells copies apart, [`client`] is the command that asks a machine for a snapshot. What a machine
//! does is in [`crate::machine`].

pub mod bytes;
pub mod client;
pub mod generation;
pub mod memory;
pub mod state;
pub mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

use yunju_protocol::control::{SnapshotInfo, SnapshotRequest};
use yunju_protocol::machine::RestoreConfig;

use self::memory::Extent;
use self::state::{Id, State};
use crate::memory::GuestMemory;
use crate::{vcpu, vm};

/// Why there is no snapshot, or no going on from one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of a snapshot.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// State or memory.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The state file.
    #[error("state file {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why it is of no use.
        source: state::Error,
    },
    /// The files do not belong together.
    #[error("memory file {}: {reason}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] vcpu::state::Error),
    /// Interrupt controllers or the clock.
    #[error(transparent)]
    Vm(#[from] vm::Error),
    /// A device whose saved state is another's.
    #[error("device {slot}: {reason}")]
    Device {
        /// Its slot.
        slot: usize,
        /// Why.
        reason: String,
    },
    /// There is nothing to take a snapshot of.
    #[error("{0}")]
    NoSnapshot(&'static str),
    /// Something of the system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Says what was being done.
    pub fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A client that wants a snapshot, and where to.
pub struct Order {
    /// What it asked for.
    pub request: SnapshotRequest,
    /// Empty files.
    pub files: Files,
    /// Where the answer goes.
    pub reply: SyncSender<Result<SnapshotInfo, Refusal>>,
    /// Disconnected once the client has been answered.
    pub told: Receiver<()>,
}

/// The files of a snapshot to be.
pub struct Files {
    /// For all but the memory.
    pub state: File,
    /// For the memory.
    pub memory: File,
    /// New top layers, one for each disk that the guest writes to.
    pub layers: Vec<File>,
}

/// Why a client gets no snapshot.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP's number for it.
    pub status: u16,
    /// One sentence.
    pub error: String,
}

impl Refusal {
    /// The machine is in no state to do it.
    pub fn conflict(error: &str) -> Self {
        Self { status: 409, error: error.to_owned() }
    }

    /// It was tried.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self { status: 500, error: format!("the snapshot was not taken: {error}") }
    }

    /// A file could not be written.
    pub fn unwritten(what: &str, error: &io::Error) -> Self {
        let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG));
        let hint = if full { "; make room and try again" } else { "" };
        let status = if full { 507 } else { 500 };
        Self { status, error: format!("the snapshot was not taken: writing {what}: {error}{hint}") }
    }
}

/// A snapshot that a machine goes on from.
pub struct Source {
    /// What was read of the state file.
    pub state: State,
    memory: File,
    base: Option<File>,
}

/// What a machine's memory was when it went on: the base of snapshots to come.
pub struct Origin {
    /// Of the whole memory.
    pub id: Id,
    /// The whole memory.
    pub whole: File,
    /// Where memory came from a difference on top of it.
    pub extents: Vec<Extent>,
}

impl Source {
    /// Opens the files of a snapshot and sees whether they belong together.
    pub fn open(config: &RestoreConfig) -> Result<Self, Error> {
        let file = open("state file", &config.state)?;
        let state = State::read(&file).map_err(|source| Error::State { path: config.state.clone(), source })?;
        let wrong = |path: &Path, reason: &str| Error::Memory { path: path.to_owned(), reason: reason.to_owned() };
        let size = state.machine.memory;
        if !memory::is_valid(&state.memory.extents, size) {
            let source = state::Error::Form("its list of memory makes no sense");
            return Err(Error::State { path: config.state.clone(), source });
        }
        let memory = open_memory(&config.memory, size, &state.memory.id)?;
        let base = match (&state.memory.base, &config.base) {
            (None, None) => None,
            (Some(id), Some(path)) => Some(open_memory(path, size, id)?),
            (Some(_), None) => {
                return Err(wrong(&config.memory, "it is a difference to another snapshot; name that one as the base"));
            }
            (None, Some(path)) => return Err(wrong(path, "the snapshot is a whole one and has no base; name none")),
        };
        Ok(Self { state, memory, base })
    }

    /// Puts the snapshot's memory into `memory`, unread.
    pub fn map(self, memory: &GuestMemory) -> Result<(State, Origin), Error> {
        let failed = Error::io("mapping the memory of the snapshot");
        let whole = self.base.as_ref().unwrap_or(&self.memory);
        memory::map(memory, whole, &[memory::all(memory)]).map_err(&failed)?;
        let Self { state, memory: file, base } = self;
        let id = state.memory.base.unwrap_or(state.memory.id);
        let origin = match base {
            None => Origin { id, whole: file, extents: Vec::new() },
            Some(whole) => {
                memory::map(memory, &file, &state.memory.extents).map_err(&failed)?;
                Origin { id, whole, extents: state.memory.extents.clone() }
            }
        };
        Ok((state, origin))
    }
}

fn open(what: &'static str, path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::File { what, path: path.to_owned(), source })
}

/// Opens a memory file and sees whether it is the one named `id`.
fn open_memory(path: &Path, size: u64, id: &Id) -> Result<File, Error> {
    let wrong = |reason| Error::Memory { path: path.to_owned(), reason };
    let failed = |source| Error::File { what: "memory file", path: path.to_owned(), source };
    let file = open("memory file", path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length != size {
        return Err(wrong(format!("its length is {length} bytes instead of {size}; was it cut off?")));
    }
    let mut found = Id::default();
    file.read_exact_at(&mut found, generation::MARK).map_err(failed)?;
    if found != *id {
        return Err(wrong("it belongs to another snapshot; give the one that was taken with the state file".into()));
    }
    Ok(file)
}
