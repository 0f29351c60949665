//! Sound cards (virtio 1.2 §5.14).

use alloc::vec::Vec;

use super::{Buffer, Device, Error, Transport, kind};
use crate::interrupt;

const CONTROL: u16 = 0;

const SET_PARAMS: u32 = 0x101;
const PREPARE: u32 = 0x102;
const RELEASE: u32 = 0x103;
const START: u32 = 0x104;
const STOP: u32 = 0x105;
const OK: u32 = 0x8000;

/// `VIRTIO_SND_PCM_FMT_S16` and `VIRTIO_SND_PCM_RATE_48000`.
const S16: u8 = 5;
const RATE_48000: u8 = 7;

/// How long the next message may take to come back.
const PATIENCE_MS: u32 = 10_000;

/// A sound card.
pub struct Card {
    /// The device, queues: control, events, to play, to record.
    pub device: Device,
}

/// A stream that runs, with the messages that the device has, oldest first.
pub struct Stream<'c> {
    card: &'c mut Card,
    id: u32,
    with_device: Vec<(u16, Message)>,
}

/// A message to play or to record into; its parts stay where they are while the device has it.
struct Message {
    samples: Vec<i16>,
    status: Vec<u32>,
}

impl Card {
    /// Brings up the sound card.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { device: Device::start(Transport::find(kind::SOUND, 0)?, 0, 4)? })
    }

    fn ask(&mut self, request: &[u32]) -> Result<(), Error> {
        let mut status = 0_u32;
        self.device.exchange(CONTROL, &[Buffer::read(request), Buffer::write(&mut status)])?;
        // The device wrote it behind the compiler's back.
        match core::hint::black_box(status) {
            OK => Ok(()),
            other => Err(Error::Refused(other)),
        }
    }

    /// Starts stream 0 to play in stereo, or 1 to record in mono.
    pub fn start(&mut self, id: u32) -> Result<Stream<'_>, Error> {
        let channels = if id == 0 { 2 } else { 1 };
        let shape = u32::from_le_bytes([channels, S16, RATE_48000, 0]);
        self.ask(&[SET_PARAMS, id, 16 * 1920, 1920, 0, shape])?;
        self.ask(&[PREPARE, id])?;
        self.ask(&[START, id])?;
        Ok(Stream { card: self, id, with_device: Vec::new() })
    }
}

impl Stream<'_> {
    fn queue(&self) -> u16 {
        if self.id == 0 { 2 } else { 3 }
    }

    /// Hands samples to the device, to be played or to be recorded over.
    pub fn give(&mut self, samples: Vec<i16>) {
        let mut message = Message { samples, status: alloc::vec![0; 2] };
        let middle = match self.id {
            0 => Buffer::read(message.samples.as_slice()),
            _ => Buffer::write(message.samples.as_mut_slice()),
        };
        let chain = [Buffer::read(&self.id), middle, Buffer::write(message.status.as_mut_slice())];
        let head = self.card.device.give(self.queue(), &chain);
        self.with_device.push((head, message));
    }

    /// How many messages the device has.
    pub fn waiting(&self) -> usize {
        self.with_device.len()
    }

    /// Waits until the oldest message comes back, and returns its samples.
    pub fn take(&mut self) -> Result<Vec<i16>, Error> {
        let queue = self.queue();
        let (back, _) =
            interrupt::wait_for(PATIENCE_MS, || self.card.device.take(queue)).ok_or(Error::Silent(queue))?;
        let (head, message) = self.with_device.remove(0);
        if back != head {
            return Err(Error::Nonsense(u32::from(back)));
        }
        match core::hint::black_box(message.status)[0] {
            OK => Ok(core::hint::black_box(message.samples)),
            other => Err(Error::Refused(other)),
        }
    }

    /// Stops, and takes back what is left.
    pub fn end(mut self) -> Result<(), Error> {
        self.card.ask(&[STOP, self.id])?;
        self.card.ask(&[RELEASE, self.id])?;
        while self.waiting() > 0 {
            self.take()?;
        }
        Ok(())
    }
}
