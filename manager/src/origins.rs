//! Host names. The portal and the API have one, the domain; each desktop that is open has another, `<label>.desk.<domain>`, so that
//! for a browser its page is a stranger to the portal and to every other desktop.
//!
//! A label is made for a login and a desktop, or for one use of a link: 160 random bits. It stays while that lasts, so that a page
//! that is loaded anew has its files cached and its storage, and nothing that a page left behind is found by who comes later.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use std::sync::Arc;

use crate::api::access::Peer;
use crate::api::problem::Refusal;
use crate::service::Service;

/// The domain unless somebody says otherwise: browsers look for `localhost` and all names below it on their own host.
pub const LOCALHOST: &str = "localhost";

/// What is answered on the host name of a desktop, and nothing else; a page that needs more of the API has it added here.
#[rustfmt::skip]
const ON_A_DESK: &[&str] = &[
    "page.desktop", "asset", "asset.novnc", "health",
    "opening.enter", "opening.show",
    "desktop.show", "desktop.watch", "desktop.listen", "desktop.io", "desktop.screenshot", "desktop.viewer.list",
    "desktop.start", "desktop.stop", "desktop.restart", "desktop.suspend", "desktop.resume", "desktop.undo", "desktop.snapshot.take",
    "desktop.share.list", "desktop.share.add", "share.remove",
];

/// What is answered only there.
const ONLY_ON_A_DESK: &[&str] = &["opening.enter", "opening.show"];

/// The service's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    domain: String,
    /// Browsers reach the service by TLS, and not otherwise.
    tls: bool,
}

/// Why a domain is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be the domain: name one with a dot, in lower case, such as desk.example, whose address and that of *.desk.NAME is this host's; or localhost"
)]
pub struct DomainError(String);

/// Where a request came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the domain itself.
    Portal {
        /// With the port, as the browser wrote it.
        authority: String,
    },
    /// At the host name of a desktop that is open, or was.
    Desk {
        /// Its first part.
        label: String,
        /// The portal's.
        authority: String,
    },
    /// At an address, or a name that is not known: the API and the portal are there, but no desktop opens.
    Elsewhere {
        /// It is this host's own address for itself.
        loopback: bool,
        /// With the colon.
        port: String,
    },
    /// At a name below the domain that cannot be a desktop's: nothing is there.
    Nowhere,
}

/// The first part of a host name: 32 of 32 characters.
pub fn label() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

fn is_label(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
}

impl Origins {
    /// The portal is at `domain`.
    pub fn new(domain: &str, tls: bool) -> Result<Self, DomainError> {
        let part = |part: &str| {
            let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            inner && !part.is_empty() && part.len() <= 63 && !part.starts_with('-') && !part.ends_with('-')
        };
        let name = domain.len() <= 200 && domain.contains('.') && domain.split('.').all(part);
        // a name never ends with a number, an address always does
        let numeric = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if domain == LOCALHOST || (name && !numeric) {
            return Ok(Self { domain: domain.to_owned(), tls });
        }
        Err(DomainError(domain.chars().filter(|c| !c.is_control()).take(80).collect()))
    }

    /// The portal's name.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether browsers reach the service by TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Whether browsers find the service by its names without anybody's doing, and only on this host.
    pub fn local(&self) -> bool {
        self.domain == LOCALHOST
    }

