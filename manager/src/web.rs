//! The pages: files of `manager/web/pages`, and noVNC as its package brings it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use tower_http::compression::CompressionLayer;

use crate::api::access::Caller;
use crate::api::openapi;
use crate::api::problem::Refusal;
use crate::api::routes::{self, Route};
use crate::auth::authorize::Action;
use crate::service::Service;

#[derive(RustEmbed)]
#[folder = "web/pages"]
struct Pages;

#[derive(RustEmbed)]
#[folder = "web/node_modules/@novnc/novnc"]
struct Novnc;

/// Nothing but our own files runs, is shown, or frames us. noVNC draws JPEG from `data:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Pages and assets.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("page.desktops", "/", Action::Look, "The desktops", portal),
        Route::get("page.windows", "/windows", Action::Look, "Several desktops side by side", portal),
        Route::get("page.account", "/account", Action::Look, "The own account", portal),
        Route::get("page.admin", "/admin/{page}", Action::Look, "Administration", portal),
        Route::get("page.login", "/login", Action::Look, "Logging in", login),
        Route::get("page.desktop", "/desktops/{desktop}", Action::Look, "A desktop's screen", desktop),
        Route::get("page.api", "/docs/api", Action::Look, "The API, described", openapi::page),
        Route::get("asset", "/assets/{*path}", Action::Look, "What pages are made of", asset),
        Route::get("asset.novnc", "/assets/novnc/{*path}", Action::Look, "noVNC", novnc),
    ]
}

/// Pages and assets, compressed.
pub fn router(service: &Arc<Service>) -> Router<Arc<Service>> {
    routes::router(service, routes()).layer(CompressionLayer::new())
}

/// On every answer: what a browser may do with it.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn login(request: Request) -> Response {
    page("login.html", &request)
}

async fn portal(request: Request) -> Response {
    // one document, whose modules show what its address says
    for_users("portal.html", request)
}

async fn desktop(request: Request) -> Response {
    // whether the desktop exists and is theirs is for the API to say
    for_users("desktop.html", request)
}

/// A page for who is logged in; others log in first.
fn for_users(name: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let chosen = |caller: &Caller| caller.user().is_none_or(|user| !user.must_change);
    let known = parts.extensions.get::<Caller>().is_some_and(chosen);
    if known { page(name, &Request::from_parts(parts, body)) } else { Redirect::to("/login").into_response() }
}

fn page(name: &str, request: &Request) -> Response {
    match Pages::get(name) {
        Some(file) => answer(file, "text/html; charset=utf-8", "no-cache", request),
        None => Refusal::not_found("page", name).into_response(),
    }
}

async fn asset(Path(path): Path<String>, request: Request) -> Response {
    let shown = path.strip_suffix(".html").is_none(); // pages have addresses of their own
    match Pages::get(&path).filter(|_| shown) {
        Some(file) => typed(file, "no-cache", &request),
        None => Refusal::not_found("file", &path).into_response(),
    }
}

async fn novnc(Path(path): Path<String>, request: Request) -> Response {
    match Novnc::get(&path) {
        Some(file) => typed(file, "max-age=3600", &request),
        None => Refusal::not_found("file", &path).into_response(),
    }
}

fn typed(file: EmbeddedFile, caching: &'static str, request: &Request) -> Response {
    let kind = file.metadata.mimetype().to_owned();
    answer(file, &kind, caching, request)
}

fn answer(file: EmbeddedFile, kind: &str, caching: &'static str, request: &Request) -> Response {
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let has_it = request.headers().get_all(header::IF_NONE_MATCH).iter().any(|value| {
        // a compressed answer's tag comes back marked as weak
        value.to_str().is_ok_and(|tags| tags.split(',').any(|t| t.trim().trim_start_matches("W/") == tag))
    });
    let headers =
        [(header::CONTENT_TYPE, kind.to_owned()), (header::CACHE_CONTROL, caching.to_owned()), (header::ETAG, tag)];
    if has_it { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, file.data).into_response() }
}
