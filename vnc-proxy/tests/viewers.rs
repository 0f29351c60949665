//! The whole proxy between a machine and viewers of ours.

mod support;

use std::path::Path;
use std::time::Duration;

use support::client::{Client, Said};
use support::decode::{Decoded, Decoder, Extra, RGBX};
use support::lab::{Lab, SIZE, eventually, test_picture};
use support::machine::{Buffer, Display};
use yunju_protocol::display::{Event, Rect, Request};

/// What noVNC lists.
const NOVNC: &[i32] = &[
    1,
    7,
    -260,
    16,
    21,
    5,
    2,
    6,
    0,
    -26,
    -254,
    -223,
    -224,
    -258,
    -261,
    -308,
    -309,
    -312,
    -313,
    -307,
    0xc0a1e5ceu32 as i32,
    -316,
    0x574d5664,
    -239,
];

/// Like noVNC, but asking for each update.
const ASKING: &[i32] = &[1, 7, 0, -26, -224, -308, -258, -261, -307, 0x574d5664];

/// Whether all pixels are as `pixel` says.
fn shows(pixel: impl Fn(u32, u32) -> u32) -> impl Fn(&Decoder) -> bool {
    move |screen| {
        let places = (0..screen.height).flat_map(|y| (0..screen.width).map(move |x| (x, y)));
        screen.pixels.iter().zip(places).all(|(shown, (x, y))| *shown == pixel(x, y))
    }
}

fn requests(display: &Display, count: usize) -> Vec<Request> {
    (0..count).map(|_| display.request(10_000).expect("the proxy stays").expect("a request comes")).collect()
}

fn extras(updates: &[Decoded]) -> Vec<&Extra> {
    updates.iter().flat_map(|update| &update.extras).collect()
}

#[test]
fn a_viewer_sees_the_machines_picture_in_each_encoding() {
    let (lab, _display, _buffer) = Lab::new();
    for encoding in [0, 16, 7] {
        let mut viewer = lab.viewer(&[encoding]);
        let updates = viewer.until(shows(test_picture));
        assert!(updates.iter().flat_map(|update| &update.rects).all(|(_, used)| *used == encoding));
        assert!(!updates.is_empty());
    }
}

#[test]
fn viewers_come_by_websocket_and_need_not_ask_for_updates() {
    let (lab, display, buffer) = Lab::new();
    let mut viewer =
        eventually(|| Client::websocket(&lab.path("websocket")).ok().filter(|of| of.screen.width == SIZE.0));
    viewer.set_format(RGBX);
    viewer.set_encodings(NOVNC);
    viewer.request(false);
    assert_eq!(viewer.next().unwrap(), Said::EndOfContinuousUpdates, "an offer of continuous updates");
    viewer.continuous(true);
    let updates = viewer.unasked_until(shows(test_picture));
    let extras = extras(&updates);
    assert_eq!(extras[0], &Extra::ExtendedSize { reason: 0, status: 0, width: SIZE.0, height: SIZE.1 });
    for extra in [Extra::QemuKeys, Extra::MouseButtons, Extra::Leds(0), Extra::Name("the desktop 桌面".into())] {
        assert!(extras.contains(&&extra), "{extra:?} of {extras:?}");
    }
    let spot = Rect { x: 70, y: 70, width: 9, height: 16 };
    buffer.paint(spot, |_, _| 0xffffff);
    display.show(&buffer, buffer.bounds()).unwrap();
    let inside = move |x, y| Rect { x, y, width: 1, height: 1 }.intersection(&spot).area() == 1;
    let updates = viewer.unasked_until(shows(|x, y| if inside(x, y) { 0xffffff } else { test_picture(x, y) }));
    assert_eq!(updates.last().unwrap().rects, [(spot, 7)], "false damage costs nothing");
}

