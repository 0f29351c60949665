//! Desktops on host names of their own: what opens one, and what does not.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::io::{Read, Write};

use common::{Service, ends, message, service, until};
use serde_json::{Value, json};

fn running() -> (Service, String) {
    let mut service = service();
    service.serve(&[]);
    let cookie = service.log_in("alice", &[]);
    service.ok(&["create", "alice", "--image", "good", "--start"]);
    let desk = service.open("alice", &cookie);
    until("the proxy listens", || service.websocket(&desk).0 == 101);
    (service, cookie)
}

#[test]
fn a_ticket_opens_one_desktop_once_on_one_host_name() {
    let (service, cookie) = running();
    service.ok(&["create", "second", "--image", "good", "--owner", "alice"]);
    let (_, host, path, ticket) = service.door("alice", &cookie);
    let other = service.open("second", &cookie);
    assert_ne!(host, other.host, "each desktop has its own");
    assert_eq!(service.open("alice", &cookie).host, host, "which stays while the login lasts");
    assert_eq!(service.enter(&service.address, &ticket).0, 404, "the portal takes no ticket");
    let desk = service.go_in(host.clone(), &path, &ticket);
    assert!(desk.cookie.starts_with("__Host-yunju_desk="), "{}", desk.cookie);
    assert_eq!(service.enter(&host, &ticket), (403, String::new()), "a second time");
    assert_eq!(service.enter(&host, ""), (403, String::new()));
    let (_, _, _, ticket) = service.door("alice", &cookie);
    assert_eq!(service.enter(&other.host, &ticket).0, 403, "another desktop's host name");
    assert_eq!(service.enter(&host, &ticket).0, 403, "and it was used up there");
    // from a page that is not the desktop's
    let (_, _, _, ticket) = service.door("alice", &cookie);
    let body = json!({"ticket": ticket}).to_string();
    for origin in ["", "null", &service.own_origin(), &other.origin()] {
        assert_eq!(service.http_at(&host, "POST", "/v1/opening", "", origin, &body).0, 403, "{origin}");
    }
    // nothing that a login gave opens anything after it
    let (_, _, _, ticket) = service.door("alice", &cookie);
    assert_eq!(service.http("DELETE", "/v1/session", &cookie, &service.own_origin(), "").0, 204);
    assert_eq!(service.enter(&host, &ticket).0, 403);
    assert_eq!(service.websocket(&desk).0, 401);
}

#[test]
fn a_cookie_is_worth_something_on_its_own_host_name_only() {
    let (mut service, cookie) = running();
    service.ok(&["create", "second", "--image", "good", "--owner", "alice", "--start"]);
    let bob = service.log_in("bob", &[]);
    service.ok(&["create", "bobs", "--image", "good", "--owner", "bob"]);
    let (desk, second, bobs) =
        (service.open("alice", &cookie), service.open("second", &cookie), service.open("bobs", &bob));
    let show = |host: &str, cookie: &str, path: &str| service.http_at(host, "GET", path, cookie, "", "").0;
    assert_eq!(show(&desk.host, &desk.cookie, &desk.api("")), 200);
    for cookie in [&second.cookie, &bobs.cookie, &cookie, &String::new()] {
        assert_eq!(show(&desk.host, cookie, &desk.api("")), 401, "{cookie}");
    }
    assert_eq!(show(&service.address, &desk.cookie, &desk.api("")), 401, "on the portal");
    // no other desktop is there, not even another one of the same person
    for path in [&second.api(""), "/v1/desktops/second", &bobs.api(""), "/v1/desktops/none"] {
        assert_eq!(show(&desk.host, &desk.cookie, path), 404, "{path}");
    }
    let there = format!("/desktops/{}/ws", second.id);
    assert_eq!(service.stream_with(&desk.host, &there, &desk.cookie, &desk.origin(), "").0, 404);
    // an opening is known to the next service
    service.end_serve();
    service.serve(&[]);
    let host = format!("{}:{}", desk.host.split(':').next().unwrap(), service.address.rsplit_once(':').unwrap().1);
    assert_eq!(service.http_at(&host, "GET", &desk.api(""), &desk.cookie, "", "").0, 200);
}

