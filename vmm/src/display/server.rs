//! The display thread: accepts clients, carries out what they ask, tells them what is new.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use yunju_protocol::display::MAX_PACKET;

use super::client::{Client, Parting};
use super::{Display, MAX_CLIENTS};
use crate::event::borrow;

/// How long no client is accepted after the system could not accept one, for want of descriptors or memory.
const REST: Duration = Duration::from_secs(1);

/// Serves clients until the display is closed.
pub fn serve(display: &Display, listener: &OwnedFd) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    let mut packet = vec![0; MAX_PACKET];
    let mut rests_until = None;
    let result = loop {
        let resting = rests_until.is_some_and(|end| Instant::now() < end);
        let events = match wait(display, listener, &clients, resting) {
            Ok(events) => events,
            Err(Errno::INTR) => continue,
            Err(error) => break Err(error.into()),
        };
        let (own, of_clients) = events.split_at(2);
        if !own[0].is_empty() {
            // Reading resets the counter; it is non-blocking, and a spurious wake-up does no harm.
            let _ = display.changed.read();
        }
        if display.closing.load(Ordering::SeqCst) {
            break Ok(());
        }
        if !own[1].is_empty() {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(_) if clients.len() >= MAX_CLIENTS => {
                    eprintln!("yunju-vmm: a display client was turned away: {MAX_CLIENTS} are attached");
                }
                Ok(socket) => clients.push(Client::new(socket)),
                // The client has left before it was accepted.
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => {
                    eprintln!("yunju-vmm: accepting a display client: {error}; trying again in a second");
                    rests_until = Some(Instant::now() + REST);
                }
            }
            count(display, &clients);
        }
        let (scene, damage) = display.take();
        // A client that was just accepted has no events yet, and is told all.
        let mut events = of_clients.iter();
        clients.retain_mut(|client| {
            let events = events.next().copied().unwrap_or(PollFlags::empty());
            client.damage(&damage);
            let mut serve = || {
                if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    client.take_requests(display, &mut packet)?;
                }
                if !client.is_blocked() || events.contains(PollFlags::OUT) {
                    client.update(&scene, &display.sound)?;
                }
                Ok(())
            };
            serve().map_err(|parting| part(client, &parting, display)).is_ok()
        });
        count(display, &clients);
    };
    clients.iter_mut().for_each(|client| client.release(display));
    count(display, &[]);
    result
}

fn count(display: &Display, clients: &[Client]) {
    // There are at most MAX_CLIENTS.
    display.clients.store(clients.len() as u32, Ordering::Relaxed);
}

/// Waits for a change of the scene, a new client, or a client; returns their events in this order.
fn wait(display: &Display, listener: &OwnedFd, clients: &[Client], resting: bool) -> Result<Vec<PollFlags>, Errno> {
    let accepts = if resting { PollFlags::empty() } else { PollFlags::IN };
    let mut fds = Vec::with_capacity(2 + clients.len());
    fds.push(PollFd::from_borrowed_fd(borrow(&display.changed), PollFlags::IN));
    fds.push(PollFd::from_borrowed_fd(listener.as_fd(), accepts));
    fds.extend(clients.iter().map(|client| {
        let writes = if client.is_blocked() { PollFlags::OUT } else { PollFlags::empty() };
        PollFd::from_borrowed_fd(client.socket(), PollFlags::IN | writes)
    }));
    let rest = Timespec { tv_sec: REST.as_secs() as i64, tv_nsec: 0 };
    poll(&mut fds, resting.then_some(&rest))?;
    Ok(fds.iter().map(PollFd::revents).collect())
}

fn part(client: &mut Client, parting: &Parting, display: &Display) {
    if !matches!(parting, Parting::Left) {
        eprintln!("yunju-vmm: a display client was dropped: {parting}");
    }
    client.release(display);
}
