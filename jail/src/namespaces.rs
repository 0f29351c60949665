//! A copy of this process in namespaces of its own, and this process as its warden.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::{mem, process, ptr};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, geteuid, set_parent_process_death_signal, waitpid};

use super::{Error, Lack, Owner, Spec, system, warden};

/// All but the user's.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// What became of this process.
pub struct Apart {
    /// To the warden.
    link: OwnedFd,
    /// The capabilities that the prisoner has are those of a user namespace of its own.
    pub own_users: bool,
}

/// Returns in the prisoner; if there can be no namespaces this process stays what it is, and there is no warden.
pub fn enter(spec: &Spec<'_>, owner: Owner, lack: Lack) -> Result<Option<Apart>, Error> {
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(system("making a pipe"))?;
    let (own_users, pid) = match fork(libc::CLONE_NEWUSER | NAMESPACES) {
        Ok(pid) => (true, pid),
        // Root needs no user namespace to have the others.
        Err(error) if geteuid().is_root() => {
            lack.of("user namespace", &error)?;
            match fork(NAMESPACES) {
                Ok(pid) => (false, pid),
                Err(error) => return lack.of("namespaces", error).map(|()| None),
            }
        }
        Err(error) => return lack.of("namespaces", error).map(|()| None),
    };
    let Some(pid) = pid else {
        drop(tell);
        let mut told = File::from(told);
        // The warden says one byte when it has told the kernel who we are.
        if told.read_exact(&mut [0]).is_err() {
            process::exit(1);
        }
        return Ok(Some(Apart { link: told.into(), own_users }));
    };
    drop(told);
    let mapped = if own_users { map_ids(pid, owner) } else { Ok(()) };
    if let Err(error) = mapped.and_then(|()| Ok(rustix::io::write(&tell, b"!")?)) {
        drop(tell);
        // It goes away by itself.
        let _ = waitpid(Some(pid), WaitOptions::empty());
        return lack.of("namespaces", error).map(|()| None);
    }
    warden::stay(pid, tell, spec, owner, lack)
}

/// As fork(2), into new namespaces.
fn fork(flags: libc::c_int) -> io::Result<Option<Pid>> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child has a copy of all memory. There is
    // one thread only (`enter` has looked), so no lock is left held in the child. The C library's record of the
    // thread's number is stale there; it is used only to signal that very thread from another one, which nobody does.
    match unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// The prisoner is the same user inside and outside, and there is no other.
fn map_ids(pid: Pid, owner: Owner) -> io::Result<()> {
    let pid = pid.as_raw_nonzero();
    let write = |file: &str, text: String| std::fs::write(format!("/proc/{pid}/{file}"), text);
    if !geteuid().is_root() {
        write("setgroups", "deny".to_owned())?;
    }
    let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

impl Apart {
    /// Hides the host's name.
    pub fn name_host(&self) {
        // Without the right to there is nothing else to try: the name is no secret.
        let _ = rustix::system::sethostname(b"jail");
    }

    /// The kernel kills this process when its warden ends from now on.
    pub fn die_with_the_warden(self) -> Result<(), Error> {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(system("asking to die with the warden"))?;
        // It may have ended just before.
        let mut fds = [PollFd::new(&self.link, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => Ok(()),
            Ok(_) => process::exit(1),
            Err(error) => Err(system("looking for the warden")(error)),
        }
    }
}

fn change_mask(how: libc::c_int) -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is used, and the calls only touch it and this
    // thread's signal mask.
    let result = unsafe {
        let mut signals = mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGINT);
        libc::pthread_sigmask(how, &signals, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Blocks the signals that ask a program to end.
pub fn block_signals() -> io::Result<()> {
    change_mask(libc::SIG_BLOCK)
}

/// Lets them through again.
pub fn unblock_signals() -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK)
}
