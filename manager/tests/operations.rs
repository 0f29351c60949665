//! Requests that come twice, desktops that change under one's hands, operations and events.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use common::{Answer, House, house};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use yunju_manager::model::Role;

async fn send(house: &House, method: &str, path: &str, cookie: &str, more: &[(&str, &str)], body: Value) -> Answer {
    let origin = house.origin();
    let headers = [&[("cookie", cookie), ("origin", origin.as_str())], more].concat();
    house.send(method, path, &headers, body.to_string()).await
}

#[tokio::test]
async fn a_request_with_a_key_is_carried_out_once_and_answered_each_time() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    let new = |name: &str| json!({"name": name, "image": "card"});
    let key = [("idempotency-key", "k1")];
    let first = send(&house, "POST", "/v1/desktops", &alice, &key, new("d")).await;
    let again = send(&house, "POST", "/v1/desktops", &alice, &key, new("d")).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert!(first.headers.get("idempotent-replayed").is_none());
    let other = send(&house, "POST", "/v1/desktops", &alice, &key, new("e")).await;
    assert_eq!((other.status, other.json()["code"].clone()), (422, json!("other_request")));
    // keys of others are others, and what was refused is refused again
    assert_eq!(send(&house, "POST", "/v1/desktops", &bob, &key, new("d")).await.status, 409);
    assert_eq!(send(&house, "POST", "/v1/desktops", &bob, &key, new("d")).await.headers["idempotent-replayed"], "true");
    // what failed on our side is tried again
    let key = [("idempotency-key", "k2")];
    for _ in 0..2 {
        let failed = send(&house, "POST", "/v1/desktops/d/start", &alice, &key, json!(null)).await;
        assert!(failed.status == 500 && failed.headers.get("idempotent-replayed").is_none());
    }
    // and secrets are not kept
    let token = json!({"name": "t", "scopes": ["read"]});
    assert_eq!(send(&house, "POST", "/v1/tokens", &alice, &key, token).await.status, 400);
    assert_eq!(house.ask("GET", "/v1/tokens", &alice, json!(null)).await.json(), json!([]));
}

#[tokio::test]
async fn a_desktop_is_changed_only_by_who_saw_it_as_it_is() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, admin) = house.user("admin", Role::Admin, true);
    house.desktop("d", &alice).await;
    let seen = house.ask("GET", "/v1/desktops/d", &alice, json!(null)).await;
    let tag = seen.headers["etag"].to_str().unwrap().to_owned();
    let unchanged = send(&house, "GET", "/v1/desktops/d", &alice, &[("if-none-match", &tag)], json!(null)).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let rename = |name: &str| json!({"name": name});
    assert_eq!(house.ask("PATCH", "/v1/desktops/d", &alice, rename("e")).await.status, 428);
    let changed = send(&house, "PATCH", "/v1/desktops/d", &alice, &[("if-match", &tag)], rename("e")).await;
    assert_eq!((changed.status, changed.json()["name"].clone()), (200, json!("e")));
    let stale = send(&house, "PATCH", "/v1/desktops/e", &alice, &[("if-match", &tag)], rename("f")).await;
    assert_eq!((stale.status, stale.json()["code"].clone()), (412, json!("stale")));
    assert_eq!(send(&house, "DELETE", "/v1/desktops/e", &alice, &[("if-match", &tag)], json!(null)).await.status, 412);
    let tag = changed.headers["etag"].to_str().unwrap().to_owned();
    let fresh = [("if-match", tag.as_str())];
    let size = json!({"memory": 256 << 20, "cpus": 2});
    assert_eq!(send(&house, "PATCH", "/v1/desktops/e", &alice, &fresh, size.clone()).await.status, 403);
    let sized = send(&house, "PATCH", "/v1/desktops/e", &admin, &fresh, size).await.json();
    assert_eq!((sized["memory"].as_u64(), sized["cpus"].as_u64()), (Some(256 << 20), Some(2)));
    house.desktop("taken", &alice).await;
    let any = [("if-match", "*")];
    assert_eq!(send(&house, "PATCH", "/v1/desktops/e", &alice, &any, rename("taken")).await.status, 409);
    assert_eq!(send(&house, "PATCH", "/v1/desktops/e", &alice, &any, rename("No Name")).await.status, 400);
    assert_eq!(send(&house, "DELETE", "/v1/desktops/e", &alice, &any, json!(null)).await.status, 204);
}

#[tokio::test]
async fn an_operation_is_followed_to_its_end_by_who_may_see_its_desktop() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    house.desktop("d", &alice).await;
    let begun =
        send(&house, "POST", "/v1/desktops/d/snapshots", &alice, &[("prefer", "respond-async")], json!({"name": "s"}))
            .await;
    assert_eq!(begun.status, 202);
    let path = begun.headers["location"].to_str().unwrap().to_owned();
    let ended = house.ask("GET", &format!("{path}?wait=30"), &alice, json!(null)).await.json();
    assert_eq!(
        (&ended["state"], &ended["kind"], &ended["actor"]),
        (&json!("succeeded"), &json!("snapshot"), &json!("alice"))
    );
    assert_eq!(ended["result"]["name"], "s");
    assert_eq!(house.ask("GET", &path, &bob, json!(null)).await.status, 404);
    assert_eq!(house.ask("GET", "/v1/operations", &bob, json!(null)).await.json(), json!([]));
    assert_eq!(house.ask("POST", &format!("{path}/cancel"), &alice, json!(null)).await.status, 409, "it has ended");
    // who waits is told as before, and the operation is there as well
    let refused = house.ask("POST", "/v1/desktops/d/suspend", &alice, json!(null)).await;
    assert_eq!(refused.status, 409);
    let list = house.ask("GET", "/v1/operations?limit=1", &alice, json!(null)).await;
    assert_eq!((&list.json()[0]["state"], &list.json()[0]["problem"]["code"]), (&json!("failed"), &json!("conflict")));
    assert!(list.headers["link"].to_str().unwrap().contains("limit=1&cursor="));
}

