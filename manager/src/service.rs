//! What the parts of the service share, and the work that takes several of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, watch};
use uuid::Uuid;
use yunju_protocol::machine::ByteSize;

use crate::api::problem::Refusal;
use crate::auth::{self, brake::Brake, rate::Rate};
use crate::folder::Folder;
use crate::images::{self, Image};
use crate::machines::Machines;
use crate::metrics::Requests;
use crate::model;
use crate::names;
use crate::operations::Turns;
use crate::origins::Origins;
use crate::store::{self, Store, User};
use crate::thumbnails::Thumbnails;
use crate::tickets::Tickets;
use crate::viewers::Viewers;
use crate::warm::Warming;

/// The service.
#[derive(Debug)]
pub struct Service {
    /// What is remembered.
    pub store: Arc<Store>,
    /// What runs.
    pub machines: Machines,
    /// The data folder.
    pub data: PathBuf,
    /// Where images are.
    pub images: PathBuf,
    /// Where browsers reach the service.
    pub url: String,
    /// Its host names.
    pub origins: Origins,
    /// Ways to desktops that were given and not used yet.
    pub tickets: Tickets,
    /// Slows guessing down.
    pub brake: Brake,
    /// Slows down who asks too often.
    pub rate: Rate,
    /// Who looks at desktops.
    pub viewers: Arc<Viewers>,
    /// Small pictures of desktops.
    pub thumbnails: Thumbnails,
    /// How images are being warmed.
    pub warming: Warming,
    /// Tells open streams that their right to exist has ended.
    pub revoked: broadcast::Sender<Revoked>,
    /// Whose operation's turn it is.
    pub turns: Turns,
    /// How requests were answered.
    pub requests: Requests,
    /// What was deleted can be recovered for so long.
    pub keep_deleted: Duration,
    /// The service is about to end.
    pub ending: AtomicBool,
    /// The number of the newest event.
    pub events: watch::Sender<i64>,
    hashing: Semaphore,
}

/// What no longer gives access.
#[derive(Debug, Clone)]
pub enum Revoked {
    /// This session or API token, by its hash.
    Credential(Vec<u8>),
    /// All sessions and tokens of a user but this one.
    User(Uuid, Option<Vec<u8>>),
    /// To this desktop, for everybody.
    Desktop(Uuid),
    /// This share.
    Share(Uuid),
}

impl Service {
    /// Puts the parts together.
    pub fn new(
        store: Arc<Store>,
        machines: Machines,
        data: PathBuf,
        images: PathBuf,
        url: String,
        origins: Origins,
    ) -> Self {
        let (revoked, _) = broadcast::channel(256);
        // hashing takes 19 MiB and tens of milliseconds each
        let newest = store.events_kept().map_or(0, |(_, newest)| newest);
        let (turns, events) = (Turns::default(), watch::Sender::new(newest));
        let (brake, rate, viewers, warming, hashing) =
            (Brake::default(), Rate::default(), Arc::default(), Warming::default(), Semaphore::new(2));
        let (requests, ending) = (Requests::default(), AtomicBool::new(false));
        let (thumbnails, tickets) = (Thumbnails::default(), Tickets::default());
        Self {
            requests,
            keep_deleted: crate::trash::KEPT,
            ending,
            store,
            machines,
            data,
            images,
            url,
            origins,
            tickets,
            brake,
            rate,
            viewers,
            thumbnails,
            warming,
            revoked,
            turns,
            events,
            hashing,
        }
    }

    /// Ends the streams that something gave access to.
    pub fn revoke(&self, what: Revoked) {
        let _ = self.revoked.send(what); // no stream may be open
    }

    /// Records in the audit log what the service does by itself.
    pub fn record_own(&self, action: &str, desktop: &store::Desktop, refused: Option<&Refusal>) {
        let resource = format!("desktop {}", desktop.name);
        let (status, detail) = refused.map_or((200, String::new()), |refusal| (refusal.status(), refusal.to_string()));
        let entry = store::NewAudit {
            actor: "service",
            via: "service",
            action,
            resource: &resource,
            status,
            detail: &detail,
            ..store::NewAudit::default()
        };
        if let Err(error) = self.store.add_audit(&entry) {
            tracing::error!(%error, action, "not in the audit log");
        }
    }

    /// Tells those who watch, and may see what `owner` has, that something happened.
    pub fn tell(&self, kind: &str, owner: Uuid, data: &serde_json::Value) {
        match self.store.add_event(kind, owner, &data.to_string()) {
            Ok(newest) => drop(self.events.send_if_modified(|known| {
                let newer = newest > *known;
                *known = newest.max(*known);
                newer
            })),
            Err(error) => tracing::error!(%error, kind, "an event is lost"),
        }
    }

