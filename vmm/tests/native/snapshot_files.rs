//! Snapshots that are damaged, made up, or of another machine.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;

use kvm_bindings::kvm_cpuid_entry2;
use yunju_vmm::snapshot::state::State;

use crate::machine::{PATIENCE, complaint_of, guest, refused};
use crate::snapshot::{Album, life, numbered, step, suspend};

/// A snapshot in a folder of its own, and how to try to go on from it.
struct Trial(Album);

impl Trial {
    fn new() -> Self {
        let album = Album::new();
        let mut machine = life("", 1).start();
        step(&mut machine);
        suspend(&mut machine, &album.path("good"));
        fs::write(album.path("numbers"), numbered()).expect("a disk");
        Self(album)
    }

    /// A copy of the snapshot with other bytes in its state file.
    fn with_state(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let (good, bad) = (self.0.path("good"), self.0.path("bad"));
        fs::create_dir_all(&bad).expect("a folder");
        let mut bytes = fs::read(good.join("state")).expect("a state file");
        change(&mut bytes);
        fs::write(bad.join("state"), bytes).expect("a state file");
        fs::copy(good.join("memory"), bad.join("memory")).expect("room for a copy");
    }

    fn with_edited_state(&self, change: impl FnOnce(&mut State)) {
        self.with_state(|bytes| {
            let mut state = State::decode(bytes).expect("a state file");
            change(&mut state);
            *bytes = state.encode().expect("a state file");
        });
    }

    /// What the monitor says when it is to go on from `folder`; `flags` describe the machine, but for its kernel.
    fn run(&self, folder: &str, flags: &[&str]) -> Output {
        let kernel = guest("probe");
        let mut args = vec!["run", "--kernel", kernel.to_str().expect("a path of ours"), "--restore", folder];
        args.extend(flags);
        refused(&self.0.path(""), &args)
    }

    /// The one line that says why not.
    fn complaint(&self, folder: &str, flags: &[&str]) -> String {
        let output = self.run(folder, flags);
        let text = complaint_of(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        text
    }

    fn still_good(&self) {
        let mut machine =
            life("", 1).args(["--restore", self.0.path("good").to_str().expect("a path of ours")]).start();
        step(&mut machine);
    }
}

const SAME: [&str; 4] = ["--memory", "64M", "--disk", "numbers,readonly"];

#[test]
fn a_snapshot_of_another_machine_is_refused_with_what_differs() {
    let trial = Trial::new();
    let disk = "numbers,readonly";
    fs::write(trial.0.path("longer"), [0; 512 * 257]).unwrap();
    for (flags, expected) in [
        (
            &["--memory", "128M", "--disk", disk][..],
            "of a machine with 64M of memory, the configuration describes one with 128M",
        ),
        (
            &["--memory", "64M", "--disk", disk, "--cpus", "2"],
            "with 1 processors, the configuration describes one with 2",
        ),
        (&["--memory", "64M"], "with the devices disk, rng, the configuration describes one with the devices rng"),
        (&["--memory", "64M", "--disk", "longer,readonly"], "device 0: "),
        (&["--memory", "64M", "--disk", disk, "--vsock", "3,vsock"], "the devices disk, rng, vsock"),
    ] {
        let complaint = trial.complaint("good", flags);
        assert!(complaint.contains(expected), "{complaint}");
    }
    trial.still_good();
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let trial = Trial::new();
    let other = Trial::new();
    let complaint = |folder: &str| trial.complaint(folder, &SAME);
    let good = trial.0.path("good").display().to_string();
    assert!(complaint("nosuch").contains("nosuch/state: No such file"), "{}", complaint("nosuch"));
    let text = complaint(&format!("{good},base={good}"));
    assert!(text.contains("has no base"), "{text}");

    trial.with_state(|_| ());
    fs::copy(other.0.path("good").join("memory"), trial.0.path("bad").join("memory")).unwrap();
    assert!(complaint("bad").contains("belongs to another snapshot"), "{}", complaint("bad"));
    File::options().write(true).open(trial.0.path("bad").join("memory")).unwrap().set_len(12345).unwrap();
    assert!(complaint("bad").contains("12345 bytes instead of 67108864"), "{}", complaint("bad"));

    // A difference without its base, and on another one.
    let mut machine = life("", 1).args(["--restore", &good]).start();
    step(&mut machine);
    assert!(suspend(&mut machine, &trial.0.path("difference")).differential);
    assert!(complaint("difference").contains("name that one as the base"), "{}", complaint("difference"));
    let base = other.0.path("good").display().to_string();
    let text = complaint(&format!("difference,base={base}"));
    assert!(text.contains("belongs to another snapshot"), "{text}");
    trial.still_good();
}

#[test]
fn a_host_that_lacks_what_the_guest_was_told_of_is_refused_by_the_features_name() {
    let trial = Trial::new();
    trial.with_edited_state(|state| {
        let host = state.vcpus[0].cpuid.iter_mut();
        let features = |entry: &&mut kvm_cpuid_entry2| entry.function == 7 && entry.index == 0;
        match host.into_iter().find(features) {
            // A bit that no processor has.
            Some(entry) => entry.edx |= 1 << 12,
            None => state.vcpus[0].cpuid.push(kvm_cpuid_entry2 { function: 7, edx: 1 << 12, ..Default::default() }),
        }
    });
    let complaint = trial.complaint("bad", &SAME);
    assert!(complaint.contains("lacks cpuid leaf 0x7.0 edx bit 12"), "{complaint}");
    trial.still_good();
}

#[test]
fn damaged_and_made_up_state_files_end_in_a_complaint_or_a_broken_guest_and_never_a_panic() {
    let trial = Trial::new();
    let length = fs::metadata(trial.0.path("good").join("state")).unwrap().len() as usize;
    for cut in [0, 1, 23, 24, length / 2, length - 1] {
        trial.with_state(|bytes| bytes.truncate(cut));
        assert!(trial.complaint("bad", &SAME).contains("bad/state: "), "cut at {cut}");
    }
    trial.with_state(|bytes| bytes[length / 2] ^= 4);
    assert!(trial.complaint("bad", &SAME).contains("checksum"), "a flipped bit");
    trial.with_state(|bytes| bytes[8] = 9);
    assert!(trial.complaint("bad", &SAME).contains("format 9"), "another version");

    // The checksum is no protection against who makes such files.
    let mut seed = 1_u64;
    for round in 0..25 {
        trial.with_state(|bytes| {
            for _ in 0..1 + round / 5 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = 24 + (seed >> 33) as usize % (bytes.len() - 24);
                bytes[at] = (seed >> 24) as u8;
            }
            let checksum = crc32fast::hash(&bytes[24..]);
            bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        });
        harmless(&trial.0.path("bad"), round);
    }
    trial.still_good();
}

