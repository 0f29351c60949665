//! The guest's agent, or whatever in the guest says that it is one.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use yunju_protocol::seat::{self, FromSeat, ToSeat, parse};

use super::{Agent, Clip, ORDERS, Seat};
use crate::endpoint::Door;
use crate::transport::Socket;

/// It says hello within this, and takes what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two clips. Pages that are slower skip some.
const REST: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest closed it, or it broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It says what no agent says.
    #[error(transparent)]
    Frame(#[from] seat::Error),
    /// It does not begin with a hello.
    #[error("it does not say hello")]
    Hello,
    /// It takes nothing.
    #[error("it has taken nothing for {} s", PATIENCE.as_secs())]
    Stalled,
    /// Another one has come.
    #[error("a newer connection takes its place")]
    Replaced,
}

/// Connections of agents at a time; more wait. One that is replaced ends soon.
const CONNECTIONS: usize = 4;

/// Serves whoever connects, for ever.
pub async fn listen(door: Door, seat: Arc<Seat>) {
    let mut open = JoinSet::new();
    loop {
        while open.len() >= CONNECTIONS {
            open.join_next().await;
        }
        while open.try_join_next().is_some() {}
        match door.accept().await {
            Ok(socket) => {
                let seat = seat.clone();
                open.spawn(async move { serve(socket, &seat).await });
            }
            Err(error) => {
                // Out of descriptors, most likely: it helps to wait.
                warn!("cannot accept the guest's agent: {error}");
                sleep(REST).await;
            }
        }
    }
}

/// Serves one connection, until it ends or a newer one comes.
pub async fn serve(socket: impl Socket + 'static, seat: &Seat) {
    let connection = seat.change(|state| {
        state.connections += 1;
        state.connections
    });
    let (source, sink) = split(socket);
    let mut stream = Stream { source, received: Vec::new() };
    let error = match timeout(PATIENCE, stream.next()).await {
        Ok(Ok((FromSeat::Hello { version, clipboard, text }, _))) => {
            let version: String = version.chars().filter(|c| !c.is_control()).take(40).collect();
            info!("the guest's agent is there: version {version:?}, clipboard {clipboard}, text {text}");
            let (orders, waiting) = mpsc::channel(ORDERS);
            let agent = Agent { connection, clipboard, text, orders };
            tokio::select! {
                error = attend(&mut stream, agent, seat) => error,
                error = tell(sink, waiting, seat) => error,
                error = replaced(connection, seat) => error,
            }
        }
        Ok(Ok(_)) | Err(_) => Error::Hello,
        Ok(Err(error)) => error,
    };
    seat.change(|state| {
        if state.agent.as_ref().is_some_and(|agent| agent.connection == connection) {
            state.agent = None;
        }
    });
    info!("the guest's agent is gone: {error}");
}

/// What an agent sends.
struct Stream<S> {
    source: ReadHalf<S>,
    received: Vec<u8>,
}

impl<S: Socket> Stream<S> {
    /// The next frame.
    async fn next(&mut self) -> Result<(FromSeat, Vec<u8>), Error> {
        loop {
            if let Some((head, body)) = parse::<FromSeat>(&self.received)? {
                let rest = self.received.split_off(body.end);
                let mut bytes = std::mem::replace(&mut self.received, rest);
                bytes.drain(..body.start);
                return Ok((head, bytes));
            }
            self.received.reserve(64 << 10);
            if self.source.read_buf(&mut self.received).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Takes in what the agent says.
async fn attend<S: Socket>(stream: &mut Stream<S>, agent: Agent, seat: &Seat) -> Error {
    let connection = agent.connection;
    let layout = seat.change(|state| {
        if state.agent.as_ref().is_none_or(|other| other.connection < connection) {
            state.agent = Some(agent);
        }
        state.layout.clone()
    });
    if let Some(layout) = layout {
        seat.order(&ToSeat::Layout(layout), b"");
    }
    loop {
        let (head, body) = match stream.next().await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        match head {
            FromSeat::Clip { kind, .. } => {
                if seat.policy.from_guest && kind.fits(&body) {
                    seat.change(|state| {
                        let number = state.copied.as_ref().map_or(1, |clip| clip.number + 1);
                        state.copied = Some(Arc::new(Clip { number, kind, bytes: body }));
                    });
                }
                sleep(REST).await;
            }
            FromSeat::Taken => seat.change(|state| state.taken += 1),
            FromSeat::Typed => seat.change(|state| state.typed += 1),
            FromSeat::Layout(layout) if layout.is_name() => seat.change(|state| state.guest_layout = Some(layout)),
            FromSeat::Layout(_) => {}
            FromSeat::Hello { .. } => return Error::Hello,
        }
    }
}

/// Tells the agent what people want.
async fn tell<S: Socket>(mut sink: WriteHalf<S>, mut orders: mpsc::Receiver<Vec<u8>>, seat: &Seat) -> Error {
    // What was pasted before is not: the page sees that there was no agent.
    let mut pasting = seat.pasting.subscribe();
    loop {
        let frame = tokio::select! {
            biased;
            Ok(()) = pasting.changed() => pasting.borrow_and_update().clone(),
            Some(order) = orders.recv() => Some(Arc::new(order)),
            else => return Error::Replaced,
        };
        let Some(frame) = frame else { continue };
        match timeout(PATIENCE, sink.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Error::Stalled,
        }
    }
}

/// Waits for a newer connection.
async fn replaced(connection: u64, seat: &Seat) -> Error {
    let mut news = seat.news();
    while seat.state().connections == connection {
        if news.changed().await.is_err() {
            break;
        }
    }
    Error::Replaced
}
