//! `run/processes.json`: which processes make up a running machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::process::Identity;

/// The processes of one machine, as far as they were started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The machine and its network run: it is taken up again, not made anew.
    pub started: bool,
    /// `yunju-vmm`
    pub vmm: Option<Identity>,
    /// `yunju-vnc-proxy`
    pub proxy: Option<Identity>,
    /// `passt`
    pub passt: Option<Identity>,
    /// Bytes of the difference that the machine went on from; 0 if it booted, or went on from a whole memory.
    #[serde(default)]
    pub difference: u64,
}

impl Record {
    /// What was last saved at `path`; a file that makes no sense counts as none, for it was never whole.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Replaces the file at `path`; it is on the disk when this returns.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    }

    /// All processes that it names.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        [&self.vmm, &self.proxy, &self.passt].into_iter().flatten()
    }
}
