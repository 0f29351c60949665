use proptest::prelude::*;
use yunju_protocol::display::Event;

use super::*;
use crate::devices::virtio::testing::Driver;
use crate::devices::virtio::worker::Worker;
use crate::display::testing::Stage;

const SYN: InputEvent = InputEvent::SYN;

fn ask(device: &dyn Device, select: u8, subsel: u8) -> Vec<u8> {
    let config = device.config();
    let mut config = config.lock().unwrap();
    config.write(0, &[select]);
    config.write(1, &[subsel]);
    let mut space = [0; 136];
    config.read(0, &mut space);
    assert_eq!(space[..2], [select, subsel]);
    let (answer, rest) = space[8..].split_at(usize::from(space[2]));
    assert!(rest.iter().all(|byte| *byte == 0));
    answer.to_vec()
}

fn set_bits(bytes: &[u8]) -> Vec<u16> {
    (0..bytes.len() as u16 * 8).filter(|bit| bytes[usize::from(bit / 8)] & (1 << (bit % 8)) != 0).collect()
}

fn keyboard(stage: &Stage) -> (Input, Arc<Events>) {
    let events = stage.display.keyboard();
    let mut device = Input::keyboard(events.clone(), stage.display.clone());
    device.activate(0);
    (device, events)
}

fn event(bytes: &[u8]) -> InputEvent {
    let mut event = InputEvent::default();
    event.as_mut_slice().copy_from_slice(bytes);
    event
}

/// All that waits, as the guest gets it.
fn deliver(device: &mut Input, driver: &mut Driver) -> Vec<InputEvent> {
    let heads: Vec<u16> = (0..64).map(|_| driver.send(EVENT_QUEUE, &[], &[8])).collect();
    device.source_ready(0, PollFlags::IN, &mut driver.io).unwrap();
    let mut events = Vec::new();
    for expected in heads {
        let Some((head, length)) = driver.used(EVENT_QUEUE) else { break };
        assert_eq!((head, length), (expected, 8));
        events.push(event(&driver.written(EVENT_QUEUE, head)));
    }
    events
}

#[test]
fn the_keyboard_says_what_it_is() {
    let stage = Stage::new(640, 480);
    let (device, _) = keyboard(&stage);
    assert_eq!(ask(&device, 0x01, 0), b"Yunju Keyboard");
    assert_eq!(ask(&device, 0x02, 0), b"yunju-keyboard");
    assert_eq!(ask(&device, 0x03, 0), [6, 0, 0x59, 0x4a, 1, 0, 1, 0]);
    assert_eq!(ask(&device, 0x10, 0), b"", "no properties");
    assert_eq!(set_bits(&ask(&device, 0x11, 0x01)), (1..=247).collect::<Vec<_>>());
    assert_eq!(set_bits(&ask(&device, 0x11, 0x11)), [0, 1, 2], "num, caps, scroll");
    assert_eq!(ask(&device, 0x11, 0x14), [0], "the guest repeats keys");
    for absent in [0x02, 0x03, 0x04, 0x05, 0x12] {
        assert_eq!(ask(&device, 0x11, absent), b"");
    }
    assert_eq!(ask(&device, 0x12, 0), b"");
}

#[test]
fn the_tablet_says_what_it_is() {
    let stage = Stage::new(640, 480);
    let device = Input::tablet(stage.display.tablet());
    assert_eq!(ask(&device, 0x01, 0), b"Yunju Tablet");
    assert_eq!(ask(&device, 0x03, 0), [6, 0, 0x59, 0x4a, 2, 0, 1, 0]);
    assert_eq!(set_bits(&ask(&device, 0x11, 0x01)), (0x110..=0x114).collect::<Vec<_>>());
    assert_eq!(set_bits(&ask(&device, 0x11, 0x02)), [0, 1, 6, 8, 11, 12]);
    assert_eq!(set_bits(&ask(&device, 0x11, 0x03)), [0, 1]);
    let mut info = vec![0; 20];
    info[4..8].copy_from_slice(&32767_u32.to_le_bytes());
    assert_eq!(ask(&device, 0x12, 0), info);
    assert_eq!(ask(&device, 0x12, 1), info);
    assert_eq!(ask(&device, 0x12, 2), b"");
}

