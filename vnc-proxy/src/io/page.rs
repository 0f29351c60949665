//! A browser's page beside its screen: what RFB has no words for.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::info;
use yunju_protocol::display::Request;
use yunju_protocol::page::{FromPage, ToPage};
use yunju_protocol::seat::{frame, parse};
use yunju_protocol::viewer::{May, Viewer};

use super::people::{Place, Told};
use super::{Policy, Seat, View};
use crate::transport::{self, Sink, Source};
use crate::viewer::Desk;

/// A page is told this often at most where the others are.
const GLIMPSE: Duration = Duration::from_millis(50);

/// Why a page was given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its stream ended.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// It says what no page says.
    #[error(transparent)]
    Frame(#[from] yunju_protocol::seat::Error),
}

/// Serves a page until it goes or must be given up.
pub async fn serve(mut source: Source, mut sink: Sink, viewer: &Viewer, desk: &Desk) {
    let Ok(_place) = desk.seat.pages.try_acquire() else {
        return sink.close("as many pages are there as can be").await;
    };
    let place = desk.seat.people.enter(viewer.name());
    let mut buttons = 0;
    let error = tokio::select! {
        Err(error) = read(&mut source, viewer.may, desk, &place, &mut buttons) => error,
        Err(error) = write(&mut sink, viewer.may, &desk.seat, &place) => error,
    };
    if buttons != 0 {
        drop(desk.machine.try_send(Request::Move { x: 0, y: 0, buttons: 0 }));
    }
    info!("a page's side channel has ended: {error}");
    sink.close(&error.to_string()).await;
}

async fn read(
    source: &mut Source,
    may: May,
    desk: &Desk,
    place: &Place<'_>,
    buttons: &mut u8,
) -> Result<Infallible, Error> {
    let mut received = Vec::new();
    loop {
        while let Some((head, body)) = parse::<FromPage>(&received)? {
            let end = body.end;
            if allows(may, &head) {
                obey(head, &received[body], desk, place, buttons).await;
            }
            received.drain(..end);
        }
        // What a large clip took is given back.
        received.shrink_to(64 << 10);
        source.read(&mut received).await?;
    }
}

/// What a page says without the right to is passed over.
fn allows(may: May, head: &FromPage) -> bool {
    match head {
        FromPage::Clip { .. } => may.clipboard,
        FromPage::Type { .. } | FromPage::Layout(_) | FromPage::Move { .. } | FromPage::Scroll { .. } => may.input,
        // Who may only look may point at something.
        FromPage::Here(_) => true,
    }
}

async fn obey(head: FromPage, body: &[u8], desk: &Desk, place: &Place<'_>, buttons: &mut u8) {
    match head {
        FromPage::Clip { kind, .. } => desk.seat.paste(kind, body),
        FromPage::Type { .. } => desk.seat.type_text(body),
        FromPage::Layout(layout) => desk.seat.set_layout(layout),
        FromPage::Here(whereabouts) => place.is(whereabouts),
        FromPage::Move { x, y, buttons: held } => {
            let request = Request::Move { x, y, buttons: held };
            if std::mem::replace(buttons, held) == held {
                // A machine that does not keep up misses some of the way.
                drop(desk.machine.try_send(request));
            } else {
                // The surface's end of the channel is there for as long as the server is.
                drop(desk.machine.send(request).await);
            }
        }
        FromPage::Scroll { x, y } => drop(desk.machine.try_send(Request::Scroll { horizontal: x, vertical: y })),
    }
}

/// Tells what is different from what was told last. A page that is slow skips what it missed.
async fn write(sink: &mut Sink, may: May, seat: &Seat, place: &Place<'_>) -> Result<Infallible, Error> {
    let mut news = seat.news();
    let mut told: Option<View> = None;
    let (mut others, mut of_others, mut rested) = (place.news(), Told::default(), Instant::now());
    others.mark_changed();
    loop {
        news.mark_unchanged();
        let now = seat.view();
        for bytes in differences(told.as_ref(), &now, may, seat.policy()) {
            sink.send(&bytes).await?;
        }
        told = Some(now);
        tokio::select! {
            // The senders are there for as long as the seat is.
            _ = news.changed() => {}
            () = glimpse(&mut others, rested) => {
                for bytes in place.differences(&mut of_others) {
                    sink.send(&bytes).await?;
                }
                rested = Instant::now() + GLIMPSE;
            }
        }
    }
}

/// Waits until something is new with the others, and not before a time.
async fn glimpse(others: &mut watch::Receiver<()>, rested: Instant) {
    sleep_until(rested).await;
    drop(others.changed().await);
}

fn differences(told: Option<&View>, now: &View, may: May, policy: Policy) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let able = |view: &View| (view.agent, view.clipboard, view.text);
    if told.map(able) != Some(able(now)) {
        let clipboard = now.clipboard && may.clipboard;
        let (to_guest, from_guest) = (clipboard && policy.to_guest, clipboard && policy.from_guest);
        let able = ToPage::Able { agent: now.agent, to_guest, from_guest, text: now.text && may.input, may };
        frames.push(frame(&able, b""));
    }
    let number = |view: &View| view.copied.as_ref().map(|clip| clip.number);
    if let Some(clip) = now.copied.as_ref().filter(|_| may.clipboard && told.map(number) != Some(number(now))) {
        // What fits has fewer than 2^32 bytes.
        let head = ToPage::Clip { kind: clip.kind, length: clip.bytes.len() as u32, old: told.is_none() };
        frames.push(frame(&head, &clip.bytes));
    }
    if may.clipboard && told.is_some_and(|told| told.taken != now.taken) {
        frames.push(frame(&ToPage::Taken, b""));
    }
    if let Some(texts) = told.map(|told| now.typed - told.typed).filter(|texts| may.input && *texts > 0) {
        frames.push(frame(&ToPage::Typed { texts: u32::try_from(texts).unwrap_or(u32::MAX) }, b""));
    }
    if let Some(layout) =
        now.layout.as_ref().filter(|layout| told.and_then(|told| told.layout.as_ref()) != Some(*layout))
    {
        frames.push(frame(&ToPage::Layout(layout.clone()), b""));
    }
    frames
}
