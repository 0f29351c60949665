//! Socket device (virtio 1.2 §5.10): byte streams between programs in the guest and on the host.
//!
//! The host's side is a Unix socket. A program that connects to it writes `CONNECT <port>\n` and, once the
//! guest has accepted, reads `OK <port>\n`; from then on the two are connected. A guest that connects to
//! the host's port P reaches the listener at `<socket>_P`.
//!
//! Answers to the guest queue up while it offers no buffers, up to [`MAX_REPLIES`]; beyond that its own
//! packets, and the host's sockets, have to wait.

mod connection;
mod listener;
mod packet;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};
use vm_memory::ByteValued;

use self::connection::{BUFFER, Connection, Outcome, Ports, Read};
use self::listener::{Client, Listener, Wish};
use self::packet::Header;
use super::{Chain, ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError};

/// Connections and clients that are about to be some.
const MAX_CONNECTIONS: usize = 1024;
/// Packets without data that may wait for the guest's buffers before the device takes no more of its packets.
const MAX_REPLIES: usize = 256;
/// Packets of data of one connection, or new clients, before others get their turn.
const TURN: usize = 16;
/// The first port that a host's connection comes from: above those that programs choose.
const FIRST_PORT: u32 = 1 << 30;

const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;

/// §5.10.6.7: all connections are gone.
const TRANSPORT_RESET: u32 = 0;

/// A socket device.
pub struct Vsock {
    cid: u32,
    config: Arc<Mutex<Vec<u8>>>,
    listener: Listener,
    clients: Vec<Client>,
    connections: HashMap<Ports, Connection>,
    /// Packets without data, to be given to the guest before anything else.
    replies: VecDeque<Header>,
    /// The guest has offered no buffer for the next packet.
    starved: bool,
    /// The guest must still hear that its connections are gone.
    announce: bool,
    next_id: u64,
    next_port: u32,
    buffer: Vec<u8>,
    /// What [`Device::sources`] listed last.
    polled: RefCell<Vec<Source>>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Client(u64),
    Connection(Ports, u64),
}

/// A socket device's state. Connections cannot be carried over: a restored guest is told that they are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    cid: u32,
}

