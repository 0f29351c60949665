//! A connection to the host.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connects to a port of the host. Reading fails as soon as the machine's vsock device is reset, which happens
/// when it is snapshotted, forked or resumed.
pub fn connect(port: u32) -> io::Result<File> {
    // SAFETY: makes a descriptor and touches no memory.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid `sockaddr_vm`: plain numbers.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_HOST;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_vm` of `length` bytes that outlives the call.
    let status = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // A stream socket reads and writes like a file.
    Ok(File::from(socket))
}
