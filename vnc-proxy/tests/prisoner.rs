//! A program in the jail of the proxy, with the same list of system calls, tries what an exploited proxy would.

use std::process::ExitCode;

use yunju_jail::Flags;
use yunju_prisoner::{Subject, World};
use yunju_vnc_proxy::{calls, jail};

const SUBJECT: Subject = Subject {
    lists: &["proxy"],
    // The runtime starts its threads when it needs them.
    allowed: &[("a thread", &["proxy"])],
    controls: &[("connect to the socket in its folder", &["proxy"])],
    enter,
    within: |_, run| run(),
};

fn main() -> ExitCode {
    yunju_prisoner::main(&SUBJECT)
}

fn enter(world: &World, flags: &Flags, bound: bool) -> Result<(), String> {
    let bind = || if bound { calls::bind() } else { Ok(()) };
    jail::enter(&world.folder.join("display"), [], flags, bind).map_err(|error| error.to_string())
}
