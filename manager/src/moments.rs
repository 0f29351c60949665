//! A desktop in time: snapshots of it, going back to them, and other desktops that go on from them.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::api::problem::Refusal;
use crate::folder::Folder;
use crate::machines::snapshot::{self, Purpose, Taken};
use crate::machines::{self, Machines};
use crate::model::{self, SnapshotKind, State};
use crate::names;
use crate::service::Service;
use crate::store::{self, Desired, Desktop, DisksOf, NewDesktop, NewSnapshot, Snapshot};

/// A desktop keeps this many restore points.
pub const POINTS: u32 = 3;

/// A desktop has at most this many snapshots that somebody asked for.
pub const SNAPSHOTS: usize = 16;

/// So many desktops come of one fork.
pub const FORKS: usize = 100;

/// A snapshot's name has at most this many characters.
const LONGEST_NAME: usize = 60;

/// The present of a desktop, held fast.
enum Present {
    /// Files of its own, to be recorded.
    Taken(Box<Taken>),
    /// The disks alone.
    Disks(NewSnapshot),
}

impl Present {
    fn keep(self, record: impl FnOnce(&NewSnapshot) -> store::Result<()>) -> Result<Uuid, machines::Error> {
        match self {
            Self::Taken(taken) => taken.keep(record),
            Self::Disks(new) => record(&new).map(|()| new.snapshot.id).map_err(machines::Error::from),
        }
    }
}

impl Service {
    /// Suspends a running desktop. One that is suspended stays so.
    pub async fn suspend(&self, desktop: &Desktop) -> Result<(), Refusal> {
        let _lock = self.machines.lock(desktop.id).await;
        self.machines.started(desktop.id).await;
        if self.machines.state(desktop.id) == State::Suspended {
            return Ok(());
        }
        Ok(self.machines.suspend_locked(desktop.id, Purpose::SUSPEND, Desired::Suspended).await?)
    }

