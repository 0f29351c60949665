//! Where a desktop's files are (docs/architecture.md, "A desktop's folder").

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The socket paths below a data folder must fit `sockaddr_un`: 107 bytes, of which
/// `/desktops/<36 characters>/run/guest/vsock_1077` takes 67.
pub const LONGEST_DATA_PATH: usize = 107 - 67;

/// A desktop's folder could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {error}", path = path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// The folder of one desktop.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of desktop `id`, which need not exist.
    pub fn of(data: &Path, id: Uuid) -> Self {
        Self { path: data.join("desktops").join(id.to_string()) }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file that lives as long as the desktop.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where sockets and the process record live while the machine runs.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// A file or socket that lives as long as the machine.
    pub fn run_file(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    /// The display's socket, in a folder of its own: it is all that the jailed proxy sees of the file system.
    pub fn display_socket(&self) -> PathBuf {
        self.run_file("display/sock")
    }

    /// The guest's sockets, likewise for the VMM: services of the host for guests listen at this path with `_PORT` behind.
    pub fn vsock_socket(&self) -> PathBuf {
        self.run_file("guest/vsock")
    }

    /// Where a service of the host for this machine's guest listens: see [`Folder::vsock_socket`].
    pub fn guest_socket(&self, port: u32) -> PathBuf {
        self.run_file(&format!("guest/vsock_{port}"))
    }

    /// Makes the folder.
    pub fn create(&self) -> Result<(), Error> {
        let made = private_folder(&self.path).and_then(|()| {
            let parent = self.path.parent().unwrap_or(&self.path);
            fs::File::open(parent)?.sync_all()
        });
        made.map_err(|error| Error { doing: "cannot make", path: self.path.clone(), error })
    }

    /// Removes the folder with everything in it. It is no longer found under its name while it goes.
    pub fn remove(&self) -> Result<(), Error> {
        self.remove_whole().map_err(|error| Error { doing: "cannot remove", path: self.path.clone(), error })
    }

    fn remove_whole(&self) -> io::Result<()> {
        let going = self.path.with_extension("old");
        match fs::rename(&self.path, &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        remove(&going)
    }

    /// Makes an empty `run/`, replacing what a machine before left.
    pub fn prepare_run(&self) -> io::Result<()> {
        self.remove_run()?;
        private_folder(&self.run())?;
        // For the user of the desktop's processes, who gets here by no other way than its jail's.
        for socket in [self.display_socket(), self.vsock_socket()] {
            if let Some(folder) = socket.parent() {
                fs::create_dir(folder)?;
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// Removes `run/`.
    pub fn remove_run(&self) -> io::Result<()> {
        remove(&self.run())
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Desktop folders under `data`: the whole ones by id, and leftovers of interrupted work.
pub fn scan(data: &Path) -> io::Result<(Vec<Uuid>, Vec<PathBuf>)> {
    let (mut whole, mut leftovers) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(data.join("desktops"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match (Uuid::parse_str(name), name.rsplit_once('.')) {
            (Ok(id), _) => whole.push(id),
            (_, Some((id, "new" | "old"))) if Uuid::parse_str(id).is_ok() => leftovers.push(path),
            _ => {}
        }
    }
    Ok((whole, leftovers))
}

/// Removes a leftover found by [`scan`].
pub fn remove_leftover(path: &Path) -> io::Result<()> {
    remove(path)
}
