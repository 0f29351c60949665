//! The machine's display socket: attaching, buffers and frames in, input out.

mod buffers;
mod mapping;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tracing::{debug, info, warn};
use yunju_protocol::display::{self, Event, MAX_CURSOR, MAX_PACKET, MAX_SOUND, Request, SOUND_FRAME, VERSION};

use self::buffers::Buffers;
use crate::audio::Sound;
use crate::screen::{Cursor, Screen};

/// Requests to the machine that may wait.
pub const INPUT_QUEUE: usize = 256;

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Why a machine was given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be connected to.
    #[error("cannot connect to {path}: {error}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: rustix::io::Errno,
    },
    /// The socket failed or the machine sent what is no message.
    #[error(transparent)]
    Socket(#[from] display::Error),
    /// The machine speaks another version.
    #[error("the machine's first message is {0:?}, not the greeting of version {VERSION}; use a matching yunju-vmm")]
    Greeting(Event),
    /// A buffer or a frame that cannot be.
    #[error(transparent)]
    Buffer(#[from] buffers::Error),
    /// A cursor that cannot be.
    #[error("the machine sent a cursor of {width}x{height} pixels in {bytes} bytes (at most {MAX_CURSOR} a side)")]
    Cursor {
        /// Said width.
        width: u32,
        /// Said height.
        height: u32,
        /// Bytes that came.
        bytes: usize,
    },
    /// Sound that cannot be.
    #[error(
        "the machine sent {bytes} bytes of sound; whole frames of {SOUND_FRAME} bytes, at most {MAX_SOUND}, can be heard"
    )]
    Sound {
        /// Bytes that came.
        bytes: usize,
    },
}

/// Shows the machine at `path` on `screen` and passes `input` to it, for ever: waits until the socket appears, and
/// again when the machine ends.
pub async fn follow(path: PathBuf, screen: Arc<Screen>, sound: Arc<Sound>, mut input: mpsc::Receiver<Request>) {
    let mut wait = FIRST_RETRY;
    loop {
        let mut greeted = false;
        match connect(&path) {
            Err(error) => debug!("{error}"),
            Ok(socket) => {
                let since = Instant::now();
                let ended = attend(&socket, (&screen, &sound), &mut input, &mut greeted).await;
                match &ended {
                    Ok(()) => info!("the machine has closed its display"),
                    Err(error) => warn!("the machine's display is given up: {error}"),
                }
                // One that is wrong from the start is tried ever less often, any other at once.
                if ended.is_ok() || since.elapsed() > 10 * LAST_RETRY {
                    wait = FIRST_RETRY;
                }
            }
        }
        if greeted {
            screen.blank();
            screen.set_cursor(None);
        }
        // Input meant for a machine that is not there is not kept for the next one.
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => break,
                request = input.recv() => if request.is_none() { return },
            }
        }
        wait = (wait * 2).min(LAST_RETRY);
    }
}

fn connect(path: &Path) -> Result<AsyncFd<OwnedFd>, Error> {
    let failed = |error| Error::Connect { path: path.to_owned(), error };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    rustix::net::connect(&socket, &address).map_err(failed)?;
    // SAFETY: an `OwnedFd` names the same open socket until it is dropped, and the `AsyncFd` owns it until then.
    let socket = unsafe { AsyncFd::register(socket) };
    Ok(socket.map_err(|error| display::Error::from(std::io::Error::from(error)))?)
}

