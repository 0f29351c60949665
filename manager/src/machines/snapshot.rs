//! Taking a snapshot of a running machine.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hyper::{Method, StatusCode};
use uuid::Uuid;
use yunju_protocol::control::{Afterwards, MemoryInfo, Problem, SnapshotInfo, SnapshotRequest};

use super::record::Record;
use super::{Context, Error};
use crate::folder::Folder;
use crate::http;
use crate::model::SnapshotKind;
use crate::snapshots::{Intent, Partial};
use crate::store::{Below, Desktop, Layer, NewSnapshot, Snapshot, Tops};

/// A picture may have this many bytes.
const PICTURE_LIMIT: usize = 16 << 20;

/// So long a machine may take to say how much memory it has written to.
const QUESTION: Duration = Duration::from_secs(10);

/// So long a snapshot may take: 64 GiB on a slow disk.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a snapshot is for.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// What it is taken for.
    pub kind: SnapshotKind,
    /// What it is called.
    pub name: String,
    /// It stands in the desktop's list.
    pub listed: bool,
}

impl Purpose {
    /// The desktop sleeps.
    pub const SUSPEND: Self = Self { kind: SnapshotKind::Suspend, name: String::new(), listed: false };
}

/// A snapshot whose files are complete and which nobody has recorded yet.
#[derive(Debug)]
pub struct Taken {
    /// To be recorded.
    pub new: NewSnapshot,
    /// Its files.
    pub partial: Partial,
}

impl Taken {
    /// Keeps it, if `record` does.
    pub fn keep(self, record: impl FnOnce(&NewSnapshot) -> crate::store::Result<()>) -> Result<Uuid, Error> {
        match record(&self.new) {
            Ok(()) => {
                self.partial.recorded();
                Ok(self.new.snapshot.id)
            }
            Err(error) => {
                self.partial.abandon();
                Err(error.into())
            }
        }
    }
}

/// Takes a snapshot of a machine that runs and goes on running, on new layers.
pub async fn live(context: &Context, desktop: &Desktop, purpose: Purpose) -> Result<Taken, Error> {
    let tops = context.layers.tops(&context.store, desktop.id)?;
    let (mut new, mut files) = (Vec::new(), Vec::new());
    for &(disk, top) in &tops {
        let layer = Layer { id: Uuid::new_v4(), below: Below::Layer(top) };
        files.push(OwnedFd::from(context.layers.reserve(layer.id)?));
        new.push((disk, layer));
    }
    // before the machine writes to them: what is not recorded does not outlive a crash
    context.store.put_on_top(desktop.id, &new)?;
    let intent = intent(desktop, &purpose, false, desktop.base);
    let (partial, info) = ask(context, desktop, &intent, files).await?;
    let partial = finish(partial).await?;
    complete(context, desktop, purpose.listed, &intent, partial, info.differential, tops)
}

/// Takes a snapshot with which the machine ends. Its memory is written whole if a difference would be more than half of
/// that: what goes on from it begins with an empty difference again.
pub async fn last(context: &Context, desktop: &Desktop, purpose: Purpose) -> Result<Taken, Error> {
    let tops = context.layers.tops(&context.store, desktop.id)?;
    let base = match desktop.base {
        Some(base) if outgrown(context, desktop, base).await? => None,
        base => base,
    };
    let intent = intent(desktop, &purpose, true, base);
    let (partial, info) = ask(context, desktop, &intent, Vec::new()).await?;
    let partial = finish(partial).await?;
    complete(context, desktop, purpose.listed, &intent, partial, info.differential, tops)
}

/// The snapshot that a machine ended with although nobody heard of it.
pub fn unheard(context: &Context, desktop: &Desktop) -> Option<Taken> {
    let known = |id| matches!(context.store.snapshot(id), Ok(Some(_)));
    let (partial, intent) = context.snapshots.ended_with(desktop.id, known)?;
    let listed = intent.kind == SnapshotKind::Point;
    let tops = context.layers.tops(&context.store, desktop.id).ok()?;
    let finished = partial.finish().map_err(|error| storage("keeping a snapshot", error));
    let completed = match finished {
        Ok(()) => complete(context, desktop, listed, &intent, partial, intent.base.is_some(), tops),
        Err(error) => {
            partial.abandon();
            Err(error)
        }
    };
    completed.inspect_err(|error| tracing::error!(desktop = %desktop.name, %error, "a snapshot is lost")).ok()
}

fn intent(desktop: &Desktop, purpose: &Purpose, end: bool, base: Option<Uuid>) -> Intent {
    Intent { desktop: desktop.id, kind: purpose.kind, name: purpose.name.clone(), end, base }
}

/// Whether a difference to `base` would be more than half of a whole memory. It has what the machine went on from and what was
/// written since, which may be the same pages, so the larger of the two counts; a whole one has at least what its base has.
async fn outgrown(context: &Context, desktop: &Desktop, base: Uuid) -> Result<bool, Error> {
    let folder = Folder::of(&context.data, desktop.id);
    let before = Record::load(&folder.run_file("processes.json")).unwrap_or_default().difference;
    let answer =
        http::fetch(&folder.run_file("control.sock"), Method::GET, "/machine/memory", 64 << 10, QUESTION).await;
    let memory = answer.ok().and_then(|(_, text)| serde_json::from_slice::<MemoryInfo>(&text).ok());
    let since = memory.map_or(0, |memory| memory.private);
    let whole = context.store.snapshot(base)?.map_or(0, |base| base.bytes);
    Ok(before.max(since) > whole / 2)
}

