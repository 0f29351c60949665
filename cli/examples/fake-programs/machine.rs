//! A machine without a guest: its memory is a word, its processor a shell on the serial port.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};
use yunju_protocol::agent::{PORT, ToAgent, ToHost};
use yunju_protocol::control::{Afterwards, MachineInfo, MachineState, MemoryInfo, SnapshotInfo, SnapshotRequest};
use yunju_protocol::machine::{Endpoint, MachineConfig, SerialConfig};

use super::disk::{self, Disk};
use super::{end, kill_service_if_told, picture_png};

struct Machine {
    program: PathBuf,
    config: MachineConfig,
    started: Instant,
    memory: Mutex<String>,
    identity: Mutex<String>,
    disks: Mutex<Vec<Disk>>,
    busy: AtomicBool,
    frozen: AtomicBool,
}

/// What the state file holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    memory: u64,
    cpus: u8,
    differential: bool,
    /// What was on the disks.
    words: Vec<String>,
}

fn unix(endpoint: &Endpoint) -> PathBuf {
    match endpoint {
        Endpoint::Unix(path) => path.clone(),
        Endpoint::Fd(_) => panic!("expected a path"),
    }
}

pub fn run(program: &Path, config_path: &Path) {
    let config: MachineConfig = serde_json::from_slice(&fs::read(config_path).unwrap()).unwrap();
    let folder = config_path.parent().unwrap();
    let lock = File::create(folder.join("fake-vmm.lock")).unwrap();
    if lock.try_lock().is_err() {
        fs::write(folder.join("double-start"), "").unwrap();
        end("error: two machines of one desktop", 1);
    }
    let disks: Vec<Disk> = config.disks.iter().map(Disk::open).collect();
    let told = |word: &str| config.cmdline.split_whitespace().any(|option| option == word);
    if told("fake=error") {
        end("error: /dev/kvm: no such fake device", 1);
    }
    let memory = restore(program, &config, &disks).unwrap_or_else(|| "fresh".to_owned());
    let machine = Arc::new(Machine {
        program: program.to_owned(),
        started: Instant::now(),
        memory: Mutex::new(memory),
        identity: Mutex::default(),
        disks: Mutex::new(disks),
        busy: AtomicBool::new(false),
        frozen: AtomicBool::new(false),
        config: config.clone(),
    });
    if let SerialConfig::Socket(endpoint) = &config.serial {
        let listener = UnixListener::bind(unix(endpoint)).unwrap();
        let machine = machine.clone();
        thread::spawn(move || listener.incoming().for_each(|stream| serial(stream.unwrap(), &machine)));
    }
    if told("fake=crash") {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(600));
            end("machine ended: triple fault at 0xffffffff81000000", 3);
        });
    }
    if told("fake=burn") {
        thread::spawn(|| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                std::hint::black_box(begun.elapsed());
            }
        });
    }
    if told("fake=mute") {
        thread::sleep(Duration::from_secs(600));
    }
    let agent = machine.clone();
    thread::spawn(move || agent.be_agent());
    for stream in UnixListener::bind(unix(config.control.as_ref().unwrap())).unwrap().incoming() {
        let (machine, stream) = (machine.clone(), stream.unwrap());
        thread::spawn(move || machine.control(&stream));
    }
}

/// The memory of a machine that goes on from a snapshot.
fn restore(program: &Path, config: &MachineConfig, disks: &[Disk]) -> Option<String> {
    let files = config.restore.as_ref()?;
    let refuse = |what: &str| -> ! { end(&format!("error: cannot go on from {}: {what}", files.state.display()), 1) };
    if program.with_file_name("cannot-restore").exists() {
        refuse("this host lacks the processor feature avx512f");
    }
    let state: State = match fs::read(&files.state).map_err(|e| e.to_string()) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|_| refuse("it is damaged")),
        Err(error) => refuse(&error),
    };
    if (state.memory, state.cpus) != (config.memory.0, config.cpus) {
        refuse("the machine is another one");
    }
    if state.words != disks.iter().map(Disk::word).collect::<Vec<_>>() {
        refuse("the disks are not as they were");
    }
    if state.differential != files.base.is_some() {
        refuse("a difference needs its base, and a whole none");
    }
    if let Some(base) = &files.base
        && !fs::read_to_string(base).is_ok_and(|text| text.starts_with("whole:"))
    {
        refuse("its base is gone");
    }
    let memory = fs::read_to_string(&files.memory).unwrap();
    let (kind, memory) = memory.split_once(':').unwrap();
    assert_eq!(kind == "difference", state.differential);
    Some(memory.trim_end().to_owned())
}

