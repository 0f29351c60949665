//! One client: what it was told, and what it holds down.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use yunju_protocol::display::{
    Error, Event, MAX_MICROPHONE, MICROPHONE_FRAME, POINTER_MAX, Rect, Request, VERSION, receive, send,
};

use super::sound::{Piece, Sound};
use super::{Cursor, Display, Scene, Shown, size_of};
use crate::devices::virtio::input::{self, InputEvent};

/// Most requests taken from one client before the others have their turn.
const TURN: usize = 64;

/// The buttons of [`Request::Pointer`], from bit 0.
const BUTTONS: [u16; 5] = [input::BTN_LEFT, input::BTN_MIDDLE, input::BTN_RIGHT, input::BTN_SIDE, input::BTN_EXTRA];

/// Why a client is a client no more.
#[derive(Debug, thiserror::Error)]
pub enum Parting {
    /// It closed its socket.
    #[error("it left")]
    Left,
    /// Its socket failed, or it sent something that is no message.
    #[error(transparent)]
    Socket(Error),
    /// It asked for something that does not exist.
    #[error("it sent {0:?}, which is out of range")]
    OutOfRange(Request),
}

impl From<Error> for Parting {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Self::Left
            }
            error => Self::Socket(error),
        }
    }
}

/// A connected client.
pub struct Client {
    socket: OwnedFd,
    /// Whether the socket took no more.
    blocked: bool,
    greeted: bool,
    /// The picture it was told of last: nothing yet, none, or one.
    picture: Option<Option<Shown>>,
    /// What may have changed since then.
    damage: Rect,
    buffers: BTreeSet<u32>,
    cursor: Option<Arc<Cursor>>,
    /// The next piece of sound, if it listens.
    listens: Option<u64>,
    leds: Option<u8>,
    keys: BTreeSet<u16>,
    buttons: u8,
    /// Of the wheel's two axes, what makes no whole click yet.
    rest: (i32, i32),
}

