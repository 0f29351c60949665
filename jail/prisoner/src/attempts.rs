//! What a program that was taken over would try.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr::null_mut;

/// Requests of linux/kvm.h that nobody makes.
const KVM_CREATE_DEVICE: i64 = 0xc00c_aee0;
const KVM_ENABLE_CAP: i64 = 0x4068_aea3;

/// What a prisoner knows of the outside.
pub struct World {
    /// The one folder that it sees, with a listening socket `sock`.
    pub folder: PathBuf,
    /// A folder beside it that it must not see, with `secret`, `disk` and a listening socket `sock`.
    pub outside: PathBuf,
    /// Of the process that started all this.
    pub pid: i32,
    /// Of a TCP listener on 127.0.0.1.
    pub port: u16,
    /// A disk that it was given.
    pub disk: File,
}

/// One thing that must fail.
pub struct Attempt {
    /// For messages.
    pub name: &'static str,
    /// Succeeding is the escape.
    pub escape: fn(&World) -> io::Result<()>,
    /// Fails also without lists of system calls: something else stands behind them.
    pub twice: bool,
}

const fn attempt(name: &'static str, escape: fn(&World) -> io::Result<()>) -> Attempt {
    Attempt { name, escape, twice: true }
}

/// Nothing but the lists of system calls stands against it.
const fn filtered(name: &'static str, escape: fn(&World) -> io::Result<()>) -> Attempt {
    Attempt { name, escape, twice: false }
}

