//! The life of one machine, in one task:
//!
//! ```text
//! start ── launch ──▶ Starting ── control socket answers ──▶ Running ── order ──▶ Stopping
//!             │           │                                     │                    │
//!             ▼           ▼                                     ▼                    ▼
//!           refused      the VMM ends, or is ended  ───▶  helpers ended, reason kept, run/ removed
//! ```

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::launch::{Launched, launch, start_proxy};
use super::process::{Exit, Process};
use super::reason::{self, Reason};
use super::record::Record;
use super::{Context, Error, Table};
use crate::folder::Folder;
use crate::http;
use crate::images::Image;
use crate::model::State;
use crate::store::Desktop;

/// What a machine can be told.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Press the power button; end it after this long.
    Stop(Duration),
    /// End it at once.
    Kill,
}

/// How long passt and the proxy get to end, and a VMM to obey `kill`.
const GRACE: Duration = Duration::from_secs(2);

/// A proxy that dies is started again after this, doubling up to [`PROXY_PAUSE_MOST`].
const PROXY_PAUSE: Duration = Duration::from_millis(250);
const PROXY_PAUSE_MOST: Duration = Duration::from_secs(30);

/// A machine that is about to run.
#[derive(Debug)]
pub struct Machine {
    context: Arc<Context>,
    table: Table,
    folder: Folder,
    state: watch::Sender<State>,
    orders: mpsc::UnboundedReceiver<Order>,
}

/// Its processes.
struct Processes {
    record: Record,
    vmm: Process,
    passt: Option<Process>,
    proxy: Proxy,
}

/// The process that shows the machine's screen.
enum Proxy {
    /// The machine has no screen.
    None,
    Running {
        process: Process,
        since: Instant,
        pause: Duration,
    },
    Due {
        at: Instant,
        pause: Duration,
    },
}

impl Machine {
    pub(super) fn new(
        context: Arc<Context>,
        table: Table,
        folder: Folder,
        state: watch::Sender<State>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self { context, table, folder, state, orders }
    }

    /// Starts the machine of `desktop`, says in `launched` whether that went well, and stays until it ended.
    pub async fn start(mut self, desktop: Desktop, launched: oneshot::Sender<Result<(), Error>>) {
        let (context, folder, for_launch) = (self.context.clone(), self.folder.clone(), desktop.clone());
        let launch = tokio::task::spawn_blocking(move || launch(&context, &folder, &for_launch));
        let result = launch.await.unwrap_or_else(|panic| {
            Err(Error::System { doing: "starting the machine".to_owned(), error: io::Error::other(panic) })
        });
        let reason = match result {
            Ok(Launched { record, vmm, passt, display }) => {
                let processes = Processes { record, vmm, passt, proxy: first_proxy(display) };
                tracing::info!(desktop = %desktop.name, pid = processes.vmm.identity().pid, "machine started");
                let _ = launched.send(Ok(()));
                self.watch(&desktop, processes).await
            }
            Err(error) => {
                tracing::warn!(desktop = %desktop.name, %error, "machine not started");
                let reason = Reason { text: error.to_string(), failed: true };
                if let Err(error) = super::clear(&self.folder).await {
                    tracing::warn!(desktop = %desktop.name, %error, "cannot clear away run/");
                }
                self.finish(&desktop, &reason);
                let _ = launched.send(Err(error));
                return;
            }
        };
        self.finish(&desktop, &reason);
    }

    /// Stays with a machine that a service before this one started.
    pub async fn adopt(mut self, desktop: Desktop, vmm: Process, proxy: Option<Process>, passt: Option<Process>) {
        let proxy = match proxy {
            Some(process) => Proxy::Running { process, since: Instant::now(), pause: PROXY_PAUSE },
            None => first_proxy(
                Image::at(&desktop.image_folder, &desktop.image).is_ok_and(|image| image.manifest.display.is_some()),
            ),
        };
        let record = Record::load(&self.folder.run_file("processes.json")).unwrap_or_default();
        let reason = self.watch(&desktop, Processes { record, vmm, passt, proxy }).await;
        self.finish(&desktop, &reason);
    }

    /// Leaves the table, so that the machine can be started again, after recording why it ended.
    fn finish(self, desktop: &Desktop, reason: &Reason) {
        tracing::info!(desktop = %desktop.name, reason = %reason.text, failed = reason.failed, "machine ended");
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.context.store.set_ended(desktop.id, &reason.text, reason.failed) {
            tracing::error!(desktop = %desktop.name, %error, "cannot record how the machine ended");
        }
        table.remove(&desktop.id);
    }

