//! A program in the jail of the monitor, with the same lists of system calls, tries what an exploited monitor would.
//!
//! Without arguments this is the test: it starts itself once for every attempt, kind of thread and user. Each attempt must
//! fail, with the lists and, where something else stands behind them, without.

// test support: what panics here fails a test
#![allow(clippy::unwrap_used, clippy::undocumented_unsafe_blocks)]

mod attempts;

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use attempts::{ATTEMPTS, Attempt, CONTROLS, World};
use yunju_jail::{Flags, Mode};
use yunju_protocol::machine::{DiskConfig, MachineConfig};
use yunju_vmm::threads::{self, Kind};

const ORDINARY: u32 = 65_534;
const OWN: u32 = 2_000_000_001;

/// Kinds with different lists; the others' are shorter.
const KINDS: [Kind; 7] = [Kind::Main, Kind::Vcpu, Kind::Block, Kind::Gpu, Kind::Net, Kind::Vsock, Kind::Control];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--prisoner") => prisoner(&arguments[1..]),
        // Filters of the test runner's command line choose nothing here; listing names the whole.
        Some("--list") => ExitCode::SUCCESS,
        _ => warden(),
    }
}

/// `NAME KIND|none UID|- FOLDER OUTSIDE PID PORT`
fn prisoner(arguments: &[String]) -> ExitCode {
    let [name, kind, uid, folder, outside, pid, port] = arguments else { panic!("{arguments:?}") };
    let attempt = ATTEMPTS.iter().chain(CONTROLS).find(|attempt| attempt.name == name).unwrap();
    let kind = Kind::ALL.into_iter().find(|known| format!("{known:?}") == *kind);
    let outside = Path::new(outside);
    let world = World {
        folder: folder.into(),
        outside: outside.into(),
        pid: pid.parse().unwrap(),
        port: port.parse().unwrap(),
        disk: File::options().read(true).write(true).open(outside.join("disk")).unwrap(),
    };
    let disk = DiskConfig { path: outside.join("disk"), ..DiskConfig::default() };
    let text = format!(r#"{{"kernel":"k","memory":"64M","vsock":{{"cid":3,"socket":"{folder}/vsock"}}}}"#);
    let mut config: MachineConfig = serde_json::from_str(&text).unwrap();
    config.disks.push(disk);
    let flags = Flags { jail: Mode::Require, no_jail: false, uid: uid.parse().ok() };
    let bind = || if kind.is_some() { threads::bind() } else { Ok(()) };
    if let Err(error) = yunju_vmm::jail::enter(&config, &flags, || Ok(()), bind) {
        eprintln!("prisoner: {error}");
        return ExitCode::from(9);
    }
    let escape = attempt.escape;
    let run = move || match escape(&world) {
        Ok(()) => println!("SUCCEEDED"),
        Err(error) => println!("REFUSED {error}"),
    };
    match kind {
        Some(Kind::Main) => {
            threads::become_kind(Kind::Main);
            run();
        }
        Some(kind) => threads::spawn(kind, "prisoner", 256 << 10, run).unwrap().join().unwrap(),
        None => run(),
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
        // A call of another kind of program has no number here, so it is not told of.
        _ if forbidden || output.status.signal() == Some(libc::SIGSYS) => Ok(Outcome::Refused),
        _ => Err(format!("{:?}: {said} {complained}", output.status)),
    }
}

fn warden() -> ExitCode {
    assert!(rustix::process::geteuid().is_root(), "only root can become an ordinary user: run this as root");
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
    let inside = UnixListener::bind(at("folder/vsock_7")).unwrap();
    let outside = UnixListener::bind(at("outside/sock")).unwrap();
    for file in ["outside/secret", "outside/disk", "folder/vsock_7", "outside/sock"] {
        open_to(file, 0o666);
    }
    let name = format!("yunju-jail-{}", std::process::id());
    let nameless = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    for socket in [&inside, &outside, &nameless] {
        socket.set_nonblocking(true).unwrap();
    }
    port.set_nonblocking(true).unwrap();

    let run = |attempt: &Attempt, kind: Option<Kind>, root: bool| {
        // A queue that is full would refuse as well.
        while inside.accept().is_ok() || outside.accept().is_ok() || nameless.accept().is_ok() || port.accept().is_ok()
        {
        }
        let mut command = Command::new(at("prisoner"));
        let kind = kind.map_or("none".to_owned(), |kind| format!("{kind:?}"));
        let uid = if root { OWN.to_string() } else { "-".to_owned() };
        command.args(["--prisoner", attempt.name, &kind, &uid]).arg(at("folder")).arg(at("outside"));
        command.arg(std::process::id().to_string()).arg(port.local_addr().unwrap().port().to_string());
        if !root {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        outcome(&command.stdin(Stdio::null()).output().unwrap())
    };
    let mut wrong = Vec::new();
    let mut count = 0;
    for root in [true, false] {
        for attempt in ATTEMPTS {
            let kinds = KINDS.into_iter().filter(|kind| !attempt.allowed.contains(kind)).map(Some);
            for kind in kinds.chain(attempt.twice.then_some(None)) {
                count += 1;
                match run(attempt, kind, root) {
                    Ok(Outcome::Refused) => {}
                    other => wrong.push(format!("{} ({kind:?}, root: {root}): {other:?}", attempt.name)),
                }
            }
        }
        for control in CONTROLS {
            for kind in control.allowed {
                match run(control, Some(*kind), root) {
                    Ok(Outcome::Succeeded) => {}
                    other => wrong.push(format!("{} ({kind:?}, root: {root}) must work: {other:?}", control.name)),
                }
            }
        }
        // Without the lists some would succeed: they are what stands there.
        for attempt in ATTEMPTS.iter().filter(|attempt| !attempt.twice) {
            if run(attempt, None, root) == Ok(Outcome::Refused) {
                eprintln!("note: `{}` is refused without lists as well here", attempt.name);
            }
        }
    }
    println!("{count} attempts to break out of the jail, {} wrong", wrong.len());
    wrong.iter().for_each(|line| println!("  {line}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
