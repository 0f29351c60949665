//! Suspend, resume, snapshots, restore, undo and forks keep what they promise, whatever happens to the service.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use common::{Service, kill, service, until};

/// A running desktop called `alice` that has written `word` to its memory and to its disk.
fn running(word: &str) -> Service {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    put(&service, "alice", word);
    service
}

fn put(service: &Service, desktop: &str, word: &str) {
    service.ok(&["console", desktop, "--exec", &format!("remember {word}")]);
    service.ok(&["console", desktop, "--exec", &format!("save {word}")]);
}

/// What the memory and the disk of a running desktop hold.
fn has(service: &Service, desktop: &str) -> (String, String) {
    let ask = |what: &str| {
        let out = service.ok(&["console", desktop, "--exec", what]);
        out.trim().split_once('=').unwrap().1.to_owned()
    };
    (ask("recall"), ask("load"))
}

fn both(word: &str) -> (String, String) {
    (word.to_owned(), word.to_owned())
}

fn order(service: &Service, what: &str) -> PathBuf {
    let path = service.path("bin").join(what);
    fs::write(&path, "").unwrap();
    path
}

fn files(service: &Service, part: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(service.path("data").join(part))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Nothing is left of a service whose desktops are gone.
fn is_clean(service: &Service) {
    until("nothing is left", || ["desktops", "layers", "snapshots"].iter().all(|part| files(service, part).is_empty()));
    assert!(service.processes().is_empty(), "{:?}", service.processes());
}

#[test]
fn a_suspended_desktop_uses_no_process_and_goes_on_where_it_was() {
    let service = running("one");
    let serial = service.ok(&["logs", "alice"]);
    for round in 0..8 {
        service.ok(&["suspend", "alice"]);
        assert_eq!(service.state("alice"), "suspended");
        assert_eq!(service.count("yunju-vnc-proxy") + service.count("passt"), 0);
        until("layers that are merged are merged", || service.processes().is_empty());
        assert!(service.ok(&["logs", "alice"]).len() >= serial.len());
        service.ok(&["suspend", "alice"]);
        service.ok(&[if round % 2 == 0 { "resume" } else { "start" }, "alice"]);
        let word = if round == 0 { "one".to_owned() } else { format!("round-{round}") };
        assert_eq!(has(&service, "alice"), both(&word));
        put(&service, "alice", &format!("round-{}", round + 1));
    }
    until("old snapshots go", || files(&service, "snapshots").len() == 1);
    service.ok(&["suspend", "alice"]);
    until("layers become one", || files(&service, "layers").len() <= 6);
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("round-8"));
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    is_clean(&service);
}

/// The kinds of all memories that there are; those that just go may be missing or empty.
fn memories(service: &Service) -> Vec<String> {
    let kind = |id: &String| {
        let text = fs::read_to_string(service.path("data/snapshots").join(id).join("memory")).unwrap_or_default();
        text.split(':').next().unwrap_or_default().to_owned()
    };
    let mut kinds: Vec<_> = files(service, "snapshots").iter().map(kind).collect();
    kinds.sort();
    kinds
}

#[test]
fn a_difference_that_would_be_more_than_half_of_a_whole_memory_is_written_whole() {
    let service = running("one");
    // blocks on the disk count: whole memories of 1 MiB, and what is compared with half of that
    let padding = order(&service, "memory-padding");
    let private = service.path("bin").join("private-memory");
    let sleeps_with = |padded: usize, written: u64, kinds: &[&str]| {
        fs::write(&padding, " ".repeat(padded)).unwrap();
        fs::File::create(&private).unwrap().set_len(written).unwrap();
        service.ok(&["suspend", "alice"]);
        until(&format!("{kinds:?}"), || memories(&service) == kinds);
        service.ok(&["resume", "alice"]);
        assert_eq!(has(&service, "alice"), both("one"));
    };
    sleeps_with(1 << 20, 0, &["whole"]);
    sleeps_with(1 << 16, 1 << 18, &["difference", "whole"]);
    sleeps_with(1 << 20, 1 << 20, &["whole"]);
    sleeps_with(1 << 20, 1 << 18, &["difference", "whole"]);
    // it went on from a difference as large as that
    sleeps_with(1 << 20, 0, &["whole"]);
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    is_clean(&service);
}

