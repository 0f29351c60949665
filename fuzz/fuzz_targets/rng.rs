//! A source of random numbers whose driver is hostile.
#![no_main]

use yunju_vmm::devices::virtio::rng::Rng;

libfuzzer_sys::fuzz_target!(|data: &[u8]| yunju_fuzz::drive(Box::new(Rng::new()), data, |_| {}));
