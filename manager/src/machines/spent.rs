//! What a machine's processes have used: from its control group, where it has one, else from `/proc`.

use std::fs;
use std::path::Path;

use super::process::Identity;
use super::record::Record;
use crate::folder::Folder;

/// Deeper, or wider, is no tree of processes of ours.
const MOST_PROCESSES: usize = 1024;

/// Counters that only grow, of something that is never counted twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What was counted: a group or a process, by a name that no other has or had.
    pub source: String,
    /// Microseconds of processors' time.
    pub cpu: u64,
    /// Bytes that were read from disks.
    pub read: u64,
    /// Bytes that were written to disks.
    pub written: u64,
}

/// What a machine has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of what it consists of.
    pub readings: Vec<Reading>,
    /// Bytes of memory that it has now.
    pub memory: u64,
}

impl Spent {
    /// All together.
    pub fn total(&self) -> Reading {
        let sum = |of: fn(&Reading) -> u64| self.readings.iter().map(of).sum();
        Reading { source: String::new(), cpu: sum(|r| r.cpu), read: sum(|r| r.read), written: sum(|r| r.written) }
    }

    /// Of the machine with this folder, if processes are recorded. A process that ended and has not been waited for
    /// still counts.
    pub fn of(folder: &Folder) -> Option<Self> {
        let record = Record::load(&folder.run_file("processes.json"))?;
        let vmm = record.vmm.as_ref()?;
        let group = super::cgroup::of(folder).and_then(|group| Self::of_group(&group, vmm));
        Some(group.unwrap_or_else(|| Self::of_processes(&record)))
    }

    fn of_group(group: &Path, vmm: &Identity) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let cpu = value(&read("cpu.stat")?, "usage_usec")?;
        let io = read("io.stat").unwrap_or_default();
        let (from, to) = (sum(&io, "rbytes="), sum(&io, "wbytes="));
        // each machine has a new group
        let source = format!("group {} {} {}", vmm.boot, vmm.pid, vmm.start_time);
        let memory = read("memory.current").and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Some(Self { readings: vec![Reading { source, cpu, read: from, written: to }], memory })
    }

    fn of_processes(record: &Record) -> Self {
        let mut spent = Self::default();
        for process in record.identities().filter(|process| process.is_of_this_boot()) {
            // those that ended count with whoever waited for them: a tree is one source
            let mut reading = Reading {
                source: format!("process {} {} {}", process.boot, process.pid, process.start_time),
                cpu: 0,
                read: 0,
                written: 0,
            };
            let Some(root) = Stat::of(process.pid).filter(|stat| stat.start_time == process.start_time) else {
                continue;
            };
            let mut waiting = vec![(process.pid, root)];
            let mut seen = 0;
            while let Some((pid, stat)) = waiting.pop().filter(|_| seen < MOST_PROCESSES) {
                seen += 1;
                reading.cpu += stat.ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1);
                spent.memory += stat.pages.saturating_mul(rustix::param::page_size() as u64);
                let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
                reading.read += value(&io, "read_bytes:").unwrap_or_default();
                reading.written += value(&io, "write_bytes:").unwrap_or_default();
                let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                let children = children.split_whitespace().filter_map(|child| child.parse().ok());
                waiting.extend(children.filter_map(|child: i32| Stat::of(child).map(|stat| (child, stat))));
            }
            spent.readings.push(reading);
        }
        spent
    }
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    start_time: u64,
    /// Of itself and of children that it waited for, in user and kernel mode: fields 14 to 17.
    ticks: u64,
    /// Field 24.
    pages: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command's name is in parentheses and may hold anything; what follows the last one is fields 3 to 52.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)?.saturating_add(field(15)?).saturating_add(field(16)?).saturating_add(field(17)?);
        Some(Self { start_time: field(22)?, ticks, pages: field(24)? })
    }
}

/// The number behind a word at the beginning of a line.
pub(crate) fn value(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The sum of all numbers right behind a word.
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_tells_what_all_its_processes_used_on_all_disks() {
        let group = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(group.path().join(file), text).unwrap();
        let vmm = Identity { pid: 7, start_time: 8, boot: "b".to_owned() };
        assert_eq!(Spent::of_group(group.path(), &vmm), None);
        write("cpu.stat", "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n");
        write("io.stat", "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2\n253:1 rbytes=1 wbytes=2\n");
        write("memory.current", "1048576\n");
        let spent = Spent::of_group(group.path(), &vmm).unwrap();
        let reading = Reading { source: "group b 7 8".to_owned(), cpu: 1_234_567, read: 4097, written: 8194 };
        assert_eq!(spent, Spent { readings: vec![reading], memory: 1 << 20 });
    }

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let text = "7 (a) S 1 2) S 1 7 7 0 -1 4194560 0 0 0 0 10 20 30 40 20 0 1 0 4321 9 55 0";
        assert_eq!(Stat::parse(text), Some(Stat { start_time: 4321, ticks: 100, pages: 55 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_counts_with_its_children_and_after_its_end_until_it_is_waited_for() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done & wait; echo; read -r go";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = Stat::of(pid).unwrap().start_time;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
        let record = Record { vmm: Some(Identity { pid, start_time, boot }), ..Record::default() };
        let running = Spent::of_processes(&record);
        assert!(running.memory > 0 && running.total().cpu > 10_000, "{running:?}");
        drop(child.stdin.take());
        while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z") {
            std::thread::yield_now();
        }
        assert!(Spent::of_processes(&record).total().cpu >= running.total().cpu);
        child.wait().unwrap();
        assert_eq!(Spent::of_processes(&record).readings, []);
        let other = Identity { start_time: start_time + 1, ..record.vmm.unwrap() };
        assert_eq!(Spent::of_processes(&Record { vmm: Some(other), ..Record::default() }), Spent::default());
    }
}