    async fn watch(&mut self, desktop: &Desktop, mut processes: Processes) -> Reason {
        let control = self.folder.run_file("control.sock");
        let mut start_limit = Some(Instant::now() + self.context.limits.start);
        let mut next_look = Some(Instant::now());
        let (mut stop_limit, mut network_lost) = (None, None);
        let mut asked = None; // by whom it was ended, if not by itself
        let exit = loop {
            tokio::select! {
                exit = processes.vmm.ended() => break exit,
                () = at(next_look) => {
                    if answers(&control).await {
                        (next_look, start_limit) = (None, None);
                        self.state.send_if_modified(|state| {
                            let was_starting = *state == State::Starting;
                            if was_starting { *state = State::Running; }
                            was_starting
                        });
                    } else {
                        next_look = Some(Instant::now() + Duration::from_millis(50));
                    }
                }
                () = at(start_limit) => {
                    start_limit = None;
                    asked = Some(Reason {
                        text: format!("did not answer on its control socket within {} s", self.context.limits.start.as_secs()),
                        failed: true,
                    });
                    processes.vmm.signal(Signal::KILL);
                }
                Some(order) = self.orders.recv() => {
                    self.state.send_replace(State::Stopping);
                    let action = match order {
                        Order::Stop(_) => "power-button",
                        Order::Kill => "kill",
                    };
                    tokio::spawn(post(control.clone(), action));
                    let patience = match order { Order::Stop(patience) => patience, Order::Kill => GRACE };
                    let limit = Instant::now() + patience;
                    stop_limit = Some(stop_limit.map_or(limit, |before: Instant| before.min(limit)));
                    asked = Some(match order {
                        Order::Stop(patience) => Reason {
                            text: format!("did not shut down within {} s and was ended", patience.as_secs()),
                            failed: false,
                        },
                        Order::Kill => Reason { text: "ended by force".to_owned(), failed: false },
                    });
                }
                () = at(stop_limit) => {
                    stop_limit = None;
                    processes.vmm.signal(Signal::KILL);
                }
                () = tend_proxy(&self.context, &self.folder, desktop, &mut processes.proxy, &mut processes.record) => {}
                () = gone(&processes.passt) => {
                    processes.passt = None;
                    // when the machine ends passt may be seen to end first
                    network_lost = Some(Instant::now() + GRACE);
                }
                () = at(network_lost) => {
                    network_lost = None;
                    tracing::warn!(desktop = %desktop.name, "passt ended: the machine has no network until it is restarted");
                }
            }
        };
        self.clear_up(desktop, processes).await;
        let found = reason::find(&self.folder.file("vmm.log"), exit);
        match asked {
            // killed by us: its log cannot know why
            Some(reason) if matches!(exit, Exit::Signal(_)) => reason,
            Some(_) if exit == Exit::Unknown && found.failed => Reason { text: "stopped".to_owned(), failed: false },
            Some(_) => Reason { failed: false, ..found },
            None => found,
        }
    }

    async fn clear_up(&self, desktop: &Desktop, processes: Processes) {
        if let Proxy::Running { process, .. } = &processes.proxy {
            process.end(GRACE).await;
        }
        if let Some(passt) = &processes.passt {
            passt.end(GRACE).await;
        }
        if let Err(error) = self.folder.remove_run() {
            tracing::warn!(desktop = %desktop.name, %error, "cannot remove run/");
        }
    }
}

/// The proxy that a machine needs and has not.
fn first_proxy(display: bool) -> Proxy {
    if display { Proxy::Due { at: Instant::now(), pause: PROXY_PAUSE } } else { Proxy::None }
}

/// Waits until the proxy ended or is due, and acts on it. Cancelled and called again at any time.
async fn tend_proxy(context: &Context, folder: &Folder, desktop: &Desktop, proxy: &mut Proxy, record: &mut Record) {
    *proxy = match proxy {
        Proxy::None => pending().await,
        Proxy::Running { process, since, pause } => {
            process.ended().await;
            tracing::warn!(desktop = %desktop.name, "the proxy ended: it is started again");
            let pause = if since.elapsed() > PROXY_PAUSE_MOST { PROXY_PAUSE } else { *pause };
            Proxy::Due { at: Instant::now() + pause, pause: (pause * 2).min(PROXY_PAUSE_MOST) }
        }
        Proxy::Due { at, pause } => {
            let pause = *pause;
            sleep_until(*at).await;
            match start_proxy(context, folder, desktop, record) {
                Ok(process) => Proxy::Running { process, since: Instant::now(), pause },
                Err(error) => {
                    tracing::error!(desktop = %desktop.name, %error, "cannot start the proxy");
                    Proxy::Due { at: Instant::now() + pause, pause: (pause * 2).min(PROXY_PAUSE_MOST) }
                }
            }
        }
    };
}

async fn at(limit: Option<Instant>) {
    match limit {
        Some(limit) => sleep_until(limit).await,
        None => pending().await,
    }
}

async fn gone(process: &Option<Process>) {
    match process {
        Some(process) => {
            process.ended().await;
        }
        None => pending().await,
    }
}

async fn answers(control: &Path) -> bool {
    let answer = http::fetch(control, Method::GET, "/machine", 64 << 10, Duration::from_secs(1)).await;
    matches!(answer, Ok((StatusCode::OK, _)))
}

async fn post(control: PathBuf, action: &'static str) {
    let path = format!("/machine/{action}");
    match http::fetch(&control, Method::POST, &path, 64 << 10, GRACE).await {
        Ok((status, _)) if status.is_success() => {}
        Ok((status, _)) => tracing::warn!(control = %control.display(), action, %status, "the machine refuses"),
        Err(error) => tracing::warn!(action, %error, "the machine does not answer"),
    }
}
