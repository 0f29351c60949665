//! The bodies of the VMM's control API: HTTP/1.1 with JSON on a Unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /machine` | [`MachineInfo`] |
//! | `POST /machine/pause`, `POST /machine/resume` | [`MachineInfo`] |
//! | `POST /machine/power-button` | 202, the guest is asked to shut down |
//! | `POST /machine/kill` | 202, the machine ends at once |
//! | `GET /machine/screenshot` | `image/png` of the screen; 404 with [`Problem`] when nothing is shown |
//! | `GET /machine/counters` | [`Counters`] |
//! | `POST /machine/snapshot` with [`SnapshotRequest`] | [`SnapshotInfo`] when all of it is durable; 409 while another one is made, 507 when the disk is full |
//! | `GET /machine/memory` | [`MemoryInfo`] |
//! | `POST /machine/balloon` with [`BalloonRequest`] | [`MemoryInfo`]; 409 without a balloon |
//! | `GET /openapi.json` | this table as OpenAPI |
//!
//! A snapshot is written to files that the client has opened: their descriptors come with the request's first
//! byte (`SCM_RIGHTS`), in this order: the state file, the memory file (both empty, open for reading and writing), then one new
//! empty layer for each disk that the guest can write to, in the order of the disks. The layers that were written to until
//! then are the snapshot's and are never written to again; the machine goes on with the new ones. A machine that
//! ends with its snapshot needs no new layers: then none are sent. A machine that was sent layers may go on with them also when
//! the snapshot fails: those that are not empty then belong to their disks.
//!
//! Every error is a [`Problem`] with a 4xx or 5xx status.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the guest's processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// The guest runs.
    Running,
    /// The guest is stopped where it was and can be resumed.
    Paused,
}

/// A machine as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineInfo {
    /// Whether the guest's processors run.
    pub state: MachineState,
    /// The VMM's process id.
    pub pid: u32,
    /// Milliseconds since the machine was started or last reset.
    pub uptime_ms: u64,
    /// Times the guest restarted itself.
    pub resets: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u8,
    /// Size of the picture in pixels, while one is shown.
    pub screen: Option<ScreenSize>,
}

/// Size of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScreenSize {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// What a machine did since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Exits of each virtual processor to this process.
    pub vcpu_exits: Vec<u64>,
    /// Frames the guest showed.
    pub frames: u64,
    /// Bytes read from all disks.
    pub disk_read_bytes: u64,
    /// Bytes written to all disks.
    pub disk_written_bytes: u64,
    /// Bytes the guest sent.
    pub net_sent_bytes: u64,
    /// Bytes the guest received.
    pub net_received_bytes: u64,
    /// Connected display clients.
    pub display_clients: u32,
}

/// What a machine does when its snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Afterwards {
    /// It runs on, while the snapshot is still being written.
    #[default]
    Resume,
    /// It ends once the snapshot is durable. If it cannot be written the machine runs on.
    End,
}

/// `POST /machine/snapshot`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// What the machine does then.
    #[serde(default)]
    pub afterwards: Afterwards,
    /// Write all of the memory, even if the machine was restored and a difference would do.
    #[serde(default)]
    pub whole: bool,
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotInfo {
    /// The memory file holds only what differs from the base: the base of the snapshot that the machine
    /// was restored from, or that snapshot's memory file itself if it had none.
    pub differential: bool,
    /// Bytes of guest memory written.
    pub memory_bytes: u64,
    /// Length of the state file.
    pub state_bytes: u64,
    /// Microseconds that the guest stood still.
    pub pause_us: u64,
    /// Milliseconds until all was durable.
    pub duration_ms: u64,
}

/// `POST /machine/balloon`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BalloonRequest {
    /// Bytes that the guest is to do without. It gives what it can, and takes back what it needs before it runs out.
    pub size: u64,
}

/// What a guest's memory takes of the host's, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct MemoryInfo {
    /// What the guest was given.
    pub size: u64,
    /// What its balloon is to hold.
    pub balloon_target: u64,
    /// What its balloon holds.
    pub balloon: u64,
    /// What it gave back as free since it started.
    pub reported: u64,
    /// What it occupies now that is this machine's alone.
    pub private: u64,
    /// What it could do without, as the guest said when this was last asked; absent until it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// One sentence that says what to do.
    pub error: String,
}
