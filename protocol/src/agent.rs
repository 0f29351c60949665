//! What the host and the small agent in a guest tell each other: lines of JSON over vsock.
//!
//! The agent connects to [`PORT`] of the host (CID 2), says [`ToHost::Hello`] and then obeys. The connection breaks
//! when the machine is snapshotted or restored; the agent connects again. The host trusts nothing that comes
//! from the agent: lines have at most [`LONGEST_LINE`] bytes, and everything works without one.

use serde::{Deserialize, Serialize};

/// The host's port that the agent connects to.
pub const PORT: u32 = 1077;

/// A line has at most this many bytes, its end included.
pub const LONGEST_LINE: usize = 64 << 10;

/// Host to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum ToAgent {
    /// Who this machine is. If the agent last heard another `id` the machine is a fork or fresh: it takes the host name on,
    /// makes a new machine id from `id` and new SSH host keys, and answers [`ToHost::Identity`]. If it is the same, it just answers.
    Identity {
        /// The desktop's UUID.
        id: String,
        /// Letters, digits and hyphens, at most 63.
        hostname: String,
    },
}

/// Agent to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum ToHost {
    /// First line of a connection.
    Hello {
        /// The agent's version.
        version: String,
    },
    /// The identity is taken on.
    Identity {
        /// The `id` that was told.
        id: String,
    },
}
