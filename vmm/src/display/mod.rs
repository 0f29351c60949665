//! The screen, keyboard and pointer of a machine, and the clients that look at them.
//!
//! ```text
//! devices/virtio/gpu ── frame, cursor ──▶ ┌─────────┐ ◀── take ── display thread ── Event ──▶ clients
//!                    ◀── resized ──────── │ Display │
//! devices/virtio/input ◀── Events ─────── │         │ ◀────────── display thread ◀─ Request ─ clients
//! devices/virtio/snd ◀──── Sound ───────▶ └─────────┘
//! ```
//!
//! The devices only ever change the [`Scene`] under a lock held for an instant. The display thread tells
//! each client the difference between the scene and what that client was told last, as fast as the
//! client reads: a slow one skips what it missed, and nobody waits for it.
//!
//! The display belongs to the process and outlives a reset of the machine.

mod client;
mod screenshot;
mod server;
pub mod sound;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;
use yunju_protocol::display::Rect;

use self::sound::Sound;
use crate::devices::virtio::input::Events;
use crate::threads::{self, Kind};

/// Most clients at once; more are turned away.
pub const MAX_CLIENTS: usize = 32;

/// Least and most width and height that a client can ask for.
pub const WIDTH: (u32, u32) = (320, 7680);
/// See [`WIDTH`].
pub const HEIGHT: (u32, u32) = (200, 4320);

/// Stack of the display thread.
const STACK: usize = 256 * 1024;

/// Pixels that the guest draws: four bytes each, blue, green, red, unused.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// A sealed memfd of `stride * height` bytes or more.
    pub pixels: Arc<File>,
}

/// The pointer's picture; without pixels it is hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Pixels a row, at most [`yunju_protocol::display::MAX_CURSOR`].
    pub width: u32,
    /// Rows, likewise.
    pub height: u32,
    /// Column of the pixel that points.
    pub hot_x: u32,
    /// Row of the pixel that points.
    pub hot_y: u32,
    /// Blue, green, red and alpha (premultiplied) of each pixel.
    pub pixels: Vec<u8>,
}

/// The part of a buffer that is the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    buffer: u32,
    area: Rect,
}

/// All that a client can see. A clone costs a few counters.
#[derive(Clone, Default)]
struct Scene {
    buffers: Arc<BTreeMap<u32, Buffer>>,
    picture: Option<Shown>,
    cursor: Arc<Cursor>,
    leds: u8,
}

impl Scene {
    /// What is shown and its buffer.
    fn shown(&self) -> Option<(Shown, &Buffer)> {
        let shown = self.picture?;
        Some((shown, self.buffers.get(&shown.buffer)?))
    }
}

#[derive(Default)]
struct State {
    scene: Scene,
    /// What may have changed since the display thread last looked.
    damage: Rect,
    last_buffer: u32,
    preferred: (u32, u32),
}

/// A machine's screen and the way to its keyboard and pointer.
pub struct Display {
    state: Mutex<State>,
    keyboard: Arc<Events>,
    tablet: Arc<Events>,
    sound: Arc<Sound>,
    /// For the display thread: the scene is another.
    changed: EventFd,
    /// For the gpu: the preferred size is another.
    resized: EventFd,
    listening: AtomicBool,
    closing: AtomicBool,
    frames: AtomicU64,
    clients: AtomicU32,
}