/// Goes on from a snapshot that may be anything, for a while.
fn harmless(folder: &Path, round: usize) {
    let mut machine = life("", 1).args(["--restore", folder.to_str().expect("a path of ours")]).start();
    // It says something, or ends, or is told to.
    machine.is_silent(PATIENCE / 100);
    machine.tell_to_end();
    let (code, line) = machine.end();
    assert!([0, 1, 3].contains(&code), "round {round}: {code} {line}");
}

#[test]
fn a_client_that_sends_no_or_wrong_files_is_told_what_is_wrong() {
    let mut machine = life("", 1).start();
    step(&mut machine);
    let (status, body) = machine.request("POST", "/machine/snapshot");
    assert_eq!((status, String::from_utf8_lossy(&body).contains("descriptors of a state file")), (400, true));
    let folder = Album::new();
    let (plain, used) = (folder.path("plain"), folder.path("used"));
    fs::write(&used, b"something").unwrap();
    File::create(&plain).unwrap();
    let open = |path: &Path, write| File::options().read(true).write(write).open(path).unwrap();
    for (files, expected) in [
        (vec![open(&plain, true)], "descriptors of a state file"),
        (vec![open(&plain, true), open(&used, true)], "descriptor 1 is not empty"),
        (vec![open(&plain, false), open(&plain, true)], "descriptor 0 is not open for reading and writing"),
        (vec![File::open("/dev/null").unwrap()], "descriptor 0 is no regular file"),
        (vec![open(&plain, true), open(&plain, true), open(&plain, true)], "1 new layers for 0 disks"),
        ((0..30).map(|_| open(&plain, true)).collect(), "more than 18 descriptors"),
    ] {
        let complaint = machine.order(&files, "{}");
        assert!(complaint.contains("HTTP/1.1 400") && complaint.contains(expected), "{complaint}");
    }
    let files = [open(&plain, true), open(&plain, true)];
    let complaint = machine.order(&files, r#"{"whole":true,"fast":true}"#);
    assert!(complaint.contains("HTTP/1.1 400") && complaint.contains("fast"), "{complaint}");
    step(&mut machine);
}