#[test]
fn a_viewer_that_acknowledges_nothing_gets_two_updates_and_no_more() {
    let (lab, display, buffer) = Lab::new();
    let mut viewer = lab.viewer(&[7, -312, -313]);
    viewer.answers = false;
    viewer.continuous(true);
    let mut fences = Vec::new();
    for step in 0..40 {
        buffer.paint(buffer.bounds(), |_, _| step);
        display.show(&buffer, buffer.bounds()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    while fences.len() < 2 {
        if let Said::Fence { flags, payload } = viewer.next().unwrap() {
            assert_eq!(flags, 1 << 31 | 1);
            fences.push(payload);
        }
    }
    assert_ne!(viewer.screen.pixels[0], 39, "the last picture is not sent while two are on their way");
    viewer.answers = true;
    for payload in fences {
        let mut answer = vec![248, 0, 0, 0, 0, 0, 0, 1, payload.len() as u8];
        answer.extend(payload);
        viewer.send(&answer);
    }
    let updates = viewer.unasked_until(shows(|_, _| 39));
    assert!(updates.len() <= 2, "what changed meanwhile is sent at once");
}

#[test]
fn fences_are_answered_in_their_place() {
    let (lab, _display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(&[0, -312]);
    viewer.until(shows(test_picture));
    viewer.send(&[248, 0, 0, 0, 0x80, 0, 0xff, 7, 3, 1, 2, 3]);
    // A fence that says "sync next" is answered together with the message that follows it.
    viewer.set_format(RGBX);
    assert_eq!(viewer.next().unwrap(), Said::Fence { flags: 7, payload: vec![1, 2, 3] });
    viewer.request(false);
    assert!(shows(test_picture)({
        viewer.update();
        &viewer.screen
    }));
}

#[test]
fn flips_between_two_buffers_are_one_picture() {
    let (lab, display, front) = Lab::new();
    let back = Buffer::new(2, SIZE.0, SIZE.1);
    back.paint(back.bounds(), test_picture);
    display.announce(&back).unwrap();
    let mut viewer = lab.viewer(&[16, -308]);
    viewer.until(shows(test_picture));
    for flip in 1..6u32 {
        let buffer = [&front, &back][(flip % 2) as usize];
        let row = Rect { x: 0, y: 0, width: SIZE.0, height: flip };
        buffer.paint(row, |_, _| 0xabcdef);
        display.show(buffer, buffer.bounds()).unwrap();
        let updates = viewer.until(shows(|x, y| if y < flip { 0xabcdef } else { test_picture(x, y) }));
        assert!(extras(&updates).is_empty(), "no change of size");
        let area: u64 = updates.iter().flat_map(|update| &update.rects).map(|(rect, _)| rect.area()).sum();
        assert_eq!(area, u64::from(SIZE.0), "only what differs");
    }
}

#[test]
fn viewers_follow_the_machine_to_another_size() {
    let (lab, display, _buffer) = Lab::new();
    let mut modern = lab.viewer(ASKING);
    let mut old = lab.viewer(&[0, -223]);
    modern.until(shows(test_picture));
    old.until(shows(test_picture));
    let wide = Buffer::new(2, 500, 100);
    wide.paint(wide.bounds(), |x, y| x * 256 + y);
    display.announce(&wide).unwrap();
    display.show(&wide, wide.bounds()).unwrap();
    let updates = modern.until(|screen| screen.width == 500 && shows(|x, y| x * 256 + y)(screen));
    assert!(extras(&updates).contains(&&Extra::ExtendedSize { reason: 0, status: 0, width: 500, height: 100 }));
    let updates = old.until(|screen| screen.width == 500 && shows(|x, y| x * 256 + y)(screen));
    assert!(extras(&updates).contains(&&Extra::Size(500, 100)));
}

#[test]
fn a_viewer_that_cannot_follow_is_told_to_come_again() {
    let (lab, display, _buffer) = Lab::new();
    let mut fixed = lab.viewer(&[0]);
    fixed.until(shows(test_picture));
    let small = Buffer::new(2, 64, 64);
    display.announce(&small).unwrap();
    display.show(&small, small.bounds()).unwrap();
    fixed.request(true);
    assert!(fixed.next().is_err(), "the connection is closed");
}

#[test]
fn a_viewers_wish_for_a_size_is_passed_on_and_answered() {
    let (lab, display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(ASKING);
    viewer.until(shows(test_picture));
    viewer.wish(640, 480);
    assert_eq!(requests(&display, 1), [Request::Resize { width: 640, height: 480 }]);
    let granted = Buffer::new(2, 640, 480);
    display.announce(&granted).unwrap();
    display.show(&granted, granted.bounds()).unwrap();
    let updates = viewer.until(|screen| screen.width == 640);
    let done = Extra::ExtendedSize { reason: 1, status: 0, width: 640, height: 480 };
    assert_eq!(extras(&updates), [&done]);
    viewer.wish(640, 480);
    viewer.request(true);
    while viewer.update().extras != [done.clone()] {
        viewer.request(true);
    }
    viewer.wish(0, 480);
    viewer.request(true);
    assert_eq!(viewer.update().extras, [Extra::ExtendedSize { reason: 1, status: 3, width: 640, height: 480 }]);
    viewer.wish(800, 600);
    let refused = Extra::ExtendedSize { reason: 1, status: 2, width: 640, height: 480 };
    viewer.request(true);
    while viewer.update().extras != [refused.clone()] {
        viewer.request(true);
    }
}

#[test]
fn several_viewers_see_the_same_each_in_its_way() {
    let (lab, display, buffer) = Lab::new();
    let mut viewers: Vec<Client> = [&[0][..], &[16], &[7], &[7, -26], ASKING].map(|list| lab.viewer(list)).into();
    for round in 0..5u32 {
        let picture = move |x, y| test_picture(x, y) ^ (round * 0x1111);
        buffer.paint(buffer.bounds(), picture);
        display.show(&buffer, buffer.bounds()).unwrap();
        for viewer in &mut viewers {
            viewer.until(shows(picture));
        }
    }
}

#[test]
fn a_viewer_that_takes_nothing_slows_no_other_and_not_the_machine() {
    let (lab, display, _small) = Lab::new();
    let large = Buffer::new(2, 800, 500);
    display.announce(&large).unwrap();
    let stalled: Vec<Client> = (0..3)
        .map(|_| {
            let mut viewer = lab.viewer(&[0, -308, -312, -313]);
            viewer.continuous(true);
            viewer
        })
        .collect();
    let mut viewer = lab.viewer(&[0, -308]);
    for round in 1..6u32 {
        let picture = move |x: u32, y: u32| ((x * 7919) ^ (y * 104729)).wrapping_mul(round) & 0xff_ffff;
        large.paint(large.bounds(), picture);
        display.show(&large, large.bounds()).unwrap();
        viewer.until(|screen| screen.width == 800 && shows(picture)(screen));
    }
    drop(stalled);
}

#[test]
fn nonsense_closes_its_viewer_with_a_reason_and_no_other() {
    let (lab, _display, _buffer) = Lab::new();
    let mut good = lab.viewer(ASKING);
    good.until(shows(test_picture));
    for nonsense in [&[99u8][..], &[2, 0, 255, 255], &[248, 0, 0, 0, 0, 0, 0, 0, 255], &[6, 0, 0, 0, 127, 0, 0, 0]] {
        let mut bad = lab.viewer(ASKING);
        bad.send(nonsense);
        while bad.next().is_ok() {}
    }
    let mut half = lab.viewer(ASKING);
    half.send(&[3, 0, 0]);
    drop(half);
    good.request(false);
    good.update();
    let path = lab.path("websocket");
    let reason = reason_of_close(&path, b"GET / HTTP/1.1\r\n");
    assert!(reason.contains("unknown version"), "{reason}");
}

fn reason_of_close(path: &Path, bytes: &[u8]) -> String {
    use std::io::{Read, Write};
    let mut socket = support::client::Messages::open(path).expect("a websocket");
    socket.write_all(bytes).expect("the server reads");
    let mut said = Vec::new();
    socket.read_to_end(&mut said).expect("the server closes");
    socket.reason.expect("a close frame with a reason")
}

#[test]
fn a_viewer_that_asks_without_taking_answers_is_given_up() {
    let (lab, _display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(&[0, -312]);
    let fence = [&[248, 0, 0, 0, 0x80, 0, 0, 0, 64][..], &[7; 64]].concat();
    let flood = fence.repeat(2000);
    // The server stops reading at some point, and the socket breaks.
    for _ in 0..50 {
        viewer.send(&flood);
    }
    assert!(viewer.broken);
}

#[test]
fn viewers_stay_while_the_machine_restarts() {
    let (mut lab, display, buffer) = Lab::new();
    let mut viewer = lab.viewer(ASKING);
    viewer.until(shows(test_picture));
    drop((display, buffer));
    lab.stop_machine();
    viewer.until(shows(|_, _| 0));
    let (display, buffer) = lab.start_machine();
    viewer.until(shows(test_picture));
    buffer.paint(buffer.bounds(), |_, _| 0x010203);
    display.show(&buffer, buffer.bounds()).unwrap();
    viewer.until(shows(|_, _| 0x010203));
    display.tell(&Event::Blank).unwrap();
    viewer.until(shows(|_, _| 0));
}

#[test]
fn a_machine_that_lies_is_given_up_and_its_viewers_stay() {
    let (mut lab, display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(ASKING);
    viewer.until(shows(test_picture));
    let lies = [
        Event::Frame { buffer: 9, area: Rect::of_size(1, 1), damage: Rect::default() },
        Event::Frame { buffer: 1, area: Rect { x: 1, y: 0, width: SIZE.0, height: SIZE.1 }, damage: Rect::default() },
        Event::Buffer { id: 5, width: 4, height: 4, stride: 16 },
        Event::BufferGone { id: 7 },
        Event::Hello { version: 1 },
        Event::Cursor { width: 100, height: 100, hot_x: 0, hot_y: 0, pixels: vec![0; 12] },
    ];
    let mut display = display;
    for lie in lies {
        display.tell(&lie).unwrap();
        viewer.until(shows(|_, _| 0));
        assert!(display.request(10_000).is_err(), "the proxy has gone: {lie:?}");
        let (next, _buffer) = lab.start_machine();
        display = next;
        viewer.until(shows(test_picture));
    }
}

#[test]
fn viewers_may_come_before_the_machine() {
    let mut lab = Lab::without_machine();
    let mut viewer = eventually(|| Client::plain(&lab.path("rfb")).ok());
    assert_eq!((viewer.screen.width, viewer.screen.height), (1280, 800));
    assert_eq!(viewer.name, "the desktop 桌面");
    viewer.set_encodings(ASKING);
    viewer.request(false);
    let _machine = lab.start_machine();
    viewer.until(|screen| screen.width == SIZE.0 && shows(test_picture)(screen));
}

#[test]
fn the_damage_of_a_picture_elsewhere_in_its_buffer_is_relative_to_it() {
    let (lab, display, _buffer) = Lab::new();
    let desk = Buffer::new(2, 800, 600);
    desk.paint(desk.bounds(), |x, y| x << 12 | y);
    display.announce(&desk).unwrap();
    let area = Rect { x: 111, y: 222, width: 333, height: 321 };
    let mut viewer = lab.viewer(&[0, -223]);
    display.tell(&Event::Frame { buffer: 2, area, damage: Rect::of_size(333, 321) }).unwrap();
    viewer.until(|screen| screen.width == 333 && shows(|x, y| (x + 111) << 12 | (y + 222))(screen));
    desk.paint(desk.bounds(), |_, _| 5);
    let damage = Rect { x: 10, y: 20, width: 30, height: 40 };
    display.tell(&Event::Frame { buffer: 2, area, damage }).unwrap();
    let inside = |x, y| (10..40).contains(&x) && (20..60).contains(&y);
    viewer.until(shows(|x, y| if inside(x, y) { 5 } else { (x + 111) << 12 | (y + 222) }));
}

#[test]
fn keys_and_pointer_arrive_and_are_let_go_when_the_viewer_goes() {
    let (lab, display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(ASKING);
    viewer.scan_code(0x61, 0x1e, true);
    viewer.scan_code(0x61, 0x1e, true);
    viewer.scan_code(0xff0d, 0x9c, true);
    viewer.scan_code(0xff0d, 0x9c, false);
    viewer.keysym(0x41, true);
    viewer.keysym(0xe9, true);
    viewer.pointer(299, 0, 0b1001);
    let key = |code, down| Request::Key { code, down };
    let at = |buttons| Request::Pointer { x: 32713, y: 81, buttons };
    assert_eq!(
        requests(&display, 5),
        [key(30, true), key(96, true), key(96, false), at(1), Request::Wheel { horizontal: 0, vertical: 1 },]
    );
    drop(viewer);
    assert_eq!(requests(&display, 2), [key(30, false), at(0)]);
}

#[test]
fn cursor_and_lamps_reach_the_viewer_when_they_change() {
    let (lab, display, _buffer) = Lab::new();
    let mut viewer = lab.viewer(ASKING);
    viewer.until(shows(test_picture));
    let pixels = vec![1, 2, 3, 255, 0, 0, 0, 0];
    display.tell(&Event::Cursor { width: 2, height: 1, hot_x: 1, hot_y: 0, pixels }).unwrap();
    viewer.request(true);
    let cursor = Extra::Cursor { hot: (1, 0), size: (2, 1), rgba: vec![3, 2, 1, 255, 0, 0, 0, 0] };
    assert_eq!(
        viewer.update(),
        Decoded {
            rects: vec![(Rect { x: 1, y: 0, width: 2, height: 1 }, 0x574d5664)],
            extras: vec![cursor],
            ..Decoded::default()
        }
    );
    display.tell(&Event::Leds { lit: 6 }).unwrap();
    viewer.request(true);
    assert_eq!(viewer.update().extras, [Extra::Leds(6)]);
}
