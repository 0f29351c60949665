//! Videos and slow links: who sees what, and what comes first.

mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::decode::Decoder;
use support::lab::Lab;
use support::link::Link;
use support::machine::Buffer;
use yunju_protocol::display::{Rect, Request};

/// What noVNC lists when its browser knows H.264, and when it does not.
const WITH_VIDEO: &[i32] = &[1, 50, 7, 16, 0, -26, -254, -223, -224, -308, -312, -313];
const WITHOUT: &[i32] = &[1, 7, 16, 0, -26, -254, -223, -224, -308, -312, -313];

fn noise(x: u32, y: u32, seed: u32) -> u32 {
    let mut value = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b) ^ seed.wrapping_mul(0xc2b2_ae35);
    value = (value ^ value >> 15).wrapping_mul(0x2c1b_3c6d);
    value ^ value >> 13
}

/// A picture of a film: soft colours that wander, with grain.
fn film(x: u32, y: u32, nth: u32) -> u32 {
    let soft = |by: u32| (x * by + y + nth * 3) / 3 % 256;
    (soft(1) << 16 | soft(2) << 8 | soft(3)) ^ noise(x, y, nth) & 0x07_0707
}

fn shows(pixel: impl Fn(u32, u32) -> u32) -> impl Fn(&Decoder) -> bool {
    move |screen| {
        let places = (0..screen.height).flat_map(|y| (0..screen.width).map(move |x| (x, y)));
        screen.pixels.iter().zip(places).all(|(shown, (x, y))| *shown == pixel(x, y))
    }
}

/// A viewer that wants updates without asking, from a plain socket.
fn unasking(path: &std::path::Path, encodings: &[i32]) -> Client {
    let mut viewer = Client::plain(path).expect("a server that listens");
    viewer.set_encodings(encodings);
    viewer.request(false);
    viewer.continuous(true);
    viewer
}

#[test]
fn viewers_come_and_go_during_a_video_and_all_end_with_its_exact_last_picture() {
    const LAST: u32 = 110;
    let (lab, display, _small) = Lab::new();
    let buffer = Buffer::new(2, 400, 300);
    buffer.paint(buffer.bounds(), |x, y| film(x, y, 0));
    display.announce(&buffer).unwrap();
    display.show(&buffer, buffer.bounds()).unwrap();
    let path = lab.path("rfb");
    let stalled = unasking(&path, WITH_VIDEO);
    let mut viewers = Vec::new();
    for nth in 1..=LAST {
        if [1, 2, 50, 60, 90].contains(&nth) {
            let path = path.clone();
            let encodings = if nth == 2 { WITHOUT } else { WITH_VIDEO };
            viewers.push(std::thread::spawn(move || {
                let mut viewer = unasking(&path, encodings);
                if nth == 50 {
                    // Goes in the middle of it.
                    (0..10).for_each(|_| drop(viewer.update()));
                    return None;
                }
                let right = shows(|x, y| film(x, y, LAST));
                let updates = viewer.unasked_until(|screen| screen.width == 400 && right(screen));
                Some((nth, updates.iter().map(|update| update.frames).sum::<usize>()))
            }));
        }
        buffer.paint(buffer.bounds(), |x, y| film(x, y, nth));
        display.show(&buffer, buffer.bounds()).unwrap();
        std::thread::sleep(Duration::from_millis(25));
    }
    let seen: Vec<_> = viewers.into_iter().filter_map(|viewer| viewer.join().expect("a viewer ends well")).collect();
    assert_eq!(seen.len(), 4);
    for (nth, frames) in seen {
        let video = cfg!(feature = "h264") && nth != 2;
        assert_eq!(frames > 0, video, "the viewer that came at picture {nth} got {frames} frames");
    }
    drop(stalled);
}

#[test]
fn on_a_slow_link_a_key_is_seen_long_before_a_photograph_is_repaired() {
    let (lab, display, _small) = Lab::new();
    let buffer = Buffer::new(2, 640, 400);
    let photograph = |x, y| film(x, y, 5);
    let spot = Rect { x: 300, y: 200, width: 9, height: 16 };
    let inside = move |x, y| Rect { x, y, width: 1, height: 1 }.intersection(&spot).area() == 1;
    buffer.paint(buffer.bounds(), photograph);
    display.announce(&buffer).unwrap();
    display.show(&buffer, buffer.bounds()).unwrap();
    let near = lab.path("slow");
    // The repair is some 400 KB.
    Link { delay: Duration::from_millis(40), rate: 60e3, lost: 20 }.open(&near, &lab.path("rfb"));
    let mut viewer = unasking(&near, WITHOUT);
    let known = |screen: &Decoder| screen.width == 640 && screen.pixels[640 * 399 + 639] != 0 && screen.pixels[0] != 0;
    viewer.unasked_until(known);
    let mut waits = Vec::new();
    for key in 0..5u32 {
        let colour = 0x10_20f0 + key;
        buffer.paint(spot, |_, _| colour);
        let start = Instant::now();
        display.show(&buffer, spot).unwrap();
        let near = |pixel: u32| pixel & 255 > 200 && pixel >> 16 < 80;
        viewer.unasked_until(|screen| near(screen.pixels[208 * 640 + 304]));
        waits.push(start.elapsed());
        let repaired = shows(|x, y| if inside(x, y) { colour } else { photograph(x, y) })(&viewer.screen);
        assert!(!repaired || key > 0, "the link is slow");
        buffer.paint(spot, |_, _| 0xff_ff00);
        display.show(&buffer, spot).unwrap();
        viewer.unasked_until(|screen| screen.pixels[208 * 640 + 304] >> 16 > 200);
    }
    waits.sort();
    assert!(waits[2] < Duration::from_millis(1500), "{waits:?}");
    viewer.unasked_until(shows(|x, y| if inside(x, y) { 0xff_ff00 } else { photograph(x, y) }));
}

