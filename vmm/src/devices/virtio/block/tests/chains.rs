//! Disks of several layers against a model, and what is left of them when the process or the host stops.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::super::testing::Driver;
use super::*;
use crate::disk::engine::{Action, Op, Sync, Uring};
use crate::disk::{Parent, create};

/// Sectors of the disks: some whole blocks and a half.
const SECTORS: u64 = 44;
const LENGTH: usize = SECTORS as usize * 512;

/// What a driver may do to a disk.
#[derive(Debug, Clone)]
enum Step {
    Write {
        sector: u64,
        sectors: u64,
        seed: u8,
    },
    Discard {
        sector: u64,
        sectors: u64,
    },
    Zero {
        sector: u64,
        sectors: u64,
    },
    Read {
        sector: u64,
        sectors: u64,
    },
    Flush,
    /// The machine goes on with a new layer.
    Freeze,
    /// The machine ends and another one has the disk.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..SECTORS, 1..20u64).prop_map(|(sector, sectors)| (sector, sectors.min(SECTORS - sector)));
    prop_oneof![
        5 => (place.clone(), any::<u8>()).prop_map(|((sector, sectors), seed)| Step::Write { sector, sectors, seed }),
        2 => place.clone().prop_map(|(sector, sectors)| Step::Discard { sector, sectors }),
        2 => place.clone().prop_map(|(sector, sectors)| Step::Zero { sector, sectors }),
        3 => place.prop_map(|(sector, sectors)| Step::Read { sector, sectors }),
        2 => Just(Step::Flush),
        1 => Just(Step::Freeze),
        1 => Just(Step::Reopen),
    ]
}

fn bytes(seed: u8, length: u64) -> Vec<u8> {
    (0..length * 512).map(|at| (at / 7 + at / 512) as u8 ^ seed | 1).collect()
}

/// A bottom with something in it, and `depth` layers over it.
fn files(raw: bool, depth: usize) -> (Vec<File>, Vec<u8>) {
    let bottom = tempfile::tempfile().unwrap();
    let contents = match raw {
        true => {
            let contents = bytes(0x55, SECTORS);
            bottom.write_all_at(&contents, 0).unwrap();
            contents
        }
        false => {
            create(&bottom, "bottom", LENGTH as u64, Parent::None).unwrap();
            vec![0; LENGTH]
        }
    };
    let mut files = vec![bottom];
    for _ in 0..depth {
        let mut disk = open(&files);
        let file = tempfile::tempfile().unwrap();
        disk.add_layer(file.try_clone().unwrap()).unwrap();
        files.push(file);
    }
    (files, contents)
}

fn open(files: &[File]) -> Disk {
    let named = files.iter().enumerate().map(|(index, file)| (index.to_string(), file.try_clone().unwrap()));
    Disk::open(named.collect(), true).unwrap()
}

fn contents(files: &[File]) -> Vec<u8> {
    let mut contents = vec![0xee; LENGTH];
    open(files).read_at(&mut contents, 0).unwrap();
    contents
}

/// A machine's disk with its driver.
struct Machine {
    files: Vec<File>,
    block: Block,
    driver: Driver,
}

