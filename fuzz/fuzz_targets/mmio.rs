//! Virtio registers: accesses of any width anywhere, without a driver that keeps the rules.
#![no_main]

use yunju_fuzz::{Bytes, Rig};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut rig = Rig::new(Box::new(yunju_fuzz::disk::block(0)));
    let mut input = Bytes::new(data);
    while !input.is_empty() {
        rig.access(&mut input);
        rig.turn();
    }
});
