//! The system calls of each kind of thread, beyond those that every one makes.

use libc::*;
use yunju_jail::filter::{Call, NAMESPACES, When, call, call_if};

use super::kvm;
use crate::threads::Kind;

/// Neither a thread nor new namespaces.
const FORK: When = When::Masked(0, (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | NAMESPACES) as u64, 0);
const NO_BLOCK: When = When::Is(1, &[FIONBIO]);
const COPY: When = When::Is(1, &[F_DUPFD_CLOEXEC as u64, F_GETFD as u64, F_GETFL as u64]);

const FILES: &[Call] = &[
    call(SYS_pread64, "disks, memory, snapshots"),
    call(SYS_preadv, "the same"),
    call(SYS_preadv2, "the same, if it is in the page cache"),
    call(SYS_readv, "the same"),
    call(SYS_pwrite64, "the same"),
    call(SYS_pwritev, "the same"),
    call(SYS_writev, "the same"),
    call(SYS_lseek, "holes and beginnings"),
    call(SYS_fallocate, "blocks that the guest discards"),
    call(SYS_ftruncate, "the length of a new file"),
    call(SYS_fsync, "flushes"),
    call(SYS_fdatasync, "the same"),
    call(SYS_fstat, "lengths"),
    call(SYS_statx, "the same"),
];

/// Processors are made and saved, machines reset, snapshots begun.
const MAIN: &[Call] = &[
    call_if(SYS_ioctl, When::Is(1, &[TCGETS, TCSETS, TCGETS2, TCSETS2]), "a terminal put back as it was"),
    call_if(SYS_tgkill, When::Masked(2, !0x3f & 0xffff_ffff, 0), "processors called out of the guest"),
    call_if(SYS_fcntl, COPY, "the kernel, read again at a restart"),
    call(SYS_eventfd2, "devices started again"),
    call(SYS_flock, "layers that begin with a snapshot"),
    call_if(SYS_clone, FORK, "a child that writes the memory of a snapshot"),
    call(SYS_pipe2, "what it reports by"),
    call(SYS_wait4, "its end"),
    call(SYS_set_tid_address, "the child"),
    call(SYS_getppid, "the child: it ends with its parent"),
    call_if(SYS_prctl, When::Is(0, &[PR_SET_PDEATHSIG as u64]), "the same"),
    call(SYS_dup2, "the child: it keeps two descriptors"),
    call(SYS_close_range, "the same"),
    call(SYS_unlink, "sockets at the end; the warden does it where they are not seen"),
];

const SNAPSHOT: &[Call] = &[call(SYS_wait4, "the child that writes")];

const VCPU: &[Call] = &[call(SYS_eventfd2, "a device that is started"), call_if(SYS_fcntl, COPY, "the same")];

const BLOCK: &[Call] = &[
    call(SYS_io_uring_setup, "requests in flight"),
    call(SYS_io_uring_enter, "the same"),
    call(SYS_io_uring_register, "the same"),
    call(SYS_eventfd2, "the same, as they end"),
    call(SYS_timerfd_settime, "a rate that is limited"),
];

const NET: &[Call] = &[
    call(SYS_readv, "frames"),
    call(SYS_writev, "the same"),
    call(SYS_recvfrom, "the same"),
    call(SYS_sendto, "the same"),
    call(SYS_recvmsg, "the same"),
    call(SYS_sendmsg, "the same"),
    call(SYS_shutdown, "a network that talks nonsense"),
    call(SYS_timerfd_settime, "a rate that is limited"),
];

const GPU: &[Call] = &[
    call(SYS_memfd_create, "pixels that are shared with viewers"),
    call(SYS_ftruncate, "their length"),
    call_if(SYS_fcntl, When::Is(1, &[F_ADD_SEALS as u64, F_GET_SEALS as u64, F_DUPFD_CLOEXEC as u64]), "which stays"),
    call(SYS_pwrite64, "drawing"),
    call(SYS_pwritev, "the same"),
    call(SYS_pread64, "a restored screen"),
    call(SYS_fstat, "lengths"),
    call(SYS_statx, "the same"),
];

const VSOCK: &[Call] = &[
    call_if(SYS_socket, When::Is(0, &[AF_UNIX as u64]), "a guest connects to a service of the host"),
    call(SYS_connect, "the same: only the vsock's folder can be reached"),
    call(SYS_accept4, "the host connects to the guest"),
    call(SYS_recvfrom, "data"),
    call(SYS_sendto, "the same"),
    call(SYS_recvmsg, "the same"),
    call(SYS_sendmsg, "the same"),
    call(SYS_readv, "the same"),
    call(SYS_writev, "the same"),
    call(SYS_shutdown, "half a connection that ends"),
    call_if(SYS_ioctl, NO_BLOCK, "connections that nobody waits for"),
    call_if(SYS_fcntl, COPY, "the same"),
];

const SOUND: &[Call] = &[call(SYS_timerfd_settime, "sound moves with time")];

const DISPLAY: &[Call] = &[
    call(SYS_accept4, "viewers"),
    call(SYS_recvmsg, "their input"),
    call(SYS_recvfrom, "the same"),
    call(SYS_sendmsg, "buffers and frames for them"),
    call(SYS_sendto, "the same"),
    call_if(SYS_ioctl, NO_BLOCK, "nobody waits for them"),
];

const SERIAL: &[Call] = &[
    call(SYS_accept4, "who looks at the serial port"),
    call(SYS_recvfrom, "what they type"),
    call(SYS_sendto, "what they see"),
    call_if(SYS_ioctl, NO_BLOCK, "nobody waits for them"),
];

const CONTROL: &[Call] = &[
    call(SYS_accept4, "clients"),
    call(SYS_setsockopt, "how long they are waited for"),
    call(SYS_recvmsg, "requests, and the files of snapshots"),
    call(SYS_recvfrom, "requests"),
    call(SYS_sendto, "answers"),
    call(SYS_sendmsg, "the same"),
    call(SYS_shutdown, "their end"),
    call_if(SYS_fcntl, COPY, "files that came along"),
    call(SYS_pread64, "pictures of the screen"),
    call(SYS_fstat, "the same"),
    call(SYS_statx, "the same"),
];

const SIGNALS: &[Call] = &[call(SYS_rt_sigtimedwait, "signals")];

/// What threads of this kind do.
pub fn of(kind: Kind) -> &'static [&'static [Call]] {
    match kind {
        // It flushes disks that are paused, and makes a restored screen.
        Kind::Main => &[kvm::MAIN, MAIN, FILES, GPU],
        Kind::Snapshot => &[SNAPSHOT, FILES],
        Kind::Vcpu => &[kvm::VCPU, VCPU],
        Kind::Block => &[BLOCK, FILES],
        Kind::Net => &[NET],
        Kind::Gpu => &[GPU],
        Kind::Vsock => &[VSOCK],
        Kind::Display => &[DISPLAY],
        Kind::Sound => &[SOUND],
        Kind::Serial => &[SERIAL],
        Kind::Control => &[CONTROL],
        Kind::Signals => &[SIGNALS],
        Kind::Input | Kind::Entropy | Kind::Balloon => &[],
    }
}
