//! A disk whose driver is hostile.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    yunju_fuzz::drive(Box::new(yunju_fuzz::disk::block(*kind)), rest, |_| {});
});
