//! `yunju-agent`: does inside a guest what the host asks for, over vsock.
//!
//! As root, without arguments, for the machine: [`vsock`] reaches the host, [`lines`] reads from it, [`session`] is the life of one
//! connection. What can be asked for is one file each: [`identity`].
//!
//! As the person, with `seat`, for the desktop: [`seat`]. A path behind it is a Unix socket to use instead of vsock.

mod identity;
mod lines;
#[allow(dead_code, reason = "each side uses its half")]
mod protocol;
mod seat;
mod session;
mod vsock;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use identity::Identity;

/// Between two attempts to connect, at first and at most. The first comes soon, since a machine that was
/// just forked or resumed is told at its next connection what it is.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run/user/1000".into());
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["seat"] => seat::run(Path::new(&runtime), || vsock::connect(protocol::seat::PORT)),
        // A desktop that is in no machine, for tests.
        ["seat", path] => seat::run(Path::new(&runtime), || Ok(File::from(OwnedFd::from(UnixStream::connect(path)?)))),
        _ => serve_machine(),
    }
}

/// Tells the machine who it is, for ever.
fn serve_machine() -> ! {
    let identity = Identity::new(Path::new("/"), identity::set_host_name);
    let mut pause = PAUSE.0;
    loop {
        // When nobody listens, or the machine has no vsock, there is no news.
        if let Ok(stream) = vsock::connect(protocol::agent::PORT) {
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
