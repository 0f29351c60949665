//! One machine's viewers: listening, and one task for each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span, warn};
use yunju_protocol::viewer::Viewer;

use crate::audio::{self, Sound};
use crate::endpoint::{Door, Endpoint, Error, Listener};
use crate::screen::Screen;
use crate::transport::{self, Purpose, Socket};
use crate::{io, surface, viewer};

/// Most connections at a time. A browser has one for the screen, one for sound and one for what goes beside.
pub const MAX_VIEWERS: usize = 192;

/// A viewer must have opened its websocket by then.
const OPENING: Duration = Duration::from_secs(10);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path of the machine's display socket.
    pub display: PathBuf,
    /// Where to listen for RFB over websocket.
    pub websocket: Vec<Endpoint>,
    /// Where to listen for plain RFB.
    pub rfb: Vec<Endpoint>,
    /// The desktop's name.
    pub name: String,
    /// Where to listen for the guest's agent.
    pub agent: Option<Endpoint>,
    /// Which way what is copied may go.
    pub clipboard: io::Policy,
}

/// A server that listens.
pub struct Server {
    config: Config,
    websocket: Vec<Listener>,
    rfb: Vec<Listener>,
    agent: Option<Listener>,
}

impl Server {
    /// Listens on all endpoints; nobody is served before [`Server::run`].
    pub fn bind(config: Config) -> Result<Self, Error> {
        let bind = |endpoints: &[Endpoint]| endpoints.iter().map(Listener::bind).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            websocket: bind(&config.websocket)?,
            rfb: bind(&config.rfb)?,
            agent: config.agent.as_ref().map(Listener::bind).transpose()?,
            config,
        })
    }

    /// The websocket listeners, in the order of [`Config::websocket`].
    pub fn websocket(&self) -> &[Listener] {
        &self.websocket
    }

    /// The plain listeners, in the order of [`Config::rfb`].
    pub fn rfb(&self) -> &[Listener] {
        &self.rfb
    }

    /// Serves until the future is dropped. Needs a multi-threaded tokio runtime.
    pub async fn run(self) -> std::io::Result<()> {
        let doors = |listeners: &[Listener]| listeners.iter().map(Listener::door).collect::<std::io::Result<Vec<_>>>();
        let (websocket, rfb) = (doors(&self.websocket)?, doors(&self.rfb)?);
        let (screen, sound) = (Arc::new(Screen::default()), Arc::new(Sound::default()));
        let (machine, input) = mpsc::channel(surface::INPUT_QUEUE);
        let name: Arc<str> = self.config.name.into();
        let viewers = Arc::new(Semaphore::new(MAX_VIEWERS));
        let seat = Arc::new(io::Seat::new(self.config.clipboard));
        let agent = self.agent.as_ref().map(Listener::door).transpose()?;
        let desk = viewer::Desk { screen: screen.clone(), machine, name, seat: seat.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(surface::follow(self.config.display, screen, sound.clone(), input));
        for door in websocket {
            tasks.spawn(listen(door, true, desk.clone(), sound.clone(), viewers.clone()));
        }
        for door in rfb {
            tasks.spawn(listen(door, false, desk.clone(), sound.clone(), viewers.clone()));
        }
        if let Some(door) = agent {
            tasks.spawn(io::agent::listen(door, seat));
        }
        // None of them ends of itself; dropping the set ends them all.
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

async fn listen(door: Door, websocket: bool, desk: viewer::Desk, sound: Arc<Sound>, viewers: Arc<Semaphore>) {
    let mut tasks = JoinSet::new();
    let mut number = 0u64;
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error) => {
                // Out of descriptors, most likely: it helps to wait.
                warn!("cannot accept a viewer: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = viewers.clone().try_acquire_owned() else {
            warn!("a viewer is turned away: {MAX_VIEWERS} are there");
            continue;
        };
        number += 1;
        let (desk, sound) = (desk.clone(), sound.clone());
        let span = info_span!("viewer", kind = if websocket { "websocket" } else { "rfb" }, number);
        let task = async move {
            attend(socket, websocket, &desk, &sound).await;
            drop(place);
        };
        tasks.spawn(task.instrument(span));
    }
}

async fn attend(socket: Box<dyn Socket>, websocket: bool, desk: &viewer::Desk, sound: &Sound) {
    if !websocket {
        let (source, sink) = transport::plain(socket);
        return viewer::serve(source, sink, &Viewer::default(), desk).await;
    }
    let (purpose, viewer, stream) = match tokio::time::timeout(OPENING, transport::websocket(socket)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return info!("no viewer: {error}"),
        Err(_) => return info!("no viewer: no websocket was opened in {} s", OPENING.as_secs()),
    };
    match purpose {
        Purpose::Screen => {
            let (source, sink) = transport::over_websocket(stream);
            viewer::serve(source, sink, &viewer, desk).await;
        }
        Purpose::Sound => audio::session::serve(stream, viewer.may, sound, &desk.machine).await,
        Purpose::Side => {
            let (source, sink) = transport::over_websocket(stream);
            io::page::serve(source, sink, &viewer, desk).await;
        }
    }
}
