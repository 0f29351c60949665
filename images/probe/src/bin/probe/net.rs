//! Network.

use guest::params::BootParams;
use guest::virtio::net::Net;
use guest::{interrupt, println};

use crate::{During, Outcome, ensure};

const WAIT_MS: u32 = 10_000;
/// An ethertype for experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Says hello to everyone, then sends back each frame to its sender until one says `end`.
pub fn echo(_: &BootParams) -> Outcome {
    let mut net = Net::open().during("net")?;
    let mac = net.mac();
    println!("mac {}", alloc::format!("{mac:02x?}").replace(", ", ":"));
    let mut hello = [0_u8; 60];
    hello[..6].fill(0xff);
    hello[6..12].copy_from_slice(&mac);
    hello[12..14].copy_from_slice(&ETHERTYPE);
    hello[14..19].copy_from_slice(b"hello");
    net.send(&hello).during("send")?;
    println!("READY");
    loop {
        let Some(mut frame) = interrupt::wait_for(WAIT_MS, || net.receive()) else {
            return Err(alloc::format!("no frame in {WAIT_MS} ms").into());
        };
        ensure!(frame.len() >= 14, "a frame of {} bytes", frame.len());
        let sender: [u8; 6] = core::array::from_fn(|byte| frame[6 + byte]);
        frame[..6].copy_from_slice(&sender);
        frame[6..12].copy_from_slice(&mac);
        net.send(&frame).during("send back")?;
        if frame[14..].starts_with(b"end") {
            return Ok(());
        }
    }
}
