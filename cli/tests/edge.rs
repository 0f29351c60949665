//! The way from a browser to a desktop's screen is open to who may pass, and closes when they no longer may.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Service, ends, service};

fn running() -> (Service, String) {
    let mut service = service();
    service.serve(&[]);
    let cookie = service.log_in("alice", &[]);
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    let desk = service.open("alice", &cookie);
    common::until("the proxy listens", || service.websocket(&desk).0 == 101);
    (service, cookie)
}

fn greeting(stream: &mut TcpStream) -> [u8; 14] {
    let mut frame = [0; 14];
    stream.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn an_owner_on_our_page_reaches_the_proxy() {
    let (service, cookie) = running();
    let (status, head, mut stream) = service.websocket(&service.open("alice", &cookie));
    assert_eq!(status, 101);
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "answered by the proxy: {head}");
    assert_eq!(&greeting(&mut stream), b"\x82\x0cRFB 003.008\n");
    // and bytes go the other way: a masked message of the viewer's version makes the proxy go on
    stream.write_all(b"\x82\x8c\0\0\0\0RFB 003.008\n").unwrap();
    let mut security = [0; 4];
    stream.read_exact(&mut security).unwrap();
    assert_eq!(security, [0x82, 2, 1, 1]);
}

#[test]
fn others_are_refused_before_the_proxy_hears_of_them() {
    let (service, cookie) = running();
    let (own, bob, admin) = (service.own_origin(), service.log_in("bob", &[]), service.log_in("root", &["--admin"]));
    assert_eq!(service.websocket(&service.open("alice", &admin)).0, 101);
    assert_eq!(service.door("alice", "").0, 401);
    assert_eq!(service.door("alice", &bob).0, 404, "not even that it exists");
    assert_eq!(service.door("none", &cookie).0, 404);
    let desk = service.open("alice", &cookie);
    let ask = |cookie: &str, origin: &str| service.stream(&desk, "", cookie, origin).0;
    assert_eq!(ask("", &desk.origin()), 401);
    assert_eq!(ask("__Host-yunju_desk=0000", &desk.origin()), 401);
    assert_eq!(ask(&cookie, &desk.origin()), 401, "the portal's cookie is worth nothing here");
    let (name, port) = desk.host.rsplit_once(':').unwrap();
    let (scheme, host) = ("http", &desk.host);
    for origin in [
        "",
        "null",
        "http://evil.example",
        &own,
        &format!("https://{host}"),
        &format!("{scheme}://{host}.evil.example"),
        &format!("{scheme}://{host}@evil.example"),
        &format!("{scheme}://{host}0"),
        &format!("{scheme}://{name}"),
        &format!("{scheme}://{name}:{port}/"),
        &format!("{scheme}://x{host}"),
        &format!("{scheme}://x.{host}"),
        &format!("{scheme}://{}", host.to_uppercase()),
    ] {
        assert_eq!(ask(&desk.cookie, origin), 403, "{origin}");
    }
    service.ok(&["stop", "alice"]);
    assert_eq!(ask(&desk.cookie, &desk.origin()), 409);
}

#[test]
fn streams_beside_the_screen_are_asked_for_by_path_and_end_with_the_right_to_them() {
    let (service, cookie) = running();
    let desk = service.open("alice", &cookie);
    for path in ["/audio", "/io"] {
        let (status, _, mut stream) = service.stream(&desk, path, &desk.cookie, &desk.origin());
        assert_eq!(status, 101);
        // the stand-in says which path it was asked for
        assert_eq!(common::message(&mut stream), format!("{path} input,clipboard,sound alice"));
        assert_eq!(service.stream(&desk, path, "", &desk.origin()).0, 401);
        assert_eq!(service.stream(&desk, path, &desk.cookie, "http://evil.example").0, 403);
    }
    assert_eq!(service.stream(&desk, "/other", &desk.cookie, &desk.origin()).0, 404);
    let (status, _, mut stream) = service.stream(&desk, "/audio", &desk.cookie, &desk.origin());
    assert_eq!(status, 101);
    assert_eq!(service.http("DELETE", "/v1/session", &cookie, &service.own_origin(), "").0, 204);
    assert!(ends(&mut stream), "logged out");
    let desk = service.open("alice", &service.log_in("root", &["--admin"]));
    service.ok(&["stop", "alice"]);
    assert_eq!(service.stream(&desk, "/audio", &desk.cookie, &desk.origin()).0, 409);
}

/// A stream of the desktop `alice` that has begun.
fn open(service: &Service, cookie: &str) -> TcpStream {
    let (status, _, mut stream) = service.websocket(&service.open("alice", cookie));
    assert_eq!(status, 101);
    greeting(&mut stream);
    stream
}

