//! A network card whose driver is hostile, on a stream of hostile frames.
#![no_main]

use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use yunju_vmm::devices::virtio::net::{Backend, Net};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let mut theirs = Some(theirs);
    let net = Net::new(Backend::stream(ours), [2, 0, 0, 0, 0, 1], Arc::default()).unwrap();
    yunju_fuzz::drive(Box::new(net), data, |input| {
        let Some(peer) = &theirs else { return };
        // A peer may take nothing, send what is no frame, or go away.
        match input.u8() % 8 {
            0 => drop(theirs.take()),
            1 => drop(recv(peer, &mut [0_u8; 4096], RecvFlags::DONTWAIT)),
            2 => drop(send(peer, input.take(256), SendFlags::NOSIGNAL)),
            _ => {
                let frame = input.take(256);
                let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
                bytes.extend(frame);
                let _ = send(peer, &bytes, SendFlags::NOSIGNAL);
            }
        }
    });
});
