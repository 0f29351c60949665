//! The processes of running machines: started, watched, taken up again after a restart of the service.
//!
//! A machine that runs has an entry in the table and a task ([`machine`]) that alone acts on its
//! processes. What must survive us is in the store (what the owner wants) and in
//! `run/processes.json` (which processes there are); [`Machines::recover`] puts the two together.

mod admission;
mod agent;
mod cgroup;
mod config;
mod console;
mod disks;
mod launch;
mod machine;
mod process;
mod reason;
mod record;
mod recover;
pub(crate) mod snapshot;
mod spawn;
pub mod spent;
mod user;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, broadcast, mpsc, oneshot, watch};
use uuid::Uuid;
use yunju_protocol::machine::ByteSize;
use yunju_protocol::seat::Policy;

use crate::folder::{self, Folder};
use crate::layers::{self, Layers};
use crate::model::State;
use crate::snapshots::Snapshots;
use crate::store::{self, Desired, Store};
use crate::{http, images};
pub use admission::{Admission, NoMemory};
pub use console::Console;
use machine::{Machine, Order, Suspend};
use process::Process;
use record::Record;
use snapshot::Purpose;

/// Where the programs are that machines consist of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `yunju-vmm`
    pub vmm: PathBuf,
    /// `yunju-vnc-proxy`
    pub proxy: PathBuf,
    /// `passt`, if it is installed.
    pub passt: Option<PathBuf>,
    /// Where the host lacks a part of their jail.
    pub jail: Jail,
    /// Which way what is copied may go.
    pub clipboard: Policy,
}

/// What becomes of machines and proxies where the host lacks a part of their jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jail {
    /// They do not run.
    Require,
    /// They run, and warn in their logs.
    Warn,
}

impl Jail {
    /// Flags of the programs.
    fn flags(self) -> impl Iterator<Item = String> {
        let mode = match self {
            Self::Require => "require",
            Self::Warn => "warn",
        };
        ["--jail", mode].into_iter().map(str::to_owned)
    }
}

/// How long things may take, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A VMM must answer on its control socket within this.
    pub start: Duration,
    /// A guest may take this to shut down before its machine is ended.
    pub stop: Duration,
    /// How much memory running machines may have together.
    pub memory: Admission,
    /// Bytes per second that a machine may read and write on its disks.
    pub disk: Option<ByteSize>,
    /// Bytes per second that a machine may send and receive.
    pub net: Option<ByteSize>,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs(30);
        Self { start: seconds, stop: seconds, memory: Admission::UNLIMITED, disk: None, net: None }
    }
}

/// Why a machine was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was deleted in the meantime.
    #[error("the desktop is gone")]
    Gone,
    /// It is already there, and on its way down.
    #[error("the machine is still stopping: try again when it has stopped")]
    Stopping,
    /// The host has not the memory.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// Its image cannot be used.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// The image's folder has other contents than when the desktop was made.
    #[error("image `{0}` was changed in place since the desktop was made: make a new desktop")]
    ImageChanged(String),
    /// It is on its way to sleep.
    #[error("the machine is being suspended: try again when it is")]
    Suspending,
    /// There is nothing to suspend or to take a live snapshot of.
    #[error("the machine does not run")]
    NotRunning,
    /// It is suspended: whoever stops it loses its memory.
    #[error(
        "the desktop is suspended: resume it to shut it down, or stop it by force, which loses what is only in its memory"
    )]
    Asleep,
    /// The snapshot that it should go on from is gone.
    #[error("the snapshot that the desktop goes on from is gone: start it cold")]
    NoSnapshot,
    /// The machine made none.
    #[error("no snapshot was taken: {0}")]
    NoSnapshotTaken(String),
    /// The machine says nothing.
    #[error("no snapshot was taken: {0}")]
    NoAnswer(http::Error),
    /// It is making one.
    #[error("no snapshot was taken: {0}")]
    Busy(String),
    /// There is no room.
    #[error("{0}: make room, then try again")]
    DiskFull(String),
    /// The files of its disks.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// A program is not where it should be.
    #[error("there is no program at {0}: build it, or say with `yunju serve --bin-dir` where it is")]
    NoProgram(PathBuf),
    /// A folder could not be removed.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The system refuses something.
    #[error("{doing}: {error}")]
    System {
        /// What was being done.
        doing: String,
        /// What the system says.
        error: io::Error,
    },
    /// The database does.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What all machines share.
#[derive(Debug)]
pub(crate) struct Context {
    pub store: Arc<Store>,
    pub data: PathBuf,
    pub programs: Programs,
    pub limits: Limits,
    pub layers: Layers,
    pub snapshots: Snapshots,
    /// Told of each machine whose state changes.
    pub changes: broadcast::Sender<Uuid>,
    locks: Mutex<HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>>,
}

