//! A client of the display protocol that keeps what it was told.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use yunju_protocol::display::{Event, MAX_PACKET, Rect, Request, VERSION, receive, send};

use crate::machine::{PATIENCE, eventually};

/// The pointer's picture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    pub width: u32,
    pub height: u32,
    pub hot: (u32, u32),
    pub pixels: Vec<u8>,
}

struct Buffer {
    file: File,
    stride: u32,
}

/// A connected client.
pub struct Viewer {
    socket: OwnedFd,
    packet: Vec<u8>,
    buffers: HashMap<u32, Buffer>,
    shown: Option<(u32, Rect)>,
    /// Whether it was told that the screen is off.
    pub blank: bool,
    /// Damage of the frames since the last [`Viewer::forget_damage`].
    pub damage: Vec<Rect>,
    pub cursor: Option<Cursor>,
    pub leds: Option<u8>,
    /// What was heard since it listens: times and samples.
    pub sound: Vec<(u64, Vec<u8>)>,
}

impl Viewer {
    /// Connects as soon as somebody listens, and hears the greeting.
    pub fn attach(path: &Path) -> Self {
        let address = SocketAddrUnix::new(path).expect("a path that fits");
        let complaint = || format!("nobody listens at {}", path.display());
        let socket = eventually(
            || {
                let flags = SocketFlags::CLOEXEC;
                let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
                connect(&socket, &address).ok().map(|()| socket)
            },
            complaint,
        );
        let mut viewer = Self {
            socket,
            packet: vec![0; MAX_PACKET],
            buffers: HashMap::new(),
            shown: None,
            blank: false,
            damage: Vec::new(),
            cursor: None,
            leds: None,
            sound: Vec::new(),
        };
        match viewer.next(PATIENCE) {
            Some(Event::Hello { version: VERSION }) => viewer,
            other => panic!("instead of a greeting: {other:?}"),
        }
    }

    /// The next event, if one comes in time. Panics when the machine has closed the socket.
    pub fn next(&mut self, patience: Duration) -> Option<Event> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let limit = Timespec::try_from(patience).expect("not that long");
        if poll(&mut fds, Some(&limit)).expect("a socket can be waited for") == 0 {
            return None;
        }
        let received = receive::<Event>(&self.socket, &mut self.packet).expect("a message");
        let (event, fd) = received.expect("the machine keeps the socket open");
        self.take(&event, fd);
        Some(event)
    }

    fn take(&mut self, event: &Event, fd: Option<OwnedFd>) {
        match event.clone() {
            Event::Hello { .. } => {}
            Event::Buffer { id, stride, height, .. } => {
                let file = File::from(fd.expect("a buffer comes with its memory"));
                let length = file.metadata().expect("a memfd").len();
                assert!(length >= u64::from(stride) * u64::from(height), "a buffer of {length} bytes");
                let fresh = self.buffers.insert(id, Buffer { file, stride }).is_none();
                assert!(fresh, "buffer {id} was announced twice");
            }
            Event::BufferGone { id } => {
                assert!(self.buffers.remove(&id).is_some(), "buffer {id} was never announced");
                assert!(self.shown.is_none_or(|(shown, _)| shown != id), "the buffer that is shown has gone");
            }
            Event::Frame { buffer, area, damage } => {
                assert!(self.buffers.contains_key(&buffer), "a frame of buffer {buffer}, which was not announced");
                let whole = Rect::of_size(area.width, area.height);
                assert_eq!(damage.intersection(&whole), damage, "damage outside the picture");
                self.shown = Some((buffer, area));
                self.blank = false;
                self.damage.push(damage);
            }
            Event::Blank => {
                self.shown = None;
                self.blank = true;
            }
            Event::Cursor { width, height, hot_x, hot_y, pixels } => {
                assert_eq!(pixels.len(), (width * height * 4) as usize, "a pointer of {width}x{height}");
                self.cursor = Some(Cursor { width, height, hot: (hot_x, hot_y), pixels });
            }
            Event::Leds { lit } => self.leds = Some(lit),
            Event::Sound { time, samples } => self.sound.push((time, samples)),
        }
    }

    /// Takes events until something holds.
    pub fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.next(left);
            assert!(event.is_some(), "{what}: does not come; shown {:?}, damage {:?}", self.shown, self.damage);
        }
    }

    /// Whether the machine has closed the socket, once all it said before is read.
    pub fn wait_for_close(&mut self) {
        eventually(
            || match receive::<Event>(&self.socket, &mut self.packet) {
                Ok(None) | Err(_) => Some(()),
                Ok(Some(_)) => None,
            },
            || "the machine keeps the socket open".into(),
        );
    }

    pub fn forget_damage(&mut self) {
        self.damage.clear();
    }

    /// The picture's size.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.shown.map(|(_, area)| (area.width, area.height))
    }

    /// A pixel of the picture: red, green, blue from the highest byte but one.
    pub fn pixel(&self, x: u32, y: u32) -> Option<u32> {
        let (buffer, area) = self.shown?;
        if x >= area.width || y >= area.height {
            return None;
        }
        let buffer = &self.buffers[&buffer];
        let offset = u64::from(area.y + y) * u64::from(buffer.stride) + u64::from(area.x + x) * 4;
        let mut bytes = [0; 4];
        buffer.file.read_exact_at(&mut bytes, offset).expect("pixels are within the buffer");
        Some(u32::from_le_bytes(bytes) & 0xff_ffff)
    }

    /// The whole picture, row by row.
    pub fn pixels(&self) -> Vec<u32> {
        let Some((buffer, area)) = self.shown else { return Vec::new() };
        let buffer = &self.buffers[&buffer];
        let mut row = vec![0; area.width as usize * 4];
        let mut pixels = Vec::with_capacity(area.area() as usize);
        for y in area.y..area.bottom() {
            let offset = u64::from(y) * u64::from(buffer.stride) + u64::from(area.x) * 4;
            buffer.file.read_exact_at(&mut row, offset).expect("rows are within the buffer");
            pixels.extend(row.chunks_exact(4).map(|p| u32::from_le_bytes([p[0], p[1], p[2], 0])));
        }
        pixels
    }

    /// Whether the buffer that is shown can be changed from here.
    pub fn can_write(&self) -> bool {
        let (buffer, _) = self.shown.expect("a picture is shown");
        let file = &self.buffers[&buffer].file;
        file.set_len(0).is_ok() || file.write_all_at(&[0x55; 4], 0).is_ok()
    }

    pub fn ask(&self, request: &Request) {
        send(&self.socket, request, None).expect("the machine listens");
    }

    /// Presses and releases a key.
    pub fn tap(&self, code: u16) {
        self.ask(&Request::Key { code, down: true });
        self.ask(&Request::Key { code, down: false });
    }

    /// Sends any bytes as a packet.
    pub fn send_bytes(&self, bytes: &[u8]) {
        rustix::io::write(&self.socket, bytes).expect("the machine listens");
    }
}
