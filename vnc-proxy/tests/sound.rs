//! Sound and microphones between a machine and listeners.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod support;

use std::io;
use std::path::Path;

use support::client::Messages;
use support::lab::{Lab, eventually};
use support::machine::Display;
use tokio_tungstenite::tungstenite::Message;
use yunju_protocol::display::{Event, Request};

/// 20 ms.
const PACKET: usize = 3840;

fn listener(path: &Path, words: &str) -> Messages {
    let mut listener = Messages::open_for(path, "/audio").unwrap();
    say(&mut listener, words);
    listener
}

/// Says something that is answered by the same.
fn say(listener: &mut Messages, words: &str) {
    listener.say(Message::text(words.to_owned())).unwrap();
    assert_eq!(listener.hear().unwrap(), Message::text(words.to_owned()));
}

fn requested(display: &Display) -> Request {
    display.request(20_000).unwrap().expect("a request in time")
}

fn is_closed(listener: &mut Messages) -> bool {
    loop {
        match listener.hear() {
            Ok(Message::Close(_)) | Err(_) => return true,
            Ok(Message::Binary(_) | Message::Text(_)) => return false,
            Ok(_) => {}
        }
    }
}

#[test]
fn the_machine_is_asked_for_sound_while_somebody_listens_and_all_hear_the_same() {
    let (mut lab, mut display, _buffer) = Lab::new();
    let path = lab.path("websocket");
    let mut first = listener(&path, "listen pcm");
    assert_eq!(requested(&display), Request::Listen { on: true });
    let mut second = listener(&path, "listen pcm");
    let samples: Vec<u8> = (0..2 * PACKET).map(|at| at as u8 | 1).collect();
    for (index, piece) in samples.chunks(1920).enumerate() {
        display.tell(&Event::Sound { time: 500 + index as u64 * 10_000, samples: piece.to_vec() }).unwrap();
    }
    for listener in [&mut first, &mut second] {
        for (number, sound) in (0u8..).zip(samples.chunks(PACKET)) {
            let time = (500 + u64::from(number) * 20_000).to_be_bytes();
            let expected = [&[0, 0, 0, number], &time[..], sound].concat();
            assert_eq!(listener.hear().unwrap(), Message::binary(expected));
        }
    }
    // A machine that starts again is asked again.
    drop(display);
    lab.stop_machine();
    (display, _) = lab.start_machine();
    assert_eq!(requested(&display), Request::Listen { on: true });
    drop(first);
    say(&mut second, "listen nothing");
    assert_eq!(requested(&display), Request::Listen { on: false });
}

#[test]
#[cfg(feature = "opus")]
fn who_asks_for_opus_gets_packets_of_a_tenth_of_the_size() {
    let (lab, display, _buffer) = Lab::new();
    let mut listener = listener(&lab.path("websocket"), "listen opus");
    assert_eq!(requested(&display), Request::Listen { on: true });
    let wave: Vec<u8> = (0..960i32).flat_map(|at| (((at % 96) * 200 - 9600) as i16).to_le_bytes().repeat(2)).collect();
    for number in 0..10 {
        display.tell(&Event::Sound { time: number * 20_000, samples: wave.clone() }).unwrap();
    }
    for number in 0..10u32 {
        let Message::Binary(packet) = listener.hear().unwrap() else { panic!("no packet") };
        assert_eq!(packet[..4], number.to_be_bytes());
        assert!((10..600).contains(&packet.len()), "{} bytes", packet.len());
    }
}

#[test]
fn one_microphone_at_a_time_is_heard_and_only_when_it_is_on() {
    let (lab, display, _buffer) = Lab::new();
    let path = lab.path("websocket");
    let mut first = listener(&path, "microphone on");
    let mut second = listener(&path, "microphone off");
    second.say(Message::binary(vec![9; 100])).unwrap();
    first.say(Message::binary(vec![1; 960])).unwrap();
    assert_eq!(requested(&display), Request::Microphone { samples: vec![1; 960] });
    say(&mut second, "microphone on");
    assert_eq!(first.hear().unwrap(), Message::text("microphone off"));
    first.say(Message::binary(vec![1; 960])).unwrap();
    say(&mut first, "microphone off");
    second.say(Message::binary(vec![2; 960])).unwrap();
    assert_eq!(requested(&display), Request::Microphone { samples: vec![2; 960] });
    // One that says more than time allows is not heard, and keys are not held up by it.
    for _ in 0..200 {
        second.say(Message::binary(vec![3; 16_000])).unwrap();
    }
    say(&mut second, "microphone off");
    let heard = std::iter::from_fn(|| display.request(200).unwrap()).count();
    assert!((1..60).contains(&heard), "{heard} of 200");
}

#[test]
fn who_says_what_no_listener_says_is_given_up() {
    let (lab, _display, _buffer) = Lab::new();
    let path = lab.path("websocket");
    for nonsense in [
        Message::text("listen mp3"),
        Message::text(""),
        Message::text("x".repeat(10_000)),
        Message::binary(vec![1; 3]),
        Message::binary(vec![1; 16 * 1024 + 2]),
        Message::binary(vec![1; 2 << 20]),
    ] {
        let mut listener = listener(&path, "microphone on");
        // It may be cut off before all is said.
        let _: io::Result<()> = listener.say(nonsense);
        assert!(is_closed(&mut listener));
    }
    // And the others are served.
    eventually(|| Messages::open_for(&path, "/audio").ok());
}

#[test]
fn a_listener_that_does_not_read_loses_sound_and_holds_nobody_up() {
    let (lab, display, _buffer) = Lab::new();
    let path = lab.path("websocket");
    let mut slow = listener(&path, "listen pcm");
    let mut quick = listener(&path, "listen pcm");
    assert_eq!(requested(&display), Request::Listen { on: true });
    let mut heard = 0;
    for number in 0..1000u64 {
        display.tell(&Event::Sound { time: number * 20_000, samples: vec![1; PACKET] }).unwrap();
        // In step, so that the quick one is not slow.
        let Message::Binary(packet) = quick.hear().unwrap() else { panic!("no packet") };
        heard += u64::from(packet[..4] == (number as u32).to_be_bytes());
    }
    assert_eq!(heard, 1000);
    say_only(&mut slow, "listen nothing");
    let mut packets = 0;
    while let Message::Binary(_) = slow.hear().unwrap() {
        packets += 1;
    }
    assert!(packets < 900, "{packets} of 1000");
}

fn say_only(listener: &mut Messages, words: &str) {
    listener.say(Message::text(words.to_owned())).unwrap();
}
