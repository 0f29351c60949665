use std::time::Instant;

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::devices::virtio::testing::{Driver, MEMORY};

const OK: [u8; 4] = 0x8000u32.to_le_bytes();
const BAD_MESSAGE: [u8; 4] = 0x8001u32.to_le_bytes();
const NOT_SUPPORTED: [u8; 4] = 0x8002u32.to_le_bytes();
const IO_ERROR: [u8; 4] = 0x8003u32.to_le_bytes();

const SET_PARAMS: u32 = 0x101;
const PREPARE: u32 = 0x102;
const RELEASE: u32 = 0x103;
const START: u32 = 0x104;
const STOP: u32 = 0x105;

/// Ten milliseconds to play, and to record, in bytes.
const PLAYED: usize = 1920;
const RECORDED: usize = 960;

/// A card, its driver, and a client that listens from piece 0 on.
struct Room {
    card: Snd,
    driver: Driver,
    sound: Arc<Sound>,
}

impl Room {
    fn new() -> Self {
        let sound = Arc::new(Sound::new(EventFd::new(libc::EFD_NONBLOCK).unwrap()));
        assert_eq!(sound.enter(), 0);
        let card = Snd::new(sound.clone()).unwrap();
        let driver = Driver::new(&card);
        Self { card, driver, sound }
    }

    /// A room in which stream `id` runs.
    fn running(id: u32) -> Self {
        let mut room = Self::new();
        for request in [params(id), vec![PREPARE, id], vec![START, id]] {
            assert_eq!(room.ask(&request), OK);
        }
        room
    }

    /// The answer to a request, which has at most 100 bytes.
    fn ask(&mut self, request: &[u32]) -> Vec<u8> {
        let bytes: Vec<u8> = request.iter().flat_map(|word| word.to_le_bytes()).collect();
        let head = self.driver.send(CONTROL_QUEUE, &[&bytes], &[4, 96]);
        self.driver.kick(&mut self.card, CONTROL_QUEUE).unwrap();
        let (used, length) = self.driver.used(CONTROL_QUEUE).unwrap();
        assert_eq!(used, head);
        let mut answer = self.driver.written(CONTROL_QUEUE, head);
        answer.truncate(length as usize);
        answer
    }

    /// A message to play.
    fn send(&mut self, id: u32, samples: &[u8]) -> u16 {
        let head = self.driver.send(PLAYBACK_QUEUE, &[&id.to_le_bytes(), samples], &[8]);
        self.driver.kick(&mut self.card, PLAYBACK_QUEUE).unwrap();
        head
    }

    /// A message to record into.
    fn lend(&mut self, id: u32, length: usize) -> u16 {
        let head = self.driver.send(CAPTURE_QUEUE, &[&id.to_le_bytes()], &[length, 8]);
        self.driver.kick(&mut self.card, CAPTURE_QUEUE).unwrap();
        head
    }

    /// Waits for the next message that is given back; its head and its status.
    fn wait(&mut self, queue: usize) -> (u16, [u8; 4]) {
        let head = self.driver.wait_used(&mut self.card, queue);
        let written = self.driver.written(queue, head);
        assert_eq!(written[written.len() - 4..], [0; 4], "no latency");
        (head, written[written.len() - 8..][..4].try_into().unwrap())
    }

    /// Whether the card waits for the time to pass.
    fn waits(&self) -> bool {
        let mut interest = Vec::new();
        self.card.sources(&mut interest);
        !interest.is_empty()
    }

    /// All that was played, and whether each piece began when the one before ended.
    fn heard(&self) -> (Vec<u8>, bool) {
        let (mut all, mut even, mut next, mut end) = (Vec::new(), true, 0, None);
        while let Some((number, piece)) = self.sound.piece(next) {
            even &= number == next && end.is_none_or(|end: u64| end.abs_diff(piece.time) <= 1);
            end = Some(piece.time + piece.samples.len() as u64 / 4 * 1_000_000 / 48_000);
            all.extend(piece.samples);
            next = number + 1;
        }
        (all, even)
    }
}

