//! Which system calls a thread may make, and with which arguments. Any other ends the program, with a line that says
//! which thread made which call.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// A call that is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// `SYS_…`
    pub number: i64,
    /// With which arguments.
    pub when: When,
    /// Who needs it.
    pub why: &'static str,
}

/// What an argument, counted from 0, must be. Only its lower 32 bits are looked at.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// Anything.
    Any,
    /// One of these.
    Is(u8, &'static [u64]),
    /// This under a mask: `(argument & mask) == value`.
    Masked(u8, u64, u64),
}

/// A call with any arguments.
pub const fn call(number: i64, why: &'static str) -> Call {
    Call { number, when: When::Any, why }
}

/// A call of which an argument is looked at.
pub const fn call_if(number: i64, when: When, why: &'static str) -> Call {
    Call { number, when, why }
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake in a list.
    #[error("compiling a list of system calls: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refuses.
    #[error("installing a list of system calls: {0}")]
    Install(#[from] seccompiler::Error),
    /// The handler.
    #[error("handling forbidden system calls: {0}")]
    Handle(#[from] io::Error),
}

/// An allow-list, ready to be installed.
#[derive(Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// What any of the lists allows.
    pub fn new(lists: &[&[Call]]) -> Result<Self, Error> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let calls = || lists.iter().copied().flatten();
        for call in calls() {
            let condition = |argument, operator, value| {
                let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
                SeccompRule::new(vec![condition])
            };
            let list = rules.entry(call.number).or_default();
            match call.when {
                When::Any => {}
                When::Is(argument, values) => {
                    for value in values {
                        list.push(condition(argument, SeccompCmpOp::Eq, *value)?);
                    }
                }
                When::Masked(argument, mask, value) => {
                    list.push(condition(argument, SeccompCmpOp::MaskedEq(mask), value)?);
                }
            }
        }
        // No rule means any arguments, whatever other lists say.
        for call in calls().filter(|call| matches!(call.when, When::Any)) {
            rules.entry(call.number).or_default().clear();
        }
        compile(rules, SeccompAction::Trap, SeccompAction::Allow).map(Self)
    }

    /// Binds this thread, and those that it will start, to the list, besides those that bind it already.
    pub fn install(&self) -> Result<(), Error> {
        Ok(apply_filter(&self.0)?)
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, Error> {
    Ok(SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()?)
}

/// Most heaps of the C library.
const HEAPS: i32 = 4;

static PROGRAM: OnceLock<&'static str> = OnceLock::new();

/// Must be called once, before threads are started: makes ready to tell of forbidden calls, and answers two
/// calls of the C library itself, in all threads, as if the kernel had none. Instead of `clone3` threads are then started by
/// `clone`, whose flags a filter can see. The settings of the kernel that `openat` looks for in `/proc` can be done without.
pub fn arm(program: &'static str) -> Result<(), Error> {
    PROGRAM.get_or_init(|| program);
    // SAFETY: this only sets a number, and no other thread allocates. The C library would otherwise read a file to
    // learn how many heaps suit this host, in whichever thread first needs one.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
    // SAFETY: the action is zeroed, which is valid, and filled in before use; the handler makes system calls only.
    let handled = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = forbidden;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut())
    };
    if handled != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let rules = [libc::SYS_clone3, libc::SYS_openat].map(|call| (call, Vec::new())).into();
    Ok(apply_filter(&compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?)?)
}

/// Says what happened and ends the program.
extern "C" fn forbidden(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes there. For SIGSYS the call's number is the int at byte 24 of the
    // `siginfo_t` that the kernel hands over (asm-generic/siginfo.h, `_sigsys`).
    let number = unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        *info.cast::<i32>().add(6)
    };
    let mut line = Line { bytes: [0; 160], length: 0 };
    line.add(PROGRAM.get().unwrap_or(&"yunju").as_bytes());
    line.add(b": error: thread ");
    line.add(CStr::from_bytes_until_nul(&name).map_or(&name[..], CStr::to_bytes));
    line.add(b" made the forbidden system call ");
    line.add_number(number.unsigned_abs());
    line.add(b"\n");
    // SAFETY: the bytes are valid for the call; then the process ends, without running anything else.
    unsafe {
        libc::write(2, line.bytes.as_ptr().cast(), line.length);
        libc::_exit(1)
    }
}

