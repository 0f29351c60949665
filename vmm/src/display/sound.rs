//! Sound on its way between the guest and the clients of its display.
//!
//! What is played is kept for an instant, for clients that read late; whoever is later loses it. What a microphone hears
//! waits a moment before the guest is given it, so that it arrives evenly.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmm_sys_util::eventfd::EventFd;
use yunju_protocol::display::{MAX_SOUND, MICROPHONE_FRAME, SAMPLE_RATE, SOUND_FRAME};

/// Pieces that are kept for clients: 320 ms if each comes in time.
const KEPT: usize = 32;

/// Bytes of a microphone that are waited for before the first are handed on, and most that wait: 60 and 200 ms.
const AHEAD: usize = SAMPLE_RATE as usize * 60 / 1000 * MICROPHONE_FRAME;
/// See [`AHEAD`].
const MOST: usize = SAMPLE_RATE as usize * 200 / 1000 * MICROPHONE_FRAME;

/// Some of what is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Microseconds since the display was made.
    pub time: u64,
    /// As in [`yunju_protocol::display::Event::Sound`].
    pub samples: Vec<u8>,
}

/// The sound of one machine.
pub struct Sound {
    begun: Instant,
    listeners: AtomicU32,
    state: Mutex<State>,
    changed: EventFd,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// How many pieces there were before those that are kept.
    before: u64,
    microphone: VecDeque<u8>,
    /// Whether what the microphone hears is handed on.
    flows: bool,
}

impl Sound {
    /// Silence. `changed` is signalled when there is something to listen to.
    pub fn new(changed: EventFd) -> Self {
        Self { begun: Instant::now(), listeners: AtomicU32::new(0), state: Mutex::default(), changed }
    }

    /// The guest plays, the first of `samples` at `time`.
    pub fn play(&self, time: Instant, samples: &[u8]) {
        if samples.is_empty() || self.listeners.load(Ordering::Relaxed) == 0 {
            return;
        }
        // In microseconds 64 bits last for longer than a machine.
        let time = time.saturating_duration_since(self.begun).as_micros() as u64;
        let mut state = self.state();
        for (index, samples) in (0..).zip(samples.chunks(MAX_SOUND)) {
            let later = index * (MAX_SOUND / SOUND_FRAME) as u64 * 1_000_000 / u64::from(SAMPLE_RATE);
            state.pieces.push_back(Piece { time: time + later, samples: samples.to_vec() });
        }
        while state.pieces.len() > KEPT {
            state.pieces.pop_front();
            state.before += 1;
        }
        drop(state);
        // A full counter has already woken the thread.
        let _ = self.changed.write(1);
    }

    /// Fills `samples` with what a microphone heard, or silence.
    pub fn record(&self, samples: &mut [u8]) {
        let mut state = self.state();
        state.flows |= state.microphone.len() >= AHEAD;
        let heard = if state.flows { samples.len().min(state.microphone.len()) } else { 0 };
        state.flows &= heard == samples.len();
        samples[heard..].fill(0);
        samples.iter_mut().zip(state.microphone.drain(..heard)).for_each(|(sample, byte)| *sample = byte);
    }

    /// What was heard before now is not recorded.
    pub fn forget_microphone(&self) {
        let mut state = self.state();
        state.microphone.clear();
        state.flows = false;
    }

    /// A client's microphone has heard something: whole samples.
    pub fn hear(&self, samples: &[u8]) {
        let mut state = self.state();
        state.microphone.extend(samples);
        if state.microphone.len() > MOST {
            let old = state.microphone.len() - AHEAD;
            state.microphone.drain(..old);
        }
    }

    /// A client listens; the number of the next piece.
    pub(crate) fn enter(&self) -> u64 {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let state = self.state();
        state.before + state.pieces.len() as u64
    }

    /// A client listens no more.
    pub(crate) fn leave(&self) {
        if self.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut state = self.state();
            state.before += state.pieces.len() as u64;
            state.pieces.clear();
        }
    }

    /// The first piece that is kept, from number `next` on, and its number.
    pub(crate) fn piece(&self, next: u64) -> Option<(u64, Piece)> {
        let state = self.state();
        let number = next.max(state.before);
        let piece = state.pieces.get(usize::try_from(number - state.before).ok()?)?;
        Some((number, piece.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it whole: a thread that panicked has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Sound {
        Sound::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn a_late_listener_loses_what_is_no_longer_kept_and_nobody_is_waited_for() {
        let sound = sound();
        sound.play(Instant::now(), &[1; 8]);
        assert_eq!(sound.piece(0), None, "nobody listened");
        let next = sound.enter();
        for value in 0..KEPT as u8 + 3 {
            sound.play(sound.begun, &[value; 4]);
        }
        let (number, piece) = sound.piece(next).unwrap();
        assert_eq!((number, piece.samples), (3, vec![3; 4]));
        assert_eq!(sound.piece(KEPT as u64 + 3), None);
        sound.leave();
        assert_eq!(sound.piece(next), None);
    }

    #[test]
    fn long_sound_is_cut_into_pieces_with_times_of_their_own() {
        let sound = sound();
        sound.enter();
        sound.play(sound.begun, &vec![7; MAX_SOUND + 8]);
        let times: Vec<_> = (0..2).map(|number| sound.piece(number).unwrap().1.time).collect();
        assert_eq!(times, [0, (MAX_SOUND / SOUND_FRAME) as u64 * 1_000_000 / 48_000]);
        assert_eq!(sound.piece(1).unwrap().1.samples.len(), 8);
    }

    #[test]
    fn a_microphone_is_heard_evenly_and_with_a_bounded_delay() {
        let sound = sound();
        let mut recorded = [9; 64];
        sound.hear(&[1; 64]);
        sound.record(&mut recorded);
        assert_eq!(recorded, [0; 64], "too little to begin");
        sound.hear(&vec![2; AHEAD]);
        sound.record(&mut recorded);
        assert_eq!(recorded, [1; 64]);
        sound.hear(&vec![3; 4 * MOST]);
        assert_eq!(sound.state().microphone.len(), AHEAD);
        let mut all = vec![9; AHEAD + 10];
        sound.record(&mut all);
        assert!(all[..AHEAD] == vec![3; AHEAD] && all[AHEAD..] == [0; 10], "then silence until enough waits again");
        sound.hear(&[4; 64]);
        sound.record(&mut recorded);
        assert_eq!(recorded, [0; 64]);
    }
}