#[test]
fn streams_end_when_the_right_to_them_does() {
    let (service, cookie) = running();
    let own = service.own_origin();
    let open = |cookie: &str| open(&service, cookie);
    let admin = service.log_in("root", &["--admin"]);
    let (mut first, mut second, mut third) = (open(&cookie), open(&admin), open(&admin));

    assert_eq!(service.http("DELETE", "/v1/session", &cookie, &own, "").0, 204);
    assert!(ends(&mut first), "logged out");
    assert_eq!(service.door("alice", &cookie).0, 401);

    second.write_all(b"\x82\x8c\0\0\0\0RFB 003.008\n").unwrap();
    second.read_exact(&mut [0; 4]).unwrap();
    service.ok(&["user", "passwd", "root"]);
    assert!(ends(&mut second) && ends(&mut third), "a new password ends all sessions");

    let body = serde_json::json!({"name": "alice", "password": "alice has chosen"}).to_string();
    let (_, head, _) = service.http("POST", "/v1/session", "", &own, &body);
    let cookie = head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap();
    let mut last = open(cookie);
    service.ok(&["rm", "alice", "--yes"]);
    assert!(ends(&mut last), "deleted");
}

#[test]
fn ending_a_session_or_a_user_ends_what_is_open_by_it_and_nothing_else() {
    let (service, cookie) = running();
    let own = service.own_origin();
    let open = |cookie: &str| open(&service, cookie);
    let login = || {
        let body = serde_json::json!({"name": "alice", "password": "alice has chosen"}).to_string();
        let (_, head, _) = service.http("POST", "/v1/session", "", &own, &body);
        head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap().to_owned()
    };
    let sessions = || service.json(&["session", "ls", "--user", "alice"]).as_array().unwrap().clone();
    let before = sessions();
    let second = login();
    let id =
        sessions().into_iter().find(|session| !before.contains(session)).unwrap()["id"].as_str().unwrap().to_owned();
    let (mut kept, mut ended) = (open(&cookie), open(&second));
    service.ok(&["session", "rm", &id]);
    assert!(ends(&mut ended), "its session");
    kept.write_all(b"\x82\x8c\0\0\0\0RFB 003.008\n").unwrap();
    kept.read_exact(&mut [0; 4]).unwrap();
    service.ok(&["user", "set", "alice", "--disable"]);
    assert!(ends(&mut kept), "its user");
    assert_eq!(service.door("alice", &cookie).0, 401);
}

#[test]
fn ending_a_token_ends_what_is_open_by_it() {
    let (service, _) = running();
    let token = service.ok(&["token", "add", "viewer", "--user", "alice", "--scope", "screen"]);
    let bearer = format!("authorization: Bearer {}\r\n", token.trim());
    let (status, _, mut stream) = service.stream_with(&service.address, "/desktops/alice/ws", "", "", &bearer);
    assert_eq!(status, 101);
    greeting(&mut stream);
    let tokens = service.json(&["token", "ls"]);
    assert_eq!((tokens[0]["name"].as_str(), tokens[0]["user"].as_str()), (Some("viewer"), Some("alice")));
    service.ok(&["token", "rm", tokens[0]["id"].as_str().unwrap()]);
    assert!(ends(&mut stream));
    assert_eq!(service.stream_with(&service.address, "/desktops/alice/ws", "", "", &bearer).0, 401);
}

#[test]
fn a_vnc_viewer_connects_through_a_local_port() {
    let (service, _) = running();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut bridge = service.command(&["open", "alice", "--vnc", &port]).spawn().unwrap();
    let mut viewer = None;
    common::until("the bridge listens", || {
        viewer = TcpStream::connect(format!("127.0.0.1:{port}")).ok();
        viewer.is_some()
    });
    let mut version = [0; 12];
    viewer.unwrap().read_exact(&mut version).unwrap();
    assert_eq!(&version, b"RFB 003.008\n");
    bridge.kill().unwrap();
    bridge.wait().unwrap();
}

#[test]
fn secrets_are_in_no_log() {
    let (service, cookie) = running();
    let (_, host, _, ticket) = service.door("alice", &cookie);
    let desk = service.enter(&host, &ticket).1;
    let (made, _, body) = service.http(
        "POST",
        "/v1/desktops/alice/shares",
        &cookie,
        &service.own_origin(),
        &serde_json::json!({"kind": "view"}).to_string(),
    );
    assert_eq!(made, 201, "{body}");
    let link: serde_json::Value = serde_json::from_str(&body).unwrap();
    let link = link["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let open = serde_json::json!({"secret": link}).to_string();
    assert_eq!(service.http("POST", "/v1/shares/open", "", &service.own_origin(), &open).0, 200);
    let (log, audit) = (service.log(), service.ok(&["audit", "ls", "-o", "json"]));
    assert!(log.contains("logged in") && audit.contains("opening.enter") && !log.contains("has chosen"), "{log}");
    let value = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    for secret in [value(&cookie), value(&desk), ticket, link] {
        assert!(secret.len() == 64 && !log.contains(&secret) && !audit.contains(&secret), "{log}{audit}");
        let database = std::fs::read(service.path("data/yunju.sqlite")).unwrap();
        let journal = std::fs::read(service.path("data/yunju.sqlite-wal")).unwrap_or_default();
        for file in [database, journal] {
            assert!(!file.windows(64).any(|bytes| bytes == secret.as_bytes()), "a copy of the store opens nothing");
        }
    }
}
