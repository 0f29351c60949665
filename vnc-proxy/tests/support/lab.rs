//! A proxy between a machine and viewers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use yunju_vnc_proxy::io::Policy;
use yunju_vnc_proxy::{Config, Endpoint, Server};

use super::client::Client;
use super::machine::{Buffer, Display, Machine};

/// Size of the machine's first picture.
pub const SIZE: (u32, u32) = (300, 200);

/// A proxy between a machine and viewers.
pub struct Lab {
    folder: tempfile::TempDir,
    machine: Option<Machine>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Lab {
    pub fn without_machine() -> Self {
        Self::with_policy(Policy::default())
    }

    /// Without a machine, where what is copied goes only so.
    pub fn with_policy(clipboard: Policy) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| vec![Endpoint::Unix(folder.path().join(name))];
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let config = Config {
            display: folder.path().join("display"),
            websocket: at("websocket"),
            rfb: at("rfb"),
            name: "the desktop 桌面".into(),
            agent: Some(Endpoint::Unix(folder.path().join("agent"))),
            clipboard,
        };
        let server = runtime.block_on(async { Server::bind(config) }).expect("free paths");
        runtime.spawn(server.run());
        Self { folder, machine: None, runtime: Some(runtime) }
    }

    /// With a machine that shows a picture of [`SIZE`].
    pub fn new() -> (Self, Display, Buffer) {
        let mut lab = Self::without_machine();
        let (display, buffer) = lab.start_machine();
        (lab, display, buffer)
    }

    pub fn start_machine(&mut self) -> (Display, Buffer) {
        self.machine = None;
        let machine = self.machine.insert(Machine::listen(&self.folder.path().join("display")));
        let display = machine.accept().expect("the proxy connects");
        let buffer = Buffer::new(1, SIZE.0, SIZE.1);
        buffer.paint(buffer.bounds(), test_picture);
        display.announce(&buffer).expect("the proxy listens");
        display.show(&buffer, buffer.bounds()).expect("the proxy listens");
        (display, buffer)
    }

    /// Ends the machine, if the proxy's connection to it is gone too.
    pub fn stop_machine(&mut self) {
        self.machine = None;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A plain viewer that sees the machine's picture.
    pub fn viewer(&self, encodings: &[i32]) -> Client {
        let mut client =
            eventually(|| Client::plain(&self.path("rfb")).ok().filter(|client| client.screen.width == SIZE.0));
        client.set_encodings(encodings);
        client.request(false);
        client
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.runtime.take().expect("taken once").shutdown_background();
    }
}

pub fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn test_picture(x: u32, y: u32) -> u32 {
    if x < 150 { x << 16 | y << 8 | (x ^ y) } else { (x / 40 * 0x30) << 8 | 0x20 }
}
