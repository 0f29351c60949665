//! Who this machine is: what must differ between a machine and its forks.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The identity that was taken on last.
const TAKEN: &str = "var/lib/yunju/identity";

/// Why a machine did not become what it was told to be.
#[derive(Debug)]
pub enum Error {
    /// The host says something that is no UUID or no host name.
    Unfit(String),
    /// Part of it could not be done.
    Doing(&'static str, io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfit(word) => write!(f, "`{word}` is no identity for a machine"),
            Self::Doing(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Doing(what, error)
}

/// The places where a system keeps its identity.
pub struct Identity {
    root: PathBuf,
    name_kernel: fn(&str) -> io::Result<()>,
}

impl Identity {
    /// The identity of the system under `root`; `name_kernel` tells the running kernel its host name.
    pub fn new(root: &Path, name_kernel: fn(&str) -> io::Result<()>) -> Self {
        Self { root: root.to_owned(), name_kernel }
    }

    /// Becomes machine `id`, if this is another one yet. The id is noted last, so that what is interrupted is done again.
    pub fn take_on(&self, id: &str, hostname: &str) -> Result<(), Error> {
        let machine_id = machine_id(id).ok_or_else(|| Error::Unfit(id.to_owned()))?;
        if !is_host_name(hostname) {
            return Err(Error::Unfit(hostname.to_owned()));
        }
        let note = format!("{id}\n");
        if fs::read(self.path(TAKEN)).is_ok_and(|taken| taken == note.as_bytes()) {
            return Ok(());
        }
        self.set_host_name(hostname).map_err(doing("setting the host name"))?;
        self.set_machine_id(&machine_id).map_err(doing("setting the machine id"))?;
        self.renew_host_keys().map_err(doing("making new SSH host keys"))?;
        self.write(TAKEN, &note).map_err(doing("noting the identity"))
    }

    fn set_host_name(&self, name: &str) -> io::Result<()> {
        (self.name_kernel)(name)?;
        let hosts = fs::read_to_string(self.path("etc/hosts")).unwrap_or_else(|_| "127.0.0.1 localhost\n".to_owned());
        // 127.0.1.1 is where Debian keeps a machine's own name.
        let others = hosts.lines().filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
        let mut hosts: String = others.flat_map(|line| [line, "\n"]).collect();
        hosts.push_str(&format!("127.0.1.1 {name}\n"));
        self.write("etc/hosts", &hosts)?;
        self.write("etc/hostname", &format!("{name}\n"))
    }

    fn set_machine_id(&self, machine_id: &str) -> io::Result<()> {
        self.write("etc/machine-id", &format!("{machine_id}\n"))?;
        let link = self.path("var/lib/dbus/machine-id");
        if link.parent().is_some_and(Path::is_dir) && !link.is_symlink() {
            // A file of its own would keep the old id.
            absent(fs::remove_file(&link))?;
            symlink("/etc/machine-id", &link)?;
        }
        Ok(())
    }

    /// Host keys are copied by a fork like everything else, but say who a machine is.
    fn renew_host_keys(&self) -> io::Result<()> {
        let keygen = self.path("usr/bin/ssh-keygen");
        if !keygen.exists() || !self.path("etc/ssh/sshd_config").exists() {
            return Ok(());
        }
        for entry in fs::read_dir(self.path("etc/ssh"))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("ssh_host_") && name.contains("_key")) {
                fs::remove_file(entry.path())?;
            }
        }
        let mut keygen = Command::new(keygen);
        keygen.arg("-A").arg("-f").arg(&self.root).stdin(Stdio::null()).stdout(Stdio::null());
        let status = keygen.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("ssh-keygen ended with {status}")));
        }
        self.restart_sshd();
        Ok(())
    }

    /// A running sshd keeps its keys until it is told to start over.
    fn restart_sshd(&self) {
        let Ok(text) = fs::read_to_string(self.path("run/sshd.pid")) else { return };
        if let Ok(pid @ 2..) = text.trim().parse::<i32>() {
            // SAFETY: sends a signal; touches no memory. One that is gone needs none.
            unsafe { libc::kill(pid, libc::SIGHUP) };
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Replaces a file whole, so that a machine that stops meanwhile has the old or the new one.
    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("yunju-new");
        let mut file = File::create(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    }
}

/// Tells the kernel the host name.
pub fn set_host_name(name: &str) -> io::Result<()> {
    let text = CString::new(name)?;
    // SAFETY: `text` is `name.len()` bytes long and outlives the call.
    let status = unsafe { libc::sethostname(text.as_ptr(), name.len()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A machine id (machine-id(5)) is a UUID without hyphens.
fn machine_id(id: &str) -> Option<String> {
    let digits: String = id.chars().filter(|character| *character != '-').collect();
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    let fits = groups == [8, 4, 4, 4, 12] && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (fits && digits.bytes().any(|byte| byte != b'0')).then(|| digits.to_ascii_lowercase())
}

/// One label of RFC 1123 §2.1.
fn is_host_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    letters && (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-')
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: &str = "0d9cb1f6-5b3c-4b0e-9a55-2f5f3c1f0a11";
    const SECOND: &str = "7A11E5D0-0000-4000-8000-00000000000F";

    struct Guest(tempfile::TempDir);

    impl Guest {
        fn new() -> Self {
            let guest = Self(tempfile::tempdir().unwrap());
            for folder in ["etc/ssh", "var/lib/dbus", "usr/bin"] {
                fs::create_dir_all(guest.0.path().join(folder)).unwrap();
            }
            guest.put("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 desktop\n10.0.0.1 mine # 127.0.1.1\n");
            guest.put("etc/hostname", "desktop\n");
            guest.put("var/lib/dbus/machine-id", "old\n");
            guest
        }

        fn put(&self, name: &str, content: &str) {
            fs::write(self.0.path().join(name), content).unwrap();
        }

        fn get(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).unwrap()
        }

        fn install_ssh(&self, keygen: &str) {
            self.put("etc/ssh/sshd_config", "");
            self.put("usr/bin/ssh-keygen", keygen);
            let program = self.0.path().join("usr/bin/ssh-keygen");
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
            self.put("etc/ssh/ssh_host_rsa_key", "old");
            self.put("etc/ssh/ssh_host_rsa_key.pub", "old");
        }

        fn become_(&self, id: &str, name: &str) -> Result<(), Error> {
            Identity::new(self.0.path(), |_| Ok(())).take_on(id, name)
        }
    }

    #[test]
    fn a_machine_takes_its_name_and_id_on_and_keeps_other_hosts() {
        let guest = Guest::new();
        guest.become_(FIRST, "alice-2").unwrap();
        assert_eq!(guest.get("etc/hostname"), "alice-2\n");
        assert_eq!(guest.get("etc/hosts"), "127.0.0.1 localhost\n10.0.0.1 mine # 127.0.1.1\n127.0.1.1 alice-2\n");
        assert_eq!(guest.get("etc/machine-id"), "0d9cb1f65b3c4b0e9a552f5f3c1f0a11\n");
        let link = fs::read_link(guest.0.path().join("var/lib/dbus/machine-id")).unwrap();
        assert_eq!(link, Path::new("/etc/machine-id"));
    }

    #[test]
    fn told_the_same_id_again_it_changes_nothing_and_another_one_everything() {
        let guest = Guest::new();
        guest.become_(FIRST, "alice").unwrap();
        guest.put("etc/hostname", "chosen-by-its-owner\n");
        guest.become_(FIRST, "alice").unwrap();
        assert_eq!(guest.get("etc/hostname"), "chosen-by-its-owner\n");
        guest.become_(SECOND, "bob").unwrap();
        assert_eq!(guest.get("etc/hostname"), "bob\n");
        assert_eq!(guest.get("etc/machine-id"), "7a11e5d0000040008000".to_owned() + "00000000000f\n");
    }

    #[test]
    fn an_installed_ssh_gets_new_keys_and_none_is_made_without_it() {
        let guest = Guest::new();
        guest.become_(FIRST, "alice").unwrap();
        guest.install_ssh("#!/bin/sh\n[ \"$1 $2\" = '-A -f' ] && echo new >\"$3/etc/ssh/ssh_host_ed25519_key\"\n");
        guest.become_(SECOND, "bob").unwrap();
        assert_eq!(guest.get("etc/ssh/ssh_host_ed25519_key"), "new\n");
        assert!(!guest.0.path().join("etc/ssh/ssh_host_rsa_key").exists());
        assert!(!guest.0.path().join("etc/ssh/ssh_host_rsa_key.pub").exists());
    }

    #[test]
    fn what_failed_is_done_again_the_next_time() {
        let guest = Guest::new();
        guest.install_ssh("#!/bin/sh\nexit 1\n");
        assert!(matches!(guest.become_(FIRST, "alice"), Err(Error::Doing(..))));
        guest.install_ssh("#!/bin/sh\necho new >\"$3/etc/ssh/ssh_host_ed25519_key\"\n");
        guest.become_(FIRST, "alice").unwrap();
        assert_eq!(guest.get("etc/ssh/ssh_host_ed25519_key"), "new\n");
    }

    #[test]
    fn what_is_no_identity_changes_nothing() {
        let guest = Guest::new();
        let long = "a".repeat(64);
        let ids = [(FIRST, ""), (FIRST, "-a"), (FIRST, "a b"), (FIRST, "ü"), (FIRST, "a.b"), (FIRST, &long), ("", "a")];
        let others = [("00000000-0000-0000-0000-000000000000", "a"), ("../../../etc/passwd", "a"), (&FIRST[1..], "a")];
        for (id, name) in ids.into_iter().chain(others) {
            assert!(matches!(guest.become_(id, name), Err(Error::Unfit(_))), "{id} {name}");
        }
        assert_eq!(guest.get("etc/hostname"), "desktop\n");
        assert!(!guest.0.path().join(TAKEN).exists());
    }
}
