//! Opening a desktop: a ticket on the portal, a cookie on the desktop's own host name.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Body;
use super::access::{Caller, Found, LoggedIn, Via};
use super::audit::Note;
use super::problem::Refusal;
use super::session::origin;
use crate::auth;
use crate::edge;
use crate::model::{Door, Opening, ShareKind, Ticket};
use crate::origins::{self, Place};
use crate::service::Service;
use crate::store::{self, Desktop, NewOpening, Share};
use crate::tickets::Admission;

/// A login has so many browser tabs and frames open at a time; opening more closes the oldest.
const MOST_OF_SESSION: u32 = 64;

/// By one link so many people look at a time.
const MOST_OF_SHARE: u32 = 200;

/// Who came by a link comes by it again after this, in seconds.
const GUEST_SECONDS: i64 = 12 * 3600;

pub async fn open(
    State(service): State<Arc<Service>>,
    LoggedIn(session): LoggedIn,
    caller: Caller,
    place: Place,
    Found(desktop): Found<Desktop>,
    share: Option<axum::Extension<Share>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let share = share.map(|axum::Extension(share)| share);
    if share.as_ref().is_some_and(|share| share.kind == ShareKind::Copy) {
        return Err(Refusal::conflict(format!("`{}` is shared with you to be copied, not to be opened", desktop.name)));
    }
    let label = match &share {
        None => service.store.label_of(&session.token_hash, desktop.id)?,
        Some(_) => None,
    };
    let admission = Admission {
        label: label.unwrap_or_else(origins::label),
        desktop: desktop.id,
        session: Some(session.token_hash),
        share: share.as_ref().map(|share| share.id),
        name: caller.name().to_owned(),
    };
    let door = door(&service, &place, &headers, &desktop.name, admission)?;
    let foreign = desktop.owner_id != session.user.id && share.is_none();
    let detail = if foreign { format!("an admin opens what is of user {}", desktop.owner) } else { String::new() };
    Ok(Note { detail, ..Note::default() }.on(Json(door)))
}

/// A ticket, and where it is good.
pub fn door(
    service: &Service,
    place: &Place,
    headers: &HeaderMap,
    desktop: &str,
    admission: Admission,
) -> Result<Door, Refusal> {
    let origin = origin(headers);
    let desk = match place {
        Place::Portal { .. } => service.origins.desk(&admission.label, origin),
        _ => None,
    };
    let desk = desk.ok_or_else(|| {
        let how = if service.origins.local() {
            "for others this service needs a host name, which it is told with `yunju serve --domain NAME`"
        } else {
            "not at an address or by another name"
        };
        Refusal::wrong_host(format!("desktops open at {}: {how}", service.url))
    })?;
    let url = format!("{desk}/desktops/{}", admission.desktop);
    Ok(Door { url, ticket: service.tickets.give(admission), desktop: desktop.to_owned() })
}

pub async fn enter(
    State(service): State<Arc<Service>>,
    place: Place,
    headers: HeaderMap,
    Body(Ticket { ticket }): Body<Ticket>,
) -> Result<Response, Refusal> {
    let Place::Desk { label, .. } = &place else { return Err(Refusal::not_found("page", "opening")) };
    let refused = || Refusal::forbidden("the way in was used already, or has run out: open the desktop once more");
    let admission = service.tickets.take(&ticket, label).ok_or_else(refused)?;
    // both may have ended since
    let session = admission.session.as_ref().map(|hash| service.store.session(hash)).transpose()?.flatten();
    let share = admission.share.map(|id| service.store.share(&id.to_string())).transpose()?.flatten();
    let desktop = service.store.desktop(admission.desktop)?.filter(|desktop| desktop.deleted.is_none());
    let (Some(desktop), true, true) =
        (desktop, session.is_some() == admission.session.is_some(), share.is_some() == admission.share.is_some())
    else {
        return Err(refused());
    };
    let now = Timestamp::now().as_second();
    let guest = session.is_none().then_some(now + GUEST_SECONDS);
    let ends = [session.map(|s| s.expires.as_second()), share.as_ref().map(|s| s.expires.as_second()), guest];
    let expires = ends.into_iter().flatten().min().unwrap_or(now);
    let token = auth::token();
    let new = NewOpening {
        token_hash: &auth::token_hash(&token),
        label,
        desktop: desktop.id,
        session: admission.session.as_deref(),
        share: admission.share,
        name: &admission.name,
        expires,
        most: if admission.session.is_some() { MOST_OF_SESSION } else { MOST_OF_SHARE },
    };
    service.store.add_opening(&new)?;
    let cookie = service.origins.desk_cookie(&token, origin(&headers), expires - now);
    let note = Note {
        actor: Some(admission.name),
        resource: Some(format!("desktop {}", desktop.name)),
        detail: share.map_or_else(String::new, |share| format!("by share {}", share.id)),
    };
    Ok(note.on((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)])).into_response())
}

pub async fn show(State(service): State<Arc<Service>>, caller: Caller) -> Result<Json<Opening>, Refusal> {
    let Via::Desk(opening) = caller.via() else { return Err(Refusal::not_found("page", "opening")) };
    let desktop = service.store.desktop(opening.desktop)?;
    let desktop = desktop.ok_or_else(|| Refusal::not_found("desktop", &opening.desktop.to_string()))?;
    Ok(Json(shown(&caller, opening, desktop)))
}

fn shown(caller: &Caller, opening: &store::Opening, desktop: Desktop) -> Opening {
    let may = edge::may(caller);
    Opening {
        desktop: desktop.name,
        name: opening.name.clone(),
        input: may.input,
        clipboard: may.clipboard,
        sound: may.sound,
        own: opening.share.is_none(),
    }
}
