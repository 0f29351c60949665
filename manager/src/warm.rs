//! Warmed images: a hidden machine of an image is booted once until its desktop is up and ends with a snapshot, from which
//! new desktops of the image go on instead of booting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::api::problem::Refusal;
use crate::folder::Folder;
use crate::images::{self, Image};
use crate::machines::Console;
use crate::machines::snapshot::Purpose;
use crate::model::{self, SnapshotKind, Warmth};
use crate::service::Service;
use crate::store::{Desired, NewDesktop};

/// A desktop must be up within this.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// What begins with a desktop gets this long to come to rest.
const SETTLING: Duration = Duration::from_secs(3);

/// Images are warmed by themselves when no machine has run for this long.
const QUIET: Duration = Duration::from_secs(60);

/// How images are being warmed, and which could not be.
#[derive(Debug, Default)]
pub struct Warming {
    images: Mutex<HashMap<String, Warmth>>,
}

impl Warming {
    fn of(&self, digest: &str) -> Option<Warmth> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Whether nobody else does it already.
    fn begin(&self, digest: &str) -> bool {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.insert(digest.to_owned(), Warmth::Warming) != Some(Warmth::Warming)
    }

    fn end(&self, digest: &str, problem: Option<String>) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => images.insert(digest.to_owned(), Warmth::Failed(problem)),
            None => images.remove(digest),
        };
    }
}

impl Service {
    /// All images, and whether they are warm.
    pub fn list_images(&self) -> Result<Vec<model::Image>, Refusal> {
        let mut all = images::list(&self.images)?;
        for image in &mut all {
            if let Some(warm) = &mut image.warm {
                *warm = match self.store.warm_snapshot(&image.name, &image.digest)? {
                    Some(_) => Warmth::Warm,
                    None => self.warming.of(&image.digest).unwrap_or(Warmth::Cold),
                };
            }
        }
        Ok(all)
    }

    /// Warms an image, if it is not warm and nobody is about to.
    pub async fn warm(&self, image: &Image) -> Result<(), Refusal> {
        let (name, digest) = (&image.manifest.name, &image.manifest.digest);
        let Some(ready) = &image.manifest.ready else {
            return Err(Refusal::invalid(format!(
                "`{name}` does not say when its desktop is up: `ready` is not in its image.json"
            )));
        };
        if self.store.warm_snapshot(name, digest)?.is_some() || !self.warming.begin(digest) {
            return Ok(());
        }
        tracing::info!(image = %name, "warming");
        let warmed = self.warm_by_booting(image, ready).await;
        let problem = warmed.as_ref().err().map(ToString::to_string);
        match &problem {
            None => tracing::info!(image = %name, "image is warm"),
            Some(problem) => tracing::warn!(image = %name, %problem, "image not warmed"),
        }
        self.warming.end(digest, problem);
        self.forget_outdated()?;
        warmed
    }

    async fn warm_by_booting(&self, image: &Image, ready: &str) -> Result<(), Refusal> {
        let id = Uuid::new_v4();
        let folder = Folder::of(&self.data, id);
        folder.create()?;
        let name = format!("warm/{id}");
        let hidden = NewDesktop {
            id,
            name: &name,
            owner: Uuid::nil(),
            image: &image.manifest.name,
            image_digest: &image.manifest.digest,
            image_folder: &image.folder,
            memory: image.manifest.memory.0,
            cpus: image.manifest.cpus,
        };
        let warmed = match self.store.add_desktop(&hidden, &[]) {
            Ok(()) => self.boot_and_suspend(id, &image.manifest.name, ready).await,
            Err(error) => Err(error.into()),
        };
        // should we be killed before this, the next service removes what has no owner
        self.store.delete_desktop(id)?;
        self.machines.stop(id, true, None)?;
        self.machines.ended(id).await;
        folder.remove()?;
        self.machines.context().sweep_soon();
        warmed
    }

    async fn boot_and_suspend(&self, id: Uuid, image: &str, ready: &str) -> Result<(), Refusal> {
        self.machines.start(id).await?;
        let console = self.machines.console(id).ok_or_else(|| Refusal::upstream("the machine ended at once"))?;
        tokio::select! {
            up = tokio::time::timeout(BOOT_LIMIT, says(&console, ready.as_bytes())) => {
                let late = || format!("the machine did not say `{ready}` within {} s", BOOT_LIMIT.as_secs());
                up.map_err(|_| Refusal::upstream(late()))?;
            }
            () = self.machines.ended(id) => return Err(Refusal::upstream("the machine ended before its desktop was up")),
        }
        tokio::time::sleep(SETTLING).await;
        let _lock = self.machines.lock(id).await;
        let purpose = Purpose { kind: SnapshotKind::Warm, name: image.to_owned(), listed: false };
        Ok(self.machines.suspend_locked(id, purpose, Desired::Suspended).await?)
    }

    /// Lets go of the warm snapshots of images that are gone or other ones now; desktops on them keep them.
    pub fn forget_outdated(&self) -> Result<(), Refusal> {
        for (image, digest, snapshot) in self.store.warm_images()? {
            let current = Image::named(&self.images, &image).is_ok_and(|image| image.manifest.digest == digest);
            if !current {
                self.store.hide_snapshot(snapshot)?;
                self.machines.context().sweep_soon();
            }
        }
        Ok(())
    }
}

/// Waits until a serial port has said something.
async fn says(console: &Console, what: &[u8]) {
    let (history, mut more) = console.listen();
    let mut heard = history.to_vec();
    while !heard.windows(what.len().max(1)).any(|part| part == what) {
        // what was heard before cannot be the beginning of it any more
        let kept = heard.len().saturating_sub(what.len());
        heard.drain(..kept);
        match more.recv().await {
            Ok(bytes) => heard.extend(&bytes),
            Err(RecvError::Lagged(_)) => heard.clear(),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Warms images for ever: at once, or when no machine has run for a while.
pub async fn tend(service: Arc<Service>, at_once: bool) {
    let mut quiet_for = Duration::ZERO;
    let tick = Duration::from_secs(5);
    loop {
        if at_once || quiet_for >= QUIET {
            if let Err(refusal) = service.forget_outdated() {
                tracing::warn!(%refusal, "cannot look for outdated warm images");
            }
            if let Some(image) = service.next_cold() {
                let _ = service.warm(&image).await; // it has said why
                continue;
            }
        }
        tokio::time::sleep(tick).await;
        quiet_for = if service.machines.any() { Duration::ZERO } else { quiet_for + tick };
    }
}

impl Service {
    fn next_cold(&self) -> Option<Image> {
        let all = self.list_images().ok()?;
        let cold = all.into_iter().find(|image| image.problem.is_none() && image.warm == Some(Warmth::Cold))?;
        Image::named(&self.images, &cold.name).ok()
    }
}
