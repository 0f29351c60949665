//! The process that stays outside: whoever started the program sees it and signals it. It can do next to nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::{mem, process, ptr};

use rustix::fs::{AtFlags, CWD, OFlags, openat, unlinkat};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior, waitpid};

use super::{Error, Lack, Owner, Spec, close_all_but, fence, privileges, system};

/// Watches over `prisoner` and ends as it does. `tell` is held open until then.
pub fn stay(prisoner: Pid, tell: OwnedFd, spec: &Spec<'_>, owner: Owner, lack: Lack) -> ! {
    // What the host lacks the prisoner tells.
    let lack = Lack { require: false, ..lack };
    let result = withdraw(&tell, spec, owner, lack).and_then(|sockets| {
        let code = watch(prisoner).map_err(system("waiting for the jailed process"))?;
        for (folder, name) in sockets {
            // It may not be ours to remove, or be gone.
            let _ = unlinkat(&folder, name, AtFlags::empty());
        }
        Ok(code)
    });
    match result {
        Ok(code) => process::exit(code),
        Err(error) => {
            eprintln!("{}: error: {error}", spec.program);
            // It would die with us, but a moment later: whoever waits for us would find its files in use.
            let _ = kill_process(prisoner, Signal::KILL);
            let _ = waitpid(Some(prisoner), WaitOptions::empty());
            process::exit(1)
        }
    }
}

/// Gives up all that the warden does not need; returns the sockets to be removed and the folders that they are in.
fn withdraw(tell: &OwnedFd, spec: &Spec<'_>, owner: Owner, lack: Lack) -> Result<Vec<(OwnedFd, OsString)>, Error> {
    let sockets: Vec<_> = spec.sockets.iter().filter_map(|path| folder(path).ok()).collect();
    let kept = sockets.iter().map(|(folder, _)| folder.as_raw_fd()).chain([tell.as_raw_fd()]);
    close_all_but(kept).map_err(system("closing descriptors"))?;
    privileges::drop_capabilities(owner.change.then_some(owner), lack)?;
    privileges::forget_environment();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(system("forbidding dumps"))?;
    rustix::thread::set_no_new_privs(true).map_err(system("forbidding new privileges"))?;
    rustix::process::chdir("/").map_err(system("leaving the working folder"))?;
    // A kernel without it has been told of by the prisoner.
    let _ = fence::raise(&fence::Inmate::Warden(&sockets));
    Ok(sockets)
}

fn folder(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let path = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat(CWD, folder, flags, rustix::fs::Mode::empty())?, name.to_owned()))
}

/// Whether this process was started with a signal ignored, as by nohup(1).
fn ignored(signal: libc::c_int) -> bool {
    // SAFETY: the action is zeroed, which is valid, and only written to by the call.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Passes signals on until the prisoner has ended, and returns its exit code; if it died by a signal, so do we. Of what else
/// ends programs from a terminal, both die: the prisoner first, so that nothing of it is left when we are gone.
fn watch(prisoner: Pid) -> io::Result<i32> {
    // SAFETY: the set is initialised by sigemptyset before it is used, and the calls only touch it and this
    // thread's signal mask.
    let signals: libc::sigset_t = unsafe {
        let mut signals = mem::zeroed();
        libc::sigemptyset(&mut signals);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(&mut signals, signal);
        }
        for signal in [libc::SIGHUP, libc::SIGQUIT].into_iter().filter(|signal| !ignored(*signal)) {
            libc::sigaddset(&mut signals, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, ptr::null_mut());
        signals
    };
    loop {
        if let Some((_, status)) = waitpid(Some(prisoner), WaitOptions::NOHANG)? {
            if let Some(signal) = status.terminating_signal() {
                die_by(signal);
            }
            return Ok(status.exit_status().unwrap_or(1));
        }
        let mut signal = 0;
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::sigwait(&signals, &mut signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let passed = match signal {
            libc::SIGTERM => Signal::TERM,
            libc::SIGINT => Signal::INT,
            libc::SIGCHLD => continue,
            ending => {
                kill_process(prisoner, Signal::KILL)?;
                waitpid(Some(prisoner), WaitOptions::empty())?;
                die_by(ending);
            }
        };
        // It is not reaped yet, so the number is still its own.
        let _ = kill_process(prisoner, passed);
    }
}

/// Ends this process by `signal`, so that whoever waits for it sees the same as of the prisoner.
fn die_by(signal: i32) -> ! {
    // SAFETY: the default action takes no handler of ours; the set is initialised before it is used; the signal goes to
    // this process, which is to end.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut signals = mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &signals, ptr::null_mut());
        libc::kill(libc::getpid(), signal);
    }
    process::exit(128 + signal)
}
