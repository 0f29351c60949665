//! From requests to operations and back.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::request::{self, Request};
use super::{Block, Io, MAX_OPERATIONS, MAX_RANGES, MAX_REQUESTS, SERIAL_LENGTH};
use crate::devices::virtio::Fault;
use crate::disk::engine::{Action, Op, Pieces};
use crate::disk::{BLOCK, SECTOR};

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// Most bytes of one operation, a multiple of a block.
const PIECE: u64 = 1 << 20;
/// Most bytes of an operation that clears.
const CLEAR_PIECE: u64 = 1 << 30;

/// A request that was taken and is not answered yet.
pub struct Pending {
    head: u16,
    status: Pieces,
    /// Bytes of the chain that count as written.
    written: u32,
    /// Operations in flight, and one for the job while it begins others.
    parts: u32,
    failed: bool,
    /// Bytes to be counted when it is done: read, written.
    moved: (u64, u64),
}

/// The request that is being cut into operations, and what is left of it.
pub enum Job {
    Read {
        request: usize,
        at: u64,
        room: Pieces,
    },
    Write {
        request: usize,
        at: u64,
        data: Pieces,
    },
    /// Last range first.
    Clear {
        request: usize,
        ranges: Vec<Range<u64>>,
        zero: bool,
    },
}

impl Job {
    fn request(&self) -> usize {
        match self {
            Self::Read { request, .. } | Self::Write { request, .. } | Self::Clear { request, .. } => *request,
        }
    }
}

/// An operation in flight.
pub enum Running {
    Read { request: usize },
    Write { request: usize, range: Range<u64> },
    Clear { request: usize, range: Range<u64> },
    Flush,
}

/// Why no operation was begun.
enum Stop {
    /// Something in flight has to end first.
    Wait,
    /// The request cannot be carried out.
    Failed,
}

impl Block {
    /// Does all that can be done without waiting.
    pub(super) fn work(&mut self, io: &mut Io) -> Result<(), Fault> {
        loop {
            while self.begin_job() || self.take_request(io)? {}
            self.engine().start()?;
            if !self.collect(false, io)? {
                break;
            }
        }
        self.tell(io)
    }

    /// Carries out and answers all that was taken; takes nothing new.
    pub(super) fn finish_all(&mut self, io: &mut Io) -> Result<(), Fault> {
        while self.job.is_some() || self.operations.len() > 0 {
            while self.begin_job() {}
            self.engine().start()?;
            self.collect(true, io)?;
        }
        self.tell(io)
    }

    fn tell(&mut self, io: &mut Io) -> Result<(), Fault> {
        if std::mem::take(&mut self.answered) { io.queues[0].signal() } else { Ok(()) }
    }

    /// Takes the next chain if it may be worked on now. True if there was one.
    fn take_request(&mut self, io: &mut Io) -> Result<bool, Fault> {
        let busy = self.job.is_some() || self.requests.len() >= MAX_REQUESTS || self.operations.len() >= MAX_OPERATIONS;
        if busy || !self.limit.as_mut().map_or(Ok(true), |limit| limit.allows())? {
            return Ok(false);
        }
        let queue = &mut io.queues[0];
        let memory = queue.memory().clone();
        let Some(request) = queue.pop_with(&memory, |head, chain| Request::parse(head, chain, &memory))? else {
            return Ok(false);
        };
        self.begin(request, io)?;
        Ok(true)
    }

    fn begin(&mut self, request: Request, io: &mut Io) -> Result<(), Fault> {
        let Request { head, header, data, room, status } = request;
        let Some(status) = status else {
            // Without room for a status there is no way to answer.
            return self.give_back(head, 0, io);
        };
        if let Some(limit) = &mut self.limit {
            limit.charge((data.length() + room.length()) as u64);
        }
        // The length counts from the chain's first writable byte to the last one written: the status.
        let written = u32::try_from(room.length() + 1).unwrap_or(u32::MAX);
        let moved = (0, 0);
        let number = self.requests.insert(Pending { head, status, written, parts: 1, failed: false, moved });
        let code = match header {
            Some(header) => self.execute(number, header, data, room)?,
            None => Some(S_IOERR),
        };
        match code {
            Some(code) => self.answer(number, code, io),
            None => Ok(()),
        }
    }

