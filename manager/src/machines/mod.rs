//! The processes of running machines: started, watched, taken up again after a restart of the service.
//!
//! A machine that runs has an entry in the table and a task ([`machine`]) that alone acts on its
//! processes. What must survive us is in the store (what the owner wants) and in
//! `run/processes.json` (which processes there are); [`Machines::recover`] puts the two together.

mod admission;
mod config;
mod console;
mod launch;
mod machine;
mod process;
mod reason;
mod record;
mod spawn;
mod user;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::folder::{self, Folder};
use crate::images;
use crate::model::State;
use crate::store::{self, Desired, Store};
pub use admission::{Admission, NoMemory};
pub use console::Console;
use machine::{Machine, Order};
use process::Process;
use record::Record;

/// Where the programs are that machines consist of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `yunju-vmm`
    pub vmm: PathBuf,
    /// `yunju-vnc-proxy`
    pub proxy: PathBuf,
    /// `passt`, if it is installed.
    pub passt: Option<PathBuf>,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self { start: Duration::from_secs(30), stop: Duration::from_secs(30), memory: Admission::UNLIMITED }
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
        Self { context: Arc::new(Context { store, data, programs, limits }), table: Table::default() }
    }

    /// Whether the machine of a desktop runs.
    pub fn state(&self, id: Uuid) -> State {
        self.table().get(&id).map_or(State::Stopped, |handle| *handle.state.borrow())
    }

    /// The serial port of a running machine.
    pub fn console(&self, id: Uuid) -> Option<Console> {
        self.table().get(&id).map(|handle| handle.console.clone())
    }

    /// Starts the machine of a desktop; one that runs already is left alone. Returns when its
    /// processes exist, which is before the guest is up.
    pub async fn start(&self, id: Uuid) -> Result<(), Error> {
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
            let desktop = self.context.store.desktop(id)?.ok_or(Error::Gone)?;
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
        if let Some(handle) = table.get(&id) {
            self.context.store.set_desired(id, Desired::Stopped)?;
            let timeout = timeout.unwrap_or(self.context.limits.stop);
            let _ = handle.orders.send(if force { Order::Kill } else { Order::Stop(timeout) });
        }
        Ok(())
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

    /// Takes up what a service before this one left: running machines go on, half-started ones are
    /// cleared away and started anew, ended ones are recorded as such, folders without a desktop go.
    pub async fn recover(&self) -> Result<(), Error> {
        let system =
            |error| Error::System { doing: format!("looking for desktops in {}", self.context.data.display()), error };
        let (folders, leftovers) = folder::scan(&self.context.data).map_err(system)?;
        for path in leftovers {
            folder::remove_leftover(&path).map_err(system)?;
        }
        for id in folders {
            if self.context.store.desktop(id)?.is_none() {
                let folder = Folder::of(&self.context.data, id);
                clear(&folder).await.map_err(system)?;
                folder.remove()?;
            }
        }
        for desktop in self.context.store.desktops(None)? {
            self.recover_one(&desktop).await?;
        }
        Ok(())
    }

    async fn recover_one(&self, desktop: &store::Desktop) -> Result<(), Error> {
        let folder = Folder::of(&self.context.data, desktop.id);
        let record = Record::load(&folder.run_file("processes.json")).unwrap_or_default();
        let vmm = record.vmm.as_ref().and_then(Process::find);
        let wanted = desktop.desired == Desired::Running;
        if let (true, Some(vmm)) = (record.started, vmm) {
            tracing::info!(desktop = %desktop.name, "the machine runs: taken up again");
            self.adopt(desktop, vmm, &record, wanted);
            return Ok(());
        }
        let reason = record.started.then(|| reason::find(&folder.file("vmm.log"), process::Exit::Unknown));
        let system = |error| Error::System { doing: format!("clearing away {}", folder.run().display()), error };
        clear(&folder).await.map_err(system)?;
        match reason {
            Some(reason) if wanted => {
                tracing::warn!(desktop = %desktop.name, reason = %reason.text, "the machine ended while no service ran");
                self.context.store.set_ended(desktop.id, &reason.text, reason.failed)?;
            }
            None if wanted => {
                tracing::info!(desktop = %desktop.name, "the machine was only half started: starting it anew");
                if let Err(error) = self.start(desktop.id).await {
                    tracing::error!(desktop = %desktop.name, %error, "cannot start the machine");
                    self.context.store.set_ended(desktop.id, &error.to_string(), true)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn adopt(&self, desktop: &store::Desktop, vmm: Process, record: &Record, wanted: bool) {
        let (proxy, passt) =
            (record.proxy.as_ref().and_then(Process::find), record.passt.as_ref().and_then(Process::find));
        let id = desktop.id;
        let (machine, console) = self.enter(&mut self.table(), id, true);
        let desktop = desktop.clone();
        tokio::spawn(async move {
            let log = tokio::spawn(console);
            machine.adopt(desktop, vmm, proxy, passt).await;
            log.abort();
        });
        if !wanted && let Err(error) = self.stop(id, false, None) {
            tracing::error!(desktop = %id, %error, "cannot go on stopping the machine");
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
    folder.remove_run()
}
