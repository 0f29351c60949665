//! The control group (version 2) of each machine: what its processes may use together of memory, processors, disks and
//! process numbers.
//!
//! ```text
//! <the service's own group, or the root>/yunju/<desktop id>/   memory.max pids.max cpu.weight io.weight
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use uuid::Uuid;

use crate::folder::Folder;

/// Where control groups of version 2 are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Beyond the guest's memory: the processes themselves, pixels, page tables, buffers of sockets. The host's cache of the
/// disks counts as well, and is given up first.
const MARGIN: u64 = 512 << 20;
/// Processes and threads of a machine, its proxy and passt.
const PIDS: u64 = 512;
/// How often, and after which pauses, a group is tried to be removed.
const PATIENCE: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// What must be at hand, and what is used if it is.
const NEEDED: [&str; 2] = ["memory", "pids"];
const USED: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// The group of one machine. It stays until [`remove`].
#[derive(Debug, Clone)]
pub struct Group(PathBuf);

/// Makes the group of desktop `id`; `None` where there can be none, which is told once.
pub fn make(id: Uuid, memory: u64, cpus: u8) -> Option<Group> {
    let group = Group(home()?.join(id.to_string()));
    match group.set_up(memory, cpus) {
        Ok(()) => Some(group),
        Err(error) => {
            tracing::warn!(desktop = %id, group = %group.0.display(), %error, "the machine's memory and processes are not limited");
            None
        }
    }
}

/// Removes the group of the desktop with this folder, if there is one, and whatever is still in it.
pub async fn remove(folder: &Folder) {
    let (Some(home), Some(name)) = (home(), folder.path().file_name()) else { return };
    let group = home.join(name);
    for _ in 0..PATIENCE {
        // Processes that were killed are gone only a moment later. Kernels before 5.14 cannot do this.
        let _ = fs::write(group.join("cgroup.kill"), "1");
        match fs::remove_dir(&group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => tokio::time::sleep(PAUSE).await,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return tracing::warn!(group = %group.display(), %error, "a machine's control group stays");
            }
            _ => return,
        }
    }
    tracing::warn!(group = %group.display(), "a machine's control group stays: its processes do not end");
}

impl Group {
    fn set_up(&self, memory: u64, cpus: u8) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.write("memory.max", &memory.saturating_add(MARGIN).to_string())?;
        self.write("pids.max", &PIDS.to_string())?;
        // What follows depends on the kernel's configuration. A machine gets a share of busy processors for each of its own.
        for (file, value) in [
            ("memory.oom.group", "1".to_owned()),
            ("cpu.weight", (u64::from(cpus) * 100).to_string()),
            ("io.weight", "100".to_owned()),
        ] {
            let _ = self.write(file, &value);
        }
        Ok(())
    }

    /// Takes a process in, with all that it will start.
    pub fn add(&self, pid: i32) {
        if let Err(error) = self.write("cgroup.procs", &pid.to_string()) {
            tracing::warn!(pid, group = %self.0.display(), %error, "a process is not limited");
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(file), value)
    }
}

/// The folder in which groups of machines are made, or nothing, with a warning.
fn home() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || match prepare(Path::new(MOUNT), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default()) {
        Ok(home) => Some(home),
        Err(error) => {
            tracing::warn!(
                "no control groups for machines: {error}; their memory, processors and processes are not limited \
                 (`yunju doctor` tells more)"
            );
            None
        }
    };
    HOME.get_or_init(find).as_deref()
}

/// Makes `yunju` below the service's own group, or below the root if that one cannot share out its controllers: a group
/// with processes in it cannot, except the root.
fn prepare(mount: &Path, own: &str) -> io::Result<PathBuf> {
    if !mount.join("cgroup.controllers").exists() {
        return Err(io::Error::other("this host has no cgroup version 2"));
    }
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = prepare_below(&mount.join(own));
    own.or_else(|error| prepare_below(mount).map_err(|_| error))
}

fn prepare_below(parent: &Path) -> io::Result<PathBuf> {
    let home = parent.join("yunju");
    match fs::create_dir(&home) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for folder in [parent, &home] {
        for controller in USED {
            let delegated = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
            if NEEDED.contains(&controller) {
                delegated.map_err(|error| {
                    io::Error::new(error.kind(), format!("{} cannot share out {controller}: {error}", folder.display()))
                })?;
            }
        }
    }
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files stand for the kernel's here: what is written to them can be read.
    fn tree(group: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "cpu io memory pids").unwrap();
        fs::create_dir_all(mount.path().join(group)).unwrap();
        mount
    }

    #[test]
    fn groups_are_made_below_the_services_own() {
        let mount = tree("system.slice/yunju.service");
        let home = prepare(mount.path(), "1:cpu:/\n0::/system.slice/yunju.service\n").unwrap();
        assert_eq!(home, mount.path().join("system.slice/yunju.service/yunju"));
        let group = Group(home.join("one"));
        group.set_up(1 << 30, 2).unwrap();
        let read = |file: &str| fs::read_to_string(group.0.join(file)).unwrap();
        assert_eq!(read("memory.max"), ((1_u64 << 30) + MARGIN).to_string());
        assert_eq!((read("pids.max"), read("cpu.weight")), (PIDS.to_string(), "200".to_owned()));
        group.set_up(1 << 30, 2).unwrap();
    }

    #[test]
    fn where_the_own_group_cannot_be_shared_out_the_root_is_taken() {
        let mount = tree("busy");
        // As a group that has processes: it takes no controllers.
        fs::create_dir(mount.path().join("busy/cgroup.subtree_control")).unwrap();
        assert_eq!(prepare(mount.path(), "0::/busy\n").unwrap(), mount.path().join("yunju"));
    }

    #[test]
    fn a_host_without_version_2_is_told() {
        let mount = tempfile::tempdir().unwrap();
        assert!(prepare(mount.path(), "").unwrap_err().to_string().contains("no cgroup version 2"));
    }

    /// Runs a script in the group and says how it ended.
    fn run_in(group: &Group, script: &str) -> std::process::ExitStatus {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let script = format!("read -r go && {script}");
        let shell = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut child = shell.unwrap();
        group.add(i32::try_from(child.id()).unwrap());
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        child.wait().unwrap()
    }

    #[tokio::test]
    async fn a_machine_gets_no_more_memory_and_processes_than_its_group_has() {
        use std::os::unix::process::ExitStatusExt;
        if !Path::new(MOUNT).join("cgroup.controllers").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("no cgroup version 2 here: run this as root in the lab");
            return;
        }
        let id = Uuid::new_v4();
        let group = make(id, 0, 1).unwrap();
        assert!(run_in(&group, "head -c 300M /dev/zero | tail -c 300M").success());
        assert_eq!(run_in(&group, "head -c 900M /dev/zero | tail -c 900M").signal(), Some(9));
        let events = fs::read_to_string(group.0.join("memory.events")).unwrap();
        assert!(!events.contains("oom_kill 0"), "{events}");
        assert!(!run_in(&group, "for i in $(seq 600); do sleep 60 & done").success());
        let most = fs::read_to_string(group.0.join("pids.events")).unwrap();
        assert!(!most.starts_with("max 0"), "{most}");
        remove(&Folder::of(Path::new("/nowhere"), id)).await;
        assert!(!group.0.exists(), "what was left in it is gone as well");
    }
}
