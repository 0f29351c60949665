//! The connection to the compositor: its clipboard (wlr-data-control), a keyboard for typed text
//! (virtual-keyboard), and its process, which reads its settings again when told.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};
use wayland_client::globals::{BindError, GlobalError, GlobalListContents, registry_queue_init};
use wayland_client::protocol::wl_keyboard::KeymapFormat;
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_seat::{self, WlSeat};
use wayland_client::{Connection, Dispatch, EventQueue, Proxy, QueueHandle, event_created_child};
use wayland_protocols_misc::zwp_virtual_keyboard_v1::client::zwp_virtual_keyboard_manager_v1::{
    self, ZwpVirtualKeyboardManagerV1,
};
use wayland_protocols_misc::zwp_virtual_keyboard_v1::client::zwp_virtual_keyboard_v1::{self, ZwpVirtualKeyboardV1};
use wayland_protocols_wlr::data_control::v1::client::zwlr_data_control_device_v1::{self, ZwlrDataControlDeviceV1};
use wayland_protocols_wlr::data_control::v1::client::zwlr_data_control_manager_v1::{self, ZwlrDataControlManagerV1};
use wayland_protocols_wlr::data_control::v1::client::zwlr_data_control_offer_v1::{self, ZwlrDataControlOfferV1};
use wayland_protocols_wlr::data_control::v1::client::zwlr_data_control_source_v1::{self, ZwlrDataControlSourceV1};

use super::host::Host;
use super::protocol::{FromSeat, Kind, Layout, ToSeat};
use super::typing::{self, Piece};
use super::{layout, pipe};

/// Marks what the host put into the clipboard, so that it is not told of it.
const OURS: &str = "application/x-yunju";

/// What a clip is offered as, the best first.
const fn types(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text => &["text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "TEXT", "STRING"],
        Kind::Png => &["image/png"],
    }
}

/// An offer's types beyond this many are not looked at.
const MOST_TYPES: usize = 128;

/// What is wrong with the desktop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connecting to {}: {error}", path.display())]
    Connect { path: PathBuf, error: io::Error },
    #[error("speaking to the compositor: {0}")]
    Wayland(String),
    #[error("the compositor has no {0}")]
    Lacks(&'static str),
    #[error("text that is no UTF-8")]
    Text,
    #[error("a clip of {0} bytes that is not what it says")]
    Clip(usize),
    #[error("{doing}: {error}")]
    Io { doing: &'static str, error: io::Error },
}

fn doing<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Io { doing, error: error.into() }
}

/// A running desktop.
pub struct Desktop {
    /// Where to say what happens in it.
    pub host: Arc<Host>,
    there: Arc<AtomicBool>,
    connection: Connection,
    handle: QueueHandle<Ear>,
    clipboard: Option<(ZwlrDataControlManagerV1, ZwlrDataControlDeviceV1)>,
    keyboard: Option<Mutex<Keyboard>>,
    compositor: Pid,
}

/// A keyboard of ours, and its clock in milliseconds.
struct Keyboard {
    device: ZwpVirtualKeyboardV1,
    now: u32,
}

