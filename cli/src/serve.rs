//! `yunju serve`

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use yunju_manager::machines::{Admission, Jail, Limits, Programs};
use yunju_manager::serve::{self, AtEnd, Options, Warm};
use yunju_manager::tls::Source;
use yunju_manager::viewers::Policy;

use crate::args::{JailMode, LogFormat, OwnTls, Serve};
use crate::home;

/// Runs the service until a signal ends it.
pub async fn run(data: PathBuf, arguments: Serve) -> Result<()> {
    let filter = EnvFilter::try_from_env("YUNJU_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = arguments.log;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    let programs = match arguments.bin_dir {
        Some(folder) => folder,
        None => own_folder()?,
    };
    let programs = std::path::absolute(&programs).with_context(|| format!("cannot find {}", programs.display()))?;
    let memory = Admission::of_host(arguments.memory_overcommit).context("cannot find out this host's memory")?;
    let stop = Duration::from_secs(arguments.stop_timeout.into());
    let options = Options {
        data,
        listen: arguments.listen,
        tls: match (arguments.tls_cert, arguments.tls_key, arguments.tls) {
            (Some(cert), Some(key), _) => Some(Source::Files { cert, key }),
            (_, _, Some(OwnTls::SelfSigned)) => Some(Source::SelfSigned),
            _ => None,
        },
        redirect: arguments.http_redirect,
        metrics: arguments.metrics,
        meter_every: arguments.meter_every.max(Duration::from_secs(1)),
        keep_deleted: arguments.keep_deleted,
        domain: arguments.domain,
        images: arguments.images.unwrap_or_else(default_images),
        programs: Programs {
            vmm: programs.join("yunju-vmm"),
            proxy: programs.join("yunju-vnc-proxy"),
            passt: find_passt(),
            jail: match arguments.jail {
                JailMode::Require => Jail::Require,
                JailMode::Warn => Jail::Warn,
            },
            clipboard: arguments.clipboard,
        },
        limits: Limits { stop, memory, disk: arguments.disk_limit, net: arguments.net_limit, ..Limits::default() },
        at_end: match (arguments.stop_machines, arguments.suspend_machines) {
            (true, _) => AtEnd::Stop,
            (false, true) => AtEnd::Suspend,
            (false, false) => AtEnd::Leave,
        },
        warm: match (arguments.warm, arguments.no_warm) {
            (true, _) => Warm::AtOnce,
            (false, true) => Warm::No,
            (false, false) => Warm::Quietly,
        },
        policy: Policy {
            suspend_after: Some(arguments.suspend_after).filter(|after| !after.is_zero()),
            point_every: Some(arguments.point_every).filter(|every| !every.is_zero()),
        },
    };
    Ok(serve::run(options, |url| {
        if log == LogFormat::Text {
            eprintln!("yunju: open {url}");
        }
    })
    .await?)
}

/// The folder that this program is in.
pub fn own_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own folder")?;
    Ok(program.parent().unwrap_or(&program).to_owned())
}

/// Where images are unless somebody says otherwise.
pub fn default_images() -> PathBuf {
    env::var_os("YUNJU_CACHE").map_or_else(|| home(".cache/yunju"), PathBuf::from).join("images")
}

/// passt, if it is installed.
pub fn find_passt() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("passt")).find(|file| file.is_file())
}
