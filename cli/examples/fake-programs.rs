//! Stand-ins for `yunju-vmm`, `yunju-vnc-proxy` and `passt`, chosen by the name that this program is
//! called by: they keep to the interfaces of docs/architecture.md and have no guest.
//!
//! Words in the kernel command line make the machine misbehave: `fake=error`, `fake=crash`,
//! `fake=ignore-power`, `fake=mute` (no control socket). A file `kill-service-at-<name>` beside the
//! program makes it kill its parent, the service, as the first thing that it does.

// test support: what panics here fails a test
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use yunju_protocol::control::{MachineInfo, MachineState};
use yunju_protocol::machine::{Endpoint, MachineConfig, SerialConfig};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let name = Path::new(&arguments[0]).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let value = |flag: &str| arguments.iter().skip_while(|a| *a != flag).nth(1).cloned().unwrap_or_default();
    kill_service_if_told(Path::new(&arguments[0]), name);
    match name {
        "yunju-vmm" => vmm(Path::new(&value("--config"))),
        "yunju-vnc-proxy" => proxy(&value("--websocket")),
        "passt" => passt(value("--fd").parse().unwrap()),
        other => panic!("call this program yunju-vmm, yunju-vnc-proxy or passt, not {other}"),
    }
}

fn kill_service_if_told(program: &Path, name: &str) {
    let order = program.with_file_name(format!("kill-service-at-{name}"));
    if fs::remove_file(order).is_ok() {
        let service = rustix::process::getppid().unwrap();
        rustix::process::kill_process(service, rustix::process::Signal::KILL).unwrap();
    }
}

fn unix(endpoint: &Endpoint) -> PathBuf {
    match endpoint {
        Endpoint::Unix(path) => path.clone(),
        Endpoint::Fd(_) => panic!("expected a path"),
    }
}

fn end(reason: &str, code: i32) -> ! {
    eprintln!("yunju-vmm: {reason}");
    exit(code)
}

// the machine

fn vmm(config_path: &Path) {
    let config: MachineConfig = serde_json::from_slice(&fs::read(config_path).unwrap()).unwrap();
    let folder = config_path.parent().unwrap();
    let lock = File::create(folder.join("fake-vmm.lock")).unwrap();
    if lock.try_lock().is_err() {
        fs::write(folder.join("double-start"), "").unwrap();
        end("error: two machines of one desktop", 1);
    }
    for disk in &config.disks {
        File::options().read(true).write(!disk.readonly).open(&disk.path).unwrap();
    }
    let told = |word: &str| config.cmdline.split_whitespace().any(|option| option == word);
    if told("fake=error") {
        end("error: /dev/kvm: no such fake device", 1);
    }
    if let SerialConfig::Socket(endpoint) = &config.serial {
        let listener = UnixListener::bind(unix(endpoint)).unwrap();
        thread::spawn(move || listener.incoming().for_each(|stream| serial(stream.unwrap())));
    }
    if told("fake=crash") {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(600));
            end("machine ended: triple fault at 0xffffffff81000000", 3);
        });
    }
    if told("fake=mute") {
        thread::sleep(Duration::from_secs(600));
    }
    let started = Instant::now();
    for stream in UnixListener::bind(unix(config.control.as_ref().unwrap())).unwrap().incoming() {
        let _ = control(stream.unwrap(), &config, started, told("fake=ignore-power"));
    }
}

