//! The command itself: arguments, endpoints, the end.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn proxy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yunju-vnc-proxy"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    proxy(arguments).output().expect("the proxy can be run")
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn terminate(mut child: Child) -> (Option<i32>, String) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (child.wait().expect("it ends").code(), said)
}

#[test]
fn wrong_arguments_are_told_and_exit_with_2() {
    for (arguments, told) in [
        (&["--display", "/run/d", "--websocket", "unix:/w"][..], "write unix:/PATH"),
        (&["--display", "unix:/d", "--websocket", "tcp:nowhere"], "is no endpoint"),
        (&["--display", "unix:/d"], "required"),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn an_address_in_use_is_told_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let _taken = UnixListener::bind(&path).unwrap();
    let output = run(&["--display", "unix:/d", "--websocket", &format!("unix:{}", path.display())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("address in use"), "{said}");
}

#[test]
fn it_listens_on_sockets_that_it_is_given_and_ends_cleanly_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let (own, given) = (folder.path().join("own"), folder.path().join("given"));
    let listener = UnixListener::bind(&given).unwrap();
    let number = {
        use std::os::fd::AsRawFd;
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        listener.as_raw_fd()
    };
    let display = format!("unix:{}", folder.path().join("nowhere").display());
    let arguments =
        ["--display", &display, "--rfb", &format!("unix:{}", own.display()), "--rfb", &format!("fd:{number}")];
    let child = proxy(&arguments).spawn().unwrap();
    drop(listener);
    for path in [&given, &own] {
        let mut greeting = [0; 12];
        let mut viewer = connect(path);
        viewer.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"RFB 003.008\n");
        viewer.write_all(b"RFB 003.0").unwrap();
    }
    let (code, said) = terminate(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(!own.exists(), "its own socket is removed");
    assert!(given.exists(), "one that it was given is not");
}
