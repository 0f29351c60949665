//! `yunju audit …`

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use yunju_manager::model::AuditEntry;

use crate::args::{Audit, AuditFilter, ExportFormat};
use crate::client::{Client, segment};
use crate::output;

/// Runs one of the audit commands.
pub async fn run(client: &Client, command: Audit) -> Result<()> {
    match command {
        Audit::Ls { filter, limit, listing } => {
            let path = format!("/v1/audit?limit={limit}{}", query(&filter));
            output::list(&client.get::<Vec<AuditEntry>>(&path).await?, listing.output)
        }
        Audit::Export { filter, format } => {
            let format = match format {
                ExportFormat::Json => "json",
                ExportFormat::Csv => "csv",
            };
            client.copy(&format!("/v1/audit/export?format={format}{}", query(&filter)), output::raw).await
        }
    }
}

fn query(filter: &AuditFilter) -> String {
    let (since, until) = (filter.since.map(|time| time.to_string()), filter.until.map(|time| time.to_string()));
    let pairs = [
        ("actor", filter.actor.as_ref()),
        ("action", filter.action.as_ref()),
        ("resource", filter.resource.as_ref()),
        ("since", since.as_ref()),
        ("until", until.as_ref()),
    ];
    let mut query: String =
        pairs.iter().filter_map(|(name, value)| Some(format!("&{name}={}", segment((*value)?)))).collect();
    if filter.refused {
        query += "&refused=true";
    }
    query
}

/// A moment: `2026-11-24T05:00:00Z`, or so long ago: `2h`.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago: Duration = crate::args::parse_time(text)
        .map_err(|_| "write a time such as 2026-11-24T05:00:00Z, or 90s, 30m, 2h or 7d ago")?;
    let ago = SignedDuration::try_from(ago).map_err(|error| error.to_string())?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}
