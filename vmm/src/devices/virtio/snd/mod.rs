//! Sound device (virtio 1.2 §5.14): one stream to play, one to record.
//!
//! Time moves the streams, whoever listens: a message of the driver's is used up as long after the one before as its
//! samples last. So the guest never waits for a viewer, and a program that plays as fast as it may is as fast as the clock.
//!
//! ```text
//!            SET_PARAMS            PREPARE             START
//!   ┌──────┐ ─────────▶ ┌─────┐ ─────────▶ ┌───────┐ ────────▶ ┌─────────┐
//!   │ Idle │            │ Set │            │ Ready │           │ Running │
//!   └──────┘            └─────┘ ◀───────── └───────┘ ◀──────── └─────────┘
//!                                 RELEASE              STOP
//! ```
//!
//! Messages wait in their queue until they are due: what is not yet used of the oldest is all that must be remembered.

mod control;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use vmm_sys_util::timerfd::TimerFd;

use self::control::Status;
pub use self::stream::Stage;
use self::stream::Stream;
use super::{ConfigSpace, Device, DeviceState, Fault, Io, Kind, Queue, StateError};
use crate::display::sound::Sound;

const CONTROL_QUEUE: usize = 0;
const PLAYBACK_QUEUE: usize = 2;
const CAPTURE_QUEUE: usize = 3;
/// Of each queue.
const QUEUE_SIZE: u16 = 64;

/// How often sound moves.
const TICK: Duration = Duration::from_millis(10);

/// `struct virtio_snd_config` (§5.14.4): jacks, streams, channel maps.
const CONFIG: [u32; 3] = [0, 2, 2];

/// A sound card.
pub struct Snd {
    sound: Arc<Sound>,
    timer: TimerFd,
    armed: bool,
    playback: Stream,
    capture: Stream,
}

/// A sound card's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    playback: Stage,
    capture: Stage,
    /// Bytes of the oldest message to play that were played.
    played: u64,
}

impl Snd {
    /// A card that plays to, and records from, the clients of a display.
    pub fn new(sound: Arc<Sound>) -> io::Result<Self> {
        let timer = TimerFd::new().map_err(io::Error::from)?;
        Ok(Self { sound, timer, armed: false, playback: Stream::default(), capture: Stream::default() })
    }

    /// Answers what the driver asks.
    fn control(&mut self, io: &mut Io) -> Result<(), Fault> {
        let memory = io.queues[CONTROL_QUEUE].memory().clone();
        while let Some(mut chain) = io.queues[CONTROL_QUEUE].pop(&memory)? {
            let answer = control::answer(self, &mut chain.reader, io)?;
            let written = control::reply(&mut chain.writer, &answer)?;
            let queue = &mut io.queues[CONTROL_QUEUE];
            queue.push(chain.head, written)?;
            queue.signal()?;
        }
        self.advance(io)
    }

    /// Gives all messages of a stream back.
    fn flush(queue: &mut Queue, status: Status) -> Result<(), Fault> {
        let memory = queue.memory().clone();
        let mut flushed = false;
        for _ in 0..QUEUE_SIZE {
            let Some(mut chain) = queue.pop(&memory)? else { break };
            let written = stream::finish(&mut chain, status)?;
            queue.push(chain.head, written)?;
            flushed = true;
        }
        if flushed {
            queue.signal()?;
        }
        Ok(())
    }

    /// Moves both streams to the present, and says when to look again.
    fn advance(&mut self, io: &mut Io) -> Result<(), Fault> {
        let now = Instant::now();
        let plays = self.playback.play(&mut io.queues[PLAYBACK_QUEUE], &self.sound, now)?;
        let records = self.capture.record(&mut io.queues[CAPTURE_QUEUE], &self.sound, now)?;
        self.armed = plays || records;
        if self.armed {
            self.timer.reset(TICK, None).map_err(io::Error::from)?;
        }
        Ok(())
    }
}

impl Device for Snd {
    fn kind(&self) -> Kind {
        Kind::Sound
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 4]
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        Arc::new(Mutex::new(CONFIG.iter().flat_map(|count| count.to_le_bytes()).collect::<Vec<u8>>()))
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        match index {
            CONTROL_QUEUE => self.control(io),
            PLAYBACK_QUEUE if !self.playback.takes_messages() => Self::flush(&mut io.queues[index], Status::IoError),
            CAPTURE_QUEUE if !self.capture.takes_messages() => Self::flush(&mut io.queues[index], Status::IoError),
            // While the timer runs it looks at what came.
            PLAYBACK_QUEUE | CAPTURE_QUEUE if !self.armed => self.advance(io),
            // Buffers for events, of which there are none.
            _ => Ok(()),
        }
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        if self.armed {
            // SAFETY: the descriptor stays open for as long as the timer, which `self` holds.
            interest.push((unsafe { BorrowedFd::borrow_raw(self.timer.as_raw_fd()) }, PollFlags::IN));
        }
    }

    fn source_ready(&mut self, _index: usize, _events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        self.advance(io)
    }

    fn settle(&mut self, _io: &mut Io) -> Result<(), Fault> {
        // Time stands still while the device does.
        self.playback.hold();
        self.capture.hold();
        self.armed = false;
        Ok(())
    }

    fn reset(&mut self) {
        self.playback = Stream::default();
        self.capture = Stream::default();
        self.armed = false;
    }

    fn save(&self) -> DeviceState {
        DeviceState::Sound(State {
            playback: self.playback.stage(),
            capture: self.capture.stage(),
            played: self.playback.used(),
        })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let DeviceState::Sound(state) = state else {
            return Err(StateError(format!("{state:?} is no sound card's")));
        };
        self.playback = Stream::new(state.playback, state.played);
        self.capture = Stream::new(state.capture, 0);
        Ok(())
    }
}