#[test]
fn what_cannot_be_done_with_a_suspended_desktop_says_what_can() {
    let service = running("one");
    assert_eq!(service.yunju(&["suspend", "none"]).code, 6);
    service.ok(&["suspend", "alice"]);
    let said = service.yunju(&["stop", "alice"]);
    assert!(said.code == 7 && said.err.contains("--force") || said.err.contains("by force"), "{said:?}");
    assert_eq!(service.state("alice"), "suspended");
    service.ok(&["start", "alice", "--cold"]);
    assert_eq!(has(&service, "alice"), ("fresh".into(), "one".into()), "booted from the disk");
    service.ok(&["suspend", "alice"]);
    service.ok(&["stop", "alice", "--force"]);
    assert_eq!(service.state("alice"), "stopped");
    assert_eq!(service.yunju(&["resume", "alice"]).code, 7);
    let said = service.yunju(&["suspend", "alice"]);
    assert!(said.code == 7 && said.err.contains("does not run"), "{said:?}");
}

#[test]
fn snapshots_are_taken_of_a_machine_that_goes_on_and_can_be_gone_back_to() {
    let service = running("one");
    let pid = service.pid("alice", "vmm");
    let first = service.json(&["snapshot", "create", "alice", "--name", "first"]);
    assert_eq!((first["kind"].as_str(), first["memory"].as_bool()), (Some("manual"), Some(true)));
    put(&service, "alice", "two");
    service.ok(&["snapshot", "create", "alice", "--name", "second"]);
    put(&service, "alice", "three");
    assert_eq!(service.pid("alice", "vmm"), pid, "it goes on");
    let said = service.yunju(&["snapshot", "create", "alice", "--name", "first"]);
    assert!(said.code == 7 && said.err.contains("`first`"), "{said:?}");

    service.ok(&["snapshot", "restore", "alice", "first"]);
    assert_eq!((service.state("alice").as_str(), has(&service, "alice")), ("running", both("one")));
    service.ok(&["snapshot", "restore", "alice", "second"]);
    assert_eq!(has(&service, "alice"), both("two"));
    service.ok(&["suspend", "alice"]);
    service.ok(&["snapshot", "restore", "alice", &first["id"].as_str().unwrap()[..8]]);
    assert_eq!(service.state("alice"), "suspended", "what slept before sleeps after");
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("one"));

    let kinds: Vec<_> =
        service.json(&["snapshot", "ls"]).as_array().unwrap().iter().map(|s| s["kind"].clone()).collect();
    assert_eq!(kinds, ["point", "point", "point", "manual", "manual"]);
    service.ok(&["snapshot", "rm", "alice", "first", "second"]);
    assert_eq!(service.yunju(&["snapshot", "restore", "alice", "first"]).code, 6);
    service.ok(&["suspend", "alice"]);
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("one"), "although what it is based on was removed");
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    is_clean(&service);
}

#[test]
fn a_snapshot_of_a_stopped_desktop_is_of_its_disks() {
    let service = running("one");
    service.ok(&["stop", "alice"]);
    let taken = service.json(&["snapshot", "create", "alice"]);
    assert_eq!(taken["memory"], false);
    service.ok(&["start", "alice"]);
    put(&service, "alice", "two");
    service.ok(&["snapshot", "restore", "alice", taken["id"].as_str().unwrap()]);
    assert_eq!(has(&service, "alice"), ("fresh".into(), "one".into()));
    service.ok(&["undo", "alice"]);
    assert_eq!(has(&service, "alice"), both("two"));
}

#[test]
fn undo_can_be_undone_and_three_points_are_kept() {
    let service = running("one");
    let said = service.yunju(&["undo", "alice"]);
    assert!(said.code == 7 && said.err.contains("no restore point"), "{said:?}");
    service.ok(&["snapshot", "create", "alice", "--name", "s"]);
    put(&service, "alice", "two");
    service.ok(&["snapshot", "restore", "alice", "s"]);
    for word in ["two", "one", "two", "one"] {
        service.ok(&["undo", "alice"]);
        assert_eq!(has(&service, "alice"), both(word));
    }
    let points = service.json(&["snapshot", "ls", "alice"]);
    assert_eq!(points.as_array().unwrap().iter().filter(|s| s["kind"] == "point").count(), 3);
}

