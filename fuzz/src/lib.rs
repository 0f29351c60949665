//! What the fuzz targets share: bytes as instructions, disks in memory, and a hostile driver of virtio devices.

mod bytes;
pub mod disk;
mod rig;

pub use bytes::Bytes;
pub use rig::{Rig, drive};
