//! A display with its socket, and a client, for tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use tempfile::TempDir;
use yunju_protocol::display::{Event, MAX_PACKET, Rect, Request, VERSION, receive, send};

use super::Display;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A display that listens.
pub struct Stage {
    pub display: Arc<Display>,
    folder: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Stage {
    pub fn new(width: u32, height: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let display = Display::new(width, height).unwrap();
        let listener = seqpacket();
        bind(&listener, &SocketAddrUnix::new(folder.path().join("socket")).unwrap()).unwrap();
        listen(&listener, 64).unwrap();
        let thread = display.listen(listener).unwrap();
        Self { display, folder, thread: Some(thread) }
    }

    /// A client that has read nothing yet.
    pub fn client(&self) -> Client {
        let socket = seqpacket();
        connect(&socket, &SocketAddrUnix::new(self.folder.path().join("socket")).unwrap()).unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
        Client { socket, packet: vec![0; MAX_PACKET], buffers: BTreeMap::new() }
    }

    /// A client that has been told of a dark screen, no pointer and no lamps.
    pub fn greeted_client(&self) -> Client {
        let mut client = self.client();
        let hidden = Event::Cursor { width: 0, height: 0, hot_x: 0, hot_y: 0, pixels: Vec::new() };
        for event in [Event::Hello { version: VERSION }, Event::Blank, hidden, Event::Leds { lit: 0 }] {
            assert_eq!(client.next(), Some(event));
        }
        client
    }

    /// Waits until something is so.
    pub fn until(&self, mut what: impl FnMut(&Display) -> bool) {
        let start = std::time::Instant::now();
        while !what(&self.display) {
            assert!(start.elapsed() < PATIENCE, "it did not come to be");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.display.close();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A display client that keeps the descriptors of buffers.
pub struct Client {
    pub socket: OwnedFd,
    packet: Vec<u8>,
    pub buffers: BTreeMap<u32, (File, u32)>,
}

impl Client {
    /// The next event, or `None` when the machine has closed the connection.
    pub fn next(&mut self) -> Option<Event> {
        let (event, fd) = receive::<Event>(&self.socket, &mut self.packet).unwrap()?;
        match event {
            Event::Buffer { id, stride, .. } => {
                assert!(self.buffers.insert(id, (fd.unwrap().into(), stride)).is_none(), "buffer {id} came twice");
            }
            Event::BufferGone { id } => assert!(self.buffers.remove(&id).is_some(), "buffer {id} never came"),
            Event::Frame { buffer, .. } => assert!(self.buffers.contains_key(&buffer), "buffer {buffer} never came"),
            _ => {}
        }
        Some(event)
    }

    /// The next event, which must be a frame: buffer, area, damage.
    pub fn frame(&mut self) -> (u32, Rect, Rect) {
        match self.next() {
            Some(Event::Frame { buffer, area, damage }) => (buffer, area, damage),
            event => panic!("{event:?} is no frame"),
        }
    }

    /// The next two events, which must be a buffer and a frame of it.
    pub fn first_frame(&mut self) -> (u32, Rect, Rect) {
        let event = self.next();
        assert!(matches!(event, Some(Event::Buffer { .. })), "{event:?}");
        self.frame()
    }

    /// The pixel of a buffer.
    pub fn pixel(&self, buffer: u32, x: u32, y: u32) -> [u8; 4] {
        let (file, stride) = &self.buffers[&buffer];
        let mut pixel = [0; 4];
        file.read_exact_at(&mut pixel, u64::from(y * stride + x * 4)).unwrap();
        pixel
    }

    pub fn ask(&self, request: &Request) {
        send(&self.socket, request, None).unwrap();
    }
}
