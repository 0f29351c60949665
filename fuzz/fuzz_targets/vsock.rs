//! A socket device whose driver is hostile, with hostile programs on the host's side.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::LazyLock;

use yunju_vmm::devices::virtio::vsock::Vsock;

/// A folder for the sockets of this process.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir().unwrap().keep());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (path, port) = (FOLDER.join("s"), FOLDER.join("s_7"));
    // Those of the input before.
    let _ = (std::fs::remove_file(&path), std::fs::remove_file(&port));
    let listener = UnixListener::bind(&port).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut peers: Vec<UnixStream> = Vec::new();
    let device = Vsock::new(3, path.clone()).unwrap();
    yunju_fuzz::drive(Box::new(device), data, |input| {
        let peer = match input.u8() % 4 {
            0 => UnixStream::connect(&path).ok(),
            1 => listener.accept().ok().map(|(peer, _)| peer),
            2 => peers.pop(),
            _ => {
                peers.clear();
                None
            }
        };
        // A full or closed connection takes no more.
        if let Some(mut peer) = peer {
            peer.set_nonblocking(true).unwrap();
            let _ = peer.write(input.take(256));
            let _ = peer.read(&mut [0; 4096]);
            peers.push(peer);
        }
    });
});
