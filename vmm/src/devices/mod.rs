//! What a machine consists of besides processors and memory.

pub mod virtio;
