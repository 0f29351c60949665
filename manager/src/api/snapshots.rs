//! Desktops in time: suspended, resumed, kept, restored, forked, undone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{self, Path};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Body;
use super::access::{Caller, Found};
use super::desktops::accepted;
use super::problem::Refusal;
use crate::model::{self, Desktop, Fork, NewSnapshot, SnapshotKind, State};
use crate::service::Service;
use crate::store;

type Shared = extract::State<Arc<Service>>;

/// Work that goes on although the caller goes away: what is begun is finished.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(|panic| Refusal::internal(panic.to_string()))?
}

pub async fn suspend(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
) -> Result<Json<Desktop>, Refusal> {
    finished(async move {
        service.suspend(&desktop).await?;
        Ok(Json(service.show(desktop)))
    })
    .await
}

pub async fn resume(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
) -> Result<(StatusCode, Json<Desktop>), Refusal> {
    if service.machines.state(desktop.id) == State::Stopped {
        return Err(Refusal::conflict(format!("`{}` is not suspended but stopped: start it", desktop.name)));
    }
    service.machines.start(desktop.id).await?;
    accepted(&service, desktop.id)
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
    Found(desktop): Found<store::Desktop>,
    Body(new): Body<NewSnapshot>,
) -> Result<(StatusCode, Json<model::Snapshot>), Refusal> {
    finished(async move {
        let taken = service.take_snapshot(&desktop, SnapshotKind::Manual, &new.name).await?;
        Ok((StatusCode::CREATED, Json(Service::show_snapshot(&desktop.name, taken))))
    })
    .await
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
    Found(desktop): Found<store::Desktop>,
    Path((_, snapshot)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Desktop>), Refusal> {
    let snapshot = service.snapshot_of(&desktop, &snapshot)?;
    let (work, target) = (service.clone(), desktop.clone());
    finished(async move { work.restore(&target, &snapshot).await }).await?;
    accepted(&service, desktop.id)
}

pub async fn undo(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
) -> Result<(StatusCode, Json<Desktop>), Refusal> {
    let (work, target) = (service.clone(), desktop.clone());
    finished(async move { work.undo(&target).await }).await?;
    accepted(&service, desktop.id)
}

pub async fn fork(
    extract::State(service): Shared,
    Found(desktop): Found<store::Desktop>,
    Body(fork): Body<Fork>,
) -> Result<(StatusCode, Json<Vec<Desktop>>), Refusal> {
    let from = fork.snapshot.as_deref().map(|name| service.snapshot_of(&desktop, name)).transpose()?;
    finished(async move {
        let made = service.fork(&desktop, &fork.names, from.as_ref()).await?;
        for desktop in made.iter().filter(|_| fork.start) {
            service.machines.start(desktop.id).await?;
        }
        let made = made.into_iter().map(|desktop| service.show(desktop)).collect();
        Ok((StatusCode::CREATED, Json(made)))
    })
    .await
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
