//! The thread a device runs on from `DRIVER_OK` until reset or pause.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::PollFlags;
use vmm_sys_util::eventfd::EventFd;

use super::{Device, Fault, Io, Kind};
use crate::event::{borrow, wait};
use crate::threads;

/// Stack of a device thread; none recurses or keeps large arrays on it.
const STACK: usize = 256 * 1024;

/// A device that runs, and how to stop it.
pub struct Worker {
    stop: EventFd,
    thread: JoinHandle<(Box<dyn Device>, Io)>,
}

impl Worker {
    /// Starts `device` on a thread of its own. When it faults, `needs_reset` is set, the driver is
    /// told by a configuration interrupt, and nothing more happens until [`Worker::stop`].
    pub fn start(device: Box<dyn Device>, io: Io, needs_reset: Arc<AtomicBool>) -> io::Result<Self> {
        let stop = EventFd::new(libc::EFD_CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let name = format!("{:?}", device.kind()).to_lowercase();
        let kind = thread_kind(device.kind());
        let thread = threads::spawn(kind, name.clone(), STACK, move || {
            let (mut device, mut io) = (device, io);
            if let Err(fault) = run(device.as_mut(), &mut io, &stopped) {
                eprintln!("yunju-vmm: virtio {name} stopped until the guest resets it: {fault}");
                needs_reset.store(true, Ordering::SeqCst);
                // An interrupt that cannot be delivered leaves nobody to tell.
                let _ = io.interrupt.config_changed();
                // A wait that fails leaves nothing but to end, as after a stop.
                let _ = wait(&[(borrow(&stopped), PollFlags::IN)]);
            }
            if let Err(fault) = device.settle(&mut io) {
                eprintln!("yunju-vmm: virtio {name} did not finish its requests: {fault}");
            }
            (device, io)
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread between two pieces of work and takes the device and its queues back.
    pub fn stop(self) -> io::Result<(Box<dyn Device>, Io)> {
        self.stop.write(1)?;
        self.thread.join().map_err(|_| io::Error::other("a device thread panicked"))
    }
}

fn thread_kind(kind: Kind) -> threads::Kind {
    match kind {
        Kind::Net => threads::Kind::Net,
        Kind::Block => threads::Kind::Block,
        Kind::Entropy => threads::Kind::Entropy,
        Kind::Balloon => threads::Kind::Balloon,
        Kind::Gpu => threads::Kind::Gpu,
        Kind::Input => threads::Kind::Input,
        Kind::Vsock => threads::Kind::Vsock,
        Kind::Sound => threads::Kind::Sound,
    }
}

fn run(device: &mut dyn Device, io: &mut Io, stop: &EventFd) -> Result<(), Fault> {
    for index in 0..io.queues.len() {
        serve(device, index, io)?;
    }
    loop {
        let events = look(device, io, stop)?;
        if !events[0].is_empty() {
            return Ok(());
        }
        work(device, io, &events[1..])?;
    }
}

/// Does what there is to do now, on the caller's thread.
pub fn turn(device: &mut dyn Device, io: &mut Io) -> Result<(), Fault> {
    // A bell that rings already: nothing is waited for.
    let bell = EventFd::new(libc::EFD_CLOEXEC)?;
    bell.write(1)?;
    let events = look(device, io, &bell)?;
    work(device, io, &events[1..])
}

/// Waits until `bell` rings or there is work; returns the events of the bell, the queues, and the device's sources.
fn look(device: &dyn Device, io: &Io, bell: &EventFd) -> io::Result<Vec<PollFlags>> {
    let mut interest: Vec<(BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(io.queues.len() + 4);
    interest.push((borrow(bell), PollFlags::IN));
    interest.extend(io.queues.iter().map(|queue| (borrow(&queue.kick), PollFlags::IN)));
    device.sources(&mut interest);
    wait(&interest)
}

/// Serves the queues and sources that have events.
fn work(device: &mut dyn Device, io: &mut Io, events: &[PollFlags]) -> Result<(), Fault> {
    let queues = io.queues.len();
    for (position, event) in events.iter().enumerate().filter(|(_, event)| !event.is_empty()) {
        if position < queues {
            // Reading resets the counter; it is non-blocking, and a spurious wake-up does no harm.
            let _ = io.queues[position].kick.read();
            serve(device, position, io)?;
            continue;
        }
        device.source_ready(position - queues, *event, io)?;
        // The device may have emptied any queue: it must hear of new chains in each.
        for index in 0..queues {
            if io.queues[index].rearm()? {
                serve(device, index, io)?;
            }
        }
    }
    Ok(())
}

/// Lets the device work on a queue until the driver is sure to notify of the next chain. A device may
/// leave chains in the queue for later (receive buffers); then it is not asked again.
fn serve(device: &mut dyn Device, index: usize, io: &mut Io) -> Result<(), Fault> {
    loop {
        #[cfg(feature = "record")]
        super::record::waiting(device.kind(), index, io);
        let before = io.queues[index].position();
        device.queue_ready(index, io)?;
        if !io.queues[index].rearm()? || io.queues[index].position() == before {
            return Ok(());
        }
    }
}
