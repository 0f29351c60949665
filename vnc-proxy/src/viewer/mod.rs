//! One viewer, from its first byte to its last.
//!
//! Two loops share a [`session::Session`]: one reads messages into it, one sends what it calls for. The reader
//! never waits for the writer, so a viewer that takes nothing can still be heard.

pub mod cutting;
mod pace;
pub mod session;
mod writer;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::info;
use yunju_protocol::display::Request;
use yunju_protocol::seat::Kind;
use yunju_protocol::viewer::Viewer;

use self::session::Session;
use self::writer::Writer;
use crate::io::{Clip, Seat};
use crate::rfb::handshake::{GREETING, SECURITY_NONE, Version, server_init};
use crate::rfb::incoming::{self, parse};
use crate::screen::{Screen, Watch};
use crate::transport::{self, Sink, Source};

/// A viewer must have shaken hands by then.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What all viewers share.
#[derive(Debug, Clone)]
pub struct Desk {
    /// What they see.
    pub screen: Arc<Screen>,
    /// Where their input goes.
    pub machine: mpsc::Sender<Request>,
    /// The desktop's name.
    pub name: Arc<str>,
    /// What goes beside: the clipboard.
    pub seat: Arc<Seat>,
}

/// Why a viewer was given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its stream ended.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// It shook hands wrongly.
    #[error("it speaks no RFB: {0}")]
    Handshake(&'static str),
    /// It said what no viewer may say.
    #[error("it speaks no RFB: {0}")]
    Message(#[from] incoming::Error),
    /// It did not keep to the rules.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// Encoding came to an unexpected end.
    #[error("its encoder failed: {0}")]
    Encoder(#[from] tokio::task::JoinError),
}

/// Serves a viewer until it goes or must be given up.
pub async fn serve(mut source: Source, mut sink: Sink, viewer: &Viewer, desk: &Desk) {
    let mut received = Vec::new();
    let handshake = shake_hands(&mut source, &mut sink, &mut received, desk);
    let size = match timeout(HANDSHAKE, handshake).await.unwrap_or(Err(Error::Handshake("it took too long"))) {
        Ok(size) => size,
        Err(error) => {
            info!("a viewer was given up: {error}");
            return sink.close(&error.to_string()).await;
        }
    };
    info!("a viewer has come: {:?}, may {}", viewer.name(), viewer.may);
    let watch = Watching { screen: &desk.screen, watch: desk.screen.watch() };
    let session = Mutex::new(Session::new(size, viewer.may));
    let writer = Writer::new(&mut sink, &session, &watch.watch, desk);
    let error = tokio::select! {
        Err(error) = read(&mut source, &mut received, &session, &watch.watch, desk) => error,
        Err(error) = writer.run(size) => error,
        Err(error) = follow_clipboard(&session, &watch.watch, &desk.seat), if viewer.may.clipboard => error,
    };
    drop(watch);
    info!("a viewer has gone: {error}");
    let held = lock(&session).release();
    let releasing = async {
        for request in held {
            if desk.machine.send(request).await.is_err() {
                break;
            }
        }
    };
    // A machine that takes no input for this long will not be told.
    drop(timeout(Duration::from_secs(5), releasing).await);
    sink.close(&error.to_string()).await;
}

/// Ends the watch however the viewer ends.
struct Watching<'a> {
    screen: &'a Screen,
    watch: Arc<Watch>,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.screen.unwatch(&self.watch);
    }
}

fn lock(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the picture's size as the viewer was told.
async fn shake_hands(
    source: &mut Source,
    sink: &mut Sink,
    received: &mut Vec<u8>,
    desk: &Desk,
) -> Result<(u32, u32), Error> {
    sink.send(GREETING).await?;
    let version = Version::parse(&take(source, received).await?).ok_or(Error::Handshake("unknown version"))?;
    sink.send(&version.security()).await?;
    if version > Version::V3_3 {
        let [choice] = take(source, received).await?;
        if choice != SECURITY_NONE {
            return Err(Error::Handshake("it chose a security type that was not offered"));
        }
    }
    if version == Version::V3_8 {
        sink.send(&[0; 4]).await?;
    }
    // Whether it would share: all do.
    let [_shared] = take(source, received).await?;
    let (width, height) = desk.screen.picture().size();
    sink.send(&server_init(width as u16, height as u16, &desk.name)).await?;
    Ok((width, height))
}

async fn take<const N: usize>(source: &mut Source, received: &mut Vec<u8>) -> Result<[u8; N], Error> {
    loop {
        if let Some(taken) = received.first_chunk::<N>().copied() {
            received.drain(..N);
            return Ok(taken);
        }
        source.read(received).await?;
    }
}

async fn read(
    source: &mut Source,
    received: &mut Vec<u8>,
    session: &Mutex<Session>,
    watch: &Watch,
    desk: &Desk,
) -> Result<Infallible, Error> {
    loop {
        let mut used = 0;
        loop {
            let (cut, text) = lock(session).cutting().take(&received[used..]);
            used += cut;
            if let Some(text) = text {
                desk.seat.paste(Kind::Text, text.as_bytes());
            }
            let mouse_buttons = lock(session).abilities().mouse_buttons;
            let Some((message, length)) = parse(&received[used..], mouse_buttons)? else { break };
            used += length;
            let requests = lock(session).on_message(message, desk.screen.leds(), Instant::now())?;
            for (request, must) in requests {
                if must {
                    // The surface's end of the channel is there for as long as the server is.
                    drop(desk.machine.send(request).await);
                } else {
                    drop(desk.machine.try_send(request));
                }
            }
        }
        received.drain(..used);
        if used > 0 {
            watch.ring();
        }
        source.read(received).await?;
    }
}

/// Tells the viewer what is copied in the guest from now on, for ever.
async fn follow_clipboard(session: &Mutex<Session>, watch: &Watch, seat: &Seat) -> Result<Infallible, Error> {
    let mut news = seat.news();
    let number = |clip: &Option<Arc<Clip>>| clip.as_ref().map(|clip| clip.number);
    let mut told = number(&seat.copied());
    loop {
        // The sender is there for as long as the seat is.
        drop(news.changed().await);
        let clip = seat.copied();
        if let Some(clip) = clip.as_ref().filter(|clip| Some(clip.number) != told) {
            lock(session).cutting().on_copied(clip);
            watch.ring();
        }
        told = number(&clip);
    }
}
