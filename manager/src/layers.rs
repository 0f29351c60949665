//! The files that disks are made of, in `<data>/layers/`. Their format is the VMM's own; here they are only named,
//! and made by `yunju-vmm disk`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::store::{self, Below, DisksOf, Layer, Store, Tops};

/// A chain with more layers than this is made shorter when its machine does not run.
pub const LONGEST_CHAIN: usize = 6;

/// What went wrong with a disk's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("{doing} {path}: {error}", path = path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// `yunju-vmm disk` does.
    #[error("making a disk's layer: {0}")]
    Program(String),
    /// The database does.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A disk's files: what is only read, bottom first, and the one on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Never written to.
    pub lower: Vec<PathBuf>,
    /// A layer, or a raw file with nothing below.
    pub top: PathBuf,
}

/// The folder of layers.
#[derive(Debug, Clone)]
pub struct Layers {
    folder: PathBuf,
    program: PathBuf,
}

impl Layers {
    /// The layers below a data folder; `program` is `yunju-vmm`.
    pub fn of(data: &Path, program: &Path) -> Self {
        Self { folder: data.join("layers"), program: program.to_owned() }
    }

    /// The file of a layer.
    pub fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// All files of the chain that ends with `top`.
    pub fn chain(&self, store: &Store, top: Uuid) -> Result<Chain, Error> {
        let mut files = Vec::new();
        for layer in store.chain(top)? {
            files.push(self.path(layer.id));
            if let Below::Image(path) = layer.below {
                files.push(path);
            }
        }
        let top = files.remove(0);
        files.reverse();
        Ok(Chain { lower: files, top })
    }

    /// Makes an empty layer file on top of `lower` (bottom first), as long as what it lies on or as `size` says.
    pub fn create(&self, top: &Path, lower: &[PathBuf], size: Option<u64>) -> Result<(), Error> {
        let mut command = Command::new(&self.program);
        command.args(["disk", "create"]).arg(top).arg("--on").args(lower);
        if let Some(size) = size {
            command.arg("--size").arg(size.to_string());
        }
        self.run(command)?;
        self.sync()
    }

    /// Writes what the layers `run` (bottom first) hold together into the layer `to`, which takes their place.
    pub fn merge(&self, run: &[PathBuf], to: Uuid) -> Result<(), Error> {
        let Some((first, others)) = run.split_first() else { return Ok(()) };
        let mut lower = first.clone();
        for (index, upper) in others.iter().enumerate() {
            let last = index + 1 == others.len();
            let merged = if last { self.path(to) } else { self.path(to).with_extension(index.to_string()) };
            let mut command = Command::new(&self.program);
            command.args(["disk", "merge"]).arg(&lower).arg(upper).arg("--to").arg(&merged);
            let done = self.run(command);
            if index > 0 {
                remove(&lower);
            }
            done?;
            lower = merged;
        }
        self.sync()
    }

    fn run(&self, mut command: Command) -> Result<(), Error> {
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let output = output.map_err(|error| Error::System { doing: "running", path: self.program.clone(), error })?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        let last = last.trim_start_matches("yunju-vmm: ").trim_start_matches("error: ");
        Err(Error::Program(last.chars().filter(|c| !c.is_control()).take(300).collect()))
    }

    /// A new file without a byte, which a running machine is to make a layer of.
    pub fn reserve(&self, id: Uuid) -> Result<File, Error> {
        let path = self.path(id);
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(|error| Error::System { doing: "making", path, error })?;
        self.sync()?;
        Ok(file)
    }

    /// Whether nothing was ever made of a reserved file.
    pub fn is_blank(&self, id: Uuid) -> bool {
        let mut start = [0; 16];
        match File::open(self.path(id)).and_then(|mut file| file.read_exact(&mut start)) {
            Ok(()) => start == [0; 16],
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }

    /// The tops of a desktop's disks without those that its machine was offered and never took. The record runs
    /// ahead of the machine: an empty layer on top changes nothing.
    pub fn tops(&self, store: &Store, desktop: Uuid) -> Result<Tops, Error> {
        let recorded = store.tops(DisksOf::Desktop(desktop))?;
        let mut tops = Tops::new();
        for &(disk, top) in &recorded {
            let chain = store.chain(top)?;
            let taken = chain.iter().find(|layer| !matches!(layer.below, Below::Layer(_)) || !self.is_blank(layer.id));
            tops.push((disk, taken.map_or(top, |layer| layer.id)));
        }
        if tops != recorded {
            store.set_tops(desktop, &tops)?;
        }
        Ok(tops)
    }

    /// Takes over the raw disks that desktops had before there were layers.
    pub fn adopt_raw(&self, store: &Store, desktop: Uuid, folder: &Path) -> Result<(), Error> {
        let raw =
            raw_disks(folder).map_err(|error| Error::System { doing: "reading", path: folder.to_owned(), error })?;
        if raw.is_empty() {
            return Ok(());
        }
        if store.tops(DisksOf::Desktop(desktop))?.is_empty() {
            let mut layers = Vec::new();
            for (disk, path) in &raw {
                let id = Uuid::new_v4();
                fs::hard_link(path, self.path(id)).map_err(|error| self.system("moving", path, error))?;
                layers.push((*disk, Layer { id, below: Below::Nothing }));
            }
            self.sync()?;
            store.put_on_top(desktop, &layers)?;
        }
        for (_, path) in &raw {
            fs::remove_file(path).map_err(|error| self.system("removing", path, error))?;
        }
        Ok(())
    }

    /// Removes the files of layers.
    pub fn remove(&self, ids: &[Uuid]) {
        for &id in ids {
            remove(&self.path(id));
        }
    }

    /// Removes files that no layer known to `store` has: what interrupted work left.
    pub fn remove_unknown(&self, store: &Store) -> Result<(), Error> {
        let entries = fs::read_dir(&self.folder);
        for entry in entries.map_err(|error| self.system("reading", &self.folder, error))?.flatten() {
            let known = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok());
            if !known.map_or(Ok(false), |id| store.knows_layer(id))? {
                remove(&entry.path());
            }
        }
        Ok(())
    }

    /// Bytes on the host's disk that a layer takes.
    pub fn bytes(&self, id: Uuid) -> u64 {
        fs::metadata(self.path(id)).map_or(0, |file| file.blocks() * 512)
    }

    fn sync(&self) -> Result<(), Error> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| self.system("syncing", &self.folder, error))
    }

    fn system(&self, doing: &'static str, path: &Path, error: io::Error) -> Error {
        Error::System { doing, path: path.to_owned(), error }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a layer");
    }
}

/// `disk-<n>.img` in a desktop's folder.
fn raw_disks(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let number = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let number = name.strip_prefix("disk-")?.strip_suffix(".img")?.parse().ok()?;
        Some((number, path))
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    Ok(entries.flatten().filter_map(|entry| number(entry.path())).collect())
}
