//! The servers: our proxy on a machine that is only a display socket, and TigerVNC's Xvnc with an X client that puts
//! its pixels there through shared memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use x11rb::connection::Connection;
use x11rb::protocol::shm;
use x11rb::protocol::xproto::{ConnectionExt, CreateGCAux, CreateWindowAux, ImageFormat, WindowClass};
use x11rb::rust_connection::RustConnection;
use yunju_protocol::display::Rect;

use crate::canvas::{Canvas, HEIGHT, WIDTH};
use crate::support::machine::{Buffer, Display, Machine};

/// A process that ends with this value.
pub struct Process {
    child: Child,
    /// Of what does the work: a program that jails itself does it in a child.
    pid: u32,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn new(child: Child) -> Self {
        let pid = child.id();
        Self { child, pid }
    }

    /// A program that has jailed itself and works.
    fn jailed(child: Child) -> Self {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).expect("it runs");
        let inner = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        Self { pid: inner.unwrap_or(child.id()), child }
    }

    /// Processor time that all its threads have had, in seconds.
    pub fn cpu(&self) -> f64 {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write to the variables that they are given, which are ours, and nothing else.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.pid as libc::pid_t, &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        assert!(!failed, "a process that runs has a clock");
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Memory that is its own, in MiB: what it shares with the machine is the machine's.
    pub fn private_mib(&self) -> f64 {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", self.pid)).expect("a process that runs");
        let (mut kib, mut counts) = (0, true);
        for line in maps.lines() {
            match line.split_once(':') {
                Some(("Private_Clean" | "Private_Dirty", rest)) if counts => {
                    kib += rest.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
                }
                Some((start, _)) if start.contains('-') => counts = !line.contains("memfd:"),
                _ => {}
            }
        }
        kib as f64 / 1024.0
    }
}

/// Something that shows pictures to viewers.
pub trait Server {
    fn name(&self) -> String;
    fn process(&self) -> &Process;
    /// Where it listens for plain RFB.
    fn socket(&self) -> &Path;
    /// Shows what has been drawn.
    fn show(&mut self, canvas: &Canvas, damage: Rect);
}

/// Our proxy.
pub struct Yunju {
    process: Process,
    socket: PathBuf,
    display: Display,
    _machine: Machine,
    /// The guest draws in one while the other is shown.
    buffers: [Buffer; 2],
    shown: usize,
    /// What the hidden buffer lacks.
    behind: Rect,
}

impl Yunju {
    pub fn start(folder: &Path) -> Self {
        let (path, socket) = (folder.join("display"), folder.join("rfb"));
        let machine = Machine::listen(&path);
        let child = Command::new(env!("CARGO_BIN_EXE_yunju-vnc-proxy"))
            .args(["--display", &format!("unix:{}", path.display()), "--rfb", &format!("unix:{}", socket.display())])
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("the proxy starts");
        let display = machine.accept().expect("the proxy connects");
        let process = Process::jailed(child);
        let buffers = [Buffer::new(1, WIDTH, HEIGHT), Buffer::new(2, WIDTH, HEIGHT)];
        buffers.iter().for_each(|buffer| display.announce(buffer).expect("the proxy listens"));
        let behind = Rect::of_size(WIDTH, HEIGHT);
        Self { process, socket, display, _machine: machine, buffers, shown: 0, behind }
    }
}

impl Server for Yunju {
    fn name(&self) -> String {
        "yunju".into()
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn show(&mut self, canvas: &Canvas, damage: Rect) {
        self.shown = 1 - self.shown;
        let buffer = &self.buffers[self.shown];
        let stale = damage.union(&self.behind);
        canvas.rows(stale).for_each(|(y, row)| buffer.write(stale.x, y, &row));
        self.behind = damage;
        self.display.show(buffer, damage).expect("the proxy listens");
    }
}

/// TigerVNC's Xvnc.
pub struct TigerVnc {
    process: Process,
    version: String,
    socket: PathBuf,
    x: RustConnection,
    window: u32,
    context: u32,
    segment: u32,
    memory: File,
}

impl TigerVnc {
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("xvnc");
        let said = Command::new("Xvnc").arg("-version").output().expect("Xvnc is installed: run `ci/setup test`");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let version = said.split("TigerVNC ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.expect("Xvnc is TigerVNC's: run `ci/setup test`").to_owned();
        let mut child = Command::new("Xvnc")
            .args(["-displayfd", "1", "-geometry", "1920x1080", "-depth", "24", "-ac", "-SecurityTypes", "None"])
            .args(["-rfbport", "-1", "-rfbunixpath"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvnc starts");
        let mut number = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut number)
            .expect("Xvnc says its display");
        let process = Process::new(child);
        let (x, screen) = RustConnection::connect(Some(&format!(":{}", number.trim()))).expect("Xvnc takes clients");
        let root = x.setup().roots[screen].root;
        let [window, context, segment] = [(); 3].map(|()| x.generate_id().expect("an id"));
        let (width, height) = (WIDTH as u16, HEIGHT as u16);
        let plain = CreateWindowAux::new().override_redirect(1);
        x.create_window(24, window, root, 0, 0, width, height, 0, WindowClass::INPUT_OUTPUT, 0, &plain)
            .expect("a window");
        x.map_window(window).expect("a window is mapped");
        x.create_gc(context, window, &CreateGCAux::new()).expect("a context");
        let fd = rustix::fs::memfd_create("pixels", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        rustix::fs::ftruncate(&fd, u64::from(WIDTH * HEIGHT * 4)).expect("memory of that size");
        let memory = File::from(fd);
        let shared = memory.try_clone().expect("a descriptor");
        shm::attach_fd(&x, segment, shared, false).expect("a request").check().expect("Xvnc takes shared memory");
        Self { process, version, socket, x, window, context, segment, memory }
    }
}

impl Server for TigerVnc {
    fn name(&self) -> String {
        format!("TigerVNC {}", self.version)
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    fn show(&mut self, canvas: &Canvas, damage: Rect) {
        for (y, row) in canvas.rows(damage) {
            self.memory.write_all_at(&row, u64::from(y * WIDTH + damage.x) * 4).expect("memory can be written");
        }
        let [x, y, width, height] = [damage.x, damage.y, damage.width, damage.height].map(|side| side as u16);
        let format = u8::from(ImageFormat::Z_PIXMAP);
        let (total_width, total_height) = (WIDTH as u16, HEIGHT as u16);
        shm::put_image(
            &self.x,
            self.window,
            self.context,
            total_width,
            total_height,
            x,
            y,
            width,
            height,
            x as i16,
            y as i16,
            24,
            format,
            false,
            self.segment,
            0,
        )
        .expect("a request");
        // Its answer says that the picture has been taken.
        self.x.get_input_focus().expect("a request").reply().expect("Xvnc answers");
    }
}

/// Waits until a server's socket is there.
pub fn await_socket(path: &Path) {
    for _ in 0..500 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no socket at {} after 10 s", path.display());
}
