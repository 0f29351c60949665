//! Making durable what was written: data, then the bits that say that it is there.

use std::io;

use super::Block;
use super::work::Running;
use crate::devices::virtio::{Fault, Io};
use crate::disk::Page;
use crate::disk::engine::{Action, Op, Pieces, Sync};

/// Flushes that were asked for. At most one is under way; those that come meanwhile share the next one.
#[derive(Default)]
pub struct Flushes {
    now: Option<Flush>,
    /// Requests that wait for the next.
    next: Vec<usize>,
    /// A sync failed: what it was to make durable may be lost, and the kernel tells that only once. No later flush may
    /// claim that all is well.
    lost: bool,
}

struct Flush {
    requests: Vec<usize>,
    step: Step,
    pages: Vec<Page>,
    /// How many of the pages are written or being written.
    written: usize,
}

/// What is under way.
#[derive(PartialEq)]
enum Step {
    /// The data is made durable.
    Data,
    /// The bits are written, a page at a time.
    Bits,
    /// The bits are made durable.
    SyncBits,
}

impl Flushes {
    /// Forgets requests, not what was lost.
    pub fn reset(&mut self) {
        *self = Self { lost: self.lost, ..Self::default() };
    }
}

impl Block {
    /// Makes durable whatever has ended until now, then answers the request.
    pub(super) fn flush(&mut self, request: usize) {
        self.flushes.next.push(request);
        if self.flushes.now.is_none() {
            self.begin_flush();
        }
    }

    fn begin_flush(&mut self) {
        let requests = std::mem::take(&mut self.flushes.next);
        let pages = self.disk.take_new_bits();
        self.flushes.now = Some(Flush { requests, step: Step::Data, pages, written: 0 });
        self.submit_flush(Action::Sync, 0, Pieces::default());
    }

    fn submit_flush(&mut self, action: Action, place: u64, pieces: Pieces) {
        let (file, length) = (self.disk.top_file().clone(), pieces.length() as u64);
        self.submit(Running::Flush, Op { action, file, place, length, pieces });
    }

    /// A step of the flush has ended.
    pub(super) fn flush_step(&mut self, result: io::Result<()>, io: &mut Io) -> Result<(), Fault> {
        let Some(mut flush) = self.flushes.now.take() else {
            return Ok(());
        };
        if let Err(error) = result {
            eprintln!("yunju-vmm: a disk could not be flushed: {error}");
            self.flushes.lost |= flush.step != Step::Bits;
            self.disk.keep_new_bits(&flush.pages);
            return self.end_flush(flush.requests, false, io);
        }
        if let Some(page) = flush.pages.get_mut(flush.written)
            && flush.step != Step::SyncBits
        {
            let mut pieces = Pieces::default();
            pieces.push(std::mem::take(&mut page.bytes));
            let place = page.place;
            flush.written += 1;
            flush.step = Step::Bits;
            self.flushes.now = Some(flush);
            self.submit_flush(Action::Write, place, pieces);
            return Ok(());
        }
        if flush.step == Step::Bits {
            flush.step = Step::SyncBits;
            self.flushes.now = Some(flush);
            self.submit_flush(Action::Sync, 0, Pieces::default());
            return Ok(());
        }
        self.end_flush(flush.requests, true, io)
    }

    fn end_flush(&mut self, requests: Vec<usize>, done: bool, io: &mut Io) -> Result<(), Fault> {
        for request in requests {
            self.flushed(request, done && !self.flushes.lost, io)?;
        }
        if !self.flushes.next.is_empty() {
            self.begin_flush();
        }
        Ok(())
    }

    /// Flushes and waits for it, while nothing is in flight.
    pub(super) fn flush_now(&mut self) -> io::Result<()> {
        // Not a ring: the thread that flushes need not be the disk's own, which alone may make one.
        self.engine = Some(Box::new(Sync::default()));
        let pages = self.disk.take_new_bits();
        let flushed = self.flush_pages(&pages);
        if flushed.is_err() {
            self.disk.keep_new_bits(&pages);
        }
        let flushed = flushed.and(match self.flushes.lost {
            false => Ok(()),
            true => Err(io::Error::other("an earlier flush failed, so what was written before it may be lost")),
        });
        self.engine = None;
        flushed
    }

    fn flush_pages(&mut self, pages: &[Page]) -> io::Result<()> {
        self.carry_out(Action::Sync, 0, Pieces::default()).inspect_err(|_| self.flushes.lost = true)?;
        for page in pages {
            let mut pieces = Pieces::default();
            pieces.push(page.bytes.clone());
            self.carry_out(Action::Write, page.place, pieces)?;
        }
        if pages.is_empty() {
            return Ok(());
        }
        self.carry_out(Action::Sync, 0, Pieces::default()).inspect_err(|_| self.flushes.lost = true)
    }

    fn carry_out(&mut self, action: Action, place: u64, pieces: Pieces) -> io::Result<()> {
        let (file, length) = (self.disk.top_file().clone(), pieces.length() as u64);
        let engine = self.engine();
        engine.submit(0, Op { action, file, place, length, pieces });
        engine.start()?;
        match engine.next(true)? {
            Some((_, result)) => result,
            None => Err(io::Error::other("an operation never ended")),
        }
    }
}
