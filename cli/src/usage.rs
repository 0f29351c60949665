//! `yunju usage`

use anyhow::{Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use yunju_manager::model::{Usage, UsageBy};

use crate::args;
use crate::client::{Client, segment};
use crate::output::{self, Row};

impl Row for Usage {
    const COLUMNS: &'static [&'static str] =
        &["OWNER", "DESKTOP", "BEGIN", "RUNNING", "CPU", "MEMORY", "READ", "WRITTEN", "DISK"];

    fn cells(&self) -> Vec<String> {
        let hours = |seconds: f64| format!("{:.2} h", seconds / 3600.0);
        let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
        vec![
            self.owner.clone(),
            self.desktop.clone().unwrap_or_default(),
            output::time(self.begin),
            hours(self.running_seconds),
            hours(self.cpu_seconds),
            format!("{:.2} GiB h", self.memory_mib_seconds / 1024.0 / 3600.0),
            mebibytes(self.read_bytes),
            mebibytes(self.written_bytes),
            mebibytes(self.disk_bytes),
        ]
    }
}

/// Prints what was used.
pub async fn run(client: &Client, usage: &args::Usage) -> Result<()> {
    usage.by.parse::<UsageBy>().map_err(|error| anyhow!(error))?;
    let last = usage.last.and_then(|last| SignedDuration::try_from(last).ok());
    let since = last.and_then(|last| Timestamp::now().checked_sub(last).ok()).or(usage.since);
    let mut path = format!("/v1/usage?limit=1000&by={}", usage.by);
    let words = [
        ("user", usage.user.clone()),
        ("desktop", usage.desktop.clone()),
        ("since", since.map(|at| at.to_string())),
        ("until", usage.until.map(|at| at.to_string())),
    ];
    for (key, value) in words {
        path += &value.map(|value| format!("&{key}={}", segment(&value))).unwrap_or_default();
    }
    output::list(&client.pages::<Usage>(&path).await?, usage.listing.output)
}