#[test]
fn forks_of_the_present_or_of_a_snapshot_go_their_own_ways() {
    let service = running("one");
    service.ok(&["snapshot", "create", "alice", "--name", "then"]);
    put(&service, "alice", "two");
    let pid = service.pid("alice", "vmm");
    let made = service.json(&["fork", "alice", "now-1", "now-2", "--start"]);
    assert_eq!(made[0]["state"], "running");
    service.ok(&["fork", "alice", "then-1", "--snapshot", "then"]);
    assert_eq!(service.state("then-1"), "suspended");
    service.ok(&["start", "then-1"]);
    assert_eq!(service.pid("alice", "vmm"), pid, "the first one went on");
    assert_eq!(has(&service, "now-1"), both("two"));
    assert_eq!(has(&service, "then-1"), both("one"));
    put(&service, "now-1", "mine");
    assert_eq!((has(&service, "now-2"), has(&service, "alice")), (both("two"), both("two")));
    service.ok(&["suspend", "now-2"]);
    service.ok(&["fork", "now-2", "again", "--start"]);
    assert_eq!(has(&service, "again"), both("two"));

    service.ok(&["rm", "alice", "--yes", "--purge"]);
    assert_eq!(has(&service, "now-1"), both("mine"));
    service.ok(&["stop", "now-1"]);
    service.ok(&["start", "now-1"]);
    assert_eq!(has(&service, "now-1"), ("fresh".into(), "mine".into()));
    service.ok(&["resume", "now-2"]);
    assert_eq!(has(&service, "now-2"), both("two"));
    service.ok(&["fork", "now-2", "deep", "--start"]);
    service.ok(&["suspend", "deep"]);
    service.ok(&["rm", "now-1", "now-2", "again", "then-1", "--yes", "--purge"]);
    service.ok(&["resume", "deep"]);
    assert_eq!(has(&service, "deep"), both("two"));
    service.ok(&["rm", "deep", "--yes", "--purge"]);
    is_clean(&service);
}

#[test]
fn two_forks_at_once_and_a_name_that_is_taken() {
    let service = running("one");
    order(&service, "slow-snapshot");
    let mut forks: Vec<_> = ["a", "b"].map(|name| service.command(&["fork", "alice", name]).spawn().unwrap()).into();
    assert!(forks.iter_mut().all(|fork| fork.wait().unwrap().success()));
    let said = service.yunju(&["fork", "alice", "c", "a"]);
    assert!(said.code == 7 && said.err.contains("already a desktop called `a`"), "{said:?}");
    let said = service.yunju(&["fork", "alice", "c", "c"]);
    assert_eq!(said.code, 7, "{said:?}");
    assert_eq!(service.yunju(&["show", "c"]).code, 6);
    assert_eq!(files(&service, "desktops").len(), 3);
    service.ok(&["start", "a", "b"]);
    assert_eq!((has(&service, "a"), has(&service, "b")), (both("one"), both("one")));
}

#[test]
fn a_full_disk_is_said_and_changes_nothing() {
    let service = running("one");
    let full = order(&service, "full-disk");
    for command in [&["suspend", "alice"] as &[&str], &["snapshot", "create", "alice"], &["fork", "alice", "f"]] {
        let said = service.yunju(command);
        assert!(said.code == 1 && said.err.contains("the disk is full"), "{command:?}: {said:?}");
        assert_eq!((service.state("alice").as_str(), has(&service, "alice")), ("running", both("one")));
    }
    assert!(files(&service, "snapshots").is_empty());
    put(&service, "alice", "two");
    fs::remove_file(full).unwrap();
    service.ok(&["snapshot", "create", "alice", "--name", "s"]);
    put(&service, "alice", "three");
    service.ok(&["suspend", "alice"]);
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("three"));
    service.ok(&["snapshot", "restore", "alice", "s"]);
    assert_eq!(has(&service, "alice"), both("two"));
}

