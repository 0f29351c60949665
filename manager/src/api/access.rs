//! Who asks, and what they may.
//!
//! A request comes from a browser over TCP, where a session cookie says who it is and `Origin` that one
//! of our pages sent it; from a program that shows an API token; or from a process on this host through the service's Unix socket, where the
//! kernel says that it is the same user or root: that caller may do everything. What the others may is for
//! [`crate::auth::authorize`] to say, which [`permit`] asks before each handler.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use uuid::Uuid;

use super::audit::Done;
use super::idempotency;
use super::problem::Refusal;
use super::request::RequestId;
use super::trash::Trashed;
use crate::auth;
use crate::auth::authorize::{Action, Actor, Denial, Resource, authorize};
use crate::auth::rate::Who;
use crate::model::Scope;
use crate::origins::{self, Place};
use crate::service::Service;
use crate::store::{Desktop, Opening, Session, Share, Token, User};
use crate::tls;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// A process on this host that runs as this user.
    Local(Option<u32>),
    /// Somebody on the network.
    Remote(IpAddr),
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::Local(stream.io().peer_cred().ok().map(|credentials| credentials.uid()))
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let address: &SocketAddr = stream.remote_addr();
        Self::Remote(address.ip())
    }
}

impl Connected<IncomingStream<'_, tls::Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tls::Listener>) -> Self {
        let address: &SocketAddr = stream.remote_addr();
        Self::Remote(address.ip())
    }
}

/// Somebody who is known.
#[derive(Debug, Clone)]
pub struct Caller {
    via: Via,
    actor: Actor,
}

/// How it is known who they are.
#[derive(Debug, Clone)]
pub enum Via {
    /// The kernel says so.
    Local,
    /// By the session of a browser.
    Session(Session),
    /// By an API token.
    Token(Token),
    /// By the cookie of a desktop's own host name.
    Desk(Box<Opening>),
}

impl Caller {
    /// A process of the service's own user, or of root.
    pub const LOCAL: Self = Self { via: Via::Local, actor: Actor::Local };

    fn user_by(via: Via, user: &User, scopes: Option<Vec<Scope>>, service: &Service) -> Result<Self, Refusal> {
        let roles = service.store.roles(user)?;
        let actor = Actor::User { id: user.id, roles, must_change: user.must_change, scopes };
        Ok(Self { via, actor })
    }

    /// Who asks, if anybody says so. A token that is shown counts alone, whatever cookie comes with it.
    pub fn identify(parts: &Parts, service: &Service) -> Result<Option<Self>, Refusal> {
        match peer(parts)? {
            Peer::Local(Some(uid)) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Ok(Some(Self::LOCAL)),
            Peer::Local(_) => Err(Refusal::forbidden("this socket is for the service's own user and root")),
            Peer::Remote(_) if matches!(place(parts)?, Place::Desk { .. }) => Self::of_desk(parts, service),
            Peer::Remote(_) if parts.headers.contains_key(header::AUTHORIZATION) => {
                let Some(token) = bearer(&parts.headers) else { return Ok(None) };
                let Some(token) = service.store.token(&auth::token_hash(token))? else { return Ok(None) };
                let (user, scopes) = (token.user.clone(), token.scopes.clone());
                Self::user_by(Via::Token(token), &user, Some(scopes), service).map(Some)
            }
            Peer::Remote(_) => {
                let Some(token) = origins::session_token(&parts.headers) else { return Ok(None) };
                let Some(session) = service.store.session(&auth::token_hash(token))? else { return Ok(None) };
                let user = session.user.clone();
                Self::user_by(Via::Session(session), &user, None, service).map(Some)
            }
        }
    }

