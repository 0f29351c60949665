//! A file that may be a layer of a disk, on a raw file of 1 MiB. The first byte: bit 0 opens it for writing, bit 1 corrects
//! its checksum, bit 2 makes it as long as it says, bit 3 leaves the raw file out. After it the header's bytes up to its checksum, then
//! the beginning of the bitmap.
#![no_main]

use std::os::unix::fs::FileExt;

use yunju_fuzz::Bytes;
use yunju_fuzz::disk::file;
use yunju_vmm::disk::Disk;
use yunju_vmm::disk::header::{BITMAP_START, HEADER, Header};

/// Bytes of the header that the checksum is of.
const CHECKED: usize = 64;
/// Files longer than this are not made.
const LONGEST: u64 = 1 << 32;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    let kind = input.u8();
    let mut header = [0; HEADER];
    let fields = input.take(CHECKED);
    header[..fields.len()].copy_from_slice(fields);
    let sum = if kind & 2 != 0 { crc32fast::hash(&header[..CHECKED]) } else { input.u32() };
    header[CHECKED..CHECKED + 4].copy_from_slice(&sum.to_le_bytes());
    let (top, raw) = (file(), file());
    top.set_len(1 << 20).unwrap();
    raw.set_len(1 << 20).unwrap();
    if let Ok(decoded) = Header::decode(&header) {
        assert_eq!(decoded.encode(), header, "what is accepted has one form");
        if kind & 4 != 0 {
            top.set_len(decoded.file_length().min(LONGEST)).unwrap();
        }
    }
    top.write_all_at(&header, 0).unwrap();
    let bits = input.take(64);
    top.write_all_at(bits, BITMAP_START).unwrap();
    let mut files = vec![("raw".to_owned(), raw), ("top".to_owned(), top)];
    if kind & 8 != 0 {
        files.remove(0);
    }
    let Ok(mut disk) = Disk::open(files, kind & 1 != 0) else { return };
    while !input.is_empty() {
        let at = u64::from(input.u32()) << (input.u8() % 16) & !511;
        if at >= disk.length() {
            continue;
        }
        let mut bytes = vec![0; usize::from(input.u16() % 128 * 512).min((disk.length() - at) as usize)];
        disk.read_at(&mut bytes, at).unwrap();
        if disk.is_writable() {
            let block = disk.block_of(at);
            let _ = disk.must_merge(at, &block);
            disk.written(&block);
            disk.cleared(&block);
            let pages = disk.take_new_bits();
            disk.keep_new_bits(&pages);
        }
    }
});
