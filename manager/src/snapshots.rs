//! The files of snapshots, in `<data>/snapshots/<id>/`: `state`, `memory` and perhaps `screen.png`.
//!
//! A snapshot is made in `<id>.partial`, synced, given its name, and then recorded: what has no row is a leftover. One that a
//! machine ended with is taken up again from what `intent.json` says, because it is all that is left of the machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::SnapshotKind;

/// What is left behind while a snapshot is taken, for the service after this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    /// Of which desktop.
    pub desktop: Uuid,
    /// What for.
    pub kind: SnapshotKind,
    /// What it is to be called.
    pub name: String,
    /// The machine ends with it.
    pub end: bool,
    /// What the memory file is a difference to.
    pub base: Option<Uuid>,
}

/// The folder of snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: PathBuf,
}

/// A snapshot that is being taken.
#[derive(Debug)]
pub struct Partial {
    /// Its id.
    pub id: Uuid,
    path: PathBuf,
    whole: PathBuf,
}

/// The two files that a machine writes.
#[derive(Debug)]
pub struct Files {
    /// Processors and devices.
    pub state: File,
    /// Guest memory.
    pub memory: File,
}

impl Snapshots {
    /// The snapshots below a data folder.
    pub fn of(data: &Path) -> Self {
        Self { folder: data.join("snapshots") }
    }

    /// A file of a snapshot.
    pub fn file(&self, id: Uuid, name: &str) -> PathBuf {
        self.folder.join(id.to_string()).join(name)
    }

    fn partial(&self, id: Uuid) -> Partial {
        let whole = self.folder.join(id.to_string());
        Partial { id, path: whole.with_extension("partial"), whole }
    }

    /// Begins a snapshot.
    pub fn begin(&self, intent: &Intent, screen: Option<&[u8]>) -> io::Result<(Partial, Files)> {
        let partial = self.partial(Uuid::new_v4());
        DirBuilder::new().mode(0o700).create(&partial.path)?;
        let fill = || {
            let text = serde_json::to_vec(intent)?;
            write(&partial.path.join("intent.json"), &text)?;
            if let Some(png) = screen {
                write(&partial.path.join("screen.png"), png)?;
            }
            let files =
                Files { state: empty(&partial.path.join("state"))?, memory: empty(&partial.path.join("memory"))? };
            sync(&partial.path)?;
            sync(&self.folder)?;
            Ok(files)
        };
        match fill() {
            Ok(files) => Ok((partial, files)),
            Err(error) => {
                partial.abandon();
                Err(error)
            }
        }
    }

    /// Another snapshot of the same files.
    pub fn link(&self, from: Uuid) -> io::Result<Partial> {
        let partial = self.partial(Uuid::new_v4());
        DirBuilder::new().mode(0o700).create(&partial.path)?;
        let linked = ["state", "memory", "screen.png"].iter().try_for_each(|name| {
            match fs::hard_link(self.file(from, name), partial.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && *name == "screen.png" => Ok(()),
                linked => linked,
            }
        });
        match linked {
            Ok(()) => Ok(partial),
            Err(error) => {
                partial.abandon();
                Err(error)
            }
        }
    }

    /// The snapshot that the machine of a desktop ended with, as far as the files tell; the rest of what was begun goes.
    /// `known` are recorded already.
    pub fn ended_with(&self, desktop: Uuid, known: impl Fn(Uuid) -> bool) -> Option<(Partial, Intent)> {
        let begun = self.leftovers().unwrap_or_default().into_iter().filter_map(|path| {
            let id = Uuid::parse_str(path.file_stem()?.to_str()?).ok()?;
            let intent = intent(&path)?;
            (intent.desktop == desktop && intent.end && !known(id))
                .then(|| (Partial { id, ..self.partial(id) }, intent))
        });
        let written = |(partial, _): &(Partial, Intent)| {
            let state =
                [&partial.path, &partial.whole].into_iter().find_map(|folder| fs::metadata(folder.join("state")).ok());
            state.filter(|state| state.len() > 0).and_then(|state| state.modified().ok())
        };
        let (whole, rest): (Vec<_>, Vec<_>) = begun.partition(|one| written(one).is_some());
        rest.into_iter().for_each(|(partial, _)| partial.abandon());
        // one before it is of a machine that went on
        whole.into_iter().max_by_key(written)
    }

    /// Folders that bear no name of a whole snapshot, or have yet to lose their `intent.json`.
    pub fn leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.extension().is_some() || path.join("intent.json").exists()).collect())
    }

    /// All folders.
    pub fn all(&self) -> io::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path()).collect())
    }

    /// Removes snapshots' folders.
    pub fn remove(&self, ids: &[Uuid]) {
        for id in ids {
            remove(&self.folder.join(id.to_string()));
        }
    }

    /// Bytes on the host's disk that a snapshot takes.
    pub fn bytes(&self, id: Uuid) -> u64 {
        ["state", "memory"]
            .iter()
            .filter_map(|name| fs::metadata(self.file(id, name)).ok())
            .map(|f| f.blocks() * 512)
            .sum()
    }
}

impl Partial {
    /// Gives it its name; all of it is on the disk when this returns.
    pub fn finish(&self) -> io::Result<()> {
        if self.path.exists() {
            for name in ["state", "memory"] {
                File::open(self.path.join(name))?.sync_all()?;
            }
            sync(&self.path)?;
            fs::rename(&self.path, &self.whole)?;
        }
        sync(self.whole.parent().unwrap_or(&self.whole))
    }

    /// Whether there is a picture.
    pub fn has_screen(&self) -> bool {
        [&self.path, &self.whole].iter().any(|folder| folder.join("screen.png").exists())
    }

    /// Forgets, after it was recorded, how it came about.
    pub fn recorded(&self) {
        let _ = fs::remove_file(self.whole.join("intent.json"));
    }

    /// Removes what there is of it.
    pub fn abandon(&self) {
        remove(&self.path);
        remove(&self.whole);
    }
}

/// What a snapshot that was begun was to become.
pub fn intent(folder: &Path) -> Option<Intent> {
    serde_json::from_slice(&fs::read(folder.join("intent.json")).ok()?).ok()
}

/// Removes a folder that is no snapshot.
pub fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %folder.display(), %error, "cannot remove a snapshot's files");
    }
}

fn empty(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = empty(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
