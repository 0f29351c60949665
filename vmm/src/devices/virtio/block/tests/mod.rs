//! A disk as its driver sees it, over every engine.

mod chains;
mod crash;
mod engine;

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use yunju_protocol::machine::{ByteSize, RateLimit};

use super::super::testing::{Driver, MEMORY, WRITE};
use super::*;
use crate::disk::engine::best;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

fn block(files: Vec<File>, writable: bool) -> Block {
    let files = files.into_iter().enumerate().map(|(index, file)| (format!("file {index}"), file)).collect();
    let disk = Disk::open(files, writable).unwrap();
    Block::new(disk, "a-serial-number-that-is-too-long", None, Arc::default(), Box::new(best))
}

fn disk(contents: &[u8], readonly: bool) -> (Block, File) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(contents, 0).unwrap();
    (block(vec![file.try_clone().unwrap()], !readonly), file)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn pattern(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|index| (index / 512 + index % 251) as u8).collect()
}

#[test]
fn what_is_written_is_read_back_and_is_in_the_file() {
    let (mut disk, file) = disk(&pattern(16), false);
    let mut driver = Driver::new(&disk);
    let read = driver.request(&mut disk, 0, &[&header(T_IN, 3)], 1025);
    assert_eq!((&read[..1024], read[1024]), (&pattern(16)[3 * 512..5 * 512], S_OK));
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, 4), &[7; 512]], 1), [S_OK]);
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_FLUSH, 0)], 1), [S_OK]);
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 4 * 512).unwrap();
    assert_eq!(sector, [7; 512]);
    assert_eq!(disk.traffic.read.load(Ordering::Relaxed), 1024);
    assert_eq!(disk.traffic.written.load(Ordering::Relaxed), 512);
    assert!(driver.interrupted());
}

#[test]
fn a_request_beyond_the_end_or_with_half_a_sector_fails_and_changes_nothing() {
    let (mut disk, file) = disk(&pattern(4), false);
    let mut driver = Driver::new(&disk);
    for (sector, length) in [(3, 1024), (4, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
        let answer = driver.request(&mut disk, 0, &[&header(T_IN, sector)], length + 1);
        assert_eq!(*answer.last().unwrap(), S_IOERR, "read of {length} at {sector}");
        assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, sector), &vec![1; length]], 1), [S_IOERR]);
    }
    let mut after = vec![0; 2048];
    file.read_exact_at(&mut after, 0).unwrap();
    assert_eq!((after, file.metadata().unwrap().len()), (pattern(4), 2048));
}

#[test]
fn a_readonly_disk_refuses_every_change() {
    let (mut disk, _) = disk(&pattern(4), true);
    assert_eq!(disk.features() & (F_RO | F_DISCARD), F_RO);
    let mut driver = Driver::new(&disk);
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_OUT, 0), &[1; 512]], 1), [S_IOERR]);
    let range = range(0, 1, 0);
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), &range], 1), [S_IOERR]);
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros() {
    let (mut disk, file) = disk(&pattern(64), false);
    let mut driver = Driver::new(&disk);
    for (kind, sector) in [(T_DISCARD, 8), (T_WRITE_ZEROES, 24)] {
        let range = range(sector, 8, 0);
        assert_eq!(driver.request(&mut disk, 0, &[&header(kind, 0), &range], 1), [S_OK]);
        let mut cleared = vec![1; 4096];
        file.read_exact_at(&mut cleared, sector * 512).unwrap();
        assert!(cleared.iter().all(|byte| *byte == 0));
    }
    let outside = range(60, 8, 0);
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), &outside], 1), [S_IOERR]);
    let unknown = range(0, 8, 6);
    assert_eq!(driver.request(&mut disk, 0, &[&header(T_DISCARD, 0), &unknown], 1), [S_UNSUPP]);
}

#[test]
fn the_serial_number_is_cut_and_unknown_requests_are_unsupported() {
    let (mut disk, _) = disk(&pattern(1), false);
    let mut driver = Driver::new(&disk);
    let answer = driver.request(&mut disk, 0, &[&header(T_GET_ID, 0)], 21);
    assert_eq!((&answer[..20], answer[20]), (&b"a-serial-number-that"[..], S_OK));
    assert_eq!(driver.request(&mut disk, 0, &[&header(99, 0)], 1), [S_UNSUPP]);
    assert_eq!(driver.request(&mut disk, 0, &[&[1, 2, 3]], 1), [S_IOERR]);
}

#[test]
fn a_limited_disk_serves_a_seconds_worth_at_once_and_the_rest_in_time() {
    let operations = RateLimit { operations: Some(50), bytes: None };
    let bytes = RateLimit { operations: None, bytes: Some(ByteSize(50 << 10)) };
    for rate in [operations, bytes] {
        let (mut disk, _) = disk(&pattern(16), false);
        disk.limit = Limit::new(Some(&rate)).unwrap();
        let mut driver = Driver::new(&disk);
        let start = std::time::Instant::now();
        for _ in 0..60 {
            driver.send(0, &[&header(T_IN, 0)], &[1024 + 1]);
        }
        driver.kick(&mut disk, 0).unwrap();
        for _ in 0..60 {
            driver.wait_used(&mut disk, 0);
        }
        assert!(start.elapsed() >= std::time::Duration::from_millis(150), "{:?}", start.elapsed());
    }
}

#[test]
fn the_state_round_trips_and_another_disks_is_refused() {
    let (mut small, _) = disk(&pattern(1), false);
    let (large, _) = disk(&pattern(2), false);
    let json = serde_json::to_string(&small.save()).unwrap();
    small.restore(serde_json::from_str(&json).unwrap()).unwrap();
    assert!(small.restore(large.save()).is_err());
}

proptest! {
    #[test]
    fn any_chain_is_answered_or_faults(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        chain in proptest::collection::vec((MEMORY / 2..2 * MEMORY, 0u32..1 << 20, any::<bool>()), 1..6),
    ) {
        let (mut disk, _) = disk(&pattern(8), false);
        let mut driver = Driver::new(&disk);
        let start = driver.place(&bytes);
        let mut descriptors = vec![(start, bytes.len() as u32, 0)];
        descriptors.extend(chain.iter().map(|(at, length, write)| (*at, *length, if *write { WRITE } else { 0 })));
        driver.send_raw(0, &descriptors);
        let _ = driver.kick(&mut disk, 0);
        while driver.used(0).is_some() {}
        // The disk still works.
        let answer = driver.request(&mut disk, 0, &[&header(T_IN, 0)], 513);
        prop_assert_eq!(answer[512], S_OK);
    }
}
