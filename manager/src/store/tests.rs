use std::path::Path;

use super::*;
use crate::model::Role;

fn with_alice() -> (Store, User) {
    let store = Store::in_memory().unwrap();
    let alice = store.add_user("alice", Role::Admin, "hash").unwrap();
    (store, alice)
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
    store.add_desktop(&new).map(|()| id).unwrap()
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
    assert_eq!(store.users().unwrap().len(), 1);
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
    assert!(matches!(store.add_desktop(&again), Err(Error::Exists { kind: "desktop", .. })));
}

#[test]
fn a_user_who_owns_desktops_stays_and_one_who_owns_none_goes_with_their_sessions() {
    let (store, alice) = with_alice();
    let id = add(&store, &alice, "dev");
    assert!(matches!(store.delete_user(&alice), Err(Error::OwnsDesktops(name)) if name == "alice"));
    store.delete_desktop(id).unwrap();
    store.add_session(alice.id, b"token", 60).unwrap();
    store.delete_user(&alice).unwrap();
    assert!(store.session(b"token").unwrap().is_none());
}

#[test]
fn a_session_is_found_until_it_runs_out_or_is_ended() {
    let (store, alice) = with_alice();
    store.add_session(alice.id, b"one", 60).unwrap();
    store.add_session(alice.id, b"over", 0).unwrap();
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
        store.add_session(alice.id, token, 60).unwrap();
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
