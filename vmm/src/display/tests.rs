use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use yunju_protocol::display::{Event, MAX_PACKET, Request, VERSION, receive};

use super::testing::Stage;
use super::*;
use crate::devices::virtio::input::{self, InputEvent};

fn buffer(width: u32, height: u32) -> Buffer {
    let pixels = tempfile::tempfile().unwrap();
    pixels.set_len(u64::from(width * height * 4)).unwrap();
    Buffer { width, height, stride: width * 4, pixels: Arc::new(pixels) }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, width, height }
}

fn drain(events: &Events) -> Vec<InputEvent> {
    std::iter::from_fn(|| events.take()).collect()
}

#[test]
fn a_late_client_is_told_all_that_is_to_be_seen() {
    let stage = Stage::new(640, 480);
    let picture = buffer(8, 4);
    picture.pixels.write_all_at(&[1, 2, 3, 4], 8 * 4 + 4).unwrap();
    let unseen = stage.display.add_buffer(buffer(1, 1));
    let id = stage.display.add_buffer(picture);
    stage.display.frame(id, rect(0, 1, 8, 3), rect(2, 2, 1, 1));
    let cursor = Cursor { width: 1, height: 1, hot_x: 0, hot_y: 0, pixels: vec![9; 4] };
    stage.display.cursor(cursor);
    stage.display.leds(5);

    let mut client = stage.client();
    assert_eq!(client.next(), Some(Event::Hello { version: VERSION }));
    assert_eq!(client.next(), Some(Event::Buffer { id, width: 8, height: 4, stride: 32 }));
    assert_eq!(client.frame(), (id, rect(0, 1, 8, 3), Rect::of_size(8, 3)));
    let cursor = Event::Cursor { width: 1, height: 1, hot_x: 0, hot_y: 0, pixels: vec![9; 4] };
    assert_eq!(client.next(), Some(cursor));
    assert_eq!(client.next(), Some(Event::Leds { lit: 5 }));
    assert_eq!(client.pixel(id, 1, 1), [1, 2, 3, 4]);
    assert!(!client.buffers.contains_key(&unseen), "a buffer that was never shown is nobody's business");
}

#[test]
fn every_client_is_told_of_every_change() {
    let stage = Stage::new(640, 480);
    let mut clients = [stage.greeted_client(), stage.greeted_client(), stage.greeted_client()];
    let id = stage.display.add_buffer(buffer(8, 4));
    let area = Rect::of_size(8, 4);
    stage.display.frame(id, area, Rect::default());
    for client in &mut clients {
        assert_eq!(client.first_frame(), (id, area, area), "all of a new picture is new");
    }
    stage.display.frame(id, area, rect(1, 1, 2, 2));
    for client in &mut clients {
        assert_eq!(client.frame(), (id, area, rect(1, 1, 2, 2)));
    }
    stage.display.blank();
    stage.display.blank();
    stage.display.leds(2);
    for client in &mut clients {
        assert_eq!(client.next(), Some(Event::Blank));
        assert_eq!(client.next(), Some(Event::Leds { lit: 2 }));
    }
    assert_eq!((stage.display.frames(), stage.display.clients()), (2, 3));
}

#[test]
fn a_buffer_goes_after_its_successor_has_come() {
    let stage = Stage::new(640, 480);
    let mut client = stage.greeted_client();
    let area = Rect::of_size(8, 4);
    let old = stage.display.add_buffer(buffer(8, 4));
    stage.display.frame(old, area, area);
    assert_eq!(client.first_frame().0, old);
    let new = stage.display.add_buffer(buffer(8, 4));
    stage.display.frame(new, area, area);
    stage.display.remove_buffer(old);
    assert_eq!(client.first_frame().0, new);
    assert_eq!(client.next(), Some(Event::BufferGone { id: old }));
    stage.display.remove_buffer(new);
    assert_eq!(client.next(), Some(Event::Blank), "what is shown goes dark before it goes away");
    assert_eq!(client.next(), Some(Event::BufferGone { id: new }));
}

