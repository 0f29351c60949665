//! What devices look like to people, programs and the guest when a machine goes on from a snapshot.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use yunju_protocol::control::Afterwards;
use yunju_protocol::display::Request;
use yunju_vmm::disk::{self, Parent};

use crate::machine::{Machine, PATIENCE, Plan, connect};
use crate::snapshot::{Album, life, step, suspend};
use crate::viewer::Viewer;

/// One of the card's numbers; see `images/probe/README.md`.
fn card_number(viewer: &Viewer, row: u32) -> Option<u32> {
    (0..16).try_fold(0, |number, cell| {
        let pixel = viewer.pixel(280 + 8 * cell + 4, 164 + 24 * row + 6)?;
        Some(number << 1 | u32::from(pixel == 0xff_ffff))
    })
}

const PRESSES: u32 = 0;
const LAST_KEY: u32 = 1;
const LAMPS: u32 = 6;
const A: u16 = 30;
const CAPS_LOCK: u16 = 58;
const DOWN: u32 = 1 << 15;

#[test]
fn a_viewer_sees_the_same_picture_again_and_a_key_works_at_once() {
    let album = Album::new();
    let plan = || Machine::card().display(800, 600).control();
    let mut machine = plan().start();
    machine.expect("CARD READY");
    let mut viewer = machine.viewer();
    viewer.tap(CAPS_LOCK);
    viewer.tap(A);
    viewer.wait("the keys", |viewer| card_number(viewer, PRESSES) == Some(2) && card_number(viewer, LAMPS) == Some(2));
    viewer.wait("the release", |viewer| card_number(viewer, LAST_KEY) == Some(A.into()));
    viewer.wait("the lamp", |viewer| viewer.leds == Some(4));
    let settled = |viewer: &mut Viewer| {
        // The rows of numbers are not the last thing that is painted: the line of text is.
        viewer.wait("the typed letter", |viewer| viewer.pixels()[456 * 800..476 * 800].contains(&0xe8_eef4));
        viewer.pixels()
    };
    let before = settled(&mut viewer);
    let pointer = viewer.cursor.clone();
    suspend(&mut machine, &album.path("s"));

    for _ in 0..2 {
        let machine = plan().args(["--restore", &album.restore("s", None)]).start();
        let mut viewer = machine.viewer();
        viewer.wait("the same picture", |viewer| viewer.pixels() == before);
        viewer.wait("the same pointer and lamp", |viewer| viewer.cursor == pointer && viewer.leds == Some(4));
        viewer.tap(A);
        viewer.wait("the key", |viewer| card_number(viewer, PRESSES) == Some(3));
    }
}

#[test]
fn a_key_that_was_held_is_let_go_in_what_goes_on() {
    let album = Album::new();
    let plan = || Machine::card().display(800, 600).control();
    let mut machine = plan().start();
    machine.expect("CARD READY");
    let mut viewer = machine.viewer();
    viewer.ask(&Request::Key { code: A, down: true });
    viewer.wait("the key", |viewer| card_number(viewer, LAST_KEY) == Some(u32::from(A) | DOWN));
    machine.snapshot(&album.path("s"), false, false).unwrap();
    let copy = plan().args(["--restore", &album.restore("s", None)]).start();
    copy.viewer().wait("the release", |viewer| card_number(viewer, LAST_KEY) == Some(A.into()));
    // Nobody let go of it here.
    assert_eq!(card_number(&viewer, LAST_KEY), Some(u32::from(A) | DOWN));
}

#[test]
fn a_program_of_the_host_reaches_a_restored_guest_by_its_new_socket() {
    let album = Album::new();
    let plan = || {
        let plan = Machine::boot("test=vsock").vsock(3).control();
        let echo = UnixListener::bind(plan.path("vsock.sock_7")).unwrap();
        (plan, echo)
    };
    let (first, echo) = plan();
    let mut machine = first.start();
    std::thread::spawn(move || {
        let (stream, _) = echo.accept().unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream).unwrap()
    });
    machine.expect("READY");
    suspend(&mut machine, &album.path("s"));
    let (again, _echo) = plan();
    let mut copy = again.args(["--restore", &album.restore("s", None)]).start();
    let mut stream = connect(&copy.path("vsock.sock"));
    stream.write_all(b"CONNECT 52\n").unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK ");
    while answer[0] != b'\n' {
        stream.read_exact(&mut answer[..1]).unwrap();
    }
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    drop(stream);
    copy.succeeds();
}

