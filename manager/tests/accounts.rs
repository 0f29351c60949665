//! How people and programs show who they are, and how that ends.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use common::{Answer, House, house};
use serde_json::{Value, json};
use yunju_manager::auth::totp;
use yunju_manager::model::Role;

async fn log_in(house: &House, name: &str, code: Option<&str>) -> Answer {
    let mut body = json!({"name": name, "password": "correct horse"});
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    house.ask("POST", "/v1/session", "", body).await
}

async fn token(house: &House, cookie: &str, name: &str, scopes: Value) -> (String, String) {
    let made = house.ask("POST", "/v1/tokens", cookie, json!({"name": name, "scopes": scopes})).await;
    assert_eq!(made.status, 201, "{:?}", made.body);
    let made = made.json();
    (made["token"].as_str().unwrap().to_owned(), made["about"]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn sessions_are_listed_with_where_they_come_from_and_end_one_by_one() {
    let house = house().await;
    house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    let (_, admin) = house.user("admin", Role::Admin, true);
    let origin = house.origin();
    let body = json!({"name": "alice", "password": "correct horse"}).to_string();
    let phone = [("origin", origin.as_str()), ("user-agent", "a phone")];
    let first = house.send("POST", "/v1/session", &phone, body).await.cookie();
    let second = log_in(&house, "alice", None).await.cookie();
    let list = house.ask("GET", "/v1/sessions", &second, json!(null)).await.json();
    let from_phone = list.as_array().unwrap().iter().find(|session| session["agent"] == "a phone").unwrap();
    assert_eq!((&from_phone["address"], &from_phone["current"]), (&json!("127.0.0.1"), &json!(false)));
    assert_eq!(list.as_array().unwrap().iter().filter(|session| session["current"] == true).count(), 1);
    let path = format!("/v1/sessions/{}", from_phone["id"].as_str().unwrap());
    assert_eq!(house.ask("DELETE", &path, &bob, json!(null)).await.status, 404, "not even that it exists");
    assert_eq!(house.ask("GET", "/v1/session", &first, json!(null)).await.status, 200);
    assert_eq!(house.ask("DELETE", &path, &second, json!(null)).await.status, 204);
    assert_eq!(house.ask("GET", "/v1/session", &first, json!(null)).await.status, 401);
    // and an admin sees and ends those of others
    let list = house.ask("GET", "/v1/sessions?user=alice", &admin, json!(null)).await.json();
    for session in list.as_array().unwrap() {
        let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
        assert_eq!(house.ask("DELETE", &path, &admin, json!(null)).await.status, 204);
    }
    assert_eq!(house.ask("GET", "/v1/session", &second, json!(null)).await.status, 401);
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_from_anywhere_until_it_is_ended() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (reader, id) = token(&house, &alice, "reader", json!(["read"])).await;
    assert!(reader.starts_with("yj_"), "{reader}");
    let (maker, _) = token(&house, &alice, "maker", json!(["desktops"])).await;
    let new = json!({"name": "d", "image": "card"});
    assert_eq!(house.ask_as_program("POST", "/v1/desktops", &reader, new.clone()).await.status, 403);
    assert_eq!(house.ask_as_program("POST", "/v1/desktops", &maker, new).await.status, 201);
    assert_eq!(house.ask_as_program("GET", "/v1/desktops/d", &reader, json!(null)).await.status, 200);
    assert_eq!(house.ask_as_program("GET", "/v1/desktops/d", &maker, json!(null)).await.status, 403);
    // nothing about the account, so that a stolen one does not make itself last
    let body = json!({"name": "more", "scopes": ["admin"]});
    assert_eq!(house.ask_as_program("POST", "/v1/tokens", &reader, body).await.status, 403);
    assert_eq!(house.ask_as_program("GET", "/v1/session", &reader, json!(null)).await.status, 403);
    // a wrong token is not helped by a right cookie
    let both = [("authorization", "Bearer yj_wrong"), ("cookie", alice.as_str())];
    assert_eq!(house.send("GET", "/v1/desktops", &both, String::new()).await.status, 401);
    let list = house.ask("GET", "/v1/tokens", &alice, json!(null)).await;
    assert!(!String::from_utf8_lossy(&list.body).contains(&reader));
    assert!(list.json()[1]["last_used"].is_string(), "{}", list.json());
    assert_eq!(house.ask("DELETE", &format!("/v1/tokens/{id}"), &alice, json!(null)).await.status, 204);
    assert_eq!(house.ask_as_program("GET", "/v1/desktops", &reader, json!(null)).await.status, 401);
    for (body, says) in [
        (json!({"name": "x", "scopes": []}), "what the token is for"),
        (json!({"name": "x", "scopes": ["read"], "days": 367}), "1 to 366 days"),
        (json!({"name": "maker", "scopes": ["read"]}), "already a token called `maker`"),
    ] {
        let refused = house.ask("POST", "/v1/tokens", &alice, body).await;
        assert!(refused.detail().contains(says), "{}", refused.detail());
    }
}

#[tokio::test]
async fn a_token_is_no_more_than_its_owner_and_ends_with_a_reset() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let (_, boss) = house.user("boss", Role::Admin, true);
    let (ruler, _) = token(&house, &boss, "ruler", json!(["admin"])).await;
    assert_eq!(house.ask_as_program("GET", "/v1/users", &ruler, json!(null)).await.status, 200);
    house.ask("PATCH", "/v1/users/boss", &admin, json!({"role": "user"})).await;
    assert_eq!(house.ask_as_program("GET", "/v1/users", &ruler, json!(null)).await.status, 403);
    house.ask("POST", "/v1/users/boss/password", &admin, json!(null)).await;
    assert_eq!(house.ask_as_program("GET", "/v1/users", &ruler, json!(null)).await.status, 401);
}

#[tokio::test]
async fn an_invitation_lets_somebody_choose_a_password_once() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let made = house.ask("POST", "/v1/invitations", &admin, json!({"name": "alice"})).await.json();
    let url = made["url"].as_str().unwrap();
    assert_eq!(url, format!("http://here/login#link={}", made["token"].as_str().unwrap()), "servers do not see it");
    assert_eq!(log_in(&house, "alice", None).await.status, 403);
    let choose = |token: &Value, password: &str| {
        let body = json!({"token": token, "password": password});
        let house = &house;
        async move { house.ask("POST", "/v1/links", "", body).await.status }
    };
    assert_eq!(choose(&made["token"], "short").await, 400);
    assert_eq!(choose(&json!("0000"), "correct horse").await, 404);
    assert_eq!(choose(&made["token"], "correct horse").await, 204);
    assert_eq!(choose(&made["token"], "battery staple").await, 404, "it is used up");
    let alice = log_in(&house, "alice", None).await;
    assert_eq!((alice.status, alice.json()["must_change_password"].clone()), (200, json!(false)));
    // a second link takes the place of the first, and what was open before it is used ends
    let first = house.ask("POST", "/v1/users/alice/link", &admin, json!(null)).await.json();
    let second = house.ask("POST", "/v1/users/alice/link", &admin, json!(null)).await.json();
    assert_eq!(choose(&first["token"], "battery staple").await, 404);
    assert_eq!(choose(&second["token"], "battery staple").await, 204);
    assert_eq!(house.ask("GET", "/v1/session", &alice.cookie(), json!(null)).await.status, 401);
}

