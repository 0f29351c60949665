//! A guest's driver and programs of the host talk through the device.

mod hostile;
mod notify;

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, Timespec, poll};

use super::super::testing::Driver;
use super::packet::*;
use super::*;

const CID: u32 = 7;
const ROOM: u32 = 256 << 10;

/// A device, its guest's driver, and a folder for the host's sockets.
struct Lab {
    vsock: Vsock,
    driver: Driver,
    folder: tempfile::TempDir,
}

fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let vsock = Vsock::new(CID, folder.path().join("v")).unwrap();
    let driver = Driver::new(&vsock);
    let mut lab = Lab { vsock, driver, folder };
    lab.offer(32);
    lab
}

/// A packet of the guest.
fn guest(op: u16, guest: u32, host: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: STREAM,
        op,
        buf_alloc: ROOM,
        ..Header::default()
    }
}

impl Lab {
    /// One round of what the device's thread does. False if there was nothing to do.
    fn turn(&mut self) -> bool {
        let mut interest = Vec::new();
        self.vsock.sources(&mut interest);
        let mut fds: Vec<_> = interest.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0 {
            return false;
        }
        let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
        for (index, events) in events.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            self.vsock.source_ready(index, events, &mut self.driver.io).unwrap();
        }
        true
    }

    /// Turns until nothing is left to do; a device that spins fails the test.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the device finds no rest");
    }

    /// Offers receive buffers.
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            self.driver.send(RX, &[], &[LENGTH + 4096]);
        }
        self.driver.kick(&mut self.vsock, RX).unwrap();
    }

    fn send(&mut self, header: Header, data: &[u8]) {
        let header = Header { len: data.len() as u32, ..header };
        self.driver.send(TX, &[header.as_slice(), data], &[]);
        self.driver.kick(&mut self.vsock, TX).unwrap();
        assert!(self.driver.used(TX).is_some(), "the chain is given back");
    }

    /// The next packet that the guest receives.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        self.settle();
        let (head, length) = self.driver.used(RX)?;
        let mut bytes = self.driver.written(RX, head);
        bytes.truncate(length as usize);
        let data = bytes.split_off(LENGTH);
        let header = *Header::from_slice(&bytes).unwrap();
        assert_eq!({ header.len } as usize, data.len());
        assert_eq!((header.dst_cid, header.kind), (CID.into(), STREAM));
        Some((header, data))
    }

    /// The next packet's operation and flags.
    fn next_op(&mut self) -> Option<(u16, u32)> {
        self.next().map(|(header, _)| (header.op, header.flags))
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("v_{port}"))).unwrap()
    }

    /// A program of the host that has asked for the guest's `port`, and the host's port.
    fn ask(&mut self, port: u32) -> (UnixStream, u32) {
        let mut host = UnixStream::connect(self.folder.path().join("v")).unwrap();
        host.set_nonblocking(true).unwrap();
        writeln!(host, "CONNECT {port}").unwrap();
        let (request, _) = self.next().unwrap();
        assert_eq!(({ request.op }, { request.dst_port }, { request.src_cid }), (REQUEST, port, HOST_CID));
        (host, request.src_port)
    }

    /// A connection that the host has opened.
    fn open_from_host(&mut self, port: u32) -> (UnixStream, u32) {
        let (mut host, ours) = self.ask(port);
        self.send(guest(RESPONSE, port, ours), &[]);
        assert_eq!(drain(&mut host), format!("OK {ours}\n").as_bytes());
        (host, ours)
    }

    /// A connection that the guest has opened, from its port 1000 to the host's `port`.
    fn open_from_guest(&mut self, port: u32) -> UnixStream {
        let listener = self.listen(port);
        self.send(guest(REQUEST, 1000, port), &[]);
        assert_eq!(self.next_op(), Some((RESPONSE, 0)));
        let (host, _) = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        host
    }
}

/// All that can be read now.
fn drain(socket: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        Ok(_) => panic!("closed after {bytes:?}"),
    }
    bytes
}

