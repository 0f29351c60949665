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
//! | `GET /openapi.json` | this table as OpenAPI |
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

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// One sentence that says what to do.
    pub error: String,
}
