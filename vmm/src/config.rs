//! The command line, which fills in the same [`MachineConfig`] as a configuration file, and the
//! limits that both must keep.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use yunju_protocol::machine::{
    ByteSize, DiskConfig, DisplayConfig, Endpoint, MachineConfig, NetBackend, NetConfig, RateLimit, RestoreConfig,
    SerialConfig, VsockConfig,
};

use crate::disk::command::DiskAction;
use crate::snapshot::client::Wanted;
use crate::{layout, memory};

/// A minimal virtual machine monitor: one process, one machine.
#[derive(Debug, Parser)]
#[command(name = "yunju-vmm", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run a machine until it is powered off
    ///
    /// Examples:
    ///   yunju-vmm run --config machine.json
    ///   yunju-vmm run --kernel vmlinux --initrd initrd --cmdline console=ttyS0 --memory 512M --serial stdio
    #[command(verbatim_doc_comment, after_long_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Take a snapshot of a running machine: a folder that `run --restore` goes on from
    Snapshot(SnapshotArgs),
    /// Make, look at and join the files of disks
    #[command(subcommand)]
    Disk(DiskAction),
}

/// Flags of `snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The machine's control socket, unix:PATH or fd:N
    #[arg(long, value_name = "SOCKET")]
    pub control: Endpoint,
    /// The snapshot's folder; one that is there already is replaced
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// End the machine once the snapshot is durable
    #[arg(long)]
    pub end: bool,
    /// Write all of the memory, also of a machine that was restored
    #[arg(long)]
    pub whole: bool,
    /// An empty file that a disk is written to from then on, one for each writable disk, in their order; repeatable
    #[arg(long, value_name = "FILE")]
    pub layer: Vec<PathBuf>,
}

impl From<SnapshotArgs> for Wanted {
    fn from(args: SnapshotArgs) -> Self {
        Self { control: args.control, folder: args.to, layers: args.layer, end: args.end, whole: args.whole }
    }
}

const EXIT_CODES: &str = "Exit codes:
  0  the guest powered off, or the machine was ended by request
  1  the machine could not be built
  2  wrong usage or configuration
  3  the guest crashed";

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file (JSON); takes the place of all flags but --no-reboot and those of the jail
    #[arg(long, value_name = "FILE", conflicts_with = "machine")]
    pub config: Option<PathBuf>,
    /// End the machine when the guest restarts itself
    #[arg(long)]
    pub no_reboot: bool,
    /// How this process is jailed.
    #[command(flatten)]
    pub jail: yunju_jail::Flags,
    #[command(flatten)]
    machine: MachineArgs,
}

#[derive(Debug, Args)]
#[group(id = "machine", multiple = true)]
struct MachineArgs {
    /// Kernel: an x86-64 ELF (vmlinux) or a bzImage
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Disk: a raw file or the topmost layer, repeatable. Behind it `,readonly` if the guest may only read, `,below=FILE` for
    /// each file that the layer lies on, bottom first, `,bytes=SIZE` and `,operations=COUNT` for the most per second
    #[arg(long, value_name = "FILE[,OPTION]…", value_parser = parse_disk)]
    disk: Vec<DiskConfig>,
    /// Memory, such as 512M or 2G [default: 512M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Virtual processors [default: 1]
    #[arg(long, value_name = "COUNT")]
    cpus: Option<u8>,
    /// Serial port: none, stdio (Ctrl-] ends the machine), file:PATH, unix:PATH or fd:N [default: none]
    #[arg(long, value_name = "WHERE", value_parser = parse_serial)]
    serial: Option<SerialConfig>,
    /// Display socket, unix:PATH or fd:N, and the preferred size
    #[arg(long, value_name = "SOCKET[,WIDTHxHEIGHT]", value_parser = parse_display)]
    display: Option<DisplayConfig>,
    /// A sound card, which clients of the display hear
    #[arg(long, requires = "display")]
    sound: bool,
    /// Network: stream:unix:PATH or stream:fd:N (passt), or tap:NAME
    #[arg(long, value_name = "BACKEND", value_parser = parse_net)]
    net: Option<NetBackend>,
    /// Hardware address of the network interface
    #[arg(long, value_name = "ADDRESS", requires = "net")]
    mac: Option<String>,
    /// The most that the network interface may send and receive per second
    #[arg(long, value_name = "bytes=SIZE,operations=COUNT", value_parser = parse_limit, requires = "net")]
    net_limit: Option<RateLimit>,
    /// Vsock: the guest's context id and the socket on the host
    #[arg(long, value_name = "CID,PATH", value_parser = parse_vsock)]
    vsock: Option<VsockConfig>,
    /// A balloon, through which the guest gives memory back
    #[arg(long)]
    balloon: bool,
    /// Control API socket, unix:PATH or fd:N
    #[arg(long, value_name = "SOCKET")]
    control: Option<Endpoint>,
    /// Go on from a snapshot instead of booting; a difference needs the folder of the snapshot it is to
    #[arg(long, value_name = "FOLDER[,base=FOLDER]", value_parser = parse_restore)]
    restore: Option<RestoreConfig>,
}

