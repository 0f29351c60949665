//! What desktops used, for who owns them and who sees all.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::access::Caller;
use super::audit::{Format, cell};
use super::problem::Refusal;
use super::{Query, paging};
use crate::model::{Usage, UsageBy};
use crate::service::Service;
use crate::store::UsageFilter;

/// `?by=desktop&since=2026-11-24T00:00:00Z`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    #[serde(default)]
    by: UsageBy,
    user: Option<String>,
    desktop: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<u32>,
    /// How many records are behind one already.
    #[serde(default)]
    cursor: u32,
    #[serde(default)]
    format: Format,
}

pub async fn list(
    State(service): State<Arc<Service>>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Refusal> {
    let limit = paging::limit(query.limit)?;
    let (by, format, skip) = (query.by, query.format, query.cursor);
    let filter = UsageFilter {
        owner: caller.sees(),
        user: query.user,
        desktop: query.desktop,
        since: query.since,
        until: query.until,
    };
    let records = tokio::task::spawn_blocking(move || service.store.usage(&filter, by, skip, limit)).await;
    let records = records.map_err(|panic| Refusal::internal(panic.to_string()))??;
    let next = (records.len() == limit as usize).then(|| skip.saturating_add(limit).to_string());
    Ok(match format {
        Format::Json => paging::page(&uri, next.as_deref(), Json(records)),
        Format::Csv => {
            let head = if skip == 0 { HEAD } else { "" };
            let text: String = std::iter::once(head.to_owned()).chain(records.iter().map(line)).collect();
            let kind = [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
            ];
            paging::page(&uri, next.as_deref(), (kind, text).into_response())
        }
    })
}

const HEAD: &str = "begin,end,desktop,desktop_id,owner,running_seconds,cpu_seconds,memory_mib_seconds,read_bytes,written_bytes,disk_bytes\r\n";

fn line(usage: &Usage) -> String {
    let id = usage.desktop_id.map(|id| id.to_string()).unwrap_or_default();
    let words = [
        &usage.begin.to_string(),
        &usage.end.to_string(),
        usage.desktop.as_deref().unwrap_or_default(),
        &id,
        &usage.owner,
    ];
    let figures = [
        usage.running_seconds.to_string(),
        usage.cpu_seconds.to_string(),
        usage.memory_mib_seconds.to_string(),
        usage.read_bytes.to_string(),
        usage.written_bytes.to_string(),
        usage.disk_bytes.to_string(),
    ];
    let cells: Vec<_> = words.into_iter().map(cell).chain(figures).collect();
    cells.join(",") + "\r\n"
}
