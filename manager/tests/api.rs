//! The API from outside: who may do what, and how it refuses.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use common::{house, image};
use serde_json::{Value, json};
use yunju_manager::api::routes;
use yunju_manager::auth::authorize::Action;
use yunju_manager::model::Role;

/// Every endpoint × every kind of caller. A desktop that one may have but cannot start (no program is
/// there) answers 500, one that does not run 409: both say that the caller was let through.
#[tokio::test]
async fn every_endpoint_lets_exactly_those_through_who_may() {
    #[rustfmt::skip]
    let matrix: &[(&str, &str, Value, [u16; 6])] = &[
        //                                                        nobody new other auditor owner admin
        ("GET",    "/v1/health",                    json!(null), [200, 200, 200, 200, 200, 200]),
        ("GET",    "/v1/openapi.json",              json!(null), [200, 200, 200, 200, 200, 200]),
        ("GET",    "/health/live",                  json!(null), [200, 200, 200, 200, 200, 200]),
        ("GET",    "/health/ready",                 json!(null), [200, 200, 200, 200, 200, 200]),
        ("GET",    "/metrics",                      json!(null), [401, 403, 403, 200, 403, 200]),
        ("POST",   "/v1/session",                   json!({}),   [422, 422, 422, 422, 422, 422]),
        ("GET",    "/v1/session",                   json!(null), [401, 200, 200, 200, 200, 200]),
        ("POST",   "/v1/session/password",          json!({"current": "wrong one", "new": "something"}), [401, 403, 403, 403, 403, 403]),
        ("POST",   "/v1/links",                     json!({}),   [422, 422, 422, 422, 422, 422]),
        ("POST",   "/v1/session/factor",            json!({"password": "wrong one"}), [401, 403, 403, 403, 403, 403]),
        ("POST",   "/v1/session/factor/confirm",    json!({"code": "000000"}), [401, 403, 409, 409, 409, 409]),
        ("POST",   "/v1/session/factor/remove",     json!({"password": "wrong one"}), [401, 403, 403, 403, 403, 403]),
        ("GET",    "/v1/sessions",                  json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/sessions?user=owner",       json!(null), [401, 403, 404, 200, 200, 200]),
        ("DELETE", "/v1/sessions/none",             json!(null), [401, 403, 404, 404, 404, 404]),
        ("GET",    "/v1/tokens",                    json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/tokens?user=owner",         json!(null), [401, 403, 404, 200, 200, 200]),
        ("POST",   "/v1/tokens",                    json!({"name": "t", "scopes": ["read"]}), [401, 403, 201, 201, 201, 201]),
        ("POST",   "/v1/tokens",                    json!({"name": "u", "scopes": ["read"], "user": "other"}), [401, 403, 201, 403, 403, 403]),
        ("DELETE", "/v1/tokens/none",               json!(null), [401, 403, 404, 404, 404, 404]),
        ("GET",    "/v1/token",                     json!(null), [401, 403, 400, 400, 400, 400]),
        ("DELETE", "/v1/token",                     json!(null), [401, 403, 400, 400, 400, 400]),
        ("POST",   "/v1/users/owner/link",          json!(null), [401, 403, 403, 403, 403, 201]),
        ("DELETE", "/v1/users/owner/factor",        json!(null), [401, 403, 403, 403, 403, 204]),
        ("POST",   "/v1/invitations",               json!({"name": "y"}), [401, 403, 403, 403, 403, 201]),
        ("GET",    "/v1/users",                     json!(null), [401, 403, 403, 200, 403, 200]),
        ("POST",   "/v1/users",                     json!({"name": "x", "role": "user"}), [401, 403, 403, 403, 403, 201]),
        ("POST",   "/v1/users/x/password",          json!(null), [401, 403, 403, 403, 403, 200]),
        ("DELETE", "/v1/users/x",                   json!(null), [401, 403, 403, 403, 403, 204]),
        ("GET",    "/v1/users/owner",               json!(null), [401, 403, 403, 200, 403, 200]),
        ("GET",    "/v1/users/none",                json!(null), [401, 403, 403, 404, 403, 404]),
        ("PATCH",  "/v1/users/owner",               json!({"role": "user"}), [401, 403, 403, 403, 403, 200]),
        ("GET",    "/v1/groups",                    json!(null), [401, 403, 403, 200, 403, 200]),
        ("POST",   "/v1/groups",                    json!({"name": "g"}), [401, 403, 403, 403, 403, 201]),
        ("PUT",    "/v1/groups/g/members/new",      json!(null), [401, 403, 403, 403, 403, 200]),
        ("DELETE", "/v1/groups/g/members/new",      json!(null), [401, 403, 403, 403, 403, 200]),
        ("PATCH",  "/v1/groups/g",                  json!({}),   [401, 403, 403, 403, 403, 200]),
        ("GET",    "/v1/usage",                     json!(null), [401, 403, 200, 200, 200, 200]),
        ("DELETE", "/v1/groups/g",                  json!(null), [401, 403, 403, 403, 403, 204]),
        ("DELETE", "/v1/groups/g",                  json!(null), [401, 403, 403, 403, 403, 404]),
        ("GET",    "/v1/operations",                json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/operations/none",           json!(null), [401, 403, 404, 404, 404, 404]),
        ("POST",   "/v1/operations/none/cancel",    json!(null), [401, 403, 404, 404, 404, 404]),
        ("GET",    "/v1/events?cursor=999999",      json!(null), [401, 403, 410, 410, 410, 410]),
        ("GET",    "/v1/audit",                     json!(null), [401, 403, 403, 200, 403, 200]),
        ("GET",    "/v1/audit/export",              json!(null), [401, 403, 403, 200, 403, 200]),
        ("GET",    "/v1/images",                    json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/desktops",                  json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/desktops/d",                json!(null), [401, 403, 404, 200, 200, 200]),
        ("POST",   "/v1/desktops/d/start",          json!(null), [401, 403, 404, 403, 500, 500]),
        ("POST",   "/v1/desktops/d/stop",           json!({}),   [401, 403, 404, 403, 202, 202]),
        ("POST",   "/v1/desktops/d/restart",        json!({}),   [401, 403, 404, 403, 202, 202]),
        ("POST",   "/v1/desktops/d/suspend",        json!(null), [401, 403, 404, 403, 409, 409]),
        ("POST",   "/v1/desktops/d/resume",         json!(null), [401, 403, 404, 403, 409, 409]),
        ("POST",   "/v1/desktops/d/undo",           json!(null), [401, 403, 404, 403, 409, 409]),
        ("POST",   "/v1/desktops/d/snapshots",      json!({}),   [401, 403, 404, 403, 201, 201]),
        ("POST",   "/v1/desktops/d/snapshots",      json!({"name": "s"}), [401, 403, 404, 403, 201, 409]),
        ("GET",    "/v1/desktops/d/snapshots",      json!(null), [401, 403, 404, 200, 200, 200]),
        ("GET",    "/v1/snapshots",                 json!(null), [401, 403, 200, 200, 200, 200]),
        ("GET",    "/v1/desktops/d/snapshots/s/screen",  json!(null), [401, 403, 404, 403, 404, 404]),
        ("POST",   "/v1/desktops/d/snapshots/s/restore", json!(null), [401, 403, 404, 403, 202, 202]),
        ("POST",   "/v1/desktops/d/snapshots/none/restore", json!(null), [401, 403, 404, 403, 404, 404]),
        ("POST",   "/v1/desktops/d/fork",           json!({"names": ["g"]}), [401, 403, 404, 403, 201, 409]),
        ("POST",   "/v1/desktops/d/fork",           json!({"names": []}),    [401, 403, 404, 403, 400, 400]),
        ("DELETE", "/v1/desktops/d/snapshots/s",    json!(null), [401, 403, 404, 403, 204, 404]),
        ("POST",   "/v1/images/card/warm",          json!(null), [401, 403, 403, 403, 403, 400]),
        ("POST",   "/v1/images/none/warm",          json!(null), [401, 403, 403, 403, 403, 404]),
        ("GET",    "/v1/desktops/d/screenshot",     json!(null), [401, 403, 404, 403, 409, 409]),
        ("GET",    "/v1/desktops/d/thumbnail",      json!(null), [401, 403, 404, 403, 409, 409]),
        ("GET",    "/v1/desktops/d/logs",           json!(null), [401, 403, 404, 403, 200, 200]),
        ("GET",    "/v1/desktops/d/console",        json!(null), [401, 403, 404, 403, 400, 400]),
        ("GET",    "/desktops/d/ws",                json!(null), [401, 403, 404, 403, 400, 400]),
        ("GET",    "/desktops/d/ws/audio",          json!(null), [401, 403, 404, 403, 400, 400]),
        ("GET",    "/desktops/d/ws/io",             json!(null), [401, 403, 404, 403, 400, 400]),
        ("POST",   "/v1/desktops/d/open",           json!(null), [401, 403, 404, 403, 421, 421]),
        ("GET",    "/v1/desktops/d/viewers",        json!(null), [401, 403, 404, 403, 200, 200]),
        ("GET",    "/v1/desktops/d/shares",         json!(null), [401, 403, 404, 403, 200, 200]),
        ("POST",   "/v1/desktops/d/shares",         json!({"kind": "view"}), [401, 403, 404, 403, 201, 201]),
        ("GET",    "/v1/shares",                    json!(null), [401, 403, 200, 200, 200, 200]),
        ("DELETE", "/v1/shares/none",               json!(null), [401, 403, 404, 404, 404, 404]),
        ("POST",   "/v1/shares/open",               json!({"secret": "none"}), [403, 403, 403, 403, 403, 403]),
        ("POST",   "/v1/shares/copy",               json!({"secret": "none", "name": "n"}), [401, 403, 403, 403, 403, 403]),
        ("POST",   "/v1/opening",                   json!({"ticket": "none"}), [404, 404, 404, 404, 404, 404]),
        ("GET",    "/v1/opening",                   json!(null), [401, 403, 404, 404, 404, 404]),
        ("POST",   "/v1/desktops",                  json!({"name": "e", "image": "card", "owner": "owner"}), [401, 403, 403, 403, 201, 409]),
        ("POST",   "/v1/desktops",                  json!({"name": "f", "image": "card", "memory": "1G"}),   [401, 403, 403, 403, 403, 201]),
        ("PATCH",  "/v1/desktops/d",                json!({"name": "d"}), [401, 403, 404, 403, 428, 428]),
        ("DELETE", "/v1/desktops/e",                json!(null), [401, 403, 404, 403, 204, 404]),
        ("DELETE", "/v1/desktops/d",                json!(null), [401, 403, 404, 403, 204, 404]),
        ("GET",    "/v1/trash",                     json!(null), [401, 403, 200, 200, 200, 200]),
        ("POST",   "/v1/trash/d/recover",           json!({}),   [401, 403, 404, 403, 200, 404]),
        ("DELETE", "/v1/trash/e",                   json!(null), [401, 403, 404, 403, 204, 404]),
        ("DELETE", "/v1/session",                   json!(null), [401, 204, 204, 204, 204, 204]),
    ];
    let house = house().await;
    let callers = [
        String::new(),
        house.user("new", Role::Admin, false).1,
        house.user("other", Role::User, true).1,
        house.user("auditor", Role::Auditor, true).1,
        house.user("owner", Role::User, true).1,
        house.user("admin", Role::Admin, true).1,
    ];
    house.desktop("d", &callers[4]).await;
    for (method, path, body, expected) in matrix {
        for (caller, status) in callers.iter().zip(expected) {
            let answer = house.ask(method, path, caller, body.clone()).await;
            let role = callers.iter().position(|c| c == caller).unwrap();
            assert_eq!(answer.status, *status, "{method} {path} by caller {role}: {:?}", answer.body);
        }
    }
    let is_of = |path: &str, template: &str| {
        let path: Vec<_> = path.split('?').next().unwrap_or_default().split('/').collect();
        let template: Vec<_> = template.split('/').collect();
        path.len() == template.len() && path.iter().zip(template).all(|(part, t)| t.starts_with('{') || *part == t)
    };
    for route in routes::api() {
        let covered = matrix.iter().any(|(method, path, ..)| route.method == *method && is_of(path, route.path));
        assert!(covered, "{} {} is not in the matrix", route.method, route.path);
    }
}

/// A new route that forgets its rule does not compile; one whose rule is too weak is seen here.
#[tokio::test]
async fn without_a_login_every_route_but_those_to_log_in_is_closed() {
    let house = house().await;
    for route in routes::all() {
        let path = route.path.replace("{*path}", "none").replace(['{', '}'], "");
        let answer = house.ask(route.method.as_str(), &path, "", json!({})).await;
        let open = matches!(route.action, Action::Look | Action::Enter);
        assert_eq!(answer.status == 401, !open, "{} {path} answers {}", route.method, answer.status);
    }
}

#[tokio::test]
async fn a_group_gives_its_members_its_role_until_they_leave_it() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let (_, alice) = house.user("alice", Role::User, true);
    let ask = |method: &'static str, path: &'static str, caller: &str, body: Value| {
        let (house, caller) = (&house, caller.to_owned());
        async move { house.ask(method, path, &caller, body).await }
    };
    assert_eq!(ask("POST", "/v1/groups", &admin, json!({"name": "audit", "role": "auditor"})).await.status, 201);
    assert_eq!(ask("GET", "/v1/users", &alice, json!(null)).await.status, 403);
    let group = ask("PUT", "/v1/groups/audit/members/alice", &admin, json!(null)).await;
    assert_eq!(group.json()["members"], json!(["alice"]));
    assert_eq!(ask("GET", "/v1/users", &alice, json!(null)).await.status, 200);
    assert_eq!(ask("GET", "/v1/session", &alice, json!(null)).await.json()["groups"], json!(["audit"]));
    assert_eq!(ask("DELETE", "/v1/groups/audit/members/alice", &admin, json!(null)).await.status, 200);
    assert_eq!(ask("GET", "/v1/users", &alice, json!(null)).await.status, 403);
}

#[tokio::test]
async fn who_is_disabled_is_out_and_cannot_come_in_until_enabled() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let (_, alice) = house.user("alice", Role::User, true);
    let login = json!({"name": "alice", "password": "correct horse"});
    let disabled = |disabled: bool| house.ask("PATCH", "/v1/users/alice", &admin, json!({"disabled": disabled}));
    assert_eq!(disabled(true).await.json()["disabled"], json!(true));
    assert_eq!(house.ask("GET", "/v1/session", &alice, json!(null)).await.status, 401);
    assert_eq!(house.ask("POST", "/v1/session", "", login.clone()).await.status, 403);
    disabled(false).await;
    assert_eq!(house.ask("POST", "/v1/session", "", login).await.status, 200);
}

#[tokio::test]
async fn a_user_sees_their_own_desktops_and_an_admin_all() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, bob) = house.user("bob", Role::User, true);
    let (_, admin) = house.user("admin", Role::Admin, true);
    house.desktop("a", &alice).await;
    house.desktop("b", &bob).await;
    for (caller, names) in [(&alice, json!(["a"])), (&bob, json!(["b"])), (&admin, json!(["a", "b"]))] {
        let desktops = house.ask("GET", "/v1/desktops", caller, json!(null)).await.json();
        let seen: Vec<_> = desktops.as_array().unwrap().iter().map(|desktop| desktop["name"].clone()).collect();
        assert_eq!(json!(seen), names);
    }
}

