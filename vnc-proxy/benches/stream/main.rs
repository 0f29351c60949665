//! The same workloads drawn on our proxy and on TigerVNC, read by the same viewer: bytes, processor time, quality. One
//! line of JSON a measurement; `tests/bench/stream.py` makes figures of them.
//!
//!     cargo bench -p yunju-vnc-proxy --bench stream [-- WORKLOAD…]

mod canvas;
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;
mod viewer;
mod workload;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canvas::{Canvas, HEIGHT, Texture, WIDTH};
use server::{Server, TigerVnc, Yunju, await_socket};
use viewer::{QUALITY, Seen, Viewer};
use workload::{ALL, Kind, Stage, psnr, read_mark};
use yunju_protocol::display::Rect;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // What a test runner asks of a bench that it may not run.
    if arguments.iter().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let texture = Texture::new();
    for kind in ALL.into_iter().filter(|kind| chosen(kind.name())) {
        let mut stage = Stage::new(kind, &texture);
        for peer in [false, true] {
            measure(&mut stage, peer, QUALITY, kind.name());
        }
    }
    if chosen("sharp") {
        measure(&mut Stage::new(Kind::Video, &texture), false, QUALITY + 2, "sharp");
    }
    if chosen("viewers") {
        let mut stage = Stage::new(Kind::Video, &texture);
        for viewers in [1, 10] {
            crowd(&mut stage, viewers);
        }
    }
}

fn start(folder: &Path, peer: bool) -> Box<dyn Server> {
    let server: Box<dyn Server> = if peer { Box::new(TigerVnc::start(folder)) } else { Box::new(Yunju::start(folder)) };
    await_socket(server.socket());
    server
}

/// Draws steps at the workload's rate.
fn draw(stage: &mut Stage<'_>, server: &mut dyn Server, canvas: &mut Canvas, steps: std::ops::Range<u32>) -> f64 {
    let began = Instant::now();
    for (nth, step) in (0u32..).zip(steps) {
        let due = began + Duration::from_secs_f64(f64::from(nth) / stage.kind.rate());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let damage = stage.step(canvas, step);
        server.show(canvas, damage);
    }
    began.elapsed().as_secs_f64()
}

fn measure(stage: &mut Stage<'_>, peer: bool, quality: i32, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = start(folder.path(), peer);
    let mut canvas = Canvas::new();
    stage.begin(&mut canvas);
    server.show(&canvas, Rect::of_size(WIDTH, HEIGHT));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let look: viewer::Look = match stage.kind.video() {
        None => Box::new(|_, _| {}),
        Some(area) => {
            let seen = seen.clone();
            let frames: Vec<Vec<u32>> = (0..46).map(|nth| stage.frame(nth).to_vec()).collect();
            Box::new(move |pixels, _| {
                let number = read_mark(pixels, area);
                if Seen::note(&seen, number) {
                    let quality = psnr(pixels, area, &frames[number as usize % frames.len()]);
                    seen.lock().expect("nobody panics").decibels.push(quality);
                }
            })
        }
    };
    let viewer = Viewer::connect(server.socket(), quality, Some(look));
    viewer.settle(Duration::from_secs(1));
    let (before, steps) = stage.kind.steps();
    draw(stage, &mut *server, &mut canvas, 1..before);
    *seen.lock().expect("nobody panics") = Seen::default();
    let count = |server: &dyn Server| {
        let [bytes, updates] = [&viewer.counts.bytes, &viewer.counts.updates].map(|count| count.load(Relaxed));
        (bytes, updates, viewer.counts.frames.load(Relaxed), server.process().cpu())
    };
    let at_first = count(&*server);
    let seconds = draw(stage, &mut *server, &mut canvas, before..before + steps);
    let at_last = count(&*server);
    let memory = server.process().private_mib();
    let Seen { shown, decibels, .. } = &*seen.lock().expect("nobody panics");
    report(serde_json::json!({
        "workload": name, "server": server.name(), "seconds": seconds, "steps": steps,
        "bytes": at_last.0 - at_first.0, "updates": at_last.1 - at_first.1, "frames": at_last.2 - at_first.2,
        "cpu_s": at_last.3 - at_first.3, "private_mib": memory, "pixels": stage.kind.pixels(),
        "shown": shown, "psnr_db": decibels.iter().sum::<f64>() / decibels.len().max(1) as f64,
    }));
}

/// Processor time of the proxy for so many viewers of one video, who count only.
fn crowd(stage: &mut Stage<'_>, viewers: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = start(folder.path(), false);
    let mut canvas = Canvas::new();
    stage.begin(&mut canvas);
    server.show(&canvas, Rect::of_size(WIDTH, HEIGHT));
    let crowd: Vec<Viewer> = (0..viewers).map(|_| Viewer::connect(server.socket(), QUALITY, None)).collect();
    crowd.iter().for_each(|viewer| viewer.settle(Duration::from_secs(1)));
    let (before, steps) = stage.kind.steps();
    draw(stage, &mut *server, &mut canvas, 1..before);
    let frames = || crowd.iter().map(|viewer| viewer.counts.frames.load(Relaxed)).sum::<u64>();
    let (cpu, shown) = (server.process().cpu(), frames());
    let seconds = draw(stage, &mut *server, &mut canvas, before..before + steps);
    report(serde_json::json!({
        "workload": "viewers", "server": server.name(), "viewers": viewers, "seconds": seconds, "steps": steps,
        "cpu_s": server.process().cpu() - cpu, "frames": frames() - shown, "private_mib": server.process().private_mib(),
    }));
}

fn report(line: serde_json::Value) {
    println!("{line}");
}
