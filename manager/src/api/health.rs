//! Whether the service is well, and what there is to count.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::access::Peer;
use super::problem::Refusal;
use crate::service::Service;
use crate::{metrics, model};

/// Whether it is there, and of which version.
pub async fn health(State(service): State<Arc<Service>>, peer: ConnectInfo<Peer>) -> Json<model::Health> {
    let local = matches!(peer.0, Peer::Local(_));
    Json(model::Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: local.then(|| service.url.clone()),
    })
}

/// The process answers. Whoever sees to it that it does need not start it anew.
pub async fn live() -> &'static str {
    "ok\n"
}

/// It can do its work: whoever sends it requests may go on.
pub async fn ready(State(service): State<Arc<Service>>) -> Response {
    if service.ending.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the service ends\n").into_response();
    }
    match tokio::task::spawn_blocking(move || service.store.answers()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response(),
    }
}

/// All that is counted.
pub async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Refusal> {
    let text = tokio::task::spawn_blocking(move || metrics::text(&service)).await;
    let text = text.map_err(|panic| Refusal::internal(panic.to_string()))??;
    Ok(([(header::CONTENT_TYPE, metrics::KIND)], text).into_response())
}

/// What `--metrics` answers: `/metrics` alone, to whoever can connect.
pub fn alone(service: Arc<Service>) -> Router {
    let unknown = |request: Request| async move { Refusal::not_found("page", request.uri().path()) };
    Router::new().route("/metrics", get(metrics)).fallback(unknown).with_state(service)
}
