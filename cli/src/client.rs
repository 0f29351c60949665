//! The API, asked through the service's local socket, or over the network with a token.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use yunju_manager::http;
use yunju_manager::model::{Login, Operation, Problem};

use crate::failure::Failure;
use crate::tls::{self, Trust};

/// Where the service is, and what to show it.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Local(PathBuf),
    Remote { site: Site, shows: Shows },
}

#[derive(Debug, Clone)]
enum Shows {
    Nothing,
    Token(String),
    /// While logging in.
    Cookie(String),
}

/// A service's address: `https://host`, `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    authority: String,
    host: String,
    port: u16,
    /// Whose certificates are believed; none: plain HTTP.
    trust: Option<Trust>,
}

impl Site {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().with_context(|| format!("`{text}` is no address: write https://HOST"))?;
        let (trust, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(Trust::Host), 443),
            _ => bail!("`{text}` is no address: write https://HOST or http://HOST:PORT"),
        };
        let authority = uri.authority().with_context(|| format!("`{text}` has no host: write https://HOST"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: authority.port_u16().unwrap_or(port), authority: authority.to_string(), trust })
    }

    /// The same place, believed by other certificates. Plain HTTP stays that.
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = self.trust.map(|_| trust);
        self
    }

    /// As it is written.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.trust.is_some() { "https" } else { "http" }, self.authority)
    }

    /// Its host alone.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Client {
    /// A client of the service on this host that has this data folder.
    pub fn local(data: &Path) -> Self {
        Self { way: Way::Local(data.join(yunju_manager::serve::SOCKET)) }
    }

    /// A client of a service somewhere.
    pub fn remote(site: Site, token: Option<String>) -> Result<Self> {
        let shows = token.map_or(Shows::Nothing, Shows::Token);
        Ok(Self { way: Way::Remote { site, shows } })
    }

    /// Logs in; a client that shows the session.
    pub async fn log_in(&self, login: &Login) -> Result<Self> {
        let Way::Remote { site, .. } = &self.way else { bail!("nobody logs in on the service's own host") };
        let response = self.send(Method::POST, "/v1/session", serde_json::to_vec(login)?.into(), &[]).await?;
        let cookie = response.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).context("the service gave no session")?;
        Ok(Self { way: Way::Remote { site: site.clone(), shows: Shows::Cookie(cookie.to_owned()) } })
    }

    /// Where browsers reach the service, if it is elsewhere.
    pub fn url(&self) -> Option<String> {
        match &self.way {
            Way::Local(_) => None,
            Way::Remote { site, .. } => Some(site.url()),
        }
    }

    /// A websocket to `path`.
    pub async fn websocket(&self, path: &str) -> Result<WebSocketStream<Box<dyn Stream>>> {
        let stream: Box<dyn Stream> = match &self.way {
            Way::Local(socket) => Box::new(UnixStream::connect(socket).await.context("the service cannot be reached")?),
            Way::Remote { site, .. } => site.connect().await?,
        };
        let host = match &self.way {
            Way::Local(_) => "localhost",
            Way::Remote { site, .. } => &site.authority,
        };
        let mut request = format!("ws://{host}{path}").into_client_request()?;
        if let Way::Remote { shows: Shows::Token(token), .. } = &self.way {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        Ok(tokio_tungstenite::client_async(request, stream).await?.0)
    }

    /// `GET path`
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(self.exchange(Method::GET, path, Bytes::new()).await?)
    }

    /// `GET path` for bytes, and the value of the answer's header `header`.
    pub async fn bytes(&self, path: &str, header: &str) -> Result<(Bytes, Option<String>)> {
        let response = self.send(Method::GET, path, Bytes::new(), &[]).await?;
        let value = response.headers().get(header).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((body(response).await?, value))
    }

    /// `GET path`, handed on as it comes.
    pub async fn copy(&self, path: &str, to: impl Fn(&[u8]) -> Result<()>) -> Result<()> {
        let mut body = self.send(Method::GET, path, Bytes::new(), &[]).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.context("the service's answer was cut off")?.into_data() {
                to(&bytes)?;
            }
        }
        Ok(())
    }

    /// Any request; the answer's content type and body.
    pub async fn raw(&self, method: Method, path: &str, content: Bytes) -> Result<(String, Bytes)> {
        let response = self.send(method, path, content, &[]).await?;
        let kind =
            response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        Ok((kind, body(response).await?))
    }

    /// All pages of a list.
    pub async fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let (mut path, mut all) = (path.to_owned(), Vec::new());
        loop {
            let (page, link) = self.bytes(&path, "link").await?;
            all.extend(parse::<Vec<T>>(page)?);
            match link.as_deref().and_then(|link| link.split(['<', '>']).nth(1)) {
                Some(next) => path = next.to_owned(),
                None => return Ok(all),
            }
        }
    }

    /// `POST path` with a body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        parse(self.exchange(Method::POST, path, serde_json::to_vec(body)?.into()).await?)
    }

    /// `POST path` with a body for work that is not waited for.
    pub async fn begin(&self, path: &str, body: &impl Serialize) -> Result<Operation> {
        let content = serde_json::to_vec(body)?.into();
        let response = self.send(Method::POST, path, content, &[("prefer", "respond-async")]).await?;
        parse(self::body(response).await?)
    }

    /// `PATCH path` with a body.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        parse(self.exchange(Method::PATCH, path, serde_json::to_vec(body)?.into()).await?)
    }

    /// `PUT path`
    pub async fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(self.exchange(Method::PUT, path, Bytes::new()).await?)
    }

    /// `POST path` without a body either way.
    pub async fn command(&self, path: &str) -> Result<()> {
        self.exchange(Method::POST, path, Bytes::new()).await.map(drop)
    }

    /// `DELETE path`
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.exchange(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// `GET path` with an upgrade of the connection to `protocol`.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> Result<hyper::upgrade::Upgraded> {
        let response =
            self.send(Method::GET, path, Bytes::new(), &[("connection", "upgrade"), ("upgrade", protocol)]).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("the service answers {} instead of {protocol}", response.status());
        }
        Ok(hyper::upgrade::on(response).await?)
    }

    async fn exchange(&self, method: Method, path: &str, content: Bytes) -> Result<Bytes> {
        body(self.send(method, path, content, &[]).await?).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: Bytes,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>> {
        let host = match &self.way {
            Way::Local(_) => "localhost",
            Way::Remote { site, .. } => site.authority.as_str(),
        };
        let mut request = Request::builder().method(method).uri(path.parse::<Uri>()?).header("host", host);
        if !content.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match &self.way {
            Way::Local(socket) => {
                http::send(socket, request.body(Full::new(content))?).await.map_err(Failure::Unreachable)?
            }
            Way::Remote { site, shows } => {
                request = match shows {
                    Shows::Token(token) => request.header("authorization", format!("Bearer {token}")),
                    Shows::Cookie(cookie) => request.header("cookie", cookie).header("origin", site.url()),
                    Shows::Nothing => request.header("origin", site.url()),
                };
                site.send(request.body(Full::new(content))?).await?
            }
        };
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let text = body(response).await?;
            let problem = serde_json::from_slice(&text).unwrap_or_else(|_| Problem {
                status: status.as_u16(),
                code: String::new(),
                detail: format!("the service answers {status}"),
                ..Problem::default()
            });
            return Err(Failure::Refused(problem).into());
        }
        Ok(response)
    }
}

impl Site {
    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let away = |error: std::io::Error| Failure::Away { url: self.url(), error: error.to_string() };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(away)?;
        stream.set_nodelay(true)?;
        match &self.trust {
            None => Ok(Box::new(stream)),
            Some(trust) => Ok(Box::new(tls::speak(stream, &self.host, trust, &self.url()).await?)),
        }
    }

    /// Finds out whether the service's certificate is believed: [`Failure::Distrusted`] if not.
    pub async fn check(&self) -> Result<()> {
        self.connect().await.map(drop)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let away = |error: hyper::Error| Failure::Away { url: self.url(), error: error.to_string() };
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(away)?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(request).await.map_err(away)?)
    }
}

/// A connection of some kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn body(response: Response<Incoming>) -> Result<Bytes> {
    let collected = response.into_body().collect().await.context("the service's answer was cut off")?;
    Ok(collected.to_bytes())
}

fn parse<T: DeserializeOwned>(text: Bytes) -> Result<T> {
    serde_json::from_slice(&text).context("the service's answer is not understood: is it of another version?")
}

/// A name as a part of a path.
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
