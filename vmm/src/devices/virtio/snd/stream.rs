//! A stream of samples and the clock that moves it.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vm_memory::Le32;
use yunju_protocol::display::SAMPLE_RATE;

use super::QUEUE_SIZE;
use super::control::Status;
use crate::devices::virtio::{Chain, Fault, Queue};
use crate::display::sound::Sound;

/// Of the stream to play, and of the one to record.
pub const CHANNELS: [u8; 2] = [2, 1];
/// Bytes of what is played at one time, and of what is recorded.
const PLAYED_FRAME: u64 = 4;
const RECORDED_FRAME: u64 = 2;

/// `struct virtio_snd_pcm_status` (§5.14.6.8): status, bytes of latency.
const STATUS_SIZE: usize = 8;

/// A host that was late by more does not catch up: what was missed is.
const LATE: Duration = Duration::from_millis(100);

/// Samples that are recorded at once.
const PIECE: usize = 4096;

/// Where a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing is known of it.
    #[default]
    Idle,
    /// Its form is.
    Set,
    /// It takes messages.
    Ready,
    /// It moves.
    Running,
}

/// Frames that have passed since it began to move.
#[derive(Debug, Clone, Copy)]
struct Clock {
    since: Instant,
    frames: u64,
}

impl Clock {
    /// Frames that are due. What is further back than `late` is forgotten.
    fn due(&mut self, now: Instant, late: Duration) -> u64 {
        let behind = now.saturating_duration_since(self.position());
        if behind > late {
            self.since += behind - late;
        }
        frames(now.saturating_duration_since(self.since)).saturating_sub(self.frames)
    }

    /// When the next frame is due.
    fn position(&self) -> Instant {
        self.since + duration(self.frames)
    }
}

fn frames(time: Duration) -> u64 {
    // More than a stream ever lives in 64 bits.
    (time.as_nanos() * u128::from(SAMPLE_RATE) / 1_000_000_000) as u64
}

fn duration(frames: u64) -> Duration {
    let seconds = frames / u64::from(SAMPLE_RATE);
    let rest = frames % u64::from(SAMPLE_RATE);
    Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / u64::from(SAMPLE_RATE))
}

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    stage: Stage,
    /// There is one while the stream moves and messages come.
    clock: Option<Clock>,
    /// Bytes of the oldest message that were used.
    used: u64,
}

impl Stream {
    /// A stream as it was left.
    pub fn new(stage: Stage, used: u64) -> Self {
        Self { stage, clock: None, used }
    }