    /// Begins a request; the status if that was all.
    fn execute(
        &mut self,
        number: usize,
        header: request::Header,
        data: Pieces,
        mut room: Pieces,
    ) -> Result<Option<u8>, Fault> {
        let changes = matches!(header.kind, T_OUT | T_DISCARD | T_WRITE_ZEROES);
        if changes && !self.disk.is_writable() {
            return Ok(Some(S_IOERR));
        }
        let job = match header.kind {
            T_IN => self.place(header.sector, room.length() as u64).map(|range| {
                self.note_moved(number, (range.end - range.start, 0));
                Job::Read { request: number, at: range.start, room }
            }),
            T_OUT => self.place(header.sector, data.length() as u64).map(|range| {
                self.note_moved(number, (0, range.end - range.start));
                Job::Write { request: number, at: range.start, data }
            }),
            T_DISCARD | T_WRITE_ZEROES => match self.ranges(data, header.kind == T_WRITE_ZEROES) {
                Ok(ranges) => Some(Job::Clear { request: number, ranges, zero: header.kind == T_WRITE_ZEROES }),
                Err(code) => return Ok(Some(code)),
            },
            T_FLUSH => {
                self.flush(number);
                return Ok(None);
            }
            T_GET_ID => {
                room.fill(&self.serial[..SERIAL_LENGTH.min(room.length())]);
                return Ok(Some(S_OK));
            }
            _ => return Ok(Some(S_UNSUPP)),
        };
        let refused = job.is_none().then_some(S_IOERR);
        self.job = job;
        Ok(refused)
    }

    fn note_moved(&mut self, number: usize, moved: (u64, u64)) {
        if let Some(pending) = self.requests.get_mut(number) {
            pending.moved = moved;
        }
    }

    /// Where `length` bytes from `sector` are; `None` if they are not all on the disk.
    fn place(&self, sector: u64, length: u64) -> Option<Range<u64>> {
        let start = sector.checked_mul(SECTOR)?;
        let end = start.checked_add(length)?;
        (length.is_multiple_of(SECTOR) && end <= self.disk.length()).then_some(start..end)
    }

    /// The ranges of a discard or write-zeroes request, last first, or the status that refuses them.
    fn ranges(&self, mut data: Pieces, zero: bool) -> Result<Vec<Range<u64>>, u8> {
        if !data.length().is_multiple_of(16) || data.length() / 16 > MAX_RANGES as usize {
            return Err(S_IOERR);
        }
        let mut ranges = Vec::new();
        while let Some(range) = request::Range::read(&mut data) {
            // Bit 0 asks for unmapping and exists only for write-zeroes (§5.2.6.2).
            if range.flags & !u32::from(zero) != 0 {
                return Err(S_UNSUPP);
            }
            ranges.push(self.place(range.sector, u64::from(range.sectors) * SECTOR).ok_or(S_IOERR)?);
        }
        ranges.reverse();
        Ok(ranges)
    }

    /// Begins the next operation of the job. False if there is none or it has to wait.
    fn begin_job(&mut self) -> bool {
        if self.alone || self.operations.len() >= MAX_OPERATIONS {
            return false;
        }
        let Some(mut job) = self.job.take() else {
            return false;
        };
        let number = job.request();
        let begun = match &mut job {
            Job::Read { at, room, .. } => Ok(self.begin_read(number, at, room)),
            Job::Write { at, data, .. } => self.begin_write(number, at, data),
            Job::Clear { ranges, zero, .. } => self.begin_clear(number, ranges, *zero),
        };
        match begun {
            Ok(true) => self.job = Some(job),
            Err(Stop::Wait) => {
                self.job = Some(job);
                return false;
            }
            Ok(false) | Err(Stop::Failed) => {
                let failed = begun.is_err();
                // Answered by `collect`, which comes next, also when no operation is in flight.
                self.ended.push((number, failed));
            }
        }
        true
    }

    /// Begins to read the next piece. False if there is none.
    fn begin_read(&mut self, request: usize, at: &mut u64, room: &mut Pieces) -> bool {
        if room.length() == 0 {
            return false;
        }
        let extent = self.disk.extent(*at, (room.length() as u64).min(PIECE));
        let length = extent.length;
        let pieces = room.take(length as usize);
        *at += length;
        match extent.place {
            Some((file, place)) => {
                let op = Op { action: Action::Read, file: file.clone(), place, length, pieces };
                self.submit(Running::Read { request }, op);
            }
            None => pieces.clear(),
        }
        true
    }

    /// Begins to write the next piece. False if there is none.
    fn begin_write(&mut self, request: usize, at: &mut u64, data: &mut Pieces) -> Result<bool, Stop> {
        let left = *at..*at + data.length() as u64;
        if left.is_empty() {
            return Ok(false);
        }
        if self.disk.must_merge(left.start, &left) {
            let end = self.disk.block_of(left.start).end.min(left.end);
            self.may_be_alone()?;
            self.merge(request, left.start, data.take((end - left.start) as usize))?;
            *at = end;
            return Ok(true);
        }
        let mut end = left.end.min(left.start / BLOCK * BLOCK + PIECE);
        if end == left.end && self.disk.must_merge(end - 1, &left) {
            end = self.disk.block_of(end - 1).start;
        }
        let range = left.start..end;
        let pieces = data.take((end - left.start) as usize);
        *at = end;
        self.change(Action::Write, range.clone(), pieces, Running::Write { request, range });
        Ok(true)
    }

