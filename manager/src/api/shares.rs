//! Letting others look at a desktop, work in it, or go on from it with one of their own.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::access::{Caller, Found};
use super::audit::Note;
use super::openings::door;
use super::problem::Refusal;
use super::{Body, operations};
use crate::auth;
use crate::model::{self, LinkSecret, NewShareAnswer, ShareCopy, ShareKind, Shared, Watcher};
use crate::operations::Work;
use crate::origins::{self, Place};
use crate::service::{Revoked, Service};
use crate::store::{Desktop, NewShare, Share, With};
use crate::tickets::Admission;

type Service_ = State<Arc<Service>>;

/// A share lasts so long unless somebody says otherwise, in seconds.
const USUAL: u32 = 7 * 24 * 3600;

/// And at most so long.
const LONGEST: u32 = 366 * 24 * 3600;

/// A desktop has at most so many.
const MOST: usize = 100;

/// What who came by a link is called.
const GUEST: &str = "guest";

fn shown(share: Share) -> model::Share {
    model::Share {
        id: share.id,
        desktop: share.desktop_name,
        owner: share.owner,
        user: share.user,
        kind: share.kind,
        clipboard: share.clipboard,
        sound: share.sound,
        created: share.created,
        expires: share.expires,
        last_used: share.last_used,
    }
}

pub async fn list(
    State(service): Service_,
    Found(desktop): Found<Desktop>,
) -> Result<Json<Vec<model::Share>>, Refusal> {
    Ok(Json(service.store.shares(Some(desktop.id), None)?.into_iter().map(shown).collect()))
}

pub async fn list_own(State(service): Service_, caller: Caller) -> Result<Json<Vec<model::Share>>, Refusal> {
    let Some(user) = caller.user() else { return Ok(Json(Vec::new())) };
    Ok(Json(service.store.shares(None, Some(user.id))?.into_iter().map(shown).collect()))
}

pub async fn viewers(State(service): Service_, Found(desktop): Found<Desktop>) -> Json<Vec<Watcher>> {
    Json(service.viewers.who(desktop.id))
}

pub async fn add(
    State(service): Service_,
    caller: Caller,
    Found(desktop): Found<Desktop>,
    Body(new): Body<model::NewShare>,
) -> Result<Response, Refusal> {
    let seconds = new.seconds.unwrap_or(USUAL);
    if !(1..=LONGEST).contains(&seconds) {
        return Err(Refusal::invalid(format!("a share lasts 1 to {LONGEST} seconds")));
    }
    if service.store.shares(Some(desktop.id), None)?.len() >= MOST {
        return Err(Refusal::limit(format!("`{}` is shared {MOST} times already: end some of that", desktop.name)));
    }
    let secret = auth::token();
    let with = match &new.user {
        None => With::Link(auth::token_hash(&secret)),
        Some(name) => {
            let user = service.store.user_named(name)?.filter(|user| !user.disabled);
            let user = user.ok_or_else(|| Refusal::not_found("user", name))?;
            if user.id == desktop.owner_id {
                return Err(Refusal::invalid(format!("`{}` is of {name} already", desktop.name)));
            }
            if let Some(before) = service.store.share_with(desktop.id, user.id)? {
                service.revoke(Revoked::Share(before.id));
            }
            With::User(user.id)
        }
    };
    let url = new.user.is_none().then(|| format!("{}/shared#{secret}", service.url));
    let share = service.store.add_share(&NewShare {
        desktop: desktop.id,
        made_by: caller.user().map_or(desktop.owner_id, |user| user.id),
        with,
        kind: new.kind,
        clipboard: new.clipboard,
        sound: new.sound,
        seconds: seconds.into(),
    })?;
    let whom = share.user.as_deref().map_or_else(|| "by link".to_owned(), |user| format!("with user {user}"));
    tracing::info!(desktop = %desktop.name, share = %share.id, kind = %share.kind, "shared {whom}");
    service.tell("desktop.shares", desktop.owner_id, &serde_json::json!({"id": desktop.id, "name": desktop.name}));
    let note = Note { detail: format!("{} {whom}, share {}", share.kind, share.id), ..Note::default() };
    Ok(note.on((StatusCode::CREATED, Json(NewShareAnswer { url, about: shown(share) }))))
}

pub async fn remove(State(service): Service_, Found(share): Found<Share>) -> Result<StatusCode, Refusal> {
    service.store.delete_share(share.id)?;
    service.revoke(Revoked::Share(share.id));
    tracing::info!(desktop = %share.desktop_name, share = %share.id, "share ended");
    let about = serde_json::json!({"id": share.desktop, "name": share.desktop_name});
    service.tell("desktop.shares", share.owner_id, &about);
    Ok(StatusCode::NO_CONTENT)
}

fn by_secret(service: &Service, secret: &str) -> Result<Share, Refusal> {
    let gone = || Refusal::forbidden("this link leads nowhere: it has run out, or was taken back");
    service.store.share_by_secret(&auth::token_hash(secret))?.ok_or_else(gone)
}

pub async fn open(
    State(service): Service_,
    place: Place,
    headers: HeaderMap,
    Body(LinkSecret { secret }): Body<LinkSecret>,
) -> Result<Response, Refusal> {
    let share = by_secret(&service, &secret)?;
    let note = Note {
        actor: Some(GUEST.to_owned()),
        resource: Some(format!("desktop {}", share.desktop_name)),
        detail: format!("by share {}", share.id),
    };
    let door = match share.kind {
        ShareKind::Copy => None,
        ShareKind::View | ShareKind::Control => {
            // who comes by a link has that link's rights, whatever login the browser has on the portal
            let (label, name) = (origins::label(), GUEST.to_owned());
            let admission = Admission { label, desktop: share.desktop, session: None, share: Some(share.id), name };
            Some(door(&service, &place, &headers, &share.desktop_name, admission)?)
        }
    };
    let Share { desktop_name: desktop, owner, kind, .. } = share;
    Ok(note.on(Json(Shared { desktop, owner, kind, door })))
}

pub async fn copy(State(service): Service_, caller: Caller, Body(copy): Body<ShareCopy>) -> Result<Response, Refusal> {
    let user = caller.user().ok_or_else(|| Refusal::invalid("a copy is for a user: log in as one"))?;
    let share = match (&copy.secret, copy.share) {
        (Some(secret), None) => by_secret(&service, secret)?,
        (None, Some(id)) => {
            let share = service.store.share(&id.to_string())?.filter(|share| share.user_id == Some(user.id));
            share.ok_or_else(|| Refusal::not_found("share", &id.to_string()))?
        }
        _ => return Err(Refusal::invalid("say by which link, or by which share")),
    };
    if share.kind != ShareKind::Copy {
        return Err(Refusal::forbidden("this is not shared to be copied"));
    }
    let desktop = service.store.desktop(share.desktop)?;
    let desktop = desktop.ok_or_else(|| Refusal::not_found("desktop", &share.desktop_name))?;
    let names = vec![copy.name.clone()];
    let work = Work::Fork { names, snapshot: None, start: false, owner: Some(user.id) };
    let note = Note {
        resource: Some(format!("desktop {}", share.desktop_name)),
        detail: format!("to {}, by share {}", copy.name, share.id),
        ..Note::default()
    };
    let begun = service.operate(&desktop, work, &operations::actor(&caller))?;
    // the operation is of the desktop's owner: who copies it waits
    Ok(note.on(operations::answer(begun, &HeaderMap::new(), StatusCode::CREATED).await))
}
