//! Sends to one viewer what its session calls for.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use yunju_protocol::display::Rect;

use super::session::{Begun, Offer, Session, Step};
use super::{Desk, Error, lock};
use crate::encode::{Encoder, Resized, cursor};
use crate::rfb::encodings::{self, Abilities};
use crate::rfb::outgoing::{SizeReason, SizeStatus, Update, screens};
use crate::screen::{Cursor, Watch};
use crate::tiles::TileSet;
use crate::transport::Sink;

/// Pieces of an update that are encoded but not sent.
const PIECES: usize = 2;

/// Sends to one viewer what its session calls for.
pub struct Writer<'a> {
    sink: &'a mut Sink,
    session: &'a Mutex<Session>,
    watch: &'a Watch,
    desk: &'a Desk,
    told: Told,
}

/// What the viewer has been told, apart from pixels.
#[derive(Debug, Clone, Default)]
struct Told {
    size: bool,
    name: bool,
    qemu_keys: bool,
    mouse_buttons: bool,
    leds: Option<u8>,
    cursor: Option<Arc<Cursor>>,
}

impl<'a> Writer<'a> {
    /// For a viewer that has shaken hands.
    pub fn new(sink: &'a mut Sink, session: &'a Mutex<Session>, watch: &'a Watch, desk: &'a Desk) -> Self {
        Self { sink, session, watch, desk, told: Told::default() }
    }

    /// Sends until the viewer is gone. It has been told the picture's size and no more.
    pub async fn run(mut self, size: (u32, u32)) -> Result<Infallible, Error> {
        let mut encoder = Box::new(Encoder::new(size.0, size.1));
        loop {
            match self.next(&mut encoder)? {
                Step::Replies(bytes) => self.sink.send(&bytes).await?,
                Step::Size(reason, status) => self.send_size(&mut encoder, reason, status).await?,
                Step::Update(area) => encoder = self.send_update(encoder, area).await?,
                Step::Wait(None) => self.watch.changed().await,
                Step::Wait(Some(until)) => tokio::select! {
                    () = self.watch.changed() => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                },
            }
        }
    }

    fn next(&self, encoder: &mut Encoder) -> Result<Step, Error> {
        let mut session = lock(self.session);
        let abilities = *session.abilities();
        for area in session.take_forgotten() {
            encoder.forget(area);
        }
        let damage = self.watch.damage();
        let news = self.told.news(self.desk, &abilities);
        let offer = Offer {
            size: damage.size(),
            announce_size: abilities.extended_desktop_size && !self.told.size,
            changed: |area| news || encoder.misses(area) || damage.touches(area),
            refresh_at: encoder.refresh_at(&self.desk.screen),
        };
        Ok(session.next(offer, Instant::now())?)
    }

    async fn send_size(&mut self, encoder: &mut Encoder, reason: SizeReason, status: SizeStatus) -> Result<(), Error> {
        let size = self.watch.damage().size();
        let (abilities, begun) = self.begin();
        self.told.size = true;
        if encoder.size() != size {
            encoder.resize(size.0, size.1);
        }
        let bytes = size_update(size, &abilities, reason, status, &begun.fence);
        Ok(self.sink.send(&bytes).await?)
    }

    async fn send_update(&mut self, mut encoder: Box<Encoder>, area: Rect) -> Result<Box<Encoder>, Error> {
        let damaged = self.watch.damage().take_within(area);
        let (abilities, begun) = self.begin();
        {
            let session = lock(self.session);
            encoder.set_format(session.format());
            encoder.set_limits(session.limits());
        }
        let (desk, told, fence) = (self.desk.clone(), self.told.clone(), begun.fence.clone());
        let job = Job { encoder, damaged, area, abilities, desk, told, fence };
        let (mut start, mut bytes) = (None, 0);
        let done = if job.is_small() {
            let mut all = Vec::new();
            let done = job.run(&mut |piece| {
                all.extend(piece);
                true
            });
            if !all.is_empty() {
                (start, bytes) = (Some(Instant::now()), all.len());
                self.sink.send(&all).await?;
            }
            done
        } else {
            let (pieces, mut encoded) = mpsc::channel(PIECES);
            let encoding = spawn_blocking(move || job.run(&mut |piece| pieces.blocking_send(piece).is_ok()));
            while let Some(piece) = encoded.recv().await {
                start.get_or_insert_with(Instant::now);
                bytes += piece.len();
                self.sink.send(&piece).await?;
            }
            encoding.await?
        };
        self.told = done.told;
        match start.filter(|_| done.sent) {
            Some(start) => lock(self.session).update_sent(&begun, start, bytes),
            None => lock(self.session).cancel_update(begun),
        }
        Ok(done.encoder)
    }