/// The step that the next frame tells.
fn frame(stream: &mut UnixStream) -> u64 {
    let mut frame = [0; 64];
    stream.read_exact(&mut frame).expect("a frame");
    u64::from_le_bytes(frame[18..26].try_into().expect("eight bytes"))
}

#[test]
fn a_restored_guest_goes_on_talking_on_its_new_network() {
    let album = Album::new();
    let net = |plan: Plan| {
        let plan = plan.net();
        let listener = UnixListener::bind(plan.path("net.sock")).unwrap();
        let machine = plan.start();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (machine, stream)
    };
    let (mut machine, mut stream) = net(life("", 1));
    let first = frame(&mut stream);
    assert_eq!(frame(&mut stream), first + 1);
    // Drains, so that the guest never waits for a reader.
    let draining = std::thread::spawn(move || {
        let mut last = first + 1;
        let mut bytes = [0; 64];
        while stream.read_exact(&mut bytes).is_ok() {
            last = u64::from_le_bytes(bytes[18..26].try_into().expect("eight bytes"));
        }
        last
    });
    suspend(&mut machine, &album.path("s"));
    let last = draining.join().unwrap();
    let (mut copy, mut stream) = net(life("", 1).args(["--restore", &album.restore("s", None)]));
    let next = frame(&mut stream);
    // The one that was on its way may be lost.
    assert!((last..=last + 2).contains(&next), "{next} after {last}");
    assert_eq!(frame(&mut stream), next + 1);
    drop(stream);
    step(&mut copy);
}

/// Some steps, in each of which the guest looks at what it wrote in the one before.
fn walk(machine: &mut Machine) {
    for _ in 0..10 {
        step(machine);
    }
}

/// A layer on top of what `parent` says, 64 KiB long.
fn layer(path: &Path, parent: Parent) {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    disk::create(&file, "layer", DIARY, parent).expect("a layer");
}

const DIARY: u64 = 64 << 10;

#[test]
fn disks_go_on_in_new_layers_and_each_snapshot_keeps_its_own() {
    let album = Album::new();
    let file = |name: &str| album.path(name).display().to_string();
    File::create(album.path("diary")).unwrap().set_len(DIARY).unwrap();
    let writes = |plan: Plan, disk: String| plan.args(["--disk", &disk]);
    let mut machine = writes(life("", 1), file("diary")).start();
    step(&mut machine);
    step(&mut machine);

    // Without layers only a machine that ends has a snapshot: the guest would go on writing to it.
    let error = machine.snapshot(&album.path("s"), false, false).unwrap_err().to_string();
    assert_eq!(error, "0 new layers for 1 disks that the guest writes to: send one for each");
    File::create(album.path("layer")).unwrap();
    let info = machine.snapshot_on(&album.path("first"), Afterwards::Resume, &[album.path("layer")]).unwrap();
    assert!(!info.differential);
    let frozen = fs::read(album.path("diary")).unwrap();
    walk(&mut machine);
    assert!(fs::read(album.path("diary")).unwrap() == frozen, "the snapshot's disk was written to");
    assert!(fs::metadata(album.path("layer")).unwrap().len() > 0);

    // Two copies, each with a layer of its own on the disk of then; and the machine itself, on its layer.
    for name in ["one", "two"] {
        layer(&album.path(name), Parent::Raw(DIARY));
        let disk = format!("{},below={}", file(name), file("diary"));
        let mut copy = writes(life("", 1), disk).args(["--restore", &album.restore("first", None)]).start();
        walk(&mut copy);
        if name == "one" {
            suspend(&mut copy, &album.path("of-one"));
            let disk = format!("{},below={}", file(name), file("diary"));
            let from = album.restore("of-one", Some("first"));
            step(&mut writes(life("", 1), disk).args(["--restore", &from]).start());
        }
    }
    suspend(&mut machine, &album.path("second"));
    let disk = format!("{},below={}", file("layer"), file("diary"));
    let mut again = writes(life("", 1), disk).args(["--restore", &album.restore("second", None)]).start();
    walk(&mut again);
}
