//! What is left of a disk when the process or the host stops at any moment.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::chains::{LENGTH, Machine, SECTORS, Step, bytes, contents, files, step, synchronous};
use super::*;
use crate::disk::engine::{Action, Op, Sync};

/// One change of a file, as an engine was asked for it.
#[derive(Clone)]
enum Change {
    Write { file: u64, place: u64, bytes: Vec<u8> },
    Clear { file: u64, place: u64, length: u64 },
    Sync { file: u64 },
}

impl Change {
    fn file(&self) -> u64 {
        match self {
            Self::Write { file, .. } | Self::Clear { file, .. } | Self::Sync { file } => *file,
        }
    }

    /// Carries out `part` of it, from none to 8 eighths of its sectors.
    fn apply(&self, files: &BTreeMap<u64, &File>, part: usize) {
        let cut = |length: usize| (length / 512 * part / 8 * 512).min(length);
        match self {
            Self::Write { file, place, bytes } => files[file].write_all_at(&bytes[..cut(bytes.len())], *place).unwrap(),
            Self::Clear { file, place, length } => {
                files[file].write_all_at(&vec![0; cut(*length as usize)], *place).unwrap();
            }
            Self::Sync { .. } => {}
        }
    }
}

/// Carries operations out and remembers those that change something.
struct Recorder {
    inner: Sync,
    log: Arc<Mutex<Vec<Change>>>,
}

impl Engine for Recorder {
    fn submit(&mut self, tag: usize, op: Op) {
        let file = op.file.metadata().unwrap().ino();
        let change = match op.action {
            Action::Read => None,
            Action::Write => Some(Change::Write { file, place: op.place, bytes: op.pieces.bytes() }),
            Action::Clear => Some(Change::Clear { file, place: op.place, length: op.length }),
            Action::Sync => Some(Change::Sync { file }),
        };
        self.log.lock().unwrap().extend(change);
        self.inner.submit(tag, op);
    }

    fn start(&mut self) -> io::Result<()> {
        self.inner.start()
    }

    fn next(&mut self, wait: bool) -> io::Result<Option<(usize, io::Result<()>)>> {
        self.inner.next(wait)
    }
}

fn copy_of(file: &File) -> File {
    let copy = tempfile::tempfile().unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    copy.set_len(bytes.len() as u64).unwrap();
    // Holes stay holes.
    for (index, block) in bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0)) {
        copy.write_all_at(block, index as u64 * 4096).unwrap();
    }
    copy
}

/// For each sector, what may be in it after a stop: what was there at the last flush, or anything written since.
struct Allowed(Vec<Vec<Vec<u8>>>);

impl Allowed {
    fn flushed(contents: &[u8]) -> Self {
        Self(contents.chunks(512).map(|sector| vec![sector.to_vec()]).collect())
    }

    fn wrote(&mut self, sector: u64, data: &[u8]) {
        for (at, bytes) in data.chunks(512).enumerate() {
            self.0[sector as usize + at].push(bytes.to_vec());
        }
    }

    fn check(&self, found: &[u8], when: &str) {
        for (sector, (found, allowed)) in found.chunks(512).zip(&self.0).enumerate() {
            assert!(allowed.iter().any(|bytes| bytes == found), "{when}: sector {sector} has what was never there");
        }
    }
}

