//! What the machine plays, encoded once for all who listen, and whose microphone it hears.
//!
//! [`crate::surface`] (samples as the guest plays them) → [`Sound`] (packets of 20 ms) → [`session`] (one listener's websocket).
//! A packet is encoded only while somebody listens in that form, and not when it is silent. A listener that is slower than
//! sound loses some.

mod codec;
pub mod session;

use std::sync::{Mutex, PoisonError};

use tokio::sync::{broadcast, watch};
use tokio_tungstenite::tungstenite::Bytes;
use yunju_protocol::display::{SAMPLE_RATE, SOUND_FRAME};

use self::codec::Encoder;

/// Bytes of the samples in a packet: 20 ms.
const PACKET: usize = SAMPLE_RATE as usize / 50 * SOUND_FRAME;
/// Packets that may wait for a slow listener.
const WAITING: usize = 25;
/// Silent packets after which no more are sent: 200 ms, in which an encoder's last sounds die away.
const FADING: u32 = 10;
/// Sound that begins later than the sound before has ended by more than this, in microseconds, does not belong to it.
const GAP: u64 = 1000;

/// The form in which sound reaches a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RFC 6716, 20 ms a packet.
    Opus,
    /// 16-bit little-endian samples, left and right.
    Pcm,
}

/// The sound of one machine.
pub struct Sound {
    speaker: Mutex<Speaker>,
    opus: broadcast::Sender<Bytes>,
    pcm: broadcast::Sender<Bytes>,
    listeners: watch::Sender<usize>,
    /// Which session the machine hears; 0 is nobody.
    microphone: watch::Sender<u64>,
}

/// What is being put into packets.
#[derive(Default)]
struct Speaker {
    encoder: Option<Encoder>,
    /// Samples that make no whole packet yet, and when the first is played, in microseconds.
    samples: Vec<u8>,
    time: u64,
    silent: u32,
    /// Packets made so far, in each form.
    opus: u32,
    pcm: u32,
}

impl Default for Sound {
    fn default() -> Self {
        let packets = || broadcast::Sender::new(WAITING);
        let (listeners, microphone) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { speaker: Mutex::default(), opus: packets(), pcm: packets(), listeners, microphone }
    }
}

impl Sound {
    /// How many listen: nobody needs to play for none.
    pub fn listeners(&self) -> watch::Receiver<usize> {
        self.listeners.subscribe()
    }

    /// The machine plays whole frames, the first at `time` microseconds.
    pub fn heard(&self, time: u64, samples: &[u8]) {
        let mut speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner);
        let end = speaker.time.saturating_add(duration(speaker.samples.len()));
        if time.abs_diff(end) > GAP {
            speaker.samples.clear();
        }
        if speaker.samples.is_empty() {
            speaker.time = time;
        }
        speaker.samples.extend_from_slice(samples);
        let samples = std::mem::take(&mut speaker.samples);
        let packets = samples.chunks_exact(PACKET);
        speaker.samples = packets.remainder().to_vec();
        for packet in packets {
            self.publish(&mut speaker, packet);
            speaker.time = speaker.time.saturating_add(duration(PACKET));
        }
    }

    fn publish(&self, speaker: &mut Speaker, samples: &[u8]) {
        let silent = samples.iter().all(|byte| *byte == 0);
        speaker.silent = if silent { speaker.silent.saturating_add(1) } else { 0 };
        if speaker.silent > FADING {
            return;
        }
        // Without a listener there is nobody to tell.
        if self.pcm.receiver_count() > 0 {
            let _ = self.pcm.send(packet(&mut speaker.pcm, speaker.time, samples));
        }
        if self.opus.receiver_count() == 0 {
            // Whoever comes next hears nothing of what was.
            speaker.encoder = None;
            return;
        }
        if speaker.encoder.is_none() {
            speaker.encoder = Encoder::new();
        }
        if let Some(bytes) = speaker.encoder.as_mut().and_then(|encoder| encoder.encode(samples)) {
            let _ = self.opus.send(packet(&mut speaker.opus, speaker.time, &bytes));
        }
    }

    /// Listens from now on, in `form` if it can be had.
    fn listen(&self, form: Form) -> Listening<'_> {
        self.listeners.send_modify(|count| *count += 1);
        let form = if codec::AVAILABLE { form } else { Form::Pcm };
        let packets = match form {
            Form::Opus => self.opus.subscribe(),
            Form::Pcm => self.pcm.subscribe(),
        };
        Listening { sound: self, form, packets }
    }
}

/// Somebody who listens until this is dropped.
struct Listening<'s> {
    sound: &'s Sound,
    form: Form,
    packets: broadcast::Receiver<Bytes>,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.sound.listeners.send_modify(|count| *count -= 1);
    }
}

/// Microseconds that samples last.
fn duration(bytes: usize) -> u64 {
    (bytes / SOUND_FRAME) as u64 * 1_000_000 / u64::from(SAMPLE_RATE)
}