    /// Begins to clear the next piece. False if there is none.
    fn begin_clear(&mut self, request: usize, ranges: &mut Vec<Range<u64>>, zero: bool) -> Result<bool, Stop> {
        while ranges.pop_if(|range| range.is_empty()).is_some() {}
        let Some(left) = ranges.last_mut() else {
            return Ok(false);
        };
        let mut end = left.end.min(left.start / BLOCK * BLOCK + CLEAR_PIECE);
        if self.disk.must_merge(left.start, left) {
            end = self.disk.block_of(left.start).end.min(left.end);
            // A discard is a wish: a part of a block that lies below is not worth a copy.
            if zero {
                self.may_be_alone()?;
                let mut zeros = Pieces::default();
                zeros.push(vec![0; (end - left.start) as usize]);
                self.merge(request, left.start, zeros)?;
            }
        } else {
            if end == left.end && self.disk.must_merge(end - 1, left) {
                end = self.disk.block_of(end - 1).start;
            }
            let range = left.start..end;
            self.change(Action::Clear, range.clone(), Pieces::default(), Running::Clear { request, range });
        }
        left.start = end;
        Ok(true)
    }

    /// Whether nothing is in flight, which might change what is merged.
    fn may_be_alone(&self) -> Result<(), Stop> {
        if self.operations.len() > 0 { Err(Stop::Wait) } else { Ok(()) }
    }

    /// Begins to write the whole block at `at`, with `data` there and around it what was there before.
    fn merge(&mut self, request: usize, at: u64, data: Pieces) -> Result<(), Stop> {
        let block = self.disk.block_of(at);
        let mut old = vec![0; (block.end - block.start) as usize];
        self.disk.read_at(&mut old, block.start).map_err(|_| Stop::Failed)?;
        let before = (at - block.start) as usize;
        let after = old.split_off(before + data.length());
        old.truncate(before);
        let mut pieces = Pieces::default();
        pieces.push(old);
        pieces.append(data);
        pieces.push(after);
        self.change(Action::Write, block.clone(), pieces, Running::Write { request, range: block });
        self.alone = true;
        Ok(())
    }

    /// Submits an operation that changes a range of the top.
    fn change(&mut self, action: Action, range: Range<u64>, pieces: Pieces, running: Running) {
        let (file, place) = (self.disk.top_file().clone(), self.disk.place(range.start));
        self.submit(running, Op { action, file, place, length: range.end - range.start, pieces });
    }

    pub(super) fn submit(&mut self, running: Running, op: Op) {
        if let Running::Read { request } | Running::Write { request, .. } | Running::Clear { request, .. } = &running
            && let Some(pending) = self.requests.get_mut(*request)
        {
            pending.parts += 1;
        }
        let tag = self.operations.insert(running);
        self.engine().submit(tag, op);
    }

    /// Takes the operations that have ended and answers what is done. True if any had.
    fn collect(&mut self, wait: bool, io: &mut Io) -> Result<bool, Fault> {
        let mut any = false;
        for (number, failed) in std::mem::take(&mut self.ended) {
            any = true;
            self.part_ended(number, !failed, io)?;
        }
        while let Some((tag, result)) = {
            let wait = wait && !any && self.operations.len() > 0;
            self.engine().next(wait)?
        } {
            any = true;
            self.end(tag, result, io)?;
        }
        Ok(any)
    }

    fn end(&mut self, tag: usize, result: io::Result<()>, io: &mut Io) -> Result<(), Fault> {
        let done = result.is_ok();
        let request = match self.operations.remove(tag) {
            Some(Running::Read { request }) => request,
            Some(Running::Write { request, range }) => {
                self.alone = false;
                if done {
                    self.disk.written(&range);
                }
                request
            }
            Some(Running::Clear { request, range }) => {
                if done {
                    self.disk.cleared(&range);
                }
                request
            }
            Some(Running::Flush) => return self.flush_step(result, io),
            None => return Ok(()),
        };
        self.part_ended(request, done, io)
    }

    fn part_ended(&mut self, number: usize, done: bool, io: &mut Io) -> Result<(), Fault> {
        let Some(pending) = self.requests.get_mut(number) else {
            return Ok(());
        };
        pending.failed |= !done;
        pending.parts -= 1;
        if pending.parts > 0 {
            return Ok(());
        }
        if !pending.failed {
            self.traffic.read.fetch_add(pending.moved.0, Ordering::Relaxed);
            self.traffic.written.fetch_add(pending.moved.1, Ordering::Relaxed);
        }
        let code = if pending.failed { S_IOERR } else { S_OK };
        self.answer(number, code, io)
    }

    /// Answers a flush.
    pub(super) fn flushed(&mut self, number: usize, done: bool, io: &mut Io) -> Result<(), Fault> {
        self.answer(number, if done { S_OK } else { S_IOERR }, io)
    }

    fn answer(&mut self, number: usize, code: u8, io: &mut Io) -> Result<(), Fault> {
        let Some(Pending { head, mut status, written, .. }) = self.requests.remove(number) else {
            return Ok(());
        };
        status.fill(&[code]);
        self.give_back(head, written, io)
    }

    fn give_back(&mut self, head: u16, written: u32, io: &mut Io) -> Result<(), Fault> {
        self.answered = true;
        io.queues[0].push(head, written)
    }
}
