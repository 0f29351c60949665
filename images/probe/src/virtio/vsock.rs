//! Sockets to the host (virtio 1.2 §5.10): one connection at a time.

use alloc::vec::Vec;

use super::{Buffer, Device, Error, PATIENCE_MS, Transport, kind};
use crate::{interrupt, memory};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENTS: u16 = 2;
const HEADER: usize = 44;
const BUFFERS: usize = 8;
const BUFFER_SIZE: usize = 4096;
/// Bytes that the host may send before it hears that some were taken.
const WINDOW: u32 = 64 * 1024;
const STREAM: u16 = 1;
const HOST: u64 = 2;

/// What a packet is for (§5.10.6).
#[allow(missing_docs)]
pub mod operation {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RESET: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const DATA: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A packet that came.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The host's port.
    pub host_port: u32,
    /// The guest's port.
    pub guest_port: u32,
    /// One of [`operation`].
    pub operation: u16,
    /// For [`operation::SHUTDOWN`].
    pub flags: u32,
    /// Bytes that the host keeps for this connection until its program takes them.
    pub window: u32,
    /// Bytes that the host's program has taken, modulo 2³².
    pub taken: u32,
    /// For [`operation::DATA`].
    pub data: Vec<u8>,
}

/// The vsock device.
pub struct Vsock {
    /// The device, queue 0 to receive, 1 to transmit, 2 for events.
    pub device: Device,
    cid: u64,
    buffers: &'static mut [u8],
    heads: [u16; BUFFERS],
    taken: u32,
}

impl Vsock {
    /// Brings up the device and gives it buffers to receive into.
    pub fn open() -> Result<Self, Error> {
        let device = Device::start(Transport::find(kind::VSOCK, 0)?, 0, 3)?;
        let cid = device.transport.config_u64(0);
        let buffers = memory::zeroed(BUFFERS * BUFFER_SIZE, 4096);
        let mut vsock = Self { device, cid, buffers, heads: [0; BUFFERS], taken: 0 };
        for buffer in 0..BUFFERS {
            vsock.refill(buffer);
        }
        let event = memory::zeroed(4, 4);
        vsock.device.give(EVENTS, &[Buffer::write(event)]);
        Ok(vsock)
    }

    /// Starts to count for a new connection.
    pub fn begin(&mut self) {
        self.taken = 0;
    }

    /// This guest's address.
    pub fn cid(&self) -> u64 {
        self.cid
    }

    fn refill(&mut self, buffer: usize) {
        let memory = &mut self.buffers[buffer * BUFFER_SIZE..][..BUFFER_SIZE];
        self.heads[buffer] = self.device.give(RECEIVE, &[Buffer::write(memory)]);
    }

    /// Sends a packet.
    pub fn send(&mut self, guest_port: u32, host_port: u32, operation: u16, data: &[u8]) -> Result<(), Error> {
        let mut header = [0; HEADER];
        header[0..8].copy_from_slice(&self.cid.to_le_bytes());
        header[8..16].copy_from_slice(&HOST.to_le_bytes());
        header[16..20].copy_from_slice(&guest_port.to_le_bytes());
        header[20..24].copy_from_slice(&host_port.to_le_bytes());
        header[24..28].copy_from_slice(&(data.len() as u32).to_le_bytes());
        header[28..30].copy_from_slice(&STREAM.to_le_bytes());
        header[30..32].copy_from_slice(&operation.to_le_bytes());
        if operation == operation::SHUTDOWN {
            header[32..36].copy_from_slice(&3_u32.to_le_bytes());
        }
        header[36..40].copy_from_slice(&WINDOW.to_le_bytes());
        header[40..44].copy_from_slice(&self.taken.to_le_bytes());
        let mut chain = alloc::vec![Buffer::read(&header)];
        if !data.is_empty() {
            chain.push(Buffer::read(data));
        }
        self.device.exchange(TRANSMIT, &chain)?;
        Ok(())
    }

    /// A packet that arrived.
    pub fn receive(&mut self) -> Option<Packet> {
        let (head, length) = self.device.take(RECEIVE)?;
        let buffer = self.heads.iter().position(|known| *known == head).expect("the device returns what it was given");
        let bytes = self.buffers[buffer * BUFFER_SIZE..][..length as usize].to_vec();
        self.refill(buffer);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let data = bytes[HEADER..][..u32_at(24) as usize].to_vec();
        self.taken = self.taken.wrapping_add(data.len() as u32);
        Some(Packet {
            host_port: u32_at(16),
            guest_port: u32_at(20),
            operation: u16::from_le_bytes([bytes[30], bytes[31]]),
            flags: u32_at(32),
            window: u32_at(36),
            taken: u32_at(40),
            data,
        })
    }

    /// Waits for the next packet.
    pub fn next_packet(&mut self) -> Result<Packet, Error> {
        interrupt::wait_for(PATIENCE_MS, || self.receive()).ok_or(Error::Silent(RECEIVE))
    }
}
