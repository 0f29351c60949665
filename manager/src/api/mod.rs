//! HTTP: the API under `/v1`, the way to a desktop's screen, the pages. The same for browsers and for
//! the local socket; [`access`] tells them apart.
//!
//! [`routes`] has every address, with who may use it.
//!
//! Refusals are [`crate::model::Problem`]s.

pub mod access;
mod account;
mod audit;
mod console;
mod desktops;
pub mod health;
mod idempotency;
pub mod openapi;
mod openings;
mod operations;
pub mod paging;
pub mod problem;
pub mod request;
pub mod routes;
mod session;
mod shares;
mod snapshots;
mod trash;
mod usage;
mod users;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, State};
use axum::http::{StatusCode, Uri};
use axum::{Json, Router, middleware};

use crate::service::Service;
use crate::{model, origins, web};
use problem::Refusal;

/// A body in JSON.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(Refusal))]
struct Body<T>(T);

/// What follows the `?`.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Refusal))]
struct Query<T>(T);

/// Everything that the service answers.
pub fn router(service: Arc<Service>) -> Router {
    routes::router(&service, routes::api())
        .merge(web::router(&service))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(service.clone(), access::own_pages_only))
        .layer(middleware::from_fn_with_state(service.clone(), web::security_headers))
        .layer(DefaultBodyLimit::max(64 << 10))
        .layer(middleware::from_fn_with_state(service.clone(), origins::locate))
        .layer(middleware::from_fn(request::identify))
        .with_state(service)
}

async fn images(State(service): State<Arc<Service>>) -> Result<Json<Vec<model::Image>>, Refusal> {
    Ok(Json(service.list_images()?))
}

async fn warm(
    State(service): State<Arc<Service>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<StatusCode, Refusal> {
    let image = crate::images::Image::named(&service.images, &name)?;
    if image.manifest.ready.is_none() {
        return service.warm(&image).await.map(|()| StatusCode::ACCEPTED);
    }
    tokio::spawn(async move { service.warm(&image).await });
    Ok(StatusCode::ACCEPTED)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found("page", uri.path())
}

async fn wrong_method() -> Refusal {
    Refusal::wrong_method()
}
