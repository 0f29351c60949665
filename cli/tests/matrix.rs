//! Who is let in where: every address of the API, asked by everybody.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use common::{Service, service};
use serde_json::Value;

/// From who may least to who may most; `owner` has the desktop, session, token and operation that the addresses name.
const ACTORS: [&str; 7] = ["nobody", "auditor", "other", "developer", "reader", "owner", "admin"];

/// `yes` is whatever the address itself answers; anything else is the gate's answer, or the address' that there is no such thing.
const MATRIX: &str = include_str!("matrix.txt");

/// An actor's way in, as lines of a request's head.
type Credentials = BTreeMap<&'static str, String>;

#[test]
fn everybody_is_let_in_exactly_where_the_matrix_says() {
    let mut service = service();
    service.serve(&[]);
    let mut world = World::new(&service);
    let asked: Value = serde_json::from_str(&world.ask("GET", "/v1/openapi.json", "nobody").1).unwrap();
    let mut rows = Vec::new();
    for (path, methods) in asked["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            rows.push((operation["operationId"].as_str().unwrap(), method.to_uppercase(), path));
        }
    }
    // who logs out, or ends the token that asks, is nobody afterwards
    let last = |operation: &str| ["token.end", "logout"].iter().position(|name| *name == operation);
    rows.sort_by_key(|(operation, ..)| (last(operation), *operation));

    let mut found = Vec::new();
    for (operation, method, path) in rows {
        let mut row = format!("{operation:<26}");
        for actor in ACTORS {
            let path = world.fill(path);
            let (status, _) = world.ask(&method, &path, actor);
            let cell = if matches!(status, 401 | 403 | 404) { status.to_string() } else { "yes".to_owned() };
            assert!(status < 500, "{method} {path} as {actor}: {status}\n{}", service.log());
            write!(row, " {cell:>9}").unwrap();
            if cell == "yes" && method != "GET" && last(operation).is_none() {
                world.mend();
            }
        }
        found.push(row);
    }
    found.sort();
    let head = format!("{:<26}{}\n", "", ACTORS.map(|actor| format!(" {actor:>9}")).concat());
    let found = format!("{head}{}\n", found.join("\n"));
    assert!(found == MATRIX, "cli/tests/matrix.txt says otherwise; the matrix is:\n{found}");
}

/// A service with one of everything, and whoever asks.
struct World<'a> {
    service: &'a Service,
    credentials: Credentials,
    /// What stands for the variable parts of addresses.
    things: BTreeMap<&'static str, String>,
}

impl<'a> World<'a> {
    fn new(service: &'a Service) -> Self {
        let mut credentials = Credentials::from([("nobody", String::new())]);
        for (name, role) in [
            ("auditor", "auditor"),
            ("other", "user"),
            ("developer", "developer"),
            ("owner", "user"),
            ("admin", "admin"),
        ] {
            credentials.insert(name, format!("cookie: {}\r\n", service.log_in(name, &["--role", role])));
        }
        let mut world = Self { service, credentials, things: BTreeMap::new() };
        let token = world.token("reads");
        world.credentials.insert("reader", format!("authorization: Bearer {}\r\n", token["token"].as_str().unwrap()));
        service.ok(&["user", "add", "spare"]);
        for (name, value) in [
            ("user", "spare"),
            ("member", "spare"),
            ("group", "staff"),
            ("image", "good"),
            ("desktop", "box"),
            ("snapshot", "point"),
            ("trashed", "binned"),
        ] {
            world.things.insert(name, value.to_owned());
        }
        world.mend();
        world
    }

    /// A token of the owner's that can read.
    fn token(&self, name: &str) -> Value {
        let body = serde_json::json!({"name": name, "scopes": ["read"]}).to_string();
        let (status, answer) = self.send("POST", "/v1/tokens", &self.credentials["owner"], &body);
        assert_eq!(status, 201, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Makes anew what an actor who was let in has removed.
    fn mend(&mut self) {
        let service = self.service;
        let there = |arguments: &[&str]| service.yunju(arguments).code == 0;
        if !there(&["user", "show", "spare"]) {
            service.ok(&["user", "add", "spare"]);
        }
        let groups = service.json(&["group", "ls"]);
        if !groups.as_array().unwrap().iter().any(|group| group["name"] == "staff") {
            service.ok(&["group", "add", "staff"]);
        }
        if !there(&["show", "box"]) {
            service.ok(&["create", "box", "--owner", "owner", "--image", "good"]);
            service.ok(&["start", "box"]);
        }
        if !service.ok(&["ls", "--deleted", "-o", "name"]).lines().any(|name| name == "binned") {
            if !there(&["show", "binned"]) {
                service.ok(&["create", "binned", "--owner", "owner", "--image", "good"]);
            }
            service.ok(&["rm", "binned", "--yes"]);
        }
        let points = service.json(&["snapshot", "ls", "box"]);
        if !points.as_array().unwrap().iter().any(|point| point["name"] == "point") {
            service.ok(&["start", "box"]);
            service.ok(&["snapshot", "create", "box", "--name", "point"]);
        }
        let ask = |path: &str| -> Value {
            serde_json::from_str(&self.send("GET", path, &self.credentials["owner"], "").1).unwrap()
        };
        let id = |list: &Value, is: &dyn Fn(&Value) -> bool| {
            list.as_array().unwrap().iter().find(|one| is(one)).map(|one| one["id"].as_str().unwrap().to_owned())
        };
        let operation = id(&ask("/v1/operations"), &|_| true).unwrap();
        let token = id(&ask("/v1/tokens"), &|one| one["name"] == "spare")
            .unwrap_or_else(|| self.token("spare")["about"]["id"].as_str().unwrap().to_owned());
        let session = id(&ask("/v1/sessions"), &|one| one["current"] == false).unwrap_or_else(|| {
            let body = serde_json::json!({"name": "owner", "password": "owner has chosen"}).to_string();
            assert_eq!(self.send("POST", "/v1/session", "", &body).0, 200);
            id(&ask("/v1/sessions"), &|one| one["current"] == false).unwrap()
        });
        let shares = || ask("/v1/desktops/box/shares");
        let share = id(&shares(), &|one| one["user"] == "spare").unwrap_or_else(|| {
            let body = serde_json::json!({"kind": "view", "user": "spare"}).to_string();
            assert_eq!(self.send("POST", "/v1/desktops/box/shares", &self.credentials["owner"], &body).0, 201);
            id(&shares(), &|one| one["user"] == "spare").unwrap()
        });
        self.things.extend([("operation", operation), ("token", token), ("session", session), ("share", share)]);
    }

    /// An address with its variable parts filled in.
    fn fill(&self, path: &str) -> String {
        let part = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => {
                self.things.get(name).unwrap_or_else(|| panic!("what stands for {{{name}}} in {path}?")).clone()
            }
            None => part.to_owned(),
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }

    /// Asks with a body that says nothing; who asks too much waits.
    fn ask(&self, method: &str, path: &str, actor: &str) -> (u16, String) {
        loop {
            let body = if method == "GET" { "" } else { "{}" };
            match self.send(method, path, &self.credentials[actor], body) {
                (429, _) => sleep(Duration::from_millis(200)),
                answer => return answer,
            }
        }
    }

    fn send(&self, method: &str, path: &str, credentials: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.service.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let origin = self.service.own_origin();
        let host = &self.service.address;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\nconnection: close\r\n{credentials}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let n = stream.read(&mut piece).unwrap();
            answer.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&answer);
            // events never end
            if n == 0 || text.contains("\r\n\r\n") && text.to_lowercase().contains("content-type: text/event-stream") {
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
            }
        }
    }
}
