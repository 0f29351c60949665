//! `yunju-vnc-proxy`: shows one machine's display to viewers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use yunju_jail::{Flags, Spec};
use yunju_vnc_proxy::{Config, Endpoint, Server, calls};

/// Viewers, buffers of the screen, sockets to listen on.
const DESCRIPTORS: u64 = 1024;
/// Two that wait for sockets; others encode, at most one for each viewer at a time.
const THREADS: u64 = 128;
/// All that it writes to a file, should standard error be one.
const LOG: u64 = 64 << 20;

/// RFB server for one machine's display, over websocket and plain sockets.
///
/// Security type "none": who may connect is decided by whoever can reach the sockets.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The machine's display socket; it need not be there yet
    #[arg(long, value_name = "unix:/PATH", value_parser = display_path)]
    display: PathBuf,

    /// Listen for RFB over websocket: unix:/PATH, tcp:ADDRESS:PORT or fd:NUMBER
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "rfb")]
    websocket: Vec<Endpoint>,

    /// Listen for plain RFB: unix:/PATH, tcp:ADDRESS:PORT or fd:NUMBER
    #[arg(long, value_name = "ENDPOINT")]
    rfb: Vec<Endpoint>,

    /// The desktop's name, as viewers show it
    #[arg(long, default_value = "Yunju", value_parser = short_name)]
    name: String,

    #[command(flatten)]
    jail: Flags,
}

fn display_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("write unix:/PATH".into()),
    }
}

fn short_name(text: &str) -> Result<String, String> {
    if text.len() > 255 { Err("at most 255 bytes".into()) } else { Ok(text.into()) }
}

/// Opens sockets first, then goes to jail, and only there starts threads.
fn main() -> anyhow::Result<()> {
    let Arguments { display, websocket, rfb, name, jail } = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    yunju_jail::close_all_but(websocket.iter().chain(&rfb).filter_map(|endpoint| match endpoint {
        Endpoint::Fd(number) => Some(*number),
        _ => None,
    }))?;
    let display = std::path::absolute(display)?;
    let server =
        Server::bind(Config { display: display.clone(), websocket: websocket.clone(), rfb: rfb.clone(), name })?;
    for address in server.websocket().iter().chain(server.rfb()).filter_map(|listener| listener.tcp_address()) {
        info!("listening on {address}");
    }
    enter_jail(&display, websocket.into_iter().chain(rfb), &jail)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("viewers")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let served = runtime.block_on(serve(server));
    // Encoding that is under way need not be finished.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

/// All that is left of the file system is the folder of the display's socket, to which the proxy connects again
/// when the machine is started again.
fn enter_jail(display: &Path, listening: impl Iterator<Item = Endpoint>, flags: &Flags) -> anyhow::Result<()> {
    let folders: Vec<PathBuf> = display.parent().map(Into::into).into_iter().collect();
    let own = listening.filter_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => Some(path),
        _ => None,
    });
    let sockets: Vec<PathBuf> = own.collect();
    let spec = Spec {
        program: "yunju-vnc-proxy",
        flags,
        folders: &folders,
        sockets: &sockets,
        descriptors: DESCRIPTORS,
        threads: THREADS,
        file: LOG,
    };
    Ok(yunju_jail::enter(&spec, || Ok(()), calls::bind)?)
}

async fn serve(server: Server) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    yunju_jail::obey_signals().context("cannot wait for signals")?;
    tokio::select! {
        ended = server.run() => ended.context("cannot serve viewers")?,
        _ = terminate.recv() => info!("ended by SIGTERM"),
        _ = interrupt.recv() => info!("ended by SIGINT"),
    }
    Ok(())
}