#[test]
fn a_client_that_does_not_read_delays_nobody_and_misses_no_damage() {
    const FRAMES: u32 = 2000;
    let stage = Stage::new(640, 480);
    let mut slow = stage.client();
    let mut fast = stage.greeted_client();
    let area = Rect::of_size(FRAMES, 1);
    let id = stage.display.add_buffer(buffer(FRAMES, 1));
    stage.display.frame(id, area, area);
    fast.first_frame();
    for x in 0..FRAMES {
        stage.display.frame(id, area, rect(x, 0, 1, 1));
        assert_eq!(fast.frame().2, rect(x, 0, 1, 1));
    }
    stage.display.leds(7);
    assert_eq!(fast.next(), Some(Event::Leds { lit: 7 }));
    let mut seen = BTreeSet::new();
    let mut frames = 0;
    loop {
        match slow.next() {
            Some(Event::Frame { damage, .. }) if frames == 0 => {
                assert_eq!(damage, area);
                frames = 1;
            }
            Some(Event::Frame { damage, .. }) => {
                frames += 1;
                seen.extend(damage.x..damage.right());
            }
            Some(Event::Leds { lit: 7 }) => break,
            event => assert!(event.is_some()),
        }
    }
    assert_eq!(seen.len() as u32, FRAMES);
    assert!(frames < FRAMES, "a socket holds fewer than {FRAMES} frames");
}

#[test]
fn a_client_that_dies_lets_go_of_what_it_held() {
    let stage = Stage::new(640, 480);
    let (keyboard, tablet) = (stage.display.keyboard(), stage.display.tablet());
    keyboard.open();
    tablet.open();
    let client = stage.greeted_client();
    let mut other = stage.greeted_client();
    client.ask(&Request::Key { code: 30, down: true });
    client.ask(&Request::Key { code: 30, down: true });
    client.ask(&Request::Key { code: 48, down: true });
    client.ask(&Request::Key { code: 48, down: false });
    client.ask(&Request::Pointer { x: 1, y: 2, buttons: 0b101 });
    drop(client);
    stage.until(|display| display.clients() == 1);
    let key = InputEvent::key;
    let syn = InputEvent::SYN;
    let expected = [key(30, true), syn, key(48, true), syn, key(48, false), syn, key(30, false), syn];
    assert_eq!(drain(&keyboard), expected);
    let (x, y) = (InputEvent::absolute(input::ABS_X, 1), InputEvent::absolute(input::ABS_Y, 2));
    let (left, right) = (input::BTN_LEFT, input::BTN_RIGHT);
    let expected = [x, y, key(left, true), key(right, true), syn, key(left, false), key(right, false), syn];
    assert_eq!(drain(&tablet), expected);
    stage.display.leds(1);
    assert_eq!(other.next(), Some(Event::Leds { lit: 1 }));
}

#[test]
fn a_client_that_sends_garbage_is_dropped_and_the_others_stay() {
    let stage = Stage::new(640, 480);
    let mut other = stage.greeted_client();
    let out_of_range = [
        Request::Key { code: 256, down: true },
        Request::Pointer { x: 32768, y: 0, buttons: 0 },
        Request::Resize { width: 0, height: 100 },
    ];
    for request in &out_of_range {
        let mut client = stage.greeted_client();
        client.ask(request);
        assert_eq!(client.next(), None, "{request:?}");
    }
    let mut client = stage.greeted_client();
    rustix::io::write(&client.socket, &[0xff; 9]).unwrap();
    assert_eq!(client.next(), None);
    stage.display.leds(1);
    assert_eq!(other.next(), Some(Event::Leds { lit: 1 }));
}

#[test]
fn one_client_too_many_is_turned_away_until_another_leaves() {
    let stage = Stage::new(640, 480);
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| stage.greeted_client()).collect();
    assert_eq!(stage.client().next(), None);
    clients.pop();
    stage.until(|display| display.clients() == MAX_CLIENTS as u32 - 1);
    stage.greeted_client();
}