    /// Where a request with this authority came in.
    fn place(&self, authority: &str) -> Place {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, format!(":{port}")),
            _ => (authority, String::new()),
        };
        if host == self.domain {
            return Place::Portal { authority: authority.to_owned() };
        }
        let below = host.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.'));
        match below.map(|below| below.strip_suffix(".desk").filter(|label| is_label(label))) {
            Some(Some(label)) => Place::Desk { label: label.to_owned(), authority: format!("{}{port}", self.domain) },
            Some(None) => Place::Nowhere,
            None => {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                Place::Elsewhere { loopback: address.is_ok_and(|address| address.is_loopback()), port }
            }
        }
    }

    /// By which a page of these can have come.
    fn schemes(&self) -> &'static [&'static str] {
        match (self.tls, self.local()) {
            (true, _) => &["https"],
            (false, true) => &["http"],
            // somebody before this service may speak TLS
            (false, false) => &["https", "http"],
        }
    }

    /// The origin of the desktop that is open at a label, for who came to the portal by `origin`.
    pub fn desk(&self, label: &str, origin: &str) -> Option<String> {
        let (scheme, rest) = origin.split_once("://")?;
        let port = rest.strip_prefix(self.domain.as_str())?;
        Some(format!("{scheme}://{label}.desk.{}{port}", self.domain))
    }

    /// What frames may show on the portal's page of a desktop: sources of a content policy, with a space in front of each.
    pub fn framed(&self, authority: &str) -> String {
        let port = authority.strip_prefix(self.domain.as_str()).unwrap_or_default();
        self.schemes().iter().map(|scheme| format!(" {scheme}://*.desk.{}{port}", self.domain)).collect()
    }

    /// Who may show a desktop's page in a frame: the portal, and nobody else.
    pub fn framers(&self, authority: &str) -> String {
        self.schemes().iter().map(|scheme| format!(" {scheme}://{authority}")).collect()
    }

    /// Whether a page at this origin may have been made by this service.
    pub fn may_be(&self, place: &Place, origin: &str, host: &str) -> bool {
        let schemes = match place {
            Place::Elsewhere { .. } => &["https", "http"],
            _ => self.schemes(),
        };
        !host.is_empty()
            && schemes
                .iter()
                .any(|scheme| origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(host))
    }

    /// The attributes of a desktop's cookie, and the name that goes with them.
    pub fn desk_cookie(&self, token: &str, origin: &str, seconds: i64) -> String {
        // below `localhost` the portal is another site; elsewhere it is the same, so that no other site's request has the cookie
        let site = if self.local() { "SameSite=None; Partitioned" } else { "SameSite=Strict" };
        if self.local() || origin.starts_with("https://") {
            format!("{SAFE_DESK_COOKIE}={token}; Secure; HttpOnly; Path=/; Max-Age={seconds}; {site}")
        } else {
            format!("{DESK_COOKIE}={token}; HttpOnly; Path=/; Max-Age={seconds}; {site}")
        }
    }

    /// A portal's cookie.
    pub fn session_cookie(token: &str, origin: &str, seconds: i64) -> String {
        let rest = format!("{token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}");
        if origin.starts_with("https://") {
            format!("{SAFE_COOKIE}={rest}; Secure")
        } else {
            format!("{COOKIE}={rest}")
        }
    }
}

/// The session cookie's name.
pub const COOKIE: &str = "yunju_session";

/// The same where pages come safely: no page of another host name, and none that came otherwise, can set it (RFC 6265bis §4.1.3.2).
pub const SAFE_COOKIE: &str = "__Host-yunju_session";

/// The cookie of an opened desktop's host name.
const DESK_COOKIE: &str = "yunju_desk";

/// The same where pages come safely.
const SAFE_DESK_COOKIE: &str = "__Host-yunju_desk";

/// The token of the session that a request shows.
pub fn session_token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, SAFE_COOKIE).or_else(|| cookie(headers, COOKIE))
}

/// The token of the opened desktop that a request shows.
pub fn desk_token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, SAFE_DESK_COOKIE).or_else(|| cookie(headers, DESK_COOKIE))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The host that a request names, if it names one.
pub fn authority<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        // HTTP/2 says it in the request's target
        (None, None) => uri.authority().map(axum::http::uri::Authority::as_str),
        _ => None,
    }
}

/// Finds out where a request came in, before anything else is done with it.
pub async fn locate(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<axum::extract::ConnectInfo<Peer>>().map(|info| info.0);
    let local = matches!(peer, Some(Peer::Local(_)));
    let origins = &service.origins;
    let place = match authority(request.headers(), request.uri()) {
        _ if local => Place::Portal { authority: origins.domain.clone() },
        Some(authority) => origins.place(authority),
        None => return Refusal::invalid("a request names one host").into_response(),
    };
    match &place {
        Place::Nowhere => return Refusal::not_found("page", request.uri().path()).into_response(),
        // who types the address means the portal, from where desktops open
        Place::Elsewhere { loopback: true, port } if origins.local() && is_visit(&request) => {
            let path = request.uri().path();
            return Redirect::temporary(&format!("http://{LOCALHOST}{port}{path}")).into_response();
        }
        _ => {}
    }
    request.extensions_mut().insert(place);
    next.run(request).await
}

/// Somebody goes to a page, in the browser's own words.
fn is_visit(request: &Request) -> bool {
    request.method() == Method::GET && request.headers().get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
}