fn closed(socket: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_program_of_the_host_reaches_the_guest_and_both_talk() {
    let mut lab = lab();
    let (mut host, ours) = lab.open_from_host(52);
    host.write_all(b"ping").unwrap();
    let (header, data) = lab.next().unwrap();
    assert_eq!(({ header.op }, { header.src_port }, { header.dst_port }, data), (RW, ours, 52, b"ping".to_vec()));
    lab.send(guest(RW, 52, ours), b"pong");
    assert_eq!(drain(&mut host), b"pong");
    assert!(lab.driver.interrupted());
}

#[test]
fn what_follows_the_first_line_waits_for_the_guest_to_accept() {
    let mut lab = lab();
    let mut host = UnixStream::connect(lab.folder.path().join("v")).unwrap();
    host.write_all(b"CONNECT 5\nearly").unwrap();
    let (request, _) = lab.next().unwrap();
    assert_eq!(lab.next(), None);
    lab.send(guest(RESPONSE, 5, request.src_port), &[]);
    assert_eq!(lab.next().unwrap().1, b"early");
}

#[test]
fn a_guest_that_refuses_closes_the_host_program() {
    let mut lab = lab();
    let (mut host, ours) = lab.ask(52);
    lab.send(guest(RST, 52, ours), &[]);
    assert!(closed(&mut host));
    assert!(lab.vsock.connections.is_empty());
    assert_eq!(lab.next(), None, "a reset is not answered");
}

#[test]
fn a_client_that_talks_nonsense_or_leaves_is_dropped() {
    let mut lab = lab();
    let mut nonsense = UnixStream::connect(lab.folder.path().join("v")).unwrap();
    nonsense.write_all(b"GET / HTTP/1.1\n").unwrap();
    drop(UnixStream::connect(lab.folder.path().join("v")).unwrap());
    let (host, _) = lab.ask(9);
    drop(host);
    assert_eq!(lab.next_op(), Some((RST, 0)), "it left before the guest answered");
    assert!(closed(&mut nonsense));
    assert!(lab.vsock.clients.is_empty() && lab.vsock.connections.is_empty());
}

#[test]
fn a_guest_reaches_a_listener_of_the_host_and_both_talk() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1024);
    lab.send(guest(RW, 1000, 1024), b"ping");
    assert_eq!(drain(&mut host), b"ping");
    host.write_all(b"pong").unwrap();
    assert_eq!(lab.next().unwrap().1, b"pong");
}

#[test]
fn a_port_that_nobody_listens_on_is_refused() {
    let mut lab = lab();
    lab.send(guest(REQUEST, 1000, 1), &[]);
    let (header, _) = lab.next().unwrap();
    assert_eq!(({ header.op }, { header.src_port }, { header.dst_port }), (RST, 1, 1000));
    drop(lab.listen(2));
    lab.send(guest(REQUEST, 1000, 2), &[]);
    assert_eq!(lab.next_op(), Some((RST, 0)), "a socket left behind");
}

#[test]
fn the_guest_is_sent_no_more_than_it_has_room_for_and_the_rest_later() {
    let mut lab = lab();
    let listener = lab.listen(1);
    lab.send(Header { buf_alloc: 1000, ..guest(REQUEST, 1000, 1) }, &[]);
    assert_eq!(lab.next_op(), Some((RESPONSE, 0)));
    let mut host = listener.accept().unwrap().0;
    host.write_all(&[1; 2500]).unwrap();
    assert_eq!(lab.next().unwrap().1.len(), 1000);
    assert_eq!(lab.next_op(), Some((CREDIT_REQUEST, 0)));
    assert_eq!(lab.next(), None);
    lab.send(Header { buf_alloc: 1000, fwd_cnt: 600, ..guest(CREDIT_UPDATE, 1000, 1) }, &[]);
    assert_eq!(lab.next().unwrap().1.len(), 600);
    assert_eq!(lab.next_op(), Some((CREDIT_REQUEST, 0)));
    // A guest that takes back room that it had given, or claims to have taken more than it was sent, gets nothing.
    lab.send(Header { buf_alloc: 0, fwd_cnt: 1600, ..guest(CREDIT_UPDATE, 1000, 1) }, &[]);
    lab.send(Header { buf_alloc: 1000, fwd_cnt: 5000, ..guest(CREDIT_UPDATE, 1000, 1) }, &[]);
    assert_eq!(lab.next(), None);
    lab.send(Header { buf_alloc: 1000, fwd_cnt: 1600, ..guest(CREDIT_UPDATE, 1000, 1) }, &[]);
    assert_eq!(lab.next().unwrap().1.len(), 900);
}

