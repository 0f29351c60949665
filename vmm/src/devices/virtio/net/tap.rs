//! Frames on a tap interface.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use virtio_queue::Reader;

use super::HEADER;
use super::backend::{Carrier, MAX_FRAME, MIN_FRAME};

/// A tap interface. Each frame in the file follows a header as long as the device's own (§5.1.6), all
/// zeros as long as no offloads are used.
pub(super) struct Tap {
    file: File,
    incoming: Vec<u8>,
    /// Length of the record in `incoming`; 0 if there is none.
    length: usize,
    outgoing: Vec<u8>,
}

impl Tap {
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
            },
        };
        // The last byte stays zero and ends the name; an empty name would let the kernel choose.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['\0', '%', '/']) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("`{name}` is no interface name")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let header = HEADER as libc::c_int;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        // SAFETY: TUNSETVNETHDRSZ reads one `int`, which outlives the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) })?;
        // SAFETY: TUNSETOFFLOAD takes its argument by value; none means that the kernel sends plain frames only.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, 0 as libc::c_ulong) })?;
        Ok(Self { file, incoming: vec![0; HEADER + MAX_FRAME], length: 0, outgoing: Vec::new() })
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Carrier for Tap {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn fill(&mut self) -> io::Result<bool> {
        match self.file.read(&mut self.incoming) {
            Ok(length) => {
                self.length = length;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn frame(&mut self) -> Option<&[u8]> {
        self.incoming[..self.length].get(HEADER..).filter(|frame| frame.len() >= MIN_FRAME)
    }

    fn consume(&mut self) {
        self.length = 0;
    }

    fn has_room(&self) -> bool {
        self.outgoing.is_empty()
    }

    fn enqueue(&mut self, frame: &mut Reader<'_>, length: usize) -> io::Result<()> {
        self.outgoing.resize(HEADER + length, 0);
        frame.read_exact(&mut self.outgoing[HEADER..])
    }

    fn flush(&mut self) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(true);
        }
        match self.file.write(&self.outgoing) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // An interface that is down takes no frames; like a cable that is not plugged in, it loses them.
            Ok(_) | Err(_) => self.outgoing.clear(),
        }
        Ok(true)
    }
}
