//! Writes down what real drivers do, as inputs for fuzzing (feature `record`).
//!
//! Each device appends to a file of its own in `$YUNJU_RECORD`; `fuzz/src/rig.rs` says in which form.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use virtio_queue::{QueueT, Reader, Writer};

use super::{Io, Kind};

static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("YUNJU_RECORD").map(PathBuf::from));

/// Chains written down of one device, bytes of each, and bytes of a file.
const MOST: (u16, usize, u64) = (32, 1024, 4096);

/// The chains that wait in a queue, before the device takes them.
pub fn waiting(kind: Kind, index: usize, io: &Io) {
    let queue = &io.queues[index];
    let memory = queue.memory();
    let (Some(folder), Ok(end)) = (&*FOLDER, queue.ring.avail_idx(&**memory, Ordering::Acquire)) else { return };
    let (name, first): (_, &[u8]) = match kind {
        Kind::Block => ("block", &[0]),
        Kind::Input => ("input", &[0]),
        Kind::Net => ("net", &[]),
        Kind::Entropy => ("rng", &[]),
        Kind::Gpu => ("gpu", &[]),
        Kind::Vsock => ("vsock", &[]),
        Kind::Balloon => ("balloon", &[]),
        Kind::Sound => ("virtio_snd", &[]),
    };
    let path = folder.join(format!("{name}-{}", std::process::id()));
    let mut bytes = if path.exists() { Vec::new() } else { first.to_vec() };
    let mut ring = virtio_queue::Queue::try_from(queue.ring.state()).expect("the state of a ring makes a ring");
    for _ in 0..end.0.wrapping_sub(queue.position()).min(MOST.0) {
        let Some(chain) = ring.pop_descriptor_chain(&**memory) else { break };
        let (Ok(mut reader), Ok(writer)) =
            (Reader::new(&**memory, chain.clone()), Writer::new(&**memory, chain.clone()))
        else {
            continue;
        };
        let mut readable = vec![0; reader.available_bytes().min(MOST.1)];
        if reader.read_exact(&mut readable).is_err() {
            continue;
        }
        let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes();
        // One readable and one writable descriptor stand for all.
        bytes.extend([0, index as u8, u8::from(!readable.is_empty() && writer.available_bytes() > 0)]);
        if !readable.is_empty() {
            bytes.push(0);
            bytes.extend(length(readable.len()));
            bytes.extend(&readable);
        }
        if writer.available_bytes() > 0 || readable.is_empty() {
            bytes.push(1);
            bytes.extend(length(writer.available_bytes()));
        }
    }
    bytes.push(6);
    if fs::metadata(&path).is_ok_and(|file| file.len() > MOST.2) {
        return;
    }
    // What cannot be written down is not missed.
    let _ = OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| file.write_all(&bytes));
}
