use std::path::Path;

use super::*;
use crate::model::{Role, SnapshotKind};

fn with_alice() -> (Store, User) {
    let store = Store::in_memory().unwrap();
    let alice = store.add_user("alice", Role::Admin, "hash").unwrap();
    (store, alice)
}

fn log_in(store: &Store, user: &User, token_hash: &[u8], seconds: i64) {
    store.add_session(&NewSession { user: user.id, token_hash, seconds, ..NewSession::default() }).unwrap();
}

fn add(store: &Store, owner: &User, name: &str) -> uuid::Uuid {
    let id = uuid::Uuid::new_v4();
    let new = NewDesktop {
        id,
        name,
        owner: owner.id,
        image: "card",
        image_digest: "sha256:1",
        image_folder: Path::new("/images/card"),
        memory: 1 << 30,
        cpus: 2,
    };
    store.add_desktop(&new, &[]).map(|()| id).unwrap()
}

#[test]
fn what_is_written_is_there_after_the_database_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = Store::open(&path).unwrap();
    let alice = store.add_user("alice", Role::User, "hash").unwrap();
    let id = add(&store, &alice, "dev");
    drop(store);
    let store = Store::open(&path).unwrap();
    let desktop = store.desktop(id).unwrap().unwrap();
    assert_eq!(
        (desktop.name.as_str(), desktop.owner.as_str(), desktop.memory, desktop.cpus),
        ("dev", "alice", 1 << 30, 2)
    );
    assert_eq!(desktop.desired, Desired::Stopped);
    assert_eq!(store.users_after("", "", 10).unwrap().len(), 1);
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    drop(Store::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("version 99") && error.contains("newer"), "{error}");
}

#[test]
fn names_are_unique_and_the_refusal_says_which() {
    let (store, alice) = with_alice();
    assert_eq!(
        store.add_user("alice", Role::User, "h").unwrap_err().to_string(),
        "there is already a user called `alice`"
    );
    add(&store, &alice, "dev");
    let id = uuid::Uuid::new_v4();
    let again = NewDesktop {
        id,
        name: "dev",
        owner: alice.id,
        image: "",
        image_digest: "",
        image_folder: Path::new(""),
        memory: 0,
        cpus: 1,
    };
    assert!(matches!(store.add_desktop(&again, &[]), Err(Error::Exists { kind: "desktop", .. })));
}

#[test]
fn a_user_who_owns_desktops_stays_and_one_who_owns_none_goes_with_their_sessions() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    assert!(matches!(store.delete_user(&alice), Err(Error::OwnsDesktops(name)) if name == "alice"));
    store.delete_desktop(id).unwrap();
    log_in(&store, &alice, b"token", 60);
    store.delete_user(&alice).unwrap();
    assert!(store.session(b"token").unwrap().is_none());
}

#[test]
fn a_session_is_found_until_it_runs_out_or_is_ended() {
    let (store, alice) = with_alice();
    log_in(&store, &alice, b"one", 60);
    log_in(&store, &alice, b"over", 0);
    assert_eq!(store.session(b"one").unwrap().unwrap().user.name, "alice");
    assert!(store.session(b"over").unwrap().is_none());
    assert!(store.session(b"other").unwrap().is_none());
    store.delete_session(b"one").unwrap();
    assert!(store.session(b"one").unwrap().is_none());
}

#[test]
fn a_new_password_ends_all_sessions_but_the_one_to_keep() {
    let (store, alice) = with_alice();
    for token in [b"one", b"two"] {
        log_in(&store, &alice, token, 60);
    }
    store.set_password(alice.id, "new", false, Some(b"two")).unwrap();
    assert!(store.session(b"one").unwrap().is_none());
    let session = store.session(b"two").unwrap().unwrap();
    assert_eq!((session.user.password_hash.as_str(), session.user.must_change), ("new", false));
    store.set_password(alice.id, "newer", true, None).unwrap();
    assert!(store.session(b"two").unwrap().is_none());
}

#[test]
fn how_a_machine_ended_is_kept_until_it_is_wanted_again() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    store.set_desired(id, Desired::Running).unwrap();
    store.set_ended(id, "triple fault", true).unwrap();
    let desktop = store.desktop(id).unwrap().unwrap();
    assert_eq!(desktop.desired, Desired::Stopped);
    let ended = desktop.ended.unwrap();
    assert_eq!((ended.reason.as_str(), ended.failed), ("triple fault", true));
    store.set_desired(id, Desired::Running).unwrap();
    assert_eq!(store.desktop_named("dev").unwrap().unwrap().ended, None);
}

#[test]
fn desktops_are_listed_by_owner_and_name() {
    let (store, alice) = with_alice();
    let bob = store.add_user("bob", Role::User, "h").unwrap();
    for (owner, name) in [(&alice, "z"), (&bob, "m"), (&alice, "a")] {
        add(&store, owner, name);
    }
    let names = |owner| store.desktops(owner).unwrap().into_iter().map(|d| d.name).collect::<Vec<_>>();
    assert_eq!(names(None), ["a", "m", "z"]);
    assert_eq!(names(Some(alice.id)), ["a", "z"]);
}

