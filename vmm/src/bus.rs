//! From an address to the device that answers there. Ports and memory-mapped registers each have a bus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A device with registers. Offsets are relative to where it was put.
pub trait BusDevice: Send {
    /// Fills `data`, which is 1 to 8 bytes.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data`, which is 1 to 8 bytes.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Devices by the address they start at. Ranges never overlap.
#[derive(Default)]
pub struct Bus {
    devices: BTreeMap<u64, (u64, Arc<Mutex<dyn BusDevice>>)>,
}

impl Bus {
    /// Puts a device at `start`, `length` addresses long.
    ///
    /// # Panics
    /// If it overlaps another: the layout is ours, so that would be a mistake in this program.
    pub fn insert(&mut self, start: u64, length: u64, device: Arc<Mutex<dyn BusDevice>>) {
        assert!(self.find(start).is_none() && self.devices.range(start..start + length).next().is_none(), "{start:#x}");
        self.devices.insert(start, (length, device));
    }

    /// Reads. Where nothing is, all bits are set, as on a real bus: a guest that probes takes that for no device. Zeros
    /// would be the answer of a PCI bridge of the second kind, and Linux would look through all slots behind it.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, device)) => device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes. Where nothing is, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(u64, &Mutex<dyn BusDevice>)> {
        let (start, (length, device)) = self.devices.range(..=address).next_back()?;
        let offset = address - start;
        (offset < *length).then(|| (offset, device.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&mut self, _: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    #[test]
    fn each_address_reaches_the_device_that_covers_it_and_others_read_ones() {
        let mut bus = Bus::default();
        bus.insert(0x10, 4, Arc::new(Mutex::new(Echo(1))));
        bus.insert(0x14, 4, Arc::new(Mutex::new(Echo(100))));
        let read = |address| {
            let mut data = [0];
            bus.read(address, &mut data);
            data[0]
        };
        assert_eq!([read(0x0f), read(0x10), read(0x13), read(0x14), read(0x18)], [0xff, 1, 4, 100, 0xff]);
        bus.write(0x14, &[7]);
        bus.write(0x18, &[9]);
        assert_eq!(read(0x14), 7);
    }

    #[test]
    #[should_panic(expected = "0x12")]
    fn two_devices_at_one_address_are_a_mistake() {
        let mut bus = Bus::default();
        bus.insert(0x10, 4, Arc::new(Mutex::new(Echo(1))));
        bus.insert(0x12, 4, Arc::new(Mutex::new(Echo(1))));
    }
}
