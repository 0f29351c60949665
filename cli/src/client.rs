//! The API, asked through the service's local socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use yunju_manager::http;
use yunju_manager::model::Problem;

use crate::failure::Failure;

/// Where the service's local socket is, and how to ask.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the service that has this data folder.
    pub fn new(data: &Path) -> Self {
        Self { socket: data.join(yunju_manager::serve::SOCKET) }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(self.exchange(Method::GET, path, Bytes::new()).await?)
    }

    /// `GET path` for bytes, and the value of the answer's header `header`.
    pub async fn bytes(&self, path: &str, header: &str) -> Result<(Bytes, Option<String>)> {
        let response = self.send(Method::GET, path, Bytes::new(), None).await?;
        let value = response.headers().get(header).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((body(response).await?, value))
    }

    /// `GET path`, handed on as it comes.
    pub async fn copy(&self, path: &str, to: impl Fn(&[u8]) -> Result<()>) -> Result<()> {
        let mut body = self.send(Method::GET, path, Bytes::new(), None).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.context("the service's answer was cut off")?.into_data() {
                to(&bytes)?;
            }
        }
        Ok(())
    }

    /// `POST path` with a body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        parse(self.exchange(Method::POST, path, serde_json::to_vec(body)?.into()).await?)
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
        let response = self.send(Method::GET, path, Bytes::new(), Some(protocol)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            bail!("the service answers {} instead of {protocol}", response.status());
        }
        Ok(hyper::upgrade::on(response).await?)
    }

    async fn exchange(&self, method: Method, path: &str, content: Bytes) -> Result<Bytes> {
        body(self.send(method, path, content, None).await?).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: Bytes,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path.parse::<Uri>()?).header("host", "localhost");
        if !content.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(protocol) = upgrade {
            request = request.header("connection", "upgrade").header("upgrade", protocol);
        }
        let response =
            http::send(&self.socket, request.body(Full::new(content))?).await.map_err(Failure::Unreachable)?;
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
