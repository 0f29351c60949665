//! `yunju open`: a browser at the desktop's page, or a local port for VNC viewers.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use yunju_manager::model::{Desktop, Health};

use crate::args::Open;
use crate::client::{Client, segment};
use crate::output;

/// Runs the command.
pub async fn open(client: &Client, open: &Open) -> Result<()> {
    let desktop: Desktop = client.get(&format!("/v1/desktops/{}", segment(&open.name))).await?;
    match open.vnc {
        Some(port) => bridge(client, &desktop, port).await,
        None => {
            let health: Health = client.get("/v1/health").await?;
            let url = format!("{}/desktops/{}", client.url().or(health.url).unwrap_or_default(), desktop.name);
            output::line(&url)?;
            show(&url);
            Ok(())
        }
    }
}

/// Opens a browser where there is a screen to open one on.
fn show(url: &str) {
    let screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    if screen {
        let _ = Command::new("xdg-open").arg(url).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

async fn bridge(client: &Client, desktop: &Desktop, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.with_context(|| format!("cannot listen on port {port}"))?;
    let address = listener.local_addr()?;
    eprintln!("{} on {address}: vncviewer {address}; Ctrl-C ends", desktop.name);
    loop {
        let (viewer, _) = listener.accept().await?;
        let (client, id) = (client.clone(), desktop.id);
        tokio::spawn(async move {
            if let Err(error) = pass(&client, &id.to_string(), viewer).await {
                eprintln!("yunju: {error:#}");
            }
        });
    }
}

/// One viewer: its bytes in binary messages.
async fn pass(client: &Client, id: &str, viewer: TcpStream) -> Result<()> {
    viewer.set_nodelay(true)?;
    let socket = client.websocket(&format!("/desktops/{id}/ws")).await;
    let socket = socket.context("the desktop's screen cannot be reached: does it run?")?;
    let (mut to_desktop, mut from_desktop) = socket.split();
    let (mut reader, mut writer) = viewer.into_split();
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return anyhow::Ok(()),
                count => to_desktop.send(Message::binary(buffer[..count].to_vec())).await?,
            }
        }
    };
    let down = async {
        while let Some(message) = from_desktop.next().await {
            if let Message::Binary(bytes) = message? {
                writer.write_all(&bytes).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! { end = up => end, end = down => end }
}