fn parse_disk(text: &str) -> Result<DiskConfig, String> {
    let mut disk = DiskConfig::default();
    let mut rest = text;
    while let Some((before, option)) = rest.rsplit_once(',') {
        match option.split_once('=') {
            None if option == "readonly" => disk.readonly = true,
            Some(("below", file)) if !file.is_empty() => disk.layers.insert(0, file.into()),
            Some(("bytes" | "operations", _)) => limit_option(disk.limit.get_or_insert_default(), option)?,
            // A comma in the name of a folder.
            _ if option.contains('/') => break,
            _ => {
                return Err(format!("unknown disk option `{option}`: there are readonly, below=, bytes=, operations="));
            }
        }
        rest = before;
    }
    disk.path = rest.into();
    Ok(disk)
}

fn parse_limit(text: &str) -> Result<RateLimit, String> {
    let mut limit = RateLimit::default();
    text.split(',').try_for_each(|option| limit_option(&mut limit, option))?;
    Ok(limit)
}

fn limit_option(limit: &mut RateLimit, option: &str) -> Result<(), String> {
    match option.split_once('=') {
        Some(("bytes", size)) => limit.bytes = Some(size.parse().map_err(|error| format!("{error}"))?),
        Some(("operations", count)) => {
            limit.operations = Some(count.parse().map_err(|_| format!("`{count}` is no number of operations"))?);
        }
        _ => return Err(format!("`{option}` is no limit: write bytes=SIZE or operations=COUNT, both per second")),
    }
    Ok(())
}

fn parse_serial(text: &str) -> Result<SerialConfig, String> {
    match text {
        "none" => Ok(SerialConfig::None),
        "stdio" => Ok(SerialConfig::Stdio),
        _ => match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(SerialConfig::File(path.into())),
            _ => text.parse().map(SerialConfig::Socket).map_err(|_| {
                format!("`{text}` is no place for a serial port: write none, stdio, file:PATH, unix:PATH or fd:N")
            }),
        },
    }
}

fn parse_display(text: &str) -> Result<DisplayConfig, String> {
    let (socket, size) = text.split_once(',').unwrap_or((text, "1280x800"));
    let (width, height) = size
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)))
        .ok_or_else(|| format!("`{size}` is no size: write WIDTHxHEIGHT in pixels"))?;
    let socket = socket.parse().map_err(|error| format!("{error}"))?;
    Ok(DisplayConfig { socket, width, height })
}

fn parse_net(text: &str) -> Result<NetBackend, String> {
    match text.split_once(':') {
        Some(("stream", socket)) => socket.parse().map(NetBackend::Stream).map_err(|error| format!("{error}")),
        Some(("tap", name)) if !name.is_empty() => Ok(NetBackend::Tap(name.to_owned())),
        _ => Err(format!("`{text}` is no network: write stream:unix:PATH, stream:fd:N or tap:NAME")),
    }
}

