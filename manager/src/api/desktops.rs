//! Desktops: made, started, looked at, stopped, deleted.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::access::{Caller, Found};
use super::audit::Note;
use super::problem::Refusal;
use super::{Body, Query, operations, paging};
use crate::auth::authorize::{Action, Denial, Resource};
use crate::folder::Folder;
use crate::http;
use crate::model::{Desktop, DesktopChange, NewDesktop, State, Stop};
use crate::operations::Work;
use crate::service::Service;
use crate::store;
use crate::thumbnails::{self, Source};

type Shared = extract::State<Arc<Service>>;

/// A screenshot may have this many bytes.
const SCREENSHOT_LIMIT: usize = 64 << 20;

/// One answer holds this much of a log.
const LOG_PIECE: u64 = 1 << 20;

/// `?limit=100&cursor=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
    /// Only those of this user.
    owner: Option<String>,
    /// Only those with this in their name, their owner's or their image's.
    #[serde(default)]
    search: String,
    /// The name after which the page begins.
    #[serde(default)]
    cursor: String,
}

pub async fn list(
    extract::State(service): Shared,
    caller: Caller,
    uri: Uri,
    Query(query): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let limit = paging::limit(query.limit)?;
    let wanted = store::Wanted { owner: query.owner, search: query.search };
    let desktops = service.store.desktops_after(caller.sees(), &wanted, &query.cursor, limit)?;
    let next = desktops.last().filter(|_| desktops.len() == limit as usize).map(|desktop| desktop.name.clone());
    let shown: Vec<_> = desktops.into_iter().map(|desktop| service.show(desktop)).collect();
    Ok(paging::page(&uri, next.as_deref(), Json(shown)))
}

pub async fn show(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tag, shown) = tagged(&service, desktop);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], Json(shown)).into_response())
}

/// A desktop as it is shown, and what names exactly this.
fn tagged(service: &Service, desktop: store::Desktop) -> (String, Desktop) {
    let generation = desktop.generation;
    let shown = service.show(desktop);
    let hash = Sha256::digest(serde_json::to_vec(&shown).unwrap_or_default());
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("\"{generation}-{hash}\""), shown)
}

fn matches(tags: &HeaderValue, tag: &str) -> bool {
    tags.to_str().is_ok_and(|tags| tags.split(',').map(str::trim).any(|one| one == "*" || one == tag))
}

/// Refuses if the desktop is not as the caller saw it, if the caller says what that was.
fn precondition(service: &Service, desktop: &store::Desktop, headers: &HeaderMap) -> Result<bool, Refusal> {
    let Some(tags) = headers.get(header::IF_MATCH) else { return Ok(false) };
    if matches(tags, &tagged(service, desktop.clone()).0) { Ok(true) } else { Err(Refusal::stale()) }
}

pub async fn change(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Body(change): Body<DesktopChange>,
) -> Result<Response, Refusal> {
    if !precondition(&service, &desktop, &headers)? {
        return Err(Refusal::no_precondition());
    }
    if change.memory.is_some() || change.cpus.is_some() {
        let denied = |denial| Refusal::denied(denial, "desktop", &desktop.name);
        may_choose_size(&caller).map_err(denied)?;
    }
    service.change_desktop(&desktop, &change).await?;
    let now = service.store.desktop(desktop.id)?.ok_or_else(|| Refusal::not_found("desktop", &desktop.name))?;
    let (tag, shown) = tagged(&service, now);
    let note = Note { detail: serde_json::to_string(&change).unwrap_or_default(), ..Note::default() };
    Ok(note.on(([(header::ETAG, tag)], Json(shown))))
}

pub async fn create(
    extract::State(service): Shared,
    caller: Caller,
    headers: HeaderMap,
    Body(new): Body<NewDesktop>,
) -> Result<Response, Refusal> {
    let about = format!("desktop {}", new.name);
    let owner = owner(&service, &caller, &new)?;
    let detail = format!("of user {}", owner.name);
    let subject = store::Subject { id: Uuid::new_v4(), name: &new.name, owner: owner.id };
    // what cannot be is refused at once
    service.may_be_made(&new)?;
    let work = Work::Create { new: new.clone(), owner: owner.id };
    let begun = service.operate_on(subject, work, &operations::actor(&caller))?;
    let answer = operations::answer(begun, &headers, StatusCode::CREATED).await?;
    Ok(Note { resource: Some(about), detail, ..Note::default() }.on(answer))
}

