//! Network interfaces (virtio 1.2 §5.1).

use super::{Buffer, Device, Error, Transport, kind};
use crate::memory;

/// The hardware address is in the configuration space.
pub const MAC: u64 = 1 << 5;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// `struct virtio_net_hdr_v1`.
const HEADER: usize = 12;
const BUFFERS: usize = 16;
const BUFFER_SIZE: usize = 2048;

/// A network interface.
pub struct Net {
    /// The device, queue 0 to receive and 1 to transmit.
    pub device: Device,
    buffers: &'static mut [u8],
    heads: [u16; BUFFERS],
}

impl Net {
    /// Brings up the network interface and gives it buffers to receive into.
    pub fn open() -> Result<Self, Error> {
        let device = Device::start(Transport::find(kind::NET, 0)?, MAC, 2)?;
        let mut net = Self { device, buffers: memory::zeroed(BUFFERS * BUFFER_SIZE, 4096), heads: [0; BUFFERS] };
        for buffer in 0..BUFFERS {
            net.refill(buffer);
        }
        Ok(net)
    }

    /// The hardware address.
    pub fn mac(&self) -> [u8; 6] {
        core::array::from_fn(|byte| self.device.transport.config_u8(byte))
    }

    fn refill(&mut self, buffer: usize) {
        let memory = &mut self.buffers[buffer * BUFFER_SIZE..][..BUFFER_SIZE];
        self.heads[buffer] = self.device.give(RECEIVE, &[Buffer::write(memory)]);
    }

    /// Sends an Ethernet frame.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        let header = [0_u8; HEADER];
        self.device.exchange(TRANSMIT, &[Buffer::read(&header), Buffer::read(frame)])?;
        Ok(())
    }

    /// A frame that arrived.
    pub fn receive(&mut self) -> Option<alloc::vec::Vec<u8>> {
        let (head, length) = self.device.take(RECEIVE)?;
        let buffer = self.heads.iter().position(|known| *known == head).expect("the device returns what it was given");
        let frame = self.buffers[buffer * BUFFER_SIZE..][..length as usize][HEADER..].to_vec();
        self.refill(buffer);
        Some(frame)
    }
}
