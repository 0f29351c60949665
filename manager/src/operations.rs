//! Work that takes a while and outlives who asked for it, and the service: it is recorded before it begins, one at a time for each
//! desktop, and ends as succeeded, failed, cancelled before it began, or rolled back by the next service.
//!
//! What an operation is for is recorded in one transaction with the mark that it was ([`crate::store::CURRENT`]). So the next
//! service knows: with the mark it is done, without it nothing came of it, and what was half made was cleared away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedMutexGuard, oneshot};
use uuid::Uuid;

use crate::api::problem::Refusal;
use crate::model::{self, OperationState, SnapshotKind, State};
use crate::service::Service;
use crate::store::{self, CURRENT, Desktop, NewOperation, Subject};

/// What is to be done with a desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Make it.
    Create {
        /// What it is to be.
        new: model::NewDesktop,
        /// Whose.
        owner: Uuid,
    },
    /// Start its machine, or let it go on.
    Start {
        /// Forget what it would go on from.
        cold: bool,
    },
    /// Shut it down.
    Stop {
        /// Without asking the guest.
        force: bool,
        /// Seconds that the guest gets; the service's own limit if absent.
        timeout: Option<u32>,
    },
    /// Shut it down, then start it.
    Restart {
        /// Without asking the guest.
        force: bool,
        /// Seconds that the guest gets; the service's own limit if absent.
        timeout: Option<u32>,
    },
    /// Delete it.
    Delete {
        /// So that it cannot be recovered.
        purge: bool,
    },
    /// Put it to sleep.
    Suspend,
    /// Keep its present.
    Snapshot {
        /// What to call that.
        name: String,
    },
    /// Go back to a snapshot.
    Restore {
        /// Which.
        snapshot: Uuid,
    },
    /// Go back to the newest restore point.
    Undo,
    /// Make others that go on from it.
    Fork {
        /// What they are called.
        names: Vec<String>,
        /// From there; from its present if absent.
        snapshot: Option<Uuid>,
        /// Start them.
        start: bool,
        /// For this user; for whose the desktop is if absent.
        #[serde(default)]
        owner: Option<Uuid>,
    },
}

