//! What desktops use is counted: while their machines run every few seconds, and when these end.
//!
//! Counters only grow, and how far they have been added up is recorded in the transaction that adds them ([`Store::count_usage`]): a
//! service that is killed counts nothing twice, and the next one counts what was used meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::folder::Folder;
use crate::machines::spent::Spent;
use crate::model::State;
use crate::service::Service;
use crate::store::{self, Desktop, Store};

/// Adds what a machine used since the last time.
pub(crate) fn count(store: &Store, folder: &Folder, desktop: &Desktop) {
    if desktop.owner_id.is_nil() {
        return;
    }
    if let Some(spent) = Spent::of(folder)
        && let Err(error) = store.count_usage(desktop, &spent)
    {
        tracing::error!(desktop = %desktop.name, %error, "what a machine used is not counted yet");
    }
}

/// What the disks of a desktop that does not run took when that was last recorded: at which day.
type Seen = HashMap<Uuid, (i64, u64)>;

/// Counts for ever.
pub async fn tend(service: Arc<Service>, every: Duration) {
    let mut often = tokio::time::interval(every);
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = Seen::new();
    loop {
        often.tick().await;
        let work = service.clone();
        let done = tokio::task::spawn_blocking(move || {
            let counted = work.count(&mut seen);
            (seen, counted)
        });
        match done.await {
            Ok((now, counted)) => {
                seen = now;
                if let Err(error) = counted {
                    tracing::error!(%error, "what desktops use is not counted yet");
                }
            }
            Err(error) => {
                tracing::error!(%error, "what desktops use is not counted yet");
                seen = Seen::new();
            }
        }
    }
}

impl Service {
    fn count(&self, seen: &mut Seen) -> Result<(), store::Error> {
        let there = self.store.desktops(None)?;
        let today = jiff::Timestamp::now().as_second() / 86_400;
        let mut disks = Vec::new();
        let deleted = self.store.deleted(None)?;
        for desktop in there.iter().chain(&deleted) {
            let runs = !matches!(self.machines.state(desktop.id), State::Stopped | State::Suspended);
            if runs {
                count(&self.store, &Folder::of(&self.data, desktop.id), desktop);
            }
            let bytes = self.disk_of(desktop.id)?;
            // of those that do not run once a day is enough
            if runs || seen.get(&desktop.id) != Some(&(today, bytes)) {
                seen.insert(desktop.id, (today, bytes));
                disks.push((desktop, bytes));
            }
        }
        let known: HashSet<_> = there.iter().chain(&deleted).map(|desktop| desktop.id).collect();
        seen.retain(|id, _| known.contains(id));
        self.store.count_disks(&disks)?;
        self.store.set_disk_use(&self.disk_use()?)
    }

    /// Bytes that the disks and snapshots of each user take, each file once.
    fn disk_use(&self) -> Result<HashMap<Uuid, u64>, store::Error> {
        let mut bytes = HashMap::new();
        for (owner, layer) in self.store.layers_by_owner()? {
            *bytes.entry(owner).or_insert(0) += self.machines.context().layers.bytes(layer);
        }
        for (owner, memory) in self.store.snapshot_bytes_by_owner()? {
            *bytes.entry(owner).or_insert(0) += memory;
        }
        Ok(bytes)
    }
}