#[test]
fn a_key_arrives_as_two_events_and_an_interrupt() {
    let stage = Stage::new(640, 480);
    let (mut device, events) = keyboard(&stage);
    let mut driver = Driver::new(&device);
    events.push(&[InputEvent::key(30, true)]);
    assert_eq!(deliver(&mut device, &mut driver), [InputEvent::key(30, true), SYN]);
    assert!(driver.interrupted());
}

#[test]
fn a_key_wakes_the_device_on_its_thread() {
    let stage = Stage::new(640, 480);
    let (device, events) = keyboard(&stage);
    let mut driver = Driver::new(&device);
    let head = driver.send(EVENT_QUEUE, &[], &[8]);
    let idle = Io { queues: Vec::new(), interrupt: driver.io.interrupt.clone() };
    let io = std::mem::replace(&mut driver.io, idle);
    let worker = Worker::start(Box::new(device), io, Arc::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(driver.used(EVENT_QUEUE), None);
    events.push(&[InputEvent::key(30, true)]);
    stage.until(|_| driver.io.interrupt.status() != 0);
    worker.stop().unwrap();
    assert_eq!(driver.used(EVENT_QUEUE), Some((head, 8)));
}

#[test]
fn events_wait_for_the_guest_to_make_room() {
    let stage = Stage::new(640, 480);
    let (mut device, events) = keyboard(&stage);
    let mut driver = Driver::new(&device);
    events.push(&[InputEvent::key(30, true)]);
    let first = driver.send(EVENT_QUEUE, &[], &[8]);
    driver.kick(&mut device, EVENT_QUEUE).unwrap();
    assert_eq!(driver.used(EVENT_QUEUE), Some((first, 8)));
    let too_small = driver.send(EVENT_QUEUE, &[], &[7]);
    let second = driver.send(EVENT_QUEUE, &[], &[3, 5]);
    driver.kick(&mut device, EVENT_QUEUE).unwrap();
    assert_eq!(driver.used(EVENT_QUEUE), Some((too_small, 0)));
    assert_eq!(driver.used(EVENT_QUEUE), Some((second, 8)));
    assert_eq!(event(&driver.written(EVENT_QUEUE, second)), SYN);
}

#[test]
fn what_happens_without_a_driver_is_forgotten() {
    let stage = Stage::new(640, 480);
    let (mut device, events) = keyboard(&stage);
    events.push(&[InputEvent::key(30, true)]);
    device.reset();
    events.push(&[InputEvent::key(31, true)]);
    device.activate(0);
    events.push(&[InputEvent::key(32, true)]);
    let mut driver = Driver::new(&device);
    assert_eq!(deliver(&mut device, &mut driver), [InputEvent::key(32, true), SYN]);
}

#[test]
fn lamps_light_up_on_the_display() {
    let stage = Stage::new(640, 480);
    let mut client = stage.greeted_client();
    let (mut device, _) = keyboard(&stage);
    let mut driver = Driver::new(&device);
    let mut say = |device: &mut Input, code: u16, value: u32| {
        let lamp = InputEvent { kind: EV_LED, code, value };
        let head = driver.send(STATUS_QUEUE, &[lamp.as_slice(), SYN.as_slice()], &[]);
        driver.kick(device, STATUS_QUEUE).unwrap();
        assert_eq!(driver.used(STATUS_QUEUE), Some((head, 0)));
    };
    for (code, value, lit) in [(0, 1, 0b010), (1, 1, 0b110), (2, 1, 0b111), (0, 0, 0b101)] {
        say(&mut device, code, value);
        assert_eq!(client.next(), Some(Event::Leds { lit }));
    }
    say(&mut device, 3, 1);
    device.reset();
    assert_eq!(client.next(), Some(Event::Leds { lit: 0 }));
}

#[test]
fn when_the_guest_sleeps_no_key_sticks_and_the_last_position_counts() {
    let stage = Stage::new(640, 480);
    let (mut device, events) = keyboard(&stage);
    let position = |x| [InputEvent::absolute(ABS_X, x), InputEvent::absolute(ABS_Y, 1)];
    events.push(&[InputEvent::key(30, true)]);
    for x in 0..5000 {
        events.push(&position(x));
    }
    for code in (31..=200).cycle().take(5000) {
        events.push(&[InputEvent::key(code, true)]);
        events.push(&[InputEvent::key(code, false)]);
    }
    events.push(&[InputEvent::key(30, false)]);
    let mut driver = Driver::new(&device);
    let mut delivered = Vec::new();
    loop {
        let some = deliver(&mut device, &mut driver);
        if some.is_empty() {
            break;
        }
        delivered.extend(some);
    }
    assert!(delivered.len() <= 1024 + 4, "{}", delivered.len());
    assert_eq!(delivered[..5], [InputEvent::key(30, true), SYN, position(4999)[0], position(4999)[1], SYN]);
    let mut down = std::collections::BTreeSet::new();
    for event in delivered.iter().filter(|event| event.kind == EV_KEY) {
        let changed = if event.value == 1 { down.insert(event.code) } else { down.remove(&event.code) };
        assert!(changed, "{event:?}");
    }
    assert!(down.is_empty(), "{down:?}");
}

#[test]
fn a_position_that_is_half_taken_is_taken_to_its_end() {
    let stage = Stage::new(640, 480);
    let events = stage.display.tablet();
    events.open();
    let position = |value| [InputEvent::absolute(ABS_X, value), InputEvent::absolute(ABS_Y, value)];
    events.push(&position(1));
    assert_eq!(events.take(), Some(position(1)[0]));
    events.push(&position(2));
    events.push(&position(3));
    let rest: Vec<_> = std::iter::from_fn(|| events.take()).collect();
    assert_eq!(rest, [position(1)[1], SYN, position(3)[0], position(3)[1], SYN]);
}

#[test]
fn a_restored_keyboard_lets_go_of_what_was_held() {
    let stage = Stage::new(640, 480);
    let (mut device, events) = keyboard(&stage);
    let mut driver = Driver::new(&device);
    events.push(&[InputEvent::key(29, true)]);
    events.push(&[InputEvent::key(46, true)]);
    deliver(&mut device, &mut driver);
    events.push(&[InputEvent::key(46, false)]);
    let lamp = InputEvent { kind: EV_LED, code: 1, value: 1 };
    driver.send(STATUS_QUEUE, &[lamp.as_slice()], &[]);
    driver.kick(&mut device, STATUS_QUEUE).unwrap();
    ask(&device, 0x11, 0x01);
    let saved = serde_json::to_string(&device.save()).unwrap();

    let stage = Stage::new(640, 480);
    let mut restored = Input::keyboard(stage.display.keyboard(), stage.display.clone());
    restored.restore(serde_json::from_str(&saved).unwrap()).unwrap();
    assert_eq!(serde_json::to_string(&restored.save()).unwrap(), saved);
    let mut driver = Driver::new(&restored);
    let released = [InputEvent::key(29, false), InputEvent::key(46, false), SYN];
    assert_eq!(deliver(&mut restored, &mut driver), released);
    assert!(restored.restore(DeviceState::Rng).is_err());
}

proptest! {
    #[test]
    fn whatever_the_driver_sends_is_given_back(
        chains in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5), 1..12),
        queue in 0..2_usize,
    ) {
        let stage = Stage::new(640, 480);
        let (mut device, events) = keyboard(&stage);
        let mut driver = Driver::new(&device);
        events.push(&[InputEvent::key(30, true)]);
        for chain in &chains {
            let parts: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            let head = driver.send(queue, &parts, &[]);
            driver.kick(&mut device, queue).unwrap();
            prop_assert_eq!(driver.used(queue), Some((head, 0)));
        }
        let space = device.config();
        for chain in &chains {
            for (offset, bytes) in chain.iter().enumerate() {
                space.lock().unwrap().write(offset as u64, bytes);
                space.lock().unwrap().read(offset as u64 * 31, &mut [0; 200]);
            }
        }
    }
}
