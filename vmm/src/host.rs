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
use crate::devices::virtio::balloon::{self, Balloon};
use crate::devices::virtio::block::{self, Block};
use crate::devices::virtio::gpu::Gpu;
use crate::devices::virtio::input::Input;
use crate::devices::virtio::limit::Limit;
use crate::devices::virtio::net::{self, Backend, Net};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::snd::Snd;
use crate::devices::virtio::vsock::Vsock;
use crate::disk::{self, Disk, engine};
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
    /// Files that are no disk, or are in use.
    #[error(transparent)]
    Disk(#[from] disk::Error),
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

/// Starts the thread that serves a socket or the terminal.
type Service = Box<dyn FnOnce() -> io::Result<()>>;

/// The host's side of a machine; outlives resets.
pub struct Host {
    /// To be started once the process is in its jail.
    services: Vec<(&'static str, Service)>,
    display: Option<Arc<Display>>,
    disks: Arc<block::Traffic>,
    net: Arc<net::Traffic>,
    balloon: Option<Arc<balloon::Control>>,
    _terminal: Option<RawTerminal>,
}

impl Host {
    /// Connects the serial port, which interrupts through `line`, and opens the display socket. Nobody is served
    /// before [`Host::serve`].
    pub fn open(config: &MachineConfig, line: EventFd, commands: &Sender<Command>) -> Result<(Self, Serial), Error> {
        let failed = setting_up("the display");
        let mut services: Vec<(_, Service)> = Vec::new();
        let display = match &config.display {
            Some(shown) => {
                let display = Display::new(shown.width, shown.height).map_err(&failed)?;
                let (served, listener) = (display.clone(), sockets::listen_packets(&shown.socket)?);
                services.push(("the display", Box::new(move || served.listen(listener).map(drop))));
                Some(display)
            }
            None => None,
        };
        let (serial, terminal, service) = open_serial(&config.serial, line, commands)?;
        services.extend(service.map(|service| ("the serial port", service)));
        let balloon = config.balloon.then(balloon::Control::new).transpose().map_err(setting_up("the balloon"))?;
        let (disks, net) = (Arc::default(), Arc::default());
        Ok((Self { services, display, disks, net, balloon, _terminal: terminal }, serial))
    }

    /// Starts the threads that serve the display and the serial port.
    pub fn serve(&mut self) -> Result<(), Error> {
        self.services.drain(..).try_for_each(|(what, service)| service().map_err(setting_up(what)))
    }

    /// Makes the devices, in the order of their slots.
    pub fn devices(&self, config: &MachineConfig) -> Result<Vec<Box<dyn Device>>, Error> {
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for (index, disk) in config.disks.iter().enumerate() {
            let limit = Limit::new(disk.limit.as_ref()).map_err(setting_up("a disk"))?;
            let (serial, traffic) = (format!("yunju-{index}"), self.disks.clone());
            devices.push(Box::new(Block::new(open_disk(disk)?, &serial, limit, traffic, Box::new(engine::best))));
        }
        if let Some(display) = &self.display {
            devices.push(Box::new(Gpu::new(display.clone())));
            devices.push(Box::new(Input::keyboard(display.keyboard(), display.clone())));
            devices.push(Box::new(Input::tablet(display.tablet())));
            if config.sound {
                devices.push(Box::new(Snd::new(display.sound()).map_err(setting_up("sound"))?));
            }
        }
        if let Some(net) = &config.net {
            devices.push(Box::new(self.network(net)?));
        }
        devices.push(Box::new(Rng::new()));
        if let Some(vsock) = &config.vsock {
            let socket = vsock.socket.clone();
            let vsock = Vsock::new(vsock.cid, socket).map_err(setting_up("the vsock"))?;
            devices.push(Box::new(vsock.reaching_from_its_folder()));
        }
        devices.extend(self.balloon.clone().map(|control| -> Box<dyn Device> { Box::new(Balloon::new(control)) }));
        Ok(devices)
    }

    /// The balloon, if there is one.
    pub fn balloon(&self) -> Option<&balloon::Control> {
        self.balloon.as_deref()
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
        let limit = Limit::new(config.limit.as_ref()).map_err(&failed)?;
        Ok(Net::new(backend, mac, self.net.clone()).map_err(failed)?.with_limit(limit))
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

/// Opens the files of a disk and keeps others from writing to them, or from reading the one that is written to.
fn open_disk(disk: &DiskConfig) -> Result<Disk, Error> {
    let below = disk.layers.iter().map(|path| (path, false));
    let open = |(path, writable): (&PathBuf, bool)| {
        let open = |source| Error::Open { what: "disk", path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(writable).open(path).map_err(open)?;
        let name = path.display().to_string();
        disk::lock(&name, &file, writable)?;
        Ok((name, file))
    };
    let files = below.chain([(&disk.path, !disk.readonly)]).map(open).collect::<Result<_, Error>>()?;
    Ok(Disk::open(files, !disk.readonly)?)
}

fn open_serial(
    config: &SerialConfig,
    line: EventFd,
    commands: &Sender<Command>,
) -> Result<(Serial, Option<RawTerminal>, Option<Service>), Error> {
    let failed = setting_up("the serial port");
    let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(&failed)?;
    let room = wake.try_clone().map_err(&failed)?;
    let (mut terminal, mut service): (_, Option<Service>) = (None, None);
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
            let served = serial.clone();
            service = Some(Box::new(move || backend::serve_stdin(served, wake, end)));
            serial
        }
        SerialConfig::Socket(endpoint) => {
            let outbox = Outbox::new(wake.try_clone().map_err(&failed)?);
            let serial = Serial::new(line, room, Output::Socket(outbox.clone()));
            let listener = sockets::listen_stream(endpoint)?;
            let served = serial.clone();
            service = Some(Box::new(move || backend::serve_socket(listener, served, outbox, wake)));
            serial
        }
    };
    Ok((serial, terminal, service))
}
