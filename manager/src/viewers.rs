//! Who looks at desktops, and what follows: a desktop that nobody looks at sleeps after a while, one that somebody works
//! with gets a restore point now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::images::Image;
use crate::model::{SnapshotKind, State};
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

/// Who looks at desktops now.
#[derive(Debug, Default)]
pub struct Viewers {
    seen: Mutex<HashMap<Uuid, Seen>>,
}

#[derive(Debug)]
struct Seen {
    viewers: usize,
    /// When the last one left, or the first one came.
    since: Instant,
}

/// Somebody who looks at a desktop until this is dropped.
#[derive(Debug)]
pub struct Viewer {
    viewers: Arc<Viewers>,
    desktop: Uuid,
}

impl Viewers {
    /// Somebody looks at a desktop.
    pub fn enter(self: &Arc<Self>, desktop: Uuid) -> Viewer {
        self.change(desktop, |seen| {
            if seen.viewers == 0 {
                seen.since = Instant::now();
            }
            seen.viewers += 1;
        });
        Viewer { viewers: self.clone(), desktop }
    }

    /// Whether somebody looks at a desktop, and since when that is so, if it ever changed.
    pub fn of(&self, desktop: Uuid) -> (bool, Option<Instant>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&desktop).map_or((false, None), |seen| (seen.viewers > 0, Some(seen.since)))
    }

    fn forget(&self, gone: impl Fn(&Uuid) -> bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, seen| seen.viewers > 0 || seen.since.elapsed() < REMEMBERED || !gone(id));
    }

    fn change(&self, desktop: Uuid, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        change(seen.entry(desktop).or_insert_with(|| Seen { viewers: 0, since: Instant::now() }));
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.viewers.change(self.desktop, |seen| {
            seen.viewers -= 1;
            if seen.viewers == 0 {
                seen.since = Instant::now();
            }
        });
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

    #[test]
    fn a_desktop_is_looked_at_until_the_last_viewer_leaves() {
        let viewers = Arc::new(Viewers::default());
        let id = Uuid::from_u128(1);
        assert_eq!(viewers.of(id), (false, None));
        let (one, two) = (viewers.enter(id), viewers.enter(id));
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
