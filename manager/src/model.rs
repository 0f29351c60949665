//! The bodies of the HTTP API, for those who answer and those who ask.

mod accounts;
mod sharing;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use yunju_protocol::machine::ByteSize;

pub use accounts::*;
pub use sharing::*;

/// Whether a desktop's machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does not.
    Stopped,
    /// Its processes are being made.
    Starting,
    /// It does.
    Running,
    /// The guest was asked to shut down.
    Stopping,
    /// Its memory is being written down; then it ends.
    Suspending,
    /// It does not run, and goes on where it was when it is started.
    Suspended,
}

impl State {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A desktop: what a person owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Desktop {
    /// Never changes.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// Whether its machine runs.
    pub state: State,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How the machine last ended, unless it was started since.
    pub ended: Option<Ended>,
    /// What it was made from.
    pub image: String,
    /// The image's digest then.
    pub image_digest: String,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u8,
    /// When it was made.
    pub created: Timestamp,
    /// When its newest restore point was taken, to which `undo` goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<Timestamp>,
}

/// A desktop that was deleted and can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Never changes.
    pub id: Uuid,
    /// What it was called.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it was made from.
    pub image: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was deleted.
    pub deleted: Timestamp,
    /// When it goes by itself.
    pub until: Timestamp,
    /// Bytes that its disks take.
    pub bytes: u64,
}

/// `POST /v1/trash/{trashed}/recover`
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// What to call it, should its name be another's now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ended {
    /// When it was noticed.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// Nobody wanted it.
    pub failed: bool,
}

/// `POST /v1/desktops`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDesktop {
    /// What people call it.
    pub name: String,
    /// What it is made from.
    pub image: String,
    /// Whose it is; the caller's own if absent. Only an admin names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Guest memory instead of the image's. Only an admin chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub memory: Option<ByteSize>,
    /// Processors instead of the image's. Only an admin chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u8>,
    /// Start it when it is made.
    #[serde(default)]
    pub start: bool,
}

/// What a snapshot was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Somebody asked for it.
    Manual,
    /// To go back to by `undo`: taken by itself now and then, and before each change of time.
    Point,
    /// The desktop sleeps.
    Suspend,
    /// Other desktops go on from it.
    Fork,
    /// New desktops of an image start from it.
    Warm,
}

impl SnapshotKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Point => "point",
            Self::Suspend => "suspend",
            Self::Fork => "fork",
            Self::Warm => "warm",
        }
    }
}

impl fmt::Display for SnapshotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SnapshotKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [Self::Manual, Self::Point, Self::Suspend, Self::Fork, Self::Warm];
        kinds.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| format!("`{text}` is no kind of snapshot"))
    }
}

/// A moment of a desktop that can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Never changes.
    pub id: Uuid,
    /// Of this desktop.
    pub desktop: String,
    /// What it is called; may be empty.
    pub name: String,
    /// What it was taken for.
    pub kind: SnapshotKind,
    /// When it was taken.
    pub created: Timestamp,
    /// The desktop ran: it goes on from there. Otherwise it is of the disks alone.
    pub memory: bool,
    /// There is a picture of its screen.
    pub screen: bool,
    /// What its memory takes of the host's disk, in bytes.
    pub bytes: u64,
}

/// `POST /v1/desktops/{desktop}/snapshots`
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// What to call it.
    #[serde(default)]
    pub name: String,
}

/// `POST /v1/desktops/{desktop}/fork`
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// What the new desktops are called.
    pub names: Vec<String>,
    /// They go on from this snapshot, named by id or name; from the present if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Start them.
    #[serde(default)]
    pub start: bool,
}

/// `POST /v1/desktops/{desktop}/stop` and `…/restart`
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Do not ask the guest, end the machine at once.
    #[serde(default)]
    pub force: bool,
    /// Seconds that the guest gets to shut down; the service's own limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// `PATCH /v1/desktops/{desktop}` with `If-Match`: what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DesktopChange {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Guest memory, of a stopped one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub memory: Option<ByteSize>,
    /// Processors, of a stopped one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u8>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It begins when what was asked for before has ended.
    Queued,
    /// It is being worked at.
    Running,
    /// It is done.
    Succeeded,
    /// It is not, for the reason that `problem` gives.
    Failed,
    /// The service ended before it was done: everything is as it was before.
    RolledBack,
    /// It was cancelled before it began.
    Cancelled,
}

impl OperationState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for OperationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OperationState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::RolledBack, Self::Cancelled];
        all.into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no state of an operation"))
    }
}

/// Work that takes a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Never changes.
    pub id: Uuid,
    /// create, start, stop, restart, suspend, snapshot, restore, undo, fork or delete.
    pub kind: String,
    /// With this desktop, as it was called.
    pub desktop: String,
    /// The same by its id.
    pub desktop_id: Uuid,
    /// Who asked for it.
    pub actor: String,
    /// How far it is.
    pub state: OperationState,
    /// It can still be cancelled.
    pub cancellable: bool,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What came of it: the desktop, the snapshot, or the new desktops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

/// What a desktop can be made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// What it was built from.
    pub digest: String,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// Guest memory in bytes that a desktop gets.
    pub memory: u64,
    /// Virtual processors that a desktop gets.
    pub cpus: u8,
    /// It has a screen.
    pub display: bool,
    /// It has a network interface.
    pub net: bool,
    /// Whether a new desktop starts without booting; absent if it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warmth>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whether there is a machine of an image to start from that has booted already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "state", content = "problem")]
pub enum Warmth {
    /// There is none.
    Cold,
    /// It is being made.
    Warming,
    /// There is one.
    Warm,
    /// It could not be made, for this reason.
    Failed(String),
}

impl fmt::Display for Warmth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "no",
            Self::Warming => "warming",
            Self::Warm => "yes",
            Self::Failed(_) => "failed",
        })
    }
}

/// `GET /v1/health`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`
    pub status: String,
    /// Of the program.
    pub version: String,
    /// Where browsers reach it. Told on the local socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Why a request was not carried out (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:yunju:problem:` and the code.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What the status means.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A word for programs, which stays what it is.
    pub code: String,
    /// One sentence for people.
    pub detail: String,
    /// Which request: the same as in the header `x-request-id` and in the service's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds after which it may go better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// What a desktop used, or several, in an hour, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// When the first hour began.
    pub begin: Timestamp,
    /// When the last hour ends.
    pub end: Timestamp,
    /// What the desktop was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<String>,
    /// The same by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop_id: Option<Uuid>,
    /// Whose it was.
    pub owner: String,
    /// For how long its machine ran.
    pub running_seconds: f64,
    /// Processors' time of all its processes.
    pub cpu_seconds: f64,
    /// Memory that it used, in mebibytes, for how long.
    pub memory_mib_seconds: f64,
    /// Bytes that it read from the host's disks.
    pub read_bytes: u64,
    /// Bytes that it wrote to them.
    pub written_bytes: u64,
    /// Bytes that its disks took, at most in the last hour.
    pub disk_bytes: u64,
}

/// What is added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageBy {
    /// Nothing: a record for each desktop and hour.
    #[default]
    Hour,
    /// All hours of a desktop.
    Desktop,
    /// All desktops of a user.
    User,
}

impl FromStr for UsageBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hour" => Ok(Self::Hour),
            "desktop" => Ok(Self::Desktop),
            "user" => Ok(Self::User),
            _ => Err(format!("`{text}` cannot be added up by: write hour, desktop or user")),
        }
    }
}
