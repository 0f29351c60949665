//! Snapshots during which something goes wrong: somebody is killed, the disk is full, another one is asked for.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use yunju_protocol::control::{MachineInfo, MachineState};
use yunju_protocol::machine::Endpoint;
use yunju_vmm::snapshot::client::{self, Error, Wanted};

use crate::machine::{Machine, VMM, eventually};
use crate::snapshot::{Album, again, life, step, suspend};

/// The command, on its way.
fn client(machine: &Machine, album: &Album, name: &str, flags: &[&str]) -> Child {
    let socket = machine.path("control.sock");
    eventually(|| socket.exists().then_some(()), || "no control socket".into());
    Command::new(VMM)
        .args(["snapshot", "--control", &format!("unix:{}", socket.display()), "--to"])
        .arg(album.path(name))
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("yunju-vmm starts")
}

#[test]
fn whoever_is_killed_during_a_snapshot_and_whenever_the_one_before_is_whole() {
    let album = Album::new();
    let mut machine = life("fill=24", 1).start();
    step(&mut machine);
    suspend(&mut machine, &album.path("s"));
    let mut seed = 12345_u32;
    let mut finished = 0;
    for round in 0..30 {
        let mut machine = again(&album.restore("s", None), 1);
        step(&mut machine);
        let flags: &[&str] = if round % 3 == 2 { &["--end"] } else { &[] };
        let mut client = client(&machine, &album, "s", flags);
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        thread::sleep(Duration::from_micros(u64::from(seed >> 15)));
        if round % 2 == 0 {
            drop(machine);
            finished += i32::from(client.wait().unwrap().success());
        } else {
            client.kill().unwrap();
            finished += i32::from(client.wait().unwrap().success());
            if flags.is_empty() {
                step(&mut machine);
            }
        }
    }
    // The moments were some before and some after the end.
    assert!(finished < 30);
    step(&mut again(&album.restore("s", None), 1));
}

/// Lets no file of the machine grow beyond `bytes`, as if the disk were full.
fn limit_files(machine: &Machine, bytes: Option<u64>) {
    let pid = Pid::from_raw(machine.jailed_pid() as i32).expect("a process");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).expect("it lives");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size")).expect("a limit of every process");
    // The jail's, which only the host's own root could lift.
    let maximum = line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok());
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum })
        .expect("our process' limits are ours to set");
}

#[test]
fn a_full_disk_is_told_and_the_machine_goes_on() {
    let album = Album::new();
    let mut machine = life("fill=4", 1).start();
    step(&mut machine);
    for (limit, what) in [(1 << 20, "writing memory"), (0, "writing memory")] {
        limit_files(&machine, Some(limit));
        for end in [false, true] {
            let error = machine.snapshot(&album.path("s"), end, false).unwrap_err();
            assert!(
                matches!(&error, Error::Refused(text) if text.contains(what) && text.contains("make room")),
                "{error}"
            );
            assert!(!album.path("s").exists() && !album.path("s.partial").exists());
            assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Running);
            step(&mut machine);
        }
    }
    let files: Vec<_> = (0..2).map(|_| tempfile::tempfile().unwrap()).collect();
    let answer = machine.order(&files, "{}");
    assert!(answer.starts_with("HTTP/1.1 507 Insufficient Storage"), "{answer}");
    limit_files(&machine, None);
    suspend(&mut machine, &album.path("s"));
    step(&mut again(&album.restore("s", None), 1));
}

#[test]
fn a_second_snapshot_at_a_time_is_refused_and_the_machine_answers_meanwhile() {
    let album = Album::new();
    let mut machine = life("fill=32", 1).memory("96M").start();
    step(&mut machine);
    let control = machine.path("control.sock");
    let take = |name: &str| {
        let control = Endpoint::Unix(control.clone());
        client::take(&Wanted { control, folder: album.path(name), layers: Vec::new(), end: false, whole: false })
    };
    let refused = |result: &Result<_, Error>| matches!(result, Err(Error::Refused(text)) if text.contains("another snapshot is being written"));
    let collided = (0..100).any(|round| {
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| take(&format!("{round}a")));
            let second = take(&format!("{round}b"));
            assert_eq!(machine.get::<MachineInfo>("/machine").cpus, 1);
            (first.join().unwrap(), second)
        });
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        assert!(first.is_ok() || refused(&first), "{first:?}");
        assert!(second.is_ok() || refused(&second), "{second:?}");
        first.is_err() || second.is_err()
    });
    assert!(collided, "of a hundred pairs none was at one time");
    step(&mut machine);
}

#[test]
fn a_machine_that_is_killed_while_it_is_suspended_ends_at_once() {
    let album = Album::new();
    for round in 0..6 {
        let mut machine = life("fill=24", 1).start();
        step(&mut machine);
        let mut client = client(&machine, &album, "s", &["--end"]);
        thread::sleep(Duration::from_millis(3 * round));
        machine.tell_to_end();
        let (code, line) = machine.end();
        assert_eq!(code, 0, "{line}");
        let taken = client.wait().unwrap().success();
        assert_eq!(taken, album.path("s").exists(), "round {round}: {line}");
        let _ = std::fs::remove_dir_all(album.path("s"));
    }
}
