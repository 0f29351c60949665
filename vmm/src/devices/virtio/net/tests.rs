use std::io::{ErrorKind, Read};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{PollFd, Timespec, poll};
use yunju_protocol::machine::RateLimit;

use super::super::testing::{Driver, MEMORY};
use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

struct Lab {
    net: Net,
    driver: Driver,
    peer: UnixStream,
    traffic: Arc<Traffic>,
}

fn lab() -> Lab {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let traffic = Arc::new(Traffic::default());
    let net = Net::new(Backend::stream(ours.into()), MAC, traffic.clone()).unwrap();
    let driver = Driver::new(&net);
    Lab { net, driver, peer, traffic }
}

impl Lab {
    /// One round of what the device's thread does. False if there was nothing to do.
    fn turn(&mut self) -> bool {
        let mut interest = Vec::new();
        self.net.sources(&mut interest);
        let mut fds: Vec<_> = interest.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if fds.is_empty() || poll(&mut fds, Some(&now)).unwrap() == 0 {
            return false;
        }
        let events = fds[0].revents();
        self.net.source_ready(0, events, &mut self.driver.io).unwrap();
        true
    }

    fn offer(&mut self, length: usize) -> u16 {
        let head = self.driver.send(RX, &[], &[length]);
        self.driver.kick(&mut self.net, RX).unwrap();
        head
    }

    fn transmit(&mut self, bytes: &[u8]) -> u16 {
        let head = self.driver.send(TX, &[&[0; HEADER], bytes], &[]);
        self.driver.kick(&mut self.net, TX).unwrap();
        head
    }

    /// The next frame that the driver was given, without its header.
    fn received(&mut self) -> Option<Vec<u8>> {
        let (head, length) = self.driver.used(RX)?;
        let mut bytes = self.driver.written(RX, head);
        bytes.truncate(length as usize);
        if bytes.is_empty() {
            return Some(bytes);
        }
        assert_eq!(bytes[..HEADER], RECEIVED);
        Some(bytes.split_off(HEADER))
    }

    /// All that has arrived at the peer, as frames.
    fn arrived(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match self.peer.read_to_end(&mut bytes) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.turn() {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            frames.push(frame.to_vec());
            rest = after;
        }
        assert!(rest.is_empty(), "half a frame");
        frames
    }

    fn link_up(&self) -> bool {
        let mut status = [0; 2];
        self.net.config().lock().unwrap().read(6, &mut status);
        status == [1, 0]
    }
}

fn frame(fill: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| fill.wrapping_add(index as u8)).collect()
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

#[test]
fn frames_of_the_driver_arrive_at_the_peer_in_order() {
    let mut lab = lab();
    let frames = [frame(1, 60), frame(2, MIN_FRAME), frame(3, 1514), frame(4, MAX_FRAME)];
    for frame in &frames {
        let head = lab.transmit(frame);
        assert_eq!(lab.driver.used(TX), Some((head, 0)));
    }
    assert_eq!(lab.arrived(), frames);
    assert!(lab.driver.interrupted());
    let total: usize = frames.iter().map(Vec::len).sum();
    assert_eq!(lab.traffic.sent.load(Ordering::Relaxed), total as u64);
}