/// Writes and flushes, and notes for each moment which changes had been made and what may be found after a stop there.
fn record(files: &[File], mut model: Vec<u8>, steps: &[Step]) -> (Vec<Change>, Vec<(usize, Allowed)>) {
    let log: Arc<Mutex<Vec<Change>>> = Arc::default();
    let own = log.clone();
    let make: MakeEngine = Box::new(move || Box::new(Recorder { inner: Sync::default(), log: own.clone() }));
    let mut machine = Machine::new(files.iter().map(|file| file.try_clone().unwrap()).collect(), make);
    let mut written: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut flushed = model.clone();
    let mut moments = Vec::new();
    for step in steps {
        let area = |sector: u64, data: &[u8]| sector as usize * 512..sector as usize * 512 + data.len();
        match *step {
            Step::Write { sector, sectors, seed } => {
                let data = bytes(seed, sectors);
                written.push((sector, data.clone()));
                machine.request(T_OUT, sector, &data, 0);
                model[area(sector, &data)].copy_from_slice(&data);
            }
            Step::Zero { sector, sectors } | Step::Discard { sector, sectors } => {
                let data = vec![0; sectors as usize * 512];
                written.push((sector, data.clone()));
                machine.request(T_WRITE_ZEROES, 0, &range(sector, sectors as u32, 1), 0);
                model[area(sector, &data)].copy_from_slice(&data);
            }
            _ => {
                machine.request(T_FLUSH, 0, &[], 0);
                flushed.copy_from_slice(&model);
                written.clear();
            }
        }
        let mut allowed = Allowed::flushed(&flushed);
        written.iter().for_each(|(sector, data)| allowed.wrote(*sector, data));
        moments.push((log.lock().unwrap().len(), allowed));
    }
    let changes = log.lock().unwrap().clone();
    // It dies: nothing is flushed at the end, and what it did to the files is thrown away by who asked.
    std::mem::forget(machine.block);
    (changes, moments)
}

/// What may be found after a stop when `done` changes had been asked for: the flush under way may have come through or not.
fn allowed_after(moments: &[(usize, Allowed)], done: usize) -> impl Iterator<Item = &Allowed> {
    let before = moments.iter().rposition(|(count, _)| *count <= done);
    let next = before.map_or(0, |before| before + 1);
    before.map(|before| &moments[before].1).into_iter().chain(moments.get(next).map(|(_, allowed)| allowed))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn whatever_stops_it_nothing_that_was_flushed_is_lost_and_nothing_older_comes_back(
        raw in any::<bool>(), depth in 1usize..3, seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..14),
    ) {
        let (files, model) = files(raw, depth);
        let origin: Vec<File> = files.iter().map(copy_of).collect();
        let inodes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().ino()).collect();
        let (changes, moments) = record(&files, model.clone(), &steps);
        let mut random = seed;
        for cut in 0..=changes.len() {
            for host_stops in [false, true] {
                let copies: Vec<File> = origin.iter().map(copy_of).collect();
                let by_inode: BTreeMap<u64, &File> = inodes.iter().copied().zip(&copies).collect();
                for (index, change) in changes[..cut].iter().enumerate() {
                    // When the process is killed the kernel has all that was written. When the host stops, it keeps what
                    // was synced after it was written, and of the rest any part.
                    let syncs = |later: &Change| matches!(later, Change::Sync { .. }) && later.file() == change.file();
                    let synced = changes[index..cut].iter().any(syncs);
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // None or all of it most of the time.
                    let part = [0, 0, 0, 3, 5, 8, 8, 8][(random >> 61) as usize];
                    change.apply(&by_inode, if host_stops && !synced { part } else { 8 });
                }
                let found = contents(&copies);
                let when = format!("after {cut} of {} changes, host {host_stops}", changes.len());
                // Each sector must be of the moment before or the one after.
                let mut moment = Allowed(vec![Vec::new(); SECTORS as usize]);
                for allowed in allowed_after(&moments, cut) {
                    moment.0.iter_mut().zip(&allowed.0).for_each(|(into, from)| into.extend(from.iter().cloned()));
                }
                if moments.iter().all(|(count, _)| *count > cut) {
                    moment.0.iter_mut().zip(model.chunks(512)).for_each(|(into, from)| into.push(from.to_vec()));
                }
                moment.check(&found, &when);
                // And it stays so: what a machine then finds it keeps, also around what it writes.
                let mut machine = Machine::new(copies, synchronous());
                prop_assert!(machine.request(T_IN, 0, &[], LENGTH) == found);
                let mut expected = found;
                for sector in [1, 9, 40] {
                    machine.request(T_OUT, sector, &[0xab; 512], 0);
                    expected[sector as usize * 512..][..512].fill(0xab);
                }
                prop_assert!(machine.request(T_IN, 0, &[], LENGTH) == expected, "{when}: junk around a write");
            }
        }
    }
}
