//! A service with stand-ins for its programs, in a folder of its own.

// test support: what panics here fails a test; not every test uses all of it
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub const YUNJU: &str = env!("CARGO_BIN_EXE_yunju");

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub struct Service {
    folder: TempDir,
    serve: Option<Child>,
    /// `localhost:port` of the running `serve`.
    pub address: String,
}

/// A desktop that is open in a browser.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Its own host name, with the port.
    pub host: String,
    pub id: String,
    /// The cookie of that.
    pub cookie: String,
}

impl Desk {
    pub fn origin(&self) -> String {
        format!("http://{}", self.host)
    }

    /// A path of its API.
    pub fn api(&self, rest: &str) -> String {
        format!("/v1/desktops/{}{rest}", self.id)
    }
}

/// A folder with the stand-ins and images, in which nothing runs yet.
pub fn service() -> Service {
    let folder = tempfile::tempdir().unwrap();
    for part in ["bin", "images", "data"] {
        fs::create_dir(folder.path().join(part)).unwrap();
    }
    let target = Path::new(YUNJU).parent().unwrap();
    let stand_in = target.join("examples/fake-programs");
    assert!(stand_in.is_file(), "build the stand-ins first: cargo build -p yunju --examples");
    for program in ["yunju-vmm", "yunju-vnc-proxy", "passt"] {
        symlink(&stand_in, folder.path().join("bin").join(program)).unwrap();
    }
    let service = Service { folder, serve: None, address: String::new() };
    for (name, word) in [
        ("good", ""),
        ("crash", "fake=crash"),
        ("error", "fake=error"),
        ("deaf", "fake=ignore-power"),
        ("mute", "fake=mute"),
    ] {
        service.image(name, word);
    }
    service
}

impl Service {
    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    pub fn image(&self, name: &str, cmdline: &str) {
        let folder = self.path("images").join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vmlinux"), "kernel").unwrap();
        fs::write(folder.join("base.img"), [1; 4096]).unwrap();
        fs::write(folder.join("system.img"), [2; 4096]).unwrap();
        let manifest = serde_json::json!({
            "name": name, "description": format!("The {name} image"), "digest": format!("sha256:{name}"),
            "created": "2026-11-24T05:00:00Z", "kernel": "vmlinux", "cmdline": cmdline,
            "disks": [{"path": "base.img", "readonly": true}, {"path": "system.img"}],
            "memory": "512M", "cpus": 1, "display": {"width": 1280, "height": 800}, "net": true,
        });
        fs::write(folder.join("image.json"), manifest.to_string()).unwrap();
    }

    /// Starts `yunju serve` and waits until it listens.
    pub fn serve(&mut self, flags: &[&str]) -> &mut Self {
        assert!(self.try_serve(flags), "serve did not come up: {}", self.log());
        self
    }

    /// As [`Self::serve`]; false if it was killed before it listened.
    pub fn try_serve(&mut self, flags: &[&str]) -> bool {
        self.try_serve_with(flags, &[])
    }

    /// As [`Self::serve`], with variables in its environment.
    pub fn serve_with(&mut self, flags: &[&str], environment: &[(&str, &str)]) {
        assert!(self.try_serve_with(flags, environment), "serve did not come up: {}", self.log());
    }

