//! The command as a client of a service elsewhere.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Said, Service, said, service};

/// Somebody's shell on another machine: no data folder, a configuration of their own.
fn elsewhere(service: &Service, arguments: &[&str], input: &str) -> Said {
    let mut command = service.command(arguments);
    command.env_remove("YUNJU_DATA").env("XDG_CONFIG_HOME", service.path("config")).env("HOME", service.path("home"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    said(child.wait_with_output().unwrap())
}

#[test]
fn who_logs_in_from_elsewhere_uses_their_desktops_until_they_log_out() {
    let mut service = service();
    service.serve(&[]);
    service.log_in("alice", &[]);
    service.log_in("bob", &[]);
    service.ok(&["create", "hers", "--image", "good", "--owner", "alice"]);
    service.ok(&["create", "his", "--image", "good", "--owner", "bob"]);
    let url = service.own_origin();
    let wrong = elsewhere(&service, &["login", &url, "--user", "alice", "--name", "work"], "guess\n");
    assert_eq!((wrong.code, wrong.out.as_str()), (5, ""), "{wrong:?}");
    let login = elsewhere(&service, &["login", &url, "--user", "alice", "--name", "work"], "alice has chosen\n");
    assert_eq!(login.code, 0, "{login:?}");
    let file = service.path("config/yunju/contexts.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains("has chosen"), "the password is not kept");
    assert_eq!(service.json(&["session", "ls", "--user", "alice"]).as_array().unwrap().len(), 1, "nor the session");
    assert_eq!(elsewhere(&service, &["ls", "-o", "name"], "").out, "hers\n");
    let start = elsewhere(&service, &["start", "hers"], "");
    assert!(start.code == 0 && start.err.ends_with("hers: running\n"), "{start:?}");
    assert_eq!(elsewhere(&service, &["console", "hers", "--exec", "echo hello"], "").out, "hello\n");
    assert_eq!(elsewhere(&service, &["show", "his"], "").code, 6, "not even that it exists");
    assert_eq!(elsewhere(&service, &["user", "ls"], "").code, 5);
    let audit = service.json(&["audit", "ls", "--action", "desktop.start"]);
    assert_eq!((audit[0]["actor"].as_str(), audit[0]["via"].as_str()), (Some("alice"), Some("token")));
    let contexts = elsewhere(&service, &["context", "ls"], "").out;
    assert!(contexts.contains("work") && contexts.contains("alice") && contexts.contains("in use"), "{contexts}");
    assert_eq!(elsewhere(&service, &["logout"], "").code, 0);
    assert_eq!(service.json(&["token", "ls"]).as_array().unwrap().len(), 0, "the token is ended there, too");
    let after = elsewhere(&service, &["--context", "work", "ls"], "");
    assert!(after.code == 1 && after.err.contains("no context `work`"), "{after:?}");
}

#[test]
fn a_token_logs_in_and_is_refused_with_a_hint_when_it_has_ended() {
    let mut service = service();
    service.serve(&[]);
    service.log_in("alice", &[]);
    let token = service.ok(&["token", "add", "t", "--user", "alice", "--scope", "read"]);
    let login = elsewhere(&service, &["login", &service.own_origin(), "--token-stdin", "--name", "x"], &token);
    assert!(login.code == 0 && login.err.contains("as alice"), "{login:?}");
    assert_eq!(elsewhere(&service, &["ls"], "").code, 0);
    let made = elsewhere(&service, &["create", "d", "--image", "good"], "");
    assert!(made.code == 5 && made.err.contains("another scope"), "{made:?}");
    let id = service.json(&["token", "ls"])[0]["id"].as_str().unwrap().to_owned();
    service.ok(&["token", "rm", &id]);
    let ended = elsewhere(&service, &["ls"], "");
    assert!(ended.code == 4 && ended.err.contains("yunju login"), "{ended:?}");
    service.kill_serve();
    assert_eq!(elsewhere(&service, &["ls"], "").code, 3);
    assert_eq!(elsewhere(&service, &["login", "https://127.0.0.1:9"], "").code, 3);
}

#[test]
fn lists_are_printed_as_one_likes_them() {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "alice", "--image", "good"]);
    assert_eq!(service.ok(&["ls", "-o", "name"]), "alice\n");
    assert_eq!(
        service.ok(&["ls", "-o", "csv"]),
        "name,owner,state,image,memory,cpus,note\nalice,alice,stopped,good,512M,1,\n"
    );
    let yaml = service.ok(&["show", "alice", "-o", "yaml"]);
    assert!(yaml.contains("\nname: \"alice\"\n") && yaml.contains("\nmemory: 536870912\n"), "{yaml}");
}

#[test]
fn the_api_is_asked_as_it_is() {
    let mut service = service();
    service.serve(&[]);
    let made: serde_json::Value =
        serde_json::from_str(&service.ok(&["api", "POST", "groups", "--body", "{\"name\": \"staff\"}"])).unwrap();
    assert_eq!(made["name"], "staff");
    assert!(service.ok(&["api", "get", "/v1/groups"]).contains("staff"));
    assert_eq!(service.ok(&["api", "DELETE", "groups/staff"]), "");
    assert_eq!(service.yunju(&["api", "GET", "groups/none/x"]).code, 6);
    let said = service.yunju(&["api", "POST", "groups", "--body", "{"]);
    assert!(said.code == 1 && said.err.contains("no JSON"), "{said:?}");
}

#[test]
fn a_quota_is_shown_and_its_refusal_has_a_code_of_its_own() {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "bob"]);
    let shown = service.ok(&["user", "quota", "bob", "--desktops", "1", "--memory", "2G"]);
    assert!(shown.contains("desktops       0 of 1\nmemory         0 of 2G\ncpus           0\n"), "{shown}");
    service.ok(&["create", "bob", "--image", "good"]);
    let said = service.yunju(&["create", "more", "--image", "good", "--owner", "bob"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.err.contains("the quota is 1 of desktops") && said.err.contains("hint: "), "{said:?}");
    assert_eq!(service.json(&["user", "show", "bob"])["used"]["desktops"], 1);
    service.ok(&["user", "quota", "bob", "--none"]);
    service.ok(&["create", "more", "--image", "good", "--owner", "bob"]);
}

