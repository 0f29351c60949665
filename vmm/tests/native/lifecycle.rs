//! Ends, restarts, pauses, and the control API.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use yunju_protocol::control::{Counters, MachineInfo, MachineState, Problem, ScreenSize};

use crate::machine::{Machine, connect, eventually};

const POWERED_OFF: &str = "yunju-vmm: machine ended: powered off by the guest";

#[test]
fn a_guest_that_powers_off_ends_the_machine_with_0() {
    Machine::boot("test=poweroff").start().succeeds();
}

#[test]
fn a_triple_fault_ends_the_machine_with_3() {
    let mut machine = Machine::boot("test=triplefault").start();
    machine.expect("PROBE START");
    let (code, line) = machine.end();
    assert_eq!(code, 3);
    assert_eq!(line, "yunju-vmm: machine ended: guest crashed: processor 0: triple fault");
}

#[test]
fn a_guest_restarts_itself_by_either_way_and_stays_in_the_process() {
    let mut machine = Machine::boot("test=reset").disk("counter", 512).control().start();
    for boot in 0..3 {
        machine.expect(&format!("boot {boot}"));
    }
    machine.succeeds();
}

#[test]
fn restarts_are_counted() {
    let machine = Machine::boot("test=reset-loop").control().start();
    let enough = || (machine.get::<MachineInfo>("/machine").resets >= 3).then_some(());
    eventually(enough, || "the machine does not restart".into());
}

#[test]
fn a_restart_ends_the_machine_if_asked() {
    let mut machine = Machine::boot("test=reset-loop").args(["--no-reboot"]).start();
    assert_eq!(machine.end(), (0, "yunju-vmm: machine ended: restarted by the guest".to_owned()));
}

#[test]
fn the_power_button_reaches_the_guest() {
    let mut machine = Machine::boot("test=power-button").control().start();
    machine.expect("READY");
    assert_eq!(machine.request("POST", "/machine/power-button").0, 202);
    machine.expect("pressed");
    machine.succeeds();
}

#[test]
fn the_first_sigterm_presses_the_power_button_and_the_second_ends_the_machine() {
    let terminate = |machine: &Machine| {
        let pid = rustix::process::Pid::from_raw(machine.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    let mut polite = Machine::boot("test=power-button").start();
    polite.expect("READY");
    terminate(&polite);
    polite.succeeds();

    let mut stubborn = Machine::boot("test=spin").start();
    stubborn.expect("TICK");
    terminate(&stubborn);
    stubborn.expect("TICK");
    // Two signals in quick succession are one to a process that has not run between them.
    let ended = || {
        let ended = stubborn.has_ended();
        if !ended {
            terminate(&stubborn);
        }
        ended.then_some(())
    };
    eventually(ended, || "the machine does not end".into());
    assert_eq!(stubborn.end(), (0, "yunju-vmm: machine ended: ended by request".to_owned()));
}

#[test]
fn a_paused_machine_stands_still_and_goes_on_where_it_was() {
    let mut machine = Machine::boot("test=spin cpus=2").cpus(2).control().start();
    machine.expect("TICK 3");
    let info: MachineInfo = machine.post("/machine/pause");
    assert_eq!(info.state, MachineState::Paused);
    assert!(machine.is_silent(Duration::from_millis(100)));
    let counters: Counters = machine.get("/machine/counters");
    assert!(machine.is_silent(Duration::from_millis(50)));
    assert_eq!(machine.get::<Counters>("/machine/counters"), counters);
    assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Paused);
    assert_eq!(machine.post::<MachineInfo>("/machine/pause").state, MachineState::Paused);
    assert_eq!(machine.post::<MachineInfo>("/machine/resume").state, MachineState::Running);
    machine.expect("TICK");
    assert_eq!(machine.post::<MachineInfo>("/machine/resume").state, MachineState::Running);
    machine.expect("TICK");
}

#[test]
fn a_machine_that_restarts_all_the_time_can_be_paused_and_goes_on() {
    let machine = Machine::boot("test=reset-loop").control().start();
    for _ in 0..10 {
        machine.post::<MachineInfo>("/machine/pause");
        let resets = || machine.get::<MachineInfo>("/machine").resets;
        let before = resets();
        thread::sleep(Duration::from_millis(30));
        assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Paused);
        assert_eq!(resets(), before);
        machine.post::<MachineInfo>("/machine/resume");
        eventually(|| (resets() > before).then_some(()), || "the machine does not go on".into());
    }
}

