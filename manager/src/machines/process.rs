//! One process of ours that outlives us: named by pid and start time, held by pidfd, so that a reused
//! pid is never mistaken for it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Names one process of this host for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Clock ticks between the boot and its start (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

impl Identity {
    /// Whether the host was not started anew since.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == *BOOT
    }
}

static BOOT: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned());

/// How a process ended, as far as can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was not our child.
    Unknown,
}

/// A process that was alive when it was looked for.
#[derive(Debug, Clone)]
pub struct Process {
    identity: Identity,
    pidfd: Arc<AsyncFd<OwnedFd>>,
}

impl Process {
    /// A child that was just made and not yet waited for.
    pub fn of_child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let pidfd = open(pid)?;
        let (start_time, _) = stat(pid)?;
        let identity = Identity { pid, start_time, boot: BOOT.clone() };
        Ok(Self { identity, pidfd })
    }

    /// The process with this identity, if it still lives.
    pub fn find(identity: &Identity) -> Option<Self> {
        if identity.boot != *BOOT {
            return None;
        }
        // the pidfd comes first: what /proc then says about the pid is about the process held, or it is gone
        let pidfd = open(identity.pid).ok()?;
        let (start_time, state) = stat(identity.pid).ok()?;
        let lives = start_time == identity.start_time && !matches!(state, 'Z' | 'X');
        lives.then(|| Self { identity: identity.clone(), pidfd })
    }

    /// Its name for the record.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits for its end. If it is our child, `/proc` still tells of it then, until [`Self::ended`].
    pub async fn exited(&self) {
        let _ = self.pidfd.readable().await; // else the runtime shuts down
    }

    /// Waits for its end and, if it is our child, reaps it.
    pub async fn ended(&self) -> Exit {
        if self.pidfd.readable().await.is_err() {
            return Exit::Unknown; // the runtime shuts down
        }
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => Exit::Unknown,
            },
            Ok(None) | Err(_) => Exit::Unknown,
        }
    }

    /// Sends a signal. That the process is gone is no error.
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(pid = self.identity.pid, %error, "cannot send a signal"),
        }
    }

    /// Ends it: SIGTERM, after `grace` SIGKILL, and waits until it is gone.
    pub async fn end(&self, grace: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }
}

fn open(pid: i32) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: the `AsyncFd` owns the descriptor, which is closed with it and never replaced.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    Ok(Arc::new(pidfd))
}

/// Start time and state letter of a process.
fn stat(pid: i32) -> io::Result<(u64, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text}")))
}

/// The command's name is in parentheses and may hold anything; what follows the last one is fields 3 to 52.
fn parse_stat(text: &str) -> Option<(u64, char)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
#[allow(clippy::zombie_processes)] // they are reaped through their pidfds
mod tests {
    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let text = "7 (a) S 1 2) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4321 0 0";
        assert_eq!(parse_stat(text), Some((4321, 'S')));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[tokio::test]
    async fn a_process_is_found_by_identity_and_a_reused_pid_is_not() {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of_child(child.id()).unwrap();
        let identity = process.identity().clone();
        assert!(Process::find(&identity).is_some());
        assert!(Process::find(&Identity { start_time: identity.start_time + 1, ..identity.clone() }).is_none());
        assert!(Process::find(&Identity { boot: "another".into(), ..identity.clone() }).is_none());
        process.signal(Signal::KILL);
        assert_eq!(process.ended().await, Exit::Signal(9));
        assert!(Process::find(&identity).is_none());
        process.signal(Signal::TERM);
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_ended_after_the_grace() {
        let script = "trap '' TERM; echo; while :; do sleep 1; done";
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::of_child(child.id()).unwrap();
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0]).unwrap();
        process.end(Duration::from_millis(100)).await;
        assert!(Process::find(process.identity()).is_none());
    }
}