impl Display {
    /// A dark screen that would like the guest to draw `width` by `height` pixels.
    pub fn new(width: u32, height: u32) -> io::Result<Arc<Self>> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let changed = event()?;
        Ok(Arc::new(Self {
            sound: Arc::new(Sound::new(changed.try_clone()?)),
            state: Mutex::new(State { preferred: within_limits(width, height), ..State::default() }),
            keyboard: Arc::new(Events::new()?),
            tablet: Arc::new(Events::new()?),
            changed,
            resized: event()?,
            listening: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            clients: AtomicU32::new(0),
        }))
    }

    /// Serves clients that connect to `listener`, a listening `SOCK_SEQPACKET` socket, on a thread of its
    /// own until [`Display::close`]. A display listens once.
    pub fn listen(self: &Arc<Self>, listener: OwnedFd) -> io::Result<JoinHandle<()>> {
        if self.listening.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the display listens already"));
        }
        rustix::io::ioctl_fionbio(&listener, true)?;
        let display = self.clone();
        threads::spawn(Kind::Display, "display", STACK, move || {
            if let Err(error) = server::serve(&display, &listener) {
                eprintln!("yunju-vmm: the display serves no more clients: {error}");
            }
        })
    }

    /// Ends the thread of [`Display::listen`] and with it every client's connection.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Carries out what a client has sent to `socket`, on the caller's thread: for fuzzing.
    #[doc(hidden)]
    pub fn hear(&self, socket: OwnedFd) {
        let mut client = client::Client::new(socket);
        let mut packet = vec![0; yunju_protocol::display::MAX_PACKET];
        while client.take_requests(self, &mut packet).is_ok() {}
        client.release(self);
    }

    /// What clients do on the keyboard.
    pub fn keyboard(&self) -> Arc<Events> {
        self.keyboard.clone()
    }

    /// What clients do with the pointer.
    pub fn tablet(&self) -> Arc<Events> {
        self.tablet.clone()
    }

    /// What the guest plays and records.
    pub fn sound(&self) -> Arc<Sound> {
        self.sound.clone()
    }

    /// The size that the guest is asked to draw in.
    pub fn preferred(&self) -> (u32, u32) {
        self.state().preferred
    }

    /// Signalled when [`Display::preferred`] changes.
    pub fn resized(&self) -> &EventFd {
        &self.resized
    }

    /// Asks the guest for another size, as near as the limits allow.
    pub fn resize(&self, width: u32, height: u32) {
        let size = within_limits(width, height);
        let before = std::mem::replace(&mut self.state().preferred, size);
        if before != size {
            // A full counter has already woken the gpu.
            let _ = self.resized.write(1);
        }
    }

    /// Adds a buffer and names it.
    pub fn add_buffer(&self, buffer: Buffer) -> u32 {
        let mut state = self.state();
        let mut id = state.last_buffer.wrapping_add(1);
        while state.scene.buffers.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        state.last_buffer = id;
        Arc::make_mut(&mut state.scene.buffers).insert(id, buffer);
        id
    }

    /// Takes a buffer away. If it is shown, the screen goes dark.
    pub fn remove_buffer(&self, id: u32) {
        let mut state = self.state();
        Arc::make_mut(&mut state.scene.buffers).remove(&id);
        state.scene.picture = state.scene.picture.filter(|shown| shown.buffer != id);
        drop(state);
        self.wake();
    }

    /// Shows `area` of a buffer. Nothing outside `damage`, relative to the area's corner, has changed.
    pub fn frame(&self, buffer: u32, area: Rect, damage: Rect) {
        let mut state = self.state();
        let whole = Rect::of_size(area.width, area.height);
        let same_size = state.scene.picture.is_some_and(|shown| size_of(shown.area) == size_of(area));
        state.damage = if same_size { state.damage.union(&damage) } else { whole };
        state.scene.picture = Some(Shown { buffer, area });
        drop(state);
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Turns the screen off.
    pub fn blank(&self) {
        self.change(|scene| scene.picture.take().is_some());
    }

    /// Changes the pointer's picture; the default one hides it.
    pub fn cursor(&self, cursor: Cursor) {
        self.change(|scene| {
            let new = *scene.cursor != cursor;
            if new {
                scene.cursor = Arc::new(cursor);
            }
            new
        });
    }

    /// Changes the lamps on the keyboard: bit 0 scroll lock, 1 num lock, 2 caps lock.
    pub fn leds(&self, lit: u8) {
        self.change(|scene| std::mem::replace(&mut scene.leds, lit) != lit);
    }

    /// The present picture's width and height; `None` while the screen is dark.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.state().scene.shown().map(|(shown, _)| size_of(shown.area))
    }

    /// The present picture as a PNG file; `None` while the screen is dark.
    pub fn screenshot(&self) -> Option<Vec<u8>> {
        let scene = self.state().scene.clone();
        let (shown, buffer) = scene.shown()?;
        screenshot::png(buffer, shown.area)
            .inspect_err(|error| eprintln!("yunju-vmm: taking a screenshot of {:?}: {error}", shown.area))
            .ok()
    }

    /// How many frames the guest has shown.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// How many clients are attached.
    pub fn clients(&self) -> u32 {
        self.clients.load(Ordering::Relaxed)
    }

    /// The scene, and what may have changed in the picture since the last call.
    fn take(&self) -> (Scene, Rect) {
        let mut state = self.state();
        (state.scene.clone(), std::mem::take(&mut state.damage))
    }

    fn change(&self, change: impl FnOnce(&mut Scene) -> bool) {
        let changed = change(&mut self.state().scene);
        if changed {
            self.wake();
        }
    }

    fn wake(&self) {
        // A full counter has already woken the thread.
        let _ = self.changed.write(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: a thread that panicked has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn within_limits(width: u32, height: u32) -> (u32, u32) {
    (width.clamp(WIDTH.0, WIDTH.1), height.clamp(HEIGHT.0, HEIGHT.1))
}

fn size_of(area: Rect) -> (u32, u32) {
    (area.width, area.height)
}