/// What a program of the first version left.
fn version_1(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(include_str!("schema-1.sql")).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let id = uuid::Uuid::from_u128(7);
    connection
        .execute_batch(&format!(
            "INSERT INTO users VALUES ('{id}', 'alice', 'user', 'hash', 0, 1000);
             INSERT INTO sessions VALUES (x'01', '{id}', 1000, 99999999999);
             INSERT INTO desktops VALUES ('{id}', 'dev', '{id}', 'card', 'sha256:1', '/images/card', 1024, 2, 1000, 'running', NULL, NULL, NULL);
             INSERT INTO desktops VALUES ('{}', 'old', '{id}', 'card', 'sha256:1', '/images/card', 1024, 2, 1000, 'stopped', 2000, 'triple fault', 1);",
            uuid::Uuid::from_u128(8)
        ))
        .unwrap();
}

#[test]
fn a_database_of_the_first_version_opens_with_all_that_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    version_1(&path);
    let store = Store::open(&path).unwrap();
    let (dev, old) = (store.desktop_named("dev").unwrap().unwrap(), store.desktop_named("old").unwrap().unwrap());
    assert_eq!((dev.desired, dev.memory, dev.cpus, dev.resume, dev.base), (Desired::Running, 1024, 2, None, None));
    assert_eq!(old.ended.unwrap().reason, "triple fault");
    assert_eq!(store.session(b"\x01").unwrap().unwrap().user.name, "alice");
    assert!(store.tops(DisksOf::Desktop(dev.id)).unwrap().is_empty());
    store.set_desired(dev.id, Desired::Suspended).unwrap();
    let again = store.add_desktop(&of_alice(&dev, "dev"), &[]);
    assert!(matches!(again, Err(Error::Exists { .. })), "names are still unique");
    assert!(store.delete_user(&store.user_named("alice").unwrap().unwrap()).is_err(), "owners still stay");
    drop(store);
    assert_eq!(Store::open(&path).unwrap().desktops(None).unwrap().len(), 2, "once");
}

fn of_alice<'a>(like: &'a Desktop, name: &'a str) -> NewDesktop<'a> {
    NewDesktop {
        id: uuid::Uuid::new_v4(),
        name,
        owner: like.owner_id,
        image: &like.image,
        image_digest: &like.image_digest,
        image_folder: &like.image_folder,
        memory: like.memory,
        cpus: like.cpus,
    }
}

fn layer(below: Below) -> Layer {
    Layer { id: uuid::Uuid::new_v4(), below }
}

fn snapshot(of: &Desktop, kind: SnapshotKind, listed: bool, base: Option<uuid::Uuid>, disks: Tops) -> NewSnapshot {
    let snapshot = Snapshot {
        id: uuid::Uuid::new_v4(),
        desktop: listed.then_some(of.id),
        image: of.image.clone(),
        image_digest: of.image_digest.clone(),
        image_folder: of.image_folder.clone(),
        kind,
        name: String::new(),
        created: Timestamp::now(),
        base,
        memory: of.memory,
        cpus: of.cpus,
        has_memory: true,
        has_screen: false,
        bytes: 0,
    };
    NewSnapshot { snapshot, disks }
}

#[test]
fn layers_stay_while_a_desktop_a_snapshot_or_another_layer_needs_them() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    let desktop = store.desktop(id).unwrap().unwrap();
    let bottom = layer(Below::Image("/images/card/system.img".into()));
    let top = layer(Below::Layer(bottom.id));
    store.put_on_top(id, &[(1, bottom.clone())]).unwrap();
    let kept = snapshot(&desktop, SnapshotKind::Manual, true, None, vec![(1, bottom.id)]);
    store.add_snapshot(&kept).unwrap();
    assert_eq!(store.users_of_layer(bottom.id).unwrap(), 2);
    store.put_on_top(id, &[(1, top.clone())]).unwrap();
    assert_eq!(store.chain(top.id).unwrap(), [top.clone(), bottom.clone()]);
    assert!(store.sweep_layers().unwrap().is_empty());
    store.put_on_snapshot(id, kept.snapshot.id).unwrap();
    assert_eq!(store.sweep_layers().unwrap(), [top.id]);
    store.delete_desktop(id).unwrap();
    assert_eq!(store.sweep_snapshots().unwrap(), [kept.snapshot.id]);
    assert_eq!(store.sweep_layers().unwrap(), [bottom.id]);
}

