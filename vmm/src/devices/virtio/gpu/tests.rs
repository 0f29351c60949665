use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use yunju_protocol::display::{Event, Request};

use super::commands::*;
use super::*;
use crate::devices::virtio::testing::{Driver, MEMORY};
use crate::devices::virtio::worker::Worker;
use crate::display::testing::{Client, Stage};

const CURSOR_QUEUE: usize = 1;
/// Where the tests have their pictures; the driver's own buffers are beyond.
const PICTURES: u64 = 4 << 20;

const DONE: u32 = OK_NODATA;
const UNSPECIFIED: u32 = Refusal::Unspecified as u32;
const OUT_OF_MEMORY: u32 = Refusal::OutOfMemory as u32;
const INVALID_SCANOUT: u32 = Refusal::InvalidScanout as u32;
const INVALID_RESOURCE: u32 = Refusal::InvalidResource as u32;
const INVALID_PARAMETER: u32 = Refusal::InvalidParameter as u32;

/// A graphics device, its driver, and somebody who looks.
struct Rig {
    driver: Driver,
    gpu: Gpu,
    client: Client,
    stage: Stage,
}

fn header(kind: u32) -> Vec<u8> {
    Header { kind, ..Header::default() }.as_slice().to_vec()
}

fn object<T: ByteValued + Default>(bytes: &[u8]) -> T {
    let mut object = T::default();
    object.as_mut_slice().copy_from_slice(bytes);
    object
}

fn area(x: u32, y: u32, width: u32, height: u32) -> Area {
    Area { x, y, width, height }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, width, height }
}

impl Rig {
    fn new() -> Self {
        let stage = Stage::new(1280, 800);
        let client = stage.greeted_client();
        let mut gpu = Gpu::new(stage.display.clone());
        gpu.activate(F_EDID);
        Self { driver: Driver::new(&gpu), gpu, client, stage }
    }

    /// Sends a command and returns the answer's kind.
    fn send(&mut self, kind: u32, body: &[u8]) -> u32 {
        self.ask(kind, body, size_of::<Header>()).0.kind
    }

    fn ask(&mut self, kind: u32, body: &[u8], room: usize) -> (Header, Vec<u8>) {
        let answer = self.driver.request(&mut self.gpu, CONTROL_QUEUE, &[&header(kind), body], room);
        let (start, body) = answer.split_at(size_of::<Header>());
        (object(start), body.to_vec())
    }

    fn create(&mut self, resource: u32, format: u32, width: u32, height: u32) -> u32 {
        self.send(RESOURCE_CREATE_2D, Create { resource, format, width, height }.as_slice())
    }

    fn unref(&mut self, resource: u32) -> u32 {
        self.send(RESOURCE_UNREF, Named { resource, padding: 0 }.as_slice())
    }

    fn attach(&mut self, resource: u32, pieces: &[(u64, u32)]) -> u32 {
        let mut body = AttachBacking { resource, entries: pieces.len() as u32 }.as_slice().to_vec();
        for (address, length) in pieces {
            body.extend(BackingEntry { address: *address, length: *length, padding: 0 }.as_slice());
        }
        self.send(RESOURCE_ATTACH_BACKING, &body)
    }

    fn transfer(&mut self, resource: u32, area: Area, offset: u64) -> u32 {
        self.send(TRANSFER_TO_HOST_2D, Transfer { area, offset, resource, padding: 0 }.as_slice())
    }

    fn scanout(&mut self, resource: u32, area: Area) -> u32 {
        self.send(SET_SCANOUT, SetScanout { area, scanout: 0, resource }.as_slice())
    }

    fn flush(&mut self, resource: u32, area: Area) -> u32 {
        self.send(RESOURCE_FLUSH, Flush { area, resource, padding: 0 }.as_slice())
    }