    /// On the host name of a desktop only the cookie of that counts.
    fn of_desk(parts: &Parts, service: &Service) -> Result<Option<Self>, Refusal> {
        let Place::Desk { label, .. } = place(parts)? else { return Ok(None) };
        let Some(token) = origins::desk_token(&parts.headers) else { return Ok(None) };
        let opening = service.store.opening(&auth::token_hash(token))?.filter(|opening| opening.label == *label);
        let Some(opening) = opening else { return Ok(None) };
        let user = opening.session.as_ref().map(|session| session.user.clone());
        match user.filter(|_| opening.share.is_none()) {
            Some(user) => Self::user_by(Via::Desk(Box::new(opening)), &user, None, service).map(Some),
            None => Ok(Some(Self { via: Via::Desk(Box::new(opening)), actor: Actor::Guest })),
        }
    }

    /// How it is known who they are.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The user, unless it is a local process.
    pub fn user(&self) -> Option<&User> {
        match &self.via {
            Via::Local => None,
            Via::Session(session) => Some(&session.user),
            Via::Token(token) => Some(&token.user),
            Via::Desk(opening) => opening.session.as_ref().map(|session| &session.user),
        }
    }

    /// What they are called where people read it.
    pub fn name(&self) -> &str {
        match (&self.via, self.user()) {
            (Via::Desk(opening), _) => &opening.name,
            (_, Some(user)) => &user.name,
            (_, None) => "local",
        }
    }

    /// Whether the caller may do something.
    pub fn may(&self, action: Action, resource: Resource) -> Result<(), Denial> {
        authorize(&self.actor, action, resource)
    }

    /// Whose desktops the caller sees; `None` is everybody's.
    pub fn sees(&self) -> Option<Uuid> {
        let somebody = Resource::Of(Uuid::nil()); // nobody has this id
        let all = self.may(Action::SeeDesktop, somebody).is_ok();
        self.user().filter(|_| !all).map(|user| user.id)
    }
}

/// What stands before a route's handler.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The service.
    pub service: Arc<Service>,
    /// What a caller must be allowed to do.
    pub action: Action,
    /// What the route is called.
    pub operation: &'static str,
}

/// Before each handler: who asks, what they ask about, and whether they may. What was found is handed on. After it: the
/// audit log.
pub async fn permit(State(gate): State<Gate>, request: Request, next: Next) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let peer = peer(&parts)?;
    let (mut caller, mut resource) = (None, String::new());
    let id = parts.extensions.get::<RequestId>().cloned().unwrap_or_default();
    let method = parts.method.clone();
    let begun = Instant::now();
    let response = match admit(&gate, &mut parts, &mut caller, &mut resource).await {
        Ok(()) => {
            let once = method == Method::POST && parts.headers.contains_key(idempotency::KEY);
            let request = Request::from_parts(parts, body);
            match caller.as_ref().filter(|_| once) {
                Some(caller) => {
                    let actor = match (caller.user(), caller.via()) {
                        (Some(user), _) => user.id.to_string(),
                        (None, Via::Desk(opening)) => format!("guest {}", opening.name),
                        (None, _) => "local".to_owned(),
                    };
                    idempotency::once(gate.service.clone(), actor, gate.operation, request, next).await
                }
                None => next.run(request).await,
            }
        }
        Err(refusal) => refusal.into_response(),
    };
    let Gate { service, action, operation } = gate;
    let done = Done { method: &method, operation, action, peer, caller: caller.as_ref(), resource, request: &id };
    done.record(&service, &response);
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    service.requests.answered(operation, status, took);
    tracing::debug!(operation, status, ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "answered");
    Ok(response)
}

