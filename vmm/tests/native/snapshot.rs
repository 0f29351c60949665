//! Snapshots of guests that notice whatever is lost, and going on from them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use yunju_protocol::control::{MachineInfo, MachineState, SnapshotInfo};
use yunju_vmm::snapshot::generation;
use yunju_vmm::snapshot::state::State;

use crate::machine::{Machine, Plan, eventually};

/// Snapshots in a folder, all of one guest.
pub struct Album(TempDir);

impl Album {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What `--restore` needs to go on from `name`, a difference to `base` if there is one.
    pub fn restore(&self, name: &str, base: Option<&str>) -> String {
        let base = base.map(|base| format!(",base={}", self.path(base).display())).unwrap_or_default();
        format!("{}{base}", self.path(name).display())
    }
}

/// A disk on which each sector holds its number.
pub fn numbered() -> Vec<u8> {
    (0..256_u64).flat_map(|sector| sector.to_le_bytes().repeat(64)).collect()
}

/// A guest that looks at all that it has, again and again.
pub fn life(options: &str, cpus: u8) -> Plan {
    let cmdline = format!("test=life cpus={cpus} {options}");
    Machine::boot(&cmdline).cpus(cpus).readonly_disk("numbers", &numbered()).control()
}

/// The same, going on from a snapshot.
pub fn again(from: &str, cpus: u8) -> Machine {
    life("", cpus).args(["--restore", from]).start()
}

pub fn number(line: &str, name: &str) -> u64 {
    word(line, name).parse().unwrap_or_else(|_| panic!("no number {name} in {line:?}"))
}

pub fn word<'l>(line: &'l str, name: &str) -> &'l str {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// The number of the next step.
pub fn step(machine: &mut Machine) -> u64 {
    number(&machine.expect("STEP"), "STEP")
}

/// What the guest is and holds.
pub fn status(machine: &mut Machine) -> String {
    machine.type_text("s");
    machine.expect("STATUS")
}

pub fn suspend(machine: &mut Machine, to: &Path) -> SnapshotInfo {
    let info = machine.snapshot(to, true, false).expect("a snapshot");
    assert_eq!(machine.end(), (0, "yunju-vmm: machine ended: suspended".to_owned()));
    info
}

#[test]
fn an_instruction_that_was_being_served_takes_effect_once_in_what_goes_on() {
    let album = Album::new();
    let plan = || Machine::boot("test=exits").control();
    let mut machine = plan().start();
    machine.expect("PROBE START");
    let mut said = String::new();
    for round in 0..30 {
        let name = format!("snapshot{round}");
        said += &machine.line();
        machine.snapshot(&album.path(&name), true, true).expect("a snapshot");
        assert_eq!(machine.end(), (0, "yunju-vmm: machine ended: suspended".to_owned()));
        said += &machine.rest();
        machine = plan().args(["--restore", &album.restore(&name, None)]).start();
    }
    let expected: String = ('a'..='z').cycle().take(said.len()).collect();
    let wrong = said.bytes().zip(expected.bytes()).position(|(said, expected)| said != expected);
    assert_eq!(wrong, None, "after {:?}", wrong.map(|at| &said[at.saturating_sub(30)..(at + 30).min(said.len())]));
}

#[test]
fn a_machine_goes_on_from_its_snapshot_two_hundred_times_and_nothing_is_lost() {
    let album = Album::new();
    let mut machine = life("", 1).start();
    step(&mut machine);
    suspend(&mut machine, &album.path("0"));
    let mut reached = 0;
    for round in 1..=200 {
        // Differences to a whole one that is renewed now and then.
        let base = (round - 1) / 50 * 50;
        let last = round - 1;
        let from = match last == base {
            true => album.restore(&last.to_string(), None),
            false => album.restore(&last.to_string(), Some(&base.to_string())),
        };
        let mut machine = again(&from, 1);
        let now = step(&mut machine);
        assert!(now > reached, "step {now} after {reached}");
        reached = step(&mut machine);
        let (to, whole) = (album.path(&round.to_string()), round % 50 == 0);
        let info = if round % 2 == 0 {
            let info = machine.snapshot(&to, true, whole).unwrap();
            assert_eq!(machine.end().0, 0);
            info
        } else {
            let info = machine.snapshot(&to, false, whole).unwrap();
            step(&mut machine);
            info
        };
        assert_eq!(info.differential, !whole, "round {round}");
        if last > base {
            fs::remove_dir_all(album.path(&last.to_string())).unwrap();
        }
    }
}

