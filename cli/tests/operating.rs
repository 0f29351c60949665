//! What whoever runs the service sees of it: figures, logs, health.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Service, service, until};
use serde_json::{Value, json};

/// The value of a figure in the text of `/metrics`.
fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn metrics(service: &Service) -> String {
    service.ok(&["api", "GET", "/metrics"])
}

fn plain(address: &str, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_machines_and_the_host_use_is_told_to_who_may_know() {
    let mut service = service();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    service.serve(&["--metrics", &free]);
    service.log_in("alice", &["--admin"]);
    service.ok(&["create", "d", "--image", "good", "--owner", "alice", "--start"]);
    service.ok(&["create", "e", "--image", "good", "--owner", "alice"]);
    let text = metrics(&service);
    assert_eq!(figure(&text, "yunju_desktops{state=\"running\"}"), Some(1.0), "{text}");
    assert_eq!(figure(&text, "yunju_desktops{state=\"stopped\"}"), Some(1.0));
    let of = |name: &str| figure(&text, &format!("{name}{{desktop=\"d\",owner=\"alice\",image=\"good\"}}"));
    assert!(of("yunju_desktop_memory_bytes").unwrap() > 1e5, "{text}");
    assert_eq!(of("yunju_desktop_memory_limit_bytes"), Some(f64::from(512 << 20)));
    assert!(of("yunju_desktop_cpu_seconds_total").is_some() && !text.contains("desktop=\"e\""));
    assert!(
        figure(&text, "yunju_host_memory_bytes").unwrap() > 1e8 && figure(&text, "yunju_data_free_bytes").is_some()
    );
    let made = figure(&text, "yunju_requests_total{operation=\"desktop.add\",status=\"201\"}");
    assert_eq!(made, Some(2.0), "{text}");

    assert!(plain(&free, "/metrics", "").contains("yunju_info{version="));
    assert!(plain(&free, "/v1/desktops", "").starts_with("HTTP/1.1 404"), "and nothing else");
    let token = |scope: &str| service.ok(&["token", "add", scope, "--user", "alice", "--scope", scope]);
    for (scope, status) in [("metrics", 200), ("admin", 403), ("read", 403)] {
        let answer = plain(&service.address, "/metrics", &format!("authorization: Bearer {}\r\n", token(scope).trim()));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{scope}: {answer}");
    }
    let dashboard = include_str!("../../docs/grafana.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let asked = panel["targets"][0]["expr"].as_str().unwrap();
        let names = asked.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in names.filter(|word| word.starts_with("yunju_")) {
            assert!(text.contains(&format!("# TYPE {name} ")), "the dashboard asks for {name}");
        }
    }
}

#[test]
fn the_log_has_a_line_of_json_for_each_event_with_the_requests_id_and_no_secret() {
    let mut service = service();
    service.serve_with(&["--log", "json"], &[("YUNJU_LOG", "trace")]);
    let one_time = service.ok(&["user", "add", "bob"]);
    let cookie = service.log_in("alice", &[]);
    let origin = service.own_origin();
    let (_, head, body) = service.http(
        "POST",
        "/v1/session/factor",
        &cookie,
        &origin,
        &json!({"password": "alice has chosen"}).to_string(),
    );
    let factor: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{head}"));
    let link: Value = serde_json::from_str(&service.ok(&["api", "POST", "users/bob/link"])).unwrap();
    let token = service.ok(&["token", "add", "t", "--user", "alice", "--scope", "read"]);
    service.ok(&["create", "d", "--image", "good", "--owner", "alice", "--start"]);
    let wrong = json!({"name": "alice", "password": "a wrong guess"}).to_string();
    assert_eq!(service.http("POST", "/v1/session", "", &origin, &wrong).0, 403);
    let bearer = format!("authorization: Bearer {}\r\n", token.trim());
    let answer = plain(&service.address, "/v1/desktops", &bearer);
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    until("the request is in the log", || service.log().contains(&id));
    let log = service.log();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
    }
    let key = factor["key"].as_str().or(factor["secret"].as_str()).unwrap();
    let link = link.as_object().unwrap().values().filter_map(Value::as_str).max_by_key(|text| text.len()).unwrap();
    let link = link.rsplit(['#', '/', '=']).next().unwrap();
    let session = cookie.split('=').nth(1).unwrap();
    for secret in [one_time.trim(), "alice has chosen", session, key, link, token.trim(), "a wrong guess"] {
        assert!(secret.len() > 8 && !log.contains(secret), "`{secret}` is in the log");
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_that_it_lives_and_that_it_ends() {
    let mut service = service();
    let path = service.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    service.serve_with(&[], &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")]);
    let hear = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!((hear(), hear(), hear()), ("READY=1".to_owned(), "WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    assert_eq!(service.end_serve(), 0);
    while hear() != "STOPPING=1" {}
}

#[test]
fn health_says_whether_the_service_lives_and_whether_it_can_work() {
    let mut service = service();
    service.serve(&["--stop-machines"]);
    service.ok(&["user", "add", "alice"]);
    service.ok(&["create", "d", "--image", "deaf", "--owner", "alice", "--start"]);
    for path in ["/health/live", "/health/ready"] {
        assert!(plain(&service.address, path, "").starts_with("HTTP/1.1 200"), "{path}");
    }
    // while its machines stop it answers, but wants no more work
    service.signal(rustix::process::Signal::TERM);
    until("it is not ready", || plain(&service.address, "/health/ready", "").starts_with("HTTP/1.1 503"));
    assert!(plain(&service.address, "/health/live", "").starts_with("HTTP/1.1 200"));
    service.await_serve_end();
}