impl Vsock {
    /// A device with the guest's context id `cid`, 3 or more, whose host side listens at `socket`.
    pub fn new(cid: u32, socket: PathBuf) -> io::Result<Self> {
        // 0 to 2 and the greatest are reserved (§5.10.4).
        if cid < 3 || cid == u32::MAX {
            let message = format!("the context id {cid} is reserved: choose one of 3 to {}", u32::MAX - 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self {
            cid,
            config: Arc::new(Mutex::new(configuration(cid))),
            listener: Listener::bind(socket)?,
            clients: Vec::new(),
            connections: HashMap::new(),
            replies: VecDeque::new(),
            starved: false,
            announce: false,
            next_id: 0,
            next_port: FIRST_PORT,
            buffer: vec![0; BUFFER as usize],
            polled: RefCell::default(),
        })
    }

    /// Reaches services of the host by its socket's path relative to the folder that this is in: the jail makes that the
    /// working folder, whatever is above it.
    pub fn reaching_from_its_folder(mut self) -> Self {
        self.listener.reach_from_its_folder();
        self
    }

    /// Takes the guest's packets, as long as their answers find room.
    fn transmit(&mut self, io: &mut Io) -> Result<(), Fault> {
        let memory = io.queues[TX].memory().clone();
        let mut taken = false;
        loop {
            self.reply(io)?;
            if self.replies.len() >= MAX_REPLIES {
                break;
            }
            let Some(mut chain) = io.queues[TX].pop(&memory)? else {
                break;
            };
            self.packet(&mut chain);
            io.queues[TX].push(chain.head, 0)?;
            taken = true;
        }
        if taken { io.queues[TX].signal() } else { Ok(()) }
    }

    /// One packet of the guest.
    fn packet(&mut self, chain: &mut Chain<'_>) {
        let Ok(header) = chain.reader.read_obj::<Header>() else {
            return;
        };
        if header.src_cid != u64::from(self.cid) {
            return;
        }
        let ports = Ports { guest: header.src_port, host: header.dst_port };
        let ours = header.dst_cid == packet::HOST_CID && header.kind == packet::STREAM;
        if header.op == packet::RST {
            if ours {
                self.connections.remove(&ports);
            }
            return;
        }
        if !ours {
            return self.replies.push_back(header.reset());
        }
        let Some(connection) = self.connections.get_mut(&ports) else {
            return self.request(&header, ports);
        };
        let length = if header.op == packet::RW { header.len as usize } else { 0 };
        // No more than the guest may ever send at once, and no more than it has sent.
        let whole = length <= self.buffer.len() && chain.reader.read_exact(&mut self.buffer[..length]).is_ok();
        let outcome = if whole { connection.guest_packet(&header, &self.buffer[..length]) } else { Outcome::Reset };
        self.settle(ports, outcome);
    }

    /// A packet of the guest for a connection that does not exist: it may ask for one.
    fn request(&mut self, header: &Header, ports: Ports) {
        let wanted = header.op == packet::REQUEST && self.has_room();
        match wanted.then(|| dial(&self.listener.service(ports.host))) {
            Some(Ok(socket)) => {
                let connection = Connection::accepted(self.new_id(), ports, socket.into(), header);
                self.connections.insert(ports, connection);
                self.settle(ports, Outcome::Reply(packet::RESPONSE, 0));
            }
            _ => self.replies.push_back(header.reset()),
        }
    }

    /// Does what a connection wants.
    fn settle(&mut self, ports: Ports, outcome: Outcome) {
        let Some(connection) = self.connections.get_mut(&ports) else {
            return;
        };
        match outcome {
            Outcome::Nothing => {}
            Outcome::Reply(op, flags) => self.replies.push_back(connection.header(self.cid, op, flags, 0)),
            Outcome::Reset => {
                self.replies.push_back(connection.header(self.cid, packet::RST, 0, 0));
                self.connections.remove(&ports);
            }
        }
    }

    /// Gives the guest the packets that wait.
    fn reply(&mut self, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[RX];
        let memory = queue.memory().clone();
        let mut given = false;
        while let Some(header) = self.replies.front() {
            let Some(mut chain) = queue.pop(&memory)? else {
                // The device may be here because of another queue: without this the driver need not
                // notify of the next buffer.
                if queue.rearm()? {
                    continue;
                }
                self.starved = true;
                break;
            };
            // A buffer without room for a header is given back empty.
            let written = match chain.writer.write_all(header.as_slice()) {
                Ok(()) => {
                    self.replies.pop_front();
                    packet::LENGTH as u32
                }
                Err(_) => 0,
            };
            queue.push(chain.head, written)?;
            given = true;
        }
        if given { queue.signal() } else { Ok(()) }
    }

    /// Gives the guest what the host sent on one connection.
    fn receive(&mut self, ports: Ports, io: &mut Io) -> Result<(), Fault> {
        self.reply(io)?;
        let queue = &mut io.queues[RX];
        let memory = queue.memory().clone();
        let mut given = false;
        for _ in 0..TURN {
            let connection = match self.connections.get_mut(&ports) {
                Some(connection) if connection.wants_input() && !self.starved => connection,
                _ => break,
            };
            let Some(mut chain) = queue.pop(&memory)? else {
                self.starved = true;
                break;
            };
            let room = chain.writer.available_bytes().saturating_sub(packet::LENGTH).min(self.buffer.len());
            if room == 0 {
                queue.push(chain.head, 0)?;
                given = true;
                continue;
            }
            let outcome = match connection.read(&mut self.buffer[..room]) {
                Read::Bytes(length) => {
                    let header = connection.header(self.cid, packet::RW, 0, length as u32);
                    chain.writer.write_all(header.as_slice())?;
                    chain.writer.write_all(&self.buffer[..length])?;
                    queue.push(chain.head, (packet::LENGTH + length) as u32)?;
                    given = true;
                    if connection.credit() > 0 {
                        continue;
                    }
                    Outcome::Reply(packet::CREDIT_REQUEST, 0)
                }
                nothing => {
                    queue.unpop();
                    match nothing {
                        Read::End => Outcome::Reply(packet::SHUTDOWN, packet::NO_SEND),
                        Read::Failed => Outcome::Reset,
                        Read::Nothing | Read::Bytes(_) => Outcome::Nothing,
                    }
                }
            };
            self.settle(ports, outcome);
            break;
        }
        if given { queue.signal() } else { Ok(()) }
    }

    /// A client has said something.
    fn client(&mut self, id: u64) {
        let Some(position) = self.clients.iter().position(|client| client.id == id) else {
            return;
        };
        let wish = self.clients[position].read();
        if wish == Wish::Incomplete {
            return;
        }
        let client = self.clients.swap_remove(position);
        if let Wish::Port(guest) = wish {
            let ports = Ports { guest, host: self.new_port(guest) };
            self.connections.insert(ports, Connection::requested(id, ports, client.socket));
            self.settle(ports, Outcome::Reply(packet::REQUEST, 0));
        }
    }

    fn has_room(&self) -> bool {
        self.connections.len() + self.clients.len() < MAX_CONNECTIONS
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A port of the host that is not connected to the port `guest`; there are far more than connections.
    fn new_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).filter(|port| *port != u32::MAX).unwrap_or(FIRST_PORT);
            if !self.connections.contains_key(&Ports { guest, host }) {
                return host;
            }
        }
    }

    /// Tells a restored guest that its connections are gone, as soon as it can hear of it.
    fn event(&mut self, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[EVENT];
        let memory = queue.memory().clone();
        while self.announce
            && let Some(mut chain) = queue.pop(&memory)?
        {
            let told = chain.writer.write_all(&TRANSPORT_RESET.to_le_bytes()).is_ok();
            queue.push(chain.head, if told { size_of_val(&TRANSPORT_RESET) as u32 } else { 0 })?;
            queue.signal()?;
            self.announce = !told;
        }
        Ok(())
    }
}

