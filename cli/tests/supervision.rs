//! Machines are started once, watched, taken up again and ended wholly, whatever happens to the service.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use common::{Service, kill, service, until};

fn with_desktop(image: &str) -> Service {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "alice", "--image", image]);
    service
}

#[test]
fn a_desktop_starts_with_all_its_processes_and_stops_without_leaving_any() {
    let service = with_desktop("good");
    service.ok(&["start", "alice"]);
    until("all processes run", || service.processes().len() == 3);
    let folder = service.desktop_folder("alice");
    let machine: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("machine.json")).unwrap()).unwrap();
    assert_eq!(machine["memory"], 512 << 20);
    assert_eq!(machine["disks"][0]["readonly"], true);
    assert_eq!(machine["disks"][1]["layers"][0], service.path("images/good/system.img").to_str().unwrap());
    let layer = std::path::Path::new(machine["disks"][1]["path"].as_str().unwrap());
    assert_eq!(layer.parent().unwrap(), service.path("data/layers"));
    assert!(machine["net"]["backend"]["stream"].as_str().unwrap().starts_with("fd:"));

    let said = service.yunju(&["stop", "alice"]);
    assert_eq!(said.code, 0);
    assert!(said.err.contains("powered off by the guest"), "{}", said.err);
    assert!(service.processes().is_empty(), "{:?}", service.processes());
    assert!(!folder.join("run").exists());
    service.ok(&["start", "alice"]);
    service.ok(&["restart", "alice"]);
    assert_eq!(service.state("alice"), "running");
    assert!(!folder.join("double-start").exists());
    service.ok(&["rm", "alice", "--yes", "--purge"]);
    assert!(!folder.exists() && service.processes().is_empty());
}

#[test]
fn a_machine_that_the_host_has_no_memory_for_is_refused_until_another_stops() {
    let mut service = with_desktop("good");
    service.ok(&["create", "vast", "--owner", "alice", "--image", "good", "--memory", "64G"]);
    service.ok(&["start", "alice"]);
    service.end_serve();
    // less than 64 GiB and 512 MiB on any host with up to 640 GiB
    service.serve(&["--memory-overcommit", "0.1"]);
    let said = service.yunju(&["start", "vast"]);
    assert_eq!(said.code, 7, "{}", said.err);
    assert!(said.err.contains("--memory-overcommit"), "{}", said.err);
    assert_eq!((service.state("vast"), service.state("alice")), ("stopped".to_owned(), "running".to_owned()));
    service.end_serve();
    service.serve(&["--memory-overcommit", "100"]);
    service.ok(&["start", "vast"]);
}

#[test]
fn starting_twice_at_once_starts_once() {
    let service = with_desktop("good");
    let mut starts: Vec<_> = (0..4).map(|_| service.command(&["start", "alice"]).spawn().unwrap()).collect();
    assert!(starts.iter_mut().all(|start| start.wait().unwrap().success()));
    assert_eq!(service.count("yunju-vmm"), 1);
    assert!(!service.desktop_folder("alice").join("double-start").exists());
}

