//! Desktops fall asleep when nobody looks at them, wake when somebody does, and know who they are.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::{Service, service, until};

fn running(flags: &[&str]) -> (Service, String) {
    let mut service = service();
    service.serve(flags);
    let cookie = service.log_in("alice", &[]);
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    (service, cookie)
}

#[test]
fn a_desktop_that_nobody_looks_at_falls_asleep_and_wakes_when_its_page_is_opened() {
    let (service, cookie) = running(&["--suspend-after", "1s"]);
    service.await_state("alice", "suspended");
    assert!(service.processes().is_empty(), "{:?}", service.processes());
    until("the audit log says that it was the service", || {
        service.json(&["audit", "ls", "--actor", "service"])[0]["action"] == "desktop.suspend"
    });
    let (status, _, mut stream) = service.websocket(&service.open("alice", &cookie));
    assert_eq!(status, 101, "one request wakes it and is connected");
    let mut greeting = [0; 14];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"\x82\x0cRFB 003.008\n");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(service.state("alice"), "running", "somebody looks at it");
    }
    drop(stream);
    service.await_state("alice", "suspended");
    assert_eq!(service.ok(&["console", "alice", "--exec", "echo awake"]), "awake\n");
}

#[test]
fn a_desktop_without_a_screen_and_a_stopped_one_are_left_alone() {
    let (mut service, cookie) = running(&[]);
    service.ok(&["stop", "alice"]);
    let manifest = service.path("images/good/image.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("\"display\"", "\"nothing\"");
    std::fs::write(&manifest, text).unwrap();
    service.ok(&["create", "blind", "--owner", "alice", "--image", "good", "--start"]);
    service.end_serve();
    service.serve(&["--suspend-after", "1s"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((service.state("blind"), service.state("alice")), ("running".into(), "stopped".into()));
    assert_eq!(service.websocket(&service.open("alice", &cookie)).0, 409, "what is stopped is not started");
}

#[test]
fn while_somebody_looks_restore_points_are_taken_and_three_are_kept() {
    let (service, cookie) = running(&["--point-every", "1s"]);
    let points = || service.json(&["snapshot", "ls", "alice"]).as_array().unwrap().clone();
    std::thread::sleep(Duration::from_secs(2));
    assert!(points().is_empty(), "nobody looks");
    let viewer = service.websocket(&service.open("alice", &cookie));
    assert_eq!(viewer.0, 101);
    until("three points", || points().len() == 3);
    let first = points().last().unwrap()["id"].clone();
    until("the oldest goes", || points().iter().all(|point| point["id"] != first));
    assert!(points().len() == 3 && points().iter().all(|point| point["kind"] == "point"));
    drop(viewer);
    service.ok(&["undo", "alice"]);
    assert_eq!(service.state("alice"), "running");
}

#[test]
fn a_fork_is_told_that_it_is_another_one() {
    let (mut service, _) = running(&[]);
    let is_called = |service: &Service, desktop: &str, name: &str| {
        until(&format!("{desktop} is called {name}"), || {
            service.ok(&["console", desktop, "--exec", "identity"]) == format!("identity={name}\n")
        });
    };
    is_called(&service, "alice", "alice");
    service.ok(&["fork", "alice", "twin", "--start"]);
    is_called(&service, "twin", "twin");
    service.end_serve();
    service.serve(&[]);
    service.ok(&["fork", "twin", "third", "--start"]);
    is_called(&service, "third", "third");
    is_called(&service, "alice", "alice");
}