#[test]
fn a_guest_within_its_credit_loses_nothing_and_hears_of_new_credit() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1);
    let (mut sent, mut forwarded): (u32, u32) = (0, 0);
    let mut expected = Vec::new();
    let mut received = Vec::new();
    // First until the host's socket and the device's buffer are full, then as the host reads.
    for round in 0..2000_u32 {
        if sent - forwarded + 4000 <= BUFFER {
            let data: Vec<u8> = (0..4000).map(|index| (round + index) as u8).collect();
            lab.send(guest(RW, 1000, 1), &data);
            expected.extend(data);
            sent += 4000;
        } else {
            received.extend(drain(&mut host));
        }
        while let Some((header, _)) = lab.next() {
            assert_eq!({ header.op }, CREDIT_UPDATE);
            assert_eq!({ header.buf_alloc }, BUFFER);
            assert!(header.fwd_cnt > forwarded && header.fwd_cnt <= sent);
            forwarded = header.fwd_cnt;
            lab.offer(1);
        }
    }
    assert!(expected.len() > 1 << 20, "never stuck: {}", expected.len());
    received.extend(drain(&mut host));
    lab.settle();
    received.extend(drain(&mut host));
    assert_eq!(received.len(), expected.len());
    assert!(received == expected);
}

#[test]
fn a_host_that_shuts_its_sending_down_still_receives() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1);
    host.write_all(b"last").unwrap();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(lab.next().unwrap().1, b"last");
    assert_eq!(lab.next_op(), Some((SHUTDOWN, NO_SEND)));
    lab.send(guest(RW, 1000, 1), b"answer");
    assert_eq!(drain(&mut host), b"answer");
    drop(host);
    assert_eq!(lab.next_op(), Some((SHUTDOWN, OVER)));
    assert_eq!(lab.next(), None);
    lab.send(guest(RST, 1000, 1), &[]);
    assert!(lab.vsock.connections.is_empty());
}

#[test]
fn data_for_a_host_that_has_closed_is_answered_by_a_reset() {
    let mut lab = lab();
    drop(lab.open_from_guest(1));
    assert_eq!(lab.next_op(), Some((SHUTDOWN, NO_SEND)));
    assert_eq!(lab.next_op(), Some((SHUTDOWN, OVER)));
    lab.send(guest(RW, 1000, 1), b"late");
    assert_eq!(lab.next_op(), Some((RST, 0)));
    assert!(lab.vsock.connections.is_empty());
}

#[test]
fn a_guest_that_closes_is_confirmed_after_the_host_has_all_its_data() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1);
    let mut packets = 0;
    // Until something has to wait in the device.
    while lab.vsock.connections.values().all(|connection| connection.interest(true).is_none()) {
        lab.send(guest(RW, 1000, 1), &[5; 4096]);
        packets += 1;
        while lab.next().is_some() {
            lab.offer(1);
        }
        assert!(packets < 1000, "the host's socket never fills");
    }
    lab.send(Header { flags: OVER, ..guest(SHUTDOWN, 1000, 1) }, &[]);
    assert_eq!(lab.next(), None, "not yet");
    let mut received = drain(&mut host);
    loop {
        lab.settle();
        let mut piece = vec![0; 1 << 20];
        match host.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => received.extend(&piece[..length]),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(received.len(), packets * 4096);
    assert_eq!(std::iter::from_fn(|| lab.next_op()).last(), Some((RST, 0)));
    assert!(lab.vsock.connections.is_empty());
}

