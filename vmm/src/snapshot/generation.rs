//! The page in which the guest finds which of its copies it is, and the monitor which snapshot memory is of.
//!
//! The guest reads the first sixteen bytes ("VM generation id"): another value says that it was forked or set
//! back, and that its random numbers are no secret any more. The page is reserved; a guest that writes to it harms only itself.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::{Bytes, GuestAddress};

use super::state::Id;
use crate::layout;
use crate::memory::GuestMemory;

/// Where in the page the id of the snapshot stands.
const SNAPSHOT: u64 = 256;

/// Sixteen random bytes.
pub fn random() -> io::Result<Id> {
    let mut id = Id::default();
    // So few bytes come whole once the system has entropy.
    getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(id)
}

/// Makes the guest another one.
pub fn renew(memory: &GuestMemory) -> io::Result<()> {
    write(memory, layout::GENERATION, &random()?)
}

/// Marks memory as that of a snapshot.
pub fn mark(memory: &GuestMemory, id: &Id) -> io::Result<()> {
    write(memory, layout::GENERATION + SNAPSHOT, id)
}

/// Where in a memory file the id stands.
pub const MARK: u64 = layout::GENERATION + SNAPSHOT;

fn write(memory: &GuestMemory, address: u64, id: &Id) -> io::Result<()> {
    memory.write_slice(id, GuestAddress(address)).map_err(io::Error::other)
}
