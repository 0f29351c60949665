//! Drivers that notify the device only when it asked for that (`EVENT_IDX`).

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::devices::virtio::worker::Worker;

/// The available ring's index, and the index after which the device wants to hear of the next chain. See
/// `Driver::new` for the rings.
fn event_index(driver: &Driver, queue: usize) -> (u16, u16) {
    let ring = 0x1_0000 + queue as u64 * 0x1_0000;
    let wanted = ring + 0xa000 + 4 + [128, 128, 16][queue] * 8;
    let read = |address| driver.memory.read_obj(GuestAddress(address)).unwrap();
    (read(ring + 0x8002), read(wanted))
}

/// Makes a chain available to a device that runs with `EVENT_IDX`, and notifies it only if it asked for that.
fn send_and_notify(driver: &mut Driver, kicks: &[EventFd], queue: usize, readable: &[&[u8]], writable: &[usize]) {
    let (before, _) = event_index(driver, queue);
    driver.send(queue, readable, writable);
    fence(Ordering::SeqCst);
    let (_, wanted) = event_index(driver, queue);
    if wanted == before {
        kicks[queue].write(1).unwrap();
    }
}

#[test]
fn an_answer_that_finds_no_buffer_asks_the_driver_to_notify_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let vsock = Vsock::new(CID, folder.path().join("v")).unwrap();
    let driver = Driver::new(&vsock);
    let mut lab = Lab { vsock, driver, folder };
    lab.driver.io.queues[RX].ring.set_event_idx(true);
    lab.offer(2);
    for port in 0..3 {
        lab.send(guest(REQUEST, port, 1), &[]);
    }
    assert_eq!(event_index(&lab.driver, RX), (2, 2));
}

#[test]
fn a_device_thread_echoes_a_megabyte_to_a_driver_that_notifies_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v");
    let vsock = Vsock::new(CID, path.clone()).unwrap();
    let mut driver = Driver::new(&vsock);
    for _ in 0..8 {
        driver.send(RX, &[], &[LENGTH + 4096]);
    }
    let nothing = Io { queues: Vec::new(), interrupt: driver.io.interrupt.clone() };
    let mut io = std::mem::replace(&mut driver.io, nothing);
    io.queues.iter_mut().for_each(|queue| queue.ring.set_event_idx(true));
    let kicks: Vec<_> = io.queues.iter().map(|queue| queue.kick.try_clone().unwrap()).collect();
    let worker = Worker::start(Box::new(vsock), io, Arc::new(AtomicBool::new(false))).unwrap();

    let host = std::thread::spawn(move || {
        let mut host = UnixStream::connect(path).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        host.write_all(b"CONNECT 52\n").unwrap();
        let mut line = [0; 14];
        host.read_exact(&mut line).unwrap();
        assert_eq!(&line, format!("OK {FIRST_PORT}\n").as_bytes());
        let sent: Vec<u8> = (0..1 << 20).map(|index: u32| ((index * 7) >> 3) as u8).collect();
        let mut writer = host.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut received = vec![0; sent.len()];
        host.read_exact(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
    });

    // The guest: accepts, and sends back whatever comes.
    let (mut taken, mut sent, mut forwarded) = (0_u32, 0_u32, 0_u32);
    let mut waiting: VecDeque<(u16, Vec<u8>)> = VecDeque::new();
    let started = Instant::now();
    while !host.is_finished() {
        assert!(started.elapsed() < Duration::from_secs(20), "stuck after {sent} bytes");
        while driver.used(TX).is_some() {}
        if let Some((head, length)) = driver.used(RX) {
            let mut bytes = driver.written(RX, head);
            bytes.truncate(length as usize);
            let data = bytes.split_off(LENGTH);
            let header = *Header::from_slice(&bytes).unwrap();
            forwarded = header.fwd_cnt;
            taken += data.len() as u32;
            match header.op {
                REQUEST => waiting.push_back((RESPONSE, data)),
                RW => waiting.push_back((RW, data)),
                CREDIT_REQUEST => waiting.push_front((CREDIT_UPDATE, data)),
                _ => {}
            }
            send_and_notify(&mut driver, &kicks, RX, &[], &[LENGTH + 4096]);
        } else {
            std::thread::yield_now();
        }
        if waiting.front().is_some_and(|(_, data)| sent - forwarded + data.len() as u32 <= BUFFER)
            && let Some((op, data)) = waiting.pop_front()
        {
            sent += data.len() as u32;
            let header = Header { len: data.len() as u32, fwd_cnt: taken, ..guest(op, 52, FIRST_PORT) };
            send_and_notify(&mut driver, &kicks, TX, &[header.as_slice(), &data], &[]);
        }
    }
    host.join().unwrap();
    worker.stop().unwrap();
}