#[test]
fn wheel_clicks_come_in_both_resolutions() {
    let stage = Stage::new(640, 480);
    let tablet = stage.display.tablet();
    tablet.open();
    let client = stage.greeted_client();
    client.ask(&Request::Wheel { horizontal: 0, vertical: -2 });
    client.ask(&Request::Wheel { horizontal: 0, vertical: 0 });
    client.ask(&Request::Pointer { x: 0, y: 0, buttons: 0 });
    stage.until(|_| tablet.waiting());
    drop(client);
    stage.until(|display| display.clients() == 0);
    let events = drain(&tablet);
    assert_eq!(events[..2], input::wheel(input::REL_WHEEL, -240, &mut 0).collect::<Vec<_>>());
    assert_eq!(events[2], InputEvent::SYN);
    assert_eq!(events.len(), 6, "no wheel clicks make no event: {events:?}");
}

#[test]
fn parts_of_a_click_add_up_and_steps_move_the_pointer_with_its_buttons() {
    let stage = Stage::new(640, 480);
    let tablet = stage.display.tablet();
    tablet.open();
    let client = stage.greeted_client();
    for vertical in [50, 50, 50, -31] {
        client.ask(&Request::Scroll { horizontal: 0, vertical });
    }
    client.ask(&Request::Move { x: -3, y: 0, buttons: 1 });
    client.ask(&Request::Move { x: 0, y: 0, buttons: 1 });
    drop(client);
    stage.until(|display| display.clients() == 0);
    let events: Vec<_> = drain(&tablet).into_iter().filter(|event| *event != InputEvent::SYN).collect();
    let fine = |part| input::wheel(input::REL_WHEEL, part, &mut 0).last().unwrap();
    let click = InputEvent::relative(input::REL_WHEEL, 1);
    let step = InputEvent::relative(input::REL_X, -3);
    let (press, release) = (InputEvent::key(input::BTN_LEFT, true), InputEvent::key(input::BTN_LEFT, false));
    assert_eq!(events, [fine(50), fine(50), click, fine(50), fine(-31), step, press, release]);
}

#[test]
fn a_client_resizes_within_limits() {
    let stage = Stage::new(640, 480);
    let client = stage.greeted_client();
    assert!(stage.display.resized().read().is_err());
    client.ask(&Request::Resize { width: 1600, height: 1 });
    stage.until(|display| display.resized().read().is_ok());
    assert_eq!(stage.display.preferred(), (1600, 200));
    stage.display.resize(1600, 0);
    assert!(stage.display.resized().read().is_err(), "the same size is no news");
}

#[test]
fn a_screenshot_is_the_shown_part_of_the_buffer() {
    let display = Display::new(640, 480).unwrap();
    assert_eq!((display.size(), display.screenshot()), (None, None));
    let picture = buffer(4, 3);
    let bytes: Vec<u8> = (0..48).collect();
    picture.pixels.write_all_at(&bytes, 0).unwrap();
    let id = display.add_buffer(picture);
    display.frame(id, rect(1, 1, 2, 2), Rect::default());
    assert_eq!(display.size(), Some((2, 2)));
    let file = display.screenshot().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (2, 2));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(pixels, [22, 21, 20, 26, 25, 24, 38, 37, 36, 42, 41, 40]);
    display.blank();
    assert_eq!(display.screenshot(), None);
}