async fn ask(
    context: &Context,
    desktop: &Desktop,
    intent: &Intent,
    layers: Vec<OwnedFd>,
) -> Result<(Partial, SnapshotInfo), Error> {
    let control = Folder::of(&context.data, desktop.id).run_file("control.sock");
    let screen = picture(&control).await;
    let begun = context.snapshots.begin(intent, screen.as_deref());
    let (partial, files) = begun.map_err(|error| storage("beginning a snapshot", error))?;
    let afterwards = if intent.end { Afterwards::End } else { Afterwards::Resume };
    let body = serde_json::to_vec(&SnapshotRequest { afterwards, whole: intent.base.is_none() });
    let body = body.map_err(|error| storage("asking for a snapshot", error.into()))?;
    loop {
        let mut descriptors = vec![clone(&files.state)?, clone(&files.memory)?];
        for layer in &layers {
            descriptors.push(layer.try_clone().map_err(|error| storage("asking for a snapshot", error))?);
        }
        let answer = http::post(&control, "/machine/snapshot", body.clone(), descriptors, 64 << 10, PATIENCE).await;
        match answer {
            Ok((StatusCode::OK, text)) => {
                return match serde_json::from_slice(&text) {
                    Ok(info) => Ok((partial, info)),
                    Err(error) => Err(storage("reading the machine's answer", error.into())),
                };
            }
            // one that a service before this one asked for: the machine may end with it
            Ok((StatusCode::CONFLICT, _)) if intent.end => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok((status, text)) => {
                partial.abandon();
                let problem = serde_json::from_slice::<Problem>(&text).map(|problem| problem.error);
                return Err(refused(status, problem.unwrap_or_else(|_| format!("the machine answers {status}"))));
            }
            // a machine that ended with its snapshot may not have had the time to say so: see `unheard`
            Err(error) => {
                if !intent.end {
                    partial.abandon();
                }
                return Err(Error::NoAnswer(error));
            }
        }
    }
}

fn clone(file: &std::fs::File) -> Result<OwnedFd, Error> {
    file.try_clone().map(OwnedFd::from).map_err(|error| storage("asking for a snapshot", error))
}

fn refused(status: StatusCode, problem: String) -> Error {
    match status {
        StatusCode::INSUFFICIENT_STORAGE => Error::DiskFull(problem),
        StatusCode::CONFLICT => Error::Busy(problem),
        _ => Error::NoSnapshotTaken(problem),
    }
}

/// Gives a snapshot its name, beside the async runtime: syncing a large memory takes seconds.
async fn finish(partial: Partial) -> Result<Partial, Error> {
    let work = tokio::task::spawn_blocking(move || match partial.finish() {
        Ok(()) => Ok(partial),
        Err(error) => {
            partial.abandon();
            Err(error)
        }
    });
    let finished = work.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    finished.map_err(|error| storage("keeping a snapshot", error))
}

/// The row of a snapshot that has its name.
fn complete(
    context: &Context,
    desktop: &Desktop,
    listed: bool,
    intent: &Intent,
    partial: Partial,
    differential: bool,
    disks: Tops,
) -> Result<Taken, Error> {
    if differential && intent.base.is_none() {
        partial.abandon();
        return Err(Error::NoSnapshotTaken("the machine wrote a difference to a memory that is not known".to_owned()));
    }
    let snapshot = Snapshot {
        desktop: listed.then_some(desktop.id),
        kind: intent.kind,
        name: intent.name.clone(),
        base: intent.base.filter(|_| differential),
        has_memory: true,
        has_screen: partial.has_screen(),
        bytes: context.snapshots.bytes(partial.id),
        ..of(desktop, partial.id)
    };
    Ok(Taken { new: NewSnapshot { snapshot, disks }, partial })
}

/// A snapshot of a desktop that has only its disks yet.
pub fn of(desktop: &Desktop, id: Uuid) -> Snapshot {
    Snapshot {
        id,
        desktop: None,
        image: desktop.image.clone(),
        image_digest: desktop.image_digest.clone(),
        image_folder: desktop.image_folder.clone(),
        kind: SnapshotKind::Manual,
        name: String::new(),
        created: jiff::Timestamp::now(),
        base: None,
        memory: desktop.memory,
        cpus: desktop.cpus,
        has_memory: false,
        has_screen: false,
        bytes: 0,
    }
}

/// What the machine shows, if it shows something.
async fn picture(control: &std::path::Path) -> Option<Vec<u8>> {
    let timeout = Duration::from_secs(5);
    match http::fetch(control, Method::GET, "/machine/screenshot", PICTURE_LIMIT, timeout).await {
        Ok((StatusCode::OK, png)) => Some(png.to_vec()),
        _ => None,
    }
}

/// What the system says when files of a snapshot cannot be written.
pub fn storage(doing: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::DiskFull(format!("{doing}: there is no room left on the service's disk"))
        }
        _ => Error::System { doing: doing.to_owned(), error },
    }
}
