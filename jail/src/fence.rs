//! Landlock: files cannot be opened, TCP ports not be used, and signals and abstract sockets do not leave the jail,
//! even where there are no namespaces. The kernel's part as far as it goes: a newer one can do more.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesetError),
    /// The kernel is too old, or it is switched off.
    #[error("this kernel has none")]
    None,
}

/// Who is fenced in.
pub enum Inmate<'a> {
    /// Nothing leaves.
    Prisoner,
    /// It signals the prisoner, and removes files from these folders.
    Warden(&'a [(OwnedFd, OsString)]),
}

/// Fences this thread and all that it will start in.
pub fn raise(inmate: &Inmate<'_>) -> Result<(), Error> {
    let newest = ABI::V6;
    let (scopes, removable): (BitFlags<Scope>, _) = match inmate {
        Inmate::Prisoner => (Scope::from_all(newest), &[][..]),
        Inmate::Warden(removable) => (Scope::AbstractUnixSocket.into(), *removable),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(scopes)?
        .create()?
        .no_new_privs(true);
    for (folder, _) in removable {
        let rights: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
        rules = rules.add_rule(PathBeneath::new(folder, rights))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(Error::None),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
