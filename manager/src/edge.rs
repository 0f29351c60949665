//! The way from a browser to a desktop's proxy: the websocket handshake is checked here and answered
//! by the proxy, then bytes pass unseen.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use uuid::Uuid;
use yunju_protocol::viewer::{self, May};

use crate::api::access::{Caller, Found, Via};
use crate::api::problem::Refusal;
use crate::folder::Folder;
use crate::http;
use crate::model::{self, By, ShareKind, Watcher};
use crate::service::{Revoked, Service};
use crate::store::{Desktop, Opening};
use crate::viewers::{Stream, Viewer};

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
    let pass = Pass::new(&service, &caller, &desktop)?;
    match service.machines.state(desktop.id) {
        model::State::Stopped => {
            return Err(Refusal::conflict(format!("`{}` does not run: start it first", desktop.name)));
        }
        model::State::Suspended | model::State::Suspending if !pass.viewer.may.input => {
            return Err(Refusal::conflict(format!("`{}` sleeps, and who only looks does not wake it", desktop.name)));
        }
        _ => {}
    }
    let viewer = service.viewers.enter(desktop.id, pass.watcher.clone());
    service.machines.wake(desktop.id).await?;
    splice(&service, desktop.id, "/", request, (pass, Some(viewer))).await
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
    let pass = Pass::new(service, caller, &desktop)?;
    if path == "/audio" && !pass.viewer.may.sound {
        return Err(Refusal::forbidden("sound is not shared with you"));
    }
    splice(service, desktop.id, path, request, (pass, None)).await
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
    (pass, viewer): (Pass, Option<Viewer>),
) -> Result<Response, Refusal> {
    let socket = Folder::of(&service.data, desktop).run_file("websocket.sock");
    let answer =
        tokio::time::timeout(Duration::from_secs(10), ask_proxy(&socket, path, request.headers(), &pass.viewer)).await;
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
        let _there = (viewer, pass.stream);
        tokio::select! {
            _ = copy_bidirectional_with_sizes(&mut browser, &mut proxy, BUFFER, BUFFER) => {}
            () = pass.grant.ended() => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    hand_on(answer.headers(), response.headers_mut());
    Ok(response)
}

/// Passes a handshake on. A proxy that was only just started may not listen yet.
async fn ask_proxy(
    socket: &FilePath,
    path: &'static str,
    headers: &HeaderMap,
    viewer: &viewer::Viewer,
) -> Result<Response<Incoming>, http::Error> {
    let until = tokio::time::Instant::now() + PROXY_LIMIT;
    loop {
        let mut onward = hyper::Request::new(Full::<Bytes>::default());
        *onward.uri_mut() = Uri::from_static(path);
        hand_on(headers, onward.headers_mut());
        for (name, value) in viewer.headers() {
            let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("?"));
            onward.headers_mut().insert(HeaderName::from_static(name), value);
        }
        onward.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        match http::send(socket, onward).await {
            Err(http::Error::Connect { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            answer => return answer,
        }
    }
}

fn hand_on(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &PASSED {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// Who comes, what they may, and for how long.
struct Pass {
    watcher: Watcher,
    viewer: viewer::Viewer,
    grant: Grant,
    stream: Stream,
}

impl Pass {
    fn new(service: &Service, caller: &Caller, desktop: &Desktop) -> Result<Self, Refusal> {
        // a session's cookie comes along with whatever page of the portal asks: screens are on host names of their own
        if matches!(caller.via(), Via::Session(_)) {
            return Err(Refusal::invalid("a desktop's screen is reached on its own host name: open it first"));
        }
        let grant = Grant::new(service, caller, desktop.id);
        // whoever ended the right before the grant began is not missed
        if let Via::Desk(opening) = caller.via()
            && service.store.opening(&opening.token_hash)?.is_none()
        {
            return Err(Refusal::login_needed());
        }
        let stream = service
            .viewers
            .stream(&grant.credential)
            .ok_or_else(|| Refusal::limit("enough is open by this login already: close some of it"))?;
        let watcher = watcher(caller, desktop);
        let viewer = viewer::Viewer::new(&watcher.name, may(caller));
        Ok(Self { watcher, viewer, grant, stream })
    }
}

/// How a caller who looks at a desktop is shown to others.
pub fn watcher(caller: &Caller, desktop: &Desktop) -> Watcher {
    let (by, share) = match caller.via() {
        Via::Local => (By::Local, None),
        Via::Desk(opening) if opening.share.is_some() => (By::Share, opening.share.as_ref().map(|share| share.id)),
        _ if caller.user().is_some_and(|user| user.id == desktop.owner_id) => (By::Owner, None),
        _ => (By::Admin, None),
    };
    Watcher { name: caller.name().to_owned(), by, share, input: may(caller).input, since: Timestamp::now() }
}

/// What a caller may with the desktop that they look at.
pub fn may(caller: &Caller) -> May {
    match caller.via() {
        Via::Desk(opening) => may_by(opening),
        Via::Local | Via::Session(_) | Via::Token(_) => May::default(),
    }
}

fn may_by(opening: &Opening) -> May {
    let Some(share) = &opening.share else { return May::default() };
    match share.kind {
        ShareKind::Copy => May::NOTHING,
        kind => May { input: kind == ShareKind::Control, clipboard: share.clipboard, sound: share.sound },
    }
}

/// A caller's right to an open stream, which can end before the stream does.
#[derive(Debug)]
pub struct Grant {
    desktop: Uuid,
    /// What was shown: a token of some kind, by its hash; empty for a local process.
    credential: Vec<u8>,
    /// The login behind that.
    session: Option<Vec<u8>>,
    share: Option<Uuid>,
    /// Who looks, and who lets them.
    users: Vec<Uuid>,
    expires: Option<Timestamp>,
    revoked: Receiver<Revoked>,
}

impl Grant {
    /// Begins before the stream, so that nothing is missed.
    pub fn new(service: &Service, caller: &Caller, desktop: Uuid) -> Self {
        let mut grant = Self {
            desktop,
            credential: Vec::new(),
            session: None,
            share: None,
            users: caller.user().map(|user| user.id).into_iter().collect(),
            expires: None,
            revoked: service.revoked.subscribe(),
        };
        match caller.via() {
            Via::Local => {}
            Via::Session(session) => {
                (grant.credential, grant.expires) = (session.token_hash.clone(), Some(session.expires));
            }
            Via::Token(token) => (grant.credential, grant.expires) = (token.token_hash.clone(), Some(token.expires)),
            Via::Desk(opening) => {
                (grant.credential, grant.expires) = (opening.token_hash.clone(), Some(opening.expires));
                grant.session = opening.session.as_ref().map(|session| session.token_hash.clone());
                grant.share = opening.share.as_ref().map(|share| share.id);
                grant.users.extend(opening.share.as_ref().map(|share| share.made_by));
            }
        }
        grant
    }

    /// Waits for the end of the right.
    pub async fn ended(mut self) {
        let left = self.expires.map(|expires| {
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
                    Ok(what) if !self.concerned_by(&what) => {}
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

    fn concerned_by(&self, what: &Revoked) -> bool {
        let shows = |hash: &Vec<u8>| self.credential == *hash || self.session.as_ref() == Some(hash);
        match what {
            Revoked::Desktop(id) => *id == self.desktop,
            Revoked::Credential(hash) => shows(hash),
            Revoked::User(user, keep) => self.users.contains(user) && !keep.as_ref().is_some_and(shows),
            Revoked::Share(id) => self.share == Some(*id),
        }
    }
}
