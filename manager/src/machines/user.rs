//! The user that a desktop's processes run as: one that nobody else is, if the service is root.

use std::sync::LazyLock;

use rustix::process::geteuid;

use super::process::Identity;

/// Far above the numbers that systems give to people, services and containers. A desktop's number is this and the
/// process id of its VMM, which no two machines have at a time.
const BASE: u32 = 2_000_000_000;
/// Process ids are below this (proc(5), `pid_max`).
const PIDS: u32 = 1 << 22;

/// Whether processes can be given users of their own. In a container root may not have so many.
static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let available = geteuid().is_root() && covers(&map);
    if geteuid().is_root() && !available {
        tracing::warn!("users {BASE} to {} do not exist here: all desktops' processes run as root", BASE + PIDS);
    }
    available
});

/// Flags of the VMM.
pub fn of_vmm() -> Vec<String> {
    if *AVAILABLE { vec!["--uid".to_owned(), format!("{BASE}+pid")] } else { Vec::new() }
}

/// Flags of the other processes of the machine with this VMM, whose sockets they may use.
pub fn beside(vmm: Option<&Identity>) -> Vec<String> {
    let number = vmm.and_then(|vmm| u32::try_from(vmm.pid).ok()).filter(|_| *AVAILABLE);
    number.map_or_else(Vec::new, |pid| vec!["--uid".to_owned(), (BASE + pid).to_string()])
}

/// Whether a `uid_map` has all the numbers.
fn covers(map: &str) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (fields.next().unwrap_or(0), fields.next(), fields.next().unwrap_or(0));
        first <= u64::from(BASE) && first + count >= u64::from(BASE + PIDS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_few_users_has_none_for_desktops() {
        assert!(covers("         0          0 4294967295\n"));
        assert!(!covers("         0     100000      65536\n"));
        assert!(!covers("0 0 1\n1 1 2000000001\n"));
        assert!(!covers(""));
    }
}
