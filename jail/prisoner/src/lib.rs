//! For tests: a program in its jail, with its lists of system calls, tries what it would if it were taken over.
//!
//! The test of a program is a program too ([`main`]): without arguments it starts itself once for every attempt, list
//! and user, on hosts that have all that a jail needs and on such as lack a part. Each attempt must fail, with the lists
//! and, where something else stands behind them, without.

// test support: what panics here fails a test
#![allow(clippy::unwrap_used, clippy::undocumented_unsafe_blocks)]

mod attempts;
mod host;

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use attempts::{ATTEMPTS, CONTROLS};
pub use attempts::{Attempt, World};
pub use host::{Part, lacking};
use tempfile::TempDir;
use yunju_jail::{Flags, Mode};

const ORDINARY: u32 = 65_534;
const OWN: u32 = 2_000_000_001;

/// The name of no list.
const NO_LIST: &str = "none";

/// Names of attempts or controls, each with the lists that it is about.
type ByList = &'static [(&'static str, &'static [&'static str])];

/// The program whose jail it is.
pub struct Subject {
    /// Its lists of system calls. On hosts that lack something only the first is tried.
    pub lists: &'static [&'static str],
    /// What lists allow: these attempts are not made.
    pub allowed: ByList,
    /// What must succeed.
    pub controls: ByList,
    /// Goes to the program's jail; whether with lists is the last argument. The error is for a person.
    pub enter: fn(&World, &Flags, bool) -> Result<(), String>,
    /// Runs something bound to a list.
    pub within: fn(&str, Box<dyn FnOnce() + Send>),
}

fn among(names: ByList, name: &str, list: &str) -> bool {
    names.iter().any(|(known, lists)| *known == name && lists.contains(&list))
}

/// The whole test, or one prisoner of it.
pub fn main(subject: &Subject) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--prisoner") => prisoner(subject, &arguments[1..]),
        // Filters of the test runner's command line choose nothing here; listing names the whole.
        Some("--list") => ExitCode::SUCCESS,
        _ => warden(subject),
    }
}

/// `NAME LIST|none UID|- warn|require FOLDER OUTSIDE PID PORT`
fn prisoner(subject: &Subject, arguments: &[String]) -> ExitCode {
    let [name, list, uid, mode, folder, outside, pid, port] = arguments else { panic!("{arguments:?}") };
    let attempt = ATTEMPTS.iter().chain(CONTROLS).find(|attempt| attempt.name == name).unwrap();
    let outside = Path::new(outside);
    let world = World {
        folder: folder.into(),
        outside: outside.into(),
        pid: pid.parse().unwrap(),
        port: port.parse().unwrap(),
        disk: File::options().read(true).write(true).open(outside.join("disk")).unwrap(),
    };
    let jail = if mode == "require" { Mode::Require } else { Mode::Warn };
    let flags = Flags { jail, no_jail: false, uid: uid.parse().ok() };
    let bound = list != NO_LIST;
    if let Err(error) = (subject.enter)(&world, &flags, bound) {
        eprintln!("prisoner: {error}");
        return ExitCode::from(9);
    }
    let escape = attempt.escape;
    let run = move || match escape(&world) {
        Ok(()) => println!("SUCCEEDED"),
        Err(error) => println!("REFUSED {error}"),
    };
    if bound {
        (subject.within)(list, Box::new(run))
    } else {
        run()
    }
    ExitCode::SUCCESS
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Refused,
}

fn outcome(output: &Output) -> Result<Outcome, String> {
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let forbidden = complained.contains("made the forbidden system call") && output.status.code() == Some(1);
    match said.trim() {
        "SUCCEEDED" => Ok(Outcome::Succeeded),
        text if text.starts_with("REFUSED") => Ok(Outcome::Refused),
        // A call of another kind of program has no number here, so it is not told of. A file that is too long is a signal.
        _ if forbidden || [libc::SIGSYS, libc::SIGXFSZ].map(Some).contains(&output.status.signal()) => {
            Ok(Outcome::Refused)
        }
        _ => Err(format!("{:?}: {said} {complained}", output.status)),
    }
}

/// What prisoners are started with, and what they must not reach.
struct Outside {
    place: TempDir,
    sockets: Vec<UnixListener>,
    port: TcpListener,
}

