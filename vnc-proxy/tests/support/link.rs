//! A slow link with losses, as TCP shows it: late, in order, and with pauses where something was sent again.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// What a link is like.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Time that each byte takes one way.
    pub delay: Duration,
    /// Bytes a second.
    pub rate: f64,
    /// One packet of so many is lost and comes a round trip later, with all that follow.
    pub lost: u32,
}

const PACKET: usize = 1400;

impl Link {
    /// Passes each connection to `path` on to `server` over such a link.
    pub fn open(self, path: &Path, server: &Path) {
        let listener = UnixListener::bind(path).expect("a free path");
        let server = server.to_owned();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = UnixStream::connect(&server) else { return };
                let [near_too, far_too] = [&near, &far].map(|end| end.try_clone().expect("a descriptor"));
                self.pass(far, near);
                self.pass(near_too, far_too);
            }
        });
    }

    fn pass(self, mut from: UnixStream, mut to: UnixStream) {
        // What is in the queue is on its way: as much as the link holds, and a router's buffer.
        let in_flight = (self.rate * self.delay.as_secs_f64()) as usize / PACKET + 32;
        let (queue, arriving) = sync_channel::<(Instant, Vec<u8>)>(in_flight);
        std::thread::spawn(move || self.enter(&mut from, &queue));
        std::thread::spawn(move || {
            for (due, packet) in arriving {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&packet).is_err() {
                    break;
                }
            }
            drop(to.shutdown(std::net::Shutdown::Both));
        });
    }

    fn enter(self, from: &mut UnixStream, queue: &SyncSender<(Instant, Vec<u8>)>) {
        let (mut free, mut packets) = (Instant::now(), 0u32);
        let mut packet = [0; PACKET];
        while let Ok(length @ 1..) = from.read(&mut packet) {
            packets += 1;
            free = free.max(Instant::now()) + Duration::from_secs_f64(length as f64 / self.rate);
            if packets.is_multiple_of(self.lost) {
                free += self.delay * 2;
            }
            if queue.send((free + self.delay, packet[..length].to_vec())).is_err() {
                return;
            }
        }
    }
}
