//! One function a thing that is looked at.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use kvm_ioctls::Kvm;
use yunju_protocol::machine::ByteSize;

use super::Check;
use super::kvm::{self, Kind};
use crate::serve::{find_passt, own_folder};

/// A host with less available memory has no room for a desktop.
const MEMORY_WANTED: u64 = 2 << 30;

/// An image and a few desktops need this on the disk.
const DISK_WANTED: u64 = 10 << 30;

/// The oldest kernel that has all that is used (pidfd, io of large files, kvm capabilities).
const KERNEL_WANTED: (u32, u32) = (5, 10);

pub fn processor() -> Check {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |name: &str| flags.split_ascii_whitespace().any(|flag| flag == name);
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    match (has("vmx"), has("svm")) {
        (true, _) => Check::ok("processor", format!("{model}, Intel VT-x")),
        (_, true) => Check::ok("processor", format!("{model}, AMD-V")),
        _ => Check::warn(
            "processor",
            format!("{model}, no virtualization flag"),
            "turn VT-x or AMD-V on in the firmware, or nested virtualization in the host of this machine",
        ),
    }
}

/// The device, and what is behind it.
pub fn kvm() -> (Kind, Vec<Check>) {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            let hint = match std::io::Error::from_raw_os_error(error.errno()).kind() {
                ErrorKind::NotFound => "load the module kvm_intel or kvm_amd",
                ErrorKind::PermissionDenied => "add the user to the group kvm: usermod -aG kvm USER, then log in anew",
                _ => "see dmesg for what the module kvm says",
            };
            return (Kind::None, vec![Check::fail("/dev/kvm", error.to_string(), hint)]);
        }
    };
    let device = match kvm.get_api_version() {
        12 => Check::ok("/dev/kvm", "can be used, API 12"),
        version => Check::fail("/dev/kvm", format!("API {version}"), "use a Linux kernel that speaks API 12"),
    };
    let modules = ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter();
    let loaded = modules.filter(|module| Path::new("/sys/module").join(module).exists()).collect::<Vec<_>>().join(", ");
    let (kind, guests) = match kvm::probe(&kvm) {
        Ok(Kind::Hardware) => (Kind::Hardware, Check::ok("guests", format!("run on the processor ({loaded})"))),
        Ok(kind) => (
            kind,
            Check::fail(
                "guests",
                format!("kernels are emulated in software ({loaded}): stock kernels do not boot"),
                "use a host with VT-x or AMD-V; `make run` uses the nested lab here",
            ),
        ),
        Err(error) => (Kind::None, Check::fail("guests", error.to_string(), "see dmesg for what the module kvm says")),
    };
    (kind, vec![device, guests])
}

pub fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (wanted_major, wanted_minor) = KERNEL_WANTED;
    match version(release) {
        Some(found) if found >= KERNEL_WANTED => Check::ok("kernel", release),
        _ => Check::warn("kernel", release, format!("use Linux {wanted_major}.{wanted_minor} or later")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub fn programs() -> Check {
    let Ok(folder) = own_folder() else {
        return Check::warn("programs", "this program's folder cannot be found", "say with --bin-dir where they are");
    };
    let missing: Vec<_> =
        ["yunju-vmm", "yunju-vnc-proxy"].into_iter().filter(|name| !folder.join(name).is_file()).collect();
    let folder = folder.display();
    if missing.is_empty() {
        Check::ok("programs", format!("yunju-vmm and yunju-vnc-proxy are in {folder}"))
    } else {
        let hint = "build the whole workspace, or say with `yunju serve --bin-dir` where they are";
        Check::warn("programs", format!("no {} in {folder}", missing.join(" and ")), hint)
    }
}

pub fn network() -> Check {
    match find_passt() {
        Some(path) => Check::ok("network", format!("user-mode, by {}", path.display())),
        None => Check::warn("network", "no passt: desktops have no network", "install the package passt"),
    }
}

pub fn memory() -> Check {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = field.and_then(|text| text.trim().trim_end_matches("kB").trim().parse().ok());
    let bytes = kib.unwrap_or(0) << 10;
    let found = format!("{} available", rounded(bytes));
    if bytes >= MEMORY_WANTED {
        Check::ok("memory", found)
    } else {
        Check::warn("memory", found, format!("a desktop takes 1G: have {} or more", ByteSize(MEMORY_WANTED)))
    }
}

pub fn disk(data: &Path) -> Check {
    let existing = data.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Err(error) => Check::warn("disk", format!("{}: {error}", existing.display()), "choose another --data"),
        Ok(info) => {
            let bytes = info.f_bavail.saturating_mul(info.f_frsize);
            let found = format!("{} free for {}", rounded(bytes), data.display());
            if bytes >= DISK_WANTED {
                Check::ok("disk", found)
            } else {
                Check::warn("disk", found, format!("have {} or more, or choose another --data", ByteSize(DISK_WANTED)))
            }
        }
    }
}

/// Can browsers be listened for?
pub fn address(listen: SocketAddr, data: &Path) -> Check {
    let reach = if listen.ip().is_loopback() { "browsers on this host only" } else { "any browser that reaches it" };
    match TcpListener::bind(listen) {
        Ok(_) => Check::ok("address", format!("{listen} is free: {reach}")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let socket = data.join(yunju_manager::serve::SOCKET);
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                Check::ok("address", format!("{listen} is in use, and `yunju serve` runs: {reach}"))
            } else {
                Check::warn("address", format!("{listen} is in use"), "choose another with `yunju serve --listen`")
            }
        }
        Err(error) => {
            Check::warn("address", format!("{listen}: {error}"), "choose another with `yunju serve --listen`")
        }
    }
}