#[tokio::test]
async fn an_operation_waits_for_the_one_before_and_can_be_cancelled_until_it_begins() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    house.desktop("d", &alice).await;
    let id = house.service.store.desktop_named("d").unwrap().unwrap().id;
    let turn = house.service.turns.of(id).await;
    let no_wait = [("prefer", "respond-async")];
    let mut paths = Vec::new();
    for name in ["one", "two"] {
        let begun = send(&house, "POST", "/v1/desktops/d/snapshots", &alice, &no_wait, json!({"name": name})).await;
        assert_eq!((&begun.json()["state"], &begun.json()["cancellable"]), (&json!("queued"), &json!(true)));
        paths.push(begun.headers["location"].to_str().unwrap().to_owned());
    }
    let cancelled = house.ask("POST", &format!("{}/cancel", paths[0]), &alice, json!(null)).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    // and not without end
    for n in 0..15 {
        let body = json!({"name": format!("n{n}")});
        assert_eq!(send(&house, "POST", "/v1/desktops/d/snapshots", &alice, &no_wait, body).await.status, 202);
    }
    let refused = send(&house, "POST", "/v1/desktops/d/snapshots", &alice, &no_wait, json!({})).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (409, json!("limit")));
    for operation in house.ask("GET", "/v1/operations?limit=15", &alice, json!(null)).await.json().as_array().unwrap() {
        let path = format!("/v1/operations/{}/cancel", operation["id"].as_str().unwrap());
        assert_eq!(house.ask("POST", &path, &alice, json!(null)).await.status, 200);
    }
    drop(turn);
    let ended = house.ask("GET", &format!("{}?wait=30", paths[1]), &alice, json!(null)).await.json();
    assert_eq!(ended["state"], "succeeded");
    let snapshots = house.ask("GET", "/v1/desktops/d/snapshots", &alice, json!(null)).await.json();
    let names: Vec<_> = snapshots.as_array().unwrap().iter().map(|snapshot| snapshot["name"].clone()).collect();
    assert_eq!(json!(names), json!(["two"]));
}

#[tokio::test]
async fn desktops_come_page_by_page_and_the_description_of_the_api_can_be_read() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    for name in ["a", "b", "c"] {
        house.desktop(name, &alice).await;
    }
    let first = house.ask("GET", "/v1/desktops?limit=2", &alice, json!(null)).await;
    assert_eq!(first.headers["link"], "</v1/desktops?limit=2&cursor=b>; rel=\"next\"");
    let rest = house.ask("GET", "/v1/desktops?limit=2&cursor=b", &alice, json!(null)).await;
    assert_eq!((rest.json()[0]["name"].clone(), rest.headers.get("link")), (json!("c"), None));
    let page = house.ask("GET", "/docs/api", "", json!(null)).await;
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(text.contains("POST /v1/desktops/{desktop}/fork") && text.contains("href=\"#NewDesktop\""));
    assert!(!text.contains("<script") && !text.contains("style="), "the policy allows neither");
    assert_eq!(house.ask("GET", "/v1/openapi.json", "", json!(null)).await.json()["openapi"], "3.1.0");
}

/// Server-sent events as they come, until one has this word in it.
async fn events_until(house: &House, path: &str, cookie: &str, word: &str) -> String {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", house.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains(word) {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the stream ended: {text}");
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    text
}

#[tokio::test]
async fn events_are_those_that_one_may_see_and_nothing_is_missed_after_a_cursor() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    house.desktop("hers", &alice).await;
    house.desktop("his", &bob).await;
    house.desktop("hers-too", &alice).await;
    let text = events_until(&house, "/v1/events?cursor=0", &alice, "hers-too").await;
    assert!(text.contains("text/event-stream") && text.contains("event: desktop.add"), "{text}");
    assert!(text.contains("id: 1\n") && text.contains("id: 3\n") && !text.contains("his"), "{text}");
    let (_, rest) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            house.ask("DELETE", "/v1/desktops/hers", &alice, json!(null)).await
        },
        events_until(&house, "/v1/events?cursor=2", &alice, "desktop.remove"),
    );
    assert!(!rest.contains("id: 1\n") && rest.contains("id: 3\n"), "{rest}");
    for _ in 0..10_010 {
        house.service.store.add_event("x", uuid_of_nobody(), "{}").unwrap();
    }
    let gone = house.ask("GET", "/v1/events?cursor=2", &alice, json!(null)).await;
    assert_eq!((gone.status, gone.json()["code"].clone()), (410, json!("cursor_gone")));
}

fn uuid_of_nobody() -> uuid::Uuid {
    uuid::Uuid::nil()
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_session() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let request =
        format!("GET /v1/events HTTP/1.1\r\nhost: {}\r\ncookie: {alice}\r\nconnection: close\r\n\r\n", house.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head, b"HTTP/1.1 200");
    assert_eq!(house.ask("DELETE", "/v1/session", &alice, json!(null)).await.status, 204);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "{}", String::from_utf8_lossy(&rest));
}
