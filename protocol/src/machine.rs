//! What a machine is made of. The same struct is the VMM's `--config` file, what its command-line
//! flags fill in, and what the manager writes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The whole configuration of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Kernel: an uncompressed x86-64 ELF (`vmlinux`) or a `bzImage`.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, at most 2,047 bytes.
    #[serde(default)]
    pub cmdline: String,
    /// Guest memory: 64 MiB to 64 GiB, a multiple of 2 MiB. A number of bytes or a string such as `"1G"`.
    pub memory: ByteSize,
    /// Virtual processors, 1 to 8.
    #[serde(default = "one")]
    pub cpus: u8,
    /// Disks, in the order the guest sees them (`vda`, `vdb`, …).
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Where the first serial port goes.
    #[serde(default)]
    pub serial: SerialConfig,
    /// Screen, keyboard and pointer; none makes a headless machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<DisplayConfig>,
    /// A sound card, which clients of the display hear.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sound: bool,
    /// One network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<NetConfig>,
    /// A vsock device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// A balloon, through which the guest gives memory back: free pages by itself, more when asked.
    #[serde(default)]
    pub balloon: bool,
    /// Where the control API listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Endpoint>,
    /// Go on from a snapshot instead of booting. The rest of the configuration must describe the same machine;
    /// sockets and files may be elsewhere. Kernel and initrd serve when the guest restarts itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreConfig>,
}

fn one() -> u8 {
    1
}

/// One disk: a raw file whose length is a multiple of 512 bytes, or a chain of layers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The raw file, or the topmost layer: the only one that is written to.
    pub path: PathBuf,
    /// The guest may only read.
    #[serde(default)]
    pub readonly: bool,
    /// What lies below `path`, bottom first: a raw file or a layer without a parent, then layers. Never written to.
    /// Empty when `path` is a raw file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PathBuf>,
    /// How fast the guest may read and write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// How fast a device may be used, both directions together. A second's worth may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteSize>,
    /// Requests or frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u32>,
}

/// The files of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreConfig {
    /// Processors and devices.
    pub state: PathBuf,
    /// The guest's memory: all of it, or what differs from `base`.
    pub memory: PathBuf,
    /// The memory file of the snapshot that this one is a difference to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
}

/// Where the first serial port (16550 at 0x3f8) goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum SerialConfig {
    /// Output is dropped, no input.
    #[default]
    None,
    /// The VMM's standard input and output.
    Stdio,
    /// Output is appended to a file.
    File(PathBuf),
    /// A listening socket. Output goes to the client that is connected, and its bytes are typed.
    /// The last 64 KiB of output are replayed to a new client.
    Socket(Endpoint),
}

/// Screen, keyboard and pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisplayConfig {
    /// Where clients of the [`crate::display`] protocol connect.
    pub socket: Endpoint,
    /// Preferred width at start, 640 to 7,680 pixels.
    #[serde(default = "default_width")]
    pub width: u32,
    /// Preferred height at start, 480 to 4,320 pixels.
    #[serde(default = "default_height")]
    pub height: u32,
}

fn default_width() -> u32 {
    1280
}

fn default_height() -> u32 {
    800
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// What carries the Ethernet frames.
    pub backend: NetBackend,
    /// Hardware address, `"52:54:00:12:34:56"`; a random local one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// How fast the guest may send and receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// What carries Ethernet frames between a machine and the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum NetBackend {
    /// A connected stream socket on which each frame follows its length as a big-endian `u32`
    /// (passt, and QEMU's `-netdev stream`).
    Stream(Endpoint),
    /// An existing tap interface, by name.
    Tap(String),
}

/// A vsock device whose host side is a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more.
    pub cid: u32,
    /// The host connects here, says `CONNECT <port>\n` and is answered `OK <port>\n`; a guest that
    /// connects to host port P reaches the listener at `<socket>_P`. The folder should hold nothing else:
    /// it is all that a jailed machine sees of the file system.
    pub socket: PathBuf,
}

/// A Unix socket: `unix:/path` or a descriptor handed down by the parent process, `fd:N`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A path in the file system.
    Unix(PathBuf),
    /// An inherited descriptor.
    Fd(i32),
}

/// A string that is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no socket: write unix:/path or fd:N")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let endpoint = match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(("fd", number)) => number.parse().ok().filter(|fd| *fd >= 0).map(Self::Fd),
            _ => None,
        };
        endpoint.ok_or_else(|| EndpointError(text.to_owned()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
        }
    }
}

/// A number of bytes, written `1073741824` or, in powers of 1,024, `"512M"` or `"1G"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A string that is no [`ByteSize`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: write a whole number of bytes, or one with K, M, G or T")]
pub struct ByteSizeError(String);

impl ByteSize {
    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ByteSizeError(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let number = lower.trim_end_matches('b').trim_end_matches('i');
        let (digits, shift) = match number.chars().last() {
            Some('k') => (&number[..number.len() - 1], 10),
            Some('m') => (&number[..number.len() - 1], 20),
            Some('g') => (&number[..number.len() - 1], 30),
            Some('t') => (&number[..number.len() - 1], 40),
            _ => (number, 0),
        };
        let count: u64 = digits.parse().map_err(|_| error())?;
        count.checked_mul(1 << shift).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let unit = UNITS.iter().find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((shift, name)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) => Ok(Self(bytes)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_powers_of_1024_and_written_back_the_same() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("4K", 4096), ("1G", 1 << 30), ("512MiB", 512 << 20), ("2t", 2 << 40)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        for text in ["", "G", "-1", "1.5G", "99999999T", "1X"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = serde_json::from_str::<MachineConfig>(r#"{"kernel":"k","memory":"1G","colour":1}"#).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn a_configuration_round_trips_through_json() {
        let text = r#"{"kernel":"/k","memory":"1G","cpus":2,"disks":[{"path":"/d","readonly":true}],
            "serial":{"file":"/log"},"display":{"socket":"unix:/s"},"net":{"backend":{"stream":"fd:5"}},
            "vsock":{"cid":3,"socket":"/v"},"control":"unix:/c"}"#;
        let config: MachineConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.memory, ByteSize(1 << 30));
        let again: MachineConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn endpoints_that_name_no_socket_are_refused() {
        for text in ["", "/path", "unix:", "fd:", "fd:-1", "tcp:1.2.3.4:5"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
