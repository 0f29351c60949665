//! The serial port of a machine over an upgraded connection: plain bytes, both ways.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{self, Request};
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;

use super::Query;
use super::access::{Caller, Found};
use super::problem::Refusal;
use crate::edge::{self, Grant};
use crate::machines::Console;
use crate::model::State;
use crate::service::Service;
use crate::store;

/// What the `Upgrade` header asks for.
pub const PROTOCOL: &str = "yunju-console";

/// `?history=true`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleQuery {
    /// Begin with the latest output so far.
    #[serde(default)]
    history: bool,
}

pub async fn attach(
    extract::State(service): extract::State<Arc<Service>>,
    caller: Caller,
    Found(desktop): Found<store::Desktop>,
    Query(query): Query<ConsoleQuery>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL)) {
        return Err(Refusal::invalid(format!("ask for an upgrade to {PROTOCOL}")));
    }
    let viewer = service.viewers.enter(desktop.id, edge::watcher(&caller, &desktop));
    if matches!(service.machines.state(desktop.id), State::Suspended | State::Suspending) {
        service.machines.wake(desktop.id).await?;
    }
    let Some(console) = service.machines.console(desktop.id) else {
        return Err(Refusal::conflict(format!("`{}` does not run: start it first", desktop.name)));
    };
    let grant = Grant::new(&service, &caller, desktop.id);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _viewer = viewer;
        if let Ok(upgraded) = upgrade.await {
            tokio::select! {
                _ = talk(console, query.history, TokioIo::new(upgraded)) => {}
                () = grant.ended() => {}
            }
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .body(Body::empty());
    Ok(response.expect("the parts are valid"))
}

async fn talk<S: AsyncRead + AsyncWrite>(console: Console, with_history: bool, stream: S) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (history, mut output) = console.listen();
    let input = console.input();
    drop(console);
    let show = async {
        if with_history {
            writer.write_all(&history).await?;
        }
        loop {
            match output.recv().await {
                Ok(bytes) => writer.write_all(&bytes).await?,
                Err(RecvError::Lagged(_)) => writer.write_all(b"\r\n[output was dropped here]\r\n").await?,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    };
    let typing = async {
        let mut buffer = [0; 4096];
        loop {
            match reader.read(&mut buffer).await? {
                0 => std::future::pending().await, // who types no more may still listen
                count => {
                    if input.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    };
    tokio::select! {
        end = show => end,
        end = typing => end,
    }
}
