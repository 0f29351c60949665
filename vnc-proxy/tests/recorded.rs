//! What real viewers send, recorded: noVNC 1.7.0 in Chromium and TigerVNC's vncviewer 1.12.0.

mod support;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::decode::{Decoder, RGBX, take, u32};
use support::lab::{Lab, SIZE, test_picture};
use yunju_protocol::display::{Rect, Request};
use yunju_vnc_proxy::rfb::encodings::{Abilities, CursorForm, Encoding};
use yunju_vnc_proxy::rfb::incoming::{Message, parse};

const NOVNC: &[u8] = include_bytes!("data/novnc-1.7.0.bin");
const VNCVIEWER: &[u8] = include_bytes!("data/vncviewer-1.12.0.bin");

/// Version, choice of security, whether to share.
const HANDSHAKE: usize = 12 + 1 + 1;

fn messages(recorded: &[u8]) -> Vec<Message> {
    let mut rest = &recorded[HANDSHAKE..];
    let mut messages = Vec::new();
    while let Some((message, used)) = parse(rest, true).expect("what real viewers send") {
        let skipped = if let Message::CutText { length, .. } = message { length as usize } else { 0 };
        rest = &rest[used + skipped..];
        messages.push(message);
    }
    assert_eq!(rest, b"", "the recording ends with a whole message");
    messages
}

fn abilities(messages: &[Message]) -> Abilities {
    let list = messages.iter().find_map(|message| match message {
        Message::SetEncodings(list) => Some(list),
        _ => None,
    });
    Abilities::of(list.expect("a list of encodings"))
}

#[test]
fn novnc_is_understood() {
    let messages = messages(NOVNC);
    let abilities = abilities(&messages);
    assert_eq!((abilities.encoding, abilities.quality, abilities.compression), (Encoding::Tight, Some(6), 2));
    assert_eq!(abilities.cursor, Some(CursorForm::Vmware));
    assert!(abilities.copy_rect && abilities.last_rect && abilities.fence && abilities.continuous);
    assert!(abilities.extended_desktop_size && abilities.qemu_keys && abilities.qemu_leds && abilities.mouse_buttons);
    let area = Rect::of_size(1280, 800);
    for expected in [
        Message::ContinuousUpdates { enable: true, area },
        Message::Pointer { x: 400, y: 500, buttons: 1 },
        Message::ScanCode { keysym: 0x61, code: 0x1e, down: true },
        Message::Pointer { x: 450, y: 150, buttons: 1 << 4 },
        Message::CutText { length: 5, extended: false },
        Message::SetDesktopSize { width: 1000, height: 800 },
    ] {
        assert!(messages.contains(&expected), "{expected:?} in {messages:?}");
    }
}

#[test]
fn vncviewer_is_understood() {
    let messages = messages(VNCVIEWER);
    let abilities = abilities(&messages);
    assert_eq!((abilities.encoding, abilities.quality, abilities.compression), (Encoding::Tight, Some(8), 2));
    assert!(abilities.copy_rect && abilities.last_rect && abilities.fence && abilities.continuous);
    assert!(messages.iter().any(|message| matches!(message, Message::ContinuousUpdates { enable: true, .. })));
}

/// Plays what a viewer said to a proxy, and decodes what it answers until the picture is there.
fn play(lab: &Lab, recorded: &[u8], screen: &mut Decoder) {
    let mut stream = UnixStream::connect(lab.path("rfb")).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    for piece in recorded.chunks(7) {
        stream.write_all(piece).expect("the proxy reads");
    }
    take(&mut stream, 12 + 2 + 4 + 4 + 16).expect("a handshake");
    let name = u32(&mut stream).expect("a name's length");
    take(&mut stream, name as usize).expect("a name");
    let exact = |screen: &Decoder| {
        let places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        screen.pixels.iter().zip(places).all(|(shown, (x, y))| *shown == test_picture(x, y))
    };
    while !exact(screen) {
        match take(&mut stream, 1).expect("a message")[0] {
            0 => drop(screen.update(&mut stream).expect("an update")),
            3 => {
                take(&mut stream, 3).expect("a clipboard message");
                let length = u32(&mut stream).expect("its length").cast_signed().unsigned_abs();
                take(&mut stream, length as usize).expect("its content");
            }
            150 => {}
            248 => {
                take(&mut stream, 7).expect("a fence");
                let length = take(&mut stream, 1).expect("its length")[0];
                let number = take(&mut stream, length.into()).expect("its content");
                // As the recorded viewer would have answered.
                let answer = [&[248, 0, 0, 0, 0, 0, 0, 1, length][..], &number].concat();
                stream.write_all(&answer).expect("the proxy reads");
            }
            other => panic!("unknown message {other}"),
        }
    }
}

#[test]
fn what_novnc_says_is_answered_with_the_picture() {
    let (lab, display, _buffer) = Lab::new();
    drop(lab.viewer(&[0]));
    let mut screen = Decoder::new(SIZE.0, SIZE.1);
    screen.format = RGBX;
    play(&lab, NOVNC, &mut screen);
    let mut requests = Vec::new();
    while let Some(request) = display.request(2000).expect("the proxy stays") {
        requests.push(request);
    }
    for expected in [
        Request::Key { code: 30, down: true },
        Request::Key { code: 28, down: false },
        Request::Wheel { horizontal: 0, vertical: -1 },
        Request::Resize { width: 1000, height: 800 },
    ] {
        assert!(requests.contains(&expected), "{expected:?} in {requests:?}");
    }
}

#[test]
fn what_vncviewer_says_is_answered_with_the_picture() {
    let (lab, _display, _buffer) = Lab::new();
    drop(lab.viewer(&[0]));
    play(&lab, VNCVIEWER, &mut Decoder::new(SIZE.0, SIZE.1));
}
