//! Who asks, and what they may.
//!
//! A request comes from a browser over TCP, where a session cookie says who it is and `Origin` that one
//! of our pages sent it; or from a process on this host through the service's Unix socket, where the
//! kernel says that it is the same user or root: that caller is an admin.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use uuid::Uuid;

use super::problem::Refusal;
use crate::auth;
use crate::model::Role;
use crate::service::Service;
use crate::store::{Desktop, Session, User};

/// The session cookie's name.
pub const COOKIE: &str = "yunju_session";

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

/// Somebody who is known.
#[derive(Debug, Clone)]
pub enum Caller {
    /// A process of the service's own user, or of root.
    Local,
    /// A user in a browser.
    Session(Session),
}

impl Caller {
    /// May do everything?
    pub fn is_admin(&self) -> bool {
        match self {
            Self::Local => true,
            Self::Session(session) => session.user.role == Role::Admin,
        }
    }

    /// The user, unless it is a local process.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Local => None,
            Self::Session(session) => Some(&session.user),
        }
    }

    /// Whose desktops the caller sees; `None` is everybody's.
    pub fn sees(&self) -> Option<Uuid> {
        if self.is_admin() { None } else { self.user().map(|user| user.id) }
    }

    /// The desktop called or numbered `reference`, if the caller may have it. Those of others look like none.
    pub fn desktop(&self, service: &Service, reference: &str) -> Result<Desktop, Refusal> {
        let found = match Uuid::parse_str(reference) {
            Ok(id) => service.store.desktop(id)?,
            Err(_) => service.store.desktop_named(reference)?,
        };
        found
            .filter(|desktop| !desktop.owner_id.is_nil())
            .filter(|desktop| self.sees().is_none_or(|user| user == desktop.owner_id))
            .ok_or_else(|| Refusal::not_found("desktop", reference))
    }

    /// Who asks, even if they have yet to choose a password.
    pub fn identify(parts: &Parts, service: &Service) -> Result<Self, Refusal> {
        match peer(parts)? {
            Peer::Local(Some(uid)) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Ok(Self::Local),
            Peer::Local(_) => Err(Refusal::forbidden("this socket is for the service's own user and root")),
            Peer::Remote(_) => {
                let token = cookie(&parts.headers).ok_or_else(Refusal::login_needed)?;
                let session = service.store.session(&auth::token_hash(token))?;
                session.map(Self::Session).ok_or_else(Refusal::login_needed)
            }
        }
    }
}

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        let caller = Self::identify(parts, service)?;
        match caller.user() {
            Some(user) if user.must_change => Err(Refusal::password_change_needed()),
            _ => Ok(caller),
        }
    }
}

/// A caller who may do everything.
#[derive(Debug)]
pub struct Admin;

impl FromRequestParts<Arc<Service>> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, service).await?;
        if caller.is_admin() { Ok(Self) } else { Err(Refusal::forbidden("only an admin may do this")) }
    }
}

/// A caller with a session, even one who has yet to choose a password.
#[derive(Debug)]
pub struct LoggedIn(pub Session);

impl FromRequestParts<Arc<Service>> for LoggedIn {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        match Caller::identify(parts, service)? {
            Caller::Session(session) => Ok(Self(session)),
            Caller::Local => Err(Refusal::invalid("a local caller has no session")),
        }
    }
}

/// The other end of a request's connection.
pub fn peer(parts: &Parts) -> Result<Peer, Refusal> {
    let info = parts.extensions.get::<ConnectInfo<Peer>>();
    info.map(|info| info.0).ok_or_else(|| Refusal::internal("a request without a connection"))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Refuses what a page of somebody else's made a browser send: everything that changes something, and
/// every upgrade, must come from our own origin.
pub async fn own_pages_only(State(_): State<Arc<Service>>, request: Request, next: Next) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let harmless = matches!(parts.method, Method::GET | Method::HEAD) && !parts.headers.contains_key(header::UPGRADE);
    if !harmless && matches!(peer(&parts)?, Peer::Remote(_)) && !from_own_origin(&parts.headers) {
        return Err(Refusal::forbidden("this request did not come from a page of this service"));
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn from_own_origin(headers: &HeaderMap) -> bool {
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let (Some(origin), Some(host)) = (only(header::ORIGIN), only(header::HOST)) else { return false };
    // behind a proxy that speaks TLS the page's scheme is https
    ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host)) && !host.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_the_exact_own_origin_counts() {
        let host = ("host", "desk.example:8080");
        for origin in ["http://desk.example:8080", "https://desk.example:8080"] {
            assert!(from_own_origin(&headers(&[host, ("origin", origin)])), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://desk.example",
            "http://desk.example:80801",
            "http://evil.example",
            "http://desk.example:8080.evil.example",
            "http://desk.example:8080@evil.example",
            "http://x.desk.example:8080",
            "ftp://desk.example:8080",
            "http://DESK.example:8080",
            "http://desk.example:8080/",
        ] {
            assert!(!from_own_origin(&headers(&[host, ("origin", origin)])), "{origin}");
        }
        assert!(!from_own_origin(&headers(&[host])));
        let own = ("origin", "http://desk.example:8080");
        assert!(!from_own_origin(&headers(&[host, own, ("origin", "http://evil.example")])));
        assert!(!from_own_origin(&headers(&[("host", ""), ("origin", "http://")])));
    }

    #[test]
    fn the_session_cookie_is_found_among_others_by_its_whole_name() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; yunju_session=t; c=d")])), Some("t"));
        assert_eq!(cookie(&headers(&[("cookie", "xyunju_session=t; yunju_sessionx=u")])), None);
        assert_eq!(cookie(&headers(&[("cookie", "yunju_session")])), None);
    }
}
