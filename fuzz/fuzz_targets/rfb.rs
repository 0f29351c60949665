//! What viewers say.
#![no_main]

use yunju_vnc_proxy::rfb::handshake::Version;
use yunju_vnc_proxy::rfb::incoming::{MAX_MESSAGE, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    if let Some(answer) = rest.first_chunk() {
        let _ = Version::parse(answer);
    }
    loop {
        match parse(rest, first & 1 != 0) {
            Ok(Some((_, used))) => {
                assert!(used > 0 && used <= MAX_MESSAGE);
                rest = &rest[used..];
            }
            Ok(None) => return assert!(rest.len() < MAX_MESSAGE),
            Err(_) => return,
        }
    }
});
