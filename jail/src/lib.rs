//! The jail that a machine's processes put themselves into, once they have opened all that they need.
//!
//! ```text
//! program ── opens files, sockets, devices ── enter ─┬─▶ warden: its pid is the program's, it passes SIGTERM and
//!                                                    │           SIGINT on and ends as the prisoner ends
//!                                                    └─▶ prisoner: namespaces of its own, an empty root, no
//!                                                                privileges; here `enter` returns
//! ```
//!
//! What stands between a prisoner and the host, each behind the other: namespaces (`namespaces`), an empty root
//! (`root`), no capabilities and tight limits (`privileges`), Landlock (`fence`) and, thread by thread, an allow-list of
//! system calls ([`filter`]). What a host cannot do is missing with a warning on standard error, or, with
//! `--jail require`, ends the program.

mod descriptors;
mod fence;
pub mod filter;
mod flags;
mod namespaces;
mod privileges;
mod root;
mod warden;

use std::io;
use std::path::{Path, PathBuf};

pub use descriptors::close_all_but;
pub use flags::{Flags, Mode};
use privileges::Others;
use rustix::process::{Gid, Uid, geteuid};

/// A jail.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The program's name, for messages.
    pub program: &'static str,
    /// What the command line says.
    pub flags: &'a Flags,
    /// All that is there of the file system: a folder without folders mounted in it, in which nothing can be opened or
    /// changed but sockets be connected to. It is the working folder from then on, held rather than looked up: a relative
    /// path reaches its sockets also where there is no empty root and the prisoner may not go through the folders above.
    pub folder: Option<&'a Path>,
    /// Socket files that are removed when the prisoner has ended.
    pub sockets: &'a [PathBuf],
    /// Most descriptors at a time.
    pub descriptors: u64,
    /// Most threads at a time.
    pub threads: u64,
    /// Longest file that may be written, in bytes.
    pub file: u64,
}

/// Why a program could not be jailed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Threads cannot be moved, a mistake in this program.
    #[error("jail: {0} threads run already")]
    Threads(usize),
    /// A folder cannot be shown.
    #[error("jail: folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something that every host can do.
    #[error("jail: {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// This host lacks something, and `--jail require` was given.
    #[error("jail: {what}: {why}; --jail require demands it")]
    Missing {
        /// A part of the jail.
        what: &'static str,
        /// What the system says.
        why: String,
    },
    /// `--uid` by somebody who is not root.
    #[error("jail: only root can become user {0}: leave --uid away")]
    NotRoot(u32),
}

fn system<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::System { doing, source: source.into() }
}

/// Who the prisoner is outside of its jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: Uid,
    gid: Gid,
    /// Not who it is now.
    change: bool,
}

/// Decides what happens when a part of the jail cannot be had.
#[derive(Debug, Clone, Copy)]
struct Lack {
    program: &'static str,
    require: bool,
}

impl Lack {
    /// Goes on without `what`, loudly, if that is allowed.
    fn of(self, what: &'static str, why: impl ToString) -> Result<(), Error> {
        let why = why.to_string();
        if self.require {
            return Err(Error::Missing { what, why });
        }
        self.warn(&format!("{what}: {why}; going on without"));
        Ok(())
    }

    fn warn(self, text: &str) {
        eprintln!("{}: warning: jail: {text}", self.program);
    }
}