#[test]
fn a_machine_goes_on_while_its_snapshot_is_written_and_the_snapshot_is_of_before() {
    let album = Album::new();
    let mut machine = life("", 2).start();
    step(&mut machine);
    let before = step(&mut machine);
    let info = machine.snapshot(&album.path("s"), false, false).unwrap();
    assert!(!info.differential && info.memory_bytes > 0 && info.pause_us > 0, "{info:?}");
    assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Running);
    let after = number(&status(&mut machine), "step");
    let mut copy = again(&album.restore("s", None), 2);
    let gone_on = step(&mut copy);
    assert!(gone_on > before && gone_on <= after + 1, "{before}, {gone_on}, {after}");
    for machine in [&mut machine, &mut copy] {
        machine.type_text("q");
        machine.succeeds();
    }
}

#[test]
fn a_hundred_machines_go_on_from_one_snapshot_at_once_and_all_are_others() {
    let album = Album::new();
    // They rest most of the time: this computer has two processors.
    let mut machine = life("hold=16 rest=200", 1).start();
    step(&mut machine);
    suspend(&mut machine, &album.path("s"));
    let from = album.restore("s", None);
    let mut machines: Vec<_> = (0..100).map(|_| again(&from, 1)).collect();
    machines.iter_mut().for_each(|machine| machine.type_text("s"));
    let mut generations: Vec<_> =
        machines.iter_mut().map(|machine| word(&machine.expect("STATUS"), "generation").to_owned()).collect();
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), 100);
}

#[test]
fn a_paused_machine_stays_paused_and_what_goes_on_from_its_snapshot_runs() {
    let album = Album::new();
    let mut machine = life("", 1).start();
    step(&mut machine);
    machine.post::<MachineInfo>("/machine/pause");
    machine.snapshot(&album.path("s"), false, false).unwrap();
    assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Paused);
    assert!(machine.is_silent(Duration::from_millis(50)));
    let mut copy = again(&album.restore("s", None), 1);
    step(&mut copy);
    machine.post::<MachineInfo>("/machine/resume");
    step(&mut machine);
}

/// A snapshot's memory as it is when its machine goes on, but for the mark of which snapshot it is.
fn composed(folder: &Path, base: Option<&Path>) -> Vec<u8> {
    let read = |folder: &Path| fs::read(folder.join("memory")).expect("a memory file");
    let memory = read(folder);
    let mut whole = base.map_or_else(|| memory.clone(), read);
    let state = State::read(&File::open(folder.join("state")).expect("a state file")).expect("its state");
    assert_eq!(state.memory.base.is_some(), base.is_some());
    for extent in &state.memory.extents {
        let bytes = (extent.page * 4096) as usize..((extent.page + extent.count) * 4096) as usize;
        whole[bytes.clone()].copy_from_slice(&memory[bytes]);
    }
    whole[generation::MARK as usize..][..16].fill(0);
    whole
}

#[test]
fn a_difference_and_a_whole_snapshot_of_one_moment_are_the_same_memory() {
    let album = Album::new();
    let mut machine = life("fill=8", 1).start();
    step(&mut machine);
    suspend(&mut machine, &album.path("base"));
    for (from, base) in [("base", None), ("difference", Some("base"))] {
        let mut machine = again(&album.restore(from, base), 1);
        step(&mut machine);
        machine.post::<MachineInfo>("/machine/pause");
        let (difference, whole) = (album.path("new"), album.path(&format!("whole-{from}")));
        let small = machine.snapshot(&difference, false, false).unwrap();
        let large = machine.snapshot(&whole, false, true).unwrap();
        assert!(small.differential && !large.differential);
        assert!(small.memory_bytes < large.memory_bytes && large.memory_bytes > 8 << 20, "{small:?} {large:?}");
        let base = album.path("base");
        assert!(composed(&difference, Some(&base)) == composed(&whole, None), "the memory differs");
        let room = |folder: &Path| fs::metadata(folder.join("memory")).unwrap().blocks() * 512;
        assert!(room(&difference) < 4 << 20 && room(&whole) < 32 << 20, "{} {}", room(&difference), room(&whole));
        let mut copy = again(&whole.display().to_string(), 1);
        step(&mut copy);
        if from == "base" {
            fs::rename(&difference, album.path("difference")).unwrap();
        }
    }
}

#[test]
fn memory_is_what_it_was_when_a_machine_goes_on_but_for_what_the_guest_does_next() {
    let album = Album::new();
    let mut machine = life("fill=32 hold=16 rest=300", 1).start();
    step(&mut machine);
    for round in 0..3 {
        let (before, after) = (album.path(&format!("before-{round}")), album.path(&format!("after-{round}")));
        machine.snapshot(&before, true, true).expect("a snapshot");
        assert_eq!(machine.end().0, 0);
        machine = again(&before.display().to_string(), 1);
        // It runs until then: a few pages of its own, its stacks and its devices' rings.
        machine.post::<MachineInfo>("/machine/pause");
        machine.snapshot(&after, false, true).expect("a snapshot");
        machine.post::<MachineInfo>("/machine/resume");
        let (before, after) = (composed(&before, None), composed(&after, None));
        let pages = before.chunks(4096).zip(after.chunks(4096)).enumerate();
        let changed: Vec<_> = pages.filter(|(_, (was, is))| was != is).map(|(page, _)| page).collect();
        assert!(changed.contains(&(generation::MARK as usize / 4096)), "it is told that it is another: {changed:?}");
        assert!(changed.len() <= 40 && before.len() == after.len(), "round {round}: pages {changed:x?} changed");
        println!("round {round}: {} of {} pages changed", changed.len(), before.len() / 4096);
    }
}