#[test]
fn frames_that_are_too_short_or_too_long_are_dropped_and_their_chains_given_back() {
    let mut lab = lab();
    for length in [0, MIN_FRAME - 1, MAX_FRAME + 1] {
        let head = lab.transmit(&frame(0, length));
        assert_eq!(lab.driver.used(TX), Some((head, 0)), "{length}");
    }
    let head = lab.driver.send(TX, &[&[0; 5]], &[]);
    lab.driver.kick(&mut lab.net, TX).unwrap();
    assert_eq!(lab.driver.used(TX), Some((head, 0)));
    assert_eq!(lab.arrived(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_frame_that_arrives_byte_by_byte_is_delivered_once_and_whole() {
    let mut lab = lab();
    lab.offer(2048);
    let sent = frame(9, 300);
    let bytes = framed(&sent);
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(lab.driver.used(RX), None, "after {index} bytes");
        lab.peer.write_all(&[*byte]).unwrap();
        assert!(lab.turn());
    }
    assert_eq!(lab.received(), Some(sent));
    assert!(lab.driver.interrupted());
    assert_eq!(lab.traffic.received.load(Ordering::Relaxed), 300);
}

#[test]
fn many_frames_of_one_read_are_each_delivered_to_a_chain_of_their_own() {
    let mut lab = lab();
    let frames: Vec<_> = (0..40).map(|index| frame(index, 100 + usize::from(index))).collect();
    for _ in &frames {
        lab.offer(1526);
    }
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
    lab.peer.write_all(&bytes).unwrap();
    assert!(lab.turn());
    for frame in frames {
        assert_eq!(lab.received(), Some(frame));
    }
}

#[test]
fn frames_wait_for_buffers_and_the_socket_is_not_polled_meanwhile() {
    let mut lab = lab();
    let frames: Vec<_> = (0..3).map(|index| frame(index, 100)).collect();
    for frame in &frames {
        lab.peer.write_all(&framed(frame)).unwrap();
    }
    assert!(lab.turn());
    let late = frame(3, 100);
    lab.peer.write_all(&framed(&late)).unwrap();
    assert!(!lab.turn(), "a frame waits: the next one must wait too");
    for frame in frames.into_iter().chain([late]) {
        lab.offer(1526);
        assert_eq!(lab.received(), Some(frame));
    }
    lab.peer.write_all(&framed(&frame(7, 50))).unwrap();
    assert!(lab.turn(), "polled again");
}

#[test]
fn a_buffer_that_is_too_short_loses_the_frame_and_not_the_device() {
    let mut lab = lab();
    for length in [0, HEADER - 1, HEADER + 99, 2000] {
        lab.driver.send(RX, &[], &[length]);
    }
    let bytes = framed(&frame(1, 100)).repeat(4);
    lab.peer.write_all(&bytes).unwrap();
    assert!(lab.turn());
    for _ in 0..3 {
        assert_eq!(lab.received(), Some(Vec::new()));
    }
    assert_eq!(lab.received(), Some(frame(1, 100)));
}

#[test]
fn frames_of_absurd_lengths_are_skipped() {
    let mut lab = lab();
    lab.offer(2048);
    lab.offer(MAX_FRAME + HEADER);
    let long = framed(&vec![0xee; MAX_FRAME + 100_000]);
    let bytes = [&long[..], &framed(&[]), &framed(&[0xee; 13]), &framed(&frame(1, 64)), &framed(&frame(2, MAX_FRAME))];
    let bytes = bytes.concat();
    let mut sent = 0;
    while sent < bytes.len() {
        match lab.peer.write(&bytes[sent..]) {
            Ok(length) => sent += length,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        lab.turn();
    }
    while lab.turn() {}
    assert_eq!(lab.received(), Some(frame(1, 64)));
    assert_eq!(lab.received(), Some(frame(2, MAX_FRAME)));
}

#[test]
fn a_peer_that_does_not_read_stalls_the_driver_and_loses_nothing() {
    let mut lab = lab();
    let mut frames = Vec::new();
    // Long ones are sent in pieces.
    let next = |count: usize| frame(count as u8, [900, 9000, MAX_FRAME][count % 3]);
    while !lab.net.blocked {
        frames.push(next(frames.len()));
        assert!(frames.len() < 1000, "never blocked");
        lab.transmit(&frames[frames.len() - 1]);
    }
    while lab.driver.used(TX).is_some() {}
    // The device takes no more until the peer reads.
    for _ in 0..100 {
        frames.push(next(frames.len()));
        lab.transmit(&frames[frames.len() - 1]);
    }
    assert_eq!(lab.driver.used(TX), None);
    assert!(!lab.turn());
    let arrived = lab.arrived();
    assert_eq!(arrived.len(), frames.len());
    assert_eq!(arrived.iter().zip(&frames).position(|(arrived, sent)| arrived != sent), None, "the first that differs");
    assert_eq!(std::iter::from_fn(|| lab.driver.used(TX)).count(), 100);
}

#[test]
fn a_backend_that_ends_takes_the_link_down_and_the_device_lives_on() {
    let lab = lab();
    assert!(lab.link_up());
    let Lab { mut net, mut driver, peer, .. } = lab;
    drop(peer);
    net.source_ready(0, PollFlags::IN | PollFlags::HUP, &mut driver.io).unwrap();
    assert!(driver.interrupted());
    assert_eq!(driver.io.interrupt.status(), 2, "a configuration change");
    let mut interest = Vec::new();
    net.sources(&mut interest);
    assert!(interest.is_empty());
    let mut status = [9; 2];
    net.config().lock().unwrap().read(6, &mut status);
    assert_eq!(status, [0, 0]);
    for _ in 0..3 {
        let head = driver.send(TX, &[&[0; HEADER], &[1; 60]], &[]);
        driver.kick(&mut net, TX).unwrap();
        assert_eq!(driver.used(TX), Some((head, 0)), "what is sent is lost");
    }
}

#[test]
fn a_peer_that_ends_while_the_driver_is_stalled_gives_every_chain_back() {
    let mut lab = lab();
    let mut count = 0;
    while !lab.net.blocked {
        lab.transmit(&frame(0, 9000));
        count += 1;
    }
    for _ in 0..10 {
        lab.transmit(&frame(0, 9000));
        count += 1;
    }
    let Lab { mut net, mut driver, peer, .. } = lab;
    drop(peer);
    net.source_ready(0, PollFlags::OUT | PollFlags::HUP, &mut driver.io).unwrap();
    assert_eq!(std::iter::from_fn(|| driver.used(TX)).count(), count);
    assert!(net.backend.is_none());
}

#[test]
fn a_reset_in_the_middle_of_a_frame_keeps_the_stream_in_step() {
    let mut lab = lab();
    let bytes = framed(&frame(1, 500));
    lab.peer.write_all(&bytes[..100]).unwrap();
    assert!(lab.turn());
    while !lab.net.blocked {
        lab.transmit(&frame(2, 9000));
    }
    lab.net.reset();
    lab.driver = Driver::new(&lab.net);
    lab.peer.write_all(&bytes[100..]).unwrap();
    lab.offer(1526);
    assert!(lab.turn());
    assert_eq!(lab.received(), Some(frame(1, 500)));
    assert!(lab.arrived().iter().all(|sent| *sent == frame(2, 9000)));
}

#[test]
fn configuration_says_the_address_the_link_and_the_mtu() {
    let lab = lab();
    let mut space = [9; 14];
    lab.net.config().lock().unwrap().read(0, &mut space);
    assert_eq!(space, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0xdc, 5, 0, 0]);
}

#[test]
fn state_round_trips_and_a_link_that_changed_is_announced() {
    let mut lab = lab();
    let saved = lab.net.save();
    let text = serde_json::to_string(&saved).unwrap();
    let (ours, _peer) = UnixStream::pair().unwrap();
    let mut other = Net::new(Backend::stream(ours.into()), [2, 0, 0, 0, 0, 9], Arc::default()).unwrap();
    other.restore(serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(other.save(), saved);
    lab.driver.kick(&mut other, RX).unwrap();
    assert!(!lab.driver.interrupted());
    other.restore(DeviceState::Net(State { mac: MAC, link_up: false })).unwrap();
    lab.driver.kick(&mut other, RX).unwrap();
    assert!(lab.driver.interrupted());
    assert!(other.restore(DeviceState::Rng).is_err());
}

#[test]
fn a_tap_that_cannot_be_named_or_opened_is_an_error() {
    for name in ["", "a-name-of-sixteen", "tap%d", "a/b"] {
        assert!(Backend::tap(name).is_err(), "{name}");
    }
}

/// The kernel asks over the tap who has an address, the guest answers, and the kernel's datagram follows.
/// Passes unseen where interfaces may not be made.
#[test]
fn a_tap_carries_frames_between_the_kernel_and_the_driver() {
    let name = format!("yt{}", std::process::id());
    let ip = |arguments: &str| {
        let status = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let Ok(tap) = Backend::tap(&name) else {
        return;
    };
    // A sandbox may lend the interface and not the right to use it.
    if !ip(&format!("address add 198.51.100.1/30 dev {name}")) || !ip(&format!("link set {name} up")) {
        return;
    }
    let mut lab = lab();
    lab.net = Net::new(tap, MAC, lab.traffic.clone()).unwrap();
    let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
    socket.send_to(b"hello guest", "198.51.100.2:9").unwrap();
    let next = |lab: &mut Lab, kind: [u8; 2]| {
        let started = Instant::now();
        lab.offer(1526);
        loop {
            lab.turn();
            match lab.received() {
                Some(frame) if frame[12..14] == kind => break frame,
                // The kernel also announces itself in other protocols.
                Some(_) => _ = lab.offer(1526),
                None => std::thread::yield_now(),
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the frame never came");
        }
    };
    let question = next(&mut lab, [8, 6]);
    assert_eq!(question[38..42], [198, 51, 100, 2]);
    let (kernel, answer) = (&question[6..12], [0, 1, 8, 0, 6, 4, 0, 2]);
    let reply = [kernel, &MAC, &[8, 6], &answer, &MAC, &[198, 51, 100, 2], kernel, &[198, 51, 100, 1]].concat();
    lab.transmit(&reply);
    let datagram = next(&mut lab, [8, 0]);
    assert_eq!(datagram[..6], MAC);
    assert!(datagram.ends_with(b"hello guest"));
}

#[test]
fn a_device_thread_carries_frames_both_ways() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let net = Net::new(Backend::stream(ours.into()), MAC, Arc::default()).unwrap();
    let mut driver = Driver::new(&net);
    driver.send(RX, &[], &[2048]);
    driver.send(TX, &[&[0; HEADER], &frame(5, 60)], &[]);
    let nothing = Io { queues: Vec::new(), interrupt: driver.io.interrupt.clone() };
    let io = std::mem::replace(&mut driver.io, nothing);
    let worker = super::super::worker::Worker::start(Box::new(net), io, Arc::default()).unwrap();
    let mut bytes = [0; 64];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..], framed(&frame(5, 60)));
    peer.write_all(&framed(&frame(6, 70))).unwrap();
    let started = Instant::now();
    let (head, length) = loop {
        match driver.used(RX) {
            Some(used) => break used,
            None => assert!(started.elapsed() < Duration::from_secs(10), "the frame never came"),
        }
        std::thread::yield_now();
    };
    assert_eq!(driver.written(RX, head)[HEADER..length as usize], frame(6, 70));
    worker.stop().unwrap();
}

proptest! {
    #[test]
    fn no_chain_harms_the_device(
        chains in prop::collection::vec((0..2usize, prop::collection::vec((0..MEMORY * 2, any::<u32>(), 0u16..8), 1..6)), 1..6),
    ) {
        let mut lab = lab();
        lab.peer.write_all(&framed(&frame(1, 100)).repeat(8)).unwrap();
        for (queue, chain) in &chains {
            lab.driver.send_raw(*queue, chain);
        }
        for queue in [RX, TX] {
            let _ = lab.driver.kick(&mut lab.net, queue);
        }
        let _ = lab.net.source_ready(0, PollFlags::IN, &mut lab.driver.io);
        // The rings lie in low memory, where a hostile chain may point too: a fresh driver proves that the device lives.
        lab.net.reset();
        let mut peer = lab.peer.try_clone().unwrap();
        let _ = peer.read_to_end(&mut Vec::new());
        lab.driver = Driver::new(&lab.net);
        lab.transmit(&frame(3, 60));
        let arrived = lab.arrived();
        prop_assert_eq!(arrived.last(), Some(&frame(3, 60)));
    }

    #[test]
    fn frames_survive_any_splitting_of_the_stream(
        lengths in prop::collection::vec(MIN_FRAME..3000, 1..20),
        cuts in prop::collection::vec(1..4000usize, 1..40),
    ) {
        let mut lab = lab();
        let frames: Vec<_> = lengths.iter().enumerate().map(|(index, length)| frame(index as u8, *length)).collect();
        for _ in &frames {
            lab.offer(4096);
        }
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            lab.peer.write_all(now).unwrap();
            while lab.turn() {}
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        for frame in frames {
            prop_assert_eq!(lab.received(), Some(frame));
        }
    }
}

#[test]
fn a_limited_link_carries_a_seconds_worth_at_once_and_the_rest_in_time_both_ways() {
    let rate = RateLimit { operations: Some(50), bytes: None };
    for direction in [TX, RX] {
        let mut lab = lab();
        lab.net = lab.net.with_limit(Limit::new(Some(&rate)).unwrap());
        let start = Instant::now();
        let sent = frame(7, 100);
        for _ in 0..60 {
            match direction {
                TX => drop(lab.transmit(&sent)),
                _ => {
                    lab.offer(2000);
                    lab.peer.write_all(&framed(&sent)).unwrap();
                }
            }
        }
        for _ in 0..60 {
            lab.driver.wait_used(&mut lab.net, direction);
        }
        // Fifty at once, ten at fifty a second; no more than that is promised to be held back.
        assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
        if direction == TX {
            assert_eq!(lab.arrived(), vec![sent; 60]);
        }
    }
}