impl Desktop {
    /// Connects to the compositor that listens at `path`, and hears it on a thread of its own.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Connect { path: path.to_owned(), error };
        let stream = UnixStream::connect(path).map_err(failed)?;
        // Who listens on the socket is the compositor.
        let compositor = rustix::net::sockopt::socket_peercred(&stream).map_err(|error| failed(error.into()))?.pid;
        let wayland = |error: &dyn std::fmt::Display| Error::Wayland(error.to_string());
        let connection = Connection::from_socket(stream).map_err(|error| wayland(&error))?;
        let (globals, queue) = registry_queue_init::<Ear>(&connection).map_err(|error: GlobalError| wayland(&error))?;
        let handle = queue.handle();
        let seat: WlSeat = globals.bind(&handle, 1..=1, ()).map_err(|_: BindError| Error::Lacks("seat"))?;
        let host = Arc::new(Host::default());
        let clipboard = globals.bind::<ZwlrDataControlManagerV1, _, _>(&handle, 1..=2, ()).ok();
        let clipboard = clipboard.map(|manager| {
            let device = manager.get_data_device(&seat, &handle, ());
            (manager, device)
        });
        let keyboard = globals.bind::<ZwpVirtualKeyboardManagerV1, _, _>(&handle, 1..=1, ()).ok();
        let keyboard = keyboard.map(|manager| {
            Mutex::new(Keyboard { device: manager.create_virtual_keyboard(&seat, &handle, ()), now: 0 })
        });
        connection.flush().map_err(|error| wayland(&error))?;
        let there = Arc::new(AtomicBool::new(true));
        let ear = Ear { host: host.clone(), connection: connection.clone(), first: true, newest: Arc::default() };
        let listening = there.clone();
        thread::spawn(move || ear.listen(queue, &listening));
        Ok(Self { host, there, connection, handle, clipboard, keyboard, compositor })
    }

    /// Whether it still runs.
    pub fn is_there(&self) -> bool {
        self.there.load(Ordering::SeqCst)
    }

    /// Whether it has a clipboard, and whether text can be typed.
    pub fn abilities(&self) -> (bool, bool) {
        (self.clipboard.is_some(), self.keyboard.is_some())
    }

    /// Does what the proxy asks for.
    pub fn obey(&self, head: ToSeat, body: &[u8]) -> Result<(), Error> {
        match head {
            ToSeat::Clip { kind, .. } => self.set_clipboard(kind, body),
            ToSeat::Type { .. } => self.type_text(std::str::from_utf8(body).map_err(|_| Error::Text)?),
            ToSeat::Layout(layout) => self.set_layout(layout),
        }
    }

    fn set_clipboard(&self, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        if !kind.fits(bytes) {
            return Err(Error::Clip(bytes.len()));
        }
        let (manager, device) = self.clipboard.as_ref().ok_or(Error::Lacks("clipboard that others can set"))?;
        let source = manager.create_data_source(&self.handle, Arc::from(bytes));
        for name in types(kind) {
            source.offer((*name).to_owned());
        }
        source.offer(OURS.to_owned());
        device.set_selection(Some(&source));
        // When this returns a key that pastes finds it.
        self.connection.roundtrip().map_err(|error| Error::Wayland(error.to_string()))?;
        self.host.say(&FromSeat::Taken, b"").map_err(doing("telling the proxy"))
    }

    fn type_text(&self, text: &str) -> Result<(), Error> {
        let keyboard = self.keyboard.as_ref().ok_or(Error::Lacks("keyboard for others"))?;
        let mut keyboard = keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in typing::pieces(text) {
            keyboard.press(&piece)?;
            self.flush()?;
        }
        drop(keyboard);
        // When this returns the program with the focus has been sent it all, and keys that come now come after it.
        self.connection.roundtrip().map_err(|error| Error::Wayland(error.to_string()))?;
        self.host.say(&FromSeat::Typed, b"").map_err(doing("telling the proxy"))
    }

    fn set_layout(&self, layout: Layout) -> Result<(), Error> {
        let home = std::env::home_dir().unwrap_or_default();
        if layout::write(&home, &layout).map_err(doing("writing the keyboard's layout"))? {
            rustix::process::kill_process(self.compositor, Signal::HUP).map_err(doing("telling the compositor"))?;
        }
        self.host.say(&FromSeat::Layout(layout), b"").map_err(doing("telling the proxy"))
    }

    fn flush(&self) -> Result<(), Error> {
        self.connection.flush().map_err(|error| Error::Wayland(error.to_string()))
    }
}

impl Keyboard {
    fn press(&mut self, piece: &Piece) -> Result<(), Error> {
        let text = [piece.keymap.as_bytes(), b"\0"].concat();
        let file = rustix::fs::memfd_create("keymap", MemfdFlags::CLOEXEC).map_err(doing("making a keymap"))?;
        let mut rest = &text[..];
        while !rest.is_empty() {
            let count = rustix::io::write(&file, rest).map_err(doing("writing a keymap"))?;
            rest = &rest[count..];
        }
        // A text of 16 KiB at most makes a keymap far below 4 GiB.
        self.device.keymap(KeymapFormat::XkbV1.into(), file.as_fd(), text.len() as u32);
        self.device.modifiers(0, 0, 0, 0);
        for code in &piece.keys {
            for state in [1, 0] {
                self.now = self.now.wrapping_add(1);
                self.device.key(self.now, *code, state);
            }
        }
        Ok(())
    }
}

/// Hears the compositor.
struct Ear {
    host: Arc<Host>,
    connection: Connection,
    /// What was in the clipboard before is nothing new.
    first: bool,
    /// Counts what was copied: a transfer of something older ends.
    newest: Arc<AtomicU64>,
}

/// The types of what somebody has copied.
type Types = Mutex<Vec<String>>;

impl Ear {
    fn listen(mut self, mut queue: EventQueue<Self>, there: &AtomicBool) {
        let error = loop {
            if let Err(error) = queue.blocking_dispatch(&mut self) {
                break error;
            }
        };
        eprintln!("yunju-agent: the desktop is gone: {error}");
        there.store(false, Ordering::SeqCst);
        self.host.hang_up();
    }

    /// Fetches what was copied and says it to the host.
    fn on_selection(&mut self, offer: ZwlrDataControlOfferV1) {
        let number = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let first = std::mem::take(&mut self.first);
        let chosen =
            offer.data::<Types>().and_then(|types| choose(&types.lock().unwrap_or_else(PoisonError::into_inner)));
        let Some((kind, name)) = chosen.filter(|_| !first) else { return offer.destroy() };
        let Ok((reader, writer)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
            return offer.destroy();
        };
        offer.receive(name, writer.as_fd());
        offer.destroy();
        // An error shows again where events are awaited.
        let _ = self.connection.flush();
        drop(writer);
        let (host, newest) = (self.host.clone(), self.newest.clone());
        thread::spawn(move || {
            let wanted = || newest.load(Ordering::SeqCst) == number;
            let told = pipe::read(reader, kind.limit() as usize, wanted).and_then(|bytes| {
                if bytes.is_empty() || !kind.fits(&bytes) || !wanted() {
                    return Ok(());
                }
                host.say(&FromSeat::Clip { kind, length: bytes.len() as u32 }, &bytes)
            });
            if let Err(error) = told {
                eprintln!("yunju-agent: what was copied does not reach the host: {error}");
            }
        });
    }
}

