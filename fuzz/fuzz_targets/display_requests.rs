//! A client of the display socket: packets, each after its length (two bytes).
#![no_main]

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use yunju_fuzz::Bytes;
use yunju_vmm::display::Display;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let display = Display::new(640, 480).unwrap();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let mut input = Bytes::new(data);
    while !input.is_empty() {
        let length = usize::from(input.u16());
        if send(&theirs, input.take(length), SendFlags::NOSIGNAL).is_err() {
            break;
        }
    }
    drop(theirs);
    display.hear(ours);
});