#[tokio::test]
async fn what_does_not_come_from_our_own_pages_changes_nothing() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let own = house.origin();
    let body = json!({"name": "x", "role": "user"}).to_string();
    for origin in ["", "null", "http://evil.example", &format!("{own}.evil.example"), "http://127.0.0.1"] {
        let answer = house.send("POST", "/v1/users", &[("cookie", &admin), ("origin", origin)], body.clone()).await;
        assert_eq!(answer.status, 403, "{origin}");
        let login = json!({"name": "admin", "password": "correct horse"}).to_string();
        assert_eq!(house.send("POST", "/v1/session", &[("origin", origin)], login).await.status, 403, "{origin}");
        let upgrade =
            [("cookie", admin.as_str()), ("origin", origin), ("upgrade", "websocket"), ("connection", "upgrade")];
        for path in ["/desktops/d/ws", "/desktops/d/ws/audio", "/desktops/d/ws/io"] {
            assert_eq!(house.send("GET", path, &upgrade, String::new()).await.status, 403, "{path} from {origin}");
        }
    }
    assert_eq!(house.service.store.users_after("", "", 10).unwrap().len(), 1);
    // and a form, which needs no permission to be sent across origins, is no JSON
    let form = [("cookie", admin.as_str()), ("origin", own.as_str()), ("content-type", "text/plain")];
    assert_eq!(house.send("POST", "/v1/users", &form, body).await.status, 415);
}

