//! What a machine's jail is like: what it must still reach, and how much it may use.

pub mod calls;
mod kvm;

use std::io;
use std::path::PathBuf;

use yunju_jail::{Error, Flags, Spec};
use yunju_protocol::machine::{Endpoint, MachineConfig, NetBackend};

use crate::config::endpoints;

/// Descriptors: 1,024 connections of the vsock, as many buffers of the screen, disks, clients of sockets.
const DESCRIPTORS: u64 = 4096;
/// Threads: processors and devices, one for each connection of the control API, and one for each socket.
const THREADS: u64 = 128;
/// Logs, and the pixels of the greatest screen, fit this.
const FILE_LEAST: u64 = 256 << 20;

/// Closes descriptors that nobody meant for this process, and makes paths independent of the working folder.
pub fn prepare(config: &mut MachineConfig) -> io::Result<()> {
    yunju_jail::close_all_but(endpoints(config).filter_map(|endpoint| match endpoint {
        Endpoint::Fd(number) => Some(*number),
        Endpoint::Unix(_) => None,
    }))?;
    if let Some(vsock) = &mut config.vsock {
        vsock.socket = std::path::absolute(&vsock.socket)?;
    }
    Ok(())
}

/// Goes to jail. The machine is put together and no thread has been started. `look` opens files of `/proc/self` there;
/// `bind` is [`crate::threads::bind`].
pub fn enter(
    config: &MachineConfig,
    flags: &Flags,
    look: impl FnOnce() -> io::Result<()>,
    bind: impl FnOnce() -> Result<(), yunju_jail::filter::Error>,
) -> Result<(), Error> {
    let vsock = config.vsock.as_ref().map(|vsock| &vsock.socket);
    let network = config.net.as_ref().and_then(|net| match &net.backend {
        NetBackend::Stream(endpoint) => Some(endpoint),
        NetBackend::Tap(_) => None,
    });
    let own = endpoints(config).filter(|endpoint| Some(*endpoint) != network);
    let paths = own.filter_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => Some(path),
        Endpoint::Fd(_) => None,
    });
    let sockets: Vec<PathBuf> = paths.chain(vsock).cloned().collect();
    if let Some(Endpoint::Unix(path)) = config.display.as_ref().map(|display| &display.socket) {
        yunju_jail::give(path, flags)?;
    }
    yunju_jail::enter(
        &Spec {
            program: "yunju-vmm",
            flags,
            folder: vsock.and_then(|socket| socket.parent()),
            sockets: &sockets,
            descriptors: DESCRIPTORS,
            threads: THREADS,
            file: longest_file(config),
        },
        look,
        bind,
    )
}

/// A disk's file is as long as the disk from the start; a new layer is longer by its bitmap, and a memory file
/// as long as the memory.
fn longest_file(config: &MachineConfig) -> u64 {
    let disks = config.disks.iter().flat_map(|disk| disk.layers.iter().chain([&disk.path]));
    let lengths = disks.filter_map(|path| path.metadata().ok()).map(|file| file.len());
    let longest = lengths.chain([config.memory.0]).max().unwrap_or(0);
    longest.saturating_add(longest / 64).saturating_add(FILE_LEAST)
}