    /// Tells of each change of a machine's state, for ever.
    pub async fn tell_states(self: Arc<Self>) {
        let mut changes = self.machines.changes();
        let mut last = HashMap::new();
        loop {
            let id = match changes.recv().await {
                Ok(id) => id,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let Ok(Some(desktop)) = self.store.desktop(id) else {
                last.remove(&id);
                continue;
            };
            let state = self.machines.state(id);
            if desktop.owner_id.is_nil() || last.insert(id, state) == Some(state) {
                continue;
            }
            let data = json!({"id": id, "name": desktop.name, "state": state});
            self.tell("desktop.state", desktop.owner_id, &data);
        }
    }

    /// Changes what a desktop is, if it is still of this generation.
    pub async fn change_desktop(&self, desktop: &store::Desktop, change: &model::DesktopChange) -> Result<(), Refusal> {
        // no machine starts meanwhile
        let _lock = self.machines.lock(desktop.id).await;
        let name = change.name.as_deref().unwrap_or(&desktop.name);
        names::check("desktop", name)?;
        let (memory, cpus) = (change.memory.map_or(desktop.memory, |size| size.0), change.cpus.unwrap_or(desktop.cpus));
        images::check_memory(ByteSize(memory)).and(images::check_cpus(cpus)).map_err(Refusal::invalid)?;
        let state = self.machines.state(desktop.id);
        if (memory, cpus) != (desktop.memory, desktop.cpus) && state != model::State::Stopped {
            return Err(Refusal::conflict(format!("`{}` is {state}: stop it to change its size", desktop.name)));
        }
        if !self.store.change_desktop(desktop.id, desktop.generation, name, memory, cpus)? {
            return Err(Refusal::stale());
        }
        tracing::info!(desktop = %desktop.name, name, memory, cpus, "desktop changed");
        self.tell("desktop.change", desktop.owner_id, &json!({"id": desktop.id, "name": name}));
        Ok(())
    }

    /// [`auth::hash_password`] beside the async runtime.
    pub async fn hash_password(&self, password: String) -> String {
        self.beside(move || auth::hash_password(&password)).await
    }

    /// [`auth::verify_password`] beside the async runtime.
    pub async fn verify_password(&self, password: String, hash: Option<String>) -> bool {
        self.beside(move || auth::verify_password(&password, hash.as_deref())).await
    }

    async fn beside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _permit = self.hashing.acquire().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(work).await.expect("hashing does not panic")
    }

    /// Whether a desktop can be made like this, as far as is known before it is.
    pub fn may_be_made(&self, new: &model::NewDesktop) -> Result<(), Refusal> {
        names::check("desktop", &new.name)?;
        let image = Image::named(&self.images, &new.image)?;
        let (memory, cpus) = (new.memory.unwrap_or(image.manifest.memory), new.cpus.unwrap_or(image.manifest.cpus));
        images::check_memory(memory).and(images::check_cpus(cpus)).map_err(Refusal::invalid)?;
        match self.store.desktop_named(&new.name)? {
            Some(_) => Err(store::Error::Exists { kind: "desktop", name: new.name.clone() }.into()),
            None => Ok(()),
        }
    }

    /// Makes a stopped desktop with this id for `owner`.
    pub async fn create_desktop(
        &self,
        id: Uuid,
        new: &model::NewDesktop,
        owner: &User,
    ) -> Result<store::Desktop, Refusal> {
        self.may_be_made(new)?;
        let image = Image::named(&self.images, &new.image)?;
        let (memory, cpus) = (new.memory.unwrap_or(image.manifest.memory), new.cpus.unwrap_or(image.manifest.cpus));
        let folder = Folder::of(&self.data, id);
        folder.create()?;
        let row = store::NewDesktop {
            id,
            name: &new.name,
            owner: owner.id,
            image: &image.manifest.name,
            image_digest: &image.manifest.digest,
            image_folder: &image.folder,
            memory: memory.0,
            cpus,
        };
        let warm = self.store.warm_snapshot(row.image, row.image_digest)?;
        // one that is like it needs no boot
        let added = match warm.filter(|warm| (warm.memory, warm.cpus) == (row.memory, row.cpus)) {
            Some(warm) => self.store.fork(warm.id, None, &[row]),
            None => self.store.add_desktop(&row, &[]),
        };
        if let Err(error) = added {
            folder.remove()?;
            return Err(error.into());
        }
        tracing::info!(desktop = %new.name, owner = %owner.name, image = %new.image, "desktop created");
        self.tell("desktop.add", owner.id, &json!({"id": id, "name": new.name}));
        self.store.desktop(id)?.ok_or_else(|| Refusal::not_found("desktop", &new.name))
    }

    /// Since when a desktop is in this state, as far as is known.
    fn since(&self, state: model::State, desktop: &store::Desktop, ended: Option<&store::Ended>) -> Option<Timestamp> {
        match state {
            model::State::Stopped => ended.map(|ended| ended.at),
            model::State::Suspended => {
                desktop.resume.and_then(|id| self.store.snapshot(id).ok().flatten()).map(|kept| kept.created)
            }
            // it is written at each start
            _ => {
                let written =
                    Folder::of(&self.data, desktop.id).file("machine.json").metadata().ok()?.modified().ok()?;
                Timestamp::try_from(written).ok()
            }
        }
    }

    /// A desktop as the API shows it.
    pub fn show(&self, desktop: store::Desktop) -> model::Desktop {
        let state = self.machines.state(desktop.id);
        // a machine that ended after `desktop` was read: its reason was recorded before it left the table
        let ended = match self.store.desktop(desktop.id) {
            Ok(Some(now)) => now.ended,
            Ok(None) | Err(_) => desktop.ended.clone(),
        };
        model::Desktop {
            since: self.since(state, &desktop, ended.as_ref()),
            state,
            id: desktop.id,
            name: desktop.name,
            owner: desktop.owner,
            ended: ended.map(|ended| model::Ended { at: ended.at, reason: ended.reason, failed: ended.failed }),
            image: desktop.image,
            image_digest: desktop.image_digest,
            memory: desktop.memory,
            cpus: desktop.cpus,
            created: desktop.created,
            restore_point: self.restore_point(desktop.id),
        }
    }
}