/// Puts this process into its jail, or rather a copy of it with all its descriptors and memory, in which this
/// function returns. The process itself becomes the warden and never returns from here.
///
/// Files of `/proc` and of the host can be opened by `look`, which runs in the prisoner before anything is taken away
/// from it: `/proc/self` is the prisoner there, and what is opened stays usable.
///
/// `bind` comes last and binds this program to its lists of system calls; it may start threads.
///
/// No other thread may run. SIGTERM and SIGINT are blocked afterwards, for the program to wait for with `sigwait`, or
/// to unblock with [`obey_signals`] when it has handlers; one that came meanwhile is not lost.
pub fn enter(
    spec: &Spec<'_>,
    look: impl FnOnce() -> io::Result<()>,
    bind: impl FnOnce() -> Result<(), filter::Error>,
) -> Result<(), Error> {
    namespaces::block_signals().map_err(system("blocking signals"))?;
    let owner = owner(spec.flags)?;
    let lack = Lack { program: spec.program, require: spec.flags.jail == Mode::Require };
    if spec.flags.no_jail {
        lack.warn("switched off: whoever breaks out of the guest has all that this user has");
        look().map_err(system("opening files of this process"))?;
        if let Some(path) = spec.folder {
            root::Folder::open(path)?.work_there()?;
        }
        if owner.change {
            privileges::become_owner(owner)?;
        }
        return Ok(());
    }
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(0 | 1) | Err(_) => {}
        Ok(threads) => return Err(Error::Threads(threads)),
    }
    if owner.uid.is_root() {
        lack.warn("runs as root, though without its capabilities; give it a user of its own with --uid");
    }
    let folder = spec.folder.map(root::Folder::open).transpose()?;
    let apart = namespaces::enter(spec, owner, lack)?;
    look().map_err(system("opening files of this process"))?;
    match &folder {
        Some(folder) => folder.work_there()?,
        None => std::env::set_current_dir("/").map_err(system("leaving the working folder"))?,
    }
    if let Some(apart) = &apart {
        let copy = folder.as_ref().map(root::Folder::copy).transpose();
        // Capabilities in a user namespace without a root survive this.
        if owner.change && apart.own_users {
            privileges::become_owner(owner)?;
        }
        // A terminal's signals are the warden's to pass on, and nothing can be typed into it from here.
        rustix::process::setsid().map_err(system("leaving the session"))?;
        copy.and_then(|copy| root::replace(copy.as_ref())).or_else(|error| lack.of("empty root", error))?;
        apart.name_host();
    }
    // It leads out of the jail.
    drop(folder);
    let own_users = apart.as_ref().is_some_and(|apart| apart.own_users);
    let others = match (own_users && privileges::counts_apart(), owner.change) {
        (true, _) => Others::None,
        (false, true) => Others::Few,
        (false, false) => Others::Many,
    };
    privileges::drop_all(spec, (owner.change && !own_users).then_some(owner), others, lack)?;
    fence::raise(&fence::Inmate::Prisoner).or_else(|error| lack.of("Landlock", error))?;
    if let Some(apart) = apart {
        apart.die_with_the_warden()?;
    }
    filter::arm(spec.program).and_then(|()| bind()).or_else(|error| lack.of("seccomp", error))
}

/// Lets SIGTERM and SIGINT through to this thread's handlers.
pub fn obey_signals() -> io::Result<()> {
    namespaces::unblock_signals()
}

fn owner(flags: &Flags) -> Result<Owner, Error> {
    let (uid, gid) = (geteuid(), rustix::process::getegid());
    match flags.uid {
        Some(wanted) if wanted == uid.as_raw() => Ok(Owner { uid, gid, change: false }),
        Some(wanted) if !uid.is_root() => Err(Error::NotRoot(wanted)),
        Some(wanted) => Ok(Owner { uid: Uid::from_raw(wanted), gid: Gid::from_raw(wanted), change: true }),
        None => Ok(Owner { uid, gid, change: false }),
    }
}

/// Gives a socket file that was just bound to the user that the jail will have, so that this user's other
/// processes can connect.
pub fn give(path: &Path, flags: &Flags) -> Result<(), Error> {
    match flags.uid {
        Some(uid) if geteuid().is_root() => {
            let given = std::os::unix::fs::chown(path, Some(uid), Some(uid));
            given.map_err(system("giving a socket to the jail's user"))
        }
        _ => Ok(()),
    }
}
