//! A machine that the proxy is attached to: events in their wire form, each after its length (two bytes). The highest bit
//! of the length sends a descriptor with it: of memory of 1 MiB, sealed as the guest's buffers are, or not.
#![no_main]

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use yunju_fuzz::Bytes;
use yunju_protocol::display::Event;
use yunju_vnc_proxy::screen::Screen;

/// Large enough to compare many tiles, small enough to do so many times a second.
const LARGEST: u64 = 1 << 18;

fn memory(sealed: bool) -> OwnedFd {
    let fd = memfd_create("buffer", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, 1 << 20).unwrap();
    if sealed {
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL).unwrap();
    }
    fd
}

/// Whether it can be shown quickly: pictures of 100 megapixels are allowed, but slow to compare.
fn is_small(event: &Event) -> bool {
    match event {
        Event::Buffer { width, height, .. } => u64::from(*width) * u64::from(*height) <= LARGEST,
        _ => true,
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    let mut events = vec![(Event::Hello { version: yunju_protocol::display::VERSION }, None)];
    while !input.is_empty() {
        let length = input.u16();
        let Ok(event) = postcard::from_bytes::<Event>(input.take(usize::from(length & 0x3fff))) else { continue };
        if is_small(&event) {
            events.push((event, (length & 0x8000 != 0).then(|| memory(length & 0x4000 == 0))));
        }
    }
    let _ = yunju_vnc_proxy::surface::replay(&Screen::default(), events.into_iter());
});