    fn update_cursor(&mut self, resource: u32, hot_x: u32, hot_y: u32) {
        let command = UpdateCursor { resource, hot_x, hot_y, ..UpdateCursor::default() };
        let head = self.driver.send(CURSOR_QUEUE, &[&header(UPDATE_CURSOR), command.as_slice()], &[]);
        self.driver.kick(&mut self.gpu, CURSOR_QUEUE).unwrap();
        assert_eq!(self.driver.used(CURSOR_QUEUE), Some((head, 0)));
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        self.driver.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// A picture in memory, drawn by the guest and copied to the host.
    fn picture(&mut self, resource: u32, width: u32, height: u32, pixels: &[u8]) {
        let address = PICTURES + u64::from(resource) * 0x1_0000;
        assert_eq!(self.create(resource, 2, width, height), DONE);
        self.write(address, pixels);
        assert_eq!(self.attach(resource, &[(address, width * height * 4)]), DONE);
        assert_eq!(self.transfer(resource, area(0, 0, width, height), 0), DONE);
    }
}

/// Different bytes everywhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn the_display_information_follows_the_size_that_a_client_asks_for() {
    let mut rig = Rig::new();
    let screen = |width: u32, height: u32| {
        let mut body = vec![0; 16 * 24];
        body[8..12].copy_from_slice(&width.to_le_bytes());
        body[12..16].copy_from_slice(&height.to_le_bytes());
        body[16] = 1;
        body
    };
    let (answer, body) = rig.ask(GET_DISPLAY_INFO, &[], 24 + 384);
    assert_eq!((answer.kind, body), (OK_DISPLAY_INFO, screen(1280, 800)));

    rig.client.ask(&Request::Resize { width: 1601, height: 899 });
    rig.stage.until(|display| display.preferred() != (1280, 800));
    rig.driver.interrupted();
    rig.gpu.source_ready(0, PollFlags::IN, &mut rig.driver.io).unwrap();
    assert!(rig.driver.interrupted());
    assert_eq!(rig.driver.io.interrupt.status() & 2, 2, "a change of configuration");
    let space = Device::config(&rig.gpu);
    let mut bytes = [0; 16];
    space.lock().unwrap().read(0, &mut bytes);
    assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    space.lock().unwrap().write(4, &1_u32.to_le_bytes());
    let mut bytes = [9; 4];
    space.lock().unwrap().read(0, &mut bytes);
    assert_eq!(bytes, [0; 4]);
    let (_, body) = rig.ask(GET_DISPLAY_INFO, &[], 24 + 384);
    assert_eq!(body, screen(1601, 899));
}

#[test]
fn a_resize_wakes_the_device_on_its_thread() {
    let mut rig = Rig::new();
    let idle = Io { queues: Vec::new(), interrupt: rig.driver.io.interrupt.clone() };
    let io = std::mem::replace(&mut rig.driver.io, idle);
    let worker = Worker::start(Box::new(rig.gpu), io, Arc::default()).unwrap();
    rig.client.ask(&Request::Resize { width: 800, height: 600 });
    rig.stage.until(|_| rig.driver.io.interrupt.status() == 2);
    worker.stop().unwrap();
}

