//! Stand-ins for `yunju-vmm`, `yunju-vnc-proxy` and `passt`, chosen by the name that this program is
//! called by: they keep to the interfaces of docs/architecture.md and have no guest.
//!
//! Words in the kernel command line make the machine misbehave: `fake=error`, `fake=crash`,
//! `fake=ignore-power`, `fake=mute` (no control socket), `fake=burn` (busy for three seconds), `fake=ready` (says that its desktop is up). A file
//! `kill-service-at-<name>` beside the program makes it kill its parent, the service, as the first thing that it does,
//! or at `disk`, `snapshot-begin`, `snapshot-frozen`, `snapshot-written`. Others are `slow-snapshot`, `held-snapshot`
//! (as long as it is there), `full-disk`, `crash-in-snapshot` and `cannot-restore`; the length of `private-memory` is what a machine has written to, that of
//! `memory-padding` is added to the memory of its snapshots.

// test support: what panics here fails a test
#![allow(clippy::unwrap_used)]

mod disk;
mod machine;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::exit;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::Request;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let name = Path::new(&arguments[0]).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let value = |flag: &str| arguments.iter().skip_while(|a| *a != flag).nth(1).cloned().unwrap_or_default();
    if arguments.get(1).is_some_and(|word| word == "disk") {
        kill_service_if_told(Path::new(&arguments[0]), "disk");
    } else {
        kill_service_if_told(Path::new(&arguments[0]), name);
    }
    match name {
        "yunju-vmm" if arguments[1] == "disk" => disk::command(&arguments[2..]),
        "yunju-vmm" => machine::run(Path::new(&arguments[0]), Path::new(&value("--config"))),
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

fn end(reason: &str, code: i32) -> ! {
    eprintln!("yunju-vmm: {reason}");
    exit(code)
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
            let (mut path, mut said) = (String::new(), String::new());
            #[expect(clippy::result_large_err, reason = "the signature is the websocket library's")]
            let note = |request: &Request, response| {
                request.uri().path().clone_into(&mut path);
                let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
                said = format!("{path} {} {}", header("yunju-may"), header("yunju-name"));
                Ok(response)
            };
            let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
            if path == "/" {
                let _ = viewer(socket).await;
            } else {
                // nothing but which stream this is, what its viewer may, and who that is
                let _ = socket.send(Message::binary(said.into_bytes())).await;
                while let Some(Ok(_)) = socket.next().await {}
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
