//! One connection between a guest's socket and a host's.
//!
//! ```text
//!   host connects ─▶ Requested ── RESPONSE ─▶ Open ── host has closed ─▶ Closing ── RST ─▶ gone
//!   guest connects ─────────────────────────▶ Open ── guest has closed, all is written ──▶ gone
//! ```
//!
//! Nothing is buffered towards the guest: its socket is read only as far as the guest has room. Towards
//! the host, the guest may be [`BUFFER`] bytes ahead.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::packet::{self, Header};

/// Bytes that the guest may send before the host's socket takes them.
pub const BUFFER: u32 = 64 << 10;

/// What tells connections apart; the addresses are always the guest's and the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    pub guest: u32,
    pub host: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host asked; the guest has not answered.
    Requested,
    Open,
    /// The host's socket is closed; the guest has been told.
    Closing,
}

/// What a connection wants done after an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// A packet without data, of this operation and these flags.
    Reply(u16, u32),
    /// A reset, which is the end of the connection.
    Reset,
}

/// What came of reading the host's socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    Nothing,
    End,
    Failed,
}

pub struct Connection {
    /// Tells a connection from an earlier one between the same ports.
    pub id: u64,
    ports: Ports,
    phase: Phase,
    socket: UnixStream,
    /// Bytes of the guest that the socket has not taken yet, at most [`BUFFER`].
    outgoing: VecDeque<u8>,
    /// Bytes of the guest that the socket has taken, and how many the guest has been told of.
    forwarded: u32,
    told: u32,
    /// Bytes sent to the guest; how many it says that it has taken; how many it has room for.
    sent: u32,
    taken: u32,
    room: u32,
    /// The host sends no more.
    host_ended: bool,
    /// Directions that the guest has shut down.
    guest_ended: u32,
}

impl Connection {
    /// A connection that the host asks for.
    pub fn requested(id: u64, ports: Ports, socket: UnixStream) -> Self {
        Self {
            id,
            ports,
            phase: Phase::Requested,
            socket,
            outgoing: VecDeque::new(),
            forwarded: 0,
            told: 0,
            sent: 0,
            taken: 0,
            room: 0,
            host_ended: false,
            guest_ended: 0,
        }
    }

    /// A connection that the guest has asked for by `request`.
    pub fn accepted(id: u64, ports: Ports, socket: UnixStream, request: &Header) -> Self {
        let mut connection = Self::requested(id, ports, socket);
        connection.phase = Phase::Open;
        connection.credit_from(request);
        connection
    }

    /// The header of a packet to the guest, which also tells it how much was taken.
    pub fn header(&mut self, cid: u32, op: u16, flags: u32, len: u32) -> Header {
        self.told = self.forwarded;
        Header {
            src_cid: packet::HOST_CID,
            dst_cid: cid.into(),
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: packet::STREAM,
            op,
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: self.forwarded,
        }
    }

    /// Bytes that the guest has room for.
    pub fn credit(&self) -> u32 {
        self.room.saturating_sub(self.sent.wrapping_sub(self.taken))
    }

    fn credit_from(&mut self, header: &Header) {
        (self.room, self.taken) = (header.buf_alloc, header.fwd_cnt);
    }

