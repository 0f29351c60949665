//! A sound card whose driver is hostile, while a microphone hears something.
#![no_main]

use yunju_vmm::devices::virtio::snd::Snd;
use yunju_vmm::display::Display;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let display = Display::new(640, 480).unwrap();
    let sound = display.sound();
    yunju_fuzz::drive(Box::new(Snd::new(sound.clone()).unwrap()), data, |input| {
        let length = usize::from(input.u8()) & !1;
        sound.hear(input.take(length));
    });
});
