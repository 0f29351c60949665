//! What desktops are made from: folders with an `image.json` (docs/architecture.md, "Images").

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use yunju_protocol::machine::ByteSize;

use crate::{model, names};

/// `image.json` may not be larger than this.
const MANIFEST_LIMIT: u64 = 64 << 10;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such folder or no `image.json` in it.
    #[error("there is no image called `{name}` in {folder}: build it with `yunju image build {name}`", folder = folder.display())]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The folder cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// What was being read.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// `image.json` does not say what it must.
    #[error("{path}: {problem}", path = path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// An image that can be used.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its folder, without symbolic links: it stays when the name is given to a newer build.
    pub folder: PathBuf,
    /// What `image.json` says.
    pub manifest: Manifest,
}

/// `image.json`
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// What it was built from.
    pub digest: String,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    #[serde(default)]
    pub cmdline: String,
    /// In the order that the guest sees them.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Guest memory that a desktop gets.
    pub memory: ByteSize,
    /// Virtual processors that a desktop gets.
    #[serde(default = "one")]
    pub cpus: u8,
    /// A screen.
    pub display: Option<Display>,
    /// A sound card, if there is a screen.
    #[serde(default = "yes")]
    pub sound: bool,
    /// A network interface.
    #[serde(default)]
    pub net: bool,
    /// What the guest says on its serial port when its desktop is up.
    pub ready: Option<String>,
}

/// A disk of an image.
#[derive(Debug, Clone, Deserialize)]
pub struct Disk {
    /// In the image's folder.
    pub path: PathBuf,
    /// Shared by all desktops; each desktop has layers of its own on the others.
    #[serde(default)]
    pub readonly: bool,
    /// Length of a desktop's own disk, if it is to be longer than the file; what is added is a hole.
    pub size: Option<ByteSize>,
}

/// The screen that an image starts with.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Display {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

fn one() -> u8 {
    1
}

fn yes() -> bool {
    true
}

/// Memory that a machine can have; the VMM's own limits (`protocol::machine`).
pub fn check_memory(memory: ByteSize) -> Result<(), String> {
    let fits = (ByteSize::mib(64)..=ByteSize::mib(64 << 10)).contains(&memory) && memory.0.is_multiple_of(2 << 20);
    fits.then_some(()).ok_or_else(|| format!("memory of {memory} is not 64M to 64G in steps of 2M"))
}

/// Processors that a machine can have.
pub fn check_cpus(cpus: u8) -> Result<(), String> {
    (1..=8).contains(&cpus).then_some(()).ok_or_else(|| format!("{cpus} processors are not 1 to 8"))
}

impl Manifest {
    fn check(&self, name: &str, folder: &Path) -> Result<(), String> {
        if self.name != name {
            return Err(format!("calls itself `{}`, the folder is called `{name}`", self.name));
        }
        if self.digest.is_empty() || self.digest.len() > 200 {
            return Err("`digest` must have 1 to 200 characters".to_owned());
        }
        if self.ready.as_ref().is_some_and(|line| line.is_empty() || line.len() > 200) {
            return Err("`ready` must have 1 to 200 bytes".to_owned());
        }
        check_memory(self.memory)?;
        check_cpus(self.cpus)?;
        for Disk { path, readonly, size } in &self.disks {
            let whole = size.is_none_or(|size| size.0.is_multiple_of(4096) && size.0 <= 64 << 40);
            if !whole || (*readonly && size.is_some()) {
                let problem = "has a `size` that is not in steps of 4K up to 64T, or is read-only with a `size`";
                return Err(format!("`{}` {problem}", path.display()));
            }
        }
        let files = [&self.kernel].into_iter().chain(&self.initrd).chain(self.disks.iter().map(|disk| &disk.path));
        let mut seen = HashSet::new();
        for file in files {
            let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || file.as_os_str().is_empty() {
                return Err(format!("`{}` is not a path inside the folder", file.display()));
            }
            if !seen.insert(file) {
                return Err(format!("`{}` is named twice", file.display()));
            }
            if !folder.join(file).is_file() {
                return Err(format!("names `{}`, which is no file there", file.display()));
            }
        }
        Ok(())
    }
}

impl Image {
    /// The image called `name` under `images`.
    pub fn named(images: &Path, name: &str) -> Result<Self, Error> {
        let missing = || Error::Missing { name: name.chars().take(40).collect(), folder: images.to_owned() };
        names::check("image", name).map_err(|_| missing())?;
        let folder = fs::canonicalize(images.join(name)).map_err(|_| missing())?;
        if !folder.join("image.json").is_file() {
            return Err(missing());
        }
        Self::at(&folder, name)
    }