/// Parameters that stream `id` takes.
fn params(id: u32) -> Vec<u32> {
    vec![SET_PARAMS, id, 15360, 1920, 0, u32::from_le_bytes([[2, 1][id as usize], 5, 7, 0])]
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn the_driver_finds_a_stereo_stream_to_play_and_a_mono_one_to_record() {
    let mut room = Room::new();
    let mut config = [9; 16];
    room.card.config().lock().unwrap().read(0, &mut config);
    assert_eq!(config, [0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let pcm = |direction: u8, channels: u8| {
        let mut info = vec![0; 32];
        (info[8], info[16], info[24], info[25], info[26]) = (1 << 5, 1 << 7, direction, channels, channels);
        info
    };
    assert_eq!(room.ask(&[0x100, 0, 2, 32]), [OK.to_vec(), pcm(0, 2), pcm(1, 1)].concat());
    assert_eq!(room.ask(&[0x100, 1, 1, 32]), [OK.to_vec(), pcm(1, 1)].concat());
    let map = |places: &[u8]| [&[0; 4], places, &vec![0; 20 - places.len()]].concat();
    assert_eq!(room.ask(&[0x200, 0, 2, 24]), [OK.to_vec(), map(&[0, 2, 3, 4]), map(&[1, 1, 2])].concat());
    assert_eq!(room.ask(&[1, 0, 0, 24]), OK, "no jacks");
    assert!(room.driver.interrupted());
}

#[test]
fn requests_that_make_no_sense_are_answered_so() {
    let mut room = Room::new();
    for request in [
        vec![],
        vec![0x100],
        vec![0x100, 0, 3, 32],
        vec![0x100, u32::MAX, 2, 32],
        vec![0x100, 0, 1, 31],
        vec![0x200, 2, 1, 24],
        vec![1, 0, 1, 24],
        vec![SET_PARAMS, 0, 15360, 1920],
        vec![SET_PARAMS, 2, 15360, 1920, 0, params(0)[5]],
        vec![SET_PARAMS, 0, 15360, 0, 0, params(0)[5]],
        vec![SET_PARAMS, 0, 100, 1920, 0, params(0)[5]],
        vec![PREPARE],
        vec![START, 2],
    ] {
        assert_eq!(room.ask(&request), BAD_MESSAGE, "{request:x?}");
    }
    for request in [
        vec![0x300, 0, 0, 0],
        vec![u32::MAX],
        vec![SET_PARAMS, 0, 15360, 1920, 1, params(0)[5]],
        vec![SET_PARAMS, 0, 15360, 1920, 0, params(1)[5]],
        vec![SET_PARAMS, 0, 15360, 1920, 0, u32::from_le_bytes([2, 5, 6, 0])],
        vec![SET_PARAMS, 0, 15360, 1920, 0, u32::from_le_bytes([2, 6, 7, 0])],
    ] {
        assert_eq!(room.ask(&request), NOT_SUPPORTED, "{request:x?}");
    }
    // No room for an answer, or not enough.
    for room_for in [0, 3, 4, 35] {
        let request: Vec<u8> = [0x100u32, 0, 1, 32].iter().flat_map(|word| word.to_le_bytes()).collect();
        let head = room.driver.send(CONTROL_QUEUE, &[&request], &[room_for]);
        room.driver.kick(&mut room.card, CONTROL_QUEUE).unwrap();
        assert_eq!(room.driver.used(CONTROL_QUEUE), Some((head, if room_for < 4 { 0 } else { 4 })));
    }
}

#[test]
fn a_stream_goes_only_where_the_standard_lets_it() {
    let mut room = Room::new();
    for (request, answer) in [
        (vec![START, 0], NOT_SUPPORTED),
        (vec![PREPARE, 0], NOT_SUPPORTED),
        (params(0), OK),
        (params(0), OK),
        (vec![START, 0], NOT_SUPPORTED),
        (vec![PREPARE, 0], OK),
        (vec![STOP, 0], NOT_SUPPORTED),
        (vec![START, 0], OK),
        (params(0), NOT_SUPPORTED),
        (vec![PREPARE, 0], NOT_SUPPORTED),
        (vec![START, 1], NOT_SUPPORTED),
        (vec![STOP, 0], OK),
        (vec![START, 0], OK),
        (vec![STOP, 0], OK),
        (vec![PREPARE, 0], OK),
        (vec![RELEASE, 0], OK),
        (vec![RELEASE, 0], NOT_SUPPORTED),
        (vec![PREPARE, 0], OK),
    ] {
        assert_eq!(room.ask(&request), answer, "{request:x?}");
    }
}

#[test]
fn what_is_played_arrives_whole_and_takes_its_time() {
    let mut room = Room::running(0);
    assert!(!room.waits(), "nothing to play");
    let begun = Instant::now();
    let message = |number: u8| noise(PLAYED + 4 * usize::from(number), number);
    let heads: Vec<_> = (0..10).map(|number| room.send(0, &message(number))).collect();
    for head in heads {
        assert_eq!(room.wait(PLAYBACK_QUEUE), (head, OK));
    }
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    let (heard, _) = room.heard();
    assert!(heard == (0..10).flat_map(message).collect::<Vec<u8>>());
    // When all is played nothing is waited for.
    while room.waits() {
        let mut interest = Vec::new();
        room.card.sources(&mut interest);
        crate::event::wait(&interest).unwrap();
        room.card.source_ready(0, PollFlags::IN, &mut room.driver.io).unwrap();
    }
    let head = room.send(0, &[]);
    assert!(room.waits());
    assert_eq!(room.wait(PLAYBACK_QUEUE), (head, OK), "nothing takes no time");
}

#[test]
fn pieces_follow_each_other_without_a_gap() {
    let sound = Sound::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
    sound.enter();
    let mut room = Room { sound: Arc::new(sound), ..Room::running(0) };
    (0..8).for_each(|number| {
        room.send(0, &noise(1000, number));
    });
    let start = Instant::now();
    let mut stream = Stream::new(Stage::Running, 0);
    // The host looks when it can: early, late, twice.
    for after in [0, 7, 7, 19, 20, 33, 40] {
        assert!(
            stream
                .play(&mut room.driver.io.queues[PLAYBACK_QUEUE], &room.sound, start + Duration::from_millis(after))
                .unwrap()
        );
    }
    let (heard, even) = room.heard();
    assert_eq!((heard.len(), even), (40 * 192, true));
    // Much too late: what was missed is not caught up with.
    let late = start + Duration::from_secs(60);
    assert!(!stream.play(&mut room.driver.io.queues[PLAYBACK_QUEUE], &room.sound, late).unwrap(), "all was played");
    assert!(!room.heard().1);
}

#[test]
fn nobody_need_listen() {
    let mut room = Room::running(0);
    room.sound.leave();
    let head = room.send(0, &noise(PLAYED, 1));
    assert_eq!(room.wait(PLAYBACK_QUEUE), (head, OK));
    assert_eq!(room.sound.piece(0), None);
}

#[test]
fn messages_wait_while_a_stream_is_stopped_and_come_back_when_it_is_released() {
    let mut room = Room::running(0);
    let heads = [room.send(0, &noise(PLAYED, 1)), room.send(0, &noise(PLAYED, 2))];
    assert_eq!(room.ask(&[STOP, 0]), OK);
    assert!(!room.waits());
    assert_eq!(room.driver.used(PLAYBACK_QUEUE), None);
    assert_eq!(room.ask(&[RELEASE, 0]), OK);
    for head in heads {
        assert_eq!(room.wait(PLAYBACK_QUEUE), (head, OK));
    }
    assert!(room.heard().0.is_empty());
}

#[test]
fn a_message_for_no_stream_is_refused() {
    let mut room = Room::new();
    let head = room.send(0, &noise(PLAYED, 1));
    assert_eq!(room.wait(PLAYBACK_QUEUE), (head, IO_ERROR));
    let head = room.lend(1, RECORDED);
    assert_eq!(room.wait(CAPTURE_QUEUE), (head, IO_ERROR));
    let mut room = Room::running(0);
    for id in [1, 2, u32::MAX] {
        let head = room.send(id, &noise(PLAYED, 1));
        assert_eq!(room.wait(PLAYBACK_QUEUE), (head, BAD_MESSAGE));
    }
    let mut room = Room::running(1);
    let head = room.lend(0, RECORDED);
    assert_eq!(room.wait(CAPTURE_QUEUE), (head, BAD_MESSAGE));
    // One without room for a status.
    let head = room.driver.send(CAPTURE_QUEUE, &[&[1, 0, 0, 0]], &[7]);
    room.driver.kick(&mut room.card, CAPTURE_QUEUE).unwrap();
    assert_eq!(room.driver.wait_used(&mut room.card, CAPTURE_QUEUE), head);
}

#[test]
fn a_microphone_is_recorded_in_its_time_and_silence_without_one() {
    let mut room = Room::running(1);
    let begun = Instant::now();
    let record = |room: &mut Room| {
        let head = room.lend(1, RECORDED);
        assert_eq!(room.driver.wait_used(&mut room.card, CAPTURE_QUEUE), head);
        let mut written = room.driver.written(CAPTURE_QUEUE, head);
        assert_eq!(written.split_off(RECORDED), [OK, [0; 4]].concat());
        written
    };
    assert_eq!(record(&mut room), vec![0; RECORDED]);
    let spoken = noise(8 * RECORDED, 3);
    room.sound.hear(&spoken);
    let recorded: Vec<u8> = (0..8).flat_map(|_| record(&mut room)).collect();
    assert!(recorded == spoken);
    assert!(begun.elapsed() >= Duration::from_millis(90));
    // What was said before a program listens is not its business.
    room.sound.hear(&spoken);
    for request in [[STOP, 1], [START, 1]] {
        assert_eq!(room.ask(&request), OK);
    }
    assert_eq!(record(&mut room), vec![0; RECORDED]);
}

#[test]
fn a_restored_machine_plays_on_in_the_middle_of_a_message() {
    let mut room = Room::running(0);
    let samples = noise(20 * PLAYED, 5);
    let head = room.send(0, &samples);
    while room.card.playback.used() == 0 {
        let mut interest = Vec::new();
        room.card.sources(&mut interest);
        crate::event::wait(&interest).unwrap();
        room.card.source_ready(0, PollFlags::IN, &mut room.driver.io).unwrap();
    }
    room.card.settle(&mut room.driver.io).unwrap();
    assert!(!room.waits());
    let state = serde_json::to_string(&room.card.save()).unwrap();
    let mut other = Snd::new(room.sound.clone()).unwrap();
    other.restore(serde_json::from_str(&state).unwrap()).unwrap();
    assert_eq!(other.save(), room.card.save());
    assert!(other.restore(DeviceState::Rng).is_err());
    room.card = other;
    // As the thread does when it starts.
    for queue in 0..4 {
        room.driver.kick(&mut room.card, queue).unwrap();
    }
    assert_eq!(room.wait(PLAYBACK_QUEUE), (head, OK));
    assert!(room.heard().0 == samples);
    room.card.reset();
    assert_eq!(room.card.save(), Snd::new(room.sound.clone()).unwrap().save());
}

proptest! {
    #[test]
    fn no_driver_harms_the_card(
        stages in (0..4u8, 0..4u8), played in any::<u64>(),
        chains in prop::collection::vec(
            (0..4usize, prop::collection::vec((0..MEMORY * 2, 0..100_000u32, 0u16..8), 1..6)), 1..12),
        request in prop::collection::vec(prop_oneof![0x100..0x106u32, 0..3u32, any::<u32>()], 0..7),
    ) {
        let stage = |number| [Stage::Idle, Stage::Set, Stage::Ready, Stage::Running][usize::from(number)];
        let mut room = Room::new();
        let state = State { playback: stage(stages.0), capture: stage(stages.1), played };
        room.card.restore(DeviceState::Sound(state)).unwrap();
        room.ask(&request);
        for (queue, chain) in chains {
            room.driver.send_raw(queue, &chain);
            let _ = room.driver.kick(&mut room.card, queue);
            let _ = room.card.advance(&mut room.driver.io);
        }
        room.card.reset();
        // The rings lie in low memory, where a hostile chain may point too.
        room.driver = Driver::new(&room.card);
        prop_assert_eq!(room.ask(&params(0)), OK);
    }
}
