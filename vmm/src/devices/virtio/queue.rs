//! A running queue: takes descriptor chains from the driver, gives them back, interrupts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT, Reader, Writer};
use vmm_sys_util::eventfd::EventFd;

use super::Fault;
use crate::memory::GuestMemory;

/// Bits of the `InterruptStatus` register (virtio 1.2 §4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// The device's interrupt line and its cause.
#[derive(Clone)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    line: Arc<EventFd>,
}

impl Interrupt {
    /// An interrupt that writes to `line`, which KVM turns into an edge.
    pub fn new(line: EventFd) -> Self {
        Self { status: Arc::default(), line: Arc::new(line) }
    }

    /// The configuration space has changed.
    pub fn config_changed(&self) -> io::Result<()> {
        self.raise(CONFIG_CHANGE)
    }

    fn raise(&self, cause: u32) -> io::Result<()> {
        self.status.fetch_or(cause, Ordering::SeqCst);
        self.line.write(1)
    }

    /// Interrupts again for what is in the register.
    pub fn repeat(&self) -> io::Result<()> {
        self.line.write(1)
    }

    /// The `InterruptStatus` register.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// A write to the `InterruptACK` register.
    pub fn acknowledge(&self, causes: u32) {
        self.status.fetch_and(!causes, Ordering::SeqCst);
    }

    /// Sets the register, for a restored machine.
    pub fn set_status(&self, status: u32) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// A chain of descriptors that the driver made available.
pub struct Chain<'m> {
    /// Names the chain when it is given back.
    pub head: u16,
    /// What the driver wrote for the device.
    pub reader: Reader<'m>,
    /// What the device may write for the driver.
    pub writer: Writer<'m>,
}

/// One virtqueue with its notification, while the device runs.
pub struct Queue {
    pub(super) ring: virtio_queue::Queue,
    pub(super) kick: EventFd,
    memory: Arc<GuestMemory>,
    interrupt: Interrupt,
}

impl Queue {
    /// A queue whose ring lies in `memory`; the driver's notifications arrive at `kick`.
    pub fn new(ring: virtio_queue::Queue, kick: EventFd, memory: Arc<GuestMemory>, interrupt: Interrupt) -> Self {
        Self { ring, kick, memory, interrupt }
    }

    /// Guest memory. Take a clone of the `Arc` where a chain is used while the queue is.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The next chain, if there is one. `memory` is this queue's.
    ///
    /// A ring index that jumped further than the ring is long is a fault. A chain with an address
    /// outside memory is given back unused, and the one after it taken.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, Fault> {
        self.pop_with(memory, |head, chain| {
            let (reader, writer) = (Reader::new(memory, chain.clone()).ok()?, Writer::new(memory, chain).ok()?);
            Some(Chain { head, reader, writer })
        })
    }

    /// The same for a device that walks the descriptors itself: what `take` makes of the next chain. One of which it
    /// makes nothing is given back unused.
    pub fn pop_with<'m, T>(
        &mut self,
        memory: &'m GuestMemory,
        mut take: impl FnMut(u16, DescriptorChain<&'m GuestMemory>) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        if !self.ring.ready() {
            return Ok(None);
        }
        loop {
            let Some(chain) = self.ring.iter(memory)?.next() else {
                return Ok(None);
            };
            let head = chain.head_index();
            match take(head, chain) {
                Some(taken) => return Ok(Some(taken)),
                None => self.push(head, 0)?,
            }
        }
    }

    /// Puts the chain taken last back, to be taken again.
    pub fn unpop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Whether the driver has made a chain available.
    pub fn has_chain(&self) -> Result<bool, Fault> {
        if !self.ring.ready() {
            return Ok(false);
        }
        let available = self.ring.avail_idx(&*self.memory, Ordering::Acquire)?;
        Ok(available.0 != self.ring.next_avail())
    }

    /// Gives a chain back with `written` bytes in it. The driver learns of it at the next [`Queue::signal`].
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), Fault> {
        Ok(self.ring.add_used(&*self.memory, head, written)?)
    }

    /// Interrupts the driver if it wants to know of what was given back.
    pub fn signal(&mut self) -> Result<(), Fault> {
        if self.ring.needs_notification(&*self.memory)? {
            self.interrupt.raise(USED_BUFFER)?;
        }
        Ok(())
    }

    /// Asks the driver to notify of the next chain. True if one came meanwhile and must be taken first.
    pub fn rearm(&mut self) -> Result<bool, Fault> {
        if !self.ring.ready() {
            return Ok(false);
        }
        Ok(self.ring.enable_notification(&*self.memory)?)
    }

    /// How many chains have been taken, modulo 2¹⁶.
    pub(super) fn position(&self) -> u16 {
        self.ring.next_avail()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::rng::Rng;
    use super::super::testing::{Driver, INDIRECT, MEMORY, NEXT, WRITE};
    use super::*;

    /// What a device reads from the next chain, and how much it may write.
    fn take(driver: &mut Driver) -> Option<(Vec<u8>, usize)> {
        let memory = driver.memory.clone();
        let mut chain = driver.io.queues[0].pop(&memory).unwrap()?;
        let mut bytes = Vec::new();
        chain.reader.read_to_end(&mut bytes).unwrap();
        Some((bytes, chain.writer.available_bytes()))
    }

    #[test]
    fn an_indirect_chain_is_read_like_a_direct_one() {
        let mut driver = Driver::new(&Rng::new());
        let text = driver.place(b"text");
        let mut table = Vec::new();
        for (address, length, flags, next) in [(text, 4u32, NEXT, 1u16), (text, 4, WRITE, 0)] {
            table.extend(address.to_le_bytes());
            table.extend(length.to_le_bytes());
            table.extend(flags.to_le_bytes());
            table.extend(next.to_le_bytes());
        }
        let at = driver.place(&table);
        driver.send_raw(0, &[(at, 32, INDIRECT)]);
        assert_eq!(take(&mut driver), Some((b"text".to_vec(), 4)));
        // A table whose length is no multiple of an entry, or that lies outside memory, holds nothing.
        for (address, length) in [(at, 31), (MEMORY, 32), (u64::MAX - 8, 32)] {
            driver.send_raw(0, &[(address, length, INDIRECT)]);
            assert_eq!(take(&mut driver), Some((Vec::new(), 0)));
        }
    }

    #[test]
    fn a_chain_that_goes_round_in_circles_ends() {
        let mut driver = Driver::new(&Rng::new());
        let text = driver.place(b"x");
        driver.descriptor(0, 0, (text, 1, NEXT, 1));
        driver.descriptor(0, 1, (text, 1, NEXT, 0));
        driver.offer(0, 0);
        let (bytes, _) = take(&mut driver).unwrap();
        assert!(bytes.len() <= 64, "at most as many descriptors as the ring has: {}", bytes.len());
    }

    #[test]
    fn a_chain_outside_memory_is_given_back_and_the_next_one_taken() {
        let mut driver = Driver::new(&Rng::new());
        driver.send_raw(0, &[(MEMORY - 2, 4, 0)]);
        driver.send(0, &[b"good"], &[]);
        assert_eq!(take(&mut driver), Some((b"good".to_vec(), 0)));
        assert_eq!(driver.used(0), Some((0, 0)));
    }

    #[test]
    fn an_index_that_jumped_further_than_the_ring_is_long_is_a_fault() {
        let mut driver = Driver::new(&Rng::new());
        driver.set_available_index(0, 65);
        let memory = driver.memory.clone();
        assert!(matches!(driver.io.queues[0].pop(&memory), Err(Fault::Queue(_))));
    }
}
