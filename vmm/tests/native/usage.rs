//! Wrong input: one clear line, and an exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::machine::{VMM, complaint_of, guest, refused};

/// What `yunju-vmm` says when it refuses these flags, and its exit code.
fn complaint(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = refused(folder, args);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = complaint_of(&output);
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().unwrap_or_else(|| panic!("{}", output.status)), text)
}

/// The complaint about a good machine with these flags added.
fn with(folder: &Path, args: &[&str]) -> (i32, String) {
    let kernel = guest("probe");
    let kernel = kernel.to_str().expect("a path of this checkout");
    let memory: &[&str] = if args.contains(&"--memory") { &[] } else { &["--memory", "64M"] };
    complaint(folder, &[&["run", "--kernel", kernel], memory, args].concat())
}

fn error(code: i32, text: &str) -> (i32, String) {
    (code, format!("yunju-vmm: error: {text}"))
}

#[test]
fn a_kernel_that_is_missing_or_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |kernel| complaint(folder.path(), &["run", "--kernel", kernel, "--memory", "64M"]);
    assert_eq!(run("nosuch"), error(1, "reading kernel nosuch: No such file or directory (os error 2)"));
    fs::write(folder.path().join("text"), "not a kernel\n").unwrap();
    assert_eq!(run("text"), error(1, "kernel text: neither an x86-64 ELF (vmlinux) nor a bzImage"));
    fs::write(folder.path().join("empty"), "").unwrap();
    assert_eq!(run("empty"), error(1, "kernel empty: neither an x86-64 ELF (vmlinux) nor a bzImage"));
    let whole = fs::read(guest("probe")).unwrap();
    fs::write(folder.path().join("cut"), &whole[..whole.len() / 3]).unwrap();
    let (code, text) = run("cut");
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    assert!(text.starts_with("yunju-vmm: error: kernel cut: "), "{text}");
}

#[test]
fn an_initrd_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let expected = error(1, "reading initrd nosuch: No such file or directory (os error 2)");
    assert_eq!(with(folder.path(), &["--initrd", "nosuch"]), expected);
}

#[test]
fn sizes_out_of_their_limits_are_refused_with_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    for memory in ["32M", "63M", "65M", "65G"] {
        let expected = error(2, &format!("memory {memory}: must be 64M to 64G and a multiple of 2M"));
        assert_eq!(with(folder.path(), &["--memory", memory]), expected);
    }
    for cpus in ["0", "9"] {
        assert_eq!(with(folder.path(), &["--cpus", cpus]), error(2, &format!("cpus {cpus}: must be 1 to 8")));
    }
    let cmdline = "a".repeat(2048);
    let expected = error(2, "cmdline: must be at most 2047 bytes without a zero byte");
    assert_eq!(with(folder.path(), &["--cmdline", &cmdline]), expected);
    let expected = error(2, "vsock cid 2: must be 3 or more");
    assert_eq!(with(folder.path(), &["--vsock", "2,v.sock"]), expected);
    let expected = error(2, "display 639x480: must be 640x480 to 7680x4320");
    assert_eq!(with(folder.path(), &["--display", "unix:d.sock,639x480"]), expected);
}

#[test]
fn a_disk_that_cannot_be_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("odd"), [0; 1000]).unwrap();
    let expected = error(1, "disk odd: its length of 1000 bytes is not a multiple of 512; `truncate` it to one");
    assert_eq!(with(folder.path(), &["--disk", "odd"]), expected);
    let expected = error(1, "disk nosuch: No such file or directory (os error 2)");
    assert_eq!(with(folder.path(), &["--disk", "nosuch"]), expected);
    assert_eq!(with(folder.path(), &["--disk", "."]), error(1, "disk .: Is a directory (os error 21)"));
}

#[test]
fn a_socket_where_somebody_listens_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let _control = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let expected = error(1, "socket control.sock: address in use; another machine listens there");
    assert_eq!(with(folder.path(), &["--control", "unix:control.sock"]), expected);

    let display = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&display, &SocketAddrUnix::new(folder.path().join("display.sock")).unwrap()).unwrap();
    listen(&display, 1).unwrap();
    let expected = error(1, "socket display.sock: address in use; another machine listens there");
    assert_eq!(with(folder.path(), &["--display", "unix:display.sock"]), expected);
}

#[test]
fn a_socket_left_behind_by_a_dead_machine_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("control.sock")).unwrap());
    let output = refused(
        folder.path(),
        &[
            "run",
            "--kernel",
            guest("probe").to_str().unwrap(),
            "--memory",
            "64M",
            "--cmdline",
            "test=poweroff",
            "--control",
            "unix:control.sock",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_network_or_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let expected = error(1, "socket unix:nosuch: No such file or directory (os error 2)");
    assert_eq!(with(folder.path(), &["--net", "stream:unix:nosuch"]), expected);
    let expected = error(1, "socket unix:no/such: No such file or directory (os error 2)");
    assert_eq!(with(folder.path(), &["--control", "unix:no/such"]), expected);
}

#[test]
fn a_configuration_that_is_none_says_where_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        fs::write(folder.path().join("machine.json"), text).unwrap();
        complaint(folder.path(), &["run", "--config", "machine.json"])
    };
    let (code, text) = run(r#"{"kernel":"k","memory":"64M","colour":1}"#);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    let start = "yunju-vmm: error: configuration machine.json: unknown field `colour`, expected one of `kernel`";
    assert!(text.starts_with(start), "{text}");
    let (code, text) = run(r#"{"kernel":"k","memory":"64M""#);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    assert!(text.starts_with("yunju-vmm: error: configuration machine.json: EOF while parsing"), "{text}");
    let (code, text) = run(r#"{"kernel":"k","memory":"little"}"#);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    assert!(text.contains("`little` is no size"), "{text}");
    let expected = error(2, "reading configuration nosuch.json: No such file or directory (os error 2)");
    assert_eq!(complaint(folder.path(), &["run", "--config", "nosuch.json"]), expected);
}

#[test]
fn a_user_who_may_not_use_kvm_is_told_what_to_do() {
    const NOBODY: u32 = 65534;
    assert!(rustix::process::geteuid().is_root(), "only root can become somebody without rights: run this as root");
    // Where nobody may go: the checkout may be in a closed folder.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("yunju-vmm");
    fs::copy(VMM, &binary).unwrap();
    let mut command = Command::new(&binary);
    command.args(["run", "--kernel", "k", "--memory", "64M"]).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let expected = "/dev/kvm: Permission denied (os error 13); add this user to the group kvm and log in again";
    assert_eq!((output.status.code(), text), (Some(1), format!("yunju-vmm: error: {expected}")));
}

#[test]
fn wrong_flags_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for (args, reason) in [
        (&["run"][..], "--kernel"),
        (&["run", "--kernel", "k", "--memory", "1X"], "`1X` is no size"),
        (&["run", "--kernel", "k", "--control", "tcp:1"], "`tcp:1` is no socket"),
        (&["run", "--kernel", "k", "--bogus"], "--bogus"),
        (&["run", "--kernel", "k", "--disk", "d,fast"], "fast"),
        (&["run", "--kernel", "k", "--config", "c"], "--config"),
        (&["walk"], "walk"),
    ] {
        let (code, text) = complaint(folder.path(), args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(text.contains(reason), "{args:?}: {text}");
    }
}
