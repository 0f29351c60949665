//! `yunju-vmm`: a virtual machine monitor for one machine.

pub mod bus;
pub mod devices;
pub mod layout;
pub mod memory;
