//! Desktops that were deleted, and operations that a service did not live to end.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use common::{Service, service, until};
use serde_json::Value;

fn folders(service: &Service) -> BTreeSet<String> {
    let entries = fs::read_dir(service.path("data/desktops")).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_deleted_comes_back_as_it_was_unless_its_name_or_the_quota_is_taken() {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["user", "quota", "alice", "--desktops", "1"]);
    service.ok(&["create", "d", "--image", "good", "--owner", "alice", "--start"]);
    let id = service.json(&["show", "d"])["id"].as_str().unwrap().to_owned();
    service.ok(&["suspend", "d"]);
    service.ok(&["rm", "d", "--yes"]);
    assert_eq!((service.count("yunju-vmm"), service.ok(&["ls", "-o", "name"]).as_str()), (0, ""));
    assert_eq!(service.yunju(&["show", &id]).code, 6, "not even by its id");
    assert_eq!(service.yunju(&["start", &id]).code, 6);
    let deleted = service.json(&["ls", "--deleted"]);
    assert_eq!((deleted[0]["name"].as_str(), deleted[0]["owner"].as_str()), (Some("d"), Some("alice")));
    let days = |key: &str| deleted[0][key].as_str().unwrap()[..10].to_owned();
    assert_ne!(days("until"), days("deleted"));
    // its name and its place are free
    service.ok(&["create", "d", "--image", "good", "--owner", "alice"]);
    assert_eq!(service.yunju(&["recover", "d"]).code, 7, "the name is taken");
    let over = service.yunju(&["recover", "d", "--name", "e"]);
    assert_eq!(over.code, 8, "and so is the place: {over:?}");
    assert_eq!(ids(&service.json(&["ls", "--deleted"])).len(), 1, "a refusal changes nothing");
    assert_eq!(service.yunju(&["user", "rm", "alice"]).code, 7);
    service.ok(&["rm", "d", "--yes", "--purge"]);
    service.ok(&["recover", &id, "--name", "e"]);
    assert_eq!(service.state("e"), "suspended", "it goes on where it was");
    service.ok(&["resume", "e"]);
    assert_eq!(service.state("e"), "running");
    service.ok(&["rm", "e", "--yes"]);
    assert_eq!(service.count("yunju-vmm"), 0);
    assert_eq!(folders(&service), BTreeSet::from([id]));
    service.ok(&["purge", "e", "--yes"]);
    assert_eq!(folders(&service), BTreeSet::new());
    until("no layer is left", || fs::read_dir(service.path("data/layers")).unwrap().count() == 0);
    assert_eq!(service.yunju(&["purge", "e", "--yes"]).code, 6);
    service.ok(&["user", "rm", "alice"]);
}

#[test]
fn what_was_deleted_goes_by_itself_when_its_time_is_over() {
    let mut service = service();
    service.serve(&["--keep-deleted", "2s"]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "d", "--image", "good", "--owner", "alice"]);
    service.ok(&["rm", "d", "--yes"]);
    until("it is gone", || service.json(&["ls", "--deleted"]) == serde_json::json!([]));
    until("with its folder", || folders(&service).is_empty());
    service.end_serve();
    service.serve(&["--keep-deleted", "0"]);
    service.ok(&["create", "d", "--image", "good", "--owner", "alice"]);
    service.ok(&["rm", "d", "--yes"]);
    assert_eq!((service.json(&["ls", "--deleted"]), folders(&service)), (serde_json::json!([]), BTreeSet::new()));
}

#[test]
fn stopping_and_making_are_operations_that_need_not_be_waited_for() {
    let mut service = service();
    service.serve(&[]);
    let cookie = service.log_in("alice", &[]);
    let ask = |method: &str, path: &str, body: &str| {
        let (_, _, text) = service.stream_text(method, path, &cookie, "prefer: respond-async\r\n", body);
        serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text}"))
    };
    let made = ask("POST", "/v1/desktops", r#"{"name": "d", "image": "good", "start": true}"#);
    assert_eq!((made["kind"].as_str(), made["desktop"].as_str()), (Some("create"), Some("d")), "{made}");
    service.ok(&["op", "wait", made["id"].as_str().unwrap()]);
    service.await_state("d", "running");
    for (kind, then) in [("restart", "running"), ("stop", "stopped")] {
        let begun = ask("POST", &format!("/v1/desktops/d/{kind}"), "{}");
        assert_eq!(begun["kind"], kind, "{begun}");
        service.ok(&["op", "wait", begun["id"].as_str().unwrap()]);
        assert_eq!(service.state("d"), then);
    }
    let begun = ask("DELETE", "/v1/desktops/d", "");
    service.ok(&["op", "wait", begun["id"].as_str().unwrap()]);
    assert_eq!(ids(&service.json(&["ls", "--deleted"])).len(), 1);
}

/// Whatever is begun when the service is killed is afterwards done or not, and nothing is left of it.
#[test]
fn a_service_that_is_killed_leaves_no_desktop_half_made_half_deleted_or_half_restarted() {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "old", "--image", "good", "--owner", "alice", "--start"]);
    service.ok(&["create", "gone", "--image", "good", "--owner", "alice"]);
    let create: &[&str] = &["create", "new", "--image", "good", "--owner", "alice", "--start"];
    let works: [&[&str]; 5] =
        [create, &["restart", "old"], &["rm", "old", "--yes"], &["recover", "old"], &["purge", "gone", "--yes"]];
    let pauses = [2_u64, 12, 30, 80];
    for (round, pause) in pauses.iter().enumerate() {
        for work in works {
            let mut command = service.command(work);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(*pause + 3 * round as u64));
            service.kill_serve();
            child.wait().unwrap();
            service.serve(&[]);
            until(&format!("all has ended after {work:?}"), || {
                let operations = service.json(&["op", "ls"]);
                let operations = operations.as_array().unwrap();
                operations.iter().all(|one| !matches!(one["state"].as_str(), Some("queued" | "running")))
            });
            let (there, deleted) = (service.json(&["ls"]), service.json(&["ls", "--deleted"]));
            let known: BTreeSet<_> = ids(&there).union(&ids(&deleted)).cloned().collect();
            assert_eq!(folders(&service), known, "after {work:?}, {pause} ms\n{}", service.log());
            let running = || {
                let there = service.json(&["ls"]);
                there.as_array().unwrap().iter().filter(|one| one["state"] == "running").count()
            };
            until(&format!("as many machines as desktops run after {work:?}"), || {
                service.count("yunju-vmm") == running()
            });
            let used = service.json(&["user", "show", "alice"])["used"]["desktops"].as_u64().unwrap();
            assert_eq!(used, ids(&there).len() as u64);
            // as it was before the next
            for name in ["old", "gone"] {
                if !service.ok(&["ls", "-o", "name"]).lines().any(|line| line == name)
                    && service.yunju(&["recover", name]).code != 0
                {
                    service.ok(&["create", name, "--image", "good", "--owner", "alice"]);
                }
            }
            if work[0] == "rm" {
                service.yunju(&["rm", "old", "--yes"]);
            } else {
                service.ok(&["start", "old"]);
            }
            service.yunju(&["rm", "gone", "--yes"]);
            service.yunju(&["rm", "new", "--yes", "--purge"]);
        }
    }
}