/// All that must fail.
pub const ATTEMPTS: &[Attempt] = &[
    attempt("open a file of the host", |_| open("/etc/passwd", libc::O_RDONLY)),
    attempt("open a file of the host the old way", |_| sys(libc::SYS_open, &[path("/etc/passwd"), 0])),
    attempt("open another's file", |world| open(&text(&world.outside.join("secret")), libc::O_RDONLY)),
    attempt("open its own disk again", |world| open(&text(&world.outside.join("disk")), libc::O_RDWR)),
    attempt("look into /proc", |_| open("/proc/self/status", libc::O_RDONLY)),
    attempt("open the kvm device again", |_| open("/dev/kvm", libc::O_RDWR)),
    attempt("list its folder", |world| open(&text(&world.folder), libc::O_RDONLY | libc::O_DIRECTORY)),
    attempt("make a file in its folder", |world| open(&text(&world.folder.join("new")), libc::O_CREAT | libc::O_RDWR)),
    attempt("make a file in its root", |_| open("/new", libc::O_CREAT | libc::O_RDWR)),
    attempt("remove the socket in its folder", |world| {
        sys(libc::SYS_unlink, &[path(&text(&world.folder.join("sock")))])
    }),
    attempt("climb out of its folder", climb),
    attempt("open by handle", |_| sys(libc::SYS_open_by_handle_at, &[3, 0, 0])),
    attempt("connect to TCP on the host", |world| tcp(world, libc::SYS_connect)),
    attempt("bind a TCP port", |world| tcp(&World { port: 0, ..clone(world) }, libc::SYS_bind)),
    attempt("connect to a socket outside", |world| {
        unix(text(&world.outside.join("sock")).as_bytes(), libc::SYS_connect)
    }),
    attempt("climb to a socket outside", |_| unix(b"../outside/sock", libc::SYS_connect)),
    attempt("connect to an abstract socket", |world| {
        unix(format!("\0yunju-jail-{}", world.pid).as_bytes(), libc::SYS_connect)
    }),
    attempt("bind a socket in its folder", |world| unix(text(&world.folder.join("mine")).as_bytes(), libc::SYS_bind)),
    filtered("a netlink socket", |_| sys(libc::SYS_socket, &[libc::AF_NETLINK as i64, libc::SOCK_RAW as i64, 0])),
    filtered("a vsock of the host", |_| sys(libc::SYS_socket, &[libc::AF_VSOCK as i64, libc::SOCK_STREAM as i64, 0])),
    attempt("a raw socket", |_| sys(libc::SYS_socket, &[libc::AF_PACKET as i64, libc::SOCK_RAW as i64, 0])),
    attempt("trace a process outside", |world| {
        sys(libc::SYS_ptrace, &[libc::PTRACE_ATTACH as i64, world.pid.into(), 0, 0])
    }),
    attempt("read the memory of a process outside", |world| {
        sys(libc::SYS_process_vm_readv, &[world.pid.into(), 0, 0, 0, 0, 0]).and_then(|()| exists(world.pid))
    }),
    attempt("hold a process outside", |world| sys(libc::SYS_pidfd_open, &[world.pid.into(), 0])),
    attempt("signal a process outside", |world| exists(world.pid)),
    attempt("signal everybody", |_| exists(-1)),
    attempt("a fork bomb", fork_bomb),
    attempt("run a program of the host", |_| sys(libc::SYS_execve, &[path("/bin/sh"), 0, 0])),
    filtered("run a program from memory", |_| {
        sys(libc::SYS_execveat, &[2, path(""), 0, 0, libc::AT_EMPTY_PATH as i64]).or_else(executed)
    }),
    filtered("memory with code", |_| map(libc::PROT_READ | libc::PROT_EXEC)),
    filtered("memory made code", |_| {
        let page =
            unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        sys(libc::SYS_mprotect, &[page as i64, 4096, (libc::PROT_READ | libc::PROT_EXEC) as i64])
    }),
    attempt("mount", |_| sys(libc::SYS_mount, &[path("none"), path("/"), path("tmpfs"), 0, 0])),
    attempt("unmount its root", |_| sys(libc::SYS_umount2, &[path("/"), libc::MNT_DETACH as i64])),
    attempt("open a file system", |_| sys(libc::SYS_fsopen, &[path("tmpfs"), 0])),
    attempt("change its root", |_| sys(libc::SYS_chroot, &[path("/")])),
    attempt("make a device", |_| sys(libc::SYS_mknod, &[path("/null"), (libc::S_IFCHR | 0o666) as i64, 0x103])),
    filtered("a user namespace with capabilities", |_| sys(libc::SYS_unshare, &[libc::CLONE_NEWUSER as i64])),
    attempt("a network namespace", |_| sys(libc::SYS_unshare, &[libc::CLONE_NEWNET as i64])),
    attempt("become root", |_| sys(libc::SYS_setresuid, &[0, 0, 0])),
    attempt("change the host's name", |_| sys(libc::SYS_sethostname, &[path("mine"), 4])),
    attempt("set the clock", |_| {
        sys(libc::SYS_clock_settime, &[libc::CLOCK_REALTIME as i64, [0_i64, 0].as_ptr() as i64])
    }),
    attempt("restart the host", |_| sys(libc::SYS_reboot, &[0, 0, 0, 0])),
    attempt("load a module", |_| sys(libc::SYS_finit_module, &[0, path(""), 0])),
    attempt("raise its limits", raise_limit),
    attempt("write more than its disk", |world| {
        let at = 1_i64 << 40;
        sys(libc::SYS_pwrite64, &[world.disk.as_raw_fd().into(), path("x"), 1, at])
    }),
    filtered("keys of the kernel", |_| sys(libc::SYS_add_key, &[path("user"), path("k"), path("v"), 1, -1])),
    filtered("performance counters", |_| sys(libc::SYS_perf_event_open, &[0, 0, -1, -1, 0]).or_else(reached)),
    filtered("programs in the kernel", |_| sys(libc::SYS_bpf, &[0, 0, 0]).or_else(reached)),
    filtered("faults of its own memory", |_| sys(libc::SYS_userfaultfd, &[1]).or_else(reached)),
    filtered("another handler of signals", |_| sys(libc::SYS_rt_sigaction, &[libc::SIGSYS as i64, 0, 0, 8])),
    filtered("a ring of requests", |_| sys(libc::SYS_io_uring_setup, &[0, 0]).or_else(reached)),
    filtered("type into a terminal", |_| sys(libc::SYS_ioctl, &[0, libc::TIOCSTI as i64, path("x")]).or_else(reached)),
    filtered("a device in the kernel", |_| sys(libc::SYS_ioctl, &[0, KVM_CREATE_DEVICE, 0]).or_else(reached)),
    filtered("another capability of KVM", |_| sys(libc::SYS_ioctl, &[0, KVM_ENABLE_CAP, 0]).or_else(reached)),
    filtered("a thread", |_| {
        // With no stack the kernel refuses what a list lets through.
        sys(libc::SYS_clone, &[(libc::CLONE_THREAD | libc::CLONE_SIGHAND) as i64, 0, 0, 0, 0]).or_else(reached)
    }),
    filtered("a call of 32-bit programs", |_| {
        let result: i32;
        // SAFETY: getpid by the old gate; the kernel clobbers nothing but these.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
        };
        if result > 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
    }),
];