/// In what form to fetch what is offered; none if it is ours, or nothing that the host takes.
fn choose(offered: &[String]) -> Option<(Kind, String)> {
    if offered.iter().any(|name| name == OURS) {
        return None;
    }
    [Kind::Text, Kind::Png].into_iter().find_map(|kind| {
        let name = types(kind).iter().find(|name| offered.iter().any(|offered| offered == *name))?;
        Some((kind, (*name).to_owned()))
    })
}

impl Dispatch<ZwlrDataControlDeviceV1, ()> for Ear {
    fn event(
        ear: &mut Self,
        _: &ZwlrDataControlDeviceV1,
        event: zwlr_data_control_device_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use zwlr_data_control_device_v1::Event;
        match event {
            Event::Selection { id: Some(offer) } => ear.on_selection(offer),
            Event::Selection { id: None } => ear.first = false,
            Event::PrimarySelection { id: Some(offer) } => offer.destroy(),
            // The types of an offer come after it and before the selection that it is for.
            _ => {}
        }
    }

    event_created_child!(Self, ZwlrDataControlDeviceV1, [
        zwlr_data_control_device_v1::EVT_DATA_OFFER_OPCODE => (ZwlrDataControlOfferV1, Types::default()),
    ]);
}

impl Dispatch<ZwlrDataControlOfferV1, Types> for Ear {
    fn event(
        _: &mut Self,
        _: &ZwlrDataControlOfferV1,
        event: zwlr_data_control_offer_v1::Event,
        types: &Types,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let zwlr_data_control_offer_v1::Event::Offer { mime_type } = event {
            let mut types = types.lock().unwrap_or_else(PoisonError::into_inner);
            if types.len() < MOST_TYPES {
                types.push(mime_type);
            }
        }
    }
}

impl Dispatch<ZwlrDataControlSourceV1, Arc<[u8]>> for Ear {
    fn event(
        _: &mut Self,
        source: &ZwlrDataControlSourceV1,
        event: zwlr_data_control_source_v1::Event,
        bytes: &Arc<[u8]>,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            zwlr_data_control_source_v1::Event::Send { mime_type, fd } => give(&mime_type, fd, bytes.clone()),
            zwlr_data_control_source_v1::Event::Cancelled => source.destroy(),
            _ => {}
        }
    }
}

/// Gives a clip to a program that pastes it.
fn give(name: &str, to: OwnedFd, bytes: Arc<[u8]>) {
    if name != OURS {
        thread::spawn(move || {
            if let Err(error) = pipe::write(to, &bytes) {
                eprintln!("yunju-agent: a program does not take what it pastes: {error}");
            }
        });
    }
}

/// Objects that say nothing we would have to know.
macro_rules! quiet {
    ($($interface:ty, $event:ty, $data:ty);* $(;)?) => { $(
        impl Dispatch<$interface, $data> for Ear {
            fn event(_: &mut Self, _: &$interface, _: $event, _: &$data, _: &Connection, _: &QueueHandle<Self>) {}
        }
    )* };
}

quiet! {
    WlRegistry, wl_registry::Event, GlobalListContents;
    WlSeat, wl_seat::Event, ();
    ZwlrDataControlManagerV1, zwlr_data_control_manager_v1::Event, ();
    ZwpVirtualKeyboardManagerV1, zwp_virtual_keyboard_manager_v1::Event, ();
    ZwpVirtualKeyboardV1, zwp_virtual_keyboard_v1::Event, ();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offered: &[&str]) -> Option<(Kind, String)> {
        choose(&offered.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn text_is_fetched_before_pictures_and_in_the_best_form() {
        let text = |name: &str| Some((Kind::Text, name.to_owned()));
        assert_eq!(chosen(&["image/png", "text/plain", "text/plain;charset=utf-8"]), text("text/plain;charset=utf-8"));
        assert_eq!(chosen(&["STRING"]), text("STRING"));
        assert_eq!(chosen(&["text/html", "image/png"]), Some((Kind::Png, "image/png".to_owned())));
    }

    #[test]
    fn what_the_host_put_there_and_what_it_does_not_take_is_not_fetched() {
        assert_eq!(chosen(&["text/plain", OURS]), None);
        assert_eq!(chosen(&["application/x-kde-cutselection", "text/html"]), None);
        assert_eq!(chosen(&[]), None);
    }
}