pub fn cgroups() -> Check {
    let what = "machines' memory and processes are not limited";
    match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(controllers) if ["memory", "pids"].iter().all(|need| controllers.split_whitespace().any(|c| c == *need)) => {
            Check::ok("cgroups", format!("version 2: {}", controllers.trim()))
        }
        Ok(controllers) => Check::warn(
            "cgroups",
            format!("version 2 with {}: {what}", controllers.trim()),
            "enable the controllers memory and pids",
        ),
        Err(_) => {
            Check::warn("cgroups", format!("no version 2: {what}"), "boot with systemd.unified_cgroup_hierarchy=1")
        }
    }
}

/// What the jail of machines and proxies is made of.
pub fn jail() -> Vec<Check> {
    let number = |file: &str| fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let most = number("/proc/sys/user/max_user_namespaces");
    let closed = [
        ("/proc/sys/kernel/unprivileged_userns_clone", 0),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1),
    ];
    let closed = closed.iter().find(|(file, value)| number(file) == Some(*value));
    let namespaces = match (most, closed) {
        (None | Some(0), _) => Check::warn(
            "user namespaces",
            "none: machines are jailed by less",
            "sysctl user.max_user_namespaces=10000, or a kernel with CONFIG_USER_NS",
        ),
        (_, Some((file, _))) if !rustix::process::geteuid().is_root() => Check::warn(
            "user namespaces",
            format!("{file} keeps them from users: machines are jailed by less"),
            "change that setting, or run `yunju serve` as root",
        ),
        _ => Check::ok("user namespaces", "can be made"),
    };
    // SAFETY: with these arguments the call only tells its version (landlock_create_ruleset(2)).
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    let landlock = match version {
        1.. => Check::ok("landlock", format!("version {version}")),
        _ => Check::warn("landlock", "none: machines are jailed by less", "boot with landlock in lsm="),
    };
    let filters = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let seccomp = if filters.contains("trap") {
        Check::ok("seccomp", "can be used")
    } else {
        Check::warn("seccomp", "none: machines are jailed by less", "use a kernel with CONFIG_SECCOMP_FILTER")
    };
    vec![namespaces, landlock, seccomp]
}

fn rounded(bytes: u64) -> String {
    format!("{:.1}G", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-test"), Some((6, 18)));
        assert_eq!(version("5.9.0"), Some((5, 9)));
        assert!(version("5.9.0") < Some(KERNEL_WANTED) && version("6.1") > Some(KERNEL_WANTED));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn an_address_in_use_by_somebody_else_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = address(taken.local_addr().unwrap(), Path::new("/nonexistent"));
        assert_eq!(check.status, super::super::Status::Warn);
        assert!(check.found.contains("in use"));
    }
}