    fn begin(&self) -> (Abilities, Begun) {
        let mut session = lock(self.session);
        (*session.abilities(), session.begin_update(Instant::now()))
    }
}

/// An update that tells the picture's size. RFB keeps sizes and pixels in separate updates.
fn size_update(
    (width, height): (u32, u32),
    abilities: &Abilities,
    reason: SizeReason,
    status: SizeStatus,
    fence: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut sink = |piece: Vec<u8>| {
        bytes.extend(piece);
        true
    };
    let mut update = Update::new(false, &mut sink);
    if abilities.extended_desktop_size {
        let rect = Rect { x: reason as u32, y: status as u32, width, height };
        screens(width, height, update.rect(rect, encodings::EXTENDED_DESKTOP_SIZE));
    } else {
        update.rect(Rect::of_size(width, height), encodings::DESKTOP_SIZE);
    }
    update.end(fence);
    bytes
}

/// Tiles that are encoded where they are sent, as a key's are; all else is, off the threads that wait for sockets.
const SMALL: usize = 6;

/// Encodes one update.
struct Job {
    encoder: Box<Encoder>,
    damaged: TileSet,
    area: Rect,
    abilities: Abilities,
    desk: Desk,
    told: Told,
    fence: Vec<u8>,
}

struct Done {
    encoder: Box<Encoder>,
    told: Told,
    sent: bool,
}

impl Job {
    /// Whether it takes less time than to hand it to another thread.
    fn is_small(&self) -> bool {
        let news = (1..=SMALL).contains(&self.damaged.len());
        news && !self.encoder.misses(self.area) && self.desk.screen.regions().is_empty()
    }

    fn run(self, sink: &mut dyn FnMut(Vec<u8>) -> bool) -> Done {
        let Self { mut encoder, damaged, area, abilities, desk, mut told, fence } = self;
        let mut update = Update::new(abilities.last_rect, sink);
        let now = Instant::now();
        let still = damaged.is_empty() && !encoder.misses(area);
        let encoded = if still {
            encoder.refresh(&desk.screen, &abilities, now, &mut update)
        } else {
            encoder.encode(&desk.screen, damaged, area, &abilities, now, &mut update)
        };
        // A screen of another size is damaged as a whole, so that nothing is lost.
        let sent = encoded != Err(Resized) && {
            told.tell(&desk, &abilities, &encoder, &mut update);
            update.end(&fence)
        };
        Done { encoder, told, sent }
    }
}

impl Told {
    /// Whether there is anything to tell.
    fn news(&self, desk: &Desk, abilities: &Abilities) -> bool {
        abilities.qemu_keys && !self.qemu_keys
            || abilities.mouse_buttons && !self.mouse_buttons
            || abilities.desktop_name && !self.name
            || abilities.qemu_leds && self.leds != Some(desk.screen.leds())
            || abilities.cursor.is_some() && self.new_cursor(desk).is_some()
    }

    fn new_cursor(&self, desk: &Desk) -> Option<Arc<Cursor>> {
        let cursor = desk.screen.cursor()?;
        let known = self.cursor.as_ref().is_some_and(|told| Arc::ptr_eq(told, &cursor));
        (!known).then_some(cursor)
    }

    fn tell(&mut self, desk: &Desk, abilities: &Abilities, encoder: &Encoder, update: &mut Update<'_>) {
        if abilities.qemu_keys && !self.qemu_keys {
            self.qemu_keys = true;
            update.rect(Rect::default(), encodings::QEMU_KEYS);
        }
        if abilities.mouse_buttons && !self.mouse_buttons {
            self.mouse_buttons = true;
            update.rect(Rect::default(), encodings::EXTENDED_MOUSE_BUTTONS);
        }
        if abilities.desktop_name && !self.name {
            // The name in the handshake has no character set; this one is UTF-8.
            self.name = true;
            let out = update.rect(Rect::default(), encodings::DESKTOP_NAME);
            out.extend((desk.name.len() as u32).to_be_bytes());
            out.extend(desk.name.as_bytes());
        }
        let leds = desk.screen.leds();
        if abilities.qemu_leds && self.leds != Some(leds) {
            self.leds = Some(leds);
            update.rect(Rect::default(), encodings::QEMU_LEDS).push(leds);
        }
        if let (Some(form), Some(cursor)) = (abilities.cursor, self.new_cursor(desk)) {
            cursor::encode(&cursor, form, encoder.pixels(), update);
            self.cursor = Some(cursor);
        }
    }
}