#[tokio::test]
async fn a_one_time_password_opens_nothing_but_the_choice_of_another() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let made = house.ask("POST", "/v1/users", &admin, json!({"name": "bob"})).await.json();
    let password = made["password"].as_str().unwrap();
    let login = house.ask("POST", "/v1/session", "", json!({"name": "bob", "password": password})).await;
    assert_eq!((login.status, login.json()["must_change_password"].clone()), (200, json!(true)));
    let set = login.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let bob = login.cookie();
    assert_eq!(house.ask("GET", "/v1/desktops", &bob, json!(null)).await.json()["code"], "password_change_needed");
    let change = |new: &str| json!({"current": password, "new": new});
    for (new, says) in [("short", "8 to 256"), (password, "the one that you have"), (&"x".repeat(257), "8 to 256")] {
        let refused = house.ask("POST", "/v1/session/password", &bob, change(new)).await;
        assert!(refused.status == 400 && refused.detail().contains(says), "{}", refused.detail());
    }
    assert_eq!(house.ask("POST", "/v1/session/password", &bob, change("battery staple")).await.status, 204);
    assert_eq!(house.ask("GET", "/v1/desktops", &bob, json!(null)).await.status, 200);
    let again = house.ask("POST", "/v1/session", "", json!({"name": "bob", "password": password})).await;
    assert_eq!(again.status, 403, "the one-time password is spent");
}