impl Work {
    /// In a word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Delete { .. } => "delete",
            Self::Suspend => "suspend",
            Self::Snapshot { .. } => "snapshot",
            Self::Restore { .. } => "restore",
            Self::Undo => "undo",
            Self::Fork { .. } => "fork",
        }
    }

    /// Whether it waits until what was asked for before has ended. What ends a machine is there to end that, too.
    const fn waits(&self) -> bool {
        !matches!(self, Self::Stop { .. } | Self::Restart { .. } | Self::Delete { .. })
    }

    /// Whether to do it twice is to do it once.
    const fn repeats(&self) -> bool {
        matches!(
            self,
            Self::Start { .. } | Self::Suspend | Self::Stop { .. } | Self::Restart { .. } | Self::Delete { .. }
        )
    }
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until it is.
    pub async fn of(&self, desktop: Uuid) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(&desktop).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(desktop, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

/// An operation that goes on whether or not somebody waits for it.
pub struct Begun {
    /// As it was recorded.
    pub row: store::Operation,
    /// Told what came of it.
    pub ended: oneshot::Receiver<Result<Value, Refusal>>,
    /// Told when its machine's processes exist, or that they will not, or when it is on its way down; of a start, stop or restart.
    pub launched: oneshot::Receiver<Result<(), Refusal>>,
}

impl Service {
    /// Records what is to be done, and begins it when what was asked for before has ended.
    pub fn operate(self: &Arc<Self>, desktop: &Desktop, work: Work, actor: &str) -> Result<Begun, Refusal> {
        self.operate_on(desktop.into(), work, actor)
    }

    /// [`Self::operate`], also with a desktop that is yet to be made.
    pub fn operate_on(self: &Arc<Self>, desktop: Subject<'_>, work: Work, actor: &str) -> Result<Begun, Refusal> {
        let json = serde_json::to_string(&work).map_err(|error| Refusal::internal(error.to_string()))?;
        let new = NewOperation { work: &json, kind: work.kind(), desktop, actor };
        let row = self.store.add_operation(&new)?;
        self.tell_operation(&row);
        Ok(self.clone().spawn_operation(row, work))
    }

    fn spawn_operation(self: Arc<Self>, row: store::Operation, work: Work) -> Begun {
        let (ended_tx, ended) = oneshot::channel();
        let (launched_tx, launched) = oneshot::channel();
        let operation = row.clone();
        tokio::spawn(async move {
            let _turn = match work.waits() {
                true => Some(self.turns.of(operation.desktop_id).await),
                false => None,
            };
            let result = match self.store.begin_operation(operation.id) {
                Ok(true) => {
                    self.tell_operation_now(operation.id);
                    let work = self.work_at(operation.desktop_id, &work, launched_tx);
                    let result = CURRENT.scope(operation.id, work).await;
                    self.end_operation(&operation, &result);
                    result
                }
                Ok(false) => Err(Refusal::conflict("the operation was cancelled")),
                Err(error) => Err(error.into()),
            };
            let _ = ended_tx.send(result); // nobody may wait
        });
        Begun { row, ended, launched }
    }

    fn end_operation(&self, operation: &store::Operation, result: &Result<Value, Refusal>) {
        let ended = match result {
            Ok(result) => {
                self.store.end_operation(operation.id, OperationState::Succeeded, None, Some(&result.to_string()))
            }
            Err(refusal) => {
                let problem = serde_json::to_string(&refusal.problem(None)).unwrap_or_default();
                self.store.end_operation(operation.id, OperationState::Failed, Some(&problem), None)
            }
        };
        if let Err(error) = ended {
            tracing::error!(operation = %operation.id, %error, "how an operation ended is not recorded");
        }
        self.tell_operation_now(operation.id);
    }

    /// Does it; answers what the API answers who waited.
    async fn work_at(
        &self,
        desktop: Uuid,
        work: &Work,
        launched: oneshot::Sender<Result<(), Refusal>>,
    ) -> Result<Value, Refusal> {
        let gone = || Refusal::not_found("desktop", &desktop.to_string());
        if let Work::Create { new, owner } = work {
            return self.create(desktop, new, *owner).await;
        }
        let row = self.store.desktop(desktop)?.ok_or_else(gone)?;
        if row.deleted.is_some() && !matches!(work, Work::Delete { .. }) {
            return Err(gone());
        }
        match work {
            Work::Create { .. } => {}
            Work::Delete { purge } => return self.delete_desktop(&row, *purge).await.map(|()| Value::Null),
            Work::Stop { force, timeout } | Work::Restart { force, timeout } => {
                let timeout = timeout.map(|seconds| Duration::from_secs(seconds.min(3600).into()));
                let ordered = self.machines.stop(desktop, *force, timeout).map_err(Refusal::from);
                let _ = launched.send(ordered.clone()); // nobody may wait
                ordered?;
                self.machines.ended(desktop).await;
                if matches!(work, Work::Restart { .. }) {
                    self.machines.start(desktop).await?;
                    self.machines.started(desktop).await;
                }
            }
            Work::Start { cold } => {
                let started = match cold {
                    true => self.machines.start_cold(desktop).await,
                    false => self.machines.start(desktop).await,
                };
                let started = started.map_err(Refusal::from);
                let _ = launched.send(started.clone()); // nobody may wait
                started?;
                self.machines.started(desktop).await;
            }
            Work::Suspend => self.suspend(&row).await?,
            Work::Snapshot { name } => {
                let taken = self.take_snapshot(&row, SnapshotKind::Manual, name).await?;
                return value(&Self::show_snapshot(&row.name, taken));
            }
            Work::Restore { snapshot } => {
                let to = self.store.snapshot(*snapshot)?.ok_or_else(|| Refusal::conflict("the snapshot is gone"))?;
                self.restore(&row, &to).await?;
            }
            Work::Undo => self.undo(&row).await?,
            Work::Fork { names, snapshot, start, owner } => {
                let from = snapshot.map(|id| self.store.snapshot(id)).transpose()?.flatten();
                if snapshot.is_some() && from.is_none() {
                    return Err(Refusal::conflict("the snapshot is gone"));
                }
                let made = self.fork(&row, names, from.as_ref(), owner.unwrap_or(row.owner_id)).await?;
                for desktop in made.iter().filter(|_| *start) {
                    self.machines.start(desktop.id).await?;
                }
                return value(&made.into_iter().map(|desktop| self.show(desktop)).collect::<Vec<_>>());
            }
        }
        let now = self.show(self.store.desktop(desktop)?.ok_or_else(gone)?);
        match (work, &now.ended) {
            (Work::Start { .. } | Work::Restart { .. }, Some(ended)) if now.state != State::Running => {
                Err(Refusal::upstream(format!("the machine ended: {}", ended.reason)))
            }
            _ => value(&now),
        }
    }

    async fn create(&self, id: Uuid, new: &model::NewDesktop, owner: Uuid) -> Result<Value, Refusal> {
        let owner = self.store.user(owner)?.ok_or_else(|| Refusal::conflict("whose it was to be is gone"))?;
        let desktop = self.create_desktop(id, new, &owner).await?;
        if new.start {
            self.machines.start(id).await?;
        }
        value(&self.show(desktop))
    }

    /// Takes up what a service before this one had not ended. Machines have been recovered before.
    pub fn resume_operations(self: &Arc<Self>) -> Result<(), store::Error> {
        self.store.forget_unanswered()?;
        for row in self.store.unended_operations()? {
            let Ok(work) = serde_json::from_str::<Work>(&row.work) else {
                self.end_operation(
                    &row,
                    &Err(Refusal::internal(format!("this version does not know how to {}", row.kind))),
                );
                continue;
            };
            if row.state == OperationState::Queued {
                self.clone().spawn_operation(row, work);
                continue;
            }
            match work {
                Work::Start { .. } => self.clone().work_again(row, Work::Start { cold: false }),
                work if work.repeats() => self.clone().work_again(row, work),
                Work::Create { new, .. } if new.start && row.done => self.clone().start_made(row),
                Work::Fork { names, start: true, .. } if row.done => self.clone().start_forks(row, names),
                _ if row.done => {
                    let found = self.store.desktop(row.desktop_id)?.map(|desktop| self.show(desktop));
                    self.end_operation(&row, &Ok(json!(found)));
                }
                _ => {
                    let detail = "the service ended before it was done: everything is as it was before";
                    let problem =
                        serde_json::to_string(&Refusal::interrupted(detail).problem(None)).unwrap_or_default();
                    self.store.end_operation(row.id, OperationState::RolledBack, Some(&problem), None)?;
                    tracing::warn!(operation = %row.id, kind = %row.kind, desktop = %row.desktop, "rolled back");
                    self.tell_operation_now(row.id);
                }
            }
        }
        Ok(())
    }

    fn work_again(self: Arc<Self>, row: store::Operation, work: Work) {
        tokio::spawn(async move {
            let _turn = self.turns.of(row.desktop_id).await;
            let (launched, _) = oneshot::channel();
            let result = self.work_at(row.desktop_id, &work, launched).await;
            self.end_operation(&row, &result);
        });
    }

    fn start_made(self: Arc<Self>, row: store::Operation) {
        tokio::spawn(async move {
            let id = row.desktop_id;
            let started = self.machines.start(id).await.map_err(Refusal::from);
            let made =
                self.store.desktop(id).map_err(Refusal::from).map(|found| json!(found.map(|made| self.show(made))));
            self.end_operation(&row, &started.and(made));
        });
    }

    fn start_forks(self: Arc<Self>, row: store::Operation, names: Vec<String>) {
        tokio::spawn(async move {
            let start = async {
                let mut made = Vec::new();
                for name in &names {
                    if let Some(desktop) = self.store.desktop_named(name)? {
                        self.machines.start(desktop.id).await?;
                        made.push(self.show(desktop));
                    }
                }
                value(&made)
            };
            let result = start.await;
            self.end_operation(&row, &result);
        });
    }

    /// An operation as the API shows it.
    pub fn show_operation(row: store::Operation) -> model::Operation {
        model::Operation {
            id: row.id,
            kind: row.kind,
            desktop: row.desktop,
            desktop_id: row.desktop_id,
            actor: row.actor,
            state: row.state,
            cancellable: row.state == OperationState::Queued,
            created: row.created,
            ended: row.ended,
            problem: row.problem.and_then(|text| serde_json::from_str(&text).ok()),
            result: row.result.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }

    /// Tells who watches how far an operation is.
    pub fn tell_operation_now(&self, id: Uuid) {
        if let Ok(Some(row)) = self.store.operation(&id.to_string()) {
            self.tell_operation(&row);
        }
    }

    fn tell_operation(&self, row: &store::Operation) {
        let data = json!({"id": row.id, "kind": row.kind, "desktop": row.desktop, "desktop_id": row.desktop_id, "state": row.state});
        self.tell("operation", row.owner_id, &data);
    }
}

fn value(value: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|error| Refusal::internal(error.to_string()))
}