#[test]
fn a_machine_that_crashes_while_it_is_suspended_is_stopped_with_its_reason() {
    let service = running("one");
    let crash = order(&service, "crash-in-snapshot");
    let said = service.yunju(&["suspend", "alice"]);
    assert!(said.code == 1 && said.err.contains("triple fault"), "{said:?}");
    assert_eq!(service.state("alice"), "stopped");
    assert!(files(&service, "snapshots").is_empty());
    service.ok(&["start", "alice"]);
    assert_eq!(has(&service, "alice"), ("fresh".into(), "one".into()));
    let said = service.yunju(&["snapshot", "create", "alice"]);
    assert_eq!(said.code, 1, "{said:?}");
    service.await_state("alice", "stopped");
    fs::remove_file(crash).unwrap();
    service.ok(&["start", "alice"]);
    assert_eq!(has(&service, "alice"), ("fresh".into(), "one".into()));
}

#[test]
fn a_desktop_that_cannot_go_on_stays_suspended_and_says_why() {
    let mut service = running("one");
    service.ok(&["suspend", "alice"]);
    let cannot = order(&service, "cannot-restore");
    for _ in 0..2 {
        let said = service.yunju(&["resume", "alice"]);
        assert!(said.code == 1 && said.err.contains("avx512f") && said.err.contains("--cold"), "{said:?}");
        assert_eq!(service.state("alice"), "suspended");
    }
    service.kill_serve();
    service.serve(&[]);
    assert_eq!(service.state("alice"), "suspended");
    fs::remove_file(cannot).unwrap();
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("one"));
}

#[test]
fn a_desktop_that_is_deleted_while_it_is_suspended_goes_wholly() {
    let service = running("one");
    order(&service, "slow-snapshot");
    let mut suspend = service.command(&["suspend", "alice"]).spawn().unwrap();
    service.await_state("alice", "suspending");
    assert_eq!(service.yunju(&["stop", "alice"]).code, 7);
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    assert!(!suspend.wait().unwrap().success());
    is_clean(&service);
}

#[test]
fn what_nobody_waits_for_prints_its_operation_and_is_done() {
    let service = running("one");
    let begin = |command: &[&str]| service.ok(&[command, &["--no-wait"]].concat()).trim().to_owned();
    let end = |operation: &str| service.ok(&["op", "wait", operation]);
    // nothing that is begun here ends while this is there
    let held = order(&service, "held-snapshot");
    let taken = begin(&["snapshot", "create", "alice", "--name", "s"]);
    let forked = begin(&["fork", "alice", "fork", "--start"]);
    let snapshots = || service.json(&["snapshot", "ls"]).as_array().unwrap().len();
    assert_eq!((snapshots(), service.yunju(&["show", "fork"]).code), (0, 6));
    fs::remove_file(&held).unwrap();
    end(&taken);
    end(&forked);
    assert_eq!(snapshots(), 1);
    until("the fork", || service.state("fork") == "running");
    put(&service, "alice", "two");
    end(&begin(&["suspend", "alice"]));
    assert_eq!(service.state("alice"), "suspended");
    end(&begin(&["snapshot", "restore", "alice", "s"]));
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("one"));
    end(&begin(&["undo", "alice"]));
    service.ok(&["resume", "alice"]);
    assert_eq!(has(&service, "alice"), both("two"));
    let undo = begin(&["undo", "fork"]);
    let said = service.yunju(&["op", "wait", &undo]);
    assert!(said.code == 10 && said.err.contains("no restore point"), "{said:?}");
}

#[test]
fn a_start_waits_for_a_suspend_that_is_under_way() {
    let service = running("one");
    order(&service, "slow-snapshot");
    let mut suspend = service.command(&["suspend", "alice"]).spawn().unwrap();
    service.await_state("alice", "suspending");
    service.ok(&["start", "alice"]);
    assert!(suspend.wait().unwrap().success());
    assert_eq!((service.state("alice").as_str(), has(&service, "alice")), ("running", both("one")));
}