/// The configuration space (§5.10.4): the guest's context id.
fn configuration(cid: u32) -> Vec<u8> {
    u64::from(cid).to_le_bytes().to_vec()
}

/// Connects to a listener without waiting for it.
fn dial(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

impl Device for Vsock {
    fn kind(&self) -> Kind {
        Kind::Vsock
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[128, 128, 16]
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        match index {
            // Buffers that nothing waits for stay in their queue.
            RX if self.starved => {
                self.starved = false;
                self.transmit(io)
            }
            TX => self.transmit(io),
            EVENT => self.event(io),
            _ => Ok(()),
        }
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let mut polled = self.polled.borrow_mut();
        polled.clear();
        if self.replies.len() >= MAX_REPLIES {
            return;
        }
        if self.has_room() {
            polled.push(Source::Listener);
            interest.push((self.listener.as_fd(), PollFlags::IN));
        }
        for client in &self.clients {
            polled.push(Source::Client(client.id));
            interest.push((client.socket.as_fd(), PollFlags::IN));
        }
        for (ports, connection) in &self.connections {
            if let Some(wanted) = connection.interest(self.starved) {
                polled.push(Source::Connection(*ports, connection.id));
                interest.push(wanted);
            }
        }
    }

    fn source_ready(&mut self, index: usize, events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        let Some(source) = self.polled.borrow().get(index).copied() else {
            return Ok(());
        };
        match source {
            Source::Listener => {
                for _ in 0..TURN {
                    let Some(socket) = self.has_room().then(|| self.listener.accept()).flatten() else {
                        break;
                    };
                    let id = self.new_id();
                    self.clients.push(Client::new(id, socket));
                }
            }
            Source::Client(id) => self.client(id),
            Source::Connection(ports, id) => {
                // An event of an earlier connection between the same ports means nothing to this one.
                let Some(connection) = self.connections.get_mut(&ports).filter(|connection| connection.id == id) else {
                    return Ok(());
                };
                let outcome = connection.host_event(events);
                self.settle(ports, outcome);
                self.receive(ports, io)?;
            }
        }
        self.reply(io)
    }

    fn reset(&mut self) {
        self.clients.clear();
        self.connections.clear();
        self.replies.clear();
        (self.starved, self.announce) = (false, false);
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(State { cid: self.cid })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let DeviceState::Vsock(state) = state else {
            return Err(StateError(format!("{state:?} instead of a socket device's")));
        };
        self.cid = state.cid;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = configuration(state.cid);
        self.announce = true;
        Ok(())
    }
}
