//! Snapshots of guests that notice whatever is lost, and going on from them.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use yunju_protocol::control::{MachineInfo, MachineState, SnapshotInfo};

use crate::machine::{Machine, Plan};

/// Snapshots in a folder, all of one guest.
struct Album(TempDir);

impl Album {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What `--restore` needs to go on from `name`, a difference to `base` if there is one.
    fn restore(&self, name: &str, base: Option<&str>) -> String {
        let base = base.map(|base| format!(",base={}", self.path(base).display())).unwrap_or_default();
        format!("{}{base}", self.path(name).display())
    }
}

/// A disk on which each sector holds its number.
fn numbered() -> Vec<u8> {
    (0..256_u64).flat_map(|sector| sector.to_le_bytes().repeat(64)).collect()
}

/// A guest that looks at all that it has, again and again.
fn life(options: &str, cpus: u8) -> Plan {
    let cmdline = format!("test=life cpus={cpus} {options}");
    Machine::boot(&cmdline).cpus(cpus).readonly_disk("numbers", &numbered()).control()
}

/// The same, going on from a snapshot.
fn again(from: &str, cpus: u8) -> Machine {
    life("", cpus).args(["--restore", from]).start()
}

fn number(line: &str, name: &str) -> u64 {
    word(line, name).parse().unwrap_or_else(|_| panic!("no number {name} in {line:?}"))
}

fn word<'l>(line: &'l str, name: &str) -> &'l str {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// The number of the next step.
fn step(machine: &mut Machine) -> u64 {
    number(&machine.expect("STEP"), "STEP")
}

/// What the guest is and holds.
fn status(machine: &mut Machine) -> String {
    machine.type_text("s");
    machine.expect("STATUS")
}

fn suspend(machine: &mut Machine, to: &Path) -> SnapshotInfo {
    let info = machine.snapshot(to, true, false).expect("a snapshot");
    assert_eq!(machine.end(), (0, "yunju-vmm: machine ended: suspended".to_owned()));
    info
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