/// Must succeed where the program does it: so that a table of failures means something.
pub const CONTROLS: &[Attempt] = &[
    attempt("connect to the socket in its folder", |_| unix(b"sock", libc::SYS_connect)),
    attempt("write to its disk", |world| sys(libc::SYS_pwrite64, &[world.disk.as_raw_fd().into(), path("x"), 1, 0])),
];

fn clone(world: &World) -> World {
    World {
        folder: world.folder.clone(),
        outside: world.outside.clone(),
        disk: world.disk.try_clone().expect("a descriptor"),
        ..*world
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("our paths are text").to_owned()
}

/// A C string that is never freed.
fn path(text: &str) -> i64 {
    CString::new(text).expect("no zero byte").into_raw() as i64
}

fn sys(number: i64, arguments: &[i64]) -> io::Result<()> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the attempts pass valid pointers or such as the kernel refuses; what they change is this process' alone.
    match unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The kernel has looked at the arguments, so the call was let through.
fn reached(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Err(error),
        _ => Ok(()),
    }
}

fn executed(error: io::Error) -> io::Result<()> {
    // Standard error is no program, but it was tried.
    if error.raw_os_error() == Some(libc::EACCES) { Ok(()) } else { Err(error) }
}

fn open(file: &str, flags: i32) -> io::Result<()> {
    sys(libc::SYS_openat, &[libc::AT_FDCWD.into(), path(file), flags.into(), 0o600])
}

fn climb(world: &World) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    // SAFETY: a path that ends with a zero byte.
    let folder = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path(&text(&world.folder)), flags, 0) };
    if folder < 0 {
        return Err(io::Error::last_os_error());
    }
    let up = "../".repeat(20);
    sys(libc::SYS_openat, &[folder, path(&format!("{up}etc/passwd")), 0, 0])
}

fn exists(pid: i32) -> io::Result<()> {
    sys(libc::SYS_kill, &[pid.into(), 0])
}

fn map(protection: i32) -> io::Result<()> {
    sys(libc::SYS_mmap, &[0, 4096, protection.into(), (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into(), -1, 0])
}

fn tcp(world: &World, call: i64) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: world.port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    with_socket(libc::AF_INET, call, (&raw const address).cast(), size_of_val(&address))
}

fn unix(name: &[u8], call: i64) -> io::Result<()> {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    with_socket(libc::AF_UNIX, call, (&raw const address).cast(), 2 + name.len())
}

fn with_socket(family: i32, call: i64, address: *const u8, length: usize) -> io::Result<()> {
    // SAFETY: three numbers.
    let socket = unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_STREAM, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    sys(call, &[socket, address as i64, length as i64])
}

/// More processes than any machine needs.
fn fork_bomb(_: &World) -> io::Result<()> {
    for _ in 0..600 {
        // SAFETY: the child makes one system call after the other and returns nowhere.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // The child dies with its parent, should there be no namespace to die with; and by itself, should the parent
                // have died before it was asked to.
                let pause = libc::timespec { tv_sec: 5, tv_nsec: 0 };
                // SAFETY: numbers, and a time that is valid for the call; nothing is left to be run after the last one.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &pause, null_mut());
                    libc::_exit(0)
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn raise_limit(_: &World) -> io::Result<()> {
    let most = [u64::MAX, u64::MAX];
    sys(libc::SYS_prlimit64, &[0, libc::RLIMIT_FSIZE as i64, most.as_ptr() as i64, 0])
}
