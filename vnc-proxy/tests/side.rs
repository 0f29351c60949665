//! Clipboard, typed text and layout between pages, viewers and a stand-in for the guest's agent.

mod support;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::client::Messages;
use support::frames::{Frames, Page, agent, page, page_with_agent};
use support::lab::{Lab, eventually};
use yunju_protocol::display::Request;
use yunju_protocol::page::{FromPage, ToPage, Whereabouts};
use yunju_protocol::seat::{FromSeat, Kind, Layout, ToSeat, frame};
use yunju_protocol::viewer::{MAY, NAME};
use yunju_vnc_proxy::io::{MAX_PAGES, Policy};
use yunju_vnc_proxy::rfb::clipboard::{Cut, latin1, parse as parse_cut, provide};

const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

fn clip(kind: Kind, bytes: &[u8]) -> FromSeat {
    FromSeat::Clip { kind, length: bytes.len() as u32 }
}

#[test]
fn what_is_copied_goes_both_ways_whole() {
    let lab = Lab::without_machine();
    let mut agent = agent(&lab);
    let mut page = page_with_agent(&lab);
    let text: String = ('a'..='z').chain(['汉']).cycle().take(900_000).collect();
    let png = [PNG, &vec![7; (8 << 20) - PNG.len()]].concat();
    for (kind, bytes) in [(Kind::Text, text.as_bytes()), (Kind::Png, &png)] {
        let length = bytes.len() as u32;
        page.say(&FromPage::Clip { kind, length }, bytes);
        assert_eq!(agent.hear(), (ToSeat::Clip { kind, length }, bytes.to_vec()));
        agent.say(&FromSeat::Taken, b"");
        assert_eq!(page.hear(), (ToPage::Taken, vec![]));
        agent.say(&clip(kind, bytes), bytes);
        assert_eq!(page.hear(), (ToPage::Clip { kind, length, old: false }, bytes.to_vec()));
    }
    let mut late = self::page(&lab);
    assert!(matches!(late.hear().0, ToPage::Able { agent: true, to_guest: true, from_guest: true, text: true, .. }));
    assert!(matches!(late.hear().0, ToPage::Clip { kind: Kind::Png, old: true, .. }));
}

#[test]
fn a_policy_lets_clips_through_one_way_only() {
    for (to_guest, from_guest) in [(true, false), (false, true), (false, false)] {
        let lab = Lab::with_policy(Policy { to_guest, from_guest });
        let mut agent = agent(&lab);
        let mut page = page(&lab);
        let able = loop {
            if let ToPage::Able { agent: true, to_guest, from_guest, .. } = page.hear().0 {
                break (to_guest, from_guest);
            }
        };
        assert_eq!(able, (to_guest, from_guest));
        page.say(&FromPage::Clip { kind: Kind::Text, length: 2 }, b"in");
        page.say(&FromPage::Type { length: 5 }, b"typed");
        let (mut head, mut body) = agent.hear();
        if to_guest {
            assert_eq!((head, &body[..]), (ToSeat::Clip { kind: Kind::Text, length: 2 }, &b"in"[..]));
            (head, body) = agent.hear();
        }
        assert_eq!((head, &body[..]), (ToSeat::Type { length: 5 }, &b"typed"[..]));
        agent.say(&clip(Kind::Text, b"out"), b"out");
        agent.say(&FromSeat::Taken, b"");
        if from_guest {
            assert_eq!(page.hear(), (ToPage::Clip { kind: Kind::Text, length: 3, old: false }, b"out".to_vec()));
        }
        assert_eq!(page.hear::<ToPage>().0, ToPage::Taken);
    }
}

#[test]
fn the_layout_is_kept_for_agents_that_come_later_and_said_back() {
    let lab = Lab::without_machine();
    let mut page = page(&lab);
    let layout = Layout { layout: "de".into(), variant: "nodeadkeys".into() };
    page.say(&FromPage::Layout(Layout { layout: "de\nx".into(), variant: String::new() }), b"");
    page.say(&FromPage::Layout(layout.clone()), b"");
    assert!(matches!(page.hear::<ToPage>().0, ToPage::Able { agent: false, .. }));
    for first in [true, false] {
        let mut agent = agent(&lab);
        assert_eq!(agent.hear::<ToSeat>().0, ToSeat::Layout(layout.clone()));
        agent.say(&FromSeat::Layout(layout.clone()), b"");
        assert!(matches!(page.hear::<ToPage>().0, ToPage::Able { agent: true, .. }));
        if first {
            assert_eq!(page.hear::<ToPage>().0, ToPage::Layout(layout.clone()));
        }
        drop(agent);
        assert!(matches!(page.hear::<ToPage>().0, ToPage::Able { agent: false, .. }));
    }
}

#[test]
fn a_newer_agent_takes_the_place_of_one_that_hangs() {
    let lab = Lab::without_machine();
    let mut old = agent(&lab);
    page_with_agent(&lab);
    let mut new = agent(&lab);
    assert!(old.try_hear::<ToSeat>().is_err(), "it is hung up on");
    let mut page = page_with_agent(&lab);
    page.say(&FromPage::Type { length: 1 }, b"x");
    assert_eq!(new.hear::<ToSeat>().1, b"x");
    new.say(&FromSeat::Typed, b"");
    let typed = loop {
        if let ToPage::Typed { texts } = page.hear().0 {
            break texts;
        }
    };
    assert_eq!(typed, 1, "the page is told when the text is there");
}