/// Whether this operation is answered there.
pub fn is_there(place: &Place, operation: &str) -> bool {
    match place {
        Place::Desk { .. } => ON_A_DESK.contains(&operation),
        _ => !ONLY_ON_A_DESK.contains(&operation),
    }
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
    fn a_host_name_is_the_portals_a_desktops_or_nobodys_by_every_letter_of_it() {
        let origins = Origins::new("cloud.example", false).unwrap();
        let label = label();
        let portal = Place::Portal { authority: "cloud.example:8080".to_owned() };
        assert_eq!(origins.place("cloud.example:8080"), portal);
        let desk = Place::Desk { label: label.clone(), authority: "cloud.example:8080".to_owned() };
        assert_eq!(origins.place(&format!("{label}.desk.cloud.example:8080")), desk);
        for name in [
            "x.desk.cloud.example",
            "desk.cloud.example",
            ".desk.cloud.example",
            "www.cloud.example",
            &format!("{label}.cloud.example"),
            &format!("{label}.app.cloud.example"),
            &format!("x.{label}.desk.cloud.example"),
            &format!("{}.desk.cloud.example", label.to_uppercase()),
            &format!("{label}a.desk.cloud.example"),
        ] {
            assert_eq!(origins.place(name), Place::Nowhere, "{name}");
        }
        for name in [
            "cloud.example.",
            "cloud.example.evil.test",
            "evilcloud.example",
            "10.0.0.1:80",
            "",
            "CLOUD.example",
            "cloud.example:8080x",
        ] {
            assert!(matches!(origins.place(name), Place::Elsewhere { loopback: false, .. }), "{name}");
        }
        for name in ["127.0.0.1:80", "127.8.8.8", "[::1]:80"] {
            assert!(matches!(origins.place(name), Place::Elsewhere { loopback: true, .. }), "{name}");
        }
    }

    #[test]
    fn an_address_is_no_domain() {
        for name in ["localhost", "cloud.example", "a-b.c2.example"] {
            Origins::new(name, false).unwrap();
        }
        for name in [
            "",
            "cloud",
            "10.0.0.1",
            "Cloud.example",
            "cloud.example:80",
            "-a.example",
            "a..example",
            "a.example.",
            "::1",
        ] {
            assert!(Origins::new(name, false).is_err(), "{name}");
        }
    }

    #[test]
    fn labels_are_hard_to_guess() {
        let labels: std::collections::HashSet<_> = (0..100).map(|_| label()).collect();
        assert!(labels.len() == 100 && labels.iter().all(|label| is_label(label)));
    }

    #[test]
    fn a_desktops_origin_has_the_scheme_and_port_that_the_portal_was_reached_by() {
        let origins = Origins::new("cloud.example", false).unwrap();
        assert_eq!(origins.desk("l", "https://cloud.example").as_deref(), Some("https://l.desk.cloud.example"));
        assert_eq!(origins.desk("l", "http://cloud.example:81").as_deref(), Some("http://l.desk.cloud.example:81"));
        assert_eq!(origins.desk("l", "https://evil.example"), None);
        assert_eq!(origins.framers("cloud.example:81"), " https://cloud.example:81 http://cloud.example:81");
        let tls = Origins::new("cloud.example", true).unwrap();
        assert_eq!(tls.framed("cloud.example"), " https://*.desk.cloud.example");
    }

    #[test]
    fn only_the_exact_own_origin_counts() {
        let (host, place) = ("desk.example:8080", Place::Portal { authority: "desk.example:8080".to_owned() });
        let origins = Origins::new("desk.example", false).unwrap();
        for origin in ["http://desk.example:8080", "https://desk.example:8080"] {
            assert!(origins.may_be(&place, origin, host), "{origin}");
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
            assert!(!origins.may_be(&place, origin, host), "{origin}");
        }
        assert!(!origins.may_be(&place, "http://", ""));
        let tls = Origins::new("desk.example", true).unwrap();
        assert!(!tls.may_be(&place, "http://desk.example:8080", host), "somebody on the way could have made that page");
    }

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name_and_the_safe_one_counts() {
        let token = |pairs: &str| session_token(&headers(&[("cookie", pairs)])).map(str::to_owned);
        assert_eq!(token("a=b; yunju_session=t; c=d").as_deref(), Some("t"));
        assert_eq!(token("yunju_session=tossed; __Host-yunju_session=t").as_deref(), Some("t"));
        assert_eq!(token("xyunju_session=t; yunju_sessionx=u"), None);
        assert_eq!(token("yunju_session"), None);
    }

    #[test]
    fn a_request_names_one_host() {
        let path = Uri::from_static("/");
        let of = |pairs: &[(&'static str, &str)]| authority(&headers(pairs), &path).map(str::to_owned);
        assert_eq!(of(&[("host", "a")]).as_deref(), Some("a"));
        assert_eq!(of(&[("host", "a"), ("host", "b")]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(authority(&HeaderMap::new(), &Uri::from_static("https://a:1/")), Some("a:1"));
    }
}
