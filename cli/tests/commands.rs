//! What the commands print and how they fail.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Service, said, service};
use serde_json::json;

fn with_users() -> Service {
    let mut service = service();
    for image in ["crash", "error", "deaf", "mute"] {
        fs::remove_dir_all(service.path("images").join(image)).unwrap();
    }
    service.serve(&[]);
    service.ok(&["user", "add", "alice", "--admin"]);
    service.ok(&["user", "add", "bob"]);
    service
}

#[test]
fn tables_are_for_people() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good", "--memory", "1G", "--cpus", "2"]);
    service.ok(&["create", "b", "--image", "good", "--owner", "bob", "--start"]);
    assert_eq!(
        service.ok(&["ls"]),
        "NAME   OWNER  STATE    IMAGE  MEMORY  CPUS  NOTE\n\
         alice  alice  stopped  good   1G      2\n\
         b      bob    running  good   512M    1\n"
    );
    assert_eq!(
        service.ok(&["user", "ls"]),
        "NAME   ROLE   NOTE\n\
         alice  admin  has not chosen a password yet\n\
         bob    user   has not chosen a password yet\n"
    );
    assert_eq!(
        service.ok(&["image", "ls"]),
        "NAME  MEMORY  CPUS  SCREEN  NET  WARM  DESCRIPTION\n\
         good  512M    1     yes     yes  -     The good image\n"
    );
    assert_eq!(
        service.ok(&["show", "alice"]),
        "name    alice\nowner   alice\nstate   stopped\nimage   good\nmemory  1G\ncpus    2\nnote\n"
    );
}

