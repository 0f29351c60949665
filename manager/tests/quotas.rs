//! What there may be, however many ask for it at once.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::sync::Arc;

use common::house;
use serde_json::json;
use yunju_manager::model::{Quota, Role};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_who_ask_at_once_get_no_more_than_the_quota_of_a_user_or_their_group() {
    let house = Arc::new(house().await);
    let (alice, cookie) = house.user("alice", Role::User, true);
    let (bob, his) = house.user("bob", Role::User, true);
    let (_, admin) = house.user("admin", Role::Admin, true);
    let quota = Quota { desktops: Some(7), memory: Some(5 * (128 << 20)), ..Quota::default() };
    house.service.store.set_quota(alice.id, quota).unwrap();
    for (path, method, body) in [
        ("/v1/groups", "POST", json!({"name": "class"})),
        ("/v1/groups/class/members/alice", "PUT", json!(null)),
        ("/v1/groups/class/members/bob", "PUT", json!(null)),
        ("/v1/groups/class", "PATCH", json!({"quota": {"desktops": 12}})),
    ] {
        let done = house.ask(method, path, &admin, body).await;
        assert!(done.status < 300, "{path}: {}", String::from_utf8_lossy(&done.body));
    }
    let asked = (0..100).map(|n| {
        let (house, cookie) = (house.clone(), if n % 2 == 0 { cookie.clone() } else { his.clone() });
        tokio::spawn(async move {
            let body = json!({"name": format!("d{n}"), "image": "card"});
            let answer = house.ask("POST", "/v1/desktops", &cookie, body).await;
            if answer.status != 201 {
                assert_eq!((answer.status, answer.json()["code"].clone()), (403, json!("quota_exceeded")));
            }
            (n % 2, answer.status == 201)
        })
    });
    let mut made = [0, 0];
    for one in asked.collect::<Vec<_>>() {
        let (who, yes) = one.await.unwrap();
        made[who] += u32::from(yes);
    }
    // hers have no more memory than five, and both together are twelve
    assert!(made[0] <= 5 && made[0] + made[1] == 12, "{made:?}");
    let there = |user| house.service.store.desktops(Some(user)).unwrap().len() as u32;
    assert_eq!([there(alice.id), there(bob.id)], made);
    let folders = std::fs::read_dir(house.folder.path().join("desktops")).unwrap().count();
    assert_eq!(folders, 12, "of those that were refused nothing is left");
    let group = house.ask("GET", "/v1/groups", &admin, json!(null)).await.json()[0].clone();
    assert_eq!((group["quota"]["desktops"].clone(), group["used"]["desktops"].clone()), (json!(12), json!(12)));
    // what is deleted makes room, once
    let mine = house.service.store.desktops(Some(bob.id)).unwrap()[0].name.clone();
    assert_eq!(house.ask("DELETE", &format!("/v1/desktops/{mine}"), &his, json!(null)).await.status, 204);
    house.desktop("another", &his).await;
    let back = house.ask("POST", &format!("/v1/trash/{mine}/recover"), &his, json!({})).await;
    assert_eq!(back.status, 403, "{}", String::from_utf8_lossy(&back.body));
}

#[tokio::test]
async fn snapshots_and_what_disks_take_are_bounded_too() {
    let house = house().await;
    let (alice, cookie) = house.user("alice", Role::User, true);
    house.desktop("d", &cookie).await;
    let store = &house.service.store;
    store.set_quota(alice.id, Quota { snapshots: Some(1), ..Quota::default() }).unwrap();
    let snapshot = |name: &'static str| house.ask("POST", "/v1/desktops/d/snapshots", &cookie, json!({"name": name}));
    assert_eq!(snapshot("one").await.status, 201);
    let refused = snapshot("two").await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (403, json!("quota_exceeded")));
    store.set_quota(alice.id, Quota { disk: Some(1 << 20), ..Quota::default() }).unwrap();
    assert_eq!(snapshot("two").await.status, 201, "nothing takes much yet");
    store.set_disk_use(&[(alice.id, (1 << 20) + 1)].into()).unwrap();
    assert_eq!(snapshot("three").await.status, 403);
    let more = house.ask("POST", "/v1/desktops", &cookie, json!({"name": "e", "image": "card"})).await;
    assert_eq!(more.status, 403);
    assert!(more.detail().contains("disk"), "{}", more.detail());
    let used = house.ask("GET", "/v1/session", &cookie, json!(null)).await.json()["used"].clone();
    assert_eq!((used["disk"].clone(), used["snapshots"].clone()), (json!((1 << 20) + 1), json!(2)));
}
