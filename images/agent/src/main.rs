//! `yunju-agent`: does inside a guest what the host asks for, over vsock.
//!
//! [`vsock`] reaches the host, [`lines`] reads from it, [`session`] is the life of one connection. What can be
//! asked for is one file each: [`identity`].

mod identity;
mod lines;
/// The words, as the host has them.
#[path = "../../../protocol/src/agent.rs"]
#[allow(dead_code, reason = "each side uses its half")]
mod protocol;
mod session;
mod vsock;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use identity::Identity;

/// Between two attempts to connect, at first and at most. The first comes soon, since a machine that was
/// just forked or resumed is told at its next connection what it is.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

fn main() {
    let identity = Identity::new(Path::new("/"), identity::set_host_name);
    let mut pause = PAUSE.0;
    loop {
        // When nobody listens, or the machine has no vsock, there is no news.
        if let Ok(stream) = vsock::connect(protocol::PORT) {
            let begun = Instant::now();
            let end = session::run(&stream, &stream, &identity);
            eprintln!("yunju-agent: the connection to the host ended: {end}");
            if begun.elapsed() > PAUSE.1 {
                pause = PAUSE.0;
            }
        }
        sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}
