//! How long the proxy takes, between a machine and a viewer that do nothing else: a small change until its bytes are
//! on the websocket, and a key until its event is at the display socket. One line of JSON a figure.
//!
//!     cargo bench -p yunju-vnc-proxy --bench latency

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::client::{Client, Said};
use support::decode::RGBX;
use support::lab::Lab;
use support::machine::Buffer;
use yunju_protocol::display::Rect;

const ROUNDS: usize = 1000;

/// What noVNC lists.
const ENCODINGS: &[i32] =
    &[1, 7, 16, 0, -26, -254, -223, -224, -258, -261, -308, -312, -313, -307, -316, 0x574d5664, -239];

fn main() {
    // What a test runner asks of a bench that it may not run.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let (lab, display, _small) = Lab::new();
    let buffer = Buffer::new(2, 1920, 1080);
    display.announce(&buffer).expect("the proxy listens");
    display.show(&buffer, buffer.bounds()).expect("the proxy listens");
    let mut viewer = Client::websocket(&lab.path("websocket")).expect("the proxy listens");
    viewer.set_format(RGBX);
    viewer.set_encodings(ENCODINGS);
    viewer.request(false);
    viewer.continuous(true);
    viewer.unasked_until(|screen| screen.width == 1920);
    settle(&mut viewer);

    let exact = Rect { x: 640, y: 512, width: 64, height: 64 };
    let mut shade = 0;
    for (name, damage) in [("damage_to_socket_ms", exact), ("frame_damage_to_socket_ms", buffer.bounds())] {
        let times = measure(|| {
            shade += 1;
            buffer.paint(exact, |x, y| (x ^ y) % 16 * 0x10101 + shade);
            let start = Instant::now();
            display.show(&buffer, damage).expect("the proxy listens");
            // The update of this change, not one that was still on its way.
            viewer.unasked_until(|screen| screen.pixels[512 * 1920 + 640] == shade);
            let time = start.elapsed();
            settle(&mut viewer);
            time
        });
        report(name, times);
    }
    let mut down = false;
    let times = measure(|| {
        down = !down;
        let start = Instant::now();
        viewer.scan_code(0x61, 0x1e, down);
        display.request(10_000).expect("the proxy stays").expect("a key arrives");
        start.elapsed()
    });
    report("key_to_event_ms", times);
}

fn measure(mut round: impl FnMut() -> Duration) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            round()
        })
        .collect();
    times.sort();
    times
}

/// Answers the fence that follows each update, so that the viewer is idle.
fn settle(viewer: &mut Client) {
    while !matches!(viewer.next().expect("the server goes on"), Said::Fence { .. }) {}
}

fn report(name: &str, times: Vec<Duration>) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    for (percentile, place) in [("p50", 0.5), ("p99", 0.99)] {
        let value = times[(times.len() as f64 * place) as usize].as_secs_f64() * 1e3;
        let line = serde_json::json!({
            "name": format!("latency.{name}.{percentile}"), "value": (value * 1e3).round() / 1e3, "unit": "ms",
            "peer": null, "peer_value": null, "ratio": null, "n": times.len(), "host": host.trim(),
        });
        println!("{line}");
    }
}