#[test]
fn a_machine_that_dies_is_noticed_with_its_reason() {
    let service = with_desktop("crash");
    service.ok(&["start", "alice", "--no-wait"]);
    service.await_state("alice", "stopped");
    let ended = service.json(&["show", "alice"])["ended"].clone();
    assert_eq!(ended["reason"], "triple fault at 0xffffffff81000000");
    assert_eq!(ended["failed"], true);
    assert!(service.ok(&["ls"]).contains("failed"));

    service.ok(&["create", "other", "--owner", "alice", "--image", "error"]);
    let said = service.yunju(&["start", "other"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("/dev/kvm: no such fake device"), "{}", said.err);

    service.ok(&["create", "killed", "--owner", "alice", "--image", "good", "--start"]);
    kill(service.pid("killed", "vmm"));
    service.await_state("killed", "stopped");
    let ended = service.json(&["show", "killed"])["ended"].clone();
    assert_eq!(ended["reason"], "the machine's process was killed by signal 9");
    assert!(service.processes().is_empty(), "{:?}", service.processes());
}

#[test]
fn a_guest_that_ignores_the_power_button_is_ended_after_the_timeout_or_by_force() {
    let service = with_desktop("deaf");
    service.ok(&["start", "alice"]);
    let said = service.yunju(&["stop", "alice", "--timeout", "1"]);
    assert!(said.err.contains("did not shut down within 1 s"), "{}", said.err);
    assert_eq!(service.json(&["show", "alice"])["ended"]["failed"], false);

    service.ok(&["start", "alice"]);
    service.ok(&["stop", "alice", "--timeout", "600", "--no-wait"]);
    service.await_state("alice", "stopping");
    assert_eq!(service.yunju(&["start", "alice"]).code, 7, "a machine on its way down is not started");
    service.ok(&["stop", "alice", "--force"]);
    assert_eq!(service.state("alice"), "stopped");
    assert!(service.processes().is_empty());
}

#[test]
fn a_proxy_that_dies_alone_is_started_again_and_the_machine_goes_on() {
    let service = with_desktop("good");
    service.ok(&["start", "alice"]);
    until("the proxy runs", || service.count("yunju-vnc-proxy") == 1);
    let (vmm, proxy) = (service.pid("alice", "vmm"), service.pid("alice", "proxy"));
    kill(proxy);
    until("another proxy runs", || service.pid("alice", "proxy") != proxy && service.count("yunju-vnc-proxy") == 1);
    assert_eq!(service.pid("alice", "vmm"), vmm);
    assert_eq!(service.state("alice"), "running");
}

#[test]
fn machines_outlive_a_killed_service_and_the_next_one_takes_them_up() {
    let mut service = with_desktop("good");
    service.ok(&["start", "alice"]);
    service.ok(&["console", "alice", "--exec", "echo before"]);
    until("the proxy runs", || service.count("yunju-vnc-proxy") == 1);
    let before = service.processes();
    service.kill_serve();
    assert_eq!(service.processes(), before);
    service.serve(&[]);
    service.await_state("alice", "running");
    assert_eq!(service.processes(), before, "the very same processes");
    assert_eq!(service.ok(&["console", "alice", "--exec", "echo after"]), "after\n");
    let log = service.ok(&["logs", "alice"]);
    assert!(log.contains("before") && log.contains("after"), "{log}");
    service.ok(&["stop", "alice"]);
    assert!(service.processes().is_empty());
}

#[test]
fn what_happened_while_no_service_ran_is_noticed_by_the_next() {
    let mut service = with_desktop("good");
    service.ok(&["create", "bob", "--owner", "alice", "--image", "good", "--start"]);
    service.ok(&["start", "alice"]);
    until("the proxies run", || service.count("yunju-vnc-proxy") == 2);
    let (vmm, proxy) = (service.pid("alice", "vmm"), service.pid("bob", "proxy"));
    service.kill_serve();
    kill(vmm);
    kill(proxy);
    service.serve(&[]);
    service.await_state("alice", "stopped");
    let alice = service.json(&["show", "alice"]);
    assert_eq!((alice["state"].as_str(), alice["ended"]["failed"].as_bool()), (Some("stopped"), Some(true)));
    assert_eq!(service.state("bob"), "running");
    until("bob has a proxy again, alice's is gone", || service.count("yunju-vnc-proxy") == 1);
    assert_ne!(service.pid("bob", "proxy"), proxy);
    assert_eq!((service.count("yunju-vmm"), service.count("passt")), (1, 1));
}

/// After a crash of the service: one machine or none, nothing unknown, and it can be stopped.
fn recovers(service: &mut Service, when: &str) {
    service.serve(&[]);
    if service.state("alice") == "stopped" {
        service.ok(&["start", "alice"]); // the request had not been heard
    }
    service.await_state("alice", "running");
    until(&format!("one of each runs after a kill {when}: {:?}", service.processes()), || {
        ["yunju-vmm", "yunju-vnc-proxy", "passt"].iter().all(|program| service.count(program) == 1)
            && service.processes().len() == 3
    });
    assert!(!service.desktop_folder("alice").join("double-start").exists(), "started twice after a kill {when}");
    service.ok(&["stop", "alice"]);
    assert!(service.processes().is_empty(), "left after a kill {when}: {:?}", service.processes());
}

#[test]
fn a_service_killed_as_each_program_starts_leaves_no_orphan_and_no_double() {
    let mut service = with_desktop("good");
    for program in ["passt", "yunju-vmm", "yunju-vnc-proxy"] {
        fs::write(service.path("bin").join(format!("kill-service-at-{program}")), "").unwrap();
        service.yunju(&["start", "alice", "--no-wait"]);
        service.await_serve_end();
        recovers(&mut service, &format!("at the start of {program}"));
    }
}

#[test]
fn a_service_killed_at_any_moment_of_a_start_leaves_no_orphan_and_no_double() {
    let mut service = with_desktop("good");
    for moment in (0..60).step_by(4) {
        let mut start = service.command(&["start", "alice", "--no-wait"]).spawn().unwrap();
        sleep(Duration::from_millis(moment));
        service.kill_serve();
        start.wait().unwrap();
        recovers(&mut service, &format!("{moment} ms into the start"));
    }
}

#[test]
fn a_service_killed_during_a_stop_or_restart_goes_on_with_it() {
    let mut service = with_desktop("good");
    for (moment, verb) in [(5, "stop"), (60, "stop"), (20, "restart"), (140, "restart")] {
        service.ok(&["start", "alice"]);
        let mut command = service.command(&[verb, "alice", "--no-wait"]).spawn().unwrap();
        sleep(Duration::from_millis(moment));
        service.kill_serve();
        command.wait().unwrap();
        service.serve(&[]);
        until(&format!("it settles after {verb}"), || {
            ["stopped", "running"].contains(&service.state("alice").as_str())
        });
        service.ok(&["stop", "alice"]);
        assert!(service.processes().is_empty(), "{:?}", service.processes());
        assert!(!service.desktop_folder("alice").join("double-start").exists());
    }
}

#[test]
fn a_killed_creation_or_deletion_leaves_no_half_made_desktop() {
    let mut service = with_desktop("good");
    let folder = service.desktop_folder("alice");
    let name = folder.file_name().unwrap().to_str().unwrap();
    let unknown = name.replace(|c: char| c.is_ascii_digit(), "a");
    service.kill_serve();
    for left in [format!("{unknown}.new"), format!("{unknown}.old"), unknown] {
        fs::create_dir(folder.with_file_name(left)).unwrap();
    }
    service.serve(&[]);
    let folders: Vec<_> = fs::read_dir(service.path("data/desktops")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(folders, [folder]);
}

#[test]
fn with_stop_machines_nothing_is_left_when_the_service_ends() {
    let mut service = with_desktop("good");
    service.kill_serve();
    service.serve(&["--stop-machines"]);
    service.ok(&["create", "deaf", "--owner", "alice", "--image", "deaf", "--start"]);
    service.ok(&["start", "alice"]);
    assert_eq!(service.end_serve(), 0);
    assert!(service.processes().is_empty(), "{:?}", service.processes());
    service.serve(&[]);
    assert_eq!((service.state("alice"), service.state("deaf")), ("stopped".into(), "stopped".into()));
}

#[test]
fn without_stop_machines_they_go_on_when_the_service_ends() {
    let mut service = with_desktop("good");
    service.ok(&["start", "alice"]);
    assert_eq!(service.end_serve(), 0);
    assert_eq!(service.count("yunju-vmm"), 1);
}

#[test]
fn two_services_do_not_share_a_data_folder() {
    let service = with_desktop("good");
    let said = service.yunju(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("another `yunju serve` uses"), "{}", said.err);
}

#[test]
fn where_the_whole_jail_is_required_each_program_is_told() {
    for (flags, mode) in [(&["--jail", "require"] as &[&str], "--jail require"), (&[], "--jail warn")] {
        let mut service = service();
        service.serve(flags);
        service.ok(&["user", "add", "alice"]);
        service.ok(&["create", "alice", "--image", "good", "--start"]);
        until("a proxy", || service.count("yunju-vnc-proxy") == 1);
        let told = service.processes().iter().filter(|(_, line)| line.contains(mode)).count();
        assert_eq!(told, 2, "{mode}: {:?}", service.processes());
    }
}

#[test]
fn each_machine_is_told_how_fast_its_disks_and_its_network_may_be() {
    let mut service = service();
    let said = service.yunju(&["serve", "--disk-limit", "5K"]);
    assert!(said.code == 2 && said.err.contains("at least 1M"), "{said:?}");
    service.serve(&["--disk-limit", "5M", "--net-limit", "2M"]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    let text = fs::read(service.desktop_folder("alice").join("machine.json")).unwrap();
    let machine: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let limits =
        [&machine["disks"][0], &machine["disks"][1], &machine["net"]].map(|part| part["limit"]["bytes"].clone());
    assert_eq!(limits, [5 << 20, 5 << 20, 2 << 20]);
}

#[test]
fn a_missing_program_is_named_and_leaves_nothing() {
    let service = with_desktop("good");
    fs::remove_file(service.path("bin/yunju-vmm")).unwrap();
    let said = service.yunju(&["start", "alice"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("bin/yunju-vmm") && said.err.contains("--bin-dir"), "{}", said.err);
    assert_eq!(service.state("alice"), "stopped");
    assert!(service.processes().is_empty(), "passt was started before: {:?}", service.processes());
}