fn control(stream: UnixStream, config: &MachineConfig, started: Instant, deaf: bool) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::from("x");
    while !header.trim().is_empty() {
        header.clear();
        reader.read_line(&mut header)?;
    }
    let answer = |status: &str, kind: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        (&stream).write_all(&[head.as_bytes(), body].concat())
    };
    match request.trim_end().trim_end_matches(" HTTP/1.1") {
        "GET /machine" => {
            let info = MachineInfo {
                state: MachineState::Running,
                pid: std::process::id(),
                uptime_ms: u64::try_from(started.elapsed().as_millis()).unwrap(),
                resets: 0,
                memory: config.memory.0,
                cpus: config.cpus,
                screen: None,
            };
            answer("200 OK", "application/json", &serde_json::to_vec(&info)?)
        }
        "GET /machine/screenshot" => answer("200 OK", "image/png", &picture_png()),
        "POST /machine/power-button" => {
            answer("202 Accepted", "application/json", b"{}")?;
            if !deaf {
                thread::sleep(Duration::from_millis(100));
                end("machine ended: powered off by the guest", 0);
            }
            Ok(())
        }
        "POST /machine/kill" => {
            answer("202 Accepted", "application/json", b"{}")?;
            end("machine ended: killed by request", 0)
        }
        _ => answer("404 Not Found", "application/json", b"{\"error\":\"no such request\"}"),
    }
}

/// A shell that echoes what is typed, line by line.
fn serial(mut stream: UnixStream) {
    let _ = stream.write_all(b"\r\nfake guest\r\n# ");
    let reader = BufReader::new(stream.try_clone().unwrap());
    for line in reader.lines().map_while(Result::ok) {
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).replace('\n', "\r\n");
        if stream.write_all(format!("{line}\r\n{shown}# ").as_bytes()).is_err() {
            return;
        }
    }
}

// the picture

const WIDTH: u16 = 640;
const HEIGHT: u16 = 400;

/// A wallpaper, a window and a panel, in R, G, B.
fn pixel(x: u16, y: u16) -> [u8; 3] {
    let (across, down) = (u32::from(x) * 255 / u32::from(WIDTH), u32::from(y) * 255 / u32::from(HEIGHT));
    let byte = |value: u32| u8::try_from(value.min(255)).unwrap();
    match (x, y) {
        (_, 376..) => [24, 34, 44],
        (120..=520, 60..=78) => [45, 62, 78],
        (120..=520, 79..=320) => [246, 248, 250],
        _ => [byte(40 + down / 4), byte(90 + across / 4), byte(130 + down / 3)],
    }
}

fn picture_png() -> Vec<u8> {
    let rgb: Vec<u8> = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y))).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, WIDTH.into(), HEIGHT.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
    file
}

// the proxy

#[tokio::main(flavor = "current_thread")]
async fn proxy(websocket: &str) {
    let listener = tokio::net::UnixListener::bind(websocket.strip_prefix("unix:").unwrap()).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                let _ = viewer(socket).await;
            }
        });
    }
}

/// RFC 6143 as far as a viewer needs it to show one picture.
async fn viewer(
    mut socket: tokio_tungstenite::WebSocketStream<tokio::net::UnixStream>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut init = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
    init.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0, 0, 0, 0, 4]);
    init.extend(b"fake");
    // version, security types, security result, ServerInit; after each but the last the viewer speaks
    socket.send(Message::binary(b"RFB 003.008\n".to_vec())).await?;
    socket.next().await;
    socket.send(Message::binary(vec![1, 1])).await?;
    socket.next().await;
    socket.send(Message::binary(vec![0; 4])).await?;
    socket.next().await;
    socket.send(Message::binary(init)).await?;
    let mut shown = false;
    while let Some(message) = socket.next().await {
        if let Message::Binary(bytes) = message?
            && !shown
            && bytes.windows(10).any(|part| part[0] == 3 && part[1] == 0)
        {
            shown = true;
            let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0];
            update.extend([WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat());
            update.extend([0; 4]);
            update.extend(
                (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| [pixel(x, y).as_slice(), &[0]].concat())),
            );
            socket.send(Message::binary(update)).await?;
        }
    }
    Ok(())
}

// the network

fn passt(number: i32) {
    // SAFETY: the number is that of a descriptor which the parent handed down, and nothing else here uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = File::from(socket).read_to_end(&mut Vec::new());
}
