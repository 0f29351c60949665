//! `yunju-vmm`: a virtual machine monitor for one machine.
//!
//! [`config`] says what a machine is made of, [`host`] opens what it stands on, [`machine`] puts it
//! together and lives its life, [`boot`] is what is there before the first instruction, [`vcpu`] runs
//! the processors, [`bus`] leads from their exits to the [`devices`]. A [`snapshot`] is a machine as files.

pub mod boot;
pub mod bus;
pub mod config;
pub mod control;
pub mod devices;
pub mod disk;
pub mod display;
pub mod event;
pub mod host;
pub mod jail;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod reclaim;
pub mod snapshot;
pub mod sockets;
pub mod threads;
pub mod vcpu;
pub mod vm;