/// Whose quota bounds what they choose may choose; others take what an image says.
fn may_choose_size(caller: &Caller) -> Result<(), Denial> {
    let bounded = caller.user().is_some_and(|user| user.quota.memory.is_some() && user.quota.cpus.is_some());
    if bounded { Ok(()) } else { caller.may(Action::ChooseSize, Resource::Service) }
}

/// Whose the new desktop shall be, and whether the caller may say so.
fn owner(service: &Service, caller: &Caller, new: &NewDesktop) -> Result<store::User, Refusal> {
    let denied = |denial| Refusal::denied(denial, "user", new.owner.as_deref().unwrap_or_default());
    let own = caller.user().filter(|user| new.owner.as_ref().is_none_or(|owner| *owner == user.name));
    let owner = match (own, &new.owner) {
        (Some(user), _) => Some(user.clone()),
        (None, Some(owner)) => service.store.user_named(owner)?,
        // on the host `yunju create alice` is meant for alice
        (None, None) => service.store.user_named(&new.name)?,
    };
    // who may not make desktops for others learns nothing of which users there are
    let id = owner.as_ref().map_or_else(Uuid::nil, |owner| owner.id);
    caller.may(Action::Make, Resource::Of(id)).map_err(denied)?;
    if new.memory.is_some() || new.cpus.is_some() {
        may_choose_size(caller).map_err(denied)?;
    }
    owner.ok_or_else(|| match &new.owner {
        Some(owner) => Refusal::not_found("user", owner),
        None => Refusal::invalid(format!("no user is called `{}`: say with --owner whose the desktop is", new.name)),
    })
}

/// `?purge=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// So that it cannot be recovered.
    #[serde(default)]
    purge: bool,
}

pub async fn remove(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Query(query): Query<RemoveQuery>,
) -> Result<Response, Refusal> {
    precondition(&service, &desktop, &headers)?;
    let begun = service.operate(&desktop, Work::Delete { purge: query.purge }, &operations::actor(&caller))?;
    if operations::wants_no_wait(&headers) {
        return Ok(operations::accepted(begun));
    }
    let id = begun.row.id.to_string();
    begun.ended.await.map_err(|_| Refusal::internal("the operation's task ended without a word"))??;
    Ok((StatusCode::NO_CONTENT, [(operations::HEADER, id)]).into_response())
}

/// `?cold=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartQuery {
    /// Boot a suspended desktop from its disks, as after a power loss.
    #[serde(default)]
    cold: bool,
}

pub async fn start(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Query(query): Query<StartQuery>,
) -> Result<Response, Refusal> {
    begin_start(&service, &caller, &desktop, &headers, query.cold).await
}

/// Begins to start; the answer comes when the machine's processes exist, which is before the operation ends.
pub async fn begin_start(
    service: &Arc<Service>,
    caller: &Caller,
    desktop: &store::Desktop,
    headers: &HeaderMap,
    cold: bool,
) -> Result<Response, Refusal> {
    let begun = service.operate(desktop, Work::Start { cold }, &operations::actor(caller))?;
    if operations::wants_no_wait(headers) {
        return Ok(operations::accepted(begun));
    }
    let id = begun.row.id.to_string();
    begun.launched.await.map_err(|_| Refusal::conflict("the start was cancelled"))??;
    Ok(([(operations::HEADER, id)], accepted(service, desktop.id)?).into_response())
}

pub async fn stop(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Body(stop): Body<Stop>,
) -> Result<Response, Refusal> {
    let work = Work::Stop { force: stop.force, timeout: stop.timeout };
    begin_stop(&service, &caller, &desktop, &headers, work).await
}

pub async fn restart(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Body(stop): Body<Stop>,
) -> Result<Response, Refusal> {
    let work = Work::Restart { force: stop.force, timeout: stop.timeout };
    begin_stop(&service, &caller, &desktop, &headers, work).await
}

/// Begins to stop, and perhaps to start anew; the answer comes when the machine is on its way down.
async fn begin_stop(
    service: &Arc<Service>,
    caller: &Caller,
    desktop: &store::Desktop,
    headers: &HeaderMap,
    work: Work,
) -> Result<Response, Refusal> {
    let begun = service.operate(desktop, work, &operations::actor(caller))?;
    if operations::wants_no_wait(headers) {
        return Ok(operations::accepted(begun));
    }
    let id = begun.row.id.to_string();
    begun.launched.await.map_err(|_| Refusal::conflict("the desktop was deleted meanwhile"))??;
    Ok(([(operations::HEADER, id)], accepted(service, desktop.id)?).into_response())
}