/// A transatlantic mobile line: 80 ms there and back, one packet of twenty lost, 4 Mbit/s.
const LOSSY: Link = Link { delay: Duration::from_millis(40), rate: 500e3, lost: 20 };

#[test]
fn on_a_lossy_link_keys_are_answered_during_a_video_and_an_idle_viewer_ends_with_exactly_its_last_picture() {
    const LAST: u32 = 120;
    let (lab, display, _small) = Lab::new();
    let buffer = Buffer::new(2, 480, 320);
    let spot = Rect { x: 460, y: 300, width: 9, height: 16 };
    let picture = |nth: u32, keys: u32| {
        let key = if keys.is_multiple_of(2) { 0 } else { 0xff_ffff };
        move |x: u32, y: u32| {
            if x < 400 {
                film(x, y, nth)
            } else if x >= 460 && y >= 300 {
                key
            } else {
                0x20_3040
            }
        }
    };
    buffer.paint(buffer.bounds(), picture(0, 0));
    display.announce(&buffer).unwrap();
    display.show(&buffer, buffer.bounds()).unwrap();
    let near = lab.path("lossy");
    LOSSY.open(&near, &lab.path("rfb"));
    let mut viewer = unasking(&near, WITH_VIDEO);
    let person = std::thread::spawn(move || {
        viewer.unasked_until(|screen| screen.width == 480);
        let mut waits = Vec::new();
        for key in 1..=8u32 {
            let start = Instant::now();
            viewer.scan_code(0x61, 0x1e, !key.is_multiple_of(2));
            let answer = if key.is_multiple_of(2) { 0 } else { 0xff_ffff };
            viewer.unasked_until(|screen| screen.pixels[304 * 480 + 464] == answer);
            waits.push(start.elapsed());
        }
        let updates = viewer.unasked_until(shows(picture(LAST, 8)));
        (waits, updates.len())
    });
    let mut keys = 0;
    for nth in 1..=LAST {
        while let Some(Request::Key { .. }) = display.request(if nth < LAST { 0 } else { 20_000 }).unwrap() {
            keys += 1;
            buffer.paint(Rect { width: 20, height: 20, ..spot }, picture(nth, keys));
            display.show(&buffer, Rect { width: 20, height: 20, ..spot }).unwrap();
            if nth == LAST && keys == 8 {
                break;
            }
        }
        buffer.paint(Rect { width: 400, ..buffer.bounds() }, picture(nth, keys));
        display.show(&buffer, buffer.bounds()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(keys, 8, "all keys arrive");
    let (mut waits, updates) = person.join().expect("a viewer ends well");
    waits.sort();
    assert!(waits[4] < Duration::from_secs(3), "{waits:?}");
    assert!(updates > 0, "what was sent with loss is repaired");
}

#[test]
fn twenty_viewers_that_come_stall_and_go_as_they_like_all_end_with_exactly_the_last_picture() {
    const LAST: u32 = 60;
    let (lab, display, _small) = Lab::new();
    let buffer = Buffer::new(2, 240, 180);
    buffer.paint(buffer.bounds(), |x, y| film(x, y, 0));
    display.announce(&buffer).unwrap();
    display.show(&buffer, buffer.bounds()).unwrap();
    let (near, lossy) = (lab.path("rfb"), lab.path("lossy"));
    LOSSY.open(&lossy, &near);
    let viewers: Vec<_> = (0..20u32)
        .map(|number| {
            let path = if number % 5 == 4 { lossy.clone() } else { near.clone() };
            std::thread::spawn(move || {
                let chance = |of: u32, count: u32| noise(number, of, 7) % count;
                let pause = |of: u32| std::thread::sleep(Duration::from_millis(chance(of, 500).into()));
                let encodings = if chance(1, 3) == 0 { WITHOUT } else { WITH_VIDEO };
                pause(2);
                for visit in 0..chance(3, 3) {
                    // Comes for a few pictures, and goes in the middle of one.
                    let mut viewer = unasking(&path, encodings);
                    (0..chance(10 + visit, 5)).for_each(|_| drop(viewer.update()));
                    pause(20 + visit);
                }
                let mut viewer = unasking(&path, encodings);
                for stall in 0..chance(4, 4) {
                    viewer.update();
                    pause(30 + stall);
                }
                let right = shows(|x, y| film(x, y, LAST));
                viewer.unasked_until(|screen| screen.width == 240 && right(screen));
                number
            })
        })
        .collect();
    for nth in 1..=LAST {
        buffer.paint(buffer.bounds(), |x, y| film(x, y, nth));
        display.show(&buffer, buffer.bounds()).unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    let ended: Vec<u32> = viewers.into_iter().map(|viewer| viewer.join().expect("a viewer ends well")).collect();
    assert_eq!(ended, (0..20).collect::<Vec<_>>());
}
