//! An empty, read-only file system in place of the host's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::Error;

/// A place that every host has, to hang the new root up for a moment.
const HOOK: &str = "/proc";

/// A folder that stays visible.
pub struct Folder {
    path: PathBuf,
    handle: OwnedFd,
}

/// A mount of a folder alone, nowhere attached yet.
pub struct Copy {
    path: PathBuf,
    mount: OwnedFd,
}

impl Folder {
    /// A folder that is there, by the path under which it will be seen.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Folder { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = openat(CWD, &path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        if path.parent().is_none() {
            return Err(failed(io::Error::other(
                "the whole host would be seen; put the socket into a folder of its own",
            )));
        }
        Ok(Self { path, handle })
    }

    /// Makes it the working folder.
    pub fn work_there(&self) -> Result<(), Error> {
        fchdir(&self.handle).map_err(|error| Error::Folder { path: self.path.clone(), source: error.into() })
    }

    /// Must be done in the jail's mount namespace, by a user who may go to the folder.
    pub fn copy(&self) -> io::Result<Copy> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(Copy { path: self.path.clone(), mount: open_tree(CWD, &self.path, flags)? })
    }
}

/// Makes an empty file system with this folder the root, and lets go of the one before; the folder is the working one.
pub fn replace(folder: Option<&Copy>) -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = empty()?;
    // First of all: kernels before 6.15 mount nothing in what is not mounted itself.
    move_mount(&root, "", CWD, HOOK, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if let Some(folder) = folder {
        show(&root, folder)?;
    }
    fchdir(&root)?;
    pivot_root(".", ".")?;
    // What is stacked below is the old root.
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    let still = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Some(folder) = folder {
        mount_remount(&folder.path, still, "")?;
        // Who may not go there cannot connect to its sockets either.
        let _ = chdir(&folder.path);
    }
    Ok(mount_remount("/", still, "")?)
}

/// A file system in memory, without room for data.
fn empty() -> io::Result<OwnedFd> {
    let made = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "0555"), ("size", "4k"), ("nr_inodes", "64")] {
        fsconfig_set_string(made.as_fd(), key, value)?;
    }
    fsconfig_create(made.as_fd())?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(made.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn show(root: &OwnedFd, folder: &Copy) -> io::Result<()> {
    let inside = folder.path.strip_prefix("/").map_err(io::Error::other)?;
    let mut folders: Vec<_> = inside.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.reverse();
    for folder in folders {
        match mkdirat(root, folder, Mode::from_raw_mode(0o555)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(move_mount(&folder.mount, "", root, inside, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
