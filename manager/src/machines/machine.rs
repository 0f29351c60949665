//! The life of one machine, in one task:
//!
//! ```text
//! start ── launch ──▶ Starting ── control socket answers ──▶ Running ── order ──▶ Stopping, Suspending
//!             │           │                                     │ ▲                  │         │
//!             ▼           ▼                                     │ └── no snapshot ───┼─────────┤
//!           refused      the VMM ends, or is ended  ───▶  helpers ended, reason or snapshot recorded, run/ removed
//! ```
//!
//! A machine that goes on from a snapshot leaves it behind when its control socket answers; until then it is still suspended.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::launch::{Launched, launch, start_proxy};
use super::process::{Exit, Process};
use super::reason::{self, Reason};
use super::record::Record;
use super::snapshot::{self, Purpose, Taken};
use super::{Context, Error, Table, agent, cgroup, disks};
use crate::folder::Folder;
use crate::http;
use crate::images::Image;
use crate::meter;
use crate::model::State;
use crate::store::{Desired, Desktop};

/// What a machine can be told.
#[derive(Debug)]
pub enum Order {
    /// Press the power button; end it after this long.
    Stop(Duration),
    /// End it at once.
    Kill,
    /// End it with a snapshot.
    Suspend(Suspend),
}

/// An order to suspend.
#[derive(Debug)]
pub struct Suspend {
    /// What the snapshot is for.
    pub purpose: Purpose,
    /// Told when the machine has ended with its snapshot, or runs on without.
    pub done: oneshot::Sender<Result<(), Error>>,
}

