//! A machine that a test boots, talks to and sees end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use yunju_prisoner::{Part, lacking};
use yunju_protocol::control::{Afterwards, SnapshotInfo};
use yunju_protocol::machine::Endpoint;
use yunju_vmm::snapshot::client::{self, Wanted};

use crate::viewer::Viewer;

/// How long anything may take. Far more than it takes, for slow days.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The `yunju-vmm` under test.
pub const VMM: &str = env!("CARGO_BIN_EXE_yunju-vmm");

/// Where the guests are, built when first asked for.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/probe");
        let target = source.join("target");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
            .arg(&target)
            .current_dir(&source)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .status();
        let release = target.join("release");
        match status {
            Ok(status) => assert!(status.success(), "building images/probe: {status}"),
            // The lab has no cargo; what was built outside is there.
            Err(error) => assert!(release.join("probe").exists(), "building images/probe: cargo: {error}"),
        }
        release
    });
    folder.join(name)
}

/// Without KVM these tests say nothing, so they fail rather than pass.
fn require_kvm() {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        let this = std::env::current_exe().unwrap_or_default();
        panic!("/dev/kvm: {error}; run these tests in the lab: ci/lab run -- {}", this.display());
    }
}

/// A machine about to be started.
pub struct Plan {
    folder: TempDir,
    command: Command,
    memory: &'static str,
}

impl Plan {
    fn new(kernel: &Path) -> Self {
        require_kvm();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(VMM);
        command.arg("run").arg("--kernel").arg(kernel).args(["--serial", "stdio"]);
        Self { folder, command, memory: "64M" }
    }

    /// A file in the machine's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Any flags.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.command.args(args);
        self
    }

    pub fn memory(mut self, size: &'static str) -> Self {
        self.memory = size;
        self
    }

    pub fn cpus(self, count: u8) -> Self {
        self.args(["--cpus", &count.to_string()])
    }

    /// An empty disk of `size` bytes, in `path(name)`.
    pub fn disk(mut self, name: &str, size: u64) -> Self {
        let path = self.path(name);
        File::create(&path).and_then(|file| file.set_len(size)).expect("a disk");
        self.command.arg("--disk").arg(path);
        self
    }

    /// A disk that is a new layer `name` on these files in `path("")`, bottom first.
    pub fn layered_disk(mut self, name: &str, below: &[&str]) -> Self {
        let mut files = vec!["disk", "create", name, "--on"];
        files.extend(below);
        let output = refused(self.folder.path(), &files);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut option = self.path(name).display().to_string();
        below.iter().for_each(|file| option += &format!(",below={}", self.path(file).display()));
        self.command.arg("--disk").arg(option);
        self
    }

    /// A read-only disk with these bytes.
    pub fn readonly_disk(mut self, name: &str, bytes: &[u8]) -> Self {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a disk");
        self.command.arg("--disk").arg(format!("{},readonly", path.display()));
        self
    }

    /// A screen; see [`Machine::viewer`].
    pub fn display(mut self, width: u32, height: u32) -> Self {
        let path = self.path("display.sock");
        self.command.arg("--display").arg(format!("unix:{},{width}x{height}", path.display()));
        self
    }

    /// The control API; see [`Machine::get`].
    pub fn control(mut self) -> Self {
        let path = self.path("control.sock");
        self.command.arg("--control").arg(format!("unix:{}", path.display()));
        self
    }

    /// A network whose other end is [`std::os::unix::net::UnixListener`] at `path("net.sock")`.
    pub fn net(mut self) -> Self {
        let path = self.path("net.sock");
        self.command.arg("--net").arg(format!("stream:unix:{}", path.display()));
        self
    }

    /// A vsock device with its socket at `path("vsock.sock")`.
    pub fn vsock(mut self, cid: u32) -> Self {
        let path = self.path("vsock.sock");
        self.command.arg("--vsock").arg(format!("{cid},{}", path.display()));
        self
    }

    /// A balloon.
    pub fn balloon(self) -> Self {
        self.args(["--balloon"])
    }

    /// A kernel that refuses io_uring, as some do to all, or to those in containers.
    pub fn without_io_uring(mut self) -> Self {
        // SAFETY: system calls only, which the child may make.
        unsafe { self.command.pre_exec(refuse_io_uring) };
        self
    }

    /// A host that lacks a part of the jail.
    pub fn lacking(mut self, part: Part) -> Self {
        lacking(&mut self.command, part);
        self
    }

    pub fn start(mut self) -> Machine {
        self.command.args(["--memory", self.memory]);
        // SAFETY: system calls only, which the child may make.
        unsafe { self.command.pre_exec(heed_signals) };
        let piped = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("yunju-vmm starts");
        let input = child.stdin.take();
        let serial = lines(child.stdout.take().expect("piped"));
        let complaints = lines(child.stderr.take().expect("piped"));
        Machine { folder: self.folder, child, input, serial, complaints, seen: VecDeque::new() }
    }
}

