//! What was deleted stays for a while: it can be recovered, and goes by itself when that time is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::api::problem::Refusal;
use crate::folder::Folder;
use crate::model::{self, State};
use crate::names;
use crate::service::{Revoked, Service};
use crate::store::{self, Desktop};

/// What was deleted can be recovered for so long, unless somebody says otherwise.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Service {
    /// Deletes a desktop; a machine that runs is ended. It can be recovered, unless it is to go at once. To do this twice is to
    /// do it once.
    pub(crate) async fn delete_desktop(&self, desktop: &Desktop, purge: bool) -> Result<(), Refusal> {
        // a deleted desktop cannot be started; should we be killed now, the next service ends its machine
        if self.store.trash(desktop.id)? {
            tracing::info!(desktop = %desktop.name, "desktop deleted");
            self.tell("desktop.remove", desktop.owner_id, &json!({"id": desktop.id, "name": desktop.name}));
        }
        self.revoke(Revoked::Desktop(desktop.id));
        // what a suspended one goes on from is kept with it
        if !matches!(self.machines.state(desktop.id), State::Stopped | State::Suspended) {
            self.machines.stop(desktop.id, true, None)?;
            self.machines.ended(desktop.id).await;
        }
        if purge || self.keep_deleted.is_zero() { self.purge(desktop).await.map(drop) } else { Ok(()) }
    }

    /// Takes a deleted desktop back.
    pub fn recover_desktop(&self, desktop: &Desktop, name: Option<&str>) -> Result<Desktop, Refusal> {
        let name = name.unwrap_or(&desktop.name);
        names::check("desktop", name)?;
        let gone = || Refusal::not_found("deleted desktop", &desktop.name);
        if !self.store.recover(desktop.id, name)? {
            return Err(gone());
        }
        tracing::info!(desktop = name, "desktop recovered");
        // for who watches it is one more
        self.tell("desktop.add", desktop.owner_id, &json!({"id": desktop.id, "name": name}));
        self.store.desktop(desktop.id)?.ok_or_else(gone)
    }

    /// Removes a deleted desktop with everything in it. False if it was recovered meanwhile.
    pub async fn purge(&self, desktop: &Desktop) -> Result<bool, Refusal> {
        // the lock: nothing of it is being made use of. Should we be killed without the row, the next service removes the rest
        let _lock = self.machines.lock(desktop.id).await;
        if !self.store.purge(desktop.id)? {
            return Ok(false);
        }
        let folder = Folder::of(&self.data, desktop.id);
        let removed = tokio::task::spawn_blocking(move || folder.remove()).await;
        removed.map_err(|panic| Refusal::internal(panic.to_string()))??;
        self.machines.context().sweep_soon();
        tracing::info!(desktop = %desktop.name, "deleted desktop removed for good");
        self.tell("desktop.purge", desktop.owner_id, &json!({"id": desktop.id, "name": desktop.name}));
        Ok(true)
    }

    /// When a deleted desktop goes.
    fn goes(&self, deleted: Timestamp) -> Timestamp {
        let kept = SignedDuration::try_from(self.keep_deleted).unwrap_or(SignedDuration::MAX);
        deleted.checked_add(kept).unwrap_or(Timestamp::MAX)
    }

    /// A deleted desktop as the API shows it.
    pub fn show_deleted(&self, desktop: Desktop) -> model::Deleted {
        let deleted = desktop.deleted.unwrap_or_default();
        model::Deleted {
            id: desktop.id,
            bytes: self.disk_of(desktop.id).unwrap_or_default(),
            name: desktop.name,
            owner: desktop.owner,
            image: desktop.image,
            created: desktop.created,
            deleted,
            until: self.goes(deleted),
        }
    }

    /// Bytes on the host's disk that the layers of a desktop's disks take, those that it shares with others too.
    pub fn disk_of(&self, desktop: uuid::Uuid) -> Result<u64, store::Error> {
        let mut bytes = 0;
        for (_, top) in self.store.tops(store::DisksOf::Desktop(desktop))? {
            let chain = self.store.chain(top)?;
            bytes += chain.iter().map(|layer| self.machines.context().layers.bytes(layer.id)).sum::<u64>();
        }
        Ok(bytes)
    }
}

/// Removes what was deleted long enough ago, for ever.
pub async fn tend(service: Arc<Service>) {
    let mut often =
        tokio::time::interval((service.keep_deleted / 8).clamp(Duration::from_secs(1), Duration::from_secs(60)));
    loop {
        often.tick().await;
        let deleted = match service.store.deleted(None) {
            Ok(deleted) => deleted,
            Err(error) => {
                tracing::error!(%error, "cannot look for deleted desktops");
                continue;
            }
        };
        let now = Timestamp::now();
        for desktop in deleted.into_iter().filter(|desktop| desktop.deleted.is_some_and(|at| service.goes(at) <= now)) {
            if let Err(error) = service.purge(&desktop).await {
                tracing::error!(desktop = %desktop.name, %error, "a deleted desktop is not removed");
            }
        }
    }
}
