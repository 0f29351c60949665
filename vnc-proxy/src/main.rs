//! `yunju-vnc-proxy`: shows one machine's display to viewers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use yunju_jail::Flags;
use yunju_vnc_proxy::io::Policy;
use yunju_vnc_proxy::{Config, Endpoint, Server, calls, jail, memory};

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

    /// Listen for the guest's agent, whom the machine connects from port 1078 of its vsock: unix:/PATH or fd:NUMBER
    #[arg(long, value_name = "ENDPOINT")]
    agent: Option<Endpoint>,

    /// Which way what is copied may go: both, to-guest, from-guest or off
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    clipboard: Policy,

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
    memory::be_thrifty();
    let Arguments { display, websocket, rfb, name, agent, clipboard, jail: flags } = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    jail::prepare(websocket.iter().chain(&rfb).chain(&agent))?;
    let display = std::path::absolute(display)?;
    // In the jail its folder is the working one.
    let socket = display.file_name().context("the display's socket has no name")?;
    let config = Config {
        display: socket.into(),
        websocket: websocket.clone(),
        rfb: rfb.clone(),
        name,
        agent: agent.clone(),
        clipboard,
    };
    let server = Server::bind(config)?;
    if let Some(Endpoint::Unix(path)) = &agent {
        // The machine may be another user; who may reach the socket its folder says.
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).context("cannot open the agent's socket")?;
    }
    for address in server.websocket().iter().chain(server.rfb()).filter_map(|listener| listener.tcp_address()) {
        info!("listening on {address}");
    }
    jail::enter(&display, websocket.iter().chain(&rfb).chain(&agent), &flags, calls::bind)?;
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