#[test]
fn what_is_no_agent_is_hung_up_on_and_tells_pages_nothing() {
    let lab = Lab::without_machine();
    let hello = || frame(&FromSeat::Hello { version: "1\n\u{1b}".into(), clipboard: true, text: true }, b"");
    let huge = b"{\"type\":\"clip\",\"kind\":\"png\",\"length\":99999999}\n".to_vec();
    let again = [hello(), hello()].concat();
    for said in [b"nonsense\n".to_vec(), vec![b'x'; 5000], huge, again, frame(&FromSeat::Taken, b"")] {
        let mut stream = UnixStream::connect(lab.path("agent")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(&said);
        let end = stream.read(&mut [0]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    }
    let mut agent = agent(&lab);
    let mut page = page_with_agent(&lab);
    agent.say(&clip(Kind::Png, b"GIF89a"), b"GIF89a");
    agent.say(&clip(Kind::Text, b"\xff"), b"\xff");
    agent.say(&clip(Kind::Text, b"text"), b"text");
    assert_eq!(page.hear::<ToPage>().1, b"text", "what is not what it says is passed over");
}

#[test]
fn a_page_moves_the_pointer_by_steps_and_lets_go_when_it_goes() {
    let (lab, display, _buffer) = Lab::new();
    let mut page = page(&lab);
    page.say(&FromPage::Move { x: -3, y: 4, buttons: 1 }, b"");
    page.say(&FromPage::Scroll { x: 0, y: -15 }, b"");
    let request = || display.request(20_000).unwrap().unwrap();
    assert_eq!(request(), Request::Move { x: -3, y: 4, buttons: 1 });
    assert_eq!(request(), Request::Scroll { horizontal: 0, vertical: -15 });
    drop(page);
    assert_eq!(request(), Request::Move { x: 0, y: 0, buttons: 0 });
}

#[test]
fn a_page_that_talks_nonsense_is_given_up_and_told_why() {
    let lab = Lab::without_machine();
    let mut page = page(&lab);
    page.stream.write_all(b"{\"type\":\"reboot\"}\n").unwrap();
    page.stream.flush().unwrap();
    while page.try_hear::<ToPage>().is_ok() {}
    let reason = page.stream.reason.unwrap();
    assert!(reason.contains("is no message"), "{reason}");
    let full: Vec<_> = (0..MAX_PAGES).map(|_| page_that_is_there(&lab)).collect();
    let mut one_more = self::page(&lab);
    assert!(one_more.try_hear::<ToPage>().is_err());
    assert_eq!(one_more.stream.reason.as_deref(), Some("as many pages are there as can be"));
    drop(full);
    eventually(|| self::page(&lab).try_hear::<ToPage>().ok());
}

fn page_that_is_there(lab: &Lab) -> Page {
    eventually(|| {
        let mut page = page(lab);
        page.try_hear::<ToPage>().ok().map(|_| page)
    })
}

#[test]
fn viewers_of_other_kinds_copy_and_paste_text() {
    let (lab, _display, _buffer) = Lab::new();
    let mut agent = agent(&lab);
    page_with_agent(&lab);
    let mut old = lab.viewer(&[0]);
    let mut new = lab.viewer(&[0, EXTENDED_CLIPBOARD]);
    let cut = |(extended, content): (bool, Vec<u8>)| parse_cut(extended, &content);
    let caps = new.cut();
    assert_eq!(caps.1[..4], [0x1f, 0, 0, 1]);
    // Only what is copied from now on; the old viewer's updates show that it is served.
    old.update();
    let text = "café 汉\nline";
    agent.say(&clip(Kind::Text, text.as_bytes()), text.as_bytes());
    assert_eq!(cut(old.cut()), Cut::Text("café ?\nline".into()));
    assert_eq!(cut(new.cut()), Cut::Notify);
    new.send(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfc, 2, 0, 0, 1]);
    assert_eq!(cut(new.cut()), Cut::Text(text.into()));

    let from_viewer = |message: Vec<u8>| [&[6], &message[1..]].concat();
    old.send(&from_viewer(latin1("from an old viewer: é")));
    assert_eq!(agent.hear::<ToSeat>().1, "from an old viewer: é".as_bytes());
    new.send(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfc, 8, 0, 0, 1]);
    assert_eq!(new.cut().1, [2, 0, 0, 1], "it is asked for what it announces");
    new.send(&from_viewer(provide("from a new one: 汉\n")));
    assert_eq!(agent.hear::<ToSeat>().1, "from a new one: 汉\n".as_bytes());
}

#[test]
fn who_is_there_too_is_seen_by_name_where_they_point_and_when_they_type() {
    let lab = Lab::without_machine();
    let open = |name: &[u8]| {
        let headers = [(MAY, b"" as &[u8]), (NAME, name)];
        Frames::new(Messages::open_as(&lab.path("websocket"), "/io", &headers).unwrap())
    };
    let (mut ann, mut bob): (Page, Page) = (open(b"Ann"), open(b"B%C3%B6b"));
    let named = |page: &mut Page| loop {
        if let ToPage::Person { id, name } = page.hear().0 {
            return (id, name);
        }
    };
    let (bobs, name) = named(&mut ann);
    assert_eq!((name.as_str(), named(&mut bob).1.as_str()), ("Böb", "Ann"));
    for at in 0..2000 {
        bob.say(&FromPage::Here(Whereabouts { at: Some([at, 7]), types: false }), b"");
    }
    let last = Whereabouts { at: Some([5, 6]), types: true };
    bob.say(&FromPage::Here(last), b"");
    let mut told = 0;
    loop {
        let (head, _) = ann.hear();
        let ToPage::There { id, is } = head else { panic!("{head:?}") };
        assert_eq!(id, bobs);
        told += 1;
        if is == last {
            break;
        }
    }
    assert!(told < 1000, "of much at once the last is told: {told}");
    drop(bob);
    assert_eq!(ann.hear::<ToPage>().0, ToPage::Gone { id: bobs });
}