/// The newest operation, when it has ended.
fn ended_operation(service: &Service) -> serde_json::Value {
    let mut newest = serde_json::Value::Null;
    until("the newest operation has ended", || {
        newest = service.json(&["op", "ls", "--limit", "1"])[0].clone();
        !newest["ended"].is_null()
    });
    newest
}

/// A service that was killed when something reached `step`, and the one after it.
fn killed_at(step: &str, command: &[&str]) -> Service {
    let mut service = running("one");
    service.ok(&["snapshot", "create", "alice", "--name", "then"]);
    put(&service, "alice", "two");
    let order = order(&service, &format!("kill-service-at-{step}"));
    assert_ne!(service.yunju(command).code, 0, "the service is killed at {step}");
    service.await_serve_end();
    assert!(!order.exists());
    sleep(Duration::from_millis(200));
    service.serve(&[]);
    service
}

const STEPS: [&str; 3] = ["snapshot-begin", "snapshot-frozen", "snapshot-written"];

#[test]
fn a_service_killed_while_it_suspends_finds_the_desktop_suspended_as_it_was() {
    for step in STEPS {
        let service = killed_at(step, &["suspend", "alice"]);
        service.await_state("alice", "suspended");
        assert_eq!(ended_operation(&service)["state"], "succeeded", "{step}");
        service.ok(&["resume", "alice"]);
        assert_eq!(has(&service, "alice"), both("two"), "{step}");
        service.ok(&["rm", "alice", "--yes", "--purge"]);
        is_clean(&service);
    }
}

#[test]
fn a_service_killed_while_it_takes_a_snapshot_loses_nothing_and_shows_nothing_half_made() {
    for step in STEPS {
        for command in [&["snapshot", "create", "alice", "--name", "new"] as &[&str], &["fork", "alice", "forked"]] {
            let service = killed_at(step, command);
            service.await_state("alice", "running");
            assert_eq!(ended_operation(&service)["state"], "rolled_back", "{command:?} at {step}");
            assert_eq!(has(&service, "alice"), both("two"), "{step}");
            assert_eq!(service.json(&["ls"]).as_array().unwrap().len(), 1);
            assert_eq!(service.json(&["snapshot", "ls"]).as_array().unwrap().len(), 1);
            assert_eq!((files(&service, "snapshots").len(), files(&service, "desktops").len()), (1, 1));
            put(&service, "alice", "three");
            // what a machine wrote after its service was killed is on its disk
            kill(service.pid("alice", "vmm"));
            service.await_state("alice", "stopped");
            service.ok(&["start", "alice"]);
            assert_eq!(has(&service, "alice"), ("fresh".into(), "three".into()), "{step}");
            service.ok(&["snapshot", "restore", "alice", "then"]);
            assert_eq!(has(&service, "alice"), both("one"), "{step}");
        }
    }
}

#[test]
fn a_service_killed_while_it_resumes_goes_on_resuming() {
    for step in ["disk", "yunju-vmm", "passt"] {
        let mut service = running("one");
        service.ok(&["suspend", "alice"]);
        order(&service, &format!("kill-service-at-{step}"));
        let _ = service.yunju(&["resume", "alice"]);
        service.await_serve_end();
        service.serve(&[]);
        service.await_state("alice", "running");
        assert_eq!(ended_operation(&service)["state"], "succeeded", "{step}");
        assert_eq!(has(&service, "alice"), both("one"), "{step}");
        assert!(!service.desktop_folder("alice").join("double-start").exists());
    }
}

#[test]
fn a_service_killed_during_a_restore_or_undo_has_the_desktop_as_it_was_or_as_it_was_to_be() {
    for step in STEPS.iter().chain(&["disk", "yunju-vmm"]) {
        let service = killed_at(step, &["snapshot", "restore", "alice", "then"]);
        until(&format!("it settles after {step}"), || service.state("alice") == "running");
        let now = has(&service, "alice");
        assert!(now == both("one") || now == both("two"), "{step}: {now:?}");
        let expected = if now == both("one") { "succeeded" } else { "rolled_back" };
        assert_eq!(ended_operation(&service)["state"], expected, "{step}");
        if now == both("two") {
            service.ok(&["snapshot", "restore", "alice", "then"]);
        }
        service.ok(&["undo", "alice"]);
        assert_eq!(has(&service, "alice"), both("two"), "{step}: the present was kept");
    }
}

