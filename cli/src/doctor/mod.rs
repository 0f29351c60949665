//! `yunju doctor`: what this host can do, and what to change.

mod checks;
mod kvm;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::args::{Doctor, Format};
use crate::output::{self, Row};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Something will be missing or slow.
    Warn,
    /// Real guests cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found.
    found: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), hint: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), hint: Some(hint.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, found: found.into(), hint: Some(hint.into()) }
    }
}

impl Row for Check {
    const COLUMNS: &'static [&'static str] = &["CHECK", "STATUS", "FOUND"];

    fn cells(&self) -> Vec<String> {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        vec![self.name.to_owned(), status.to_owned(), self.found.clone()]
    }
}

/// `-o json`
#[derive(Debug, Serialize)]
struct Report {
    /// Stock kernels run here.
    real_guests: bool,
    /// `hardware`, `software` or `none`
    kvm: kvm::Kind,
    checks: Vec<Check>,
}

/// Looks at everything and says so.
pub fn run(data: &Path, arguments: &Doctor) -> Result<ExitCode> {
    let (kind, kvm_checks) = checks::kvm();
    let mut all = vec![checks::processor()];
    all.extend(kvm_checks);
    all.extend([
        checks::kernel(),
        checks::programs(),
        checks::network(),
        checks::memory(),
        checks::disk(data),
        checks::address(arguments.listen, data),
        checks::cgroups(),
    ]);
    all.extend(checks::jail());
    let real_guests = all.iter().all(|check| check.status != Status::Fail);
    let report = Report { real_guests, kvm: kind, checks: all };
    match arguments.listing.output {
        Format::Json => output::json(&report)?,
        Format::Yaml | Format::Csv | Format::Name => output::list(&report.checks, arguments.listing.output)?,
        Format::Table => {
            output::list(&report.checks, Format::Table)?;
            let hints = report.checks.iter().filter_map(|check| check.hint.as_ref().map(|hint| (check.name, hint)));
            for (index, (name, hint)) in hints.enumerate() {
                if index == 0 {
                    output::line("")?;
                }
                output::line(&format!("{name}: {hint}"))?;
            }
            let verdict = if real_guests { "Real guests can run here." } else { "Real guests cannot run here." };
            output::line(&format!("\n{verdict}"))?;
        }
    }
    Ok(if real_guests { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
