//! A screen whose driver is hostile, and viewers that resize it and take pictures.
#![no_main]

use yunju_vmm::devices::virtio::gpu::Gpu;
use yunju_vmm::display::Display;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let display = Display::new(640, 480).unwrap();
    yunju_fuzz::drive(Box::new(Gpu::new(display.clone())), data, |input| match input.u8() % 2 {
        0 => display.resize(input.u32(), input.u32()),
        _ => {
            display.size();
        }
    });
});
