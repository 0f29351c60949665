//! Work that takes a while, and what happens: asked for, followed, cancelled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::access::{Caller, Found};
use super::problem::Refusal;
use super::{Query, paging};
use crate::auth::authorize::{Action, Resource};
use crate::edge::Grant;
use crate::model::Operation;
use crate::operations::Begun;
use crate::service::Service;
use crate::store;

type Shared = State<Arc<Service>>;

/// The header that names the operation of an answer.
pub const HEADER: &str = "yunju-operation";

/// Who is recorded as having asked.
pub fn actor(caller: &Caller) -> String {
    caller.name().to_owned()
}

/// RFC 7240: `Prefer: respond-async`
pub fn wants_no_wait(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"))
}

/// 202, and where to look how it goes.
pub fn accepted(begun: Begun) -> Response {
    let id = begun.row.id.to_string();
    let headers = [
        (header::LOCATION.as_str(), format!("/v1/operations/{id}")),
        ("preference-applied", "respond-async".to_owned()),
        (HEADER, id),
    ];
    (StatusCode::ACCEPTED, headers, Json(Service::show_operation(begun.row))).into_response()
}

/// What came of it, or, if the caller prefers not to wait, where to look.
pub async fn answer(begun: Begun, headers: &HeaderMap, status: StatusCode) -> Result<Response, Refusal> {
    if wants_no_wait(headers) {
        return Ok(accepted(begun));
    }
    let id = begun.row.id.to_string();
    let ended: Value =
        begun.ended.await.map_err(|_| Refusal::internal("the operation's task ended without a word"))??;
    Ok((status, [(HEADER, id)], Json(ended)).into_response())
}

/// `?limit=20&cursor=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    limit: Option<u32>,
    cursor: Option<i64>,
}

pub async fn list(
    State(service): Shared,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Refusal> {
    let limit = paging::limit(query.limit)?;
    let rows = service.store.operations(caller.sees(), query.cursor, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.number.to_string());
    let shown: Vec<_> = rows.into_iter().map(Service::show_operation).collect();
    Ok(paging::page(&uri, next.as_deref(), Json(shown)))
}

/// `?wait=30`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Answer when it has ended, or after so many seconds, at most 60.
    #[serde(default)]
    wait: u8,
}

pub async fn show(
    State(service): Shared,
    Found(row): Found<store::Operation>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<Operation>, Refusal> {
    let until = tokio::time::Instant::now() + Duration::from_secs(query.wait.min(60).into());
    let mut events = service.events.subscribe();
    loop {
        let id = row.id.to_string();
        let now = service.store.operation(&id)?.ok_or_else(|| Refusal::not_found("operation", &id))?;
        if now.ended.is_some() || tokio::time::timeout_at(until, events.changed()).await.is_err() {
            return Ok(Json(Service::show_operation(now)));
        }
    }
}

pub async fn cancel(State(service): Shared, Found(row): Found<store::Operation>) -> Result<Json<Operation>, Refusal> {
    if !service.store.cancel_operation(row.id)? {
        let how = if row.ended.is_some() { "has ended" } else { "has begun, and what is begun is finished" };
        return Err(Refusal::conflict(format!("the operation {how}")));
    }
    service.tell_operation_now(row.id);
    let id = row.id.to_string();
    let now = service.store.operation(&id)?.ok_or_else(|| Refusal::not_found("operation", &id))?;
    Ok(Json(Service::show_operation(now)))
}

/// `?cursor=17`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Begin after this event; `Last-Event-ID` says the same. Without either: with what happens from now on.
    cursor: Option<i64>,
}

/// A browser or program that was cut off comes back with the last id that it saw and misses nothing, unless so much
/// happened that the events are gone: then it is told to look at everything anew.
pub async fn events(
    State(service): Shared,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Refusal> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let (oldest, newest) = service.store.events_kept()?;
    let after = last.or(query.cursor).unwrap_or(newest);
    if after < oldest - 1 || after > newest {
        return Err(Refusal::cursor_gone());
    }
    let grant = Grant::new(&service, &caller, Uuid::nil()); // of no desktop: until the caller's right ends
    let seen = service.events.subscribe();
    let stream = stream::unfold((service, caller, seen, after), |(service, caller, mut seen, mut after)| async move {
        loop {
            seen.mark_unchanged();
            let events = service.store.events_after(after).ok()?;
            if let Some((last, ..)) = events.last() {
                after = *last;
                let visible = |owner: Uuid| caller.may(Action::SeeDesktop, Resource::Of(owner)).is_ok();
                let shown: Vec<_> = events
                    .into_iter()
                    .filter(|(.., owner, _)| visible(*owner))
                    .map(|(id, kind, _, data)| {
                        Ok::<_, Infallible>(Event::default().id(id.to_string()).event(kind).data(data))
                    })
                    .collect();
                return Some((stream::iter(shown), (service, caller, seen, after)));
            }
            seen.changed().await.ok()?;
        }
    });
    let stream = stream.flatten().take_until(Box::pin(grant.ended()));
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}
