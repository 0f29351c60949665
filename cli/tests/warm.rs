//! Images are booted once, and their desktops start from there.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;

use common::{Service, service, until};

fn with_ready(cmdline: &str) -> Service {
    let mut service = service();
    service.image("quick", cmdline);
    let manifest = service.path("images/quick/image.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(manifest, text.replacen('{', "{\"ready\": \"YUNJU-DESKTOP-READY\",", 1)).unwrap();
    service.serve(&["--no-warm"]);
    service.ok(&["user", "add", "alice"]);
    service
}

fn warmth(service: &Service) -> String {
    let images = service.json(&["image", "ls"]);
    let image = images.as_array().unwrap().iter().find(|image| image["name"] == "quick").unwrap();
    image["warm"]["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_desktop_of_a_warm_image_starts_where_the_image_was_left_and_is_itself() {
    let service = with_ready("fake=ready");
    service.ok(&["create", "before", "--owner", "alice", "--image", "quick"]);
    assert_eq!((service.state("before"), warmth(&service)), ("stopped".into(), "cold".into()));
    service.ok(&["image", "warm", "quick"]);
    assert_eq!(warmth(&service), "warm");
    assert!(service.processes().is_empty(), "{:?}", service.processes());
    assert_eq!(service.json(&["ls"]).as_array().unwrap().len(), 1, "the machine that was booted is nobody's");
    for name in ["one", "two"] {
        service.ok(&["create", name, "--owner", "alice", "--image", "quick"]);
        assert_eq!(service.state(name), "suspended");
        service.ok(&["start", name]);
        until("it knows its name", || {
            service.ok(&["console", name, "--exec", "identity"]) == format!("identity={name}\n")
        });
    }
    service.ok(&["console", "one", "--exec", "save mine"]);
    assert_eq!(service.ok(&["console", "two", "--exec", "load"]), "disk=raw-2\n");
    service.ok(&["create", "large", "--owner", "alice", "--image", "quick", "--memory", "1G"]);
    assert_eq!(service.state("large"), "stopped", "another size is booted");
    service.ok(&["suspend", "one"]);

    // another build of the image: what was of the old one goes when nobody is on it
    let manifest = service.path("images/quick/image.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("sha256:quick", "sha256:newer");
    fs::write(manifest, text).unwrap();
    assert_eq!(warmth(&service), "cold");
    service.ok(&["image", "warm", "quick"]);
    assert_eq!(warmth(&service), "warm");
    service.ok(&["rm", "one", "two", "before", "large", "--yes", "--purge"]);
    until("only the new one stays", || fs::read_dir(service.path("data/snapshots")).unwrap().count() == 1);
}

#[test]
fn an_image_that_does_not_come_up_says_why_and_leaves_nothing() {
    let service = with_ready("fake=crash");
    let said = service.yunju(&["image", "warm", "quick"]);
    assert!(said.code == 1 && said.err.contains("before its desktop was up"), "{said:?}");
    assert_eq!(warmth(&service), "failed");
    let said = service.yunju(&["image", "warm", "good"]);
    assert!(said.code == 2 && said.err.contains("`ready`"), "{said:?}");
    for part in ["desktops", "layers", "snapshots"] {
        until(part, || fs::read_dir(service.path("data").join(part)).unwrap().count() == 0);
    }
}

#[test]
fn a_service_killed_while_it_warms_an_image_leaves_nothing_and_the_next_warms_it() {
    for step in ["yunju-vmm", "snapshot-begin", "snapshot-written"] {
        let mut service = with_ready("fake=ready");
        fs::write(service.path("bin").join(format!("kill-service-at-{step}")), "").unwrap();
        let _ = service.yunju(&["image", "warm", "quick"]);
        service.await_serve_end();
        service.serve(&["--no-warm"]);
        until("nothing is left", || service.processes().is_empty());
        for part in ["desktops", "layers", "snapshots"] {
            assert_eq!(fs::read_dir(service.path("data").join(part)).unwrap().count(), 0, "{step}: {part}");
        }
        service.end_serve();
        service.serve(&["--warm"]);
        until("it is warm", || warmth(&service) == "warm");
    }
}