#[tokio::test]
async fn who_keeps_guessing_has_to_wait_and_learns_no_names() {
    let house = house().await;
    house.user("alice", Role::User, true);
    let login = |name: &str, password: &str| {
        let body = json!({"name": name, "password": password});
        let house = &house;
        async move { house.ask("POST", "/v1/session", "", body).await }
    };
    let (wrong, unknown) = (login("alice", "guess").await, login("nobody", "guess").await);
    assert_eq!((wrong.status, wrong.detail()), (unknown.status, unknown.detail()));
    for _ in 0..4 {
        login("alice", "guess").await;
    }
    let held = login("alice", "correct horse").await;
    assert_eq!(held.status, 429);
    assert!(held.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(login("bob", "guess").await.status, 403, "others are not held");
}

#[tokio::test]
async fn logging_out_ends_the_session_here_and_in_the_browser() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let answer = house.ask("DELETE", "/v1/session", &alice, json!(null)).await;
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(house.ask("GET", "/v1/session", &alice, json!(null)).await.status, 401);
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    let ask = |method: &'static str, path: &'static str, body: Value| {
        let (house, admin) = (&house, &admin);
        async move { house.ask(method, path, admin, body).await }
    };
    for (body, status, says) in [
        (json!({"name": "A", "image": "card"}), 400, "cannot be the name of a desktop"),
        (json!({"name": "a", "image": "none"}), 404, "yunju image build none"),
        (json!({"name": "a", "image": "../card"}), 404, "no image"),
        (json!({"name": "a", "image": "card", "memory": "1M"}), 400, "64M to 64G"),
        (json!({"name": "a", "image": "card", "memory": "much"}), 422, "is no size"),
        (json!({"name": "a", "image": "card", "cpus": 99}), 400, "1 to 8"),
        (json!({"name": "a", "image": "card", "owner": "none"}), 404, "no user called `none`"),
        (json!({"name": "a", "image": "card", "colour": 1}), 422, "colour"),
        (json!({"name": "a"}), 422, "image"),
    ] {
        let answer = ask("POST", "/v1/desktops", body.clone()).await;
        assert!(
            answer.status == status && answer.detail().contains(says),
            "{body}: {} {}",
            answer.status,
            answer.detail()
        );
    }
    assert_eq!(std::fs::read_dir(house.folder.path().join("desktops")).unwrap().count(), 0, "nothing half made");
    for (method, path, status) in [
        ("GET", "/v1/none", 404),
        ("GET", "/assets/../login.html", 404),
        ("GET", "/assets/desktops.html", 404),
        ("GET", "/assets/novnc/../../package.json", 404),
        ("PUT", "/v1/desktops", 405),
        ("GET", "/v1/desktops/d/logs", 404),
    ] {
        assert_eq!(ask(method, path, json!(null)).await.status, status, "{method} {path}");
    }
    house.desktop("d", &admin).await;
    assert_eq!(ask("GET", "/v1/desktops/d/logs?source=shadow", json!(null)).await.status, 400);
    assert_eq!(ask("GET", "/v1/desktops/d/logs?offset=-1", json!(null)).await.status, 400);
    let big = json!({"name": "x".repeat(100_000)});
    assert_eq!(ask("POST", "/v1/users", big).await.status, 413);
}