#[test]
fn on_a_desktops_host_name_is_nothing_but_that_desktop_and_on_the_portal_no_desktop() {
    let (service, cookie) = running();
    let desk = service.open("alice", &cookie);
    let asked: Value = serde_json::from_str(&service.http("GET", "/v1/openapi.json", &cookie, "", "").2).unwrap();
    let mut there = Vec::new();
    for (path, methods) in asked["paths"].as_object().unwrap() {
        let filled = path.replace("{desktop}", &desk.id).replace(['{', '}'], "");
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let operation = operation["operationId"].as_str().unwrap();
            // what changes something is not tried
            let harmless = ["GET"].contains(&method.as_str()) || !operation.starts_with("desktop.");
            let cookie = if harmless { desk.cookie.as_str() } else { "" };
            let (status, _, body) = service.http_at(&desk.host, &method, &filled, cookie, &desk.origin(), "{}");
            let absent = status == 404 && (body.contains("no page") || body.contains("no share"));
            if !absent {
                there.push(operation.to_owned());
            }
        }
    }
    there.sort();
    #[rustfmt::skip]
    let expected = [
        "desktop.io", "desktop.listen", "desktop.restart", "desktop.resume", "desktop.screenshot", "desktop.share.add", "desktop.share.list",
        "desktop.show", "desktop.snapshot.take", "desktop.start", "desktop.stop", "desktop.suspend", "desktop.undo", "desktop.viewer.list",
        "desktop.watch", "health", "opening.enter", "opening.show",
    ];
    assert_eq!(there, expected);
    for path in ["/", "/login", "/shared", "/docs/api"] {
        assert_eq!(service.http_at(&desk.host, "GET", path, &desk.cookie, "", "").0, 404, "{path}");
    }
    let page =
        |host: &str, cookie: &str| service.http_at(host, "GET", &format!("/desktops/{}", desk.id), cookie, "", "");
    let (_, head, body) = page(&desk.host, &desk.cookie);
    assert!(
        body.contains("desktop.js") && head.contains(&format!("frame-ancestors {}", service.own_origin())),
        "{head}"
    );
    assert!(page(&desk.host, "").2.contains("door.js"), "whoever does not come in stands before the door");
    let (_, head, body) = page(&service.address, &cookie);
    assert!(body.contains("frame.js") && !body.contains("desktop.js"));
    let port = service.address.rsplit_once(':').unwrap().1;
    assert!(head.contains(&format!("frame-src http://*.desk.localhost:{port};")), "{head}");
    for line in [
        "frame-ancestors 'none'",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-embedder-policy: require-corp",
        "cross-origin-resource-policy: same-origin",
        "camera=()",
        "geolocation=()",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert_eq!(service.stream_with(&service.address, "/desktops/alice/ws", &cookie, &service.own_origin(), "").0, 400);
}