#[test]
fn a_snapshot_stays_while_one_goes_on_from_it_or_is_a_difference_to_it() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    let desktop = store.desktop(id).unwrap().unwrap();
    let whole = snapshot(&desktop, SnapshotKind::Suspend, false, None, vec![]);
    let (first, second) =
        (whole.snapshot.id, |base| snapshot(&desktop, SnapshotKind::Suspend, false, Some(base), vec![]));
    store.suspended(id, &whole, Desired::Suspended).unwrap();
    assert!(store.sweep_snapshots().unwrap().is_empty(), "it goes on from it");
    store.runs(id, Some(first)).unwrap();
    assert!(store.sweep_snapshots().unwrap().is_empty(), "its memory is based on it");
    let difference = second(first);
    store.suspended(id, &difference, Desired::Suspended).unwrap();
    assert!(store.sweep_snapshots().unwrap().is_empty(), "the other one is a difference to it");
    let fork = of_alice(&desktop, "fork");
    store.fork(difference.snapshot.id, None, &[fork]).unwrap();
    store.forget_memory(id).unwrap();
    assert!(store.sweep_snapshots().unwrap().is_empty(), "a fork goes on from it");
    store.delete_desktop(store.desktop_named("fork").unwrap().unwrap().id).unwrap();
    let mut gone = store.sweep_snapshots().unwrap();
    gone.sort();
    let mut both = [first, difference.snapshot.id];
    both.sort();
    assert_eq!(gone, both);
}

#[test]
fn only_the_newest_points_stay_in_the_list() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    let desktop = store.desktop(id).unwrap().unwrap();
    let points: Vec<_> = (0..5).map(|_| snapshot(&desktop, SnapshotKind::Point, true, None, vec![])).collect();
    points.iter().for_each(|point| store.add_snapshot(point).unwrap());
    store.add_snapshot(&snapshot(&desktop, SnapshotKind::Manual, true, None, vec![])).unwrap();
    store.hide_old_points(id, 3).unwrap();
    assert_eq!(store.newest_point(id).unwrap().unwrap().id, points[4].snapshot.id);
    assert_eq!(store.sweep_snapshots().unwrap().len(), 2);
    assert_eq!(store.snapshots(id).unwrap().len(), 4);
}

#[test]
fn users_of_the_second_version_keep_their_sessions_and_desktops_and_may_get_new_roles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    for sql in &MIGRATIONS[..2] {
        connection.execute_batch(sql).unwrap();
    }
    connection.pragma_update(None, "user_version", 2).unwrap();
    let alice = uuid::Uuid::from_u128(1).to_string();
    connection.execute("INSERT INTO users VALUES (?1, 'alice', 'user', 'hash', 0, 7)", [&alice]).unwrap();
    connection.execute("INSERT INTO sessions VALUES (x'01', ?1, 7, 99999999999)", [&alice]).unwrap();
    connection.execute("INSERT INTO sessions VALUES (x'02', ?1, 7, 99999999999)", [&alice]).unwrap();
    let sql =
        "INSERT INTO desktops (id, name, owner_id, image, image_digest, image_folder, memory, cpus, created, desired)
               VALUES (?1, 'dev', ?1, 'card', 'd', '/i', 1, 1, 7, 'stopped')";
    connection.execute(sql, [&alice]).unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    let user = store.session(&[1]).unwrap().unwrap().user;
    assert_eq!((user.name.as_str(), user.role, user.disabled, user.second_factor), ("alice", Role::User, false, false));
    assert!(store.session(&[2]).unwrap().is_some());
    assert_eq!(store.desktop_named("dev").unwrap().unwrap().owner_id, user.id);
    store.set_role(user.id, Role::Auditor).unwrap();
    assert_eq!(store.user(user.id).unwrap().unwrap().role, Role::Auditor);
    // and what refers to users is guarded again
    assert!(matches!(store.delete_user(&user), Err(Error::OwnsDesktops(_))));
}

#[test]
fn a_group_that_is_deleted_leaves_its_members_without_its_role() {
    let (store, _) = with_alice();
    let bob = store.add_user("bob", Role::User, "h").unwrap();
    let group = store.add_group("staff", Some(Role::Auditor)).unwrap();
    assert!(matches!(store.add_group("staff", None), Err(Error::Exists { kind: "group", .. })));
    for _ in 0..2 {
        store.set_member(group.id, bob.id, true).unwrap();
    }
    assert_eq!(store.roles(&bob).unwrap(), [Role::User, Role::Auditor]);
    store.delete_group(group.id).unwrap();
    assert_eq!(store.roles(&bob).unwrap(), [Role::User]);
    assert!(store.user_named("bob").unwrap().is_some());
}

#[test]
fn nothing_in_the_audit_log_can_be_changed_or_removed() {
    let (store, _) = with_alice();
    store.add_audit(&NewAudit { actor: "alice", via: "session", action: "login", ..NewAudit::default() }).unwrap();
    for sql in ["DELETE FROM audit", "UPDATE audit SET actor = 'bob'"] {
        let error = store.connection().execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("only added to"), "{error}");
    }
    assert_eq!(store.audit_after(&AuditFilter::default(), 0, 10).unwrap()[0].actor, "alice");
}