#[tokio::test]
async fn an_image_that_changed_in_place_is_not_started() {
    let house = house().await;
    let (_, admin) = house.user("admin", Role::Admin, true);
    house.desktop("d", &admin).await;
    image(house.folder.path(), json!({"digest": "sha256:2"}));
    let answer = house.ask("POST", "/v1/desktops/d/start", &admin, json!(null)).await;
    assert!(answer.status == 409 && answer.detail().contains("was changed"), "{}", answer.detail());
    let shown = house.ask("GET", "/v1/desktops/d", &admin, json!(null)).await.json();
    assert_eq!((shown["state"].clone(), shown["ended"]["failed"].clone()), (json!("stopped"), json!(true)));
}

#[tokio::test]
async fn pages_are_for_who_is_logged_in_and_carry_a_strict_policy() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    let (_, new) = house.user("new", Role::User, false);
    for path in ["/", "/desktops/d"] {
        for nobody in ["", &new] {
            let answer = house.ask("GET", path, nobody, json!(null)).await;
            assert_eq!((answer.status, answer.headers["location"].to_str().unwrap()), (303, "/login"));
        }
        let page = house.ask("GET", path, &alice, json!(null)).await;
        assert_eq!(page.status, 200);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(!text.contains("onclick") && !text.contains("style=") && !text.contains("<script>"), "inline code");
    }
    let novnc = house.ask("GET", "/assets/novnc/core/rfb.js", "", json!(null)).await;
    assert_eq!(novnc.status, 200);
    assert_eq!(&novnc.body[..], std::fs::read("web/node_modules/@novnc/novnc/core/rfb.js").unwrap(), "unmodified");
    let tag = novnc.headers["etag"].to_str().unwrap();
    let again = house.send("GET", "/assets/novnc/core/rfb.js", &[("if-none-match", tag)], String::new()).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn a_desktop_seen_as_stopped_is_seen_with_the_reason() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    house.desktop("hers", &alice).await;
    let row = house.service.store.desktop_named("hers").unwrap().unwrap();
    // the machine ends between the reading of the row and the look at its state
    house.service.store.set_ended(row.id, "powered off by the guest", false).unwrap();
    assert_eq!(house.service.show(row).ended.unwrap().reason, "powered off by the guest");
}

#[tokio::test]
async fn snapshots_are_limited_and_say_so() {
    let house = house().await;
    let (_, alice) = house.user("alice", Role::User, true);
    house.desktop("d", &alice).await;
    for _ in 0..16 {
        assert_eq!(house.ask("POST", "/v1/desktops/d/snapshots", &alice, json!({})).await.status, 201);
    }
    let refused = house.ask("POST", "/v1/desktops/d/snapshots", &alice, json!({})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("limit")));
    assert!(refused.detail().contains("16") && refused.detail().contains("remove"), "{}", refused.detail());
    let long = json!({"name": "x".repeat(61)});
    assert_eq!(house.ask("POST", "/v1/desktops/d/snapshots", &alice, long).await.status, 400);
}
