//! What desktops used adds up to what was counted.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;

use common::{Service, service, until};
use serde_json::Value;

/// Seconds of processors' time of a process and all that it started, as the kernel has them now.
fn kernel(pid: i32) -> f64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below: f64 = children.split_whitespace().map(|child| kernel(child.parse().unwrap())).sum();
    ticks as f64 / 100.0 + below
}

fn counted(service: &Service, desktop: &str) -> f64 {
    let records = service.json(&["usage", "--desktop", desktop, "--by", "hour"]);
    records.as_array().unwrap().iter().map(|one| one["cpu_seconds"].as_f64().unwrap()).sum()
}

#[test]
fn usage_adds_up_to_what_the_kernel_counted_although_the_service_is_killed_meanwhile() {
    let mut service = service();
    service.image("busy", "fake=burn");
    service.serve(&["--meter-every", "1s"]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "d", "--image", "busy", "--owner", "alice", "--start"]);
    until("something is counted", || counted(&service, "d") > 0.3);
    service.kill_serve();
    service.serve(&["--meter-every", "1s"]);
    let of_kernel = || ["vmm", "proxy", "passt"].map(|process| kernel(service.pid("d", process))).iter().sum::<f64>();
    // it burns for three seconds, however much it gets of them
    let mut last = (of_kernel(), std::time::Instant::now());
    until("it is quiet", || {
        let now = of_kernel();
        if now > last.0 + 0.02 {
            last = (now, std::time::Instant::now());
        }
        last.1.elapsed().as_secs() >= 3
    });
    let before = of_kernel();
    service.ok(&["stop", "d", "--force"]);
    let all = counted(&service, "d");
    // the end of the processes costs something, too; ticks are hundredths
    assert!(before > 0.3 && all >= before * 0.99 - 0.02, "{all} of {before} were counted");
    assert!(all <= before * 1.01 + 0.15, "{all} were counted of {before}");
    let record = service.json(&["usage"])[0].clone();
    let number = |key: &str| record[key].as_f64().unwrap();
    assert!(number("running_seconds") > 3.0 && number("memory_mib_seconds") > 1.0, "{record}");
    service.ok(&["start", "d"]);
    service.ok(&["stop", "d", "--force"]);
    let more = counted(&service, "d");
    assert!(more >= all && more < all + 2.5, "the next run is added: {more} after {all}");
}

#[test]
fn a_person_sees_what_their_own_desktops_used_and_an_auditor_everybodys() {
    let mut service = service();
    service.serve(&["--meter-every", "1s"]);
    let (alice, bob) = (service.log_in("alice", &[]), service.log_in("bob", &[]));
    let auditor = service.log_in("carol", &["--role", "auditor"]);
    service.ok(&["create", "hers", "--image", "good", "--owner", "alice", "--start"]);
    service.ok(&["create", "his", "--image", "good", "--owner", "bob"]);
    until("disks are counted", || service.json(&["usage"]).as_array().unwrap().len() == 2);
    let seen = |cookie: &str, query: &str| {
        let (status, head, body) = service.http("GET", &format!("/v1/usage{query}"), cookie, "", "");
        assert_eq!(status, 200, "{head}");
        body
    };
    let names = |cookie: &str, query: &str| {
        let records: Value = serde_json::from_str(&seen(cookie, query)).unwrap();
        let mut names: Vec<_> =
            records.as_array().unwrap().iter().map(|one| one["desktop"].as_str().unwrap_or("-").to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!((names(&alice, ""), names(&bob, "")), ("hers".to_owned(), "his".to_owned()));
    assert_eq!(names(&bob, "?user=alice"), "");
    assert_eq!((names(&auditor, ""), names(&auditor, "?user=alice")), ("hers his".to_owned(), "hers".to_owned()));
    assert_eq!(names(&auditor, "?by=user"), "- -");
    assert_eq!(names(&auditor, "?until=2026-01-01T00:00:00Z"), "");
    let table = seen(&auditor, "?format=csv&by=desktop");
    assert!(table.starts_with("begin,end,desktop,") && table.lines().count() == 3, "{table}");
    // it stays although the desktop goes
    service.ok(&["rm", "hers", "--yes", "--purge"]);
    assert_eq!(names(&alice, ""), "hers");
    assert!(service.ok(&["usage", "--by", "user", "--last", "24h"]).contains("alice"));
    assert_eq!(service.yunju(&["usage", "--by", "week"]).code, 1);
}
