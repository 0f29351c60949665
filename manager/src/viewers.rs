//! Who looks at desktops, and what follows: a desktop that nobody looks at sleeps after a while, one that somebody works
//! with gets a restore point now and then.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::images::Image;
use crate::model::{SnapshotKind, State, Watcher};
use crate::service::Service;
use crate::store::Desktop;

/// When what happens by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// A desktop with a screen that nobody looks at is suspended after this; `None`: never.
    pub suspend_after: Option<Duration>,
    /// While somebody looks at a desktop a restore point is taken this often; `None`: never.
    pub point_every: Option<Duration>,
}

/// For so long it is known that somebody looked at a desktop that does not run.
const REMEMBERED: Duration = Duration::from_secs(60);

/// So many streams may be open by one login, link or token at a time.
const MOST_STREAMS: usize = 32;

/// Who looks at desktops now.
#[derive(Debug)]
pub struct Viewers {
    seen: Mutex<HashMap<Uuid, Seen>>,
    /// How many streams are open by what was shown for them.
    streams: Mutex<HashMap<Vec<u8>, usize>>,
    /// Tells whose viewers have changed.
    changes: broadcast::Sender<Uuid>,
}

impl Default for Viewers {
    fn default() -> Self {
        Self { seen: Mutex::default(), streams: Mutex::default(), changes: broadcast::Sender::new(256) }
    }
}

#[derive(Debug)]
struct Seen {
    /// By numbers that are not used again.
    viewers: BTreeMap<u64, Watcher>,
    next: u64,
    /// When the last one left, or the first one came.
    since: Instant,
}

/// Somebody who looks at a desktop until this is dropped.
#[derive(Debug)]
pub struct Viewer {
    viewers: Arc<Viewers>,
    desktop: Uuid,
    number: u64,
}

/// A stream that is open until this is dropped.
#[derive(Debug)]
pub struct Stream {
    viewers: Arc<Viewers>,
    credential: Vec<u8>,
}

impl Viewers {
    /// Somebody looks at a desktop.
    pub fn enter(self: &Arc<Self>, desktop: Uuid, who: Watcher) -> Viewer {
        let number = self.change(desktop, |seen| {
            if seen.viewers.is_empty() {
                seen.since = Instant::now();
            }
            seen.next += 1;
            seen.viewers.insert(seen.next, who);
            seen.next
        });
        Viewer { viewers: self.clone(), desktop, number }
    }

    /// A stream is opened by what has this hash, unless there are enough of it. Local processes, who show nothing, open any number.
    pub fn stream(self: &Arc<Self>, credential: &[u8]) -> Option<Stream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(credential.to_vec()).or_insert(0);
        if *open >= MOST_STREAMS && !credential.is_empty() {
            return None;
        }
        *open += 1;
        Some(Stream { viewers: self.clone(), credential: credential.to_vec() })
    }

    /// Those who look at a desktop, in the order in which they came.
    pub fn who(&self, desktop: Uuid) -> Vec<Watcher> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&desktop).map(|seen| seen.viewers.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether somebody looks at a desktop, and since when that is so, if it ever changed.
    pub fn of(&self, desktop: Uuid) -> (bool, Option<Instant>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&desktop).map_or((false, None), |seen| (!seen.viewers.is_empty(), Some(seen.since)))
    }

    fn forget(&self, gone: impl Fn(&Uuid) -> bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, seen| !seen.viewers.is_empty() || seen.since.elapsed() < REMEMBERED || !gone(id));
    }

    fn change<T>(&self, desktop: Uuid, change: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Seen { viewers: BTreeMap::new(), next: 0, since: Instant::now() };
        let changed = change(seen.entry(desktop).or_insert_with(new));
        let _ = self.changes.send(desktop); // nobody may listen
        changed
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.viewers.change(self.desktop, |seen| {
            seen.viewers.remove(&self.number);
            if seen.viewers.is_empty() {
                seen.since = Instant::now();
            }
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams = self.viewers.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.credential) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.credential);
            }
        }
    }
}

