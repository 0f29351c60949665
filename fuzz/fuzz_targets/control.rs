//! Requests to the control socket of a machine that carries nothing out.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};

use yunju_vmm::control::serve;

/// Where a control socket is served for the life of this process.
static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let socket = tempfile::tempdir().unwrap().keep().join("c");
    let (commands, machine) = channel();
    serve(UnixListener::bind(&socket).unwrap(), commands, Arc::new(|| None)).unwrap();
    // Whoever asks is told that the machine is ending.
    std::thread::spawn(move || machine.into_iter().for_each(drop));
    socket
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut stream = UnixStream::connect(&*SOCKET).unwrap();
    // The server may answer and hang up before it has read all.
    let _ = stream.write_all(data);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if stream.read_to_end(&mut answer).is_ok() && !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1.1 "));
    }
});
