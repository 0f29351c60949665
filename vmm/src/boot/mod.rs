//! What is in memory and registers before the guest's first instruction.

pub mod acpi;
pub mod cpu;
pub mod kernel;
