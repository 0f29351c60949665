//! Deleted desktops: listed, recovered, removed for good.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::access::{Caller, Found};
use super::problem::Refusal;
use super::{Body, Query};
use crate::model::{self, Recover};
use crate::service::Service;
use crate::store;

type Shared = State<Arc<Service>>;

/// What the path names of what was deleted.
#[derive(Debug, Clone)]
pub struct Trashed(pub store::Desktop);

/// `?limit=` is not needed: there is little, and it goes.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

pub async fn list(
    State(service): Shared,
    caller: Caller,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Json<Vec<model::Deleted>>, Refusal> {
    let deleted = service.store.deleted(caller.sees())?;
    Ok(Json(deleted.into_iter().map(|desktop| service.show_deleted(desktop)).collect()))
}

pub async fn recover(
    State(service): Shared,
    Found(Trashed(desktop)): Found<Trashed>,
    Body(how): Body<Recover>,
) -> Result<Json<model::Desktop>, Refusal> {
    let desktop = service.recover_desktop(&desktop, how.name.as_deref())?;
    Ok(Json(service.show(desktop)))
}

pub async fn remove(State(service): Shared, Found(Trashed(desktop)): Found<Trashed>) -> Result<StatusCode, Refusal> {
    // what is begun is finished although the caller goes away
    let name = desktop.name.clone();
    let purged = tokio::spawn(async move { service.purge(&desktop).await });
    let purged = purged.await.map_err(|panic| Refusal::internal(panic.to_string()))??;
    if purged { Ok(StatusCode::NO_CONTENT) } else { Err(Refusal::not_found("deleted desktop", &name)) }
}