fn parse_vsock(text: &str) -> Result<VsockConfig, String> {
    text.split_once(',')
        .and_then(|(cid, path)| Some(VsockConfig { cid: cid.parse().ok()?, socket: path.into() }))
        .ok_or_else(|| format!("`{text}` is no vsock: write CID,PATH"))
}

fn parse_restore(text: &str) -> Result<RestoreConfig, String> {
    let (folder, base) = match text.split_once(",base=") {
        Some((folder, base)) => (Path::new(folder), Some(Path::new(base))),
        None => (Path::new(text), None),
    };
    if folder == Path::new("") || base == Some(Path::new("")) {
        return Err(format!("`{text}` is no snapshot: write FOLDER or FOLDER,base=FOLDER"));
    }
    let memory = |folder: &Path| folder.join("memory");
    Ok(RestoreConfig { state: folder.join("state"), memory: memory(folder), base: base.map(memory) })
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("reading configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not a configuration.
    #[error("configuration {}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value is out of its limits.
    #[error("{0}")]
    Limit(String),
}

impl RunArgs {
    /// The machine that the flags or the file describe, within its limits.
    pub fn into_config(self) -> Result<MachineConfig, Error> {
        let config = match self.config {
            Some(path) => read(&path)?,
            None => self.machine.into_config(),
        };
        check(&config)?;
        Ok(config)
    }
}

impl MachineArgs {
    fn into_config(self) -> MachineConfig {
        MachineConfig {
            kernel: self.kernel.unwrap_or_default(),
            initrd: self.initrd,
            cmdline: self.cmdline.unwrap_or_default(),
            memory: self.memory.unwrap_or(ByteSize::mib(512)),
            cpus: self.cpus.unwrap_or(1),
            disks: self.disk,
            serial: self.serial.unwrap_or_default(),
            display: self.display,
            sound: self.sound,
            net: self.net.map(|backend| NetConfig { backend, mac: self.mac, limit: self.net_limit }),
            vsock: self.vsock,
            balloon: self.balloon,
            control: self.control,
            restore: self.restore,
        }
    }
}

fn read(path: &Path) -> Result<MachineConfig, Error> {
    let text = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })
}

/// Whether the numbers of a configuration are within the limits.
pub fn check(config: &MachineConfig) -> Result<(), Error> {
    let limit = |kept: bool, message: String| if kept { Ok(()) } else { Err(Error::Limit(message)) };
    let bytes = config.memory.0;
    limit(
        (memory::MEMORY_MIN..=memory::MEMORY_MAX).contains(&bytes) && bytes.is_multiple_of(2 << 20),
        format!("memory {}: must be 64M to 64G and a multiple of 2M", config.memory),
    )?;
    limit((1..=8).contains(&config.cpus), format!("cpus {}: must be 1 to 8", config.cpus))?;
    limit(
        config.cmdline.len() < layout::COMMAND_LINE_SIZE && !config.cmdline.contains('\0'),
        format!("cmdline: must be at most {} bytes without a zero byte", layout::COMMAND_LINE_SIZE - 1),
    )?;
    let used = config.disks.len() + 8;
    limit(
        used <= layout::VIRTIO_SLOTS as usize,
        format!("{} disks: at most {} fit", config.disks.len(), layout::VIRTIO_SLOTS - 8),
    )?;
    let limits = config.disks.iter().map(|disk| &disk.limit).chain(config.net.as_ref().map(|net| &net.limit)).flatten();
    for rate in limits {
        let some = rate.bytes != Some(ByteSize(0)) && rate.operations != Some(0);
        limit(some, "a limit of 0 per second: leave it out, or the device out".into())?;
    }
    if let Some(display) = &config.display {
        limit(
            (640..=7680).contains(&display.width) && (480..=4320).contains(&display.height),
            format!("display {}x{}: must be 640x480 to 7680x4320", display.width, display.height),
        )?;
    }
    limit(config.display.is_some() || !config.sound, "sound: needs a display, whose clients hear it".into())?;
    if let Some(vsock) = &config.vsock {
        limit((3..u32::MAX).contains(&vsock.cid), format!("vsock cid {}: must be 3 or more", vsock.cid))?;
    }
    let mut descriptors = HashSet::new();
    let twice = endpoints(config).find(|endpoint| matches!(endpoint, Endpoint::Fd(fd) if !descriptors.insert(*fd)));
    limit(twice.is_none(), twice.map(|endpoint| format!("{endpoint} is used twice")).unwrap_or_default())
}

