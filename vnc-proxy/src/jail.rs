//! What the proxy's jail is like: what it must still reach, and how much it may use.

use std::io;
use std::path::{Path, PathBuf};

use yunju_jail::filter::Error as FilterError;
use yunju_jail::{Error, Flags, Spec};

use crate::Endpoint;

/// Viewers, buffers of the screen, sockets to listen on.
const DESCRIPTORS: u64 = 1024;
/// Two that wait for sockets; others encode, at most one for each viewer at a time.
const THREADS: u64 = 128;
/// All that it writes to a file, should standard error be one.
const LOG: u64 = 64 << 20;

/// Closes descriptors that nobody meant for this process.
pub fn prepare<'a>(listening: impl IntoIterator<Item = &'a Endpoint>) -> io::Result<()> {
    yunju_jail::close_all_but(listening.into_iter().filter_map(|endpoint| match endpoint {
        Endpoint::Fd(number) => Some(*number),
        _ => None,
    }))
}

/// Goes to jail. No thread has been started. All that is left of the file system is the folder of the socket `display`, to
/// which the proxy connects again when the machine is started again; it is the working folder. `bind` is [`crate::calls::bind`].
pub fn enter<'a>(
    display: &Path,
    listening: impl IntoIterator<Item = &'a Endpoint>,
    flags: &Flags,
    bind: impl FnOnce() -> Result<(), FilterError>,
) -> Result<(), Error> {
    let own = listening.into_iter().filter_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => Some(path.clone()),
        _ => None,
    });
    let sockets: Vec<PathBuf> = own.collect();
    let spec = Spec {
        program: "yunju-vnc-proxy",
        flags,
        folder: display.parent(),
        sockets: &sockets,
        descriptors: DESCRIPTORS,
        threads: THREADS,
        file: LOG,
    };
    yunju_jail::enter(&spec, || Ok(()), bind)
}
