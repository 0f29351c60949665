//! Hosts that lack a part of the jail: a machine runs all the same, loudly, or not at all if that was demanded.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use yunju_prisoner::{Part, lacking};

use crate::machine::{Machine, VMM, guest};

/// A machine that switches itself off, on a host that lacks a part.
fn run(lack: Option<Part>, flags: &[&str]) -> Output {
    let mut command = Command::new(VMM);
    command.args(["run", "--cmdline", "test=poweroff", "--memory", "64M", "--kernel"]).arg(guest("probe")).args(flags);
    if let Some(part) = lack {
        lacking(&mut command, part);
    }
    command.stdin(Stdio::null()).output().expect("yunju-vmm starts")
}

#[test]
fn each_part_of_the_jail_that_is_lacking_is_told_and_refused_if_demanded() {
    for part in Part::ALL {
        let output = run(Some(part), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(part.is_told_in(&said), "{part:?}: {said}");
        assert_eq!(output.status.code(), Some(0), "{part:?}: {said}");
        assert!(said.ends_with("machine ended: powered off by the guest\n"), "{part:?}: {said}");

        let output = run(Some(part), &["--jail", "require"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{part:?}: {said}");
        assert!(last.starts_with("yunju-vmm: error: jail: "), "{part:?}: {said}");
        assert!(last.ends_with("--jail require demands it"), "{part:?}: {said}");
    }
}

#[test]
fn services_of_the_host_are_reached_where_the_way_to_them_is_closed_to_the_machines_user() {
    const USER: u32 = 2_000_000_011;
    for lack in [None, Some(Part::EmptyRoot), Some(Part::Namespaces)] {
        let plan = Machine::boot("test=vsock");
        // The folder above is closed, as temporary ones are.
        let guest = plan.path("guest");
        fs::create_dir(&guest).unwrap();
        fs::set_permissions(&guest, Permissions::from_mode(0o755)).unwrap();
        let echo = UnixListener::bind(guest.join("vsock_7")).unwrap();
        chown(guest.join("vsock_7"), Some(USER), Some(USER)).unwrap();
        let plan = plan.args(["--uid", &USER.to_string(), "--vsock", &format!("3,{}", guest.join("vsock").display())]);
        let mut machine = match lack {
            Some(part) => plan.lacking(part).start(),
            None => plan.start(),
        };
        std::thread::spawn(move || {
            let (stream, _) = echo.accept()?;
            std::io::copy(&mut stream.try_clone()?, &mut &stream)
        });
        machine.expect("echoed 1048576 bytes");
    }
}

#[test]
fn a_host_that_lacks_nothing_satisfies_the_demand_and_without_a_jail_there_is_a_warning() {
    let output = run(None, &["--jail", "require", "--uid", "2000000000+pid"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "yunju-vmm: machine ended: powered off by the guest\n");
    let output = run(None, &["--no-jail"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("yunju-vmm: warning: jail: switched off"), "{said}");
}

#[test]
fn a_machine_dies_with_its_warden_and_a_warden_ends_as_its_machine_did() {
    let mut machine = Machine::boot("test=spin").start();
    machine.expect("TICK");
    let jailed = machine.jailed_pid();
    machine.kill();
    let gone = || (!std::path::Path::new(&format!("/proc/{jailed}")).exists()).then_some(());
    crate::machine::eventually(gone, || "the machine outlives its warden".into());

    let mut machine = Machine::boot("test=spin").start();
    machine.expect("TICK");
    let jailed = rustix::process::Pid::from_raw(machine.jailed_pid() as i32).unwrap();
    rustix::process::kill_process(jailed, rustix::process::Signal::KILL).unwrap();
    assert_eq!(machine.end_signal(), Some(libc::SIGKILL));
}

#[test]
fn nothing_of_a_machine_is_left_when_its_warden_has_ended_by_a_terminals_signal() {
    for (signal, number) in
        [(rustix::process::Signal::HUP, libc::SIGHUP), (rustix::process::Signal::QUIT, libc::SIGQUIT)]
    {
        let mut machine = Machine::boot("test=spin").start();
        machine.expect("TICK");
        let jailed = machine.jailed_pid();
        let warden = rustix::process::Pid::from_raw(machine.pid() as i32).unwrap();
        rustix::process::kill_process(warden, signal).unwrap();
        assert_eq!(machine.end_signal(), Some(number));
        assert!(!std::path::Path::new(&format!("/proc/{jailed}")).exists(), "the machine outlives its warden");
    }
}

#[test]
fn the_jailed_process_has_no_privileges_and_sees_nothing_of_the_host() {
    let mut machine = Machine::boot("test=spin").args(["--uid", "2000000007"]).start();
    machine.expect("TICK");
    let pid = machine.jailed_pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), vec!["2000000007"; 4]);
    assert_eq!(field("Gid"), vec!["2000000007"; 4]);
    assert_eq!(field("Groups"), Vec::<String>::new());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    assert_eq!(field("NSpid").last().map(String::as_str), Some("1"));
    let own = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        assert_ne!(own(&pid.to_string(), kind), own("self", kind), "{kind}");
    }
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/net/dev_snmp6")).map_or(0, Iterator::count), 1);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(environment.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environment));
}