impl Client {
    /// A client on a connected, non-blocking socket that knows nothing yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            blocked: false,
            greeted: false,
            picture: None,
            damage: Rect::default(),
            buffers: BTreeSet::new(),
            cursor: None,
            listens: None,
            leds: None,
            keys: BTreeSet::new(),
            buttons: 0,
            rest: (0, 0),
        }
    }

    /// The client's socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether there is more to tell once the socket takes it.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Remembers that part of the picture may have changed.
    pub fn damage(&mut self, damage: &Rect) {
        self.damage = self.damage.union(damage);
    }

    /// Tells what is different from what was told last, or as much as the socket takes.
    pub fn update(&mut self, scene: &Scene, sound: &Sound) -> Result<(), Parting> {
        match self.tell(scene, sound) {
            Err(error) if error.would_block() => self.blocked = true,
            outcome => {
                self.blocked = false;
                outcome?;
            }
        }
        Ok(())
    }

    /// Each step is remembered when it has been sent, so that the next call goes on where this one stops.
    fn tell(&mut self, scene: &Scene, sound: &Sound) -> Result<(), Error> {
        if !self.greeted {
            self.send(&Event::Hello { version: VERSION })?;
            self.greeted = true;
        }
        // First, as it is small and cannot be made up for.
        while let Some((number, Piece { time, samples })) = self.listens.and_then(|next| sound.piece(next)) {
            self.send(&Event::Sound { time, samples })?;
            self.listens = Some(number + 1);
        }
        self.tell_picture(scene)?;
        let gone: Vec<u32> = self.buffers.iter().filter(|id| !scene.buffers.contains_key(id)).copied().collect();
        for id in gone {
            self.send(&Event::BufferGone { id })?;
            self.buffers.remove(&id);
        }
        if !self.cursor.as_ref().is_some_and(|told| Arc::ptr_eq(told, &scene.cursor)) {
            let Cursor { width, height, hot_x, hot_y, pixels } = scene.cursor.as_ref().clone();
            self.send(&Event::Cursor { width, height, hot_x, hot_y, pixels })?;
            self.cursor = Some(scene.cursor.clone());
        }
        if self.leds != Some(scene.leds) {
            self.send(&Event::Leds { lit: scene.leds })?;
            self.leds = Some(scene.leds);
        }
        Ok(())
    }

    fn tell_picture(&mut self, scene: &Scene) -> Result<(), Error> {
        let Some((shown, buffer)) = scene.shown() else {
            if self.picture != Some(None) {
                self.send(&Event::Blank)?;
                self.picture = Some(None);
            }
            return Ok(());
        };
        let whole = Rect::of_size(shown.area.width, shown.area.height);
        let damage = match self.picture.flatten() {
            Some(told) if size_of(told.area) == size_of(shown.area) => self.damage.intersection(&whole),
            _ => whole,
        };
        if damage.is_empty() && self.picture == Some(Some(shown)) {
            return Ok(());
        }
        if !self.buffers.contains(&shown.buffer) {
            let (width, height, stride) = (buffer.width, buffer.height, buffer.stride);
            let event = Event::Buffer { id: shown.buffer, width, height, stride };
            send(&self.socket, &event, Some(buffer.pixels.as_fd()))?;
            self.buffers.insert(shown.buffer);
        }
        self.send(&Event::Frame { buffer: shown.buffer, area: shown.area, damage })?;
        self.picture = Some(Some(shown));
        self.damage = Rect::default();
        Ok(())
    }

    fn send(&self, event: &Event) -> Result<(), Error> {
        send(&self.socket, event, None)
    }

    /// Takes what the client has sent, but not so much that others wait. `packet` is scratch space.
    pub fn take_requests(&mut self, display: &Display, packet: &mut [u8]) -> Result<(), Parting> {
        for _ in 0..TURN {
            match receive::<Request>(&self.socket, packet) {
                Ok(Some((request, _))) => self.carry_out(request, display)?,
                Ok(None) => return Err(Parting::Left),
                Err(error) if error.would_block() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, request: Request, display: &Display) -> Result<(), Parting> {
        match request {
            Request::Key { code: 256.., .. } | Request::Resize { width: 0, .. } | Request::Resize { height: 0, .. } => {
                return Err(Parting::OutOfRange(request));
            }
            Request::Pointer { x, y, .. } if x.max(y) > POINTER_MAX => return Err(Parting::OutOfRange(request)),
            Request::Microphone { ref samples }
                if samples.len() > MAX_MICROPHONE || !samples.len().is_multiple_of(MICROPHONE_FRAME) =>
            {
                return Err(Parting::OutOfRange(Request::Microphone { samples: Vec::new() }));
            }
            Request::Key { code, down } => {
                let changed = if down { self.keys.insert(code) } else { self.keys.remove(&code) };
                if changed && input::KEYS.contains(&code) {
                    display.keyboard.push(&[InputEvent::key(code, down)]);
                }
            }
            Request::Pointer { x, y, buttons } => {
                let mut group = vec![InputEvent::absolute(input::ABS_X, x), InputEvent::absolute(input::ABS_Y, y)];
                group.extend(self.press(buttons));
                display.tablet.push(&group);
            }
            Request::Move { x, y, buttons } => {
                let steps =
                    [InputEvent::relative(input::REL_X, x.into()), InputEvent::relative(input::REL_Y, y.into())];
                let mut group: Vec<_> =
                    steps.into_iter().zip([x, y]).filter(|(_, by)| *by != 0).map(|(step, _)| step).collect();
                group.extend(self.press(buttons));
                display.tablet.push(&group);
            }
            Request::Wheel { horizontal, vertical } => {
                self.turn(i32::from(horizontal) * input::CLICK, i32::from(vertical) * input::CLICK, display);
            }
            Request::Scroll { horizontal, vertical } => self.turn(horizontal.into(), vertical.into(), display),
            Request::Resize { width, height } => display.resize(width, height),
            Request::Listen { on: true } if self.listens.is_none() => self.listens = Some(display.sound.enter()),
            Request::Listen { on: true } => {}
            Request::Listen { on: false } => self.stop_listening(display),
            Request::Microphone { samples } => display.sound.hear(&samples),
        }
        Ok(())
    }

    fn turn(&mut self, horizontal: i32, vertical: i32, display: &Display) {
        let mut group: Vec<_> = input::wheel(input::REL_HWHEEL, horizontal, &mut self.rest.0).collect();
        group.extend(input::wheel(input::REL_WHEEL, vertical, &mut self.rest.1));
        display.tablet.push(&group);
    }

    /// The events that lead from the buttons held to `buttons`.
    fn press(&mut self, buttons: u8) -> Vec<InputEvent> {
        let changed = std::mem::replace(&mut self.buttons, buttons) ^ buttons;
        let held = |set: u8, bit: usize| set & (1 << bit) != 0;
        (0..BUTTONS.len())
            .filter(|bit| held(changed, *bit))
            .map(|bit| InputEvent::key(BUTTONS[bit], held(buttons, bit)))
            .collect()
    }

    fn stop_listening(&mut self, display: &Display) {
        if self.listens.take().is_some() {
            display.sound.leave();
        }
    }

    /// Lets go of all that the client holds down, and listens no more.
    pub fn release(&mut self, display: &Display) {
        self.stop_listening(display);
        for code in std::mem::take(&mut self.keys) {
            display.keyboard.push(&[InputEvent::key(code, false)]);
        }
        let group = self.press(0);
        display.tablet.push(&group);
    }
}
