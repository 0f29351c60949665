//! Frames of the guest's agent, of pages and of the proxy; RFB's clipboard messages; text to be typed.
#![no_main]
#![allow(dead_code, missing_docs)]

#[path = "../../images/agent/src/seat/typing.rs"]
mod typing;

use yunju_protocol::page::{FromPage, ToPage};
use yunju_protocol::seat::{FromSeat, Head, Kind, LONGEST_LINE, MOST_TYPED, ToSeat, frame, parse};
use yunju_vnc_proxy::rfb::clipboard::{self, Cut, MOST_CUT};

fn frames<H: Head>(mut rest: &[u8]) {
    loop {
        match parse::<H>(rest) {
            Ok(Some((head, body))) => {
                assert!(body.start <= LONGEST_LINE && body.end <= rest.len());
                let again = frame(&head, &rest[body.clone()]);
                let (_, same) = parse::<H>(&again).unwrap().unwrap();
                assert_eq!(again[same], rest[body.clone()]);
                rest = &rest[body.end..];
            }
            Ok(None) => return assert!(rest.len() < LONGEST_LINE + Kind::Png.limit() as usize),
            Err(_) => return,
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    match first % 6 {
        0 => frames::<FromSeat>(rest),
        1 => frames::<FromPage>(rest),
        2 => frames::<ToSeat>(rest),
        3 => frames::<ToPage>(rest),
        4 => {
            if let Cut::Text(text) = clipboard::parse(first & 0x80 != 0, rest) {
                assert!(text.len() <= 2 * MOST_CUT.max(rest.len()));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            if text.len() <= MOST_TYPED as usize {
                let keys: usize = typing::pieces(text).iter().map(|piece| piece.keys.len()).sum();
                assert!(keys <= text.chars().count());
            }
        }
    }
});