    /// The image called `name` in `folder`.
    pub fn at(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join("image.json");
        let mut text = String::new();
        let read = fs::File::open(&path).and_then(|file| file.take(MANIFEST_LIMIT).read_to_string(&mut text));
        read.map_err(|error| Error::Read { path: path.clone(), error })?;
        let manifest: Manifest = serde_json::from_str(&text)
            .map_err(|error| Error::Manifest { path: path.clone(), problem: error.to_string() })?;
        manifest.check(name, folder).map_err(|problem| Error::Manifest { path, problem })?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }
}

/// All images under `images`, by name; the unusable ones say why.
pub fn list(images: &Path) -> Result<Vec<model::Image>, Error> {
    let entries = match fs::read_dir(images) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::Read { path: images.to_owned(), error })?,
    };
    let mut found: Vec<model::Image> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| names::check("image", name).is_ok() && images.join(name).join("image.json").is_file())
        .map(|name| match Image::named(images, &name) {
            Ok(Image { manifest, .. }) => model::Image {
                name: manifest.name,
                description: manifest.description,
                digest: manifest.digest,
                created: manifest.created,
                memory: manifest.memory.0,
                cpus: manifest.cpus,
                display: manifest.display.is_some(),
                net: manifest.net,
                warm: manifest.ready.map(|_| model::Warmth::Cold),
                problem: None,
            },
            Err(error) => model::Image {
                name,
                description: String::new(),
                digest: String::new(),
                created: None,
                memory: 0,
                cpus: 0,
                display: false,
                net: false,
                warm: None,
                problem: Some(error.to_string()),
            },
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"name":"card","description":"A card","digest":"sha256:1","created":"2026-11-24T05:00:00Z",
        "kernel":"vmlinux","cmdline":"console=ttyS0","disks":[{"path":"base.erofs","readonly":true},{"path":"system.img"}],
        "memory":"128M","cpus":2,"display":{"width":1280,"height":800},"net":true}"#;

    fn folder_with(manifest: &str) -> tempfile::TempDir {
        let images = tempfile::tempdir().unwrap();
        let folder = images.path().join("card");
        fs::create_dir(&folder).unwrap();
        for file in ["vmlinux", "base.erofs", "system.img"] {
            fs::write(folder.join(file), "x").unwrap();
        }
        fs::write(folder.join("image.json"), manifest).unwrap();
        images
    }

    #[test]
    fn an_image_is_read_as_the_architecture_says() {
        let images = folder_with(GOOD);
        let image = Image::named(images.path(), "card").unwrap();
        assert_eq!(image.manifest.memory, ByteSize::mib(128));
        assert_eq!(image.manifest.disks.len(), 2);
        let listed = list(images.path()).unwrap();
        assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].problem.as_deref()), (1, "card", None));
    }

    #[test]
    fn a_wrong_manifest_says_which_file_and_what_is_wrong() {
        for (from, to, says) in [
            ("\"name\":\"card\"", "\"name\":\"other\"", "calls itself `other`"),
            ("vmlinux", "../../etc/passwd", "not a path inside"),
            ("vmlinux", "/etc/passwd", "not a path inside"),
            ("vmlinux", "missing", "no file there"),
            ("base.erofs", "system.img", "named twice"),
            ("128M", "1M", "memory of 1M"),
            ("128M", "lots", "is no size"),
            ("\"cpus\":2", "\"cpus\":9", "9 processors"),
            ("\"digest\":\"sha256:1\",", "", "digest"),
            ("{", "[", "image.json"),
        ] {
            let images = folder_with(&GOOD.replacen(from, to, 1));
            let error = Image::named(images.path(), "card").unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("image.json"), "{from} -> {to}: {error}");
            assert!(list(images.path()).unwrap()[0].problem.is_some());
        }
    }

    #[test]
    fn a_missing_image_says_how_to_build_it() {
        let images = tempfile::tempdir().unwrap();
        for name in ["desktop", "../x", ""] {
            let error = Image::named(images.path(), name).unwrap_err().to_string();
            assert!(error.contains("yunju image build"), "{error}");
        }
        assert!(list(&images.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_desktop_keeps_the_folder_it_was_made_from_when_the_name_moves_on() {
        let images = folder_with(GOOD);
        let built = images.path().join(".built-card-1");
        fs::rename(images.path().join("card"), &built).unwrap();
        std::os::unix::fs::symlink(&built, images.path().join("card")).unwrap();
        let image = Image::named(images.path(), "card").unwrap();
        assert_eq!(image.folder, fs::canonicalize(built).unwrap());
        assert_eq!(list(images.path()).unwrap().len(), 1, "the build folder itself is no image");
    }
}