#[test]
fn time_goes_on_while_nothing_runs_and_never_back() {
    let album = Album::new();
    let mut machine = life("", 1).start();
    step(&mut machine);
    // The guest looks at its clock between two moments of this one.
    let look = |machine: &mut Machine| {
        let before = Instant::now();
        let clock = Duration::from_nanos(number(&status(machine), "clock"));
        (before, clock, Instant::now())
    };
    let first = look(&mut machine);
    suspend(&mut machine, &album.path("s"));
    thread::sleep(Duration::from_millis(1200));
    let mut copy = again(&album.restore("s", None), 1);
    let second = look(&mut copy);
    let passed = second.1 - first.1;
    let (least, most) = (second.0 - first.2, second.2 - first.0);
    let slack = Duration::from_millis(100);
    assert!(passed + slack >= least && passed <= most + slack, "{passed:?} instead of {least:?} to {most:?}");
}

#[test]
fn a_copy_is_told_that_it_is_another_one() {
    let album = Album::new();
    let mut machine = life("", 1).start();
    step(&mut machine);
    let first = status(&mut machine);
    assert_eq!(number(&first, "renewed"), 0);
    suspend(&mut machine, &album.path("s"));
    let mut generations = vec![word(&first, "generation").to_owned()];
    for _ in 0..2 {
        let mut copy = again(&album.restore("s", None), 1);
        // The interrupt that says so and the question may come in any order.
        let told = || Some(status(&mut copy)).filter(|line| number(line, "renewed") == 1);
        let line = eventually(told, || "the copy is not told".into());
        let generation = word(&line, "generation").to_owned();
        assert!(!generations.contains(&generation));
        generations.push(generation);
    }
}

#[test]
fn a_restored_guest_that_restarts_boots_with_empty_memory() {
    let album = Album::new();
    let mut machine = life("fill=4", 1).start();
    step(&mut machine);
    suspend(&mut machine, &album.path("s"));
    let mut copy = again(&album.restore("s", None), 1);
    step(&mut copy);
    copy.type_text("r");
    copy.expect("PROBE START life");
    copy.expect("STEP 1");
    assert_eq!(copy.get::<MachineInfo>("/machine").resets, 1);
    // It has nothing to do with the snapshot any more. Its configuration fills no memory: the first guest's command line did.
    let info = suspend(&mut copy, &album.path("t"));
    assert!(!info.differential && info.memory_bytes < 3 << 20, "{info:?}");
    step(&mut again(&album.restore("t", None), 1));
}

#[test]
fn a_restart_that_was_asked_for_before_the_snapshot_comes_after_it() {
    let album = Album::new();
    let plan = || Machine::boot("test=reset-loop").control();
    let mut machine = plan().start();
    machine.expect("PROBE START");
    for round in 0..10 {
        let to = album.path(&round.to_string());
        suspend(&mut machine, &to);
        machine = plan().args(["--restore", &to.display().to_string()]).start();
        let resets = || (machine.get::<MachineInfo>("/machine").resets > 1).then_some(());
        eventually(resets, || "the machine does not restart".into());
    }
}

#[test]
fn the_counters_of_restored_processors_stay_with_their_clock() {
    let album = Album::new();
    let mut machine = life("", 2).start();
    let mut first = None;
    for round in 0..5 {
        step(&mut machine);
        let to = album.path(&round.to_string());
        machine.snapshot(&to, true, true).expect("a snapshot");
        assert_eq!(machine.end().0, 0);
        let state = State::read(&File::open(to.join("state")).unwrap()).unwrap();
        let clock = state.vm.moment().clock;
        let counters: Vec<_> = state.vcpus.iter().map(|cpu| cpu.counter().expect("a counter")).collect();
        let (start, before) = first.get_or_insert_with(|| (clock, counters.clone()));
        for ((cpu, now), before) in state.vcpus.iter().zip(&counters).zip(before) {
            let (counted, passed) = (now.wrapping_sub(*before), cpu.ticks(clock - *start));
            let apart = counted.abs_diff(passed);
            assert!(apart < cpu.ticks(50_000), "{counted} ticks in {passed} of the clock, round {round}");
        }
        machine = again(&album.restore(&round.to_string(), None), 2);
    }
}