#[test]
fn what_happens_is_told_with_cursors_and_operations_are_waited_for() {
    let mut service = service();
    service.serve(&[]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "alice", "--image", "good"]);
    service.ok(&["start", "alice"]);
    let mut follow = service.command(&["events", "--cursor", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    let mut seen = Vec::new();
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        seen.push((event["event"].as_str().unwrap().to_owned(), event["data"]["state"].clone()));
        if seen.contains(&("desktop.state".to_owned(), "running".into()))
            && seen.contains(&("operation".to_owned(), "succeeded".into()))
        {
            break;
        }
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!((seen[0].0.as_str(), seen[0].1.as_str()), ("operation", Some("queued")), "of making it");
    assert!(seen.iter().any(|(kind, _)| kind == "desktop.add"));
    let operation = service.json(&["op", "ls"])[0].clone();
    assert_eq!((operation["kind"].as_str(), operation["actor"].as_str()), (Some("start"), Some("local")));
    let id = operation["id"].as_str().unwrap();
    assert_eq!(service.json(&["op", "wait", id])[0]["state"], "succeeded");
    assert_eq!(service.yunju(&["op", "cancel", id]).code, 7);
    service.ok(&["stop", "alice"]);
    assert_eq!(service.yunju(&["suspend", "alice"]).code, 7);
    let failed = service.json(&["op", "ls", "--limit", "1"])[0]["id"].as_str().unwrap().to_owned();
    let said = service.yunju(&["op", "wait", &failed]);
    assert!(said.code == 10 && said.err.contains("does not run"), "{said:?}");
}