    fn try_serve_with(&mut self, flags: &[&str], environment: &[(&str, &str)]) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.path("serve.log")).unwrap();
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut serve = Command::new(YUNJU)
            .args(["serve", "--listen", "127.0.0.1:0", "--stop-timeout", "2"])
            .args(["--images".as_ref(), self.path("images").as_os_str()])
            .args(["--bin-dir".as_ref(), self.path("bin").as_os_str()])
            .args(flags)
            .env("YUNJU_DATA", self.path("data"))
            .env("PATH", path)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(serve.stderr.take().unwrap()).lines();
        let log_path = self.path("serve.log");
        let mut log = fs::File::options().append(true).open(log_path).unwrap();
        self.serve = Some(serve);
        while let Some(Ok(line)) = lines.next() {
            writeln!(log, "{line}").unwrap();
            let told = serde_json::from_str::<Value>(&line).ok();
            let told = told.and_then(|told| told["url"].as_str().map(str::to_owned));
            if let Some(url) = told.as_deref().or_else(|| line.strip_prefix("yunju: open ")) {
                self.address = url.rsplit('/').next().unwrap().to_owned();
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| writeln!(log, "{l}").unwrap()));
                return true;
            }
        }
        self.serve.take().unwrap().wait().unwrap();
        false
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("serve.log")).unwrap_or_default()
    }

    pub fn pid_of_serve(&self) -> u32 {
        self.serve.as_ref().unwrap().id()
    }

    /// Kills the service as a crash would.
    pub fn kill_serve(&mut self) {
        if let Some(mut serve) = self.serve.take() {
            serve.kill().unwrap();
            serve.wait().unwrap();
        }
    }

    /// Waits until the service ended by itself, however.
    pub fn await_serve_end(&mut self) {
        let mut serve = self.serve.take().unwrap();
        until("serve ends", || serve.try_wait().unwrap().is_some());
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.serve.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends the service with SIGTERM; its exit code.
    pub fn end_serve(&mut self) -> i32 {
        let mut serve = self.serve.take().unwrap();
        let pid = rustix::process::Pid::from_child(&serve);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        serve.wait().unwrap().code().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(YUNJU);
        command.args(arguments).env("YUNJU_DATA", self.path("data")).current_dir(self.folder.path());
        command.stdin(Stdio::null());
        command
    }

    pub fn yunju(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.yunju(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", self.log());
        said.out
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// A user `name` who has chosen a password, logged in; the cookie.
    pub fn log_in(&self, name: &str, flags: &[&str]) -> String {
        let password = self.ok(&[&["user", "add", name], flags].concat());
        let login = |password: &str| {
            let body = serde_json::json!({"name": name, "password": password}).to_string();
            let (status, head, _) = self.http("POST", "/v1/session", "", &self.own_origin(), &body);
            assert_eq!(status, 200, "{head}");
            let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
            cookie.split(';').next().unwrap().to_owned()
        };
        let cookie = login(password.trim());
        let change = serde_json::json!({"current": password.trim(), "new": format!("{name} has chosen")}).to_string();
        assert_eq!(self.http("POST", "/v1/session/password", &cookie, &self.own_origin(), &change).0, 204);
        cookie
    }

    pub fn own_origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request over TCP; status, head and body.
    pub fn http(&self, method: &str, path: &str, cookie: &str, origin: &str, body: &str) -> (u16, String, String) {
        self.http_at(&self.address, method, path, cookie, origin, body)
    }

    /// The same at another host name.
    pub fn http_at(
        &self,
        host: &str,
        method: &str,
        path: &str,
        cookie: &str,
        origin: &str,
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = self.request(host, method, path, cookie, origin, "", body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    /// [`Self::http`] with more lines in the head.
    pub fn stream_text(&self, method: &str, path: &str, cookie: &str, more: &str, body: &str) -> (u16, String, String) {
        let more = format!("connection: close\r\n{more}");
        let mut stream = self.request(&self.address, method, path, cookie, &self.own_origin(), &more, body);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    /// The head of the answer to who goes to a page at a host name.
    pub fn visit(&self, host: &str, path: &str) -> String {
        let more = "sec-fetch-mode: navigate\r\nconnection: close\r\n";
        let mut text = Vec::new();
        self.request(host, "GET", path, "", "", more, "").read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).split_once("\r\n\r\n").unwrap().0.to_owned()
    }

    #[allow(clippy::too_many_arguments)] // a request has these parts
    fn request(
        &self,
        host: &str,
        method: &str,
        path: &str,
        cookie: &str,
        origin: &str,
        more: &str,
        body: &str,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}");
        if more.is_empty() {
            head += "connection: close\r\n";
        }
        for (name, value) in [("cookie", cookie), ("origin", origin)] {
            if !value.is_empty() {
                head += &format!("{name}: {value}\r\n");
            }
        }
        if !body.is_empty() {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        stream
    }

    /// Gets the way to a desktop: the page's host name with the port, its path, and the ticket.
    pub fn door(&self, desktop: &str, cookie: &str) -> (u16, String, String, String) {
        let open = format!("/v1/desktops/{desktop}/open");
        let (status, _, body) = self.http("POST", &open, cookie, &self.own_origin(), "");
        let (host, path, ticket) =
            if status == 200 { way(&serde_json::from_str(&body).unwrap()) } else { Default::default() };
        (status, host, path, ticket)
    }

    /// Shows a ticket at a host name; the status, and the cookie.
    pub fn enter(&self, host: &str, ticket: &str) -> (u16, String) {
        let body = serde_json::json!({"ticket": ticket}).to_string();
        let (status, head, _) = self.http_at(host, "POST", "/v1/opening", "", &format!("http://{host}"), &body);
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_default();
        (status, cookie.split(';').next().unwrap().to_owned())
    }

    /// Opens a desktop as the portal's page does.
    pub fn open(&self, desktop: &str, cookie: &str) -> Desk {
        let (status, host, path, ticket) = self.door(desktop, cookie);
        assert_eq!(status, 200, "{desktop}");
        self.go_in(host, &path, &ticket)
    }

    /// Goes in by a way that was given.
    pub fn go_in(&self, host: String, path: &str, ticket: &str) -> Desk {
        let (status, cookie) = self.enter(&host, ticket);
        assert_eq!(status, 204);
        Desk { host, id: path.rsplit('/').next().unwrap().to_owned(), cookie }
    }

    /// Asks for a websocket to a desktop that is open; the status, and the stream after the answer's head.
    pub fn websocket(&self, desk: &Desk) -> (u16, String, TcpStream) {
        self.stream(desk, "", &desk.cookie, &desk.origin())
    }

    /// The same with anything else: `rest` stands behind the path.
    pub fn stream(&self, desk: &Desk, rest: &str, cookie: &str, origin: &str) -> (u16, String, TcpStream) {
        self.stream_with(&desk.host, &format!("/desktops/{}/ws{rest}", desk.id), cookie, origin, "")
    }

    /// The same anywhere, with more lines in the head.
    pub fn stream_with(
        &self,
        host: &str,
        path: &str,
        cookie: &str,
        origin: &str,
        more: &str,
    ) -> (u16, String, TcpStream) {
        let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut stream = self.request(host, "GET", path, cookie, origin, &format!("{upgrade}{more}"), "");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head, stream)
    }

    pub fn state(&self, desktop: &str) -> String {
        self.json(&["show", desktop])["state"].as_str().unwrap().to_owned()
    }

    pub fn await_state(&self, desktop: &str, state: &str) {
        until(&format!("{desktop} is {state}\n{}", self.log()), || self.state(desktop) == state);
    }

    pub fn desktop_folder(&self, desktop: &str) -> PathBuf {
        self.path("data/desktops").join(self.json(&["show", desktop])["id"].as_str().unwrap())
    }

    pub fn record(&self, desktop: &str) -> Value {
        let text = fs::read(self.desktop_folder(desktop).join("run/processes.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub fn pid(&self, desktop: &str, process: &str) -> i32 {
        i32::try_from(self.record(desktop)[process]["pid"].as_i64().unwrap()).unwrap()
    }

    /// Living processes of this service but `serve` itself: pid and name.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let own = self.serve.as_ref().map(|serve| serve.id());
        let mark = self.folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&mark) && own != Some(pid) && !line.contains(" serve ") {
                found.push((i32::try_from(pid).unwrap(), line));
            }
        }
        found
    }

    /// How many processes there are of a program.
    pub fn count(&self, program: &str) -> usize {
        let path = self.path("bin").join(program).display().to_string();
        self.processes().iter().filter(|(_, line)| line.starts_with(&path)).count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill_serve();
        for (pid, _) in self.processes() {
            kill(pid);
        }
    }
}

/// A short message of the other side of a websocket.
pub fn message(stream: &mut TcpStream) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut text = vec![0; usize::from(head[1])];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Whether a stream ends within two seconds.
pub fn ends(stream: &mut TcpStream) -> bool {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).is_ok();
    ended && begun.elapsed().as_secs() < 2
}

/// The host name, path and ticket of a way to a desktop.
pub fn way(door: &Value) -> (String, String, String) {
    let url = door["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (host, path) = url.split_once('/').unwrap();
    (host.to_owned(), format!("/{path}"), door["ticket"].as_str().unwrap().to_owned())
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something is so, or fails.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to be: {what}");
        sleep(Duration::from_millis(30));
    }
}
