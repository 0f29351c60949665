//! What clients of the display see, to the pixel.

use std::time::{Duration, Instant};

use yunju_protocol::control::Counters;
use yunju_protocol::display::{POINTER_MAX, Rect, Request};

use crate::machine::{Machine, eventually};
use crate::viewer::{Cursor, Viewer};

/// The picture that `test=gpu` paints for a resource.
fn picture(tag: u32, width: u32, height: u32) -> Vec<u32> {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    rows.map(|(x, y)| tag << 16 | (y & 255) << 8 | (x & 255)).collect()
}

/// Waits until the picture is exactly this one.
fn sees(viewer: &mut Viewer, what: &str, expected: &[u32]) {
    viewer.wait(what, |viewer| viewer.pixels() == expected);
}

#[test]
fn two_viewers_see_every_picture_part_flip_pointer_and_size_exactly() {
    let (width, height) = (800, 600);
    let mut machine = Machine::boot("test=gpu").memory("128M").display(width, height).control().start();
    machine.expect("SIZE 800x600");
    let mut early = machine.viewer();
    machine.expect("SHOWN 1");
    let mut late = machine.viewer();
    let mut first = picture(1, width, height);
    for viewer in [&mut early, &mut late] {
        sees(viewer, "picture 1", &first);
        assert!(!viewer.can_write(), "a client can change the guest's picture");
        viewer.forget_damage();
    }
    assert_eq!(machine.get::<Counters>("/machine/counters").display_clients, 2);

    machine.type_text(".");
    machine.expect("SHOWN part");
    let part = Rect { x: 100, y: 50, width: 64, height: 32 };
    for y in part.y..part.bottom() {
        first[(y * width + part.x) as usize..][..part.width as usize].fill(0xff_8000);
    }
    for viewer in [&mut early, &mut late] {
        viewer.wait("the part's damage", |viewer| !viewer.damage.is_empty());
        sees(viewer, "the part", &first);
        assert_eq!(viewer.damage, [part]);
    }

    let second = picture(2, width, height);
    for (what, expected) in [("2", &second), ("1 again", &first)] {
        machine.type_text(".");
        machine.expect(&format!("SHOWN {what}"));
        sees(&mut early, what, expected);
        sees(&mut late, what, expected);
    }

    machine.type_text(".");
    machine.expect("SHOWN pointer");
    let pointer = pointer();
    early.wait("the pointer", |viewer| viewer.cursor.as_ref() == Some(&pointer));
    late.wait("the pointer", |viewer| viewer.cursor.as_ref() == Some(&pointer));
    machine.type_text(".");
    machine.expect("SHOWN no pointer");
    early.wait("no pointer", |viewer| viewer.cursor.as_ref().is_some_and(|cursor| cursor.width == 0));

    machine.type_text(".");
    machine.expect("RESIZE");
    early.ask(&Request::Resize { width: 1000, height: 700 });
    machine.expect("SIZE 1000x700");
    machine.expect("SHOWN 3");
    let third = picture(3, 1000, 700);
    sees(&mut early, "picture 3", &third);
    sees(&mut late, "picture 3", &third);

    machine.type_text(".");
    machine.expect("SHOWN corner");
    let corner: Vec<u32> = (8..8 + 350).flat_map(|y| third[y * 1000 + 16..][..500].iter().copied()).collect();
    sees(&mut early, "the corner", &corner);
    assert_eq!(early.size(), Some((500, 350)));

    machine.type_text(".");
    machine.expect("SHOWN nothing");
    early.wait("a dark screen", |viewer| viewer.blank);
    assert_eq!(machine.request("GET", "/machine/screenshot").0, 404);
    machine.type_text(".");
    machine.succeeds();
}

/// The pointer of `test=gpu`.
fn pointer() -> Cursor {
    let mut pixels = Vec::new();
    for y in 0..64_u8 {
        for x in 0..64_u8 {
            pixels.extend(if x < 32 { [255, 4 * y, 4 * x, 255] } else { [0; 4] });
        }
    }
    Cursor { width: 64, height: 64, hot: (5, 7), pixels }
}

#[test]
fn a_screenshot_is_the_picture() {
    let mut machine = Machine::boot("test=gpu").display(640, 480).control().start();
    machine.expect("SHOWN 1");
    let (status, body) = machine.request("GET", "/machine/screenshot");
    assert_eq!(status, 200);
    let mut reader = png::Decoder::new(std::io::Cursor::new(body)).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!((info.width, info.height), (640, 480));
    let samples = info.color_type.samples();
    let pixels: Vec<u32> = bytes[..info.buffer_size()]
        .chunks_exact(samples)
        .map(|p| u32::from(p[0]) << 16 | u32::from(p[1]) << 8 | u32::from(p[2]))
        .collect();
    assert!(pixels == picture(1, 640, 480));
}

