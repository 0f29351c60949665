//! What a service that ended, or was killed, left to the next one.

use std::path::Path;

use uuid::Uuid;

use super::machine::SUSPENDED;
use super::process::{self, Process};
use super::record::Record;
use super::snapshot::{self, Purpose};
use super::{Error, Machines, clear, leave_snapshot, reason};
use crate::folder::{self, Folder};
use crate::meter;
use crate::snapshots;
use crate::store::{self, Desired};

impl Machines {
    /// Takes up what a service before this one left: running machines go on, half-started ones are
    /// cleared away and started anew, ended ones are recorded as such, files that nothing refers to go.
    pub async fn recover(&self) -> Result<(), Error> {
        let context = &self.context;
        context.store.delete_unowned()?;
        let system =
            |error| Error::System { doing: format!("looking for desktops in {}", context.data.display()), error };
        let (folders, leftovers) = folder::scan(&context.data).map_err(system)?;
        for path in leftovers {
            folder::remove_leftover(&path).map_err(system)?;
        }
        for id in folders {
            let (found, folder) = (context.store.desktop(id)?, Folder::of(&context.data, id));
            // neither one without a row nor one that was deleted runs; the latter can be recovered
            if found.as_ref().is_none_or(|desktop| desktop.deleted.is_some()) {
                clear(&folder).await.map_err(system)?;
            }
            if found.is_none() {
                folder.remove()?;
            }
        }
        context.layers.remove_unknown(&context.store)?;
        // looked for before machines run that may take new ones
        let begun = context.snapshots.all().map_err(system)?;
        for desktop in context.store.desktops(None)? {
            context.layers.adopt_raw(&context.store, desktop.id, Folder::of(&context.data, desktop.id).path())?;
            self.recover_one(&desktop).await?;
        }
        for path in begun {
            self.remove_begun(&path)?;
        }
        context.sweep();
        Ok(())
    }

    /// Removes a snapshot's folder that nothing came of, unless a running machine may still end with it.
    fn remove_begun(&self, path: &Path) -> Result<(), Error> {
        let id = path.file_name().and_then(|name| Uuid::parse_str(name.to_str()?).ok());
        if id.map_or(Ok(false), |id| self.context.store.snapshot(id).map(|found| found.is_some()))? {
            let _ = std::fs::remove_file(path.join("intent.json"));
            return Ok(());
        }
        let hoped_for =
            snapshots::intent(path).is_some_and(|intent| intent.end && self.table().contains_key(&intent.desktop));
        if !hoped_for {
            snapshots::remove(path);
        }
        Ok(())
    }

    async fn recover_one(&self, desktop: &store::Desktop) -> Result<(), Error> {
        let folder = Folder::of(&self.context.data, desktop.id);
        let record = Record::load(&folder.run_file("processes.json")).unwrap_or_default();
        let vmm = record.vmm.as_ref().and_then(Process::find);
        if let (true, Some(vmm)) = (record.started, vmm) {
            tracing::info!(desktop = %desktop.name, "the machine runs: taken up again");
            self.adopt(desktop, vmm, &record);
            return Ok(());
        }
        let ended = record.started.then(|| reason::find(&folder.file("vmm.log"), process::Exit::Unknown));
        let rebooted = record.vmm.as_ref().is_some_and(|vmm| !vmm.is_of_this_boot());
        let system = |error| Error::System { doing: format!("clearing away {}", folder.run().display()), error };
        meter::count(&self.context.store, &folder, desktop);
        clear(&folder).await.map_err(system)?;
        match ended {
            Some(reason) if reason.text == SUSPENDED && self.recover_suspended(desktop)? => {}
            Some(reason) => {
                // unless it says so, nobody knows that it did not run: then its disks are newer than the snapshot
                if !reason.refused {
                    leave_snapshot(&self.context, desktop)?;
                }
                if desktop.desired != Desired::Running || !rebooted {
                    tracing::warn!(desktop = %desktop.name, reason = %reason.text, "the machine ended while no service ran");
                    self.context.store.set_ended(desktop.id, &reason.text, reason.failed)?;
                    return Ok(());
                }
            }
            // it was to sleep or to be stopped and had ended
            None if desktop.desired == Desired::Suspended && desktop.resume.is_none() => {
                self.context.store.set_desired(desktop.id, Desired::Stopped)?;
            }
            None => {}
        }
        if desktop.desired == Desired::Running {
            tracing::info!(desktop = %desktop.name, "the machine is wanted: starting it");
            if let Err(error) = self.start(desktop.id).await {
                tracing::error!(desktop = %desktop.name, %error, "cannot start the machine");
                self.context.store.set_ended(desktop.id, &error.to_string(), true)?;
            }
        }
        Ok(())
    }

    /// Records the snapshot that a machine ended with while no service ran, if all of it is there.
    fn recover_suspended(&self, desktop: &store::Desktop) -> Result<bool, Error> {
        let Some(taken) = snapshot::unheard(&self.context, desktop) else { return Ok(false) };
        let desired = if desktop.desired == Desired::Running { Desired::Running } else { Desired::Suspended };
        taken.keep(|new| self.context.store.suspended(desktop.id, new, desired))?;
        tracing::info!(desktop = %desktop.name, "the machine was suspended while no service ran");
        Ok(true)
    }

    fn adopt(&self, desktop: &store::Desktop, vmm: Process, record: &Record) {
        let (proxy, passt) =
            (record.proxy.as_ref().and_then(Process::find), record.passt.as_ref().and_then(Process::find));
        let id = desktop.id;
        let (machine, console) = self.enter(&mut self.table(), id, true);
        let adopted = desktop.clone();
        tokio::spawn(async move {
            let log = tokio::spawn(console);
            machine.adopt(adopted, vmm, proxy, passt).await;
            log.abort();
        });
        match desktop.desired {
            Desired::Running => {}
            Desired::Stopped => {
                if let Err(error) = self.stop(id, false, None) {
                    tracing::error!(desktop = %id, %error, "cannot go on stopping the machine");
                }
            }
            Desired::Suspended => {
                let machines = self.clone();
                tokio::spawn(async move {
                    let _lock = machines.lock(id).await;
                    machines.started(id).await;
                    if let Err(error) = machines.suspend_locked(id, Purpose::SUSPEND, Desired::Suspended).await {
                        tracing::error!(desktop = %id, %error, "cannot go on suspending the machine");
                    }
                });
            }
        }
    }
}