/// Text without allocation.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Line {
    fn add(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn add_number(&mut self, number: u32) {
        if number > 9 {
            self.add_number(number / 10);
        }
        self.add(&[b'0' + (number % 10) as u8]);
    }
}

/// What every Rust program with threads does all the time.
pub const EVERYWHERE: &[Call] = &[
    call(libc::SYS_futex, "locks and channels"),
    call(libc::SYS_read, "descriptors that it was given"),
    call(libc::SYS_write, "the same, and messages"),
    call(libc::SYS_close, "descriptors that it is done with"),
    call_if(
        libc::SYS_fcntl,
        When::Is(1, &[libc::F_GETFD as u64]),
        "whether a descriptor that is closed was open, in debug builds",
    ),
    call(libc::SYS_poll, "waiting for descriptors"),
    call(libc::SYS_ppoll, "the same"),
    call_if(libc::SYS_mmap, When::Masked(2, libc::PROT_EXEC as u64, 0), "memory, but never code"),
    call_if(libc::SYS_mprotect, When::Masked(2, libc::PROT_EXEC as u64, 0), "heaps that grow"),
    call(libc::SYS_munmap, "memory given back"),
    call(libc::SYS_mremap, "large buffers that grow"),
    call(libc::SYS_madvise, "memory given back, stacks of threads that ended"),
    call(libc::SYS_brk, "the heap"),
    call(libc::SYS_openat, "always answered that there is no such call, see `arm`"),
    call(libc::SYS_rt_sigreturn, "the end of a signal's handler"),
    call(libc::SYS_rt_sigprocmask, "threads that start and end"),
    call(libc::SYS_sigaltstack, "the same"),
    call(libc::SYS_set_robust_list, "the same"),
    call(libc::SYS_rseq, "the same"),
    call(libc::SYS_gettid, "the same"),
    call(libc::SYS_getpid, "the same"),
    call(libc::SYS_exit, "the same"),
    call(libc::SYS_exit_group, "the end of the program"),
    call(libc::SYS_sched_yield, "locks that spin for a moment"),
    call(libc::SYS_sched_getaffinity, "how many heaps there are"),
    call(libc::SYS_clock_gettime, "where the kernel's page does not tell the time"),
    call(libc::SYS_clock_nanosleep, "pauses"),
    call(libc::SYS_restart_syscall, "waits that were interrupted"),
    call(libc::SYS_getrandom, "keys of hash tables"),
    call_if(
        libc::SYS_prctl,
        When::Is(0, &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64]),
        "names of threads, also for the last message",
    ),
    call_if(libc::SYS_tgkill, When::Is(2, &[libc::SIGABRT as u64]), "the end after a mistake"),
];

/// Flags of `clone` that make new namespaces.
pub const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// For threads that start others.
pub const STARTING: &[Call] = &[
    call_if(
        libc::SYS_clone,
        When::Masked(0, (libc::CLONE_THREAD | NAMESPACES) as u64, libc::CLONE_THREAD as u64),
        "threads, and nothing else",
    ),
    call(libc::SYS_clone3, "asked first by the C library, answered that there is none"),
];

/// For threads whose successors get lists of their own.
pub const BINDING: &[Call] = &[
    call(libc::SYS_seccomp, "a shorter list for the thread just started"),
    call_if(libc::SYS_prctl, When::Is(0, &[libc::PR_SET_NO_NEW_PRIVS as u64]), "asked for before that"),
];