impl Outside {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let open_to = |name: &str, mode| fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        open_to("", 0o755);
        fs::copy(std::env::current_exe().unwrap(), at("prisoner")).unwrap();
        for folder in ["folder", "outside"] {
            fs::create_dir(at(folder)).unwrap();
            open_to(folder, 0o777);
        }
        fs::write(at("outside/secret"), "secret").unwrap();
        File::create(at("outside/disk")).and_then(|disk| disk.set_len(1 << 20)).unwrap();
        let name = format!("yunju-jail-{}", std::process::id());
        let nameless = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        let named = ["folder/sock", "outside/sock"].map(|name| UnixListener::bind(at(name)).unwrap());
        for file in ["outside/secret", "outside/disk", "folder/sock", "outside/sock"] {
            open_to(file, 0o666);
        }
        let sockets: Vec<_> = named.into_iter().chain([nameless]).collect();
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        port.set_nonblocking(true).unwrap();
        Self { place, sockets, port }
    }

    /// One prisoner: `root` starts it, or an ordinary user, on a host that lacks something.
    fn run(&self, attempt: &Attempt, list: &str, root: bool, lack: Option<Part>) -> Result<Outcome, String> {
        // A queue that is full would refuse as well.
        while self.port.accept().is_ok() || self.sockets.iter().any(|socket| socket.accept().is_ok()) {}
        let at = |name: &str| self.place.path().join(name);
        let mut command = Command::new(at("prisoner"));
        let uid = if root { OWN.to_string() } else { "-".to_owned() };
        let mode = if lack.is_some() { "warn" } else { "require" };
        command.args(["--prisoner", attempt.name, list, &uid, mode]).arg(at("folder")).arg(at("outside"));
        command.arg(std::process::id().to_string()).arg(self.port.local_addr().unwrap().port().to_string());
        if !root {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        if let Some(part) = lack {
            lacking(&mut command, part);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match lack {
            Some(part) if !part.is_told_in(&said) => Err(format!("lacks {part:?} and does not say so: {said}")),
            _ => outcome(&output),
        }
    }
}

fn warden(subject: &Subject) -> ExitCode {
    assert!(rustix::process::geteuid().is_root(), "only root can become an ordinary user: run this as root");
    let outside = Outside::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |attempt: &Attempt, list: &str, root: bool, lack: Option<Part>, right: Outcome| {
        count += 1;
        let was = outside.run(attempt, list, root, lack);
        if was != Ok(right) {
            wrong.push(format!("{} ({list}, root: {root}, lacking: {lack:?}): {was:?}", attempt.name));
        }
    };
    let hosts = [None, Some(Part::Landlock), Some(Part::UserNamespace), Some(Part::Namespaces)];
    for (root, lack) in [true, false].into_iter().flat_map(|root| hosts.map(|lack| (root, lack))) {
        // An ordinary user has none of the others without this one.
        if !root && lack == Some(Part::UserNamespace) {
            continue;
        }
        let lists = if lack.is_none() { subject.lists } else { &subject.lists[..1] };
        for attempt in ATTEMPTS.iter().filter(|attempt| !lack.is_some_and(|part| part.alone_stops(attempt.name, root)))
        {
            for list in lists.iter().filter(|list| !among(subject.allowed, attempt.name, list)) {
                check(attempt, list, root, lack, Outcome::Refused);
            }
            if attempt.twice && lack.is_none() {
                check(attempt, NO_LIST, root, lack, Outcome::Refused);
            }
        }
        for control in CONTROLS {
            for list in lists.iter().filter(|list| among(subject.controls, control.name, list)) {
                check(control, list, root, lack, Outcome::Succeeded);
            }
        }
    }
    // Without the lists some would succeed: they are what stands there.
    for attempt in ATTEMPTS.iter().filter(|attempt| !attempt.twice) {
        if outside.run(attempt, NO_LIST, true, None) == Ok(Outcome::Refused) {
            eprintln!("note: `{}` is refused without lists as well here", attempt.name);
        }
    }
    println!("{count} attempts to break out of the jail, {} wrong", wrong.len());
    wrong.iter().for_each(|line| println!("  {line}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
