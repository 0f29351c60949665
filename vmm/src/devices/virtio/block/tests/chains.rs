//! Disks of several layers against a model.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::super::testing::Driver;
use super::*;
use crate::disk::engine::{Sync, Uring};
use crate::disk::{Parent, create};

/// Sectors of the disks: some whole blocks and a half.
pub(super) const SECTORS: u64 = 44;
pub(super) const LENGTH: usize = SECTORS as usize * 512;

/// What a driver may do to a disk.
#[derive(Debug, Clone)]
pub(super) enum Step {
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

pub(super) fn step() -> impl Strategy<Value = Step> {
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

pub(super) fn bytes(seed: u8, length: u64) -> Vec<u8> {
    (0..length * 512).map(|at| (at / 7 + at / 512) as u8 ^ seed | 1).collect()
}

/// A bottom with something in it, and `depth` layers over it.
pub(super) fn files(raw: bool, depth: usize) -> (Vec<File>, Vec<u8>) {
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

pub(super) fn contents(files: &[File]) -> Vec<u8> {
    let mut contents = vec![0xee; LENGTH];
    open(files).read_at(&mut contents, 0).unwrap();
    contents
}

/// A machine's disk with its driver.
pub(super) struct Machine {
    files: Vec<File>,
    pub(super) block: Block,
    driver: Driver,
}

impl Machine {
    pub(super) fn new(files: Vec<File>, make_engine: MakeEngine) -> Self {
        let block = Block::new(open(&files), "", None, Arc::default(), make_engine);
        let driver = Driver::new(&block);
        Self { files, block, driver }
    }

    /// What comes back, with the status behind it.
    pub(super) fn answer(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Vec<u8> {
        self.driver.request(&mut self.block, 0, &[&header(kind, sector), data], room + 1)
    }

    pub(super) fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> Vec<u8> {
        let mut answer = self.answer(kind, sector, data, room);
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
    Box::new(crate::disk::engine::best)
}

fn queued() -> MakeEngine {
    Box::new(|| Box::new(Uring::with_all_queued().expect("io_uring, without which this test says nothing")))
}

pub(super) fn synchronous() -> MakeEngine {
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