/// Finds out who asks and what they ask about, and decides.
async fn admit(gate: &Gate, parts: &mut Parts, caller: &mut Option<Caller>, about: &mut String) -> Result<(), Refusal> {
    let Gate { service, action, operation } = gate;
    let place = place(parts)?.clone();
    let elsewhere = || Refusal::not_found("page", parts.uri.path());
    if matches!(place, Place::Desk { .. }) && !origins::is_there(&place, operation) {
        return Err(elsewhere());
    }
    *caller = Caller::identify(parts, service)?;
    let nobody = Actor::Nobody;
    let actor = caller.as_ref().map_or(&nobody, Caller::actor);
    if *action != Action::Look {
        within_rate(service, parts, caller.as_ref())?;
    }
    // who is not known learns nothing by how long it takes to find something
    authorize(actor, *action, Resource::Service).map_err(|denial| Refusal::denied(denial, "page", ""))?;
    if !origins::is_there(&place, operation) {
        return Err(elsewhere());
    }
    if let Some((kind, name, mut resource)) = find(service, parts, *action, caller.as_ref()).await? {
        *about = format!("{kind} {}", name.chars().take(64).collect::<String>());
        if let Some(caller) = caller.as_ref() {
            resource = seen_by(service, caller, parts, *action, resource)?;
        }
        authorize(actor, *action, resource).map_err(|denial| Refusal::denied(denial, kind, &name))?;
    }
    if let Some(caller) = caller {
        parts.extensions.insert(caller.clone());
    }
    Ok(())
}

/// What the thing that a path names is for this caller: on a desktop's host name there is no other desktop, and what is shared with
/// somebody is not merely somebody else's. The share is kept beside the thing.
fn seen_by(
    service: &Service,
    caller: &Caller,
    parts: &mut Parts,
    action: Action,
    resource: Resource,
) -> Result<Resource, Refusal> {
    let about = parts.extensions.get::<Desktop>().map(|desktop| desktop.id);
    let about = about.or_else(|| parts.extensions.get::<Share>().map(|share| share.desktop));
    let Some(desktop) = about else { return Ok(resource) };
    match (caller.via(), caller.actor()) {
        (Via::Desk(opening), _) if opening.desktop != desktop => Ok(Resource::Missing),
        (Via::Desk(_), Actor::Guest) => Ok(Resource::Shared),
        (Via::Session(_), Actor::User { id, .. }) if caller.may(action, resource).is_err() => {
            let Some(share) = service.store.share_with(desktop, *id)? else { return Ok(resource) };
            parts.extensions.insert(share);
            Ok(Resource::Shared)
        }
        _ => Ok(resource),
    }
}

/// Where a request came in.
fn place(parts: &Parts) -> Result<&Place, Refusal> {
    parts.extensions.get::<Place>().ok_or_else(|| Refusal::internal("a request that came in nowhere"))
}

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        place(parts).cloned()
    }
}

/// Refuses who asks too often. Local processes may.
fn within_rate(service: &Service, parts: &Parts, caller: Option<&Caller>) -> Result<(), Refusal> {
    let who = match (peer(parts)?, caller.and_then(Caller::user)) {
        (Peer::Local(_), _) => return Ok(()),
        (Peer::Remote(_), Some(user)) => Who::User(user.id),
        (Peer::Remote(address), None) => Who::Address(address),
    };
    service.rate.take(who).map_err(|wait| Refusal::too_fast(wait.as_secs() + 1))
}

/// What the path names: its kind, its name, and whose it is. The thing itself goes into the extensions.
async fn find(
    service: &Arc<Service>,
    parts: &mut Parts,
    action: Action,
    caller: Option<&Caller>,
) -> Result<Option<(&'static str, String, Resource)>, Refusal> {
    if matches!(action, Action::Look | Action::Enter) {
        return Ok(None);
    }
    let named = RawPathParams::from_request_parts(parts, service).await;
    let named = named.map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
    let Some((kind, name)) = named.iter().next().map(|(kind, name)| (kind.to_owned(), name.to_owned())) else {
        return Ok(None);
    };
    let of = |owner: Option<Uuid>| owner.map_or(Resource::Missing, Resource::Of);
    Ok(match kind.as_str() {
        "desktop" => {
            let found = match Uuid::parse_str(&name) {
                Ok(id) => service.store.desktop(id)?,
                Err(_) => service.store.desktop_named(&name)?,
            };
            let found = found.filter(|desktop| !desktop.owner_id.is_nil() && desktop.deleted.is_none());
            Some(("desktop", name, of(keep(parts, found, |desktop| desktop.owner_id))))
        }
        // by name it is the newest of those that the caller sees
        "trashed" => {
            let deleted = service.store.deleted(caller.and_then(Caller::sees))?;
            let id = Uuid::parse_str(&name).ok();
            let found = deleted.into_iter().find(|desktop| Some(desktop.id) == id || desktop.name == name);
            Some(("deleted desktop", name, of(keep(parts, found.map(Trashed), |desktop| desktop.0.owner_id))))
        }
        "user" => {
            let found = service.store.user_named(&name)?;
            Some(("user", name, of(keep(parts, found, |user| user.id))))
        }
        "session" => {
            let found = service.store.session_by_id(&name)?;
            Some(("session", name, of(keep(parts, found, |session| session.user.id))))
        }
        "token" => {
            let found = service.store.token_by_id(&name)?;
            Some(("token", name, of(keep(parts, found, |token| token.user.id))))
        }
        "operation" => {
            let found = service.store.operation(&name)?;
            Some(("operation", name, of(keep(parts, found, |operation| operation.owner_id))))
        }
        "share" => {
            let found = service.store.share(&name)?;
            Some(("share", name, of(keep(parts, found, |share| share.owner_id))))
        }
        "group" => {
            let found = service.store.group_named(&name)?;
            let there = keep(parts, found, |_| ()).map_or(Resource::Missing, |()| Resource::Service);
            Some(("group", name, there))
        }
        _ => None,
    })
}