/// A number of the test card (see `images/probe/README.md`).
fn number(viewer: &Viewer, row: u32) -> u32 {
    (0..16).fold(0, |number, bit| {
        let pixel = viewer.pixel(280 + bit * 8 + 4, 164 + row * 24 + 6);
        number << 1 | u32::from(pixel == Some(0xff_ffff))
    })
}

fn patch(viewer: &Viewer) -> Option<u32> {
    viewer.pixel(140, 260)
}

#[test]
fn the_card_shows_keys_pointer_lamps_sizes_and_starts() {
    let mut machine = Machine::card().display(1024, 768).disk("starts", 512).control().start();
    let mut viewer = machine.viewer();
    machine.expect("CARD READY 1024x768 boot 1");
    viewer.wait("the card", |viewer| number(viewer, 7) == 1);
    assert_eq!(patch(&viewer), Some(0x40_4040));
    assert_eq!(viewer.pixel(64, 60), Some(0xff_ffff));
    assert!(viewer.cursor.as_ref().is_some_and(|cursor| (cursor.width, cursor.hot) == (64, (0, 0))));

    viewer.tap(30);
    viewer.wait("a red patch", |viewer| patch(viewer) == Some(0xff_0000));
    viewer.wait("the key's code", |viewer| number(viewer, 0) == 1 && number(viewer, 1) == 30);

    viewer.ask(&Request::Key { code: 58, down: true });
    viewer.wait("caps lock", |viewer| viewer.leds == Some(4) && number(viewer, 6) == 2);

    let exact = |pixel: u32, pixels: u32| (pixel * u32::from(POINTER_MAX) / (pixels - 1) + 1) as u16;
    viewer.ask(&Request::Pointer { x: exact(500, 1024), y: exact(600, 768), buttons: 1 });
    viewer.wait("the pointer", |viewer| (number(viewer, 2), number(viewer, 3)) == (500, 600));
    viewer.wait("the cross", |viewer| viewer.pixel(500, 600) == Some(0xff_4040) && number(viewer, 4) == 1);

    viewer.ask(&Request::Resize { width: 1280, height: 720 });
    machine.expect("CARD SIZE 1280x720");
    viewer.wait("the new size", |viewer| viewer.size() == Some((1280, 720)) && number(viewer, 0) == 2);

    machine.request("POST", "/machine/power-button");
    machine.expect("CARD OFF");
    assert_eq!(machine.end().0, 0);
}

#[test]
fn an_idle_card_does_not_leave_the_guest() {
    let mut machine = Machine::card().display(640, 480).control().start();
    machine.expect("CARD READY");
    // It settles down after its last line.
    let exits = || machine.get::<Counters>("/machine/counters").vcpu_exits;
    let settled = eventually(
        || {
            let before = exits();
            std::thread::sleep(Duration::from_millis(50));
            (exits() == before).then_some(before)
        },
        || "the card never settles down".into(),
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(exits(), settled);
}

#[test]
fn a_dead_a_silent_and_a_lying_client_change_nothing_for_the_others() {
    let mut machine = Machine::card().display(640, 480).control().start();
    machine.expect("CARD READY");
    let mut watching = machine.viewer();
    watching.wait("the card", |viewer| patch(viewer) == Some(0x40_4040));

    let dead = machine.viewer();
    dead.ask(&Request::Key { code: 42, down: true });
    watching.wait("the key", |viewer| number(viewer, 1) == 42 | 1 << 15);
    drop(dead);
    watching.wait("the key of the dead one let go", |viewer| number(viewer, 1) == 42 && number(viewer, 0) == 1);

    // Reads nothing, for ever.
    let _silent = machine.viewer();
    for bytes in [&b"\xff\xff\xff"[..], &[0x80; 200], &[9]] {
        let mut lying = machine.viewer();
        lying.send_bytes(bytes);
        lying.wait_for_close();
    }
    let mut beyond = machine.viewer();
    beyond.ask(&Request::Pointer { x: POINTER_MAX + 1, y: 0, buttons: 0 });
    beyond.wait_for_close();

    let start = Instant::now();
    for round in 2..300 {
        watching.tap(30);
        if round % 50 == 0 {
            watching.wait("the keys", |viewer| number(viewer, 0) == round);
        }
    }
    watching.wait("all keys", |viewer| number(viewer, 0) == 299);
    assert!(start.elapsed() < Duration::from_secs(60), "300 keys took {:?}", start.elapsed());
    let clients = || (machine.get::<Counters>("/machine/counters").display_clients == 2).then_some(());
    eventually(clients, || "the dead are still counted".into());
}
