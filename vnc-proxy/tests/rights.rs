//! What the service says that a viewer may: nothing else of theirs reaches the machine, whatever they send.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod support;

use std::io;

use support::client::{Client, Messages};
use support::decode::Extra;
use support::frames::{Frames, Page, agent, page_with_agent};
use support::lab::{Lab, SIZE, eventually, test_picture};
use tokio_tungstenite::tungstenite::Message;
use yunju_protocol::display::Request;
use yunju_protocol::page::{FromPage, ToPage};
use yunju_protocol::seat::{FromSeat, Kind, Layout, ToSeat};
use yunju_protocol::viewer::{MAY, May, NAME};
use yunju_vnc_proxy::rfb::clipboard::latin1;

const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();

fn open(lab: &Lab, address: &str, may: &str) -> io::Result<Messages> {
    Messages::open_as(&lab.path("websocket"), address, &[(MAY, may.as_bytes()), (NAME, b"Zo%C3%AB")])
}

/// A viewer that sees the machine's picture.
fn viewer(lab: &Lab, may: &str) -> Client {
    let mut viewer = eventually(|| {
        let client = Client::shake_hands(Box::new(open(lab, "/", may).unwrap())).ok();
        client.filter(|client| client.screen.width == SIZE.0)
    });
    viewer.set_encodings(&[0, -308, -258, EXTENDED_CLIPBOARD]);
    viewer.request(false);
    viewer.until(|screen| screen.pixels[0] == test_picture(0, 0) && screen.pixels[299] == test_picture(299, 0));
    viewer
}

/// A page, and what it is told of its rights.
fn page(lab: &Lab, may: &str) -> (Page, ToPage) {
    let mut page = Frames::new(open(lab, "/io", may).unwrap());
    let able = loop {
        if let able @ ToPage::Able { agent: true, .. } = page.hear().0 {
            break able;
        }
    };
    (page, able)
}

#[test]
fn who_may_only_look_sees_everything_and_moves_nothing() {
    let (lab, display, buffer) = Lab::new();
    let mut looks_on = viewer(&lab, "clipboard,sound");
    looks_on.scan_code(0x61, 0x1e, true);
    looks_on.keysym(0x62, true);
    looks_on.pointer(5, 5, 1);
    looks_on.wish(640, 480);
    looks_on.request(true);
    let answer = looks_on.update().extras;
    assert!(matches!(answer[..], [Extra::ExtendedSize { reason: 1, status: 1, .. }]), "prohibited: {answer:?}");
    let mut works = viewer(&lab, "input");
    works.scan_code(0x63, 0x2e, true);
    let first = display.request(20_000).unwrap().unwrap();
    assert_eq!(first, Request::Key { code: 0x2e, down: true }, "all before it came to nothing");
    buffer.paint(buffer.bounds(), |_, _| 0x123456);
    display.show(&buffer, buffer.bounds()).unwrap();
    looks_on.until(|screen| screen.pixels.iter().all(|pixel| *pixel == 0x123456));
    drop(looks_on);
    works.scan_code(0x63, 0x2e, false);
    assert_eq!(
        display.request(20_000).unwrap(),
        Some(Request::Key { code: 0x2e, down: false }),
        "nor is anything let go"
    );
}

#[test]
fn a_page_without_input_types_lays_out_and_moves_nothing() {
    let (lab, display, _buffer) = Lab::new();
    let mut agent = agent(&lab);
    page_with_agent(&lab);
    let (mut page, able) = page(&lab, "clipboard");
    let may = May { clipboard: true, ..May::NOTHING };
    assert_eq!(able, ToPage::Able { agent: true, to_guest: true, from_guest: true, text: false, may });
    page.say(&FromPage::Move { x: 1, y: 1, buttons: 1 }, b"");
    page.say(&FromPage::Scroll { x: 1, y: 1 }, b"");
    page.say(&FromPage::Layout(Layout { layout: "de".into(), variant: String::new() }), b"");
    page.say(&FromPage::Type { length: 1 }, b"x");
    page.say(&FromPage::Clip { kind: Kind::Text, length: 1 }, b"c");
    assert_eq!(agent.hear::<ToSeat>(), (ToSeat::Clip { kind: Kind::Text, length: 1 }, b"c".to_vec()));
    let (mut other, _) = self::page(&lab, "input");
    other.say(&FromPage::Scroll { x: 0, y: 5 }, b"");
    assert_eq!(display.request(20_000).unwrap(), Some(Request::Scroll { horizontal: 0, vertical: 5 }));
}

