//! A balloon whose driver is hostile, while the host changes its size.
#![no_main]

use yunju_vmm::devices::virtio::balloon::{Balloon, Control};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let control = Control::new().unwrap();
    yunju_fuzz::drive(Box::new(Balloon::new(control.clone())), data, |input| control.resize(u64::from(input.u32())));
});
