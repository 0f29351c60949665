//! The pages: files of `manager/web/pages`, and noVNC as its package brings it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
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
use crate::origins::{Origins, Place};
use crate::service::Service;

#[derive(RustEmbed)]
#[folder = "web/pages"]
struct Pages;

#[derive(RustEmbed)]
#[folder = "web/node_modules/@novnc/novnc"]
struct Novnc;

/// Nothing but our own files runs, is shown, or frames us. noVNC draws JPEG from `data:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'";

/// What a page may not, unless it is said here: everything that browsers ask people for.
const DENIED: &str = "accelerometer=(), browsing-topics=(), camera=(), \
    display-capture=(), encrypted-media=(), geolocation=(), gyroscope=(), hid=(), idle-detection=(), local-fonts=(), magnetometer=(), midi=(), \
    payment=(), picture-in-picture=(), publickey-credentials-create=(self), publickey-credentials-get=(self), screen-wake-lock=(), serial=(), \
    storage-access=(), usb=(), window-management=(), xr-spatial-tracking=()";

/// What the page of a desktop uses; the portal hands it on to that page in its frame, and has no use for it itself.
pub const LENT: [&str; 7] =
    ["autoplay", "clipboard-read", "clipboard-write", "fullscreen", "gamepad", "keyboard-map", "microphone"];

/// Pages and assets.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("page.desktops", "/", Action::Look, "The desktops", portal),
        Route::get("page.windows", "/windows", Action::Look, "Several desktops side by side", portal),
        Route::get("page.account", "/account", Action::Look, "The own account", portal),
        Route::get("page.admin", "/admin/{page}", Action::Look, "Administration", portal),
        Route::get("page.login", "/login", Action::Look, "Logging in", login),
        Route::get(
            "page.desktop",
            "/desktops/{desktop}",
            Action::Look,
            "A desktop's screen: in a frame on the portal, itself on its own host name",
            desktop,
        ),
        Route::get("page.shared", "/shared", Action::Look, "Where the links of shares lead to", shared),
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
pub async fn security_headers(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let place = request.extensions().get::<Place>().cloned();
    let framing = request.uri().path().starts_with("/desktops/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let (policy, permissions, resource) = policies(&service.origins, place.as_ref(), framing);
    for (name, value) in [
        ("content-security-policy", policy.as_str()),
        ("permissions-policy", &permissions),
        ("cross-origin-resource-policy", resource),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("origin-agent-cluster", "?1"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The content policy, the permissions and who may embed: the portal's page of a desktop shows only desktops, a desktop is
/// shown only by the portal, and nothing else is shown by anybody.
fn policies(origins: &Origins, place: Option<&Place>, framing: bool) -> (String, String, &'static str) {
    let lent = |who: &str| LENT.map(|feature| format!("{feature}=({who})")).join(", ");
    match place {
        Some(Place::Desk { authority, .. }) => {
            let policy = format!("{POLICY}; frame-ancestors{}", origins.framers(authority));
            // the portal is another origin, and needs to be told that it may embed this
            (policy, format!("{DENIED}, {}", lent("self")), if framing { "cross-origin" } else { "same-origin" })
        }
        Some(Place::Portal { authority }) if framing => {
            let desks = origins.framed(authority);
            let policy = format!("{POLICY}; frame-src{desks}; frame-ancestors 'none'");
            let quoted: Vec<_> = desks.split_whitespace().map(|desk| format!("\"{desk}\"")).collect();
            (policy, format!("{DENIED}, {}", lent(&format!("self {}", quoted.join(" ")))), "same-origin")
        }
        _ => (format!("{POLICY}; frame-ancestors 'none'"), format!("{DENIED}, {}", lent("")), "same-origin"),
    }
}

async fn login(request: Request) -> Response {
    page("login.html", &request)
}

async fn portal(request: Request) -> Response {
    // one document, whose modules show what its address says
    for_users("portal.html", request)
}

/// On the portal a frame, on a desktop's own host name the desktop, or the door to it. Whether there is such a desktop, and it is theirs,
/// is for the API to say.
async fn desktop(place: Place, request: Request) -> Response {
    match place {
        Place::Desk { .. } if request.extensions().get::<Caller>().is_none() => page("door.html", &request),
        Place::Desk { .. } => page("desktop.html", &request),
        _ => for_users("frame.html", request),
    }
}

async fn shared(request: Request) -> Response {
    page("shared.html", &request)
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