#[test]
fn the_edid_prefers_the_size_that_is_preferred() {
    let mut rig = Rig::new();
    let (answer, body) = rig.ask(GET_EDID, GetEdid::default().as_slice(), 24 + 8 + 1024);
    assert_eq!((answer.kind, body[..8].to_vec()), (OK_EDID, vec![128, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(body[8..136], edid::edid(1280, 800));
    assert!(body[136..].iter().all(|byte| *byte == 0));
    rig.stage.display.resize(5120, 1440);
    let (_, body) = rig.ask(GET_EDID, GetEdid::default().as_slice(), 24 + 8 + 1024);
    assert_eq!(body[..2], [0, 1]);
    assert_eq!(rig.send(GET_EDID, GetEdid { scanout: 1, padding: 0 }.as_slice()), INVALID_SCANOUT);
}

#[test]
fn every_format_is_shown_as_blue_green_red() {
    let mut rig = Rig::new();
    let formats =
        [(1, "BGRX"), (2, "BGRX"), (3, "XRGB"), (4, "XRGB"), (67, "RGBX"), (134, "RGBX"), (68, "XBGR"), (121, "XBGR")];
    for (format, order) in formats {
        let value = |pixel: u8, colour: char| pixel * 10 + "BGRX".find(colour).unwrap() as u8;
        let bytes: Vec<u8> = (0..6).flat_map(|pixel| order.chars().map(move |c| value(pixel, c))).collect();
        assert_eq!(rig.create(format, format, 3, 2), DONE);
        rig.write(PICTURES, &bytes);
        assert_eq!(rig.attach(format, &[(PICTURES, 24)]), DONE);
        assert_eq!(rig.transfer(format, area(0, 0, 3, 2), 0), DONE);
        assert_eq!(rig.scanout(format, area(0, 0, 3, 2)), DONE);
        assert_eq!(rig.flush(format, area(0, 0, 3, 2)), DONE);
        let (buffer, ..) = rig.client.first_frame();
        for pixel in 0..6 {
            let seen = rig.client.pixel(buffer, pixel % 3, pixel / 3);
            assert_eq!(seen, [0, 1, 2, 3].map(|colour| pixel as u8 * 10 + colour), "format {format}");
        }
    }
    assert_eq!(rig.create(500, 5, 3, 2), INVALID_PARAMETER);
}

#[test]
fn a_rectangle_is_copied_from_scattered_memory_and_nothing_else() {
    let mut rig = Rig::new();
    let (width, height) = (5, 4);
    let bytes = pattern(80);
    // Pieces of odd lengths at odd addresses, the last one longer than needed.
    let mut pieces = Vec::new();
    let mut at = 0;
    for (index, length) in [1, 2, 30, 0, 5, 41, 17].into_iter().enumerate() {
        let address = PICTURES + index as u64 * 1001;
        let end = (at + length).min(80);
        rig.write(address, &bytes[at..end]);
        pieces.push((address, length as u32));
        at = end;
    }
    assert_eq!(rig.create(7, 1, width, height), DONE);
    assert_eq!(rig.attach(7, &pieces), DONE);
    let inner = area(1, 1, 3, 2);
    assert_eq!(rig.transfer(7, inner, (5 + 1) * 4), DONE);
    let pixels = rig.gpu.resources[&7].pixels.bytes().to_vec();
    for pixel in 0..20 {
        let (x, y) = (pixel % 5, pixel / 5);
        let inside = (1..4).contains(&x) && (1..3).contains(&y);
        let expected = if inside { &bytes[pixel * 4..pixel * 4 + 4] } else { &[0; 4] };
        assert_eq!(&pixels[pixel * 4..pixel * 4 + 4], expected, "pixel {x},{y}");
    }
    // The offset is the first pixel's, wherever it goes.
    assert_eq!(rig.transfer(7, area(4, 3, 1, 1), 0), DONE);
    assert_eq!(rig.gpu.resources[&7].pixels.bytes()[76..], bytes[..4]);
    assert_eq!(rig.transfer(7, area(0, 0, 5, 4), 0), DONE);
    assert_eq!(rig.gpu.resources[&7].pixels.bytes(), bytes);
    // The backing has 96 bytes.
    assert_eq!(rig.transfer(7, area(0, 0, 5, 4), 16), DONE);
    assert_eq!(rig.transfer(7, area(0, 0, 5, 4), 17), INVALID_PARAMETER);
    assert_eq!(rig.transfer(7, area(0, 0, 4, 4), u64::MAX - 3), INVALID_PARAMETER);
    assert_eq!(rig.transfer(7, area(0, 0, 0, 4), u64::MAX), DONE, "nothing is copied from nowhere");
    assert_eq!(rig.send(RESOURCE_DETACH_BACKING, Named { resource: 7, padding: 0 }.as_slice()), DONE);
    assert_eq!(rig.transfer(7, area(0, 0, 1, 1), 0), UNSPECIFIED);
}

#[test]
fn a_flip_shows_another_buffer_when_it_is_flushed() {
    let mut rig = Rig::new();
    let whole = area(0, 0, 4, 2);
    rig.picture(1, 4, 2, &[1; 32]);
    rig.picture(2, 4, 2, &[2; 32]);
    rig.scanout(1, whole);
    rig.flush(1, area(1, 1, 1, 1));
    let (first, _, damage) = rig.client.first_frame();
    assert_eq!((damage, rig.client.pixel(first, 3, 1)), (rect(0, 0, 4, 2), [1; 4]));
    rig.scanout(2, whole);
    rig.flush(1, whole);
    rig.flush(2, area(1, 1, 1, 1));
    let (second, _, damage) = rig.client.first_frame();
    assert_eq!((damage, rig.client.pixel(second, 0, 0)), (rect(0, 0, 4, 2), [2; 4]));
    for _ in 0..3 {
        for (resource, buffer) in [(1, first), (2, second)] {
            rig.scanout(resource, whole);
            rig.flush(resource, whole);
            assert_eq!(rig.client.frame(), (buffer, rect(0, 0, 4, 2), rect(0, 0, 4, 2)), "and no new buffer");
        }
    }
    rig.flush(2, area(2, 1, 2, 1));
    assert_eq!(rig.client.frame().2, rect(2, 1, 2, 1), "a small change stays small");
}

#[test]
fn a_screen_may_be_part_of_a_resource() {
    let mut rig = Rig::new();
    rig.picture(1, 8, 8, &pattern(256));
    rig.scanout(1, area(2, 3, 4, 4));
    rig.flush(1, area(0, 0, 8, 8));
    assert_eq!(rig.client.first_frame().1, rect(2, 3, 4, 4));
    rig.flush(1, area(0, 0, 3, 8));
    assert_eq!(rig.client.frame().2, rect(0, 0, 1, 4));
    rig.flush(1, area(6, 0, 2, 8));
    rig.flush(1, area(0, 0, 8, 3));
    rig.flush(1, area(5, 6, 3, 2));
    assert_eq!(rig.client.frame().2, rect(3, 3, 1, 1), "what is beside the screen is not damage");
    assert_eq!(rig.scanout(1, area(5, 3, 4, 4)), INVALID_PARAMETER);
    assert_eq!(rig.scanout(1, area(0, 0, 0, 4)), INVALID_PARAMETER);
    assert_eq!(rig.scanout(1, area(u32::MAX, 0, 2, 4)), INVALID_PARAMETER);
}

#[test]
fn the_screen_goes_dark_and_buffers_go_away() {
    let mut rig = Rig::new();
    let whole = area(0, 0, 4, 2);
    rig.picture(1, 4, 2, &[1; 32]);
    rig.picture(2, 4, 2, &[2; 32]);
    rig.scanout(1, whole);
    rig.flush(1, whole);
    let (first, ..) = rig.client.first_frame();
    rig.scanout(0, area(0, 0, 0, 0));
    assert_eq!(rig.client.next(), Some(Event::Blank));
    assert_eq!(rig.flush(1, whole), DONE);
    rig.scanout(1, whole);
    rig.flush(1, whole);
    assert_eq!(rig.client.frame().0, first);
    rig.scanout(2, whole);
    assert_eq!(rig.unref(1), DONE, "a shown resource whose successor was not flushed");
    let (second, _, damage) = rig.client.first_frame();
    assert_eq!((damage, rig.client.pixel(second, 0, 0)), (rect(0, 0, 4, 2), [2; 4]));
    assert_eq!(rig.client.next(), Some(Event::BufferGone { id: first }));
    assert_eq!(rig.unref(2), DONE);
    assert_eq!(rig.client.next(), Some(Event::Blank));
    assert_eq!(rig.client.next(), Some(Event::BufferGone { id: second }));
    assert_eq!(rig.unref(2), INVALID_RESOURCE);
    assert_eq!(rig.flush(2, whole), INVALID_RESOURCE);
}

#[test]
fn the_pointer_has_alpha_whatever_its_format_says() {
    let mut rig = Rig::new();
    let pixels = pattern(64 * 64 * 4);
    rig.picture(3, 64, 64, &pixels);
    rig.update_cursor(3, 5, 99);
    let shown = Event::Cursor { width: 64, height: 64, hot_x: 5, hot_y: 63, pixels };
    assert_eq!(rig.client.next(), Some(shown));
    rig.update_cursor(99, 0, 0);
    let moved = [header(0x0301), UpdateCursor { x: 9, ..UpdateCursor::default() }.as_slice().to_vec()].concat();
    rig.driver.send(CURSOR_QUEUE, &[&moved], &[]);
    rig.driver.send(CURSOR_QUEUE, &[&moved[..30]], &[24]);
    rig.driver.kick(&mut rig.gpu, CURSOR_QUEUE).unwrap();
    assert!(rig.driver.used(CURSOR_QUEUE).is_some() && rig.driver.used(CURSOR_QUEUE).is_some());
    assert_eq!(rig.create(4, 1, 129, 1), DONE);
    rig.update_cursor(4, 0, 0);
    rig.update_cursor(0, 0, 0);
    let hidden = Event::Cursor { width: 0, height: 0, hot_x: 0, hot_y: 0, pixels: Vec::new() };
    assert_eq!(rig.client.next(), Some(hidden), "and nothing of the commands that made no sense");
}

#[test]
fn a_fence_comes_back_with_the_answer() {
    let mut rig = Rig::new();
    for (kind, expected) in [(GET_DISPLAY_INFO, OK_DISPLAY_INFO), (0x0201, UNSPECIFIED)] {
        let command = Header { kind, flags: FLAG_FENCE, fence: 0x1_2345_6789, context: 7, ring: 0 };
        let answer = rig.driver.request(&mut rig.gpu, CONTROL_QUEUE, &[command.as_slice()], 24 + 384);
        let answer: Header = object(&answer[..24]);
        assert_eq!(answer, Header { kind: expected, ..command });
    }
    let unfenced = Header { kind: GET_DISPLAY_INFO, flags: 2, fence: 5, context: 7, ring: 0 };
    let answer = rig.driver.request(&mut rig.gpu, CONTROL_QUEUE, &[unfenced.as_slice()], 24 + 384);
    assert_eq!(object::<Header>(&answer[..24]), Header { kind: OK_DISPLAY_INFO, ..Header::default() });
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let mut rig = Rig::new();
    assert_eq!(rig.create(0, 1, 4, 4), INVALID_RESOURCE);
    assert_eq!(rig.create(1, 1, 0, 4), INVALID_PARAMETER);
    assert_eq!(rig.create(1, 1, 4, 16_385), INVALID_PARAMETER);
    assert_eq!(rig.create(1, 1, u32::MAX, u32::MAX), INVALID_PARAMETER);
    assert_eq!(rig.create(1, 1, 4, 4), DONE);
    assert_eq!(rig.create(1, 1, 4, 4), INVALID_RESOURCE);
    assert_eq!(rig.attach(2, &[]), INVALID_RESOURCE);
    assert_eq!(rig.attach(1, &[(MEMORY - 4, 8)]), INVALID_PARAMETER);
    assert_eq!(rig.attach(1, &[(u64::MAX, 8)]), INVALID_PARAMETER);
    assert_eq!(rig.send(RESOURCE_ATTACH_BACKING, AttachBacking { resource: 1, entries: 1 }.as_slice()), UNSPECIFIED);
    let endless = AttachBacking { resource: 1, entries: u32::MAX };
    assert_eq!(rig.send(RESOURCE_ATTACH_BACKING, endless.as_slice()), OUT_OF_MEMORY);
    assert_eq!(rig.attach(1, &[(PICTURES, 64)]), DONE);
    assert_eq!(rig.attach(1, &[(PICTURES, 64)]), UNSPECIFIED);
    assert_eq!(rig.transfer(1, area(1, 0, 4, 4), 0), INVALID_PARAMETER);
    assert_eq!(rig.transfer(1, area(u32::MAX, u32::MAX, 2, 2), 0), INVALID_PARAMETER);
    assert_eq!(rig.transfer(9, area(0, 0, 4, 4), 0), INVALID_RESOURCE);
    assert_eq!(rig.flush(1, area(0, 0, 4, 5)), INVALID_PARAMETER);
    assert_eq!(rig.scanout(9, area(0, 0, 4, 4)), INVALID_RESOURCE);
    let other_screen = SetScanout { area: area(0, 0, 4, 4), scanout: 1, resource: 1 };
    assert_eq!(rig.send(SET_SCANOUT, other_screen.as_slice()), INVALID_SCANOUT);
    assert_eq!(rig.send(UPDATE_CURSOR, UpdateCursor::default().as_slice()), UNSPECIFIED);
    for unknown in [0, 0x0108, 0x0109, 0x010b, 0x0200, 0x1100, u32::MAX] {
        assert_eq!(rig.send(unknown, &[]), UNSPECIFIED);
    }
    for kind in (GET_DISPLAY_INFO..=GET_EDID).filter(|kind| *kind != GET_DISPLAY_INFO) {
        assert_eq!(rig.send(kind, &[0; 7]), UNSPECIFIED, "{kind:#x} cut short");
    }
    let cut = rig.driver.request(&mut rig.gpu, CONTROL_QUEUE, &[&[1, 2, 3]], 24);
    assert_eq!(cut[..4], UNSPECIFIED.to_le_bytes());
    assert_eq!(rig.send(GET_DISPLAY_INFO, &[]), UNSPECIFIED, "an answer without room for it");
    let head = rig.driver.send(CONTROL_QUEUE, &[&header(GET_DISPLAY_INFO)], &[23]);
    rig.driver.kick(&mut rig.gpu, CONTROL_QUEUE).unwrap();
    assert_eq!(rig.driver.used(CONTROL_QUEUE), Some((head, 0)));
}

#[test]
fn a_guest_cannot_have_more_than_its_share() {
    let mut rig = Rig::new();
    for resource in 1..=MAX_RESOURCES as u32 {
        assert_eq!(rig.create(resource, 1, 1, 1), DONE);
    }
    assert_eq!(rig.create(9999, 1, 1, 1), OUT_OF_MEMORY);
    assert_eq!(rig.unref(1), DONE);
    assert_eq!(rig.create(1, 1, 16_384, 4096), OUT_OF_MEMORY, "255 pixels too many");
    assert_eq!(rig.create(1, 1, 16_384, 4095), DONE);
    let pieces = vec![(PICTURES, 1); MAX_PIECES / 2 + 1];
    assert_eq!(rig.attach(1, &pieces), DONE);
    assert_eq!(rig.attach(2, &pieces), OUT_OF_MEMORY);
    assert_eq!(rig.attach(2, &pieces[2..]), DONE);
    rig.gpu.reset();
    assert_eq!(rig.create(1, 1, 16_384, 4096), DONE);
}

#[test]
fn a_restored_device_shows_the_same_picture_and_goes_on() {
    let mut rig = Rig::new();
    let pixels = pattern(8 * 4 * 4);
    rig.picture(1, 8, 4, &pixels);
    rig.picture(2, 64, 64, &[5; 64 * 64 * 4]);
    assert_eq!(rig.create(3, 67, 2, 2), DONE);
    rig.scanout(1, area(1, 0, 7, 4));
    rig.flush(1, area(0, 0, 8, 4));
    rig.update_cursor(2, 1, 2);
    rig.stage.display.resize(800, 600);
    rig.gpu.source_ready(0, PollFlags::IN, &mut rig.driver.io).unwrap();
    let saved = serde_json::to_string(&rig.gpu.save()).unwrap();

    let mut other = Rig::new();
    other.gpu.restore(serde_json::from_str(&saved).unwrap()).unwrap();
    assert_eq!(serde_json::to_string(&other.gpu.save()).unwrap(), saved);
    other.client = other.stage.client();
    assert!(matches!(other.client.next(), Some(Event::Hello { .. })));
    let (buffer, seen, damage) = other.client.first_frame();
    assert_eq!((seen, damage), (rect(1, 0, 7, 4), rect(0, 0, 7, 4)));
    assert_eq!(other.client.pixel(buffer, 2, 3), pixels[(3 * 8 + 2) * 4..][..4]);
    assert!(matches!(other.client.next(), Some(Event::Cursor { width: 64, hot_x: 1, hot_y: 2, .. })));
    assert!(matches!(other.client.next(), Some(Event::Leds { .. })));
    other.write(PICTURES + 0x1_0000, &[7; 128]);
    assert_eq!(other.transfer(1, area(0, 0, 8, 4), 0), DONE);
    assert_eq!(other.flush(1, area(1, 1, 1, 1)), DONE);
    assert_eq!(other.client.frame().2, rect(0, 1, 1, 1));
    assert_eq!(other.client.pixel(buffer, 1, 1), [7; 4]);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut rig = Rig::new();
    rig.picture(1, 8, 4, &[1; 128]);
    rig.scanout(1, area(0, 0, 8, 4));
    let good = serde_json::to_value(rig.gpu.save()).unwrap();
    let mut spoil = |path: &str, value: serde_json::Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert!(rig.gpu.restore(serde_json::from_value(bad).unwrap()).is_err(), "{path}");
    };
    spoil("/Gpu/resources/0/width", 9.into());
    spoil("/Gpu/resources/0/height", u32::MAX.into());
    spoil("/Gpu/scanout/0", 2.into());
    spoil("/Gpu/scanout/1/width", u32::MAX.into());
    assert!(rig.gpu.restore(DeviceState::Rng).is_err());
}

#[test]
fn a_reset_clears_the_screen_and_all_resources() {
    let mut rig = Rig::new();
    rig.picture(1, 8, 4, &[1; 128]);
    rig.scanout(1, area(0, 0, 8, 4));
    rig.flush(1, area(0, 0, 8, 4));
    let (id, ..) = rig.client.first_frame();
    rig.gpu.reset();
    assert_eq!(rig.client.next(), Some(Event::Blank));
    assert_eq!(rig.client.next(), Some(Event::BufferGone { id }));
    assert_eq!(rig.create(1, 2, 8, 4), DONE);
    drop(rig.gpu);
    assert_eq!(rig.stage.display.size(), None);
}

/// Bytes cut into pieces, at most as many as a queue has descriptors for.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, later) = rest.split_at(cut % (rest.len() + 1));
        pieces.push(piece);
        rest = later;
    }
    pieces.push(rest);
    pieces
}

