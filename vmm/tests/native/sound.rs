//! Sound between a guest's driver and a client of the display.

use std::time::Duration;

use yunju_protocol::display::Request;

use crate::machine::{Machine, eventually};
use crate::snapshot::{Album, suspend};
use crate::viewer::Viewer;

/// The number of each frame that was heard.
fn numbers(viewer: &Viewer) -> Vec<i16> {
    let frames = viewer.sound.iter().flat_map(|(_, samples)| samples.chunks(4));
    let numbers = frames.map(|frame| {
        let [left, right] = [0, 2].map(|at| i16::from_le_bytes([frame[at], frame[at + 1]]));
        assert_eq!(right, -left);
        left
    });
    numbers.collect()
}

fn heard(viewer: &mut Viewer, number: i16) {
    viewer.wait(&format!("message {number}"), |viewer| {
        viewer.sound.last().is_some_and(|(_, samples)| i16::from_le_bytes([samples[0], samples[1]]) >= number)
    });
}

#[test]
fn a_guest_is_heard_in_time_and_hears_a_microphone() {
    let mut machine = Machine::boot("test=sound").display(640, 480).args(["--sound"]).start();
    let mut viewer = machine.viewer();
    viewer.ask(&Request::Listen { on: true });
    machine.expect("PLAYING");
    heard(&mut viewer, 90);
    let numbers = numbers(&viewer);
    // In their order. The first may be missing, if the request to listen came late.
    assert!(numbers.is_sorted(), "{numbers:?}");
    let (first, last) = (&viewer.sound[0], &viewer.sound[viewer.sound.len() - 1]);
    let (passed, played) = (last.0 - first.0, (numbers.len() - last.1.len() / 4) as u64 * 1_000_000 / 48_000);
    // A host that was busy may have left some out; nothing is played faster than time.
    assert!(passed + 10 >= played, "{played} us of sound in {passed} us");
    machine.expect("RECORDING");
    let word = 0x1234_i16.to_le_bytes().repeat(4800);
    eventually(
        || {
            viewer.ask(&Request::Microphone { samples: word.clone() });
            viewer.next(Duration::from_millis(20));
            machine.has_said("HEARD").then_some(())
        },
        || "the guest hears no microphone".into(),
    );
    machine.succeeds();
}

#[test]
fn a_guest_that_played_plays_on_from_its_snapshot() {
    let album = Album::new();
    let plan = || Machine::boot("test=sound messages=600").display(640, 480).args(["--sound"]).control();
    let mut machine = plan().start();
    let mut viewer = machine.viewer();
    viewer.ask(&Request::Listen { on: true });
    heard(&mut viewer, 30);
    suspend(&mut machine, &album.path("s"));
    let last = numbers(&viewer).pop().unwrap();
    let mut machine = plan().args(["--restore", &album.restore("s", None)]).start();
    let mut viewer = machine.viewer();
    viewer.ask(&Request::Listen { on: true });
    heard(&mut viewer, last);
    assert!(numbers(&viewer).is_sorted());
    machine.expect("RECORDING");
}