fn keep<T: Clone + Send + Sync + 'static, O>(
    parts: &mut Parts,
    found: Option<T>,
    owner: impl Fn(&T) -> O,
) -> Option<O> {
    let found = found?;
    let owner = owner(&found);
    parts.extensions.insert(found);
    Some(owner)
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::login_needed)
    }
}

/// What the path names, which the caller may do this with.
#[derive(Debug)]
pub struct Found<T>(pub T);

impl<T: Clone + Send + Sync + 'static, S: Sync> FromRequestParts<S> for Found<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let found = parts.extensions.get::<T>().cloned();
        found.map(Self).ok_or_else(|| Refusal::internal("a route without the thing that it is about"))
    }
}

/// A caller with a session, even one who has yet to choose a password.
#[derive(Debug)]
pub struct LoggedIn(pub Session);

impl<S: Sync> FromRequestParts<S> for LoggedIn {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Caller::from_request_parts(parts, state).await?.via {
            Via::Session(session) => Ok(Self(session)),
            Via::Local | Via::Token(_) | Via::Desk(_) => {
                Err(Refusal::invalid("this is for who is logged in with a session"))
            }
        }
    }
}

/// The other end of a request's connection.
pub fn peer(parts: &Parts) -> Result<Peer, Refusal> {
    let info = parts.extensions.get::<ConnectInfo<Peer>>();
    info.map(|info| info.0).ok_or_else(|| Refusal::internal("a request without a connection"))
}

/// RFC 6750 §2.1
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses what a page of somebody else's made a browser send: everything that changes something, and
/// every upgrade, must come from our own origin. A token is not sent by a browser by itself: who shows one may come from anywhere.
pub async fn own_pages_only(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let harmless = matches!(parts.method, Method::GET | Method::HEAD) && !parts.headers.contains_key(header::UPGRADE);
    // on a desktop's host name no token counts, so none makes a difference
    let shows_token =
        parts.headers.contains_key(header::AUTHORIZATION) && !matches!(place(&parts)?, Place::Desk { .. });
    if !harmless && !shows_token && matches!(peer(&parts)?, Peer::Remote(_)) && !from_own_origin(&service, &parts)? {
        return Err(Refusal::forbidden("this request did not come from a page of this service"));
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// The page that sent it has the scheme, host and port that the request went to: a desktop's page is not the portal's, nor another's.
fn from_own_origin(service: &Service, parts: &Parts) -> Result<bool, Refusal> {
    let mut origins = parts.headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().filter(|_| origins.next().is_none()).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (origin, origins::authority(&parts.headers, &parts.uri)) else { return Ok(false) };
    // browsers say this too, and cannot be made not to
    let site = parts.headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    Ok(site && service.origins.may_be(place(parts)?, origin, host))
}
