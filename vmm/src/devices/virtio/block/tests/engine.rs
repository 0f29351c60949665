//! What a disk asks of its engine, and what comes of it when that fails.

use std::sync::{Arc, Mutex};

use super::chains::{LENGTH, Machine, bytes, contents, files};
use super::*;
use crate::disk::engine::{Action, Op, Sync};

/// What an engine was asked for, and what it is to fail.
#[derive(Default)]
struct Notes {
    asked: Vec<(Action, u64)>,
    fails: Option<Action>,
}

/// Notes what it is asked for, and carries out what it is not to fail.
#[derive(Default)]
struct Witness {
    inner: Sync,
    failed: Vec<usize>,
    notes: Arc<Mutex<Notes>>,
}

impl Engine for Witness {
    fn submit(&mut self, tag: usize, op: Op) {
        let mut notes = self.notes.lock().unwrap();
        notes.asked.push((op.action, op.length));
        match notes.fails == Some(op.action) {
            true => self.failed.push(tag),
            false => self.inner.submit(tag, op),
        }
    }

    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next(&mut self, wait: bool) -> io::Result<Option<(usize, io::Result<()>)>> {
        match self.failed.pop() {
            Some(tag) => Ok(Some((tag, Err(io::Error::from_raw_os_error(libc::EIO))))),
            None => self.inner.next(wait),
        }
    }
}

fn watched(files: Vec<File>) -> (Machine, Arc<Mutex<Notes>>) {
    let notes: Arc<Mutex<Notes>> = Arc::default();
    let own = notes.clone();
    let make: MakeEngine = Box::new(move || Box::new(Witness { notes: own.clone(), ..Witness::default() }));
    (Machine::new(files, make), notes)
}

#[test]
fn blocks_that_one_file_has_in_a_row_are_read_at_once_however_deep_it_lies() {
    let (files, before) = files(true, 2);
    let (mut machine, notes) = watched(files);
    assert!(machine.request(T_IN, 0, &[], LENGTH) == before);
    machine.request(T_OUT, 8, &bytes(1, 16), 0);
    let asked = |from: usize| notes.lock().unwrap().asked[from..].to_vec();
    assert_eq!(asked(0), [(Action::Read, LENGTH as u64), (Action::Write, 8192)]);
    machine.request(T_IN, 0, &[], LENGTH);
    let rest = LENGTH as u64 - 4096 - 8192;
    assert_eq!(asked(2), [(Action::Read, 4096), (Action::Read, 8192), (Action::Read, rest)]);
}

#[test]
fn after_a_sync_that_failed_no_flush_succeeds_any_more() {
    let (files, _) = files(true, 1);
    let (mut machine, notes) = watched(files);
    machine.request(T_OUT, 8, &bytes(1, 8), 0);
    notes.lock().unwrap().fails = Some(Action::Sync);
    assert_eq!(machine.answer(T_FLUSH, 0, &[], 0), [S_IOERR]);
    // The kernel tells only once that it lost something.
    notes.lock().unwrap().fails = None;
    assert_eq!(machine.answer(T_FLUSH, 0, &[], 0), [S_IOERR]);
    machine.block.reset();
    assert!(Device::flush(&mut machine.block).is_err());
    assert_eq!(machine.request(T_IN, 8, &[], 4096), bytes(1, 8), "it can still be read");
}

#[test]
fn bits_that_could_not_be_written_are_written_by_the_next_flush() {
    let (files, mut model) = files(true, 1);
    let kept: Vec<File> = files.iter().map(|file| file.try_clone().unwrap()).collect();
    let (mut machine, notes) = watched(files);
    machine.request(T_OUT, 8, &bytes(1, 8), 0);
    notes.lock().unwrap().fails = Some(Action::Write);
    assert_eq!(machine.answer(T_OUT, 16, &bytes(2, 8), 0), [S_IOERR]);
    assert_eq!(machine.answer(T_FLUSH, 0, &[], 0), [S_IOERR]);
    assert!(contents(&kept) == model, "the file has no bit yet");
    notes.lock().unwrap().fails = None;
    machine.request(T_FLUSH, 0, &[], 0);
    model[8 * 512..16 * 512].copy_from_slice(&bytes(1, 8));
    assert!(contents(&kept) == model);
}

#[test]
fn a_read_that_fails_fails_its_request_only() {
    let (files, before) = files(true, 1);
    let (mut machine, notes) = watched(files);
    notes.lock().unwrap().fails = Some(Action::Read);
    assert_eq!(machine.answer(T_IN, 0, &[], 4096).last(), Some(&S_IOERR));
    notes.lock().unwrap().fails = None;
    assert!(machine.request(T_IN, 0, &[], LENGTH) == before);
}
