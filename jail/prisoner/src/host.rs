//! Hosts that lack a part of the jail.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// What a host can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// User namespaces; root has the others all the same.
    UserNamespace,
    /// All namespaces.
    Namespaces,
    /// The calls that make an empty root.
    EmptyRoot,
    /// Landlock.
    Landlock,
    /// Lists of system calls.
    Seccomp,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::UserNamespace, Self::Namespaces, Self::EmptyRoot, Self::Landlock, Self::Seccomp];

    /// As warnings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespace",
            Self::Namespaces => "namespaces",
            Self::EmptyRoot => "empty root",
            Self::Landlock => "Landlock",
            Self::Seccomp => "seccomp",
        }
    }

    /// Whether standard error has its warning, once.
    pub fn is_told_in(self, said: &str) -> bool {
        let warning = format!(" warning: jail: {}: ", self.name());
        said.lines().filter(|line| line.contains(&warning)).count() == 1
    }

    /// Whether nothing of the jail stands behind this part against an attempt. Without namespaces sockets are guarded by the rights to
    /// their files alone, if a list lets the program connect; and processes of a user who has others are not counted.
    pub fn alone_stops(self, attempt: &str, root: bool) -> bool {
        self == Self::Namespaces
            && match attempt {
                "connect to a socket outside" | "climb to a socket outside" => true,
                "a fork bomb" => !root,
                _ => false,
            }
    }

    /// The system call that is refused if its first argument has this bit.
    fn call(self) -> (i64, i32) {
        match self {
            Self::UserNamespace => (libc::SYS_clone, libc::CLONE_NEWUSER),
            Self::Namespaces => (libc::SYS_clone, libc::CLONE_NEWNS),
            Self::EmptyRoot => (libc::SYS_fsopen, 0),
            Self::Landlock => (libc::SYS_landlock_create_ruleset, 0),
            Self::Seccomp => (libc::SYS_seccomp, 0),
        }
    }
}

/// Starts a program as on a host that lacks this.
pub fn lacking(command: &mut Command, part: Part) {
    let (call, bit) = part.call();
    let bit = bit as u64;
    let given =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit).expect("a condition");
    let rules = BTreeMap::from([(call, vec![SeccompRule::new(vec![given]).expect("a rule")])]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    // SAFETY: installing a filter makes two system calls and allocates nothing.
    unsafe { command.pre_exec(move || apply_filter(&program).map_err(|_| io::ErrorKind::Other.into())) };
}