async fn attend(
    socket: &AsyncFd<OwnedFd>,
    (screen, sound): (&Screen, &Sound),
    input: &mut mpsc::Receiver<Request>,
    greeted: &mut bool,
) -> Result<(), Error> {
    let mut machine = Machine { screen, sound, buffers: Buffers::default(), greeted };
    let (mut listeners, mut listens) = (sound.listeners(), false);
    listeners.mark_changed();
    let mut packet = vec![0; MAX_PACKET];
    let mut unsent = None;
    loop {
        tokio::select! {
            ready = socket.readable() => {
                let mut ready = ready.map_err(display::Error::from)?;
                match display::receive(socket.get_ref(), &mut packet) {
                    Ok(None) => return Ok(()),
                    Ok(Some((event, fd))) => machine.on_event(event, fd)?,
                    Err(error) if error.would_block() => ready.clear_ready(),
                    Err(error) => return Err(error.into()),
                }
            }
            request = input.recv(), if unsent.is_none() => match request {
                None => return Ok(()),
                Some(request) => unsent = send(socket, request)?,
            },
            // The counter is the sound's, which is borrowed here.
            _ = listeners.changed(), if unsent.is_none() => {
                let on = *listeners.borrow_and_update() > 0;
                if std::mem::replace(&mut listens, on) != on {
                    unsent = send(socket, Request::Listen { on })?;
                }
            }
            ready = socket.writable(), if unsent.is_some() => {
                ready.map_err(display::Error::from)?.clear_ready();
                if let Some(request) = unsent.take() {
                    unsent = send(socket, request)?;
                }
            }
        }
    }
}

/// Sends a request, or gives it back if the machine's queue is full.
fn send(socket: &AsyncFd<OwnedFd>, request: Request) -> Result<Option<Request>, Error> {
    match display::send(socket.get_ref(), &request, None) {
        Ok(()) => Ok(None),
        Err(error) if error.would_block() => Ok(Some(request)),
        Err(error) => Err(error.into()),
    }
}

/// Shows what a machine says until it says what cannot be, on the caller's thread: for fuzzing.
#[doc(hidden)]
pub fn replay(screen: &Screen, events: impl Iterator<Item = (Event, Option<OwnedFd>)>) -> Result<(), Error> {
    let sound = Sound::default();
    let mut machine = Machine { screen, sound: &sound, buffers: Buffers::default(), greeted: &mut false };
    events.into_iter().try_for_each(|(event, fd)| machine.on_event(event, fd))
}

struct Machine<'a> {
    screen: &'a Screen,
    sound: &'a Sound,
    buffers: Buffers,
    greeted: &'a mut bool,
}

impl Machine<'_> {
    fn on_event(&mut self, event: Event, fd: Option<OwnedFd>) -> Result<(), Error> {
        match event {
            Event::Hello { version: VERSION } if !*self.greeted => {
                info!("attached to the machine's display");
                *self.greeted = true;
            }
            other if !*self.greeted => return Err(Error::Greeting(other)),
            Event::Hello { .. } => return Err(Error::Greeting(event)),
            Event::Buffer { id, width, height, stride } => self.buffers.insert(id, width, height, stride, fd)?,
            Event::BufferGone { id } => self.buffers.remove(id)?,
            Event::Frame { buffer, area, damage } => {
                let source = self.buffers.frame(buffer, area)?;
                let show = || self.screen.show((area.width, area.height), damage, |x, y, row| source.read(x, y, row));
                // Comparing a whole frame takes milliseconds: let the runtime move its other tasks away.
                if damage.area() > 256 * 256 { block_in_place(show) } else { show() }
            }
            Event::Blank => self.screen.blank(),
            Event::Cursor { width, height, hot_x, hot_y, pixels } => {
                let sound = width <= MAX_CURSOR && height <= MAX_CURSOR;
                if !sound || pixels.len() != width as usize * height as usize * 4 {
                    return Err(Error::Cursor { width, height, bytes: pixels.len() });
                }
                let hot = (hot_x.min(width.saturating_sub(1)), hot_y.min(height.saturating_sub(1)));
                self.screen.set_cursor(Some(Cursor { width, height, hot, pixels }));
            }
            Event::Leds { lit } => self.screen.set_leds(lit & 7),
            Event::Sound { samples, .. } if samples.len() > MAX_SOUND || !samples.len().is_multiple_of(SOUND_FRAME) => {
                return Err(Error::Sound { bytes: samples.len() });
            }
            Event::Sound { time, samples } => self.sound.heard(time, &samples),
        }
        Ok(())
    }
}
