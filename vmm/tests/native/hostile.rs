//! Guests that break every rule. A misbehaving driver costs its device until it is reset, and nothing else.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread;

use crate::machine::Machine;

#[test]
fn hostile_queues_and_registers_of_disks_and_entropy_cost_only_their_device() {
    let mut machine = Machine::boot("test=hostile").disk("a", 1 << 20).readonly_disk("b", &[7; 4096]).start();
    for device in ["device 2 in slot 0", "device 2 in slot 1", "device 4 in slot 2"] {
        assert!(machine.expect("survived").starts_with(device));
    }
    machine.succeeds();
    assert_eq!(std::fs::read(machine.path("b")).unwrap(), [7; 4096]);
}

#[test]
fn hostile_queues_and_registers_of_the_display_cost_only_their_device() {
    let mut machine = Machine::boot("test=hostile").display(640, 480).start();
    let _viewer = machine.viewer();
    for device in ["device 16", "device 18", "device 18", "device 4"] {
        assert!(machine.expect("survived").starts_with(device));
    }
    machine.succeeds();
}

#[test]
fn hostile_queues_and_registers_of_network_and_sockets_cost_only_their_device() {
    let plan = Machine::boot("test=hostile").net().vsock(3);
    let listener = UnixListener::bind(plan.path("net.sock")).unwrap();
    let mut machine = plan.start();
    let (mut stream, _) = listener.accept().unwrap();
    thread::spawn(move || {
        let mut frames = [0; 4096];
        while stream.read(&mut frames).is_ok_and(|length| length > 0) {}
    });
    for device in ["device 1 ", "device 4 ", "device 19 "] {
        let line = machine.expect("survived");
        assert!(line.starts_with(device), "{line}");
    }
    machine.succeeds();
}

#[test]
fn hostile_queues_and_registers_of_the_balloon_cost_only_memory_of_the_guest() {
    let mut machine = Machine::boot("test=hostile").balloon().control().start();
    for device in ["device 4 ", "device 5 "] {
        let line = machine.expect("survived");
        assert!(line.starts_with(device), "{line}");
    }
    machine.succeeds();
}

#[test]
fn gpu_commands_that_make_no_sense_are_refused_and_the_screen_goes_on() {
    let mut machine = Machine::boot("test=hostile-gpu").display(640, 480).start();
    let mut viewer = machine.viewer();
    viewer.wait("the good picture", |viewer| viewer.pixel(63, 63) == Some(0x11_2233));
    machine.succeeds();
}

#[test]
fn ports_and_addresses_without_a_device_read_as_something_and_do_nothing() {
    Machine::boot("test=hostile-ports").start().succeeds();
}
