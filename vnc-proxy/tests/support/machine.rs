//! A machine that exists only as a display socket: what a guest's screen is to the proxy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use yunju_protocol::display::{Event, MAX_PACKET, Rect, Request, VERSION, receive, send};

/// A buffer that the guest draws in, shared with the proxy.
pub struct Buffer {
    /// Its name.
    pub id: u32,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    file: File,
}

impl Buffer {
    /// A black buffer.
    pub fn new(id: u32, width: u32, height: u32) -> Self {
        let fd = memfd_create("buffer", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory for a buffer");
        ftruncate(&fd, u64::from(width * height) * 4).expect("a buffer of that size");
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("a fresh memfd takes seals");
        Self { id, width, height, file: fd.into() }
    }

    /// Draws in a rectangle: `pixel(x, y)` is 0xRRGGBB.
    pub fn paint(&self, rect: Rect, pixel: impl Fn(u32, u32) -> u32) {
        for y in rect.y..rect.bottom() {
            let row: Vec<u8> = (rect.x..rect.right()).flat_map(|x| (pixel(x, y) | 0xff00_0000).to_le_bytes()).collect();
            self.file.write_all_at(&row, u64::from(y * self.width + rect.x) * 4).expect("a buffer can be written");
        }
    }

    /// Writes bytes of pixels to a row from (x, y) on.
    #[allow(dead_code, reason = "not each user of this module does")]
    pub fn write(&self, x: u32, y: u32, row: &[u8]) {
        self.file.write_all_at(row, u64::from(y * self.width + x) * 4).expect("a buffer can be written");
    }

    /// All of it.
    pub fn bounds(&self) -> Rect {
        Rect::of_size(self.width, self.height)
    }
}

/// A listening display socket.
pub struct Machine {
    listener: OwnedFd,
    path: PathBuf,
}

impl Machine {
    /// Listens at a path, replacing what is there.
    pub fn listen(path: &Path) -> Self {
        drop(std::fs::remove_file(path));
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        rustix::net::bind(&listener, &SocketAddrUnix::new(path).expect("a short path")).expect("a free path");
        rustix::net::listen(&listener, 4).expect("a bound socket listens");
        Self { listener, path: path.to_owned() }
    }

    /// Waits for a proxy and greets it.
    pub fn accept(&self) -> io::Result<Display> {
        let display = Display { socket: rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC)? };
        display.tell(&Event::Hello { version: VERSION })?;
        Ok(display)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// A proxy that is attached.
pub struct Display {
    socket: OwnedFd,
}

impl Display {
    /// Sends an event; an error means that the proxy has gone.
    pub fn tell(&self, event: &Event) -> io::Result<()> {
        send(&self.socket, event, None).map_err(io::Error::other)
    }

    /// Announces a buffer.
    pub fn announce(&self, buffer: &Buffer) -> io::Result<()> {
        let Buffer { id, width, height, .. } = *buffer;
        let event = Event::Buffer { id, width, height, stride: width * 4 };
        send(&self.socket, &event, Some(buffer.file.as_fd())).map_err(io::Error::other)
    }

    /// Shows all of a buffer, of which this may have changed.
    pub fn show(&self, buffer: &Buffer, damage: Rect) -> io::Result<()> {
        self.tell(&Event::Frame { buffer: buffer.id, area: buffer.bounds(), damage })
    }

    /// The next request, if one comes within a time; `Err` when the proxy has gone.
    pub fn request(&self, milliseconds: i64) -> io::Result<Option<Request>> {
        let timeout = Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
        if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout))? == 0 {
            return Ok(None);
        }
        match receive::<Request>(&self.socket, &mut vec![0; MAX_PACKET]) {
            Ok(Some((request, _))) => Ok(Some(request)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