impl Machine {
    fn new(files: Vec<File>, make_engine: MakeEngine) -> Self {
        let block = Block::new(open(&files), "", None, Arc::default(), make_engine);
        let driver = Driver::new(&block);
        Self { files, block, driver }
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Vec<u8> {
        let mut answer = self.driver.request(&mut self.block, 0, &[&header(kind, sector), data], room + 1);
        assert_eq!(answer.pop(), Some(S_OK), "request {kind} at {sector}");
        answer
    }

    fn freeze(&mut self) {
        self.block.settle(&mut self.driver.io).unwrap();
        let file = tempfile::tempfile().unwrap();
        self.block.new_layer(file.try_clone().unwrap()).unwrap();
        self.files.push(file);
    }
}

/// Plays steps on a device and on a model, which must always agree; the model in the end.
fn play(mut machine: Machine, mut model: Vec<u8>, steps: &[Step], engine: fn() -> MakeEngine) -> Vec<u8> {
    for step in steps {
        let area = |sector: u64, sectors: u64| sector as usize * 512..(sector + sectors) as usize * 512;
        match *step {
            Step::Write { sector, sectors, seed } => {
                let data = bytes(seed, sectors);
                model[area(sector, sectors)].copy_from_slice(&data);
                machine.request(T_OUT, sector, &data, 0);
            }
            Step::Zero { sector, sectors } => {
                model[area(sector, sectors)].fill(0);
                machine.request(T_WRITE_ZEROES, 0, &range(sector, sectors as u32, 1), 0);
            }
            Step::Discard { sector, sectors } => {
                machine.request(T_DISCARD, 0, &range(sector, sectors as u32, 0), 0);
                // Whole blocks are zeros then. Of a part it may be either.
                let place = area(sector, sectors);
                let found = machine.request(T_IN, sector, &[], place.len());
                let whole = |at: u64| {
                    (at / 8 * 8..(at / 8 * 8 + 8).min(SECTORS)).all(|s| (sector..sector + sectors).contains(&s))
                };
                for (at, sector) in (sector..sector + sectors).enumerate() {
                    let now = &found[at * 512..(at + 1) * 512];
                    let before = &mut model[area(sector, 1)];
                    assert!(now.iter().all(|byte| *byte == 0) || now == before && !whole(sector));
                    before.copy_from_slice(now);
                }
            }
            Step::Read { sector, sectors } => {
                let found = machine.request(T_IN, sector, &[], sectors as usize * 512);
                assert!(found == model[area(sector, sectors)], "{step:?}");
            }
            Step::Flush => drop(machine.request(T_FLUSH, 0, &[], 0)),
            Step::Freeze if machine.files.len() > 6 => {}
            Step::Freeze => machine.freeze(),
            Step::Reopen => {
                machine.block.settle(&mut machine.driver.io).unwrap();
                let files = machine.files;
                drop(machine.block);
                machine = Machine::new(files, engine());
            }
        }
    }
    assert!(machine.request(T_IN, 0, &[], LENGTH) == model);
    machine.block.settle(&mut machine.driver.io).unwrap();
    let files = machine.files;
    drop(machine.block);
    assert!(contents(&files) == model, "closed and opened again");
    model
}

fn best() -> MakeEngine {
    Box::new(engine::best)
}

fn queued() -> MakeEngine {
    Box::new(|| Box::new(Uring::with_queued_writes().expect("io_uring, without which this test says nothing")))
}

fn synchronous() -> MakeEngine {
    Box::new(|| Box::new(Sync::default()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_chain_of_any_depth_is_a_disk(
        raw in any::<bool>(), depth in 0usize..4, steps in proptest::collection::vec(step(), 0..30), engine in 0usize..3,
    ) {
        let engine = [best, queued, synchronous][engine];
        let (files, contents) = files(raw, depth);
        play(Machine::new(files, engine()), contents, &steps, engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn many_requests_in_flight_do_not_disturb_each_other(
        raw in any::<bool>(), depth in 0usize..3, engine in 0usize..3, settles in any::<bool>(),
        lengths in proptest::collection::vec((1u64..12, 0u8..4, any::<u8>()), 1..44),
    ) {
        let (files, mut model) = files(raw, depth);
        let before = model.clone();
        let mut machine = Machine::new(files, [best, queued, synchronous][engine]());
        let (mut sector, mut sent) = (0, Vec::new());
        for (sectors, kind, seed) in lengths {
            let sectors = sectors.min(SECTORS - sector);
            let area = sector as usize * 512..(sector + sectors) as usize * 512;
            let request = match kind {
                0 => machine.driver.send(0, &[&header(T_IN, sector)], &[sectors as usize * 512 + 1]),
                1 => machine.driver.send(0, &[&header(T_FLUSH, 0)], &[1]),
                2 => {
                    model[area.clone()].fill(0);
                    machine.driver.send(0, &[&header(T_WRITE_ZEROES, 0), &range(sector, sectors as u32, 0)], &[1])
                }
                _ => {
                    let data = bytes(seed, sectors);
                    model[area.clone()].copy_from_slice(&data);
                    machine.driver.send(0, &[&header(T_OUT, sector), &data], &[1])
                }
            };
            sent.push((request, (kind == 0).then_some(area)));
            if kind != 1 {
                sector += sectors;
            }
        }
        machine.driver.kick(&mut machine.block, 0).unwrap();
        if settles {
            // A pause: when it is there, all that was taken is answered.
            machine.block.settle(&mut machine.driver.io).unwrap();
            prop_assert_eq!(machine.block.requests.len(), 0);
            machine.driver.kick(&mut machine.block, 0).unwrap();
        }
        while !sent.is_empty() {
            let head = machine.driver.wait_used(&mut machine.block, 0);
            let at = sent.iter().position(|(sent, _)| *sent == head).expect("each is answered once");
            let (_, read) = sent.swap_remove(at);
            let answer = machine.driver.written(0, head);
            prop_assert_eq!(answer.last(), Some(&S_OK));
            if let Some(area) = read {
                prop_assert!(answer[..answer.len() - 1] == before[area]);
            }
        }
        prop_assert!(machine.request(T_IN, 0, &[], LENGTH) == model);
    }
}

#[test]
fn a_device_that_goes_away_waits_for_what_is_in_flight() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(64 << 20).unwrap();
    let mut machine = Machine::new(vec![file], queued());
    for sector in 0..20 {
        machine.driver.send(0, &[&header(T_OUT, sector * 2048), &vec![5; 200 << 10]], &[1]);
    }
    machine.driver.kick(&mut machine.block, 0).unwrap();
    let Machine { files, block, driver } = machine;
    drop(block);
    // Nobody holds the guest's memory any more.
    let memory = driver.memory.clone();
    drop(driver);
    assert_eq!(Arc::strong_count(&memory), 1);
    let mut byte = [0];
    files[0].read_exact_at(&mut byte, 19 << 20).unwrap();
    assert_eq!(byte, [5]);
}

#[test]
fn what_lies_below_is_never_written_to() {
    let (files, model) = files(true, 1);
    let kept: Vec<File> = files.iter().map(|file| file.try_clone().unwrap()).collect();
    let mut machine = Machine::new(files, best());
    machine.request(T_OUT, 0, &bytes(1, 9), 0);
    machine.freeze();
    let read = |file: &File| {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before: Vec<_> = kept.iter().map(read).collect();
    assert_eq!(before[0], model);
    machine.request(T_OUT, 3, &bytes(2, 20), 0);
    machine.request(T_DISCARD, 0, &range(8, 16, 0), 0);
    machine.request(T_FLUSH, 0, &[], 0);
    let after: Vec<_> = kept.iter().map(read).collect();
    assert!(before == after);
    // What was frozen is what it was, whatever the new layer has.
    let mut frozen = model;
    frozen[..9 * 512].copy_from_slice(&bytes(1, 9));
    assert!(contents(&kept) == frozen);
}

#[test]
fn a_discarded_block_takes_no_room_and_hides_what_lies_below() {
    let (files, _) = files(true, 1);
    let top = files[1].try_clone().unwrap();
    let mut machine = Machine::new(files, best());
    let room = || top.metadata().unwrap().blocks() * 512;
    let empty = room();
    machine.request(T_OUT, 8, &bytes(1, 32), 0);
    assert!(room() >= empty + 16384);
    machine.request(T_DISCARD, 0, &range(8, 32, 0), 0);
    assert_eq!(room(), empty);
    assert_eq!(machine.request(T_IN, 8, &[], 32 * 512), vec![0; 32 * 512]);
}

#[test]
fn a_longer_layer_reads_as_zeros_behind_what_it_lies_on() {
    let raw = tempfile::tempfile().unwrap();
    raw.write_all_at(&[7; 4096 + 512], 0).unwrap();
    let top = tempfile::tempfile().unwrap();
    create(&top, "top", 16384, Parent::Raw(4096 + 512)).unwrap();
    let mut machine = Machine::new(vec![raw, top], best());
    let mut expected = vec![7; 4096 + 512];
    expected.resize(16384, 0);
    assert_eq!(machine.request(T_IN, 0, &[], 16384), expected);
    machine.request(T_OUT, 10, &[9; 512], 0);
    expected[5120..5632].fill(9);
    assert_eq!(machine.request(T_IN, 0, &[], 16384), expected);
}

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