#[tokio::test]
async fn with_a_second_factor_a_password_alone_opens_nothing_and_no_code_works_twice() {
    let house = house().await;
    let (user, alice) = house.user("alice", Role::User, true);
    let (_, admin) = house.user("admin", Role::Admin, true);
    let proof = json!({"password": "correct horse"});
    let begun = house.ask("POST", "/v1/session/factor", &alice, proof.clone()).await.json();
    assert!(begun["uri"].as_str().unwrap().starts_with("otpauth://totp/Yunju:alice?secret="), "{begun}");
    let confirm = |code: String| house.ask("POST", "/v1/session/factor/confirm", &alice, json!({"code": code}));
    assert_eq!(confirm("abc".to_owned()).await.status, 403);
    assert_eq!(log_in(&house, "alice", None).await.status, 200, "not asked for before it is confirmed");
    let key = house.service.store.unconfirmed_factor(user.id).unwrap().unwrap();
    let code = totp::code_now(&key);
    let codes = confirm(code.clone()).await.json()["codes"].clone();
    assert_eq!(codes.as_array().unwrap().len(), 10);
    let asked = log_in(&house, "alice", None).await;
    assert_eq!((asked.status, asked.json()["code"].as_str()), (403, Some("second_factor_needed")));
    assert_eq!(log_in(&house, "alice", Some(&code)).await.status, 403, "used to confirm");
    let recovery = codes[0].as_str().unwrap();
    assert_eq!(log_in(&house, "alice", Some(recovery)).await.status, 200);
    assert_eq!(log_in(&house, "alice", Some(recovery)).await.status, 403, "used up");
    assert_eq!(house.ask("POST", "/v1/session/factor", &alice, proof).await.status, 409, "there is one");
    assert_eq!(house.ask("DELETE", "/v1/users/alice/factor", &admin, json!(null)).await.status, 204);
    assert_eq!(log_in(&house, "alice", None).await.status, 200);
}

