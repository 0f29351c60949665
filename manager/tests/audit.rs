//! What the audit log has, and how it is read.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use common::{House, house};
use serde_json::{Value, json};
use yunju_manager::model::Role;

async fn entries(house: &House, auditor: &str, query: &str) -> Vec<Value> {
    let answer = house.ask("GET", &format!("/v1/audit{query}"), auditor, json!(null)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json().as_array().unwrap().clone()
}

#[tokio::test]
async fn every_change_is_recorded_with_who_what_and_how_it_went_and_looking_is_not() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, auditor) = house.user("auditor", Role::Auditor, true);
    house.desktop("d", &alice).await;
    house.ask("GET", "/v1/desktops", &alice, json!(null)).await;
    let refused = house.ask("DELETE", "/v1/users/auditor", &alice, json!(null)).await;
    house.ask("PATCH", "/v1/users/alice", &admin, json!({"role": "developer"})).await;
    house.ask("POST", "/v1/desktops/d/stop", "", json!({})).await;
    let log = entries(&house, &auditor, "").await;
    let shown: Vec<_> = log
        .iter()
        .map(|e| json!([e["actor"], e["via"], e["address"], e["action"], e["resource"], e["status"], e["detail"]]))
        .collect();
    let changed = "{\"role\":\"developer\"}";
    assert_eq!(
        json!(shown),
        json!([
            ["admin", "session", "127.0.0.1", "user.change", "user alice", 200, changed],
            ["alice", "session", "127.0.0.1", "user.remove", "", 403, ""],
            ["alice", "session", "127.0.0.1", "desktop.add", "desktop d", 201, "of user alice"],
        ])
    );
    let id = refused.headers["x-request-id"].to_str().unwrap();
    assert_eq!((log[1]["request"].as_str(), refused.json()["request_id"].as_str()), (Some(id), Some(id)));
}

#[tokio::test]
async fn logins_are_recorded_whether_they_succeed_or_not_but_names_of_nobody_are_not() {
    let house = house().await;
    let (_, auditor) = house.user("auditor", Role::Auditor, true);
    house.user("alice", Role::User, true);
    for (name, password) in [("alice", "correct horse"), ("alice", "guess"), ("my-secret-password", "alice")] {
        house.ask("POST", "/v1/session", "", json!({"name": name, "password": password})).await;
    }
    let log = entries(&house, &auditor, "?action=login").await;
    let shown: Vec<_> = log.iter().map(|e| json!([e["actor"], e["resource"], e["status"]])).collect();
    let expected = json!([["", "user unknown", 403], ["alice", "user alice", 403], ["alice", "user alice", 200]]);
    assert_eq!(json!(shown), expected);
    let all = house.ask("GET", "/v1/audit/export", &auditor, json!(null)).await;
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    assert!(!text.contains("secret") && !text.contains("guess") && !text.contains("horse"), "{text}");
    assert_eq!(entries(&house, &auditor, "?refused=true").await.len(), 2);
    assert_eq!(entries(&house, &auditor, "?actor=alice&refused=false").await.len(), 1);
    assert_eq!(entries(&house, &auditor, "?resource=alice").await.len(), 2);
    assert_eq!(entries(&house, &auditor, "?since=2100-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(entries(&house, &auditor, "?until=2100-01-01T00:00:00Z").await.len(), 3);
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_exported_whole() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    for n in 0..7 {
        house.ask("POST", "/v1/groups", &admin, json!({"name": format!("g{n}")})).await;
    }
    let (mut path, mut seen) = ("/v1/audit?action=group&limit=3".to_owned(), Vec::new());
    loop {
        let answer = house.ask("GET", &path, &admin, json!(null)).await;
        seen.extend(answer.json().as_array().unwrap().iter().map(|e| e["resource"].as_str().unwrap().to_owned()));
        match answer.headers.get("link") {
            Some(link) => path = link.to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["group g6", "group g5", "group g4", "group g3", "group g2", "group g1", "group g0"]);
    let csv = house.ask("GET", "/v1/audit/export?format=csv", &admin, json!(null)).await;
    let text = String::from_utf8(csv.body.to_vec()).unwrap();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("id,at,actor,via") && lines[1].contains("group g0"), "{text}");
    assert_eq!(lines.len(), 9, "a head, seven entries and the end");
    let lines = house.ask("GET", "/v1/audit/export?action=group", &admin, json!(null)).await;
    let lines = String::from_utf8(lines.body.to_vec()).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["actor"] == "admin"));
    assert_eq!(house.ask("GET", "/v1/audit?limit=0", &admin, json!(null)).await.status, 400);
}

#[tokio::test]
async fn problems_name_their_request_and_a_code_that_stays() {
    let house = house().await;
    let answer = house.ask("GET", "/v1/desktops", "", json!(null)).await;
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:yunju:problem:login_needed");
    assert_eq!(
        (&problem["title"], &problem["status"], &problem["code"]),
        (&json!("Unauthorized"), &json!(401), &json!("login_needed"))
    );
    assert_eq!(problem["request_id"].as_str().unwrap(), answer.headers["x-request-id"]);
    let wrong = house.ask("PUT", "/v1/desktops", "", json!(null)).await;
    assert_eq!(
        (wrong.status, wrong.json()["status"].clone(), wrong.json()["code"].clone()),
        (405, json!(405), json!("method_not_allowed"))
    );
    let page = house.send("GET", "/assets/none", &[("accept-encoding", "gzip")], String::new()).await;
    assert_eq!(page.json()["code"], "not_found", "readable, not compressed by half");
}