#[test]
fn a_service_killed_at_any_moment_of_suspend_and_resume_leaves_the_desktop_whole() {
    let mut service = running("one");
    let mut moment = 0;
    for (round, verb) in ["suspend", "resume"].iter().cycle().take(24).enumerate() {
        let mut command = service.command(&[verb, "alice"]).spawn().unwrap();
        moment = (moment + 17) % 140;
        sleep(Duration::from_millis(moment));
        service.kill_serve();
        command.wait().unwrap();
        service.serve(&[]);
        until("it settles", || ["running", "suspended"].contains(&service.state("alice").as_str()));
        service.ok(&["start", "alice"]);
        assert_eq!(has(&service, "alice"), both("one"), "round {round}, {verb}, {moment} ms");
        if *verb == "suspend" {
            service.ok(&["suspend", "alice"]);
        }
    }
    assert!(!service.desktop_folder("alice").join("double-start").exists());
}

#[test]
fn machines_suspended_with_the_service_wake_with_the_next_and_sleepers_sleep_on() {
    let mut service = running("one");
    service.ok(&["fork", "alice", "asleep"]);
    service.end_serve();
    service.serve(&["--suspend-machines"]);
    assert_eq!(service.end_serve(), 0);
    assert!(service.processes().is_empty(), "{:?}", service.processes());
    service.serve(&[]);
    service.await_state("alice", "running");
    assert_eq!(has(&service, "alice"), both("one"));
    assert_eq!(service.state("asleep"), "suspended");
}

#[test]
fn after_the_host_was_started_anew_what_was_wanted_runs() {
    let mut service = running("one");
    service.ok(&["create", "off", "--owner", "alice", "--image", "good"]);
    service.ok(&["fork", "alice", "asleep"]);
    service.kill_serve();
    for (pid, _) in service.processes() {
        kill(pid);
    }
    // the record names another boot of the host
    let record = fs::read_dir(service.path("data/desktops")).unwrap().map(|entry| entry.unwrap().path());
    let record = record.map(|folder| folder.join("run/processes.json")).find(|record| record.exists()).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&record).unwrap().replace(boot.trim(), "another");
    fs::write(&record, text).unwrap();
    service.serve(&[]);
    service.await_state("alice", "running");
    assert_eq!(has(&service, "alice"), ("fresh".into(), "one".into()), "booted");
    assert_eq!((service.state("off"), service.state("asleep")), ("stopped".into(), "suspended".into()));
}

#[test]
fn raw_disks_from_before_there_were_layers_go_on_being_used() {
    let mut service = running("one");
    service.ok(&["stop", "alice"]);
    let folder = service.desktop_folder("alice");
    service.kill_serve();
    // as a first version left it: no layer, a raw file in the desktop's folder
    for layer in files(&service, "layers") {
        fs::remove_file(service.path("data/layers").join(layer)).unwrap();
    }
    let database = service.path("data/yunju.sqlite");
    let forget = "DELETE FROM desktop_disks; DELETE FROM layers;";
    rusqlite::Connection::open(database).unwrap().execute_batch(forget).unwrap();
    fs::write(folder.join("disk-1.img"), [7; 4096]).unwrap();
    for _ in 0..2 {
        service.serve(&[]);
        assert!(!folder.join("disk-1.img").exists());
        assert_eq!(files(&service, "layers").len(), 1);
        service.kill_serve();
    }
    service.serve(&[]);
    service.ok(&["start", "alice"]);
    assert_eq!(has(&service, "alice").1, "raw-7");
    service.ok(&["console", "alice", "--exec", "save raw-8"]);
    service.ok(&["fork", "alice", "fork", "--start"]);
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    assert_eq!(has(&service, "fork").1, "raw-8");
}
