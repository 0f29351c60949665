//! The way from a browser to a desktop's proxy: the websocket handshake is checked here and answered
//! by the proxy, then bytes pass unseen.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use uuid::Uuid;

use crate::api::access::{Caller, Found, Via};
use crate::api::problem::Refusal;
use crate::folder::Folder;
use crate::http;
use crate::model;
use crate::service::{Revoked, Service};
use crate::store::Desktop;
use crate::viewers::Viewer;

/// What of a handshake reaches the proxy and comes back; no cookie, no origin.
const PASSED: [HeaderName; 7] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_ACCEPT,
];

/// Bytes that wait in each direction when the other side is slower.
const BUFFER: usize = 64 << 10;

/// A proxy listens within this after its start.
const PROXY_LIMIT: Duration = Duration::from_secs(5);

/// `GET /desktops/{desktop}/ws`: who opens the page of a desktop that sleeps wakes it.
pub async fn websocket(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Found(desktop): Found<Desktop>,
    request: Request,
) -> Result<Response, Refusal> {
    for_websocket(&request)?;
    if service.machines.state(desktop.id) == model::State::Stopped {
        return Err(Refusal::conflict(format!("`{}` does not run: start it first", desktop.name)));
    }
    let grant = Grant::new(&service, &caller, desktop.id);
    let viewer = service.viewers.enter(desktop.id);
    service.machines.wake(desktop.id).await?;
    splice(&service, desktop.id, "/", request, (grant, Some(viewer))).await
}

/// `GET /desktops/{desktop}/ws/audio`: sound.
pub async fn audio(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Found(desktop): Found<Desktop>,
    request: Request,
) -> Result<Response, Refusal> {
    beside(&service, &caller, desktop, "/audio", request).await
}

/// `GET /desktops/{desktop}/ws/io`: what a browser and the guest tell each other beside RFB.
pub async fn io(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Found(desktop): Found<Desktop>,
    request: Request,
) -> Result<Response, Refusal> {
    beside(&service, &caller, desktop, "/io", request).await
}

/// A stream beside the screen's: it neither wakes a desktop nor keeps it awake.
async fn beside(
    service: &Service,
    caller: &Caller,
    desktop: Desktop,
    path: &'static str,
    request: Request,
) -> Result<Response, Refusal> {
    for_websocket(&request)?;
    if service.machines.state(desktop.id) != model::State::Running {
        return Err(Refusal::conflict(format!("`{}` does not run: open its screen first", desktop.name)));
    }
    let grant = Grant::new(service, caller, desktop.id);
    splice(service, desktop.id, path, request, (grant, None)).await
}

fn for_websocket(request: &Request) -> Result<(), Refusal> {
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Ok(());
    }
    Err(Refusal::invalid("this address is for a websocket"))
}

/// Joins the browser's websocket with one of the proxy's for as long as the grant lasts.
async fn splice(
    service: &Service,
    desktop: Uuid,
    path: &'static str,
    mut request: Request,
    (grant, viewer): (Grant, Option<Viewer>),
) -> Result<Response, Refusal> {
    let socket = Folder::of(&service.data, desktop).run_file("websocket.sock");
    let answer = tokio::time::timeout(Duration::from_secs(10), ask_proxy(&socket, path, request.headers())).await;
    let mut answer = answer.map_err(|_| Refusal::upstream("the desktop's proxy does not answer"))??;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::NOT_FOUND => return Err(Refusal::not_found("stream", path)),
        status => return Err(Refusal::upstream(format!("the desktop's proxy answers {status}"))),
    }
    let (browser, proxy) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        let (Ok(browser), Ok(proxy)) = tokio::join!(browser, proxy) else { return };
        let (mut browser, mut proxy) = (TokioIo::new(browser), TokioIo::new(proxy));
        let _viewer = viewer;
        tokio::select! {
            _ = copy_bidirectional_with_sizes(&mut browser, &mut proxy, BUFFER, BUFFER) => {}
            () = grant.ended() => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    pass(answer.headers(), response.headers_mut());
    Ok(response)
}

/// Passes a handshake on. A proxy that was only just started may not listen yet.
async fn ask_proxy(
    socket: &FilePath,
    path: &'static str,
    headers: &HeaderMap,
) -> Result<Response<Incoming>, http::Error> {
    let until = tokio::time::Instant::now() + PROXY_LIMIT;
    loop {
        let mut onward = hyper::Request::new(Full::<Bytes>::default());
        *onward.uri_mut() = Uri::from_static(path);
        pass(headers, onward.headers_mut());
        onward.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        match http::send(socket, onward).await {
            Err(http::Error::Connect { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            answer => return answer,
        }
    }
}

fn pass(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &PASSED {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// A caller's right to an open stream, which can end before the stream does.
#[derive(Debug)]
pub struct Grant {
    desktop: Uuid,
    session: Option<(Vec<u8>, Uuid, Timestamp)>,
    revoked: Receiver<Revoked>,
}

impl Grant {
    /// Begins before the stream, so that nothing is missed.
    pub fn new(service: &Service, caller: &Caller, desktop: Uuid) -> Self {
        let session = match caller.via() {
            Via::Local => None,
            Via::Session(session) => Some((session.token_hash.clone(), session.user.id, session.expires)),
            Via::Token(token) => Some((token.token_hash.clone(), token.user.id, token.expires)),
        };
        Self { desktop, session, revoked: service.revoked.subscribe() }
    }

    /// Waits for the end of the right.
    pub async fn ended(mut self) {
        let left = self.session.as_ref().map(|(_, _, expires)| {
            let seconds = expires.as_second() - Timestamp::now().as_second();
            Duration::from_secs(seconds.max(0).unsigned_abs())
        });
        let expiry = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let revocation = async {
            loop {
                match self.revoked.recv().await {
                    Ok(what) if !concerns(&what, self.desktop, self.session.as_ref()) => {}
                    // a revocation may be among those missed: the browser comes back if it still may
                    Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        };
        tokio::select! {
            () = expiry => {}
            () = revocation => {}
        }
    }
}

fn concerns(what: &Revoked, desktop: Uuid, session: Option<&(Vec<u8>, Uuid, Timestamp)>) -> bool {
    match what {
        Revoked::Desktop(id) => *id == desktop,
        Revoked::Credential(hash) => session.is_some_and(|(own, _, _)| own == hash),
        Revoked::User(user, keep) => {
            session.is_some_and(|(own, id, _)| id == user && keep.as_ref().is_none_or(|keep| keep != own))
        }
    }
}
