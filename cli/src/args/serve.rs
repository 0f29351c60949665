//! What `yunju serve` is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use yunju_protocol::machine::ByteSize;
use yunju_protocol::seat::Policy;

use super::parse_time;

#[derive(Debug, Args)]
pub struct Serve {
    /// Where browsers connect
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// Speak HTTPS with this certificate: PEM, the service's own first; SIGHUP reads it anew
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Speak HTTPS with a certificate that the service makes and keeps in its data folder, for development
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "tls_cert")]
    pub tls: Option<OwnTls>,
    /// Tell who speaks HTTP at this address where HTTPS is, such as 0.0.0.0:80; --listen itself does so too
    #[arg(long, value_name = "ADDR:PORT")]
    pub http_redirect: Option<SocketAddr>,
    /// Tell whoever connects here, by HTTP, what there is to count (/metrics); the API does so by a token with the scope `metrics`
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// How lines of the log are written; YUNJU_LOG says which, such as debug
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
    /// The host name by which browsers reach the service; desktops open at names below it, so *.desk.NAME must be its address too
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub domain: String,
    /// Where images are [default: $YUNJU_CACHE/images or ~/.cache/yunju/images]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Where yunju-vmm and yunju-vnc-proxy are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Stop all machines when the service ends; without it they go on and the next `serve` takes them up
    #[arg(long)]
    pub stop_machines: bool,
    /// Suspend all machines when the service ends; the next `serve` wakes them
    #[arg(long, conflicts_with = "stop_machines")]
    pub suspend_machines: bool,
    /// Warm images as soon as the service runs, not only when no machine has run for a minute
    #[arg(long, conflicts_with = "no_warm")]
    pub warm: bool,
    /// Never boot images by itself so that their desktops need not
    #[arg(long)]
    pub no_warm: bool,
    /// Suspend a desktop with a screen after so long without a viewer, such as 90s, 30m or 2h; 0 never
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = parse_time)]
    pub suspend_after: Duration,
    /// Deleted desktops can be recovered for so long; 0: not at all
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_time)]
    pub keep_deleted: Duration,
    /// Count what desktops use so often
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = parse_time)]
    pub meter_every: Duration,
    /// Take a restore point so often while somebody looks at a desktop; 0 never
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = parse_time)]
    pub point_every: Duration,
    /// Seconds that a guest gets to shut down before its machine is ended
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub stop_timeout: u32,
    /// Start machines until they have this many times the host's memory together
    #[arg(long, default_value = "1.5", value_name = "FACTOR", value_parser = parse_factor)]
    pub memory_overcommit: f64,
    /// Bytes per second that each desktop may read and write on its disks, such as 100M [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub disk_limit: Option<ByteSize>,
    /// Bytes per second that each desktop may send and receive, such as 20M [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub net_limit: Option<ByteSize>,
    /// Where this host lacks a part of the jail: start no machines, or start them with a warning in their logs
    #[arg(long, value_enum, value_name = "MODE", default_value = "warn")]
    pub jail: JailMode,
    /// Which way what is copied may go between people and their desktops: both, to-guest, from-guest or off
    #[arg(long, value_name = "DIRECTION", default_value = "both")]
    pub clipboard: Policy,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// An object on each line
    Json,
}

/// A certificate that nobody gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OwnTls {
    /// The service signs it itself
    SelfSigned,
}

/// What becomes of machines where the host lacks a part of their jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JailMode {
    /// They do not start
    Require,
    /// They start with a warning
    Warn,
}

fn parse_rate(text: &str) -> Result<ByteSize, String> {
    let rate = text.parse().ok().filter(|rate| *rate >= ByteSize::mib(1));
    rate.ok_or_else(|| "write a size of at least 1M".to_owned())
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (0.1..=100.0).contains(factor));
    factor.ok_or_else(|| "write a number from 0.1 to 100".to_owned())
}