    /// Takes a snapshot that stands in the desktop's list.
    pub async fn take_snapshot(&self, desktop: &Desktop, kind: SnapshotKind, name: &str) -> Result<Snapshot, Refusal> {
        if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            let problem = format!("a snapshot's name has at most {LONGEST_NAME} printable characters");
            return Err(Refusal::invalid(problem));
        }
        let _lock = self.machines.lock(desktop.id).await;
        let there = self.store.snapshots(desktop.id)?;
        if kind == SnapshotKind::Manual {
            let manual = there.iter().filter(|snapshot| snapshot.kind == SnapshotKind::Manual);
            if manual.count() >= SNAPSHOTS {
                let problem =
                    format!("`{}` has {SNAPSHOTS} snapshots, which is the most: remove one first", desktop.name);
                return Err(Refusal::limit(problem));
            }
            if !name.is_empty() && there.iter().any(|snapshot| snapshot.name == name) {
                return Err(Refusal::conflict(format!("`{}` already has a snapshot called `{name}`", desktop.name)));
            }
        }
        let present = self.present(desktop, Purpose { kind, name: name.to_owned(), listed: true }).await?;
        let id = present.keep(|new| self.store.add_snapshot(new))?;
        if kind == SnapshotKind::Point {
            self.store.hide_old_points(desktop.id, POINTS)?;
        }
        self.machines.context().sweep_soon();
        tracing::info!(desktop = %desktop.name, %kind, snapshot = %id, "snapshot taken");
        self.store.snapshot(id)?.ok_or_else(|| Refusal::not_found("snapshot", &id.to_string()))
    }

    /// Holds the present fast. A running machine goes on; the caller has the desktop's lock.
    async fn present(&self, desktop: &Desktop, purpose: Purpose) -> Result<Present, machines::Error> {
        let context = self.machines.context();
        self.machines.started(desktop.id).await;
        let desktop = self.store.desktop(desktop.id)?.ok_or(machines::Error::Gone)?;
        match self.machines.state(desktop.id) {
            State::Running => Ok(Present::Taken(Box::new(snapshot::live(context, &desktop, purpose).await?))),
            State::Starting | State::Stopping => Err(machines::Error::Stopping),
            State::Suspending => Err(machines::Error::Suspending),
            State::Stopped => {
                let disks = context.layers.tops(&self.store, desktop.id)?;
                let snapshot = listed(snapshot::of(&desktop, Uuid::new_v4()), &desktop, purpose);
                Ok(Present::Disks(NewSnapshot { snapshot, disks }))
            }
            State::Suspended => {
                let from = desktop.resume.ok_or(machines::Error::NoSnapshot)?;
                let slept = self.store.snapshot(from)?.ok_or(machines::Error::NoSnapshot)?;
                let linked = context.snapshots.link(from).and_then(|partial| partial.finish().map(|()| partial));
                let partial = linked.map_err(|error| snapshot::storage("keeping a snapshot", error))?;
                let snapshot = listed(Snapshot { id: partial.id, ..slept }, &desktop, purpose);
                let new = NewSnapshot { snapshot, disks: self.store.tops(DisksOf::Snapshot(from))? };
                Ok(Present::Taken(Box::new(Taken { new, partial })))
            }
        }
    }

    /// Puts a desktop back to a snapshot; the present becomes a restore point. What ran before runs after.
    pub async fn restore(&self, desktop: &Desktop, to: &Snapshot) -> Result<(), Refusal> {
        let _lock = self.machines.lock(desktop.id).await;
        self.restore_locked(desktop, to).await
    }

    /// Goes back to the newest restore point; the present becomes one, so that this can be undone.
    pub async fn undo(&self, desktop: &Desktop) -> Result<(), Refusal> {
        let _lock = self.machines.lock(desktop.id).await;
        let point = self.store.newest_point(desktop.id)?.ok_or_else(|| {
            let how = "one is taken now and then while somebody looks at it, and before each restore";
            Refusal::conflict(format!("`{}` has no restore point yet: {how}", desktop.name))
        })?;
        self.restore_locked(desktop, &point).await
    }

    async fn restore_locked(&self, desktop: &Desktop, to: &Snapshot) -> Result<(), Refusal> {
        // as it was listed, it may be gone by now
        let to = self.store.snapshot(to.id)?.filter(|to| to.desktop == Some(desktop.id));
        let to = to.ok_or_else(|| Refusal::conflict("the snapshot is gone"))?;
        self.machines.started(desktop.id).await;
        let point = Purpose { kind: SnapshotKind::Point, name: String::new(), listed: true };
        let ran = self.machines.state(desktop.id) == State::Running;
        if ran {
            // should we be killed after this the desktop goes on where it was
            self.machines.suspend_locked(desktop.id, point, Desired::Running).await?;
        } else {
            self.present(desktop, point).await?.keep(|new| self.store.add_snapshot(new))?;
        }
        self.store.put_on_snapshot(desktop.id, to.id)?;
        self.store.hide_old_points(desktop.id, POINTS)?;
        tracing::info!(desktop = %desktop.name, snapshot = %to.id, "desktop restored");
        if ran {
            self.machines.start_locked(desktop.id).await?;
        } else {
            let desired = if to.has_memory { Desired::Suspended } else { Desired::Stopped };
            self.store.set_desired(desktop.id, desired)?;
        }
        self.machines.context().sweep_soon();
        Ok(())
    }

    /// Makes new desktops that go on where `desktop` is, or was when `from` was taken. They are
    /// `owner`'s, and sleep until they are started.
    pub async fn fork(
        &self,
        desktop: &Desktop,
        names: &[String],
        from: Option<&Snapshot>,
        owner: Uuid,
    ) -> Result<Vec<Desktop>, Refusal> {
        if names.is_empty() || names.len() > FORKS {
            return Err(Refusal::invalid(format!("name 1 to {FORKS} new desktops")));
        }
        for name in names {
            names::check("desktop", name)?;
            if self.store.desktop_named(name)?.is_some() {
                return Err(store::Error::Exists { kind: "desktop", name: name.clone() }.into());
            }
        }
        let _lock = self.machines.lock(desktop.id).await;
        let ids: Vec<Uuid> = names.iter().map(|_| Uuid::new_v4()).collect();
        let folders: Vec<Folder> = ids.iter().map(|id| Folder::of(&self.data, *id)).collect();
        let forked = async {
            folders.iter().try_for_each(Folder::create)?;
            match from {
                Some(from) => self.store.fork(from.id, None, &rows(owner, from, names, &ids)).map_err(Refusal::from),
                None => {
                    let purpose = Purpose { kind: SnapshotKind::Fork, name: String::new(), listed: false };
                    let present = self.present(desktop, purpose).await?;
                    present.keep(|new| {
                        self.store.fork(new.snapshot.id, Some(new), &rows(owner, &new.snapshot, names, &ids))
                    })?;
                    Ok(())
                }
            }
        };
        if let Err(refusal) = forked.await {
            for folder in folders {
                folder.remove()?;
            }
            return Err(refusal);
        }
        tracing::info!(desktop = %desktop.name, forks = %names.join(", "), "desktop forked");
        let made = ids.iter().filter_map(|id| self.store.desktop(*id).transpose());
        let made: Vec<Desktop> = made.collect::<store::Result<_>>()?;
        for desktop in &made {
            self.tell("desktop.add", desktop.owner_id, &json!({"id": desktop.id, "name": desktop.name}));
        }
        Ok(made)
    }

    /// Removes a snapshot from a desktop's list.
    pub fn remove_snapshot(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        self.store.hide_snapshot(snapshot.id)?;
        self.machines.context().sweep_soon();
        Ok(())
    }

    /// The snapshot of a desktop that is called or numbered `reference`; the beginning of an id is enough.
    pub fn snapshot_of(&self, desktop: &Desktop, reference: &str) -> Result<Snapshot, Refusal> {
        let all = self.store.snapshots(desktop.id)?;
        let named = all.iter().find(|snapshot| !snapshot.name.is_empty() && snapshot.name == reference);
        let mut numbered =
            all.iter().filter(|snapshot| reference.len() >= 4 && snapshot.id.to_string().starts_with(reference));
        match (named, numbered.next(), numbered.next()) {
            (Some(found), _, _) | (None, Some(found), None) => Ok(found.clone()),
            (None, Some(_), Some(_)) => {
                Err(Refusal::conflict(format!("more than one snapshot begins with `{reference}`")))
            }
            _ => Err(Refusal::not_found("snapshot", reference)),
        }
    }

    /// A snapshot as the API shows it.
    pub fn show_snapshot(desktop: &str, snapshot: Snapshot) -> model::Snapshot {
        model::Snapshot {
            id: snapshot.id,
            desktop: desktop.to_owned(),
            name: snapshot.name,
            kind: snapshot.kind,
            created: snapshot.created,
            memory: snapshot.has_memory,
            screen: snapshot.has_screen,
            bytes: snapshot.bytes,
        }
    }

    /// When the newest restore point of a desktop was taken.
    pub fn restore_point(&self, desktop: Uuid) -> Option<Timestamp> {
        self.store.newest_point(desktop).ok().flatten().map(|point| point.created)
    }
}

impl Machines {
    /// Starts the machine of a desktop that somebody wants to look at, and waits until it runs.
    pub async fn wake(&self, id: Uuid) -> Result<(), machines::Error> {
        if matches!(self.state(id), State::Suspended | State::Suspending) {
            self.start(id).await?;
        }
        self.started(id).await;
        match self.state(id) {
            State::Running | State::Stopping => Ok(()),
            _ => Err(machines::Error::NotRunning),
        }
    }
}

fn listed(snapshot: Snapshot, desktop: &Desktop, purpose: Purpose) -> Snapshot {
    let desktop = purpose.listed.then_some(desktop.id);
    Snapshot { kind: purpose.kind, name: purpose.name, desktop, ..snapshot }
}

fn rows<'a>(owner: Uuid, from: &'a Snapshot, names: &'a [String], ids: &[Uuid]) -> Vec<NewDesktop<'a>> {
    let row = |(name, id): (&'a String, &Uuid)| NewDesktop {
        id: *id,
        name,
        owner,
        image: &from.image,
        image_digest: &from.image_digest,
        image_folder: &from.image_folder,
        memory: from.memory,
        cpus: from.cpus,
    };
    names.iter().zip(ids).map(row).collect()
}
