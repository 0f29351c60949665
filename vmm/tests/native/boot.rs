//! Entry state, memory, processors, tables, serial port, clock.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::machine::{Machine, VMM, connect, eventually, guest};

#[test]
fn a_guest_starts_with_its_command_line_memory_map_and_kvm_clock() {
    let mut machine = Machine::boot("test=hello one=1 two").start();
    assert_eq!(machine.expect("command line"), "command line: test=hello one=1 two");
    machine.expect("memory 0x0 + ");
    machine.succeeds();
}

#[test]
fn all_memory_is_there_below_the_hole() {
    let mut machine = Machine::boot("test=memory memory=67108864").start();
    machine.succeeds();
}

#[test]
fn memory_goes_on_above_the_hole() {
    let bytes = 5_u64 << 30;
    let mut machine = Machine::boot(&format!("test=memory memory={bytes}")).memory("5G").start();
    assert!(machine.expect("usable memory").ends_with("around the hole"));
    machine.succeeds();
}

#[test]
fn one_to_four_processors_run() {
    for count in 1..=4 {
        let mut machine = Machine::boot(&format!("test=smp cpus={count}")).cpus(count).start();
        assert_eq!(machine.expect("counted"), format!("{count} processors counted to {count}00000"));
        machine.succeeds();
    }
}

#[test]
fn acpi_tables_are_intact_and_describe_the_machine() {
    let mut machine =
        Machine::boot("test=acpi cpus=3").cpus(3).disk("a", 1 << 20).disk("b", 512).display(640, 480).start();
    assert_eq!(machine.expect("virtio devices"), "3 processors, 6 virtio devices");
    machine.succeeds();
}

#[test]
fn typed_text_reaches_the_guest_with_interrupts() {
    let mut machine = Machine::boot("test=echo").start();
    machine.expect("READY");
    for word in ["hello", "a line that is longer than the sixteen bytes of the port's queue, by far", "end"] {
        machine.type_text(&format!("{word}\n"));
        assert_eq!(machine.expect("echo"), format!("echo {word}"));
    }
    machine.succeeds();
}

#[test]
fn a_serial_port_on_a_socket_replays_what_was_said_and_takes_text() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("serial.sock");
    let mut child = Command::new(VMM)
        .args(["run", "--cmdline", "test=echo", "--memory", "64M", "--kernel"])
        .arg(guest("probe"))
        .arg("--serial")
        .arg(format!("unix:{}", socket.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for words in [&["first"][..], &["second", "end"]] {
        let mut stream = connect(&socket);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap());
        // Also the second client sees what was said before it came.
        assert_eq!(lines.by_ref().find(|line| line.trim() == "READY").map(|_| ()), Some(()));
        for word in words {
            writeln!(stream, "{word}").unwrap();
            let echo = format!("echo {word}");
            assert!(lines.by_ref().any(|line| line.trim() == echo), "no {echo}");
        }
    }
    let status = eventually(|| child.try_wait().unwrap(), || "the machine does not end".into());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_serial_port_in_a_file_appends() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("serial.log");
    fs::write(&log, "before\n").unwrap();
    for _ in 0..2 {
        let output = Command::new(VMM)
            .args(["run", "--cmdline", "test=poweroff", "--memory", "64M", "--kernel"])
            .arg(guest("probe"))
            .arg("--serial")
            .arg(format!("file:{}", log.display()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
    }
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("before\n"), "{text}");
    assert_eq!(text.matches("PROBE OK").count(), 2, "{text}");
}

#[test]
fn a_configuration_file_makes_the_same_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.json");
    let kernel = guest("probe");
    let text = format!(
        r#"{{"kernel": {kernel:?}, "cmdline": "test=smp cpus=2", "memory": "64M", "cpus": 2, "serial": "stdio"}}"#
    );
    fs::write(&path, text).unwrap();
    let output = Command::new(VMM).args(["run", "--config"]).arg(&path).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2 processors counted to 200000"), "{said}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_clock_shows_the_time_in_utc() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let mut machine = Machine::boot("test=rtc").start();
    let line = machine.expect("CLOCK 20");
    let after = now();
    machine.succeeds();
    let numbers: Vec<i64> = line["CLOCK ".len()..].split(['-', ' ', ':']).map(|n| n.parse().unwrap()).collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { panic!("{line}") };
    // Days from 1 March 0000 (the proleptic Gregorian calendar), as every fourth year has one more at its end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let shown = Duration::from_secs((((days * 24 + hour) * 60 + minute) * 60 + second) as u64);
    let slack = Duration::from_secs(1);
    assert!(shown + slack >= before && shown <= after + slack, "{line}, but it is {before:?} to {after:?}");
}