    /// What to wait for; `None` if nothing that the socket does matters now. The guest may be `starved` of
    /// buffers.
    pub fn interest(&self, starved: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants_input() && !starved);
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        // A hang-up is reported whatever the flags. Here it is what is waited for; elsewhere it would be
        // reported again and again while the guest has no room for what was sent before.
        let hang_up = match self.phase {
            Phase::Requested => true,
            Phase::Open => self.host_ended,
            Phase::Closing => return None,
        };
        (hang_up || !flags.is_empty()).then_some((self.socket.as_fd(), flags))
    }

    /// Whether the socket should be read.
    pub fn wants_input(&self) -> bool {
        let listening = self.guest_ended & packet::NO_RECEIVE == 0;
        self.phase == Phase::Open && !self.host_ended && listening && self.credit() > 0
    }

    /// The socket has `events`, besides what is to be read.
    pub fn host_event(&mut self, events: PollFlags) -> Outcome {
        if !self.outgoing.is_empty() && events.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
            return self.flush();
        }
        match self.phase {
            Phase::Requested if events.intersects(PollFlags::HUP | PollFlags::ERR) => Outcome::Reset,
            Phase::Open if self.host_ended && events.intersects(PollFlags::HUP | PollFlags::ERR) => {
                self.phase = Phase::Closing;
                Outcome::Reply(packet::SHUTDOWN, packet::OVER)
            }
            _ => Outcome::Nothing,
        }
    }

    /// Reads what the host sent, as far as the guest has room for it.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        let length = buffer.len().min(self.credit() as usize);
        match recv(&self.socket, &mut buffer[..length], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                self.host_ended = true;
                Read::End
            }
            Ok((_, length)) => {
                self.sent = self.sent.wrapping_add(length as u32);
                Read::Bytes(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => Read::Failed,
        }
    }

    /// A packet of the guest, other than a reset, with its data.
    pub fn guest_packet(&mut self, header: &Header, data: &[u8]) -> Outcome {
        self.credit_from(header);
        match (header.op, self.phase) {
            (packet::RESPONSE, Phase::Requested) => self.open(),
            (packet::RW, Phase::Open) if self.guest_ended & packet::NO_SEND == 0 => self.write(data),
            (packet::SHUTDOWN, Phase::Open | Phase::Closing) => self.guest_shutdown(header.flags),
            (packet::CREDIT_UPDATE, Phase::Open | Phase::Closing) => Outcome::Nothing,
            (packet::CREDIT_REQUEST, Phase::Open | Phase::Closing) => Outcome::Reply(packet::CREDIT_UPDATE, 0),
            _ => Outcome::Reset,
        }
    }

    /// The guest has accepted: tells the host.
    fn open(&mut self) -> Outcome {
        self.phase = Phase::Open;
        let line = format!("OK {}\n", self.ports.host);
        // The socket is fresh: a line that it does not take whole is a host that has gone.
        match send(&self.socket, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(length) if length == line.len() => Outcome::Nothing,
            _ => Outcome::Reset,
        }
    }

    fn write(&mut self, data: &[u8]) -> Outcome {
        // The guest must not send more than it has been told that there is room for (§5.10.6.3).
        if self.outgoing.len() + data.len() > BUFFER as usize {
            return Outcome::Reset;
        }
        let taken = if self.outgoing.is_empty() { self.send(data) } else { Ok(0) };
        match taken {
            Ok(taken) => self.outgoing.extend(&data[taken..]),
            Err(_) => return Outcome::Reset,
        }
        self.settle()
    }

    /// Writes as much of what waits as the socket takes.
    fn flush(&mut self) -> Outcome {
        let mut waiting = std::mem::take(&mut self.outgoing);
        while !waiting.is_empty() {
            match self.send(waiting.as_slices().0) {
                Ok(0) => break,
                Ok(taken) => drop(waiting.drain(..taken)),
                Err(_) => return Outcome::Reset,
            }
        }
        // An empty buffer gives its memory back.
        if !waiting.is_empty() {
            self.outgoing = waiting;
        }
        self.settle()
    }

    /// Writes once and counts what the socket took; 0 if it takes nothing now.
    fn send(&mut self, data: &[u8]) -> rustix::io::Result<usize> {
        match send(&self.socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) => {
                self.forwarded = self.forwarded.wrapping_add(taken as u32);
                Ok(taken)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn guest_shutdown(&mut self, flags: u32) -> Outcome {
        self.guest_ended |= flags & packet::OVER;
        if self.guest_ended & packet::NO_RECEIVE != 0 {
            // One that is closed already needs no telling.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        self.settle()
    }

    /// What is due after the guest has sent or the host has taken something.
    fn settle(&mut self) -> Outcome {
        if self.outgoing.is_empty() && self.guest_ended == packet::OVER {
            // The reset confirms the shutdown (§5.10.6.5).
            return Outcome::Reset;
        }
        if self.outgoing.is_empty() && self.guest_ended & packet::NO_SEND != 0 {
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        let untold = self.forwarded.wrapping_sub(self.told);
        if untold >= BUFFER / 2 { Outcome::Reply(packet::CREDIT_UPDATE, 0) } else { Outcome::Nothing }
    }
}
