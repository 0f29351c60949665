//! Hosts that lack a part of the jail: the proxy reaches the machine's display all the same, loudly, or does not run if the jail was
//! demanded. Its folders are as the service makes them: closed to all but the one who started it.

// test support: what panics here fails a test
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use yunju_prisoner::{Part, lacking};

mod support;

use support::machine::Machine;

const OWN: u32 = 2_000_000_003;
const ORDINARY: u32 = 65_534;

/// A program cannot be started while a process that was just forked has it open for writing.
static COPYING: Mutex<()> = Mutex::new(());

/// Who starts the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starter {
    /// Root, with a user for the jail.
    Root,
    /// An ordinary user.
    Ordinary,
}

/// A desktop's folders with a machine's display.
struct Place {
    folder: TempDir,
    starter: Starter,
    machine: Machine,
}

impl Place {
    fn new(starter: Starter) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let copying = COPYING.lock().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_yunju-vnc-proxy"), at("proxy")).unwrap();
        drop(copying);
        fs::create_dir_all(at("run/display")).unwrap();
        let machine = Machine::listen(&at("run/display/sock"));
        for (name, mode) in [("", 0o700), ("run", 0o700), ("run/display", 0o755)] {
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
            if starter == Starter::Ordinary {
                chown(at(name), Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
        let user = if starter == Starter::Root { OWN } else { ORDINARY };
        chown(at("run/display/sock"), Some(user), Some(user)).unwrap();
        Self { folder, starter, machine }
    }

    fn proxy(&self, lack: Option<Part>, flags: &[&str]) -> Child {
        let at = |name: &str| self.folder.path().join(name);
        let socket = |path: &Path| format!("unix:{}", path.display());
        let mut command = Command::new(at("proxy"));
        command.args(["--display", &socket(&at("run/display/sock")), "--rfb", &socket(&at("run/rfb"))]).args(flags);
        match self.starter {
            Starter::Root => command.args(["--uid", &OWN.to_string()]),
            Starter::Ordinary => command.uid(ORDINARY).gid(ORDINARY),
        };
        if let Some(part) = lack {
            lacking(&mut command, part);
        }
        let _copying = COPYING.lock().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Waits for the end; the exit code and what was said.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// What can be lacking to each starter.
fn hosts() -> impl Iterator<Item = (Starter, Option<Part>)> {
    let parts = || [None].into_iter().chain(Part::ALL.map(Some));
    // Without user namespaces an ordinary user has none of the others.
    let ordinary = parts().filter(|part| *part != Some(Part::UserNamespace));
    parts().map(|part| (Starter::Root, part)).chain(ordinary.map(|part| (Starter::Ordinary, part)))
}

/// Starts a proxy, which must attach to the display and end well when it is told to; what it said.
fn attach(starter: Starter, lack: Option<Part>, flags: &[&str]) -> String {
    let place = Place::new(starter);
    let child = place.proxy(lack, flags);
    let pid = Pid::from_child(&child);
    let (attached, waiting) = channel();
    let machine = place.machine;
    std::thread::spawn(move || attached.send(machine.accept().map(|display| (machine, display))));
    let attached = waiting.recv_timeout(Duration::from_secs(30));
    kill_process(pid, Signal::TERM).unwrap();
    let (code, said) = end(child);
    assert!(attached.is_ok_and(|result| result.is_ok()), "{starter:?}, lacking {lack:?}: {said}");
    assert_eq!(code, Some(0), "{starter:?}, lacking {lack:?}: {said}");
    said
}

#[test]
fn whatever_a_host_lacks_the_proxy_says_so_and_reaches_the_display() {
    for (starter, lack) in hosts() {
        match lack {
            Some(part) => {
                let said = attach(starter, lack, &[]);
                assert!(part.is_told_in(&said), "{starter:?}, lacking {lack:?}: {said}");
            }
            None => {
                let said = attach(starter, lack, &["--jail", "require"]);
                assert!(!said.contains("warning"), "{starter:?}: {said}");
            }
        }
    }
}

#[test]
fn what_is_demanded_and_lacking_ends_the_proxy() {
    for (starter, lack) in hosts().filter(|(_, lack)| lack.is_some()) {
        let (code, said) = end(Place::new(starter).proxy(lack, &["--jail", "require"]));
        assert_eq!(code, Some(1), "{starter:?}, lacking {lack:?}: {said}");
        assert!(said.contains("--jail require demands it"), "{starter:?}, lacking {lack:?}: {said}");
    }
}

#[test]
fn without_a_jail_it_reaches_the_display_too_and_warns() {
    for starter in [Starter::Root, Starter::Ordinary] {
        let said = attach(starter, None, &["--no-jail"]);
        assert!(said.contains("warning: jail: switched off"), "{starter:?}: {said}");
    }
}
