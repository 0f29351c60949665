//! What goes between people and the guest beside pixels, keys and pointer: clipboard, typed text, keyboard layout.
//!
//! The guest's [`agent`] and the [`page`]s of browsers speak in the frames of [`yunju_protocol::seat`]; viewers of other
//! kinds have RFB's clipboard messages. They meet in a [`Seat`]. What one viewer puts into the guest's clipboard
//! the others are not told of; what is copied in the guest all are.

pub mod agent;
pub mod page;
pub mod people;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Semaphore, mpsc, watch};
pub use yunju_protocol::seat::Policy;
use yunju_protocol::seat::{Kind, Layout, ToSeat, frame};

/// Most pages at a time. Each may be sending one clip and taking another.
pub const MAX_PAGES: usize = 16;

/// Most orders that wait for an agent; text that comes when there are more is lost.
const ORDERS: usize = 64;

/// Something that was copied in the guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Clip {
    /// Counts up from one.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// As [`Kind::fits`].
    pub bytes: Vec<u8>,
}

/// Where people, their pages and the guest's agent meet.
#[derive(Debug)]
pub struct Seat {
    policy: Policy,
    state: Mutex<State>,
    /// Counts what happened.
    news: watch::Sender<u64>,
    /// The frame that fills the guest's clipboard: of several only the last counts.
    pasting: watch::Sender<Option<Arc<Vec<u8>>>>,
    pages: Arc<Semaphore>,
    people: people::People,
}

#[derive(Debug, Default)]
struct State {
    /// Connections of agents so far.
    connections: u64,
    agent: Option<Agent>,
    copied: Option<Arc<Clip>>,
    /// How many clips the guest has taken.
    taken: u64,
    /// How many texts the guest has typed.
    typed: u64,
    /// What people would like.
    layout: Option<Layout>,
    /// What the guest has.
    guest_layout: Option<Layout>,
}

#[derive(Debug)]
struct Agent {
    connection: u64,
    clipboard: bool,
    text: bool,
    orders: mpsc::Sender<Vec<u8>>,
}

/// What a page can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    agent: bool,
    clipboard: bool,
    text: bool,
    copied: Option<Arc<Clip>>,
    taken: u64,
    typed: u64,
    layout: Option<Layout>,
}

impl Seat {
    /// A seat without a guest.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            state: Mutex::default(),
            news: watch::Sender::new(0),
            pasting: watch::Sender::new(None),
            pages: Arc::new(Semaphore::new(MAX_PAGES)),
            people: people::People::default(),
        }
    }

    /// Which way what is copied may go.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Marked as changed whenever something happens.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What was copied in the guest last, if it may be known.
    pub fn copied(&self) -> Option<Arc<Clip>> {
        self.state().copied.clone()
    }

    /// Fills the guest's clipboard, if that is allowed and it is what it says.
    pub fn paste(&self, kind: Kind, bytes: &[u8]) {
        if self.policy.to_guest && kind.fits(bytes) {
            // A clip that fits has fewer than 2^32 bytes.
            let head = ToSeat::Clip { kind, length: bytes.len() as u32 };
            self.pasting.send_replace(Some(Arc::new(frame(&head, bytes))));
        }
    }

    /// Types text in the guest.
    pub fn type_text(&self, text: &[u8]) {
        if std::str::from_utf8(text).is_ok() {
            self.order(&ToSeat::Type { length: text.len() as u32 }, text);
        }
    }

    /// Gives the guest's keyboard another layout, now and whenever its agent comes.
    pub fn set_layout(&self, layout: Layout) {
        if layout.is_name() {
            self.state().layout = Some(layout.clone());
            self.order(&ToSeat::Layout(layout), b"");
        }
    }

    fn order(&self, head: &ToSeat, body: &[u8]) {
        if let Some(agent) = &self.state().agent {
            // An agent that does not keep up loses what there is no room for.
            drop(agent.orders.try_send(frame(head, body)));
        }
    }

    fn view(&self) -> View {
        let state = self.state();
        let agent = state.agent.as_ref();
        View {
            agent: agent.is_some(),
            clipboard: agent.is_some_and(|agent| agent.clipboard),
            text: agent.is_some_and(|agent| agent.text),
            copied: state.copied.clone(),
            taken: state.taken,
            typed: state.typed,
            layout: state.guest_layout.clone(),
        }
    }

    /// Changes the state and tells everybody that it is another.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.news.send_modify(|count| *count += 1);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of a seat's lock panics")
    }
}