    /// Where it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Bytes of the oldest message that were used.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether messages may wait in its queue.
    pub fn takes_messages(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Running)
    }

    /// Goes to a stage that it can be reached from.
    pub fn to(&mut self, stage: Stage, from: &[Stage]) -> Status {
        if !from.contains(&self.stage) {
            return Status::NotSupported;
        }
        self.stage = stage;
        self.clock = None;
        Status::Ok
    }

    /// Begins the oldest message anew.
    pub fn rewind(&mut self) {
        self.used = 0;
    }

    /// Its time stands still until it is moved again.
    pub fn hold(&mut self) {
        self.clock = None;
    }

    /// Whether it moves. Its time begins with the first message, and anew whenever there was none.
    fn moves(&mut self, queue: &Queue, now: Instant) -> Result<bool, Fault> {
        if self.stage == Stage::Running && self.clock.is_none() && queue.has_chain()? {
            self.clock = Some(Clock { since: now, frames: 0 });
        }
        Ok(self.clock.is_some())
    }

    /// Plays what is due; whether there is more to wait for.
    pub fn play(&mut self, queue: &mut Queue, sound: &Sound, now: Instant) -> Result<bool, Fault> {
        if !self.moves(queue, now)? {
            return Ok(false);
        }
        let Some(clock) = &mut self.clock else { return Ok(false) };
        let due = clock.due(now, LATE) * PLAYED_FRAME;
        let memory = queue.memory().clone();
        let (mut samples, mut given, mut starved) = (Vec::new(), false, false);
        for _ in 0..QUEUE_SIZE {
            let missing = due.saturating_sub(samples.len() as u64);
            if missing == 0 {
                break;
            }
            let Some(mut chain) = queue.pop(&memory)? else {
                starved = true;
                break;
            };
            match use_up(&mut chain, self.used, missing, &mut samples)? {
                Use::Part(used) => {
                    queue.unpop();
                    self.used = used;
                    break;
                }
                Use::All(status) => {
                    self.used = 0;
                    let written = finish(&mut chain, status)?;
                    queue.push(chain.head, written)?;
                    given = true;
                }
            }
        }
        if given {
            queue.signal()?;
        }
        samples.truncate(samples.len() - samples.len() % PLAYED_FRAME as usize);
        sound.play(clock.position(), &samples);
        clock.frames += samples.len() as u64 / PLAYED_FRAME;
        if starved {
            self.clock = None;
        }
        Ok(!starved)
    }

    /// Records what is due; whether there is more to wait for. A message is given back when it is full.
    pub fn record(&mut self, queue: &mut Queue, sound: &Sound, now: Instant) -> Result<bool, Fault> {
        if !self.moves(queue, now)? {
            return Ok(false);
        }
        let Some(clock) = &mut self.clock else { return Ok(false) };
        let memory = queue.memory().clone();
        let (mut given, mut starved) = (false, false);
        for _ in 0..QUEUE_SIZE {
            let Some(mut chain) = queue.pop(&memory)? else {
                starved = true;
                break;
            };
            let length = chain.writer.available_bytes().saturating_sub(STATUS_SIZE) as u64;
            let frames = length / RECORDED_FRAME;
            if clock.due(now, LATE.max(duration(frames))) < frames {
                queue.unpop();
                break;
            }
            let good = stream_of(&mut chain) == Some(1) && length > 0;
            let written = if good {
                fill(&mut chain, length, sound)?;
                clock.frames += frames;
                finish(&mut chain, Status::Ok)?
            } else {
                finish(&mut chain, Status::BadMessage)?
            };
            // Written bytes are as many as the chain has room for: a chain is shorter than 4 GiB.
            queue.push(chain.head, written + if good { length as u32 } else { 0 })?;
            given = true;
        }
        if given {
            queue.signal()?;
        }
        if starved {
            self.clock = None;
        }
        Ok(!starved)
    }
}

/// What became of a message.
enum Use {
    /// So many bytes of it are used.
    Part(u64),
    /// It can be given back.
    All(Status),
}

/// The stream that a message is for (`struct virtio_snd_pcm_xfer`).
fn stream_of(chain: &mut Chain<'_>) -> Option<u32> {
    chain.reader.read_obj::<Le32>().ok().map(u32::from)
}

/// Appends at most `most` bytes of a message, `used` of which were used before.
fn use_up(chain: &mut Chain<'_>, used: u64, most: u64, samples: &mut Vec<u8>) -> Result<Use, Fault> {
    if stream_of(chain) != Some(0) {
        return Ok(Use::All(Status::BadMessage));
    }
    let length = chain.reader.available_bytes() as u64;
    let used = used.min(length);
    let Ok(rest) = chain.reader.split_at(used as usize) else {
        return Ok(Use::All(Status::BadMessage));
    };
    let taken = most.min(length - used);
    rest.take(taken).read_to_end(samples)?;
    Ok(if used + taken == length { Use::All(Status::Ok) } else { Use::Part(used + taken) })
}

/// Writes what a microphone hears, or silence.
fn fill(chain: &mut Chain<'_>, length: u64, sound: &Sound) -> Result<(), Fault> {
    let mut left = length;
    while left > 0 {
        let mut piece = [0; PIECE];
        let piece = &mut piece[..left.min(PIECE as u64) as usize];
        sound.record(piece);
        chain.writer.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

/// Ends a message: its last bytes are the status. How many were written of those.
pub fn finish(chain: &mut Chain<'_>, status: Status) -> Result<u32, Fault> {
    let room = chain.writer.available_bytes();
    let Some(before) = room.checked_sub(STATUS_SIZE) else { return Ok(0) };
    let Ok(mut last) = chain.writer.split_at(before) else { return Ok(0) };
    last.write_all(&(u64::from(status as u32)).to_le_bytes())?;
    Ok(STATUS_SIZE as u32)
}
