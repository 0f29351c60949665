//! What a machine consists of besides processors and memory.

pub mod cmos;
pub mod i8042;
pub mod power;
pub mod serial;
pub mod virtio;