/// A message to a listener: number (u32), time of the first frame in microseconds (u64), both big-endian, then the sound.
fn packet(number: &mut u32, time: u64, sound: &[u8]) -> Bytes {
    let message = [&number.to_be_bytes()[..], &time.to_be_bytes(), sound].concat();
    *number = number.wrapping_add(1);
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers, times and sound of all that has been published.
    fn packets(listening: &mut Listening<'_>) -> Vec<(u32, u64, Vec<u8>)> {
        let received = std::iter::from_fn(|| listening.packets.try_recv().ok());
        let parts = received.map(|bytes| {
            let (number, rest) = bytes.split_at(4);
            let (time, sound) = rest.split_at(8);
            let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
            (number, u64::from_be_bytes(time.try_into().expect("eight bytes")), sound.to_vec())
        });
        parts.collect()
    }

    #[test]
    fn packets_have_twenty_milliseconds_and_the_time_of_their_first_frame() {
        let sound = Sound::default();
        let mut listening = sound.listen(Form::Pcm);
        let samples: Vec<u8> = (0..3 * PACKET).map(|at| (at % 250) as u8 + 1).collect();
        for (index, piece) in samples.chunks(1000).enumerate() {
            sound.heard(5000 + duration(index * 1000), piece);
        }
        let heard = packets(&mut listening);
        let times: Vec<_> = heard.iter().map(|(number, time, _)| (*number, *time)).collect();
        assert_eq!(times, [(0, 5000), (1, 25_000), (2, 45_000)]);
        assert!(heard.iter().flat_map(|(_, _, sound)| sound).eq(&samples));
    }

    #[test]
    fn sound_after_a_gap_begins_a_new_packet() {
        let sound = Sound::default();
        let mut listening = sound.listen(Form::Pcm);
        sound.heard(0, &[1; PACKET - 4]);
        sound.heard(1_000_000, &[2; PACKET]);
        assert_eq!(packets(&mut listening), [(0, 1_000_000, vec![2; PACKET])]);
        // A machine that was restored begins anew, too.
        sound.heard(7, &[3; PACKET]);
        assert_eq!(packets(&mut listening), [(1, 7, vec![3; PACKET])]);
        sound.heard(u64::MAX, &[3; 2 * PACKET]);
        assert_eq!(packets(&mut listening).len(), 2);
    }

    #[test]
    fn silence_is_not_sent_for_long_and_its_end_is_heard_at_once() {
        let sound = Sound::default();
        let mut listening = sound.listen(Form::Pcm);
        let mut time = 0;
        let mut play = |value| {
            sound.heard(time, &[value; PACKET]);
            time += 20_000;
            packets(&mut listening).len()
        };
        assert_eq!((0..100).map(|_| play(0)).sum::<usize>(), FADING as usize);
        assert_eq!(play(1), 1);
        assert_eq!((0..100).map(|_| play(0)).sum::<usize>(), FADING as usize);
    }

    #[test]
    fn nothing_is_encoded_for_nobody_and_a_slow_listener_loses_the_oldest() {
        let sound = Sound::default();
        sound.heard(0, &[1; 2 * PACKET]);
        let speaker =
            |sound: &Sound| sound.speaker.lock().map(|speaker| (speaker.opus, speaker.pcm)).expect("no panic");
        assert_eq!((speaker(&sound), *sound.listeners().borrow()), ((0, 0), 0));
        let mut listening = sound.listen(Form::Pcm);
        assert_eq!(*sound.listeners().borrow(), 1);
        sound.heard(40_000, &[1; 100 * PACKET]);
        assert_eq!(speaker(&sound), (0, 100));
        assert!(matches!(listening.packets.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        assert!(packets(&mut listening).len() < 40);
        drop(listening);
        assert_eq!(*sound.listeners().borrow(), 0);
    }

    #[cfg(feature = "opus")]
    #[test]
    fn opus_is_encoded_once_for_all_and_sounds_like_what_was_played() {
        let sound = Sound::default();
        let mut listening = [sound.listen(Form::Opus), sound.listen(Form::Opus)];
        let tone = |frame: u32| (f64::from(frame) * 440.0 * std::f64::consts::TAU / 48_000.0).sin() * 12_000.0;
        let samples: Vec<u8> = (0..24_000).flat_map(|frame| [(tone(frame) as i16).to_le_bytes(); 2].concat()).collect();
        sound.heard(0, &samples);
        let [first, second] = listening.each_mut().map(packets);
        assert_eq!((first.len(), &first), (25, &second));
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).expect("a decoder");
        let mut decoded = Vec::new();
        for (_, _, bytes) in &first {
            assert!(bytes.len() < PACKET / 5, "{} bytes", bytes.len());
            let mut frame = [0; 1920];
            assert_eq!(decoder.decode(bytes, &mut frame, false).expect("a packet"), 960);
            decoded.extend(frame.chunks(2).map(|frame| f64::from(frame[0])));
        }
        // Zero crossings of a second half that has settled: 440 Hz for 0.25 s.
        let crossings = decoded[12_000..].windows(2).filter(|pair| pair[0] <= 0.0 && pair[1] > 0.0).count();
        assert!((109..=111).contains(&crossings), "{crossings}");
    }
}
