//! The state file: all of a machine but its memory.
//!
//! | bytes | are |
//! |---|---|
//! | 8 | `YUNJUSNP` |
//! | 4 | format version, 2 |
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
const VERSION: u32 = 2;
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
        25 => "sound",
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
        let machine = &state.machine;
        if (state.vcpus.len(), state.transports.len()) != (machine.cpus.into(), machine.devices.len()) {
            return Err(Error::Form("it has not as many processors and devices as it says"));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::devices::cmos::Cmos;
    use crate::devices::serial::Serial;
    use crate::devices::serial::backend::Output;
    use crate::devices::virtio::rng::Rng;
    use crate::devices::virtio::transport::Transport;

    fn description() -> Description {
        Description { memory: 64 << 20, cpus: 2, devices: vec![4] }
    }

    fn state() -> State {
        let event = || vmm_sys_util::eventfd::EventFd::new(0).unwrap();
        let memory = crate::memory::allocate(ByteSize::mib(64)).unwrap();
        let mut rng = Transport::new(Box::new(Rng::new()), memory.into(), event()).unwrap();
        State {
            machine: description(),
            taken: Duration::from_secs(1_800_000_000),
            memory: MemoryState { id: [7; 16], base: Some([8; 16]), extents: vec![Extent { page: 3, count: 500 }] },
            vcpus: vec![VcpuState::default(), VcpuState::default()],
            vm: VmState::default(),
            transports: vec![rng.save().unwrap()],
            serial: Serial::new(event(), event(), Output::None).save(),
            cmos: Cmos::default().save(),
            wishes: vec![Wish::Reset],
        }
    }

    #[test]
    fn a_state_file_is_read_back_as_it_was_written() {
        let bytes = state().encode().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let back = State::read(&file).unwrap();
        assert_eq!(back.encode().unwrap(), bytes);
        assert_eq!((back.memory, back.wishes), (state().memory, vec![Wish::Reset]));
    }

    #[test]
    fn every_truncation_and_every_appendix_is_refused() {
        let mut bytes = state().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(State::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        bytes.push(0);
        assert!(matches!(State::decode(&bytes), Err(Error::Form(_))));
        // Something behind the payload that the header counts in.
        let length = (bytes.len() - HEADER) as u64;
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        repair(&mut bytes);
        assert!(matches!(State::decode(&bytes), Err(Error::Form(_))));
    }

    #[test]
    fn other_files_other_versions_and_endless_files_are_named() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LONGEST + 1).unwrap();
        assert!(matches!(State::read(&file), Err(Error::Form("it is too long"))));
        let mut bytes = state().encode().unwrap();
        bytes[8] = VERSION as u8 + 1;
        assert!(matches!(State::decode(&bytes), Err(Error::Version(version)) if version == VERSION + 1));
        bytes[0] = b'X';
        assert!(matches!(State::decode(&bytes), Err(Error::Form("it does not begin like one"))));
        bytes[16..24].fill(0xff);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION as u8;
        assert!(matches!(State::decode(&bytes), Err(Error::Form(_))));
    }

    #[test]
    fn another_machine_is_refused_with_what_differs() {
        let other = |change: fn(&mut Description)| {
            let mut other = description();
            change(&mut other);
            description().check(&other).unwrap_err().to_string()
        };
        description().check(&description()).unwrap();
        assert!(other(|other| other.memory *= 2).contains("64M of memory, the configuration describes one with 128M"));
        assert!(other(|other| other.cpus = 1).contains("2 processors, the configuration describes one with 1"));
        assert!(other(|other| other.devices.push(1)).contains("with the devices rng, net"));
    }

    /// Makes the checksum right.
    fn repair(bytes: &mut [u8]) {
        let checksum = crc32fast::hash(&bytes[HEADER..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = state().encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(State::decode(&bytes).is_err());
        }

        #[test]
        fn a_payload_of_anything_ends_in_a_state_or_an_error(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = state().encode().unwrap();
            for (at, value) in edits {
                let at = HEADER + at.index(bytes.len() - HEADER);
                bytes[at] = value;
            }
            // Nine of ten stay as long as they are.
            let length = bytes.len() - cut.index(bytes.len()).saturating_sub(bytes.len() * 9 / 10).min(bytes.len() - HEADER);
            bytes.truncate(length);
            let payload = (bytes.len() - HEADER) as u64;
            bytes[16..24].copy_from_slice(&payload.to_le_bytes());
            repair(&mut bytes);
            let _ = State::decode(&bytes);
        }

        #[test]
        fn bytes_of_anything_are_no_state(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(State::decode(&bytes).is_err());
        }
    }
}