/// All sockets of a configuration but the vsock's.
pub fn endpoints(config: &MachineConfig) -> impl Iterator<Item = &Endpoint> {
    let serial = match &config.serial {
        SerialConfig::Socket(endpoint) => Some(endpoint),
        _ => None,
    };
    let net = config.net.as_ref().and_then(|net| match &net.backend {
        NetBackend::Stream(endpoint) => Some(endpoint),
        NetBackend::Tap(_) => None,
    });
    let display = config.display.as_ref().map(|display| &display.socket);
    [serial, net, display, config.control.as_ref()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> Result<MachineConfig, String> {
        let words = ["yunju-vmm", "run"].into_iter().chain(flags.split_whitespace());
        let Action::Run(args) = Cli::try_parse_from(words).map_err(|error| error.to_string())?.action else {
            panic!("not `run`")
        };
        args.into_config().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_a_file_describe_the_same_machine() {
        let flags = parse(
            "--kernel k --initrd i --cmdline quiet --disk a,readonly --disk b,bytes=1M,operations=9 --disk t,below=a/x,below=m --memory 1G --cpus 2 --serial stdio \
             --display unix:/d,800x600 --sound --net stream:fd:5 --mac 52:54:00:00:00:01 --net-limit bytes=2M --vsock 3,/v --balloon --control unix:/c --restore /s,base=/b",
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        fs::write(&path, serde_json::to_string(&flags).unwrap()).unwrap();
        assert_eq!(parse(&format!("--config {}", path.display())).unwrap(), flags);
    }

    #[test]
    fn a_disks_options_come_behind_its_file_and_commas_in_folders_are_no_options() {
        let disk = parse_disk("/a,b/top,below=/c/base,below=mid").unwrap();
        assert_eq!((disk.path, disk.layers), (PathBuf::from("/a,b/top"), vec!["/c/base".into(), "mid".into()]));
    }

    #[test]
    fn values_out_of_their_limits_are_named() {
        for (flags, expected) in [
            ("--kernel k --memory 1M", "memory 1M"),
            ("--kernel k --memory 65G", "64G"),
            ("--kernel k --memory 129M", "multiple of 2M"),
            ("--kernel k --cpus 0", "cpus 0"),
            ("--kernel k --cpus 9", "cpus 9"),
            ("--kernel k --display unix:/d,10x10", "10x10"),
            ("--kernel k --display unix:/d,huge", "WIDTHxHEIGHT"),
            ("--kernel k --sound", "--display"),
            ("--kernel k --vsock 2,/v", "cid 2"),
            ("--kernel k --net stream:fd:5 --control fd:5", "fd:5 is used twice"),
            ("--kernel k --net wifi", "stream:unix:PATH"),
            ("--kernel k --disk a,rw", "readonly"),
            ("--kernel k --disk a,bytes=0", "a limit of 0"),
            ("--kernel k --disk a,operations=fast", "`fast` is no number"),
            ("--kernel k --serial telnet", "stdio"),
            ("--memory 1G", "--kernel"),
            ("--config a --kernel k", "cannot be used with"),
            ("--config /nonexistent", "/nonexistent"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }
}
