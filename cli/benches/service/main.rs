//! What the service costs: its API beside a bare handler on the same kind of database, a stream through its edge beside
//! the same stream without, and its memory. One line of JSON a figure.
//!
//!     cargo build --release -p yunju --example fake-programs
//!     cargo bench -p yunju --bench service

// a bench: what panics here fails it
#![allow(clippy::unwrap_used)]

mod load;
mod peer;
mod service;
mod stream;

use std::path::Path;

use load::{Answers, Question};
use service::Service;

/// Requests of each kind, from so many connections at once.
const REQUESTS: usize = 4000;
const CONNECTIONS: usize = 8;
const DESKTOPS: usize = 1000;
const STREAMS: usize = 50;
/// What a round of a stream carries, and how many messages there and back are timed.
const BULK: usize = 256 << 20;
const ECHOES: usize = 5000;

#[tokio::main]
async fn main() {
    let name = std::env::args().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "yunju-vnc-proxy") {
        return stream::stand_in().await;
    }
    // what a test runner asks of a bench that it may not run
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let service = Service::start();
    let peer = peer::start(service.path("peer")).await;

    eprintln!("service: {DESKTOPS} desktops");
    service.desktops(DESKTOPS).await;
    for (name, ours, bare) in [
        ("read", Question::read("/v1/desktops/d500"), Question::read("/rows/d500")),
        ("write", Question::write("/v1/groups"), Question::write("/rows")),
    ] {
        eprintln!("service: {name}: {REQUESTS} requests each");
        // twice in turns, the second counts: the first warms both
        let mut both = (Answers::default(), Answers::default());
        for round in 0..2 {
            both.0 = load::ask(&service.socket(), &ours, round).await;
            both.1 = load::ask(&peer, &bare, round).await;
        }
        report(&format!("{name}.per_s"), "1/s", both.0.per_second(), Some(both.1.per_second()), REQUESTS);
        report(&format!("{name}.p99_ms"), "ms", both.0.p99(), Some(both.1.p99()), REQUESTS);
    }

    eprintln!("service: streams");
    service.start_desktop("d0").await;
    let direct = service.proxy_socket("d0").await;
    let mut rates = [Vec::new(), Vec::new()];
    let mut echoes = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (place, (socket, path)) in
            [(service.socket(), "/desktops/d0/ws"), (direct.clone(), "/")].into_iter().enumerate()
        {
            let mut stream = stream::open(&socket, path).await;
            rates[place].push(stream::bulk(&mut stream, BULK).await);
            echoes[place].extend(stream::echoes(&mut stream, ECHOES).await);
        }
    }
    let [ours, bare] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    report("edge.mb_s", "MB/s", ours, Some(bare), 5);
    let [ours, bare] = echoes.map(load::p99);
    report("edge.added_p99_ms", "ms", ours - bare, None, 5 * ECHOES);

    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(stream::open(&service.socket(), "/desktops/d0/ws").await);
    }
    report("memory_mib", "MiB", service.memory_mib(), None, 1);
}

fn report(name: &str, unit: &str, value: f64, peer: Option<f64>, n: usize) {
    let line = serde_json::json!({"name": name, "unit": unit, "value": value, "peer_value": peer, "n": n});
    println!("{line}");
}