/// 202, and the desktop as it is now.
pub fn accepted(service: &Service, desktop: Uuid) -> Result<(StatusCode, Json<Desktop>), Refusal> {
    let now = service.store.desktop(desktop)?.ok_or_else(|| Refusal::not_found("desktop", &desktop.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(service.show(now))))
}

pub async fn screenshot(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
) -> Result<Response, Refusal> {
    match service.machines.state(desktop.id) {
        State::Running | State::Stopping | State::Suspending => {}
        State::Suspended => {
            let kept = match desktop.resume {
                Some(id) => super::snapshots::picture(&service, id).await?,
                None => None,
            };
            return kept.ok_or_else(|| {
                Refusal::conflict(format!("`{}` showed no picture when it was suspended", desktop.name))
            });
        }
        state => return Err(Refusal::conflict(format!("`{}` is {state} and shows no picture", desktop.name))),
    }
    let control = Folder::of(&service.data, desktop.id).run_file("control.sock");
    let timeout = Duration::from_secs(10);
    match http::fetch(&control, Method::GET, "/machine/screenshot", SCREENSHOT_LIMIT, timeout).await? {
        (StatusCode::OK, png) => {
            let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
            Ok((headers, png).into_response())
        }
        (StatusCode::NOT_FOUND, _) => Err(Refusal::conflict(format!("`{}` shows no picture yet", desktop.name))),
        (status, _) => Err(Refusal::upstream(format!("the machine answers {status}"))),
    }
}

/// What the screen shows, or showed when it fell asleep, in a few KiB.
pub async fn thumbnail(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let none = || Refusal::conflict(format!("`{}` shows no picture", desktop.name));
    let source = match service.machines.state(desktop.id) {
        State::Running | State::Stopping | State::Suspending => {
            Source::Machine(Folder::of(&service.data, desktop.id).run_file("control.sock"))
        }
        State::Suspended => {
            let kept = desktop.resume.ok_or_else(none)?;
            Source::Snapshot(kept, service.machines.context().snapshots.file(kept, "screen.png"))
        }
        State::Stopped | State::Starting => return Err(none()),
    };
    let thumbnail = service.thumbnails.of(desktop.id, source).await.map_err(|error| match error {
        thumbnails::Error::Nothing => none(),
        error @ thumbnails::Error::Read { .. } => Refusal::internal(error.to_string()),
        error => Refusal::upstream(error.to_string()),
    })?;
    let headers_out = [
        (header::CONTENT_TYPE, "image/jpeg".to_owned()),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::ETAG, thumbnail.tag.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|tags| matches(tags, &thumbnail.tag)) {
        return Ok((StatusCode::NOT_MODIFIED, headers_out).into_response());
    }
    Ok((headers_out, thumbnail.jpeg).into_response())
}

/// `?source=serial&offset=0`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    #[serde(default)]
    source: LogSource,
    /// Bytes from the start of the file; the last [`LOG_PIECE`] of it if absent.
    offset: Option<u64>,
}

/// Whose words.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogSource {
    #[default]
    Serial,
    Vmm,
    Proxy,
    Passt,
}

impl LogSource {
    const fn file(self) -> &'static str {
        match self {
            Self::Serial => "serial.log",
            Self::Vmm => "vmm.log",
            Self::Proxy => "proxy.log",
            Self::Passt => "passt.log",
        }
    }
}

pub async fn logs(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let path = Folder::of(&service.data, desktop.id).file(query.source.file());
    let read = tokio::task::spawn_blocking(move || piece(&path, query.offset)).await;
    let read = read.map_err(|panic| Refusal::internal(panic.to_string()))?;
    let (bytes, next) = read.map_err(|error| Refusal::internal(format!("{}: {error}", query.source.file())))?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        ("yunju-next-offset", next.to_string()),
        (header::CACHE_CONTROL.as_str(), "no-store".to_owned()),
    ];
    Ok((headers, bytes).into_response())
}

/// Bytes of a log from `offset` on, and where they end. A log that became shorter began anew.
fn piece(path: &std::path::Path, offset: Option<u64>) -> std::io::Result<(Vec<u8>, u64)> {
    let mut file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let start = offset.map_or(length.saturating_sub(LOG_PIECE), |offset| if offset > length { 0 } else { offset });
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    let count = file.take(LOG_PIECE).read_to_end(&mut bytes)?;
    Ok((bytes, start + count as u64))
}