#[test]
fn without_the_clipboard_nothing_is_pasted_and_nothing_that_is_copied_is_told() {
    let (lab, _display, _buffer) = Lab::new();
    let mut agent = agent(&lab);
    let mut sees = page_with_agent(&lab);
    let (mut page, able) = page(&lab, "input,sound");
    let may = May { clipboard: false, ..May::default() };
    assert_eq!(able, ToPage::Able { agent: true, to_guest: false, from_guest: false, text: true, may });
    let mut rfb = viewer(&lab, "input,sound");
    rfb.send(&[&[6], &latin1("secret")[1..]].concat());
    rfb.send(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfc, 8, 0, 0, 1]); // there is text to be asked for
    page.say(&FromPage::Clip { kind: Kind::Text, length: 6 }, b"secret");
    page.say(&FromPage::Type { length: 5 }, b"typed");
    assert_eq!(agent.hear::<ToSeat>(), (ToSeat::Type { length: 5 }, b"typed".to_vec()));
    agent.say(&FromSeat::Clip { kind: Kind::Text, length: 5 }, b"mine!");
    agent.say(&FromSeat::Taken, b"");
    while !matches!(sees.hear::<ToPage>(), (ToPage::Clip { .. }, bytes) if bytes == b"mine!") {}
    agent.say(&FromSeat::Layout(Layout { layout: "fr".into(), variant: String::new() }), b"");
    let after = loop {
        let head = page.hear::<ToPage>().0;
        if !matches!(head, ToPage::Person { .. } | ToPage::Gone { .. }) {
            break head;
        }
    };
    assert!(matches!(after, ToPage::Layout(_)), "what comes after the clip is there, the clip is not: {after:?}");
    rfb.request(false);
    rfb.update();
    assert!(rfb.cuts.is_empty(), "nor do RFB's own messages tell of it, or of a clipboard at all");
}

#[test]
fn without_sound_a_listener_is_told_so_and_hung_up_on() {
    let (lab, display, _buffer) = Lab::new();
    let mut refused = open(&lab, "/audio", "input,clipboard").unwrap();
    let Message::Close(Some(frame)) = refused.hear().unwrap() else { panic!("it is hung up on") };
    assert_eq!(frame.reason.as_str(), "this viewer may not hear the desktop's sound");
    let mut hears = open(&lab, "/audio", "sound").unwrap();
    hears.say(Message::text("microphone on")).unwrap();
    assert_eq!(hears.hear().unwrap(), Message::text("microphone off"), "a microphone is input");
    hears.say(Message::binary(vec![1, 2])).unwrap();
    hears.say(Message::text("listen pcm")).unwrap();
    assert_eq!(hears.hear().unwrap(), Message::text("listen pcm"));
    assert_eq!(display.request(20_000).unwrap(), Some(Request::Listen { on: true }), "the microphone was not heard");
}

#[test]
fn who_is_not_said_clearly_is_not_let_in() {
    let lab = Lab::without_machine();
    let path = lab.path("websocket");
    let long = [b'a'; 65];
    let wrong: [&[(&'static str, &[u8])]; 8] = [
        &[(MAY, b"everything")],
        &[(MAY, b"input,")],
        &[(MAY, b"\xff")],
        &[(MAY, b""), (MAY, b"input")],
        &[(NAME, b"%ff")],
        &[(NAME, b"a%0Ab")],
        &[(NAME, &long)],
        &[(NAME, b"a"), (NAME, b"b")],
    ];
    for address in ["/", "/io", "/audio"] {
        for headers in wrong {
            let error = Messages::open_as(&path, address, headers).err().expect("it is refused");
            assert!(error.to_string().contains("400"), "{headers:?}: {error}");
        }
    }
    for headers in [&[][..], &[(MAY, b"" as &[u8])], &[(NAME, b"%E4%BA%91")]] {
        Messages::open_as(&path, "/", headers).expect("it is let in");
    }
}
