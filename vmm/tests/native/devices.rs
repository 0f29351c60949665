//! Every virtio device, by a driver in the guest.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use yunju_protocol::control::Counters;
use yunju_protocol::display::Request;

use crate::machine::{Machine, PATIENCE, connect, refused};

const MAC: &str = "52:54:00:12:34:56";

#[test]
fn a_disk_keeps_what_is_written_and_refuses_what_is_beyond_its_end() {
    let mut machine = Machine::boot("test=blk").disk("data.img", 4 << 20).start();
    machine.succeeds();
    let bytes = fs::read(machine.path("data.img")).unwrap();
    assert_eq!(bytes.len(), 4 << 20);
    assert!(bytes[512..].starts_with(b"written by the probe\r\n"));
    // Sectors 8 to 23 were discarded: they read as zeros, and take no room.
    assert!(bytes[8 * 512..24 * 512].iter().all(|byte| *byte == 0));
    assert!(bytes[24 * 512..32 * 512].iter().any(|byte| *byte != 0));
    let room = fs::metadata(machine.path("data.img")).unwrap().blocks() * 512;
    assert!(room < 1 << 20, "256 KiB were written and {room} bytes are used");
}

#[test]
fn a_read_only_disk_is_never_written() {
    let bytes: Vec<u8> = b"keep me".iter().copied().cycle().take(8192).collect();
    let mut machine = Machine::boot("test=blk-ro").readonly_disk("base.img", &bytes).start();
    machine.succeeds();
    assert_eq!(fs::read(machine.path("base.img")).unwrap(), bytes);
}

#[test]
fn a_writable_disk_belongs_to_one_machine_at_a_time_and_a_read_only_one_to_all() {
    let mut first = Machine::boot("test=spin").disk("mine", 512).readonly_disk("ours", &[0; 512]).start();
    first.expect("TICK");
    let kernel = crate::machine::guest("probe");
    let run = |disk: &str| {
        let kernel = kernel.to_str().unwrap();
        refused(
            first.path("").as_path(),
            &["run", "--kernel", kernel, "--cmdline", "test=poweroff", "--memory", "64M", "--disk", disk],
        )
    };
    let output = run("mine");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(complaint, "yunju-vmm: error: disk mine: another machine writes to it");
    assert_eq!(run("ours,readonly").status.code(), Some(0));
}

#[test]
fn each_request_has_its_interrupt_after_its_answer() {
    Machine::boot("test=irq").start().succeeds();
}

#[test]
fn entropy_is_not_the_same_twice() {
    Machine::boot("test=rng").start().succeeds();
}

/// Sends one frame with its length before it, as passt does.
fn send_frame(stream: &mut UnixStream, frame: &[u8]) {
    let length = u32::try_from(frame.len()).expect("a frame is short");
    stream.write_all(&[&length.to_be_bytes(), frame].concat()).expect("the machine reads frames");
}

fn receive_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a frame comes");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).expect("the frame is whole");
    frame
}

#[test]
fn frames_reach_the_guest_and_come_back() {
    let plan = Machine::boot("test=net").net().args(["--mac", MAC]).control();
    let listener = UnixListener::bind(plan.path("net.sock")).unwrap();
    let mut machine = plan.start();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(machine.expect("mac").contains(MAC));
    let hello = receive_frame(&mut stream);
    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    assert_eq!(hello[..6], [0xff; 6]);
    assert_eq!(hello[6..12], mac);
    assert_eq!(hello[12..19], *b"\x88\xb5hello");
    machine.expect("READY");

    let sender = [2, 0, 0, 0, 0, 1];
    let mut bytes = 0;
    for length in [60, 61, 200, 1000, 1514] {
        let mut frame: Vec<u8> = (0..length).map(|at: u32| at as u8).collect();
        frame[..6].copy_from_slice(&mac);
        frame[6..12].copy_from_slice(&sender);
        send_frame(&mut stream, &frame);
        let back = receive_frame(&mut stream);
        assert_eq!(back[..6], sender);
        assert_eq!(back[6..12], mac);
        assert_eq!(back[12..], frame[12..], "a frame of {length} bytes");
        bytes += u64::from(length);
    }
    let counters: Counters = machine.get("/machine/counters");
    assert!(counters.net_received_bytes >= bytes && counters.net_sent_bytes >= bytes, "{counters:?}");

    let mut end = [0; 60];
    end[6..12].copy_from_slice(&sender);
    end[14..17].copy_from_slice(b"end");
    // In pieces: a stream knows no frames.
    let message = [&60_u32.to_be_bytes()[..], &end].concat();
    for piece in message.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    machine.succeeds();
}

