//! Waiting for descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// An event's descriptor, to wait for.
pub fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open for as long as the borrowed `EventFd` lives.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Waits until one of the descriptors has something of its interest, an error or a hang-up; returns what
/// each of them has. Signals do not end the wait.
pub fn wait(interest: &[(BorrowedFd<'_>, PollFlags)]) -> io::Result<Vec<PollFlags>> {
    let mut fds: Vec<_> = interest.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds.iter().map(PollFd::revents).collect()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