#[test]
fn a_machine_can_be_killed_also_while_it_is_paused() {
    for pause in [false, true] {
        let mut machine = Machine::boot("test=spin").control().start();
        machine.expect("TICK");
        if pause {
            machine.post::<MachineInfo>("/machine/pause");
        }
        assert_eq!(machine.request("POST", "/machine/kill").0, 202);
        assert_eq!(machine.end(), (0, "yunju-vmm: machine ended: ended by request".to_owned()));
    }
}

#[test]
fn the_control_api_tells_what_the_machine_is_and_did() {
    let mut machine = Machine::boot("test=gpu").cpus(2).disk("a", 1 << 20).display(800, 600).control().start();
    machine.expect("SHOWN 1");
    let info: MachineInfo = machine.get("/machine");
    assert_eq!(info.state, MachineState::Running);
    assert_eq!((info.memory, info.cpus, info.resets), (64 << 20, 2, 0));
    assert_eq!(info.pid, machine.pid());
    assert_eq!(info.screen, Some(ScreenSize { width: 800, height: 600 }));
    let counters: Counters = machine.get("/machine/counters");
    assert_eq!(counters.vcpu_exits.len(), 2);
    assert!(counters.vcpu_exits[0] > 0);
    assert!(counters.frames >= 1);
    assert_eq!(counters.display_clients, 0);
    let document: serde_json::Value = machine.get("/openapi.json");
    for path in ["/machine", "/machine/pause", "/machine/power-button", "/machine/screenshot", "/machine/counters"] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
}

#[test]
fn counters_count_what_the_disk_carried() {
    let mut machine = Machine::boot("test=reset").disk("counter", 512).control().start();
    machine.expect("boot 0");
    let carried = || {
        let counters: Counters = machine.get("/machine/counters");
        (counters.disk_read_bytes > 0 && counters.disk_written_bytes > 0).then_some(counters)
    };
    let counters = eventually(carried, || "nothing is counted".into());
    assert_eq!(counters.disk_read_bytes % 512 + counters.disk_written_bytes % 512, 0);
}

#[test]
fn what_the_control_api_does_not_know_is_refused_with_a_reason() {
    let mut machine = Machine::boot("test=spin").control().start();
    machine.expect("TICK");
    for (method, path, expected) in [
        ("GET", "/nosuch", 404),
        ("POST", "/machine", 405),
        ("GET", "/machine/kill", 405),
        ("GET", "/machine/screenshot", 404),
    ] {
        let (status, body) = machine.request(method, path);
        assert_eq!(status, expected, "{method} {path}");
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert!(!problem.error.is_empty());
    }
}

#[test]
fn a_client_of_the_control_api_that_talks_nonsense_or_nothing_harms_nobody() {
    let mut machine = Machine::boot("test=power-button").control().start();
    machine.expect("READY");
    let path = machine.path("control.sock");
    let _silent: Vec<_> = (0..5).map(|_| connect(&path)).collect();
    for nonsense in [&b"\0\0\0\0\r\n\r\n"[..], b"GET /machine\r\n\r\n", &[b'a'; 20_000]] {
        let mut stream = connect(&path);
        // The machine may close before it has read everything.
        let _ = stream.write_all(nonsense);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(machine.get::<MachineInfo>("/machine").state, MachineState::Running);
    machine.request("POST", "/machine/power-button");
    machine.expect("PROBE OK");
    assert_eq!(machine.end(), (0, POWERED_OFF.to_owned()));
}