/// Commands that almost make sense.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![9 => 0x0100..0x010b_u32, 1 => any::<u32>()];
    let number = || prop_oneof![8 => 0..9_u32, 1 => Just(PICTURES as u32), 1 => any::<u32>()];
    (kind, proptest::collection::vec(number(), 0..14), any::<bool>()).prop_map(|(kind, numbers, fence)| {
        let mut bytes = Header { kind, flags: fence.into(), fence: 3, ..Header::default() }.as_slice().to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_command_in_any_pieces_is_answered(
        commands in proptest::collection::vec(
            (
                prop_oneof![4 => command(), 1 => proptest::collection::vec(any::<u8>(), 1..100)],
                proptest::collection::vec(any::<usize>(), 0..6),
                proptest::collection::vec(0..500_usize, 0..3),
                0..8_usize,
            ),
            1..60,
        ),
    ) {
        let mut rig = Rig::new();
        rig.picture(1, 8, 4, &[1; 128]);
        rig.scanout(1, area(0, 0, 8, 4));
        for (bytes, cuts, writable, queue) in &commands {
            let queue = usize::from(*queue == 0);
            let mut pieces = cut(bytes, cuts);
            pieces.truncate(12);
            let head = rig.driver.send(queue, &pieces, writable);
            rig.driver.kick(&mut rig.gpu, queue).unwrap();
            let (used, written) = rig.driver.used(queue).unwrap();
            prop_assert_eq!(used, head);
            let room: usize = writable.iter().sum();
            prop_assert!(written as usize <= room);
            if queue == CONTROL_QUEUE && room >= 24 {
                prop_assert!(written >= 24, "an answer has a header");
                let answer = rig.driver.written(queue, head);
                let kind = u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]);
                prop_assert!((0x1100..0x1300).contains(&kind));
            }
        }
        rig.gpu.save();
    }

    #[test]
    fn any_descriptors_are_given_back(
        descriptors in proptest::collection::vec((prop_oneof![0..MEMORY, any::<u64>()], any::<u32>(), 0..4_u16), 1..16),
    ) {
        let mut rig = Rig::new();
        for queue in [CONTROL_QUEUE, CURSOR_QUEUE] {
            // The driver adds NEXT where there is one; WRITE is as it comes.
            let flagged: Vec<_> = descriptors.iter().map(|(at, length, flags)| (*at, *length, flags & 2)).collect();
            let head = rig.driver.send_raw(queue, &flagged);
            // A command may be written into by its own answer, or say anything.
            rig.driver.kick(&mut rig.gpu, queue).unwrap();
            prop_assert_eq!(rig.driver.used(queue).map(|(used, _)| used), Some(head));
        }
    }
}