/// From here on `io_uring_setup` has EPERM for this process (seccomp(2)).
fn refuse_io_uring() -> std::io::Result<()> {
    let step = |code, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The call's number, at the beginning of `seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if refused { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Reads lines on a thread.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A machine that runs. Dropping it ends it.
pub struct Machine {
    folder: TempDir,
    child: Child,
    input: Option<ChildStdin>,
    serial: Receiver<String>,
    complaints: Receiver<String>,
    /// What the guest said last, for messages.
    seen: VecDeque<String>,
}

impl Machine {
    /// The probe with a command line such as `test=blk`.
    pub fn boot(cmdline: &str) -> Plan {
        Plan::new(&guest("probe")).args(["--cmdline", cmdline])
    }

    /// The test card.
    pub fn card() -> Plan {
        Plan::new(&guest("card")).memory("128M")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of the guest that contains `text`; lines before it are passed over. A guest that fails is not waited for.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = match self.serial.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(error) => self.give_up(text, error),
            };
            self.seen.push_back(line.clone());
            if self.seen.len() > 30 {
                self.seen.pop_front();
            }
            if line.contains(text) {
                return line;
            }
            assert!(!line.contains("PROBE FAIL"), "while waiting for {text:?}: {line}");
        }
    }

    /// Whether the guest has said a line that contains `text` since it was last listened to.
    pub fn has_said(&mut self, text: &str) -> bool {
        let lines: Vec<String> = self.serial.try_iter().collect();
        assert!(!lines.iter().any(|line| line.contains("PROBE FAIL")), "while waiting for {text:?}: {lines:?}");
        lines.iter().any(|line| line.contains(text))
    }

    /// The next line, whatever it is.
    pub fn line(&mut self) -> String {
        self.expect("")
    }

    /// What the guest said and nobody has looked at, of a machine that has ended.
    pub fn rest(&mut self) -> String {
        self.serial.iter().collect()
    }

    /// Waits until the program itself says a line that contains `text`.
    pub fn complains(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        while !passed.last().is_some_and(|line: &String| line.contains(text)) {
            match self.complaints.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => passed.push(line),
                Err(error) => panic!("no {text:?} on standard error: {error}; instead {passed:#?}"),
            }
        }
    }

    fn give_up(&mut self, text: &str, error: RecvTimeoutError) -> ! {
        let end = match error {
            RecvTimeoutError::Timeout => "nothing more came",
            RecvTimeoutError::Disconnected => "the machine ended",
        };
        let complaints: Vec<String> = self.complaints.try_iter().collect();
        panic!("no {text:?} from the guest: {end}\nguest: {:#?}\nyunju-vmm: {complaints:#?}", self.seen)
    }

    /// Whether the guest says anything in a while.
    pub fn is_silent(&mut self, duration: Duration) -> bool {
        while self.serial.try_recv().is_ok() {}
        self.serial.recv_timeout(duration).is_err()
    }

    /// Types on the serial port.
    pub fn type_text(&mut self, text: &str) {
        let input = self.input.as_mut().expect("standard input is open");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the machine reads");
    }

    /// The process that runs the guest: the one that was started only watches over it.
    pub fn jailed_pid(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = || fs::read_to_string(&path).ok()?.split_whitespace().next()?.parse().ok();
        eventually(children, || "nobody is in the jail".into())
    }

    /// Waits for the end of the process and returns the signal that it died by.
    pub fn end_signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let child = &mut self.child;
        eventually(|| child.try_wait().expect("the process is ours"), || "the machine does not end".into()).signal()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process is ours").is_some()
    }

    /// Waits until the process has ended and returns its exit code and the last line of its standard error.
    pub fn end(&mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("the process is ours") {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                None => panic!("the machine does not end; it said {:?}", self.seen),
            }
        };
        let code = status.code().unwrap_or_else(|| panic!("yunju-vmm was ended by {status}"));
        let complaints: Vec<String> = self.complaints.iter().collect();
        let panicked = complaints.iter().any(|line| line.contains("panicked"));
        assert!(!panicked, "yunju-vmm panicked: {complaints:#?}");
        (code, complaints.last().cloned().unwrap_or_default())
    }

    /// The probe says that all is well, and the machine ends as if it had been switched off.
    pub fn succeeds(&mut self) {
        self.expect("PROBE OK");
        assert_eq!(self.end(), (0, "yunju-vmm: machine ended: powered off by the guest".to_owned()));
    }

    /// A client on the display socket.
    pub fn viewer(&self) -> Viewer {
        Viewer::attach(&self.path("display.sock"))
    }

    /// One request to the control API: status and body.
    pub fn request(&self, method: &str, path: &str) -> (u16, Vec<u8>) {
        self.request_with(method, path, "")
    }

    /// The same with a body.
    pub fn request_with(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = connect(&self.path("control.sock"));
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: machine\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("the request is taken");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed = answer.parse(&bytes).expect("an HTTP answer");
        let httparse::Status::Complete(head) = parsed else { panic!("half an answer") };
        let code = answer.code.expect("a complete answer has a status");
        (code, bytes.split_off(head))
    }

    /// Takes a snapshot, as the command does.
    pub fn snapshot(&self, to: &Path, end: bool, whole: bool) -> Result<SnapshotInfo, client::Error> {
        self.take(to, end, whole, &[])
    }

    /// The same with new layers for the disks.
    pub fn snapshot_on(&self, to: &Path, then: Afterwards, layers: &[PathBuf]) -> Result<SnapshotInfo, client::Error> {
        self.take(to, then == Afterwards::End, false, layers)
    }

    fn take(&self, to: &Path, end: bool, whole: bool, layers: &[PathBuf]) -> Result<SnapshotInfo, client::Error> {
        eventually(|| self.path("control.sock").exists().then_some(()), || "no control socket".into());
        let control = Endpoint::Unix(self.path("control.sock"));
        client::take(&Wanted { control, folder: to.to_owned(), layers: layers.to_vec(), end, whole })
    }

    /// Asks for a snapshot into any files with any body; the whole answer.
    pub fn order(&self, files: &[File], body: &str) -> String {
        let mut stream = connect(&self.path("control.sock"));
        let head = format!("POST /machine/snapshot HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&files).size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(&stream, &[IoSlice::new(head.as_bytes())], &mut control, SendFlags::NOSIGNAL).expect("it is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Ends it at once, whatever it does; it may have ended.
    pub fn tell_to_end(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("a process");
        let ended = |machine: &mut Self| machine.child.try_wait().expect("the process is ours").is_some();
        // The first SIGTERM that is seen presses the power button, and two at once are one.
        eventually(
            || {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                ended(self).then_some(())
            },
            || "the machine does not end".into(),
        );
    }

    /// What a GET of the control API answers.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.ask("GET", path)
    }

    /// What a POST of the control API answers.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> T {
        self.ask("POST", path)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> T {
        let (status, body) = self.request(method, path);
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("the answer is what it is said to be")
    }
}

impl Machine {
    /// Ends the process at once, whatever it is doing, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell's background jobs are started with a terminal's signals ignored, and hand that down.
fn heed_signals() -> std::io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default action takes no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// Connects as soon as somebody listens.
pub fn connect(path: &Path) -> UnixStream {
    let stream = eventually(|| UnixStream::connect(path).ok(), || format!("nobody listens at {}", path.display()));
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
    stream
}

/// Tries until something is there.
pub fn eventually<T>(mut attempt: impl FnMut() -> Option<T>, complaint: impl FnOnce() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Some(value) => return value,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            None => panic!("{}", complaint()),
        }
    }
}

/// Runs `yunju-vmm` with arguments that it refuses, in a folder.
pub fn refused(folder: &Path, args: &[&str]) -> Output {
    Command::new(VMM).args(args).current_dir(folder).stdin(Stdio::null()).output().expect("yunju-vmm starts")
}

/// What `yunju-vmm` said on standard error, but for what this host lacks for a jail.
pub fn complaint_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let own: Vec<_> = text.lines().filter(|line| !line.starts_with("yunju-vmm: warning: jail: ")).collect();
    own.join("\n")
}
