//! Entropy (virtio 1.2 §5.4).

use super::{Buffer, Device, Error, Transport, kind};

/// An entropy source.
pub struct Rng {
    /// The device, queue 0 for requests.
    pub device: Device,
}

impl Rng {
    /// Brings up the entropy source.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { device: Device::start(Transport::find(kind::RNG, 0)?, 0, 1)? })
    }

    /// Fills the start of `bytes` and returns how many it filled.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        Ok(self.device.exchange(0, &[Buffer::write(bytes)])? as usize)
    }
}
