//! Guests that break the rules or go to the limits.

use proptest::prelude::{any, prop, prop_assert_eq, proptest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::devices::virtio::testing::MEMORY;

#[test]
fn a_guest_that_exceeds_its_credit_is_reset() {
    let mut lab = lab();
    let mut host = lab.open_from_guest(1);
    let mut packets = 0;
    let reset = loop {
        lab.send(guest(RW, 1000, 1), &[5; 16 << 10]);
        packets += 1;
        assert!(packets < 1000, "never reset");
        match lab.next() {
            Some((header, _)) if header.op == RST => break header,
            Some(_) => lab.offer(1),
            None => {}
        }
    };
    assert_eq!({ reset.dst_port }, 1000);
    assert!(lab.vsock.connections.is_empty());
    assert!(closed(&mut host));
}

#[test]
fn packets_that_break_the_rules_are_reset_or_ignored() {
    let unknown = |op| guest(op, 1, 2);
    let to_another = Header { dst_cid: 9, ..guest(REQUEST, 1, 2) };
    let datagram = Header { kind: 3, ..guest(REQUEST, 1, 2) };
    for header in [unknown(RESPONSE), unknown(RW), unknown(SHUTDOWN), unknown(CREDIT_REQUEST), unknown(77), to_another]
    {
        let mut lab = lab();
        lab.send(header, &[]);
        let (reset, _) = lab.next().unwrap();
        assert_eq!(({ reset.op }, { reset.src_cid }, { reset.src_port }), (RST, header.dst_cid, 2), "{header:?}");
    }
    let mut lab = lab();
    lab.send(datagram, &[]);
    assert!(lab.driver.used(RX).is_some(), "a reset of the same type");
    lab.send(Header { src_cid: 8, ..guest(REQUEST, 1, 2) }, &[]);
    lab.send(unknown(RST), &[]);
    lab.send(Header { dst_cid: 9, ..guest(RST, 1, 2) }, &[]);
    lab.driver.send(TX, &[&[1; LENGTH - 1]], &[]);
    lab.driver.kick(&mut lab.vsock, TX).unwrap();
    assert_eq!(lab.next(), None, "ignored");
}

#[test]
fn packets_that_an_open_connection_does_not_expect_reset_it() {
    for header in [guest(REQUEST, 1000, 1), guest(RESPONSE, 1000, 1), guest(0, 1000, 1), guest(99, 1000, 1)] {
        let mut lab = lab();
        let mut host = lab.open_from_guest(1);
        lab.send(header, &[]);
        assert_eq!(lab.next_op(), Some((RST, 0)), "{header:?}");
        assert!(closed(&mut host));
    }
    for length in [5, BUFFER + 1, u32::MAX] {
        let mut lab = lab();
        let mut host = lab.open_from_guest(1);
        let header = Header { len: length, ..guest(RW, 1000, 1) };
        lab.driver.send(TX, &[header.as_slice(), b"four"], &[]);
        lab.driver.kick(&mut lab.vsock, TX).unwrap();
        assert_eq!(lab.next_op(), Some((RST, 0)), "{length} bytes announced, 4 sent");
        assert!(closed(&mut host));
    }
}

#[test]
fn a_guest_without_buffers_stalls_only_itself_and_goes_on_when_it_offers_some() {
    let folder = tempfile::tempdir().unwrap();
    let vsock = Vsock::new(CID, folder.path().join("v")).unwrap();
    let driver = Driver::new(&vsock);
    let mut lab = Lab { vsock, driver, folder };
    let mut sent = 0;
    for _ in 0..MAX_REPLIES + 40 {
        lab.driver.send(TX, &[guest(REQUEST, sent, 1).as_slice()], &[]);
        lab.driver.kick(&mut lab.vsock, TX).unwrap();
        sent += 1;
        if sent as usize <= MAX_REPLIES {
            assert!(lab.driver.used(TX).is_some());
        }
    }
    assert_eq!(lab.driver.used(TX), None, "enough answers wait");
    assert_eq!(lab.vsock.replies.len(), MAX_REPLIES);
    let _client = UnixStream::connect(lab.folder.path().join("v")).unwrap();
    assert!(!lab.turn(), "no clients are taken meanwhile");
    for expected in 0..sent {
        lab.offer(1);
        let (header, _) = lab.next().unwrap();
        assert_eq!(({ header.op }, { header.dst_port }), (RST, expected));
    }
    assert_eq!(lab.next(), None);
}

#[test]
fn buffers_too_short_for_a_packet_are_given_back_empty() {
    let folder = tempfile::tempdir().unwrap();
    let vsock = Vsock::new(CID, folder.path().join("v")).unwrap();
    let driver = Driver::new(&vsock);
    let mut lab = Lab { vsock, driver, folder };
    for length in [0, LENGTH - 1, LENGTH, LENGTH, LENGTH + 10] {
        lab.driver.send(RX, &[], &[length]);
    }
    let mut host = UnixStream::connect(lab.folder.path().join("v")).unwrap();
    host.write_all(b"CONNECT 5\n").unwrap();
    lab.settle();
    for written in [0, 0, LENGTH as u32] {
        assert_eq!(lab.driver.used(RX).map(|(_, length)| length), Some(written));
    }
    lab.send(guest(RESPONSE, 5, FIRST_PORT), &[]);
    host.write_all(b"0123456789abcdef").unwrap();
    lab.settle();
    for written in [0, LENGTH as u32 + 10] {
        assert_eq!(lab.driver.used(RX).map(|(_, length)| length), Some(written));
    }
}

#[test]
fn there_are_no_more_connections_than_the_limit() {
    let mut lab = lab();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    for guest_port in 0..MAX_CONNECTIONS as u32 {
        let ports = Ports { guest: guest_port, host: 9 };
        lab.vsock.connections.insert(ports, Connection::requested(0, ports, socket.try_clone().unwrap()));
    }
    let _listener = lab.listen(1);
    lab.send(guest(REQUEST, 1_000_000, 1), &[]);
    assert_eq!(lab.driver.used(RX).map(|(_, length)| length), Some(LENGTH as u32));
    assert_eq!(lab.vsock.connections.len(), MAX_CONNECTIONS);
    let mut interest = Vec::new();
    lab.vsock.sources(&mut interest);
    assert!(!lab.vsock.polled.borrow().iter().any(|source| matches!(source, Source::Listener)));
}

proptest! {
    #[test]
    fn no_chain_harms_the_device(
        chains in prop::collection::vec((0..3usize, prop::collection::vec((0..MEMORY * 2, any::<u32>(), 0u16..8), 1..6)), 1..6),
    ) {
        let mut lab = lab();
        let _host = lab.open_from_guest(1);
        for (queue, chain) in &chains {
            lab.driver.send_raw(*queue, chain);
        }
        for queue in [RX, TX, EVENT] {
            let _ = lab.driver.kick(&mut lab.vsock, queue);
        }
        // The rings lie in low memory, where a hostile chain may point too: a fresh driver proves that the device lives.
        lab.vsock.reset();
        lab.driver = Driver::new(&lab.vsock);
        lab.offer(1);
        lab.send(guest(REQUEST, 1, 77), &[]);
        prop_assert_eq!(lab.next_op(), Some((RST, 0)));
    }

    #[test]
    fn no_sequence_of_packets_harms_the_device(
        packets in prop::collection::vec(
            (0..9u16, 0..2u32, 0..3u32, any::<u32>(), 0..200usize, any::<(u32, u32)>(), 0..6u32), 1..60),
    ) {
        let mut lab = lab();
        let _listener = lab.listen(1);
        let mut host = lab.open_from_host(0).0;
        host.write_all(&[1; 5000]).unwrap();
        for (op, guest_port, host_port, flags, length, (buf_alloc, fwd_cnt), more) in packets {
            let host_port = if host_port == 2 { FIRST_PORT } else { host_port };
            let header = Header { flags, buf_alloc, fwd_cnt, len: length as u32 + more / 5, ..guest(op, guest_port, host_port) };
            lab.driver.send(TX, &[header.as_slice(), &vec![0; length]], &[]);
            lab.driver.kick(&mut lab.vsock, TX).unwrap();
            lab.offer(1);
            lab.settle();
        }
        while lab.driver.used(RX).is_some() {}
        lab.offer(8);
        while lab.driver.used(RX).is_some() {}
        lab.send(guest(REQUEST, 5, 77), &[]);
        lab.settle();
        prop_assert_eq!(lab.driver.used(RX).map(|(_, length)| length), Some(LENGTH as u32));
    }
}