impl Service {
    /// Tells who may see a desktop that others look at it now, or no longer do, for ever.
    pub async fn tell_viewers(self: Arc<Self>) {
        let mut changes = self.viewers.changes.subscribe();
        loop {
            let id = match changes.recv().await {
                Ok(id) => id,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if let Ok(Some(desktop)) = self.store.desktop(id)
                && !desktop.owner_id.is_nil()
            {
                let who: Vec<_> = self.viewers.who(id).into_iter().map(|watcher| watcher.name).collect();
                self.tell(
                    "desktop.viewers",
                    desktop.owner_id,
                    &json!({"id": id, "name": desktop.name, "viewers": who}),
                );
            }
        }
    }
}

/// What has been done for a running desktop.
struct Care {
    /// Since when it runs, as far as was noticed, or when something was last tried.
    quiet_since: Instant,
    point_at: Instant,
}

/// Does what `policy` says, for ever.
pub async fn tend(service: Arc<Service>, policy: Policy) {
    let shortest = [policy.suspend_after, policy.point_every].into_iter().flatten().min();
    let Some(shortest) = shortest else { return };
    let mut ticks = tokio::time::interval((shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut cared, mut work) = (HashMap::new(), JoinSet::new());
    loop {
        ticks.tick().await;
        while work.try_join_next().is_some() {}
        match service.store.desktops(None) {
            Ok(desktops) => look(&service, policy, &desktops, &mut cared, &mut work),
            Err(error) => tracing::error!(%error, "cannot look for desktops that nobody looks at"),
        }
    }
}

fn look(
    service: &Arc<Service>,
    policy: Policy,
    desktops: &[Desktop],
    cared: &mut HashMap<Uuid, Care>,
    work: &mut JoinSet<()>,
) {
    let running: Vec<_> = desktops.iter().filter(|d| service.machines.state(d.id) == State::Running).collect();
    cared.retain(|id, _| running.iter().any(|desktop| desktop.id == *id));
    service.viewers.forget(|id| !running.iter().any(|desktop| desktop.id == *id));
    for desktop in running {
        let now = Instant::now();
        let care = cared.entry(desktop.id).or_insert(Care { quiet_since: now, point_at: now });
        let (watched, since) = service.viewers.of(desktop.id);
        if watched {
            care.quiet_since = now;
            let due =
                policy.point_every.is_some_and(|every| now - since.map_or(now, |s| s.max(care.point_at)) >= every);
            if due {
                care.point_at = now;
                let (service, desktop) = (service.clone(), (*desktop).clone());
                work.spawn(async move {
                    if let Err(refusal) = service.take_snapshot(&desktop, SnapshotKind::Point, "").await {
                        tracing::warn!(desktop = %desktop.name, %refusal, "no restore point");
                    }
                });
            }
        } else {
            let quiet = since.map_or(care.quiet_since, |since| since.max(care.quiet_since));
            if policy.suspend_after.is_some_and(|after| now - quiet >= after) && has_screen(desktop) {
                care.quiet_since = now;
                let (service, desktop) = (service.clone(), (*desktop).clone());
                work.spawn(async move { service.suspend_unwatched(&desktop).await });
            }
        }
    }
}

fn has_screen(desktop: &Desktop) -> bool {
    Image::at(&desktop.image_folder, &desktop.image).is_ok_and(|image| image.manifest.display.is_some())
}

impl Service {
    async fn suspend_unwatched(&self, desktop: &Desktop) {
        if self.viewers.of(desktop.id).0 {
            return;
        }
        tracing::info!(desktop = %desktop.name, "nobody looks at it: suspending");
        let begun = Instant::now();
        let suspended = self.suspend(desktop).await;
        self.record_own("desktop.suspend", desktop, suspended.as_ref().err());
        if let Err(refusal) = suspended {
            tracing::warn!(desktop = %desktop.name, %refusal, "not suspended");
        }
        // somebody came who was sent away again
        let came = self.viewers.of(desktop.id).1.is_some_and(|since| since >= begun);
        if came && let Err(error) = self.machines.wake(desktop.id).await {
            tracing::warn!(desktop = %desktop.name, %error, "not woken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::By;

    fn somebody(name: &str) -> Watcher {
        let (name, since) = (name.to_owned(), jiff::Timestamp::UNIX_EPOCH);
        Watcher { name, by: By::Owner, share: None, input: true, since }
    }

    #[test]
    fn who_looks_is_known_by_name_until_they_leave() {
        let viewers = Arc::new(Viewers::default());
        let id = Uuid::from_u128(1);
        let names = || viewers.who(id).into_iter().map(|watcher| watcher.name).collect::<Vec<_>>();
        let ann = viewers.enter(id, somebody("ann"));
        let _ben = viewers.enter(id, somebody("ben"));
        assert_eq!(names(), ["ann", "ben"]);
        drop(ann);
        assert_eq!(names(), ["ben"]);
        assert!(viewers.who(Uuid::from_u128(2)).is_empty());
    }

    #[test]
    fn what_is_open_by_one_token_is_bounded_and_others_are_not_held() {
        let viewers = Arc::new(Viewers::default());
        let mut open: Vec<_> = (0..1000).filter_map(|_| viewers.stream(b"one")).collect();
        assert_eq!(open.len(), MOST_STREAMS);
        assert!(viewers.stream(b"two").is_some());
        open.pop();
        assert!(viewers.stream(b"one").is_some(), "there is room again");
        drop(open);
        assert!(viewers.streams.lock().unwrap().is_empty());
    }

    #[test]
    fn a_desktop_is_looked_at_until_the_last_viewer_leaves() {
        let viewers = Arc::new(Viewers::default());
        let id = Uuid::from_u128(1);
        assert_eq!(viewers.of(id), (false, None));
        let (one, two) = (viewers.enter(id, somebody("ann")), viewers.enter(id, somebody("ann")));
        let came = viewers.of(id).1.unwrap();
        drop(one);
        assert_eq!(viewers.of(id), (true, Some(came)));
        drop(two);
        let (watched, left) = viewers.of(id);
        assert!(!watched && left.unwrap() >= came);
        viewers.forget(|_| true);
        assert_eq!(viewers.of(id), (false, left), "for a while");
    }
}
