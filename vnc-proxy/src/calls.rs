//! The system calls of the proxy. Its threads share one list: the async runtime moves work between them, and they start
//! each other.

use libc::*;
use yunju_jail::filter::{Call, EVERYWHERE, Error, Filter, STARTING, When, call, call_if};

/// Signal of the C library (nptl), which it does not name to others.
const SIGSETXID: u64 = 33;

const CALLS: &[Call] = &[
    call(SYS_epoll_create1, "the runtime waits for sockets"),
    call(SYS_epoll_ctl, "the same"),
    call(SYS_epoll_wait, "the same"),
    call(SYS_epoll_pwait, "the same"),
    call(SYS_eventfd2, "the runtime wakes its threads"),
    call_if(
        SYS_fcntl,
        When::Is(1, &[F_DUPFD_CLOEXEC as u64, F_GETFL as u64, F_GETFD as u64, F_GET_SEALS as u64]),
        "the same; pixels that cannot shrink",
    ),
    call_if(
        SYS_rt_sigaction,
        When::Is(0, &[SIGTERM as u64, SIGINT as u64, SIGSETXID]),
        "the runtime's handlers, and the C library's with the first thread",
    ),
    call(SYS_sigaltstack, "threads"),
    call_if(SYS_socketpair, When::Is(0, &[AF_UNIX as u64]), "how the handlers tell the runtime"),
    call_if(SYS_socket, When::Is(0, &[AF_UNIX as u64]), "the machine's display; only its folder can be reached"),
    call(SYS_connect, "the same"),
    call(SYS_accept4, "viewers"),
    call(SYS_recvfrom, "what they and the machine say"),
    call(SYS_recvmsg, "the same, and pixels"),
    call(SYS_sendto, "what they are told"),
    call(SYS_sendmsg, "the same"),
    call(SYS_writev, "the same"),
    call(SYS_shutdown, "a connection's end"),
    call(SYS_getsockopt, "errors of connections"),
    call_if(SYS_setsockopt, When::Is(1, &[IPPROTO_TCP as u64, SOL_SOCKET as u64]), "small packets at once"),
    call_if(SYS_ioctl, When::Is(1, &[FIONBIO]), "nobody waits for viewers"),
    call(SYS_fstat, "how long shared pixels are"),
    call(SYS_statx, "the same"),
    call(SYS_unlink, "sockets at the end; the warden does it where they are not seen"),
];

/// Binds this thread and all that it starts.
pub fn bind() -> Result<(), Error> {
    Filter::new(&[EVERYWHERE, STARTING, CALLS])?.install()
}
