//! Starting a process that outlives us, without a moment in which nobody knows of it.
//!
//! The child first waits at a gate, a pipe that it reads a line from. It is recorded, then the gate is
//! opened and it becomes the program. If we are killed before, the pipe ends and the child goes away:
//! a process either is in the record or never ran the program.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::process::Process;

/// Reads a line from the gate, then becomes the program, with nothing to read.
const GATE: &str = r#"read -r go && exec "$@" </dev/null"#;

/// A process at its gate. Dropping it sends the process away.
#[derive(Debug)]
pub struct Gated {
    /// The process: after the gate it is the program, with the same identity.
    pub process: Process,
    gate: ChildStdin,
}

impl Gated {
    /// Lets the process become the program.
    pub fn open(mut self) -> io::Result<Process> {
        self.gate.write_all(b"go\n")?;
        Ok(self.process)
    }
}

/// Makes a process in a session of its own that will become `program`. Its output goes to `log`;
/// it inherits `descriptors` under the numbers that they have here.
pub fn spawn(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    log: File,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Gated> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GATE, "yunju"]).arg(program).args(arguments);
    command.current_dir(folder).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        rustix::process::setsid()?;
        for &number in &numbers {
            // SAFETY: `descriptors` borrows them in the parent until `spawn` returns, and this child is a copy of it.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let flags = fcntl_getfd(descriptor)?;
            fcntl_setfd(descriptor, flags - FdFlags::CLOEXEC)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec `prepare` only makes system calls and reads memory that it owns; it allocates nothing.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn()?;
    let gate = child.stdin.take().expect("standard input was asked to be a pipe");
    Ok(Gated { process: Process::of_child(child.id())?, gate })
}

/// A new log file at `path`; the one before is kept as `<path>.old`.
pub fn fresh_log(path: &Path) -> io::Result<File> {
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    match std::fs::rename(path, old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    append_log(path)
}

/// The log file at `path`, made if missing, to write at its end.
pub fn append_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::process::Exit;
    use super::*;

    fn cat_to(log: &Path, word: &str) -> Gated {
        let arguments = ["-c".into(), format!("echo {word}; cat")];
        spawn(Path::new("/bin/sh"), &arguments, Path::new("/"), fresh_log(log).unwrap(), &[]).unwrap()
    }

    #[tokio::test]
    async fn the_program_starts_when_the_gate_opens_and_reads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let gated = cat_to(&log, "ran");
        let identity = gated.process.identity().clone();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(std::fs::read(&log).unwrap(), b"", "nothing runs before the gate opens");
        let process = gated.open().unwrap();
        assert_eq!(process.identity(), &identity);
        assert_eq!(process.ended().await, Exit::Code(0));
        assert_eq!(std::fs::read(&log).unwrap(), b"ran\n");
    }

    #[tokio::test]
    async fn a_process_whose_gate_is_never_opened_goes_away_without_running() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let Gated { process, gate } = cat_to(&log, "ran");
        drop(gate);
        process.ended().await;
        assert_eq!(std::fs::read(&log).unwrap(), b"");
    }

    #[tokio::test]
    async fn a_descriptor_is_inherited_under_its_number_and_only_if_named() {
        use std::os::fd::AsFd;
        let folder = tempfile::tempdir().unwrap();
        let (given, kept) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let log = folder.path().join("log");
        let list = |n: i32| format!("[ -e /proc/self/fd/{n} ] && echo has || echo lacks");
        let script = format!("{}; {}", list(given.as_raw_fd()), list(kept.as_raw_fd()));
        let arguments = ["-c".into(), script];
        let log_file = fresh_log(&log).unwrap();
        let gated = spawn(Path::new("/bin/sh"), &arguments, Path::new("/"), log_file, &[given.as_fd()]).unwrap();
        gated.open().unwrap().ended().await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "has\nlacks\n");
    }
}
