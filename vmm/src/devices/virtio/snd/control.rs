//! What the driver asks on the control queue (virtio 1.2 §5.14.6).

use std::io::{self, Write};

use virtio_queue::{Reader, Writer};
use vm_memory::Le32;

use super::stream::{CHANNELS, Stage};
use super::{CAPTURE_QUEUE, PLAYBACK_QUEUE, Snd};
use crate::devices::virtio::{Fault, Io};

const JACK_INFO: u32 = 1;
const PCM_INFO: u32 = 0x100;
const PCM_SET_PARAMS: u32 = 0x101;
const PCM_PREPARE: u32 = 0x102;
const PCM_RELEASE: u32 = 0x103;
const PCM_START: u32 = 0x104;
const PCM_STOP: u32 = 0x105;
const CHMAP_INFO: u32 = 0x200;

/// `VIRTIO_SND_PCM_FMT_S16`, little-endian as all of virtio.
const S16: u8 = 5;
/// `VIRTIO_SND_PCM_RATE_48000`.
const RATE_48000: u8 = 7;

const MONO: u8 = 2;
const FRONT_LEFT: u8 = 3;
const FRONT_RIGHT: u8 = 4;

/// Bytes of `struct virtio_snd_jack_info`, `virtio_snd_pcm_info` and `virtio_snd_chmap_info`.
const JACK_INFO_SIZE: usize = 24;
const PCM_INFO_SIZE: usize = 32;
const CHMAP_INFO_SIZE: usize = 24;

/// How a request or message ended (§5.14.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// As asked.
    Ok = 0x8000,
    /// It makes no sense.
    BadMessage = 0x8001,
    /// It makes sense, and this card cannot do it.
    NotSupported = 0x8002,
    /// It does not belong to a stream that takes it.
    IoError = 0x8003,
}

/// Does what the next request says; the bytes of the answer, status first.
pub fn answer(card: &mut Snd, request: &mut Reader<'_>, io: &mut Io) -> Result<Vec<u8>, Fault> {
    let words = words(request)?;
    let [code, rest @ ..] = words.as_slice() else { return Ok(bytes(Status::BadMessage)) };
    Ok(match *code {
        JACK_INFO => infos(rest, 0, |_| [0; JACK_INFO_SIZE]),
        PCM_INFO => infos(rest, 2, pcm_info),
        CHMAP_INFO => infos(rest, 2, chmap_info),
        PCM_SET_PARAMS => bytes(set_params(card, rest)),
        PCM_PREPARE | PCM_RELEASE | PCM_START | PCM_STOP => bytes(change(card, *code, rest, io)?),
        _ => bytes(Status::NotSupported),
    })
}

/// Writes an answer, or that there is no room for it, and tells how long it is.
pub fn reply(writer: &mut Writer<'_>, answer: &[u8]) -> io::Result<u32> {
    let room = writer.available_bytes();
    let refusal = bytes(Status::BadMessage);
    let answer = if answer.len() > room { &refusal } else { answer };
    if answer.len() > room {
        return Ok(0);
    }
    writer.write_all(answer)?;
    // Two infos at most.
    Ok(answer.len() as u32)
}

/// The words of a request; none is longer than six.
fn words(request: &mut Reader<'_>) -> io::Result<Vec<u32>> {
    (0..6.min(request.available_bytes() / 4)).map(|_| Ok(u32::from(request.read_obj::<Le32>()?))).collect()
}

fn bytes(status: Status) -> Vec<u8> {
    (status as u32).to_le_bytes().to_vec()
}

/// Answers `struct virtio_snd_query_info`: first one, how many, bytes of each.
fn infos<const SIZE: usize>(request: &[u32], there: u32, info: impl Fn(bool) -> [u8; SIZE]) -> Vec<u8> {
    let &[first, count, size, ..] = request else { return bytes(Status::BadMessage) };
    if u64::from(first) + u64::from(count) > u64::from(there) || size as usize != SIZE {
        return bytes(Status::BadMessage);
    }
    let infos = (first..first + count).flat_map(|id| info(id == 0));
    bytes(Status::Ok).into_iter().chain(infos).collect()
}

/// `struct virtio_snd_pcm_info`: node, features, formats, rates, direction, least and most channels.
fn pcm_info(plays: bool) -> [u8; PCM_INFO_SIZE] {
    let mut info = [0; PCM_INFO_SIZE];
    info[8..16].copy_from_slice(&(1u64 << S16).to_le_bytes());
    info[16..24].copy_from_slice(&(1u64 << RATE_48000).to_le_bytes());
    let channels = CHANNELS[usize::from(!plays)];
    info[24..27].copy_from_slice(&[u8::from(!plays), channels, channels]);
    info
}

/// `struct virtio_snd_chmap_info`: node, direction, channels, where each is.
fn chmap_info(plays: bool) -> [u8; CHMAP_INFO_SIZE] {
    let mut info = [0; CHMAP_INFO_SIZE];
    let places: &[u8] = if plays { &[0, 2, FRONT_LEFT, FRONT_RIGHT] } else { &[1, 1, MONO] };
    info[4..4 + places.len()].copy_from_slice(places);
    info
}

/// `struct virtio_snd_pcm_set_params`: stream, bytes of the buffer, bytes of a period, features, then a byte each: channels,
/// format, rate.
fn set_params(card: &mut Snd, request: &[u32]) -> Status {
    let &[id @ 0..2, buffer, period, features, shape] = request else { return Status::BadMessage };
    if period == 0 || buffer < period {
        return Status::BadMessage;
    }
    let [channels, format, rate, _] = shape.to_le_bytes();
    if features != 0 || (channels, format, rate) != (CHANNELS[id as usize], S16, RATE_48000) {
        return Status::NotSupported;
    }
    let stream = if id == 0 { &mut card.playback } else { &mut card.capture };
    stream.to(Stage::Set, &[Stage::Idle, Stage::Set, Stage::Ready])
}

/// `struct virtio_snd_pcm_hdr`: a stream and where it goes.
fn change(card: &mut Snd, code: u32, request: &[u32], io: &mut Io) -> Result<Status, Fault> {
    let &[id @ 0..2, ..] = request else { return Ok(Status::BadMessage) };
    let plays = id == 0;
    let stream = if plays { &mut card.playback } else { &mut card.capture };
    let status = match code {
        PCM_PREPARE => stream.to(Stage::Ready, &[Stage::Set, Stage::Ready]),
        PCM_START => stream.to(Stage::Running, &[Stage::Ready]),
        PCM_STOP => stream.to(Stage::Ready, &[Stage::Running]),
        _ => stream.to(Stage::Set, &[Stage::Ready, Stage::Running]),
    };
    if status == Status::Ok && matches!(code, PCM_PREPARE | PCM_RELEASE) {
        // What was left is void (§5.14.6.6.5.2).
        stream.rewind();
        Snd::flush(&mut io.queues[if plays { PLAYBACK_QUEUE } else { CAPTURE_QUEUE }], Status::Ok)?;
    }
    if status == Status::Ok && code == PCM_START && !plays {
        card.sound.forget_microphone();
    }
    Ok(status)
}
