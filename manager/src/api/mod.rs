//! HTTP: the API under `/v1`, the way to a desktop's screen, the pages. The same for browsers and for
//! the local socket; [`access`] tells them apart.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `GET /v1/health` | anybody | [`crate::model::Health`] |
//! | `POST /v1/session` | anybody | logs in: a cookie and the [`crate::model::User`] |
//! | `GET`, `DELETE /v1/session` | logged in | the user; logs out |
//! | `POST /v1/session/password` | logged in | changes the own password |
//! | `GET`, `POST /v1/users` | admin | all users; adds one and answers a one-time password |
//! | `DELETE /v1/users/{name}` | admin | deletes a user who owns no desktop |
//! | `POST /v1/users/{name}/password` | admin | a new one-time password |
//! | `GET /v1/images` | user | all images |
//! | `POST /v1/images/{name}/warm` | admin | 202, the image is being booted so that its desktops need not |
//! | `GET`, `POST /v1/desktops` | user | the desktops one sees; makes one |
//! | `GET`, `DELETE /v1/desktops/{desktop}` | owner, admin | shows, deletes; `{desktop}` is its name or id |
//! | `POST /v1/desktops/{desktop}/start`, `/stop`, `/restart`, `/resume` | owner, admin | 202 and the desktop; `start?cold=true` forgets a suspended one's memory |
//! | `POST /v1/desktops/{desktop}/suspend` | owner, admin | the desktop, when it is suspended |
//! | `GET /v1/snapshots` | user | the snapshots of all desktops one sees |
//! | `GET`, `POST /v1/desktops/{desktop}/snapshots` | owner, admin | the snapshots, newest first; takes one |
//! | `DELETE /v1/desktops/{desktop}/snapshots/{snapshot}` | owner, admin | removes one; `{snapshot}` is its name, its id or the beginning of that |
//! | `GET /v1/desktops/{desktop}/snapshots/{snapshot}/screen` | owner, admin | `image/png` |
//! | `POST /v1/desktops/{desktop}/snapshots/{snapshot}/restore` | owner, admin | 202 and the desktop, which is as it was then |
//! | `POST /v1/desktops/{desktop}/undo` | owner, admin | the same with the newest restore point |
//! | `POST /v1/desktops/{desktop}/fork` | owner, admin | 201 and the new desktops |
//! | `GET /v1/desktops/{desktop}/screenshot` | owner, admin | `image/png` |
//! | `GET /v1/desktops/{desktop}/logs?source=serial&offset=0` | owner, admin | bytes from there on; `yunju-next-offset` |
//! | `GET /v1/desktops/{desktop}/console` | owner, admin | upgrade to `yunju-console`: the serial port's bytes, both ways |
//! | `GET /desktops/{desktop}/ws` | owner, admin | websocket: RFB |
//! | `GET /desktops/{desktop}/ws/audio` | owner, admin | websocket: sound |
//! | `GET /desktops/{desktop}/ws/io` | owner, admin | websocket: what a browser and the guest tell each other beside RFB |
//!
//! Refusals are [`crate::model::Problem`]s.

pub mod access;
mod console;
mod desktops;
pub mod problem;
mod session;
mod snapshots;
mod users;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};

use crate::service::Service;
use crate::{edge, model, web};
use access::{Caller, Peer};
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
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/session", get(session::show).post(session::login).delete(session::logout))
        .route("/v1/session/password", post(session::change_password))
        .route("/v1/users", get(users::list).post(users::add))
        .route("/v1/users/{name}", delete(users::remove))
        .route("/v1/users/{name}/password", post(users::reset_password))
        .route("/v1/images", get(images))
        .route("/v1/images/{name}/warm", post(warm))
        .route("/v1/desktops", get(desktops::list).post(desktops::create))
        .route("/v1/desktops/{desktop}", get(desktops::show).delete(desktops::remove))
        .route("/v1/desktops/{desktop}/start", post(desktops::start))
        .route("/v1/desktops/{desktop}/stop", post(desktops::stop))
        .route("/v1/desktops/{desktop}/restart", post(desktops::restart))
        .route("/v1/desktops/{desktop}/suspend", post(snapshots::suspend))
        .route("/v1/desktops/{desktop}/resume", post(snapshots::resume))
        .route("/v1/desktops/{desktop}/undo", post(snapshots::undo))
        .route("/v1/desktops/{desktop}/fork", post(snapshots::fork))
        .route("/v1/snapshots", get(snapshots::list_all))
        .route("/v1/desktops/{desktop}/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/v1/desktops/{desktop}/snapshots/{snapshot}", delete(snapshots::remove))
        .route("/v1/desktops/{desktop}/snapshots/{snapshot}/restore", post(snapshots::restore))
        .route("/v1/desktops/{desktop}/snapshots/{snapshot}/screen", get(snapshots::screen))
        .route("/v1/desktops/{desktop}/screenshot", get(desktops::screenshot))
        .route("/v1/desktops/{desktop}/logs", get(desktops::logs))
        .route("/v1/desktops/{desktop}/console", get(console::attach))
        .route("/desktops/{desktop}/ws", get(edge::websocket))
        .route("/desktops/{desktop}/ws/audio", get(edge::audio))
        .route("/desktops/{desktop}/ws/io", get(edge::io))
        .merge(web::router())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(service.clone(), access::own_pages_only))
        .layer(middleware::from_fn(web::security_headers))
        .layer(DefaultBodyLimit::max(64 << 10))
        .with_state(service)
}

async fn health(State(service): State<Arc<Service>>, peer: axum::extract::ConnectInfo<Peer>) -> Json<model::Health> {
    let local = matches!(peer.0, Peer::Local(_));
    Json(model::Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: local.then(|| service.url.clone()),
    })
}

async fn images(State(service): State<Arc<Service>>, _: Caller) -> Result<Json<Vec<model::Image>>, Refusal> {
    Ok(Json(service.list_images()?))
}

async fn warm(
    State(service): State<Arc<Service>>,
    _: access::Admin,
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

async fn wrong_method() -> (StatusCode, Refusal) {
    (StatusCode::METHOD_NOT_ALLOWED, Refusal::invalid("this cannot be done here"))
}
