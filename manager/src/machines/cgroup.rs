//! The control group (version 2) of each machine: what its processes may use together of memory, processors, disks and
//! process numbers.
//!
//! ```text
//! <the service's own group, or the root>/yunju/<desktop id>/   memory.max pids.max cpu.max cpu.weight io.max io.weight
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::folder::Folder;

/// Where control groups of version 2 are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Beyond the guest's memory: the processes themselves, pixels, page tables, buffers of sockets. The host's cache of the
/// disks counts as well, and is given up first.
const MARGIN: u64 = 512 << 20;
/// Processes and threads of a machine, its proxy and passt.
const PIDS: u64 = 512;
/// Microseconds of a processor's time in each [`PERIOD`]: a machine has that for each of its own processors, and once more
/// for what is around them.
const PERIOD: u64 = 100_000;
/// How long what was killed in a group may take to end: hundreds of processes on a busy host, or large memory.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether they have, and after how many looks they are killed again, as one may have come later.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS: u32 = 20;
/// What must be at hand, and what is used if it is.
const NEEDED: [&str; 2] = ["memory", "pids"];
const USED: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// The group of one machine. It stays until [`remove`].
#[derive(Debug, Clone)]
pub struct Group(PathBuf);

/// Makes the group of desktop `id`; `None` where there can be none, which is told once. `disk` is how many bytes per second
/// may be read, and be written, where a folder lies.
pub fn make(id: Uuid, memory: u64, cpus: u8, disk: Option<(&Path, u64)>) -> Option<Group> {
    let group = Group(home()?.join(id.to_string()));
    if let Err(error) = group.set_up(memory, cpus) {
        tracing::warn!(desktop = %id, group = %group.0.display(), %error, "the machine's memory and processes are not limited");
        return None;
    }
    if let Some((folder, bytes)) = disk
        && let Err(error) = group.slow_down(folder, bytes)
    {
        tracing::warn!(desktop = %id, folder = %folder.display(), %error, "only the machine itself limits its disks");
    }
    Some(group)
}

/// The group of the desktop with this folder, if there is one.
pub fn of(folder: &Folder) -> Option<PathBuf> {
    let group = home()?.join(folder.path().file_name()?);
    group.is_dir().then_some(group)
}

/// Removes the group of the desktop with this folder, if there is one, and whatever is still in it.
pub async fn remove(folder: &Folder) {
    let (Some(home), Some(name)) = (home(), folder.path().file_name()) else { return };
    let group = home.join(name);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        // Kernels before 5.14 cannot do this.
        let _ = fs::write(group.join("cgroup.kill"), "1");
        for _ in 0..LOOKS {
            match fs::remove_dir(&group) {
                // Populated, as the kernel says it: processes that were killed are gone only a moment later.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => tokio::time::sleep(PAUSE).await,
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return tracing::warn!(group = %group.display(), %error, "a machine's control group stays");
                }
                _ => return,
            }
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
            ("cpu.max", format!("{} {PERIOD}", (u64::from(cpus) + 1) * PERIOD)),
            ("cpu.weight", (u64::from(cpus) * 100).to_string()),
            ("io.weight", "100".to_owned()),
        ] {
            let _ = self.write(file, &value);
        }
        Ok(())
    }

    /// Lets no more than `bytes` a second be read from the disk of `folder`, and be written to it.
    fn slow_down(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        let device = disk_of(fs::metadata(folder)?.dev())?;
        self.write("io.max", &format!("{device} rbps={bytes} wbps={bytes}"))
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

/// The whole disk that a file system's device is, or is a part of: `major:minor`.
fn disk_of(device: u64) -> io::Result<String> {
    let name = |path: &Path| fs::read_to_string(path.join("dev")).map(|text| text.trim().to_owned());
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let path = fs::canonicalize(Path::new("/sys/dev/block").join(&number))
        .map_err(|_| io::Error::other(format!("its file system, {number}, is not on one disk")))?;
    match path.parent() {
        Some(disk) if path.join("partition").exists() => name(disk),
        _ => name(&path),
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
        assert_eq!(read("cpu.max"), "300000 100000");
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

    /// A group with the kernel behind it.
    fn group(disk: Option<(&Path, u64)>) -> (Uuid, Group) {
        let id = Uuid::new_v4();
        (id, make(id, 0, 1, disk).unwrap())
    }

    async fn goes(id: Uuid, group: &Group) {
        remove(&Folder::of(Path::new("/nowhere"), id)).await;
        assert!(!group.0.exists(), "what was left in it is gone as well");
    }

    #[tokio::test]
    #[ignore = "needs root and control groups of version 2, as in the lab"]
    async fn a_machine_gets_no_more_memory_and_processes_than_its_group_has() {
        use std::os::unix::process::ExitStatusExt;
        let (id, group) = group(None);
        // dd has as much memory as its block is large
        assert!(run_in(&group, "dd if=/dev/zero of=/dev/null bs=300M count=1").success());
        assert_eq!(run_in(&group, "dd if=/dev/zero of=/dev/null bs=900M count=1").signal(), Some(9));
        let events = fs::read_to_string(group.0.join("memory.events")).unwrap();
        assert!(!events.contains("oom_kill 0"), "{events}");
        assert!(!run_in(&group, "for i in $(seq 600); do sleep 60 & done").success());
        let most = fs::read_to_string(group.0.join("pids.events")).unwrap();
        assert!(!most.starts_with("max 0"), "{most}");
        goes(id, &group).await;
    }

    #[tokio::test]
    #[ignore = "needs root, control groups of version 2 and TMPDIR on a disk, as in the lab"]
    async fn a_machine_gets_no_more_of_processors_and_of_the_disk_than_its_group_has() {
        let folder = tempfile::tempdir().unwrap();
        let (id, group) = group(Some((folder.path(), 1 << 20)));
        assert_eq!(fs::read_to_string(group.0.join("cpu.max")).unwrap().trim(), "200000 100000");
        let write = format!("dd if=/dev/zero of={}/file bs=256K count=16 oflag=direct", folder.path().display());
        let begun = Instant::now();
        assert!(run_in(&group, &write).success());
        let seconds = begun.elapsed().as_secs_f64();
        assert!(seconds > 2.5, "4 MiB at 1 MiB/s were written within {seconds} s");
        goes(id, &group).await;
    }
}