#[test]
fn json_is_what_the_api_answers() {
    let service = with_users();
    let made = service.json(&["create", "alice", "--image", "good"]);
    assert_eq!(made, service.json(&["show", "alice"]));
    assert_eq!(made, service.json(&["show", made["id"].as_str().unwrap()]), "an id is as good as a name");
    assert_eq!(json!([made]), service.json(&["ls"]));
    for (field, value) in [
        ("name", json!("alice")),
        ("owner", json!("alice")),
        ("state", json!("stopped")),
        ("ended", json!(null)),
        ("image", json!("good")),
        ("image_digest", json!("sha256:good")),
        ("memory", json!(512 << 20)),
        ("cpus", json!(1)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let password = service.json(&["user", "passwd", "bob"]);
    assert_eq!((password["name"].as_str(), password["role"].as_str()), (Some("bob"), Some("user")));
    assert_eq!(password["password"].as_str().unwrap().len(), 23);
    let images = service.json(&["image", "ls"]);
    assert_eq!(images[0]["created"], "2026-11-24T05:00:00Z");
}

#[test]
fn failures_are_one_line_with_a_documented_code() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good"]);
    for (arguments, code, line) in [
        (&["show", "none"] as &[&str], 6, "yunju: there is no desktop called `none`\n"),
        (&["create", "alice", "--image", "good"], 7, "yunju: there is already a desktop called `alice`\n"),
        (&["user", "add", "alice"], 7, "yunju: there is already a user called `alice`\n"),
        (
            &["user", "rm", "alice"],
            7,
            "yunju: `alice` still owns desktops, perhaps deleted ones: remove them for good first\n",
        ),
        (&["user", "rm", "none"], 6, "yunju: there is no user called `none`\n"),
        (&["screenshot", "alice"], 7, "yunju: `alice` is stopped and shows no picture\n"),
        (&["console", "alice"], 7, "yunju: `alice` does not run: start it first\n"),
        (&["rm", "alice"], 1, "yunju: deleting alice needs --yes when nobody can be asked\n"),
        (&["show", "../users"], 6, "yunju: there is no desktop called `../users`\n"),
    ] {
        let said = service.yunju(arguments);
        let last = said.err.lines().next_back().unwrap_or_default();
        assert_eq!((said.code, format!("{last}\n").as_str()), (code, line), "{arguments:?}");
        assert_eq!(said.out, "", "{arguments:?}");
    }
    let said = service.yunju(&["create", "carol", "--image", "good"]);
    assert!(said.code == 2 && said.err.contains("--owner"), "{said:?}");
    let said = service.yunju(&["create", "bob", "--image", "none"]);
    assert!(said.code == 6 && said.err.contains("yunju image build none"), "{said:?}");
    let said = service.yunju(&["create", "bob", "--image", "good", "--memory", "lots"]);
    assert!(said.code == 2 && said.err.contains("`lots` is no size"), "{said:?}");
    assert_eq!(service.yunju(&["frobnicate"]).code, 2);
}

#[test]
fn roles_are_given_to_users_and_groups() {
    let service = with_users();
    service.ok(&["user", "add", "carol", "--role", "auditor"]);
    service.ok(&["group", "add", "staff", "--role", "developer"]);
    service.ok(&["group", "join", "staff", "bob", "carol"]);
    service.ok(&["group", "leave", "staff", "carol"]);
    assert_eq!(service.ok(&["group", "ls"]), "NAME   ROLE       MEMBERS\nstaff  developer  bob\n");
    assert_eq!(
        service.ok(&["user", "set", "bob", "--role", "admin", "--disable"]),
        "name  bob\nrole  admin\nnote  may not log in\n"
    );
    assert_eq!(service.json(&["user", "set", "bob", "--enable"])["disabled"], false);
    assert_eq!(service.json(&["user", "ls"])[2]["role"], "auditor");
    assert_eq!(service.yunju(&["group", "join", "none", "bob"]).code, 6);
    service.ok(&["group", "rm", "staff"]);
    assert_eq!(service.ok(&["group", "ls"]), "NAME  ROLE  MEMBERS\n");
    let said = service.yunju(&["user", "add", "dora", "--role", "boss"]);
    assert!(said.code == 2 && said.err.contains("`boss` is no role"), "{said:?}");
}

#[test]
fn the_audit_log_is_listed_and_exported() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good"]);
    service.yunju(&["create", "alice", "--image", "good"]);
    let log = service.json(&["audit", "ls", "--action", "desktop", "--since", "1h"]);
    let statuses: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [409, 201]);
    assert_eq!((&log[1]["actor"], &log[1]["resource"]), (&json!("local"), &json!("desktop alice")));
    let table = service.ok(&["audit", "ls", "--refused"]);
    assert!(table.lines().count() == 2 && table.contains("desktop.add"), "{table}");
    let csv = service.ok(&["audit", "export", "--format", "csv", "--action", "user.add"]);
    assert!(csv.starts_with("id,at,") && csv.contains("user alice,201") && csv.contains("user bob,201"), "{csv}");
    assert_eq!(service.ok(&["audit", "export", "--actor", "nobody"]), "");
    let said = service.yunju(&["audit", "ls", "--since", "tomorrow"]);
    assert!(said.code == 2 && said.err.contains("30m"), "{said:?}");
}

#[test]
fn without_a_service_the_code_is_3_and_a_hint_says_how_to_start_it() {
    let said = service().yunju(&["ls"]);
    assert_eq!(said.code, 3);
    assert_eq!(said.err.lines().count(), 2, "{}", said.err);
    assert!(said.err.contains("yunju serve"), "{}", said.err);
}

#[test]
fn an_unusable_image_is_listed_with_its_problem_and_refused() {
    let service = with_users();
    let folder = service.path("images/broken");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("image.json"), "{\"name\": \"broken\"").unwrap();
    assert!(service.ok(&["image", "ls"]).contains("unusable"));
    let said = service.yunju(&["create", "bob", "--image", "broken"]);
    assert!(said.code == 1 && said.err.contains("broken/image.json"), "{said:?}");
}

