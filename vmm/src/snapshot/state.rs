//! The state file: all of a machine but its memory.
//!
//! | bytes | are |
//! |---|---|
//! | 8 | `YUNJUSNP` |
//! | 4 | format version, 1 |
//! | 4 | CRC-32 of the payload |
//! | 8 | length of the payload, which ends the file |
//! | … | payload: [`State`] in postcard |
//!
//! Numbers are little-endian. Nothing in a file is believed: it is as hostile as a guest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use yunju_protocol::machine::{ByteSize, MachineConfig};

use super::memory::Extent;
use crate::devices::virtio::transport::TransportState;
use crate::devices::{cmos, serial};
use crate::vcpu::state::VcpuState;
use crate::vm::VmState;

const MAGIC: [u8; 8] = *b"YUNJUSNP";
/// Changes with every change of [`State`] or of what it consists of.
const VERSION: u32 = 1;
const HEADER: usize = 24;
/// Longest file that is read: the pictures of a screen, at most 256 MiB, are nearly all of it.
const LONGEST: u64 = 512 << 20;

/// Why a state file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else, or not whole.
    #[error("it is not the state file of a snapshot: {0}")]
    Form(&'static str),
    /// It was written by another version of this program.
    #[error(
        "it has format {0}, and this program reads format {VERSION}; use the version of yunju-vmm that took the snapshot"
    )]
    Version(u32),
    /// Bytes of it changed.
    #[error("it is damaged: its checksum is {found:#010x} instead of {expected:#010x}; use another snapshot")]
    Checksum {
        /// Of the payload.
        found: u32,
        /// In the header.
        expected: u32,
    },
    /// The payload makes no sense although its checksum is right.
    #[error("its payload makes no sense: {0}")]
    Payload(#[from] postcard::Error),
    /// The configuration is of another machine.
    #[error("the snapshot is of a machine with {saved}, the configuration describes one with {configured}")]
    OtherMachine {
        /// What the snapshot has.
        saved: String,
        /// What the configuration has.
        configured: String,
    },
}

/// Names one snapshot's memory: sixteen random bytes, which also stand in that memory (see [`super::generation`]).
pub type Id = [u8; 16];

/// What a guest asked for just before it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// To be switched off.
    PowerOff,
    /// To be restarted.
    Reset,
}

/// A machine but for its memory.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// What must be the same in the machine that goes on.
    pub machine: Description,
    /// When the machine stood still, since 1970.
    pub taken: Duration,
    /// Which memory file belongs to it, and what in it.
    pub memory: MemoryState,
    /// Processors.
    pub vcpus: Vec<VcpuState>,
    /// What belongs to none of them.
    pub vm: VmState,
    /// Virtio devices, by slot.
    pub transports: Vec<TransportState>,
    /// The serial port.
    pub serial: serial::State,
    /// The clock's memory.
    pub cmos: cmos::State,
    /// What the guest had asked for and did not get yet.
    pub wishes: Vec<Wish>,
}

/// What must be the same in a snapshot and in the machine that goes on from it. Disks say themselves whether
/// they are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Bytes.
    pub memory: u64,
    /// Processors.
    pub cpus: u8,
    /// Virtio device ids, by slot.
    pub devices: Vec<u32>,
}

/// What the memory file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryState {
    /// Of this memory.
    pub id: Id,
    /// Of the memory that this one is a difference to.
    pub base: Option<Id>,
    /// Where the file holds something: ascending, apart from each other. All else is the base's, or zero.
    pub extents: Vec<Extent>,
}

impl Description {
    /// Of the machine that a configuration makes with these devices.
    pub fn new(config: &MachineConfig, devices: Vec<u32>) -> Self {
        Self { memory: config.memory.0, cpus: config.cpus, devices }
    }

    /// Whether a snapshot of `self` can go on in the machine `configured`.
    pub fn check(&self, configured: &Self) -> Result<(), Error> {
        let other = |saved: String, configured: String| Err(Error::OtherMachine { saved, configured });
        if self.memory != configured.memory {
            let text = |bytes| format!("{} of memory", ByteSize(bytes));
            return other(text(self.memory), text(configured.memory));
        }
        if self.cpus != configured.cpus {
            let text = |count| format!("{count} processors");
            return other(text(self.cpus), text(configured.cpus));
        }
        if self.devices != configured.devices {
            return other(devices(&self.devices), devices(&configured.devices));
        }
        Ok(())
    }
}

fn devices(ids: &[u32]) -> String {
    let name = |id: &u32| match id {
        1 => "net",
        2 => "disk",
        4 => "rng",
        5 => "balloon",
        16 => "screen",
        18 => "input",
        19 => "vsock",
        _ => "an unknown device",
    };
    format!("the devices {}", ids.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// The wall clock, since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl State {
    /// The bytes of a state file.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = postcard::to_extend(self, vec![0; HEADER])?;
        let (header, payload) = bytes.split_at_mut(HEADER);
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        header[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        Ok(bytes)
    }

    /// Reads a state file.
    pub fn read(file: &File) -> Result<Self, Error> {
        let length = file.metadata()?.len();
        if length > LONGEST {
            return Err(Error::Form("it is too long"));
        }
        // Not longer than a file that exists.
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Self::decode(&bytes)
    }

    /// What the bytes of a state file say.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (header, payload) = bytes.split_at_checked(HEADER).ok_or(Error::Form("it is too short"))?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..8] != MAGIC {
            return Err(Error::Form("it does not begin like one"));
        }
        if word(8) != VERSION {
            return Err(Error::Version(word(8)));
        }
        let length = u64::from(word(16)) | u64::from(word(20)) << 32;
        if length != payload.len() as u64 {
            return Err(Error::Form("its length is not what it says; was it cut off?"));
        }
        let (found, expected) = (crc32fast::hash(payload), word(12));
        if found != expected {
            return Err(Error::Checksum { found, expected });
        }
        let (state, rest): (Self, _) = postcard::take_from_bytes(payload)?;
        if !rest.is_empty() {
            return Err(Error::Form("something follows its payload"));
        }
        Ok(state)
    }
}
