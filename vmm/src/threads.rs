//! The threads of a machine, each bound to the system calls that its kind makes.
//!
//! A thread inherits the list of the one that starts it, and can only shorten it. So in a jail all are started by one
//! thread, the starter, that may do what any of them may, and does nothing else.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::{io, process};

use yunju_jail::filter::{BINDING, EVERYWHERE, Error, Filter, STARTING};

use crate::jail::calls;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Power on, pause, resume, reset, snapshot.
    Main,
    /// Waits until a snapshot is written.
    Snapshot,
    /// Runs a processor.
    Vcpu,
    /// A disk.
    Block,
    /// A network interface.
    Net,
    /// Pixels and the pointer's picture.
    Gpu,
    /// Keyboard or tablet.
    Input,
    /// Random bytes.
    Entropy,
    /// Sockets between guest and host.
    Vsock,
    /// Memory given back.
    Balloon,
    /// Sound played and recorded.
    Sound,
    /// Clients of the display.
    Display,
    /// Clients of the serial port.
    Serial,
    /// Clients of the control API.
    Control,
    /// SIGTERM and SIGINT.
    Signals,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Main,
        Self::Snapshot,
        Self::Vcpu,
        Self::Block,
        Self::Net,
        Self::Gpu,
        Self::Input,
        Self::Entropy,
        Self::Vsock,
        Self::Balloon,
        Self::Sound,
        Self::Display,
        Self::Serial,
        Self::Control,
        Self::Signals,
    ];
}

type Start = Box<dyn FnOnce() + Send>;

/// What there is once the process is in its jail.
struct Bound {
    starter: Sender<Start>,
    filters: Vec<Filter>,
}

static BOUND: OnceLock<Bound> = OnceLock::new();

/// Starts the starter: every thread from here on is bound to its list.
pub fn bind() -> Result<(), Error> {
    let list = |kind: &Kind| [&[EVERYWHERE], calls::of(*kind)].concat();
    let filters = Kind::ALL.iter().map(|kind| Filter::new(&list(kind))).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<_> = Kind::ALL.iter().flat_map(list).chain([STARTING, BINDING]).collect();
    let own = Filter::new(&all)?;
    let (starter, starts) = channel::<Start>();
    let (bound, ready) = channel();
    Builder::new().name("starter".into()).stack_size(64 << 10).spawn(move || {
        // Whoever waits for it has not gone.
        let _ = bound.send(own.install());
        starts.iter().for_each(|start| start());
    })?;
    ready.recv().unwrap_or_else(|_| Err(io::Error::other("the starter of threads has ended").into()))?;
    BOUND.get_or_init(|| Bound { starter, filters });
    Ok(())
}

/// Binds the calling thread.
pub fn become_kind(kind: Kind) {
    if let Some(bound) = BOUND.get()
        && let Err(error) = bound.filters[kind as usize].install()
    {
        eprintln!("yunju-vmm: error: {kind:?}: {error}");
        process::exit(1);
    }
}

/// As [`Builder::spawn`], bound to the list of `kind` if there is a jail.
pub fn spawn<T: Send + 'static>(
    kind: Kind,
    name: impl Into<String>,
    stack: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name.into()).stack_size(stack);
    let Some(bound) = BOUND.get() else {
        return builder.spawn(body);
    };
    let (started, thread) = channel();
    let start = move || {
        let spawned = builder.spawn(move || {
            become_kind(kind);
            body()
        });
        // Whoever asked waits.
        let _ = started.send(spawned);
    };
    let gone = |_| io::Error::other("the starter of threads has ended");
    bound.starter.send(Box::new(start)).map_err(|_| io::Error::other("the starter of threads has ended"))?;
    thread.recv().map_err(gone)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_list_that_compiles_and_finds_its_own() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            Filter::new(&[&[EVERYWHERE], calls::of(kind)].concat()).unwrap();
        }
    }
}