#[test]
fn a_guest_that_shuts_its_sending_down_still_receives() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1);
    lab.send(Header { flags: NO_SEND, ..guest(SHUTDOWN, 1000, 1) }, &[]);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    host.write_all(b"still").unwrap();
    assert_eq!(lab.next().unwrap().1, b"still");
    lab.send(guest(RW, 1000, 1), b"broken promise");
    assert_eq!(lab.next_op(), Some((RST, 0)));
}

#[test]
fn a_credit_request_is_answered() {
    let mut lab = lab();
    let _host = lab.open_from_guest(1);
    lab.send(guest(RW, 1000, 1), &[0; 100]);
    lab.send(guest(CREDIT_REQUEST, 1000, 1), &[]);
    let (header, _) = lab.next().unwrap();
    assert_eq!(({ header.op }, { header.fwd_cnt }, { header.buf_alloc }), (CREDIT_UPDATE, 100, BUFFER));
}

#[test]
fn data_waits_for_buffers_and_the_socket_is_not_polled_meanwhile() {
    let mut lab = lab();
    let (mut host, _) = lab.open_from_host(5);
    host.write_all(&vec![3; 40 * 4096]).unwrap();
    let mut received = 0;
    while let Some((header, data)) = lab.next() {
        assert_eq!({ header.op }, RW);
        received += data.len();
    }
    assert!(received > 0 && received < 40 * 4096);
    assert!(lab.vsock.starved);
    lab.offer(20);
    while let Some((_, data)) = lab.next() {
        received += data.len();
    }
    assert_eq!(received, 40 * 4096);
}

#[test]
fn a_reset_closes_every_connection() {
    let mut lab = lab();
    let mut sockets = vec![lab.open_from_host(5).0, lab.ask(6).0, lab.open_from_guest(1)];
    sockets.push(UnixStream::connect(lab.folder.path().join("v")).unwrap());
    lab.settle();
    lab.vsock.reset();
    assert!(sockets.iter_mut().all(closed));
    lab.driver = Driver::new(&lab.vsock);
    lab.offer(4);
    lab.open_from_host(5);
}

#[test]
fn configuration_says_the_context_id_and_reserved_ones_are_refused() {
    let lab = lab();
    let mut space = [9; 9];
    lab.vsock.config().lock().unwrap().read(0, &mut space);
    assert_eq!(space, [7, 0, 0, 0, 0, 0, 0, 0, 0]);
    for cid in [0, 1, 2, u32::MAX] {
        let error = Vsock::new(cid, lab.folder.path().join("w")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn state_round_trips_and_the_restored_guest_hears_that_its_connections_are_gone() {
    let mut lab = lab();
    let saved = lab.vsock.save();
    let text = serde_json::to_string(&saved).unwrap();
    let mut other = Vsock::new(9, lab.folder.path().join("w")).unwrap();
    other.restore(serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(other.save(), saved);
    let mut space = [0; 8];
    other.config().lock().unwrap().read(0, &mut space);
    assert_eq!(space, u64::from(CID).to_le_bytes());

    lab.driver.kick(&mut other, EVENT).unwrap();
    let short = lab.driver.send(EVENT, &[], &[3]);
    let whole = lab.driver.send(EVENT, &[], &[4]);
    let unused = lab.driver.send(EVENT, &[], &[4]);
    lab.driver.kick(&mut other, EVENT).unwrap();
    assert_eq!(lab.driver.used(EVENT), Some((short, 0)));
    assert_eq!(lab.driver.used(EVENT), Some((whole, 4)));
    assert_eq!(lab.driver.used(EVENT), None, "{unused} waits for the next event");
    assert!(lab.driver.interrupted());
    assert!(other.restore(DeviceState::Rng).is_err());
}