#[test]
fn a_flood_of_openings_is_held_and_leaves_little() {
    let (service, cookie) = running();
    let mut answers = Vec::new();
    for _ in 0..1000 {
        let (status, host, _, ticket) = service.door("alice", &cookie);
        if status == 200 && answers.len() % 3 == 0 {
            service.enter(&host, &ticket);
        }
        answers.push(status);
    }
    assert!(answers.iter().all(|status| [200, 429].contains(status)), "{answers:?}");
    let database = rusqlite::Connection::open(service.path("data/yunju.sqlite")).unwrap();
    let left: u32 = database.query_row("SELECT count(*) FROM openings", [], |row| row.get(0)).unwrap();
    assert!((1..=64).contains(&left), "{left} openings");
    let mut desk = None;
    until("a way in again", || {
        let (status, host, path, ticket) = service.door("alice", &cookie);
        desk = (status == 200).then(|| service.go_in(host, &path, &ticket));
        desk.is_some()
    });
    let desk = desk.unwrap();
    let (mut open, mut refused) = (Vec::new(), 0);
    while open.len() + refused < 40 {
        match service.websocket(&desk) {
            (101, _, stream) => open.push(stream),
            (409, ..) => refused += 1,
            // who asked so much waits a little
            (status, ..) => {
                assert_eq!(status, 429);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
    assert_eq!((open.len(), refused), (32, 8));
}

#[test]
fn no_path_leads_to_another_host() {
    let (service, _) = running();
    let port = service.address.rsplit_once(':').unwrap().1;
    let address = format!("127.0.0.1:{port}");
    for path in [
        "/",
        "//evil.example",
        "//evil.example/%2F..",
        "/\\evil.example",
        "/@evil.example",
        "/login?next=//evil.example",
    ] {
        let head = service.visit(&address, path);
        let to = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default().to_owned();
        let own = to.is_empty()
            || to.strip_prefix(&format!("http://localhost:{port}")).is_some_and(|rest| rest.starts_with('/'));
        assert!(own, "{path} leads to {to}");
        let head = service.visit(&service.address, path);
        let to = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or("/").to_owned();
        assert!(to.starts_with('/') && !to.starts_with("//"), "{path} leads to {to}");
    }
    let (status, _, body) = {
        let own = format!("http://{address}");
        let body = json!({"name": "alice", "password": "alice has chosen"}).to_string();
        let (_, head, _) = service.http_at(&address, "POST", "/v1/session", "", &own, &body);
        let cookie = head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap();
        service.http_at(&address, "POST", "/v1/desktops/alice/open", cookie, &own, "")
    };
    assert!(status == 421 && body.contains("wrong_host") && body.contains("--domain"), "{body}");
}

fn share(service: &Service, cookie: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) =
        service.http("POST", "/v1/desktops/alice/shares", cookie, &service.own_origin(), &body.to_string());
    (status, serde_json::from_str(&answer).unwrap())
}

/// Follows a link, without an account.
fn follow(service: &Service, made: &Value) -> (u16, Value) {
    let secret = made["url"].as_str().unwrap().split_once('#').unwrap().1;
    let body = json!({"secret": secret}).to_string();
    let (status, _, answer) = service.http("POST", "/v1/shares/open", "", &service.own_origin(), &body);
    (status, serde_json::from_str(&answer).unwrap())
}

fn guest(service: &Service, made: &Value) -> common::Desk {
    let (status, led) = follow(service, made);
    assert_eq!(status, 200, "{led}");
    let (host, path, ticket) = common::way(&led["door"]);
    service.go_in(host, &path, &ticket)
}

#[test]
fn a_link_gives_exactly_its_rights_until_it_is_taken_back() {
    let (service, cookie) = running();
    let (_, look) = share(&service, &cookie, &json!({"kind": "view", "sound": false}));
    let (_, work) = share(&service, &cookie, &json!({"kind": "control", "clipboard": true}));
    let (looks, works) = (guest(&service, &look), guest(&service, &work));
    assert_ne!(guest(&service, &look).host, looks.host, "each who comes is alone");
    let io = |desk: &common::Desk| {
        let (status, _, mut stream) = service.stream(desk, "/io", &desk.cookie, &desk.origin());
        assert_eq!(status, 101);
        message(&mut stream)
    };
    assert_eq!(io(&looks), "/io  guest");
    assert_eq!(io(&works), "/io input,clipboard,sound guest");
    assert_eq!(service.stream(&looks, "/audio", &looks.cookie, &looks.origin()).0, 403);
    for (method, rest) in
        [("POST", "/stop"), ("POST", "/snapshots"), ("POST", "/start"), ("GET", "/shares"), ("GET", "/viewers")]
    {
        let (status, _, body) =
            service.http_at(&works.host, method, &works.api(rest), &works.cookie, &works.origin(), "{}");
        assert_eq!(status, 403, "{method} {rest}: {body}");
    }
    let (_, _, mut first) = service.websocket(&looks);
    let (_, _, mut second) = service.websocket(&works);
    assert_eq!((message(&mut first), message(&mut second)), ("RFB 003.008\n".into(), "RFB 003.008\n".into()));
    let listed = |cookie: &str| -> Value {
        serde_json::from_str(&service.http("GET", "/v1/desktops/alice/viewers", cookie, "", "").2).unwrap()
    };
    let seen: Vec<_> =
        listed(&cookie).as_array().unwrap().iter().map(|one| json!([one["name"], one["by"], one["input"]])).collect();
    assert_eq!(json!(seen), json!([["guest", "share", false], ["guest", "share", true]]));

    service.ok(&["share", "revoke", look["id"].as_str().unwrap()]);
    assert!(ends(&mut first), "taken back");
    assert_eq!(service.websocket(&looks).0, 401);
    assert_eq!(follow(&service, &look).0, 403);
    second.write_all(b"\x82\x8c\0\0\0\0RFB 003.008\n").unwrap();
    second.read_exact(&mut [0; 4]).unwrap();
    // who lets others in lets nobody in any more
    service.ok(&["user", "set", "alice", "--disable"]);
    assert!(ends(&mut second), "its maker is out");
    assert_eq!(service.websocket(&works).0, 401);
    assert_eq!(follow(&service, &work).0, 403);
}

#[test]
fn what_is_shared_with_a_user_is_theirs_to_open_and_nobody_elses_until_it_runs_out() {
    let (service, cookie) = running();
    let (bob, carol) = (service.log_in("bob", &[]), service.log_in("carol", &[]));
    assert_eq!(service.door("alice", &bob).0, 404);
    let (status, made) = share(&service, &cookie, &json!({"kind": "control", "user": "bob", "seconds": 4}));
    assert_eq!((status, made.get("url")), (201, None));
    let ask =
        |cookie: &str, method: &str, path: &str| service.http(method, path, cookie, &service.own_origin(), "{}").0;
    let listed = service.http("GET", "/v1/shares", &bob, "", "").2;
    assert!(listed.contains("\"desktop\":\"alice\""), "{listed}");
    let desk = service.open("alice", &bob);
    let (status, _, mut stream) = service.websocket(&desk);
    assert_eq!((status, message(&mut stream).as_str()), (101, "RFB 003.008\n"));
    assert_eq!(service.door("alice", &carol).0, 404);
    for (method, path) in [
        ("POST", "/v1/desktops/alice/stop"),
        ("DELETE", "/v1/desktops/alice"),
        ("GET", "/v1/desktops/alice/logs"),
        ("GET", "/v1/desktops/alice/shares"),
        ("DELETE", &format!("/v1/shares/{}", made["id"].as_str().unwrap())),
    ] {
        assert_eq!(ask(&bob, method, path), 403, "{method} {path}");
        assert_eq!(ask(&carol, method, path), 404, "{method} {path}");
    }
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_ok(), "it ran out");
    until("nothing is left of it", || service.door("alice", &bob).0 == 404 && service.websocket(&desk).0 == 401);
    for body in [json!({"kind": "view", "user": "alice"}), json!({"kind": "view", "seconds": 0})] {
        assert_eq!(share(&service, &cookie, &body).0, 400, "{body}");
    }
    assert_eq!(share(&service, &cookie, &json!({"kind": "view", "user": "none"})).0, 404);
}

#[test]
fn a_copy_is_for_who_has_an_account_and_within_their_quota() {
    let (service, cookie) = running();
    let bob = service.log_in("bob", &[]);
    let (_, made) = share(&service, &cookie, &json!({"kind": "copy"}));
    let (status, led) = follow(&service, &made);
    assert_eq!((status, &led["desktop"], led.get("door")), (200, &json!("alice"), None), "no way in");
    let secret = made["url"].as_str().unwrap().split_once('#').unwrap().1;
    let copy = |cookie: &str, name: &str| {
        let body = json!({"secret": secret, "name": name}).to_string();
        service.http("POST", "/v1/shares/copy", cookie, &service.own_origin(), &body).0
    };
    assert_eq!(copy("", "mine"), 401);
    service.ok(&["stop", "alice"]);
    assert_eq!(copy(&bob, "mine"), 201);
    assert_eq!(service.json(&["show", "mine"])["owner"], "bob");
    service.ok(&["user", "quota", "bob", "--desktops", "1"]);
    assert_eq!(copy(&bob, "another"), 403, "over the quota");
    let id = made["id"].as_str().unwrap();
    service.ok(&["share", "revoke", id]);
    assert_eq!(copy(&bob, "third"), 403);
}

#[test]
fn an_admin_who_looks_is_seen_by_the_owner_and_in_the_audit_log() {
    let (service, cookie) = running();
    let admin = service.log_in("root", &["--admin"]);
    let desk = service.open("alice", &admin);
    let _stream = service.websocket(&desk);
    let listed = service.http("GET", "/v1/desktops/alice/viewers", &cookie, "", "").2;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["by"]), (&json!("root"), &json!("admin")), "{listed}");
    let events = || service.json(&["audit", "ls", "--actor", "root"]);
    let opened = events().as_array().unwrap().iter().any(|entry| {
        entry["action"] == "desktop.open"
            && entry["resource"] == "desktop alice"
            && entry["detail"].as_str().unwrap().contains("user alice")
    });
    assert!(opened, "{}", events());
}

#[test]
fn shares_are_made_listed_and_taken_back_on_the_command_line() {
    let (service, _) = running();
    service.ok(&["user", "add", "bob"]);
    let link = service.ok(&["share", "create", "alice", "--kind", "view", "--for", "1h"]);
    assert!(link.starts_with(&format!("{}/shared#", service.own_origin())), "{link}");
    service.ok(&["share", "create", "alice", "--kind", "control", "--user", "bob", "--clipboard", "--no-sound"]);
    let listed = service.json(&["share", "ls", "alice"]);
    let listed: Vec<_> =
        listed.as_array().unwrap().iter().map(|s| json!([s["user"], s["kind"], s["clipboard"], s["sound"]])).collect();
    assert_eq!(listed.len(), 2);
    assert!(
        listed.contains(&json!(["bob", "control", true, false]))
            && listed.contains(&json!([null, "view", false, true]))
    );
    for share in service.json(&["share", "ls", "alice"]).as_array().unwrap() {
        service.ok(&["share", "revoke", share["id"].as_str().unwrap()]);
    }
    assert_eq!(service.json(&["share", "ls", "alice"]), json!([]));
    assert_eq!(service.yunju(&["share", "revoke", "none"]).code, 6);
}