/// A snapshot with which the machine is to end.
struct Taking {
    task: JoinHandle<Result<Taken, Error>>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// How a machine ended.
enum End {
    Reason(Reason),
    Suspended(Box<Taken>),
}

/// What a VMM that ended with its snapshot gives as its reason.
pub const SUSPENDED: &str = "suspended";

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
        let (end, done) = match result {
            Ok(Launched { record, vmm, passt, display }) => {
                let processes = Processes { record, vmm, passt, proxy: first_proxy(display) };
                tracing::info!(desktop = %desktop.name, pid = processes.vmm.identity().pid, "machine started");
                meter::count(&self.context.store, &self.folder, &desktop);
                let _ = launched.send(Ok(()));
                self.watch(&desktop, processes).await
            }
            Err(error) => {
                tracing::warn!(desktop = %desktop.name, %error, "machine not started");
                let reason = Reason::new(error.to_string(), true);
                if let Err(error) = super::clear(&self.folder).await {
                    tracing::warn!(desktop = %desktop.name, %error, "cannot clear away run/");
                }
                self.finish(&desktop, End::Reason(reason), None);
                let _ = launched.send(Err(error));
                return;
            }
        };
        self.finish(&desktop, end, done);
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
        let (end, done) = self.watch(&desktop, Processes { record, vmm, passt, proxy }).await;
        self.finish(&desktop, end, done);
    }

    /// Leaves the table, so that the machine can be started again, after recording how it ended.
    fn finish(self, desktop: &Desktop, end: End, done: Option<Done>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let suspended = match end {
            End::Suspended(taken) => self.record_suspended(desktop, *taken),
            End::Reason(reason) => {
                self.record_ended(desktop, &reason);
                Err(Error::NoSnapshotTaken(format!("the machine ended meanwhile: {}", reason.text)))
            }
        };
        table.remove(&desktop.id);
        drop(table);
        if let Some(done) = done {
            let _ = done.send(suspended);
        }
        let (context, table, id) = (self.context, self.table.clone(), desktop.id);
        tokio::spawn(async move {
            let _lock = context.lock(id).await;
            let work = tokio::task::spawn_blocking(move || {
                context.sweep();
                let runs = table.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id);
                if runs { Ok(()) } else { disks::shorten(&context, id) }
            });
            if let Ok(Err(error)) = work.await {
                tracing::warn!(desktop = %id, %error, "layers not merged");
            }
        });
    }

    fn record_suspended(&self, desktop: &Desktop, taken: Taken) -> Result<(), Error> {
        let wanted = self.context.store.desktop(desktop.id)?.ok_or(Error::Gone)?.desired;
        let desired = if wanted == Desired::Running { Desired::Running } else { Desired::Suspended };
        let recorded = taken.keep(|new| self.context.store.suspended(desktop.id, new, desired));
        match &recorded {
            Ok(_) => tracing::info!(desktop = %desktop.name, "machine suspended"),
            Err(error) => {
                let text = format!("its memory is lost: {error}");
                self.record_ended(desktop, &Reason::new(text, true));
            }
        }
        recorded.map(drop)
    }

    fn record_ended(&self, desktop: &Desktop, reason: &Reason) {
        tracing::info!(desktop = %desktop.name, reason = %reason.text, failed = reason.failed, "machine ended");
        if let Err(error) = self.context.store.set_ended(desktop.id, &reason.text, reason.failed) {
            tracing::error!(desktop = %desktop.name, %error, "cannot record how the machine ended");
        }
        if let Some(unfinished) = snapshot::unheard(&self.context, desktop) {
            unfinished.partial.abandon();
        }
    }

    /// The machine answers: it has left behind what it went on from, which is its memory's base, or has that one's.
    fn answered(&self, desktop: &Desktop) {
        if let Err(error) = super::leave_snapshot(&self.context, desktop) {
            tracing::error!(desktop = %desktop.name, %error, "cannot record that the machine runs");
        }
        self.state.send_if_modified(|state| {
            let was_starting = *state == State::Starting;
            if was_starting {
                *state = State::Running;
            }
            was_starting
        });
        self.context.sweep_soon();
    }

    /// Begins to suspend, if this is the time for it.
    fn suspend(&self, desktop: &Desktop, order: Suspend) -> Option<Taking> {
        if *self.state.borrow() != State::Running {
            let _ = order.done.send(Err(Error::NotRunning));
            return None;
        }
        self.state.send_replace(State::Suspending);
        let (context, id, purpose) = (self.context.clone(), desktop.id, order.purpose);
        let task = tokio::spawn(async move {
            let desktop = context.store.desktop(id)?.ok_or(Error::Gone)?;
            snapshot::last(&context, &desktop, purpose).await
        });
        Some(Taking { task, done: order.done })
    }

    /// There is no snapshot: the machine runs on.
    fn not_suspended(&self, desktop: &Desktop, taking: Taking, error: Error) {
        tracing::warn!(desktop = %desktop.name, %error, "machine not suspended");
        if let Err(error) = self.context.store.set_desired(desktop.id, Desired::Running) {
            tracing::error!(desktop = %desktop.name, %error, "cannot record that the machine goes on");
        }
        self.state.send_if_modified(|state| {
            let was_suspending = *state == State::Suspending;
            if was_suspending {
                *state = State::Running;
            }
            was_suspending
        });
        let _ = taking.done.send(Err(error));
    }

    async fn watch(&mut self, desktop: &Desktop, mut processes: Processes) -> (End, Option<Done>) {
        let control = self.folder.run_file("control.sock");
        let agent = tokio::spawn(agent::serve(self.folder.clone(), desktop.clone()));
        let mut start_limit = Some(Instant::now() + self.context.limits.start);
        let mut next_look = Some(Instant::now());
        let (mut stop_limit, mut network_lost) = (None, None);
        let mut asked = None; // by whom it was ended, if not by itself
        let (mut taking, mut taken): (Option<Taking>, _) = (None, None);
        let exit = loop {
            tokio::select! {
                exit = over(&self.context, &self.folder, desktop, &processes.vmm) => break exit,
                () = at(next_look) => {
                    if answers(&control).await {
                        (next_look, start_limit) = (None, None);
                        self.answered(desktop);
                    } else {
                        next_look = Some(Instant::now() + Duration::from_millis(50));
                    }
                }
                () = at(start_limit) => {
                    start_limit = None;
                    let seconds = self.context.limits.start.as_secs();
                    asked = Some(Reason::new(format!("did not answer on its control socket within {seconds} s"), true));
                    processes.vmm.signal(Signal::KILL);
                }
                Some(order) = self.orders.recv() => {
                    let (action, patience, reason) = match order {
                        Order::Suspend(order) => {
                            taking = self.suspend(desktop, order).or(taking);
                            continue;
                        }
                        Order::Stop(patience) => {
                            let text = format!("did not shut down within {} s and was ended", patience.as_secs());
                            ("power-button", patience, text)
                        }
                        Order::Kill => ("kill", GRACE, "ended by force".to_owned()),
                    };
                    self.state.send_replace(State::Stopping);
                    tokio::spawn(post(control.clone(), action));
                    let limit = Instant::now() + patience;
                    stop_limit = Some(stop_limit.map_or(limit, |before: Instant| before.min(limit)));
                    asked = Some(Reason::new(reason, false));
                }
                result = finished(&mut taking), if taken.is_none() => match result {
                    Ok(snapshot) => {
                        taken = Some(snapshot);
                        stop_limit = Some(Instant::now() + GRACE);
                    }
                    Err(error) => {
                        // a machine that ended with its snapshot may not have had the time to answer
                        let ended = matches!(error, Error::NoAnswer(_)).then_some(over(&self.context, &self.folder, desktop, &processes.vmm));
                        if let Some(ended) = ended && let Ok(exit) = timeout(GRACE, ended).await {
                            break exit;
                        }
                        if let Some(taking) = taking.take() {
                            self.not_suspended(desktop, taking, error);
                        }
                    }
                },
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
        agent.abort();
        let (taken, done) = settle(taking, taken).await;
        self.clear_up(desktop, processes).await;
        let found = reason::find(&self.folder.file("vmm.log"), exit);
        let taken = match taken {
            None if found.text == SUSPENDED => snapshot::unheard(&self.context, desktop),
            taken => taken,
        };
        let end = match (taken, asked) {
            (Some(taken), None) => End::Suspended(Box::new(taken)),
            (taken, asked) => {
                taken.iter().for_each(|taken| taken.partial.abandon());
                End::Reason(why(asked, exit, found))
            }
        };
        (end, done)
    }

    async fn clear_up(&self, desktop: &Desktop, processes: Processes) {
        if let Proxy::Running { process, .. } = &processes.proxy {
            process.end(GRACE).await;
        }
        if let Some(passt) = &processes.passt {
            passt.end(GRACE).await;
        }
        // a group knows of those that have ended
        meter::count(&self.context.store, &self.folder, desktop);
        cgroup::remove(&self.folder).await;
        if let Err(error) = self.folder.remove_run() {
            tracing::warn!(desktop = %desktop.name, %error, "cannot remove run/");
        }
    }
}

/// Who waits for a machine to be suspended.
type Done = oneshot::Sender<Result<(), Error>>;

/// Waits for a snapshot that is being taken.
async fn finished(taking: &mut Option<Taking>) -> Result<Taken, Error> {
    match taking {
        Some(Taking { task, .. }) => task.await.unwrap_or_else(|panic| {
            Err(Error::System { doing: "taking a snapshot".to_owned(), error: io::Error::other(panic) })
        }),
        None => pending().await,
    }
}

/// What became of a snapshot when the machine has ended.
async fn settle(taking: Option<Taking>, taken: Option<Taken>) -> (Option<Taken>, Option<Done>) {
    match (taking, taken) {
        (None, taken) => (taken, None),
        (Some(taking), Some(taken)) => (Some(taken), Some(taking.done)),
        // the answer was on its way, or the files are being synced; without the machine there is nothing else to wait for,
        // and nobody may look for the files before this task is done with them
        (Some(Taking { task, done }), None) if !task.is_finished() => {
            (task.await.ok().and_then(Result::ok), Some(done))
        }
        (Some(taking), None) => (None, Some(taking.done)),
    }
}

fn why(asked: Option<Reason>, exit: Exit, found: Reason) -> Reason {
    match asked {
        // killed by us: its log cannot know why
        Some(reason) if matches!(exit, Exit::Signal(_)) => reason,
        Some(_) if exit == Exit::Unknown && found.failed => Reason::new("stopped", false),
        Some(_) => Reason { failed: false, ..found },
        None => found,
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

/// Waits for the end of the VMM, after which what it used is counted.
async fn over(context: &Context, folder: &Folder, desktop: &Desktop, vmm: &Process) -> Exit {
    vmm.exited().await;
    meter::count(&context.store, folder, desktop);
    vmm.ended().await
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_whose_files_take_long_to_sync_is_waited_for_when_its_machine_has_ended() {
        let synced = Arc::new(AtomicBool::new(false));
        let syncing = synced.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            syncing.store(true, Ordering::SeqCst);
            Err(Error::Gone)
        });
        let (told, _done) = oneshot::channel();
        let (taken, done) = settle(Some(Taking { task, done: told }), None).await;
        assert!(synced.load(Ordering::SeqCst) && taken.is_none() && done.is_some());
    }
}