#[test]
fn a_network_that_ends_or_talks_nonsense_does_not_end_the_machine() {
    for nonsense in [&[][..], &[0xff; 100], &[0, 0, 0, 0]] {
        let plan = Machine::boot("test=net").net().control();
        let listener = UnixListener::bind(plan.path("net.sock")).unwrap();
        let mut machine = plan.start();
        let (mut stream, _) = listener.accept().unwrap();
        machine.expect("READY");
        stream.write_all(nonsense).unwrap();
        drop(stream);
        drop(listener);
        let running = machine.get::<yunju_protocol::control::MachineInfo>("/machine");
        assert_eq!(running.state, yunju_protocol::control::MachineState::Running);
        machine.request("POST", "/machine/kill");
        assert_eq!(machine.end().0, 0);
    }
}

#[test]
fn keys_pointer_and_wheel_reach_the_guest_as_events_and_lamps_come_back() {
    let mut machine = Machine::boot("test=input").display(640, 480).start();
    let mut viewer = machine.viewer();
    machine.expect("READY");
    viewer.wait("caps lock", |viewer| viewer.leds == Some(4));
    viewer.ask(&Request::Key { code: 30, down: true });
    assert!(machine.expect("EVENT").ends_with(" 1 30 1"));
    assert!(machine.expect("EVENT").ends_with(" 0 0 0"));
    viewer.ask(&Request::Key { code: 30, down: false });
    assert!(machine.expect("EVENT").ends_with(" 1 30 0"));
    machine.expect(" 0 0 0");

    viewer.ask(&Request::Pointer { x: 16384, y: 32767, buttons: 0b101 });
    for event in [" 3 0 16384", " 3 1 32767", " 1 272 1", " 1 273 1", " 0 0 0"] {
        let line = machine.expect("EVENT");
        assert!(line.ends_with(event), "{line} instead of {event}");
    }
    viewer.ask(&Request::Pointer { x: 16384, y: 32767, buttons: 0 });
    machine.expect(" 1 272 0");
    machine.expect(" 1 273 0");
    viewer.ask(&Request::Wheel { horizontal: 0, vertical: -3 });
    machine.expect(" 2 8 -3");

    // A client that leaves lets go of what it held.
    viewer.ask(&Request::Key { code: 42, down: true });
    machine.expect(" 1 42 1");
    drop(viewer);
    machine.expect(" 1 42 0");

    let last = machine.viewer();
    last.tap(1);
    machine.succeeds();
}

#[test]
fn sockets_go_both_ways_between_guest_and_host() {
    let plan = Machine::boot("test=vsock").vsock(3);
    let echo = UnixListener::bind(plan.path("vsock.sock_7")).unwrap();
    let mut machine = plan.start();
    let echoing = thread::spawn(move || {
        let (stream, _) = echo.accept().unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream).unwrap()
    });
    assert_eq!(machine.expect("cid"), "cid 3");
    machine.expect("echoed 1048576 bytes");
    assert_eq!(echoing.join().unwrap(), 1 << 20);

    machine.expect("READY");
    let mut stream = connect(&machine.path("vsock.sock"));
    stream.write_all(b"CONNECT 52\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"OK "), "{}", String::from_utf8_lossy(&answer));
    for words in [&b"hello"[..], &[0x5a; 3000]] {
        stream.write_all(words).unwrap();
        let mut back = vec![0; words.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, words);
    }
    drop(stream);
    machine.succeeds();
}
