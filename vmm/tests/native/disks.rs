//! Disks made of layers, in whole machines and in the hands of `yunju-vmm disk`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::machine::{Machine, refused};

/// What `yunju-vmm disk …` prints.
fn disk(folder: &Path, args: &[&str]) -> String {
    let output = refused(folder, &[&["disk"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What it complains about.
fn complaint(folder: &Path, args: &[&str]) -> String {
    let output = refused(folder, &[&["disk"], args].concat());
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8(output.stderr).expect("text").trim_end().to_owned()
}

#[test]
fn a_guest_writes_to_the_top_of_a_chain_and_never_below() {
    let plan = Machine::boot("test=blk");
    let base: Vec<u8> = (0..4 << 20).map(|at: u32| (at / 512) as u8).collect();
    fs::write(plan.path("base"), &base).unwrap();
    disk(plan.path("").as_path(), &["create", "middle", "--on", "base"]);
    let mut machine = plan.layered_disk("top", &["base", "middle"]).start();
    machine.succeeds();
    let folder = machine.path("");
    assert!(fs::read(machine.path("base")).unwrap() == base);
    assert_eq!(disk(&folder, &["diff", "base", "middle", "-o", "json"]), "[]\n");
    disk(&folder, &["flatten", "base", "middle", "top", "--to", "flat", "--raw"]);
    let bytes = fs::read(machine.path("flat")).unwrap();
    assert!(bytes[512..].starts_with(b"written by the probe\r\n"));
    assert!(bytes[8 * 512..24 * 512].iter().all(|byte| *byte == 0), "sectors 8 to 23 were discarded");
    assert!(bytes[1 << 20..] == base[1 << 20..], "what was not written to is as it was");
    assert!(fs::metadata(machine.path("top")).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_kernel_that_refuses_io_uring_costs_speed_only() {
    let plan = Machine::boot("test=blk").without_io_uring();
    fs::write(plan.path("base"), vec![0xee; 4 << 20]).unwrap();
    let mut machine = plan.layered_disk("top", &["base"]).start();
    machine.complains("no io_uring for disks: Operation not permitted (os error 1); their requests go one by one");
    machine.succeeds();
    let bytes = {
        disk(&machine.path(""), &["flatten", "base", "top", "--to", "flat", "--raw"]);
        fs::read(machine.path("flat")).unwrap()
    };
    assert!(bytes[512..].starts_with(b"written by the probe\r\n"));
}

#[test]
fn a_file_that_is_cut_short_under_a_machine_ends_it_with_a_word() {
    let plan = Machine::boot("test=blk-flush");
    let bottom = plan.path("bottom");
    disk(plan.path("").as_path(), &["create", "bottom", "--size", "1G"]);
    let mut machine = plan.layered_disk("top", &["bottom"]).start();
    machine.expect("FLUSHED 1");
    fs::File::options().write(true).open(bottom).unwrap().set_len(4096).unwrap();
    let (code, complaint) = machine.end();
    assert_eq!(code, 1);
    assert!(complaint.contains("error: a file of this machine was cut short"), "{complaint}");
}

#[test]
fn a_machine_that_is_killed_loses_nothing_that_was_flushed() {
    for layered in [true, false] {
        let plan = Machine::boot("test=blk-flush");
        let base = vec![0xee; 16 << 20];
        fs::write(plan.path("base"), &base).unwrap();
        let plan = match layered {
            true => plan.layered_disk("top", &["base"]),
            false => plan.disk("top", base.len() as u64),
        };
        let mut machine = plan.start();
        // Once as soon as it has begun, and again where the other one had got to.
        let last = if layered { 40 } else { 3 };
        machine.expect(&format!("FLUSHED {last}"));
        machine.kill();
        let chain: &[&str] = if layered { &["base", "top"] } else { &["top"] };
        disk(&machine.path(""), &[&["flatten", "--to", "flat", "--raw"], chain].concat());
        let bytes = fs::read(machine.path("flat")).unwrap();
        let before = if layered { 0xee } else { 0 };
        let all = |from: usize, length: usize, value: u8| bytes[from..from + length].iter().all(|byte| *byte == value);
        for round in 0..=last {
            assert!(all(round * 512, 512, round as u8 | 1), "sector {round}");
            assert!(all((128 + round) * 4096, 4096, round as u8 | 1), "block {}", 128 + round);
        }
        assert!(all(bytes.len() - 4096, 4096, before), "what was never written to");
    }
}

#[test]
fn files_below_are_shared_and_one_that_is_written_to_is_not() {
    let plan = Machine::boot("test=spin");
    fs::write(plan.path("base"), vec![1; 1 << 20]).unwrap();
    let plan = plan.layered_disk("first", &["base"]);
    let folder = plan.path("");
    disk(&folder, &["create", "second", "--on", "base"]);
    let mut first = plan.start();
    first.expect("TICK");
    let kernel = crate::machine::guest("probe");
    let run = |option: &str| {
        let machine = ["run", "--kernel", kernel.to_str().unwrap(), "--cmdline", "test=poweroff", "--memory", "64M"];
        let output = refused(&folder, &[&machine[..], &["--disk", option]].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("second,below=base").0, Some(0));
    let (code, text) = run("base");
    assert_eq!(code, Some(1));
    assert!(text.contains("disk base: another machine reads it, so nothing may write to it"), "{text}");
    assert!(run("first,below=base").1.contains("disk first: another machine writes to it"));
    let text = complaint(&folder, &["create", "third", "--on", "base", "first"]);
    assert!(text.contains("disk first: another machine writes to it"), "{text}");
    // A look at it is no harm.
    assert!(disk(&folder, &["info", "first"]).contains("layer"));
}

#[test]
fn files_say_what_they_are_and_wrong_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    disk(folder, &["create", "a", "--size", "1G"]);
    disk(folder, &["create", "b", "--on", "a", "--size", "2G"]);
    let infos: serde_json::Value = serde_json::from_str(&disk(folder, &["info", "a", "b", "-o", "json"])).unwrap();
    assert_eq!((&infos[0]["virtual_size"], &infos[0]["format"]), (&(1_u64 << 30).into(), &"layer".into()));
    assert_eq!(infos[1]["parent"]["layer"], infos[0]["uuid"]);
    assert!(infos[1]["used"].as_u64().unwrap() < 64 << 10);
    assert!(complaint(folder, &["create", "a", "--size", "1G"]).contains("disk a: making it: entity already exists"));
    assert!(complaint(folder, &["flatten", "b", "--to", "c"]).contains("it lies on layer"));
    assert!(complaint(folder, &["info", "nosuch"]).contains("disk nosuch: opening: No such file"));
    assert!(complaint(folder, &["create", "c", "--size", "1000"]).contains("a disk of 1000 bytes"));
}