impl Machine {
    fn control(&self, stream: &UnixStream) {
        let _ = self.answer(stream);
    }

    fn answer(&self, mut stream: &UnixStream) -> io::Result<()> {
        let (first, descriptors) = receive(stream)?;
        let mut reader = BufReader::new(first.as_slice().chain(stream));
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut reply = |status: &str, kind: &str, body: &[u8]| {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body].concat())
        };
        match request.trim_end().trim_end_matches(" HTTP/1.1") {
            "GET /machine" => {
                let info = MachineInfo {
                    state: if self.frozen.load(Ordering::SeqCst) {
                        MachineState::Paused
                    } else {
                        MachineState::Running
                    },
                    pid: std::process::id(),
                    uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap(),
                    resets: 0,
                    memory: self.config.memory.0,
                    cpus: self.config.cpus,
                    screen: None,
                };
                reply("200 OK", "application/json", &serde_json::to_vec(&info)?)
            }
            "GET /machine/memory" => {
                let info = MemoryInfo { private: self.bytes_told("private-memory"), ..MemoryInfo::default() };
                reply("200 OK", "application/json", &serde_json::to_vec(&info)?)
            }
            "GET /machine/screenshot" => reply("200 OK", "image/png", &picture_png()),
            "POST /machine/power-button" => {
                reply("202 Accepted", "application/json", b"{}")?;
                if !self.config.cmdline.contains("fake=ignore-power") {
                    thread::sleep(Duration::from_millis(100));
                    end("machine ended: powered off by the guest", 0);
                }
                Ok(())
            }
            "POST /machine/kill" => {
                reply("202 Accepted", "application/json", b"{}")?;
                end("machine ended: killed by request", 0)
            }
            "POST /machine/snapshot" => {
                let request: SnapshotRequest = serde_json::from_slice(&body)?;
                match self.snapshot(&request, descriptors) {
                    Ok(info) => {
                        let heard = reply("200 OK", "application/json", &serde_json::to_vec(&info)?);
                        if request.afterwards == Afterwards::End {
                            end("machine ended: suspended", 0);
                        }
                        heard
                    }
                    Err((status, problem)) => {
                        let body = serde_json::json!({"error": problem}).to_string();
                        reply(status, "application/json", body.as_bytes())
                    }
                }
            }
            _ => reply("404 Not Found", "application/json", b"{\"error\":\"no such request\"}"),
        }
    }

    fn told(&self, what: &str) -> bool {
        self.program.with_file_name(what).exists()
    }

    /// How long the file `what` beside the program is.
    fn bytes_told(&self, what: &str) -> u64 {
        fs::metadata(self.program.with_file_name(what)).map_or(0, |file| file.len())
    }

    fn snapshot(
        &self,
        request: &SnapshotRequest,
        files: Vec<OwnedFd>,
    ) -> Result<SnapshotInfo, (&'static str, &'static str)> {
        if self.busy.swap(true, Ordering::SeqCst) {
            return Err(("409 Conflict", "another snapshot is being made"));
        }
        let taken = self.take(request, files.into_iter().map(File::from).collect());
        self.frozen.store(false, Ordering::SeqCst);
        self.busy.store(false, Ordering::SeqCst);
        taken
    }

    fn take(
        &self,
        request: &SnapshotRequest,
        mut files: Vec<File>,
    ) -> Result<SnapshotInfo, (&'static str, &'static str)> {
        let ends = request.afterwards == Afterwards::End;
        kill_service_if_told(&self.program, "snapshot-begin");
        self.frozen.store(true, Ordering::SeqCst);
        let mut disks = self.disks.lock().unwrap();
        let differential = self.config.restore.is_some() && !request.whole;
        let words = disks.iter().map(Disk::word).collect();
        let state = State { memory: self.config.memory.0, cpus: self.config.cpus, differential, words };
        let kind = if differential { "difference" } else { "whole" };
        let padding = usize::try_from(self.bytes_told("memory-padding")).unwrap();
        let memory = format!("{kind}:{}{}", self.memory.lock().unwrap(), " ".repeat(padding));
        let layers = files.split_off(2);
        let writable = self.config.disks.iter().zip(disks.iter_mut()).filter(|(config, _)| !config.readonly);
        assert!(ends || writable.size_hint().1 >= Some(layers.len()));
        if !ends {
            writable.map(|(_, disk)| disk).zip(layers).for_each(|(disk, file)| disk.new_layer(file));
            self.frozen.store(false, Ordering::SeqCst);
        }
        drop(disks);
        kill_service_if_told(&self.program, "snapshot-frozen");
        if self.told("slow-snapshot") {
            thread::sleep(Duration::from_millis(1500));
        }
        while self.told("held-snapshot") {
            thread::sleep(Duration::from_millis(20));
        }
        if self.told("crash-in-snapshot") {
            end("machine ended: triple fault at 0xffffffff81000000", 3);
        }
        if self.told("full-disk") {
            return Err(("507 Insufficient Storage", "the disk is full"));
        }
        let mut write = |file: usize, text: &str| {
            assert_eq!(disk::text(&mut files[file]), "", "a snapshot's files must be empty");
            files[file].write_all(text.as_bytes()).unwrap();
            files[file].sync_all().unwrap();
        };
        write(1, &memory);
        write(0, &serde_json::to_string(&state).unwrap());
        kill_service_if_told(&self.program, "snapshot-written");
        Ok(SnapshotInfo { differential, memory_bytes: 0, state_bytes: 0, pause_us: 0, duration_ms: 0 })
    }

    /// Asks the host who this machine is, as the agent in a guest does.
    fn be_agent(&self) {
        let Some(vsock) = &self.config.vsock else { return };
        let path = format!("{}_{PORT}", vsock.socket.display());
        loop {
            if let Ok(mut stream) = UnixStream::connect(&path) {
                let hello = serde_json::to_string(&ToHost::Hello { version: "0".into() }).unwrap();
                let _ = stream.write_all(format!("{hello}\n").as_bytes());
                for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let ToAgent::Identity { id, hostname } = serde_json::from_str(&line).unwrap();
                    *self.identity.lock().unwrap() = hostname;
                    let identity = serde_json::to_string(&ToHost::Identity { id }).unwrap();
                    let _ = stream.write_all(format!("{identity}\n").as_bytes());
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The first bytes of a request and the descriptors that come with them.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(stream, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    bytes.truncate(count);
    Ok((bytes, descriptors))
}

/// What the shell knows of the machine.
const COMMANDS: &str = r#"recall() { echo memory=$MEMORY; }; load() { echo disk=$DISK; }; identity() { echo identity=$IDENTITY; }
remember() { echo remember $1 >&2; }; save() { echo save $1 >&2; }"#;

/// A shell that echoes what is typed, line by line, and knows the machine's memory and its disks.
fn serial(mut stream: UnixStream, machine: &Machine) {
    let ready = if machine.config.cmdline.contains("fake=ready") { "YUNJU-DESKTOP-READY\r\n" } else { "" };
    let _ = stream.write_all(format!("\r\nfake guest\r\n{ready}# ").as_bytes());
    let reader = BufReader::new(stream.try_clone().unwrap());
    for line in reader.lines().map_while(Result::ok) {
        let output = Command::new("sh")
            .args(["-c", &format!("{COMMANDS}\n{line}")])
            .env("MEMORY", &*machine.memory.lock().unwrap())
            .env("IDENTITY", &*machine.identity.lock().unwrap())
            .env("DISK", machine.disks.lock().unwrap().get(1).map(Disk::word).unwrap_or_default())
            .output()
            .unwrap();
        for told in String::from_utf8_lossy(&output.stderr).lines() {
            match told.split_once(' ') {
                Some(("remember", word)) => word.clone_into(&mut machine.memory.lock().unwrap()),
                Some(("save", word)) => machine.disks.lock().unwrap()[1].set_word(word),
                _ => {}
            }
        }
        let shown = String::from_utf8_lossy(&output.stdout).replace('\n', "\r\n");
        if stream.write_all(format!("{line}\r\n{shown}# ").as_bytes()).is_err() {
            return;
        }
    }
}