impl Context {
    /// Waits until nobody else changes what a desktop goes on from.
    pub async fn lock(&self, id: Uuid) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(&id).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(id, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    /// Removes what neither a desktop nor a snapshot needs any longer: rows first, files later.
    pub fn sweep(&self) {
        match self.store.sweep_snapshots() {
            Ok(gone) => self.snapshots.remove(&gone),
            Err(error) => tracing::error!(%error, "cannot look for snapshots that nothing needs"),
        }
        match self.store.sweep_layers() {
            Ok(gone) => self.layers.remove(&gone),
            Err(error) => tracing::error!(%error, "cannot look for layers that nothing needs"),
        }
    }

    /// Tells of each state that a machine comes into, and of its end.
    async fn tell_changes(self: Arc<Self>, id: Uuid, mut state: watch::Receiver<State>) {
        loop {
            let _ = self.changes.send(id); // nobody may listen
            if state.changed().await.is_err() {
                let _ = self.changes.send(id);
                return;
            }
        }
    }

    /// [`Self::sweep`], beside the async runtime.
    pub fn sweep_soon(self: &Arc<Self>) {
        let context = self.clone();
        tokio::task::spawn_blocking(move || context.sweep());
    }
}

/// The machine of a desktop runs: what it went on from is behind it.
fn leave_snapshot(context: &Context, desktop: &store::Desktop) -> Result<(), store::Error> {
    match desktop.resume {
        Some(id) => {
            let base = context.store.snapshot(id)?.and_then(|snapshot| snapshot.base);
            context.store.runs(desktop.id, Some(base.unwrap_or(id)))
        }
        None => Ok(()),
    }
}

/// The running machines.
#[derive(Debug, Clone)]
pub struct Machines {
    context: Arc<Context>,
    table: Table,
}

type Table = Arc<Mutex<HashMap<Uuid, Handle>>>;

/// What others know of a running machine.
#[derive(Debug, Clone)]
struct Handle {
    state: watch::Receiver<State>,
    orders: mpsc::UnboundedSender<Order>,
    console: Console,
}

impl Machines {
    /// No machine runs yet; see [`Self::recover`].
    pub fn new(store: Arc<Store>, data: PathBuf, programs: Programs, limits: Limits) -> Self {
        let (changes, _) = broadcast::channel(1024);
        let (layers, snapshots) = (Layers::of(&data, &programs.vmm), Snapshots::of(&data));
        let context = Context { store, data, programs, limits, layers, snapshots, changes, locks: Mutex::default() };
        Self { context: Arc::new(context), table: Table::default() }
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Whether the machine of a desktop runs.
    pub fn state(&self, id: Uuid) -> State {
        let running = self.table().get(&id).map(|handle| *handle.state.borrow());
        running.unwrap_or_else(|| match self.context.store.desktop(id) {
            Ok(Some(desktop)) if desktop.resume.is_some() => State::Suspended,
            _ => State::Stopped,
        })
    }

    /// See [`Context::lock`].
    pub(crate) async fn lock(&self, id: Uuid) -> OwnedMutexGuard<()> {
        self.context.lock(id).await
    }

    /// Whether any machine runs.
    pub fn any(&self) -> bool {
        !self.table().is_empty()
    }

    /// Each desktop whose machine comes into another state.
    pub fn changes(&self) -> broadcast::Receiver<Uuid> {
        self.context.changes.subscribe()
    }

    /// Waits until a machine that is starting runs or has ended.
    pub async fn started(&self, id: Uuid) {
        let state = self.table().get(&id).map(|handle| handle.state.clone());
        if let Some(mut state) = state {
            let _ = state.wait_for(|state| *state != State::Starting).await;
        }
    }

    /// The serial port of a running machine.
    pub fn console(&self, id: Uuid) -> Option<Console> {
        self.table().get(&id).map(|handle| handle.console.clone())
    }

    /// Starts the machine of a desktop, or lets it go on where it was suspended; one that runs already is left alone.
    /// Returns when its processes exist, which is before the guest is up.
    pub async fn start(&self, id: Uuid) -> Result<(), Error> {
        if matches!(self.state(id), State::Starting | State::Running) {
            return Ok(());
        }
        let _lock = self.lock(id).await;
        self.start_locked(id).await
    }

    /// Forgets what a suspended machine would go on from, and boots it.
    pub async fn start_cold(&self, id: Uuid) -> Result<(), Error> {
        let _lock = self.lock(id).await;
        if self.state(id) == State::Suspended {
            self.context.store.forget_memory(id)?;
        }
        self.start_locked(id).await
    }

    /// [`Self::start`] for who has the desktop's lock.
    pub(crate) async fn start_locked(&self, id: Uuid) -> Result<(), Error> {
        if self.state(id) == State::Suspending {
            self.ended(id).await;
        }
        let (told, launched) = oneshot::channel();
        {
            let mut table = self.table();
            match table.get(&id).map(|handle| *handle.state.borrow()) {
                Some(State::Starting | State::Running) => return Ok(()),
                Some(_) => return Err(Error::Stopping),
                None => {}
            }
            // read with the table locked: a desktop that is being deleted is either seen as gone here
            // or its machine is seen in the table there
            let desktop = self.context.store.desktop(id)?.filter(|d| d.deleted.is_none()).ok_or(Error::Gone)?;
            let others = self.context.store.desktops(None)?;
            let running = others.iter().filter(|other| table.contains_key(&other.id)).map(|other| other.memory);
            self.context.limits.memory.admit(desktop.memory, running)?;
            self.context.store.set_desired(id, Desired::Running)?;
            let (machine, console) = self.enter(&mut table, id, false);
            tokio::spawn(async move {
                let log = tokio::spawn(console);
                machine.start(desktop, told).await;
                log.abort();
            });
        }
        launched.await.unwrap_or(Err(Error::Gone))
    }

    /// Asks the guest to shut down; the machine is ended after `timeout`, or at once by force.
    pub fn stop(&self, id: Uuid, force: bool, timeout: Option<Duration>) -> Result<(), Error> {
        let table = self.table();
        let state = table.get(&id).map(|handle| *handle.state.borrow());
        if state == Some(State::Suspending) && !force {
            return Err(Error::Suspending);
        }
        if let Some(handle) = table.get(&id) {
            self.context.store.set_desired(id, Desired::Stopped)?;
            let timeout = timeout.unwrap_or(self.context.limits.stop);
            let _ = handle.orders.send(if force { Order::Kill } else { Order::Stop(timeout) });
            return Ok(());
        }
        match self.context.store.desktop(id)? {
            Some(desktop) if desktop.resume.is_some() && force => {
                self.context.store.forget_memory(id)?;
                self.context.sweep_soon();
                Ok(())
            }
            Some(desktop) if desktop.resume.is_some() => Err(Error::Asleep),
            _ => Ok(()),
        }
    }

    /// Ends the machine of a desktop with a snapshot from which it goes on when it is started. Without one it runs on.
    pub(crate) async fn suspend_locked(&self, id: Uuid, purpose: Purpose, desired: Desired) -> Result<(), Error> {
        let (done, suspended) = oneshot::channel();
        {
            let table = self.table();
            let handle = table.get(&id).ok_or(Error::NotRunning)?;
            match *handle.state.borrow() {
                State::Running => {}
                State::Stopping => return Err(Error::Stopping),
                _ => return Err(Error::NotRunning),
            }
            self.context.store.set_desired(id, desired)?;
            let _ = handle.orders.send(Order::Suspend(Suspend { purpose, done }));
        }
        suspended.await.unwrap_or(Err(Error::Gone))
    }

    /// Suspends all running machines, which the next service wakes, and waits until nothing is left of them.
    pub async fn suspend_all(&self) {
        let ids: Vec<Uuid> = self.table().keys().copied().collect();
        let suspended = ids.into_iter().map(|id| async move {
            let _lock = self.lock(id).await;
            self.started(id).await;
            if let Err(error) = self.suspend_locked(id, Purpose::SUSPEND, Desired::Running).await {
                tracing::error!(desktop = %id, %error, "cannot suspend a machine: it goes on");
            }
        });
        futures_util::future::join_all(suspended).await;
    }

    /// Waits until the machine of a desktop has ended and nothing of it is left.
    pub async fn ended(&self, id: Uuid) {
        let state = self.table().get(&id).map(|handle| handle.state.clone());
        if let Some(mut state) = state {
            while state.changed().await.is_ok() {} // until the task is gone
        }
    }

    /// Stops all machines and waits until nothing is left of them.
    pub async fn stop_all(&self) {
        self.end_all(false).await;
    }

    /// Ends all machines at once and waits until nothing is left of them.
    pub async fn kill_all(&self) {
        self.end_all(true).await;
    }

    async fn end_all(&self, force: bool) {
        let ids: Vec<Uuid> = self.table().keys().copied().collect();
        for &id in &ids {
            if let Err(error) = self.stop(id, force, None) {
                tracing::error!(desktop = %id, %error, "cannot stop a machine");
            }
        }
        for id in ids {
            self.ended(id).await;
        }
    }

    /// Puts a machine into the table, from which it takes itself out when it has ended.
    fn enter(
        &self,
        table: &mut HashMap<Uuid, Handle>,
        id: Uuid,
        resume: bool,
    ) -> (Machine, impl Future<Output = ()> + Send + use<>) {
        let folder = Folder::of(&self.context.data, id);
        let (console, work) = Console::new(folder.run_file("console.sock"), folder.file("serial.log"), resume);
        let (state, seen) = watch::channel(State::Starting);
        tokio::spawn(self.context.clone().tell_changes(id, seen.clone()));
        let (orders, given) = mpsc::unbounded_channel();
        table.insert(id, Handle { state: seen, orders, console });
        (Machine::new(self.context.clone(), self.table.clone(), folder, state, given), work)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, Handle>> {
        // entries are inserted and removed whole
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends every process that a desktop's record names and removes `run/`.
async fn clear(folder: &Folder) -> io::Result<()> {
    let record = Record::load(&folder.run_file("processes.json")).unwrap_or_default();
    for process in record.identities().filter_map(Process::find) {
        process.signal(rustix::process::Signal::KILL);
        process.ended().await;
    }
    cgroup::remove(folder).await;
    folder.remove_run()
}
