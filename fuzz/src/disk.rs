//! Disks in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use yunju_vmm::devices::virtio::block::Block;
use yunju_vmm::disk::engine::Sync;
use yunju_vmm::disk::header::Parent;
use yunju_vmm::disk::{Disk, create};

/// Bytes of a disk.
const LENGTH: u64 = 1 << 20;

/// An empty file in memory.
pub fn file() -> File {
    File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("descriptors are left"))
}

/// A disk device; the first bit of `kind` makes it read-only, the second one a layer on a raw file.
pub fn block(kind: u8) -> Block {
    let raw = file();
    raw.set_len(LENGTH).expect("memory is left");
    raw.write_all_at(&[7; 8192], 0).expect("memory is left");
    let mut files = vec![("raw".to_owned(), raw)];
    if kind & 2 != 0 {
        let layer = file();
        create(&layer, "layer", LENGTH, Parent::Raw(LENGTH)).expect("a new layer");
        files.push(("layer".to_owned(), layer));
    }
    let disk = Disk::open(files, kind & 1 == 0).expect("a good disk");
    // Each operation ends when it is started, so that an input has the same effect each time.
    Block::new(disk, "fuzz", None, Arc::default(), Box::new(|| Box::new(Sync::default())))
}