#[test]
fn images_are_built_by_the_builder_whose_failure_is_ours() {
    let service = service();
    let builder = service.path("builder");
    fs::write(&builder, "#!/bin/sh\necho \"building $*\"\n[ $1 != bad ]\n").unwrap();
    fs::set_permissions(&builder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let builder = builder.to_str().unwrap();
    assert_eq!(service.ok(&["image", "build", "one", "two", "--builder", builder]), "building one two\n");
    assert_eq!(service.yunju(&["image", "build", "bad", "--builder", builder]).code, 1);
    let said = service.yunju(&["image", "build", "x", "--builder", "/nonexistent"]);
    assert!(said.code == 1 && said.err.contains("/nonexistent"), "{said:?}");
}

#[test]
fn a_screenshot_is_a_png_file_or_standard_output() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    service.ok(&["screenshot", "alice"]);
    service.ok(&["screenshot", "alice", "-o", "x.png"]);
    let piped = service.command(&["screenshot", "alice", "-o", "-"]).output().unwrap().stdout;
    assert!(piped.starts_with(b"\x89PNG"));
    assert_eq!(fs::read(service.path("alice.png")).unwrap(), piped);
    assert_eq!(fs::read(service.path("x.png")).unwrap(), piped);
}

#[test]
fn the_console_serves_scripts() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    let run = |arguments: &[&str], input: &str| {
        let mut console = service.command(&[&["console", "alice"], arguments].concat());
        let mut console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        console.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        said(console.wait_with_output().unwrap())
    };
    let exec = run(&["--exec", "printf 'one\\ntwo\\n'; echo \"it's\" '$HOME' #"], "");
    assert_eq!((exec.code, exec.out.as_str()), (0, "one\ntwo\nit's $HOME\n"), "{}", exec.err);
    assert_eq!(run(&["--exec", "exit 42"], "").code, 42);
    let late = run(&["--exec", "sleep 5", "--timeout", "1"], "");
    assert_eq!(late.code, 9);
    assert!(late.err.contains("within 1 s"), "{}", late.err);

    common::until("the shell is free again", || run(&["--exec", "true", "--timeout", "1"], "").code == 0);
    let until = run(&["--until", "hello world"], "echo hello   world\n");
    assert!(until.code == 0 && until.out.contains("hello world"), "{until:?}");
    let unseen = run(&["--until", "never", "--timeout", "1"], "");
    assert_eq!(unseen.code, 9);
    let piped = run(&["--timeout", "1"], "echo sum $((40 + 2))\n");
    assert!(piped.code == 0 && piped.out.contains("sum 42"), "{piped:?}");
}

#[test]
fn logs_are_followed_until_the_reader_goes() {
    let service = with_users();
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    common::until("the guest spoke", || service.ok(&["logs", "alice"]).contains("fake guest"));
    let mut follow = service.command(&["logs", "alice", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    service.ok(&["console", "alice", "--exec", "echo more"]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().trim() == "more"));
    follow.kill().unwrap();
    follow.wait().unwrap();
    service.ok(&["stop", "alice"]);
    assert!(service.ok(&["logs", "alice", "--source", "vmm"]).contains("machine ended: powered off"));
}

#[test]
fn doctor_says_whether_real_guests_can_run() {
    let said = service().yunju(&["doctor", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["real_guests"].as_bool().unwrap(), said.code == 0);
    assert_eq!(report["kvm"] == "hardware", said.code == 0);
    let names: Vec<_> = report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in ["processor", "/dev/kvm", "kernel", "network", "memory", "disk", "address", "cgroups"] {
        assert!(names.contains(&name), "{name} is missing of {names:?}");
    }
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["status"] == "ok", check["hint"].is_null(), "{check}");
    }
}

#[test]
fn man_pages_and_completions_are_written() {
    let service = service();
    service.ok(&["man", "man"]);
    let page = fs::read_to_string(service.path("man/yunju.1")).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    assert!(service.path("man/yunju-user-add.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        assert!(service.ok(&["completions", shell]).contains("yunju"));
    }
}