#[test]
fn a_display_listens_once() {
    let stage = Stage::new(640, 480);
    let (socket, _) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    assert_eq!(stage.display.listen(socket).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[derive(Debug, Clone)]
enum Step {
    Frame { buffer: usize, small: bool, damage: (u32, u32, u32, u32) },
    Replace(usize),
    Blank,
    Cursor(u8),
    Leds(u8),
    Update,
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, any::<bool>(), (0..8_u32, 0..8_u32, 0..8_u32, 0..8_u32))
            .prop_map(|(buffer, small, damage)| Step::Frame { buffer, small, damage }),
        1 => (0..3_usize).prop_map(Step::Replace),
        1 => Just(Step::Blank),
        1 => any::<u8>().prop_map(Step::Cursor),
        1 => (0..8_u8).prop_map(Step::Leds),
        6 => Just(Step::Update),
        1 => (0..20_usize).prop_map(Step::Read),
    ]
}

/// What a client believes.
#[derive(Default)]
struct Belief {
    buffers: BTreeSet<u32>,
    /// Buffer, and the version of each cell that the client has copied.
    picture: Option<(u32, Rect, Vec<u64>)>,
    cursor: Option<Vec<u8>>,
    leds: Option<u8>,
}

impl Belief {
    /// `cells` are the versions of what the buffers show now.
    fn hear(&mut self, event: Event, cells: &[u64]) {
        match event {
            Event::Hello { .. } => {}
            Event::Buffer { id, .. } => assert!(self.buffers.insert(id)),
            Event::BufferGone { id } => {
                assert!(self.buffers.remove(&id));
                assert!(self.picture.as_ref().is_none_or(|(shown, ..)| *shown != id), "a shown buffer went");
            }
            Event::Blank => self.picture = None,
            Event::Frame { buffer, area, damage } => {
                assert!(self.buffers.contains(&buffer));
                let mut copy = match self.picture.take() {
                    Some((_, before, copy)) if size_of(before) == size_of(area) => copy,
                    _ => vec![0; 64],
                };
                for y in damage.y..damage.bottom() {
                    for x in damage.x..damage.right() {
                        copy[(y * 8 + x) as usize] = cells[(y * 8 + x) as usize];
                    }
                }
                self.picture = Some((buffer, area, copy));
            }
            Event::Cursor { pixels, .. } => self.cursor = Some(pixels),
            Event::Leds { lit } => self.leds = Some(lit),
            Event::Sound { .. } => panic!("sound without having asked for it"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However fast a client reads, what it believes in the end is what is.
    #[test]
    fn a_client_that_has_read_all_knows_all(steps in proptest::collection::vec(step(), 1..200)) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        // A dozen small messages fill the socket.
        set_socket_send_buffer_size(&ours, 4608).unwrap();
        let mut client = client::Client::new(ours);
        let display = Display::new(640, 480).unwrap();
        let mut ids: Vec<u32> = (0..3).map(|_| display.add_buffer(buffer(8, 8))).collect();
        let mut cells = vec![0_u64; 64];
        let mut version = 1;
        let mut belief = Belief::default();
        let mut packet = vec![0; MAX_PACKET];
        let mut read = |belief: &mut Belief, cells: &[u64], most: usize| {
            let mut count = 0;
            while count < most && let Ok(Some((event, _))) = receive::<Event>(&theirs, &mut packet) {
                belief.hear(event, cells);
                count += 1;
            }
            count
        };
        for step in steps {
            match step {
                Step::Frame { buffer, small, damage: (x, y, width, height) } => {
                    let area = if small { Rect::of_size(4, 4) } else { Rect::of_size(8, 8) };
                    let damage = rect(x, y, width, height).intersection(&area);
                    let before = display.size();
                    display.frame(ids[buffer], area, damage);
                    version += 1;
                    let changed = if before == Some(size_of(area)) { damage } else { area };
                    for y in changed.y..changed.bottom() {
                        for x in changed.x..changed.right() {
                            cells[(y * 8 + x) as usize] = version;
                        }
                    }
                }
                Step::Replace(index) => {
                    display.remove_buffer(ids[index]);
                    ids[index] = display.add_buffer(buffer(8, 8));
                }
                Step::Blank => display.blank(),
                Step::Cursor(value) => {
                    display.cursor(Cursor { width: 1, height: 1, pixels: vec![value; 4], ..Cursor::default() });
                }
                Step::Leds(lit) => display.leds(lit),
                Step::Update => {
                    let (scene, damage) = display.take();
                    client.damage(&damage);
                    client.update(&scene, &display.sound()).unwrap();
                }
                Step::Read(most) => {
                    read(&mut belief, &cells, most);
                }
            }
        }
        loop {
            let (scene, damage) = display.take();
            client.damage(&damage);
            client.update(&scene, &display.sound()).unwrap();
            if read(&mut belief, &cells, usize::MAX) == 0 {
                break;
            }
        }
        let scene = display.take().0;
        let picture = scene.picture.map(|shown| (shown.buffer, shown.area));
        prop_assert_eq!(belief.picture.as_ref().map(|(buffer, area, _)| (*buffer, *area)), picture);
        if let Some((_, area, copy)) = &belief.picture {
            for y in 0..area.height {
                for x in 0..area.width {
                    let at = (y * 8 + x) as usize;
                    prop_assert_eq!(copy[at], cells[at], "at {}, {}", x, y);
                }
            }
        }
        prop_assert!(belief.buffers.iter().all(|id| scene.buffers.contains_key(id)));
        prop_assert_eq!(belief.cursor.as_ref(), Some(&scene.cursor.pixels));
        prop_assert_eq!(belief.leds, Some(scene.leds));
    }
}

#[test]
fn who_listens_hears_what_the_guest_plays_and_others_do_not() {
    let stage = Stage::new(640, 480);
    let sound = stage.display.sound();
    let (mut listener, mut other) = (stage.greeted_client(), stage.greeted_client());
    listener.ask(&Request::Listen { on: true });
    listener.ask(&Request::Listen { on: true });
    // Until the request has been read what is played is lost.
    let begun = std::time::Instant::now();
    let mut told = None;
    stage.until(|_| {
        sound.play(begun, &[7; 8]);
        told = sound.piece(0).map(|(_, piece)| piece.time);
        told.is_some()
    });
    assert_eq!(listener.next(), Some(Event::Sound { time: told.unwrap(), samples: vec![7; 8] }));
    listener.ask(&Request::Listen { on: false });
    stage.until(|_| sound.piece(0).is_none());
    sound.play(begun, &[8; 8]);
    stage.display.leds(1);
    for client in [&mut listener, &mut other] {
        assert_eq!(client.next(), Some(Event::Leds { lit: 1 }));
    }
}

#[test]
fn a_microphone_that_says_more_than_it_may_or_half_a_sample_is_dropped() {
    let stage = Stage::new(640, 480);
    for length in [1, 16 * 1024 + 2] {
        let mut client = stage.greeted_client();
        client.ask(&Request::Microphone { samples: vec![1; length] });
        assert_eq!(client.next(), None);
    }
    let client = stage.greeted_client();
    client.ask(&Request::Microphone { samples: vec![1; 16 * 1024] });
    let mut recorded = [0; 4];
    stage.until(|display| {
        display.sound().record(&mut recorded);
        recorded == [1; 4]
    });
}

#[test]
fn a_listener_that_does_not_read_loses_sound_and_holds_nobody_up() {
    let stage = Stage::new(640, 480);
    let sound = stage.display.sound();
    let mut slow = stage.greeted_client();
    slow.ask(&Request::Listen { on: true });
    stage.until(|_| {
        sound.play(std::time::Instant::now(), &[0; 4]);
        sound.piece(0).is_some()
    });
    let begun = std::time::Instant::now();
    for count in 1..2000u32 {
        sound.play(begun, &count.to_le_bytes().repeat(480));
    }
    stage.display.leds(1);
    let mut heard = 0;
    loop {
        match slow.next() {
            Some(Event::Sound { .. }) => heard += 1,
            Some(Event::Leds { lit: 1 }) => break,
            event => panic!("{event:?}"),
        }
    }
    assert!(heard < 1000, "{heard} pieces of 2000");
}
