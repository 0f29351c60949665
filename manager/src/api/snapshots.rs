//! Desktops in time: suspended, resumed, kept, restored, forked, undone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{self, Path};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::access::{Caller, Found};
use super::audit::Note;
use super::desktops::begin_start;
use super::problem::Refusal;
use super::{Body, operations};
use crate::model::{self, Fork, NewSnapshot, State};
use crate::operations::Work;
use crate::service::Service;
use crate::store;

type Shared = extract::State<Arc<Service>>;

pub async fn suspend(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let begun = service.operate(&desktop, Work::Suspend, &operations::actor(&caller))?;
    operations::answer(begun, &headers, StatusCode::OK).await
}

pub async fn resume(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if service.machines.state(desktop.id) == State::Stopped {
        return Err(Refusal::conflict(format!("`{}` is not suspended but stopped: start it", desktop.name)));
    }
    begin_start(&service, &caller, &desktop, &headers, false).await
}

pub async fn list_all(extract::State(service): Shared, caller: Caller) -> Result<Json<Vec<model::Snapshot>>, Refusal> {
    let mut all = Vec::new();
    for desktop in service.store.desktops(caller.sees())? {
        let snapshots = service.store.snapshots(desktop.id)?;
        all.extend(snapshots.into_iter().map(|snapshot| Service::show_snapshot(&desktop.name, snapshot)));
    }
    Ok(Json(all))
}

pub async fn list(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
) -> Result<Json<Vec<model::Snapshot>>, Refusal> {
    let snapshots = service.store.snapshots(desktop.id)?;
    Ok(Json(snapshots.into_iter().map(|snapshot| Service::show_snapshot(&desktop.name, snapshot)).collect()))
}

pub async fn create(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Body(new): Body<NewSnapshot>,
) -> Result<Response, Refusal> {
    let begun = service.operate(&desktop, Work::Snapshot { name: new.name }, &operations::actor(&caller))?;
    operations::answer(begun, &headers, StatusCode::CREATED).await
}

pub async fn remove(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    Path((_, snapshot)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let snapshot = service.snapshot_of(&desktop, &snapshot)?;
    service.remove_snapshot(&snapshot)?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn restore(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    Path((_, snapshot)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let snapshot = service.snapshot_of(&desktop, &snapshot)?.id;
    let begun = service.operate(&desktop, Work::Restore { snapshot }, &operations::actor(&caller))?;
    operations::answer(begun, &headers, StatusCode::ACCEPTED).await
}

pub async fn undo(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let begun = service.operate(&desktop, Work::Undo, &operations::actor(&caller))?;
    operations::answer(begun, &headers, StatusCode::ACCEPTED).await
}

pub async fn fork(
    extract::State(service): Shared,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    headers: HeaderMap,
    Body(Fork { names, snapshot, start }): Body<Fork>,
) -> Result<Response, Refusal> {
    let snapshot = snapshot.map(|name| service.snapshot_of(&desktop, &name)).transpose()?.map(|snapshot| snapshot.id);
    let note = Note { detail: names.iter().take(100).cloned().collect::<Vec<_>>().join(", "), ..Note::default() };
    let work = Work::Fork { names, snapshot, start, owner: None };
    let begun = service.operate(&desktop, work, &operations::actor(&caller))?;
    Ok(note.on(operations::answer(begun, &headers, StatusCode::CREATED).await))
}

pub async fn screen(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    Path((_, snapshot)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let snapshot = service.snapshot_of(&desktop, &snapshot)?;
    picture(&service, snapshot.id)
        .await?
        .ok_or_else(|| Refusal::not_found("picture of snapshot", &snapshot.id.to_string()))
}

/// The picture that was kept with a snapshot.
pub async fn picture(service: &Service, id: uuid::Uuid) -> Result<Option<Response>, Refusal> {
    let path = service.machines.context().snapshots.file(id, "screen.png");
    match tokio::fs::read(&path).await {
        Ok(png) => {
            let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "private, max-age=86400")];
            Ok(Some((headers, png).into_response()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Refusal::internal(format!("{}: {error}", path.display()))),
    }
}
