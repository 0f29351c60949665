//! The person's session: clipboard, typed text and keyboard layout, as the machine's proxy asks for them.
//!
//! [`desktop`] speaks to the compositor, [`host`] to the proxy, [`pipe`] carries what programs copy and paste,
//! [`typing`] makes keys of text, [`layout`] says which keys there are. One thread hears the compositor, one the
//! proxy, and each transfer of a clip has its own, since a program may take its time.

mod desktop;
mod host;
mod layout;
mod pipe;
mod typing;

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread::sleep;

use crate::PAUSE;
use crate::protocol::seat as protocol;
use desktop::Desktop;

/// Serves the session whose runtime folder this is, and any that comes after it. `host` is how to reach the proxy.
pub fn run(runtime: &Path, host: impl Fn() -> io::Result<File>) -> ! {
    let mut told = String::new();
    loop {
        match Desktop::open(&runtime.join("wayland-0")) {
            Ok(desktop) => {
                told.clear();
                host::serve(&desktop, &host);
            }
            Err(error) => {
                let error = error.to_string();
                if told != error {
                    eprintln!("yunju-agent: no desktop yet: {error}");
                    told = error;
                }
            }
        }
        sleep(PAUSE.1 / 4);
    }
}