#[tokio::test]
async fn guessing_codes_is_held_as_guessing_passwords_is() {
    let house = house().await;
    let (user, _) = house.user("alice", Role::User, true);
    house.service.store.set_unconfirmed_factor(user.id, &totp::key()).unwrap();
    house.service.store.confirm_factor(user.id, 0, &[]).unwrap();
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(log_in(&house, "alice", Some("x")).await.status);
    }
    assert_eq!(answers, [403, 403, 403, 403, 403, 429, 429]);
}

#[tokio::test]
async fn who_asks_without_end_is_slowed_down_and_told_for_how_long() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    let user = house.service.store.user_named("alice").unwrap().unwrap().id;
    while house.service.rate.take(yunju_manager::auth::rate::Who::User(user)).is_ok() {}
    // a few may come through while this is asked
    for _ in 0..1000 {
        let answer = house.ask("GET", "/v1/session", &alice, json!(null)).await;
        if answer.status == 429 {
            assert_eq!(answer.json()["code"], "too_many_requests");
            assert_eq!(answer.headers["retry-after"], "1");
            assert_eq!(house.ask("GET", "/v1/session", &bob, json!(null)).await.status, 200);
            return;
        }
        while house.service.rate.take(yunju_manager::auth::rate::Who::User(user)).is_ok() {}
    }
    panic!("never slowed down");
}

#[tokio::test]
async fn a_quota_holds_however_many_ask_at_once_and_lets_its_user_choose_sizes() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let (_, alice) = house.user("alice", Role::User, true);
    let quota = json!({"quota": {"desktops": 5, "memory": 1024 << 20, "cpus": 6}});
    assert_eq!(house.ask("PATCH", "/v1/users/alice", &admin, quota).await.json()["quota"]["desktops"], 5);
    let makers = (0..30).map(|n| {
        let body = json!({"name": format!("d{n}"), "image": "card"});
        let (house, alice) = (&house, &alice);
        async move { house.ask("POST", "/v1/desktops", alice, body).await }
    });
    let answers = futures_util::future::join_all(makers).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
    let refused = answers.iter().find(|answer| answer.status != 201).unwrap();
    assert_eq!((refused.status, refused.json()["code"].clone()), (403, json!("quota_exceeded")));
    assert!(
        refused.detail().contains("the quota is 5 of desktops") && refused.detail().contains('6'),
        "{}",
        refused.detail()
    );
    let account = house.ask("GET", "/v1/session", &alice, json!(null)).await.json();
    assert_eq!((&account["used"]["desktops"], &account["used"]["memory"]), (&json!(5), &json!((5 * 128) << 20)));
    let folders = std::fs::read_dir(house.folder.path().join("desktops")).unwrap().count();
    assert_eq!(folders, 5, "nothing is left of those that were refused");
    // a fork counts, and so does growing
    let (name, any) = (account["name"].clone(), [("if-match", "*"), ("cookie", alice.as_str())]);
    assert_eq!(name, "alice");
    let list = house.ask("GET", "/v1/desktops", &alice, json!(null)).await.json();
    let path = format!("/v1/desktops/{}", list[0]["name"].as_str().unwrap());
    let fork = house.ask("POST", &format!("{path}/fork"), &alice, json!({"names": ["more"]})).await;
    assert_eq!((fork.status, fork.json()["code"].clone()), (403, json!("quota_exceeded")));
    let origin = house.origin();
    let grow = |memory: u64| {
        let headers = [&any[..], &[("origin", origin.as_str())]].concat();
        let (house, path) = (&house, &path);
        async move { house.send("PATCH", path, &headers, json!({"memory": memory}).to_string()).await }
    };
    assert_eq!(grow(512 << 20).await.status, 200, "who has a quota chooses");
    let refused = grow(640 << 20).await;
    assert!(refused.status == 403 && refused.detail().contains("of memory"), "{}", refused.detail());
}
