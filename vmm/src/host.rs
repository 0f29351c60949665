//! What a machine stands on: the host's files and sockets, opened once, and the devices made from them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use vmm_sys_util::eventfd::EventFd;
use yunju_protocol::control::Counters;
use yunju_protocol::machine::{DiskConfig, MachineConfig, NetBackend, NetConfig, SerialConfig};

use crate::control::Screenshot;
use crate::devices::serial::Serial;
use crate::devices::serial::backend::{self, Outbox, Output, RawTerminal};
use crate::devices::virtio::Device;
use crate::devices::virtio::block::{self, Block, SECTOR};
use crate::devices::virtio::gpu::Gpu;
use crate::devices::virtio::input::Input;
use crate::devices::virtio::net::{self, Backend, Net};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::vsock::Vsock;
use crate::display::Display;
use crate::machine::Command;
use crate::sockets;

/// Why the host's side could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened.
    #[error("{what} {}: {source}", path.display())]
    Open {
        /// Disk, serial log…
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A disk's length is no multiple of a sector.
    #[error("disk {}: its length of {length} bytes is not a multiple of {SECTOR}; `truncate` it to one", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes.
        length: u64,
    },
    /// A disk is in use.
    #[error("disk {}: another machine writes to it", .0.display())]
    Locked(PathBuf),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] sockets::Error),
    /// A hardware address.
    #[error(transparent)]
    Mac(#[from] net::MacError),
    /// Descriptors or threads.
    #[error("setting up {what}: {source}")]
    Io {
        /// Which part.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn setting_up(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

/// The host's side of a machine; outlives resets.
pub struct Host {
    display: Option<Arc<Display>>,
    disks: Arc<block::Traffic>,
    net: Arc<net::Traffic>,
    _terminal: Option<RawTerminal>,
}

impl Host {
    /// Connects the serial port, which interrupts through `line`, and opens the display socket.
    pub fn open(config: &MachineConfig, line: EventFd, commands: &Sender<Command>) -> Result<(Self, Serial), Error> {
        let failed = setting_up("the display");
        let display = match &config.display {
            Some(shown) => {
                let display = Display::new(shown.width, shown.height).map_err(&failed)?;
                display.listen(sockets::listen_packets(&shown.socket)?).map_err(&failed)?;
                Some(display)
            }
            None => None,
        };
        let (serial, terminal) = open_serial(&config.serial, line, commands)?;
        Ok((Self { display, disks: Arc::default(), net: Arc::default(), _terminal: terminal }, serial))
    }

    /// Makes the devices, in the order of their slots.
    pub fn devices(&self, config: &MachineConfig) -> Result<Vec<Box<dyn Device>>, Error> {
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for (index, disk) in config.disks.iter().enumerate() {
            let file = open_disk(disk)?;
            let serial = format!("yunju-{index}");
            let block = Block::new(file, disk.readonly, &serial, self.disks.clone()).map_err(setting_up("a disk"))?;
            devices.push(Box::new(block));
        }
        if let Some(display) = &self.display {
            devices.push(Box::new(Gpu::new(display.clone())));
            devices.push(Box::new(Input::keyboard(display.keyboard(), display.clone())));
            devices.push(Box::new(Input::tablet(display.tablet())));
        }
        if let Some(net) = &config.net {
            devices.push(Box::new(self.network(net)?));
        }
        devices.push(Box::new(Rng::new()));
        if let Some(vsock) = &config.vsock {
            let socket = vsock.socket.clone();
            devices.push(Box::new(Vsock::new(vsock.cid, socket).map_err(setting_up("the vsock"))?));
        }
        Ok(devices)
    }

    fn network(&self, config: &NetConfig) -> Result<Net, Error> {
        let failed = setting_up("the network");
        let backend = match &config.backend {
            NetBackend::Stream(endpoint) => Backend::stream(sockets::connect_stream(endpoint)?),
            NetBackend::Tap(name) => Backend::tap(name).map_err(&failed)?,
        };
        let mac = match &config.mac {
            Some(text) => net::parse_mac(text)?,
            None => net::random_mac().map_err(&failed)?,
        };
        Net::new(backend, mac, self.net.clone()).map_err(failed)
    }

    /// Takes pictures of the screen.
    pub fn screenshot(&self) -> Screenshot {
        let display = self.display.clone();
        Arc::new(move || display.as_ref()?.screenshot())
    }

    /// The picture's size, while one is shown.
    pub fn screen_size(&self) -> Option<(u32, u32)> {
        self.display.as_ref()?.size()
    }

    /// What the devices did.
    pub fn counters(&self) -> Counters {
        let display = self.display.as_ref();
        Counters {
            vcpu_exits: Vec::new(),
            frames: display.map_or(0, |display| display.frames()),
            disk_read_bytes: self.disks.read.load(Ordering::Relaxed),
            disk_written_bytes: self.disks.written.load(Ordering::Relaxed),
            net_sent_bytes: self.net.sent.load(Ordering::Relaxed),
            net_received_bytes: self.net.received.load(Ordering::Relaxed),
            display_clients: display.map_or(0, |display| display.clients()),
        }
    }
}

/// Opens a disk and keeps others from writing to it, or from reading it while it is written to.
fn open_disk(disk: &DiskConfig) -> Result<File, Error> {
    let open = |source| Error::Open { what: "disk", path: disk.path.clone(), source };
    let file = OpenOptions::new().read(true).write(!disk.readonly).open(&disk.path).map_err(open)?;
    let length = file.metadata().map_err(open)?.len();
    if !length.is_multiple_of(SECTOR) || length == 0 {
        return Err(Error::Length { path: disk.path.clone(), length });
    }
    let lock = if disk.readonly { File::try_lock_shared } else { File::try_lock };
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked(disk.path.clone())),
        // Some network file systems have no locks.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

fn open_serial(
    config: &SerialConfig,
    line: EventFd,
    commands: &Sender<Command>,
) -> Result<(Serial, Option<RawTerminal>), Error> {
    let failed = setting_up("the serial port");
    let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(&failed)?;
    let room = wake.try_clone().map_err(&failed)?;
    let mut terminal = None;
    let serial = match config {
        SerialConfig::None => Serial::new(line, room, Output::None),
        SerialConfig::File(path) => {
            let open = |source| Error::Open { what: "serial log", path: path.clone(), source };
            let file = OpenOptions::new().append(true).create(true).open(path).map_err(open)?;
            Serial::new(line, room, Output::File(Arc::new(file)))
        }
        SerialConfig::Stdio => {
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(&failed)?);
            let serial = Serial::new(line, room, Output::File(Arc::new(stdout)));
            terminal = RawTerminal::enter().map_err(&failed)?;
            let commands = commands.clone();
            let end = move || {
                // Without a receiver the machine is ending already.
                let _ = commands.send(Command::Kill);
            };
            backend::serve_stdin(serial.clone(), wake, end).map_err(&failed)?;
            serial
        }
        SerialConfig::Socket(endpoint) => {
            let outbox = Outbox::new(wake.try_clone().map_err(&failed)?);
            let serial = Serial::new(line, room, Output::Socket(outbox.clone()));
            let listener = sockets::listen_stream(endpoint)?;
            backend::serve_socket(listener, serial.clone(), outbox, wake).map_err(&failed)?;
            serial
        }
    };
    Ok((serial, terminal))
}
