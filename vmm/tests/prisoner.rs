//! A program in the jail of the monitor, with the same lists of system calls, tries what an exploited monitor would.

use std::process::ExitCode;

use yunju_jail::Flags;
use yunju_prisoner::{Subject, World};
use yunju_protocol::machine::{DiskConfig, MachineConfig};
use yunju_vmm::threads::{self, Kind};

/// Lists that differ; the others' are shorter.
const SUBJECT: Subject = Subject {
    lists: &["Main", "Vcpu", "Block", "Gpu", "Net", "Vsock", "Control"],
    allowed: &[("a ring of requests", &["Block"])],
    controls: &[("connect to the socket in its folder", &["Vsock"]), ("write to its disk", &["Block", "Main"])],
    enter,
    within,
};

fn main() -> ExitCode {
    yunju_prisoner::main(&SUBJECT)
}

fn enter(world: &World, flags: &Flags, bound: bool) -> Result<(), String> {
    let folder = world.folder.display();
    let text = format!(r#"{{"kernel":"k","memory":"64M","vsock":{{"cid":3,"socket":"{folder}/vsock"}}}}"#);
    let mut config: MachineConfig = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    config.disks.push(DiskConfig { path: world.outside.join("disk"), ..DiskConfig::default() });
    let bind = || if bound { threads::bind() } else { Ok(()) };
    yunju_vmm::jail::enter(&config, flags, || Ok(()), bind).map_err(|error| error.to_string())
}

fn within(list: &str, run: Box<dyn FnOnce() + Send>) {
    match Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == list).expect("a kind of thread") {
        Kind::Main => {
            threads::become_kind(Kind::Main);
            run();
        }
        kind => threads::spawn(kind, "prisoner", 256 << 10, run).expect("a thread").join().expect("no panic"),
    }
}
