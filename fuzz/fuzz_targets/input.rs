//! A keyboard or tablet whose driver is hostile, while somebody types.
#![no_main]

use yunju_vmm::devices::virtio::input::{Input, InputEvent};
use yunju_vmm::display::Display;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let display = Display::new(640, 480).unwrap();
    let (events, device) = match first & 1 {
        0 => (display.keyboard(), Input::keyboard(display.keyboard(), display.clone())),
        _ => (display.tablet(), Input::tablet(display.tablet())),
    };
    yunju_fuzz::drive(Box::new(device), rest, |input| {
        while !input.is_empty() {
            events.push(&match input.u8() % 2 {
                0 => [InputEvent::key(input.u16(), input.u8() & 1 != 0)],
                _ => [InputEvent::absolute(input.u16() % 2, input.u16())],
            });
        }
    });
});
