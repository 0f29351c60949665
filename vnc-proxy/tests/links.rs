//! Videos and slow links: who sees what, and what comes first.

mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::decode::Decoder;
use support::lab::Lab;
use support::link::Link;
use support::machine::Buffer;
use yunju_protocol::display::Rect;

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
