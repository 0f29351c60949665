//! What a process may do by itself: its user, capabilities, limits.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{Error, Lack, Owner, Spec, system};

/// Changes user and group, and leaves all other groups.
pub fn become_owner(owner: Owner) -> Result<(), Error> {
    let Owner { uid, gid, .. } = owner;
    set_thread_groups(&[]).map_err(system("leaving groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(system("changing the group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(system("changing the user"))
}

/// Takes everything away from the prisoner. `owner`: whom root must still become.
pub fn drop_all(spec: &Spec<'_>, owner: Option<Owner>, others: Others, lack: Lack) -> Result<(), Error> {
    limit(spec, others).map_err(system("setting limits"))?;
    drop_capabilities(owner, lack)?;
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    forget_environment();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(system("forbidding dumps"))?;
    set_no_new_privs(true).map_err(system("forbidding new privileges"))
}

/// No capabilities, now and for ever; root becomes `owner` on the way.
pub fn drop_capabilities(owner: Option<Owner>, lack: Lack) -> Result<(), Error> {
    // Without this capability the two that follow are refused, and there is nothing to take away either.
    if rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETPCAP)) {
        for number in 0..64 {
            let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Newer than this kernel.
                Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(system("dropping capabilities")(error)),
            }
        }
        let bits = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        set_capabilities_secure_bits(bits).or_else(|error| lack.of("locked secure bits", io::Error::from(error)))?;
    }
    if let Some(owner) = owner {
        become_owner(owner)?;
    }
    // A kernel without ambient capabilities has none to clear.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(system("dropping capabilities"))
}

/// Passwords and tokens of whoever started this program may be in its environment.
pub fn forget_environment() {
    unsafe extern "C" {
        static environ: *mut *mut libc::c_char;
    }
    // SAFETY: there is one thread, and nobody holds on to a string of the environment. The list ends with a null pointer;
    // the strings lie on the stack or the heap, where they may be written to.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            std::ptr::write_bytes(*entry, 0, libc::strlen(*entry));
            entry = entry.add(1);
        }
        libc::clearenv();
    }
}

/// Whose processes count where the prisoner's number of threads is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nobody's: it has a user namespace.
    None,
    /// Those of the same machine: it has a user of its own.
    Few,
    /// All that its user runs.
    Many,
}

/// Processes of one machine, each with as many threads as the other at most: monitor, proxy, network, and one to spare.
const FEW: u64 = 4;

fn limit(spec: &Spec<'_>, others: Others) -> io::Result<()> {
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Nofile, spec.descriptors),
        (Resource::Fsize, spec.file),
        // Buffers of io_uring on old kernels.
        (Resource::Memlock, 8 << 20),
        (Resource::Msgqueue, 0),
        (Resource::Sigpending, 64),
    ];
    match others {
        Others::None => limits.push((Resource::Nproc, spec.threads)),
        Others::Few => limits.push((Resource::Nproc, spec.threads * FEW)),
        // Nobody knows how many there are.
        Others::Many => {}
    }
    for (resource, most) in limits {
        let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Whether this kernel counts a user's processes in each user namespace by itself: from 5.14 on.
pub fn counts_apart() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 14)
}
