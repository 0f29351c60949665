//! The command line's part: the same flags for every jailed program.

use clap::{Args, ValueEnum};

/// How much of a jail there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Mode {
    /// All that this host can do; a warning for each part that it cannot.
    #[default]
    Warn,
    /// All of it, or the program does not run.
    Require,
}

/// Flags of every jailed program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct Flags {
    /// When this host lacks a part of the jail: go on with a warning, or refuse to run
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub jail: Mode,
    /// Run without a jail, with a warning
    #[arg(long, conflicts_with = "jail")]
    pub no_jail: bool,
    /// Become this user, and the group of the same number; only root can. With `+pid` behind, the process id is added
    #[arg(long, value_name = "NUMBER[+pid]", value_parser = parse_uid)]
    pub uid: Option<u32>,
}

fn parse_uid(text: &str) -> Result<u32, String> {
    let (number, pid) = text.strip_suffix("+pid").map_or((text, 0), |number| (number, std::process::id()));
    let uid = number.parse::<u32>().ok().and_then(|number| number.checked_add(pid));
    uid.filter(|uid| (1..u32::MAX).contains(uid)).ok_or_else(|| "no number of a user, other than root's".to_owned())
}
