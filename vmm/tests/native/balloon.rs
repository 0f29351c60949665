//! Memory that the guest gives back.

use yunju_protocol::control::{MemoryInfo, Problem};

use crate::machine::{Machine, eventually};

const MIB: u64 = 1 << 20;

fn resize(machine: &Machine, bytes: u64) -> MemoryInfo {
    let (status, body) = machine.request_with("POST", "/machine/balloon", &format!("{{\"size\":{bytes}}}"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("the answer is of the memory")
}

/// Asks until the machine's memory is as it should be.
fn wait(machine: &Machine, what: &str, mut right: impl FnMut(&MemoryInfo) -> bool) -> MemoryInfo {
    let mut last = MemoryInfo::default();
    let look = || {
        last = machine.get("/machine/memory");
        right(&last).then(|| last.clone())
    };
    eventually(look, || what.to_owned())
}

#[test]
fn what_the_guest_puts_into_its_balloon_or_reports_as_free_is_the_hosts_again() {
    let mut machine = Machine::boot("test=balloon").balloon().control().start();
    machine.expect("READY");
    let full: MemoryInfo = machine.get("/machine/memory");
    assert_eq!((full.size, full.balloon, full.reported), (64 * MIB, 0, 0));
    assert!(full.private >= 16 * MIB && full.private <= 64 * MIB, "{full:?}");

    assert_eq!(resize(&machine, 4 * MIB + 1).balloon_target, 4 * MIB);
    machine.expect("REPORTED");
    let back = wait(&machine, "the guest's figure", |info| info.available == Some(9 * MIB));
    assert_eq!((back.balloon, back.reported), (4 * MIB, 8 * MIB));
    // The guest's own program and stack may have grown meanwhile.
    assert!(back.private + 11 * MIB < full.private, "{back:?} after {full:?}");

    assert_eq!(resize(&machine, 0).balloon_target, 0);
    machine.expect("FULL");
    let again = wait(&machine, "an empty balloon", |info| info.balloon == 0);
    assert!(again.private >= back.private + 12 * MIB, "{again:?} after {back:?}");
    resize(&machine, 4096);
    machine.succeeds();
}

#[test]
fn without_a_balloon_there_is_nothing_to_ask_for() {
    let mut machine = Machine::boot("test=spin").control().start();
    machine.expect("TICK");
    let (status, body) = machine.request_with("POST", "/machine/balloon", "{\"size\":4096}");
    let problem: Problem = serde_json::from_slice(&body).expect("a problem");
    assert!(status == 409 && problem.error.contains("no balloon"), "{status} {problem:?}");
    let info: MemoryInfo = machine.get("/machine/memory");
    assert!(info.private > 0 && info.balloon_target == 0 && info.available.is_none(), "{info:?}");
}
