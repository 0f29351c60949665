//! Who changed what: rows that are only ever added.

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::{Result, Store};
use crate::model::AuditEntry;

/// What is to be recorded.
#[derive(Debug, Default)]
pub struct NewAudit<'a> {
    /// The user's name, or `local`, `service`, or nothing.
    pub actor: &'a str,
    /// `local`, `session`, `token`, `service` or `nobody`.
    pub via: &'a str,
    /// From where.
    pub address: &'a str,
    /// What was asked for, as the API calls it.
    pub action: &'a str,
    /// Of what: its kind and its name.
    pub resource: &'a str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Which request.
    pub request: &'a str,
    /// More about it.
    pub detail: &'a str,
}

/// Which entries; what is absent is any.
#[derive(Debug, Default, Clone)]
pub struct AuditFilter {
    /// By this user.
    pub actor: Option<String>,
    /// What begins like this: `desktop` is `desktop.start` and others.
    pub action: Option<String>,
    /// Of a thing with this name, or kind and name.
    pub resource: Option<String>,
    /// Not earlier.
    pub since: Option<Timestamp>,
    /// Earlier.
    pub until: Option<Timestamp>,
    /// Refused or failed ones only (`true`), or those that were done.
    pub refused: Option<bool>,
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let at: i64 = row.get("at")?;
    Ok(AuditEntry {
        id: row.get("id")?,
        at: Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH),
        actor: row.get("actor")?,
        via: row.get("via")?,
        address: row.get("address")?,
        action: row.get("action")?,
        resource: row.get("resource")?,
        status: row.get("status")?,
        request: row.get("request")?,
        detail: row.get("detail")?,
    })
}

impl Store {
    /// Adds an entry, for ever.
    pub fn add_audit(&self, new: &NewAudit<'_>) -> Result<()> {
        let sql = "INSERT INTO audit (at, actor, via, address, action, resource, status, request, detail)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let at = Timestamp::now().as_millisecond();
        let values =
            params![at, new.actor, new.via, new.address, new.action, new.resource, new.status, new.request, new.detail];
        self.connection().prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// At most `limit` entries: the newest before the entry `before`, newest first.
    pub fn audit_before(&self, filter: &AuditFilter, before: Option<i64>, limit: u32) -> Result<Vec<AuditEntry>> {
        self.audit(filter, "id < ?8 ORDER BY id DESC", before.unwrap_or(i64::MAX), limit)
    }

    /// At most `limit` entries: the oldest after the entry `after`, oldest first.
    pub fn audit_after(&self, filter: &AuditFilter, after: i64, limit: u32) -> Result<Vec<AuditEntry>> {
        self.audit(filter, "id > ?8 ORDER BY id", after, limit)
    }

    fn audit(&self, filter: &AuditFilter, place: &str, at: i64, limit: u32) -> Result<Vec<AuditEntry>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT * FROM audit WHERE (?1 IS NULL OR actor = ?1)
                 AND (?2 IS NULL OR substr(action, 1, length(?2)) = ?2)
                 AND (?3 IS NULL OR resource = ?3 OR substr(resource, instr(resource, ' ') + 1) = ?3)
                 AND (?4 IS NULL OR at >= ?4) AND (?5 IS NULL OR at < ?5)
                 AND (?6 IS NULL OR (status >= 400) = ?6) AND {place} LIMIT ?7"
        ))?;
        let milliseconds = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
        let (since, until) = (milliseconds(filter.since), milliseconds(filter.until));
        let values = params![filter.actor, filter.action, filter.resource, since, until, filter.refused, limit, at];
        Ok(statement.query_map(values, entry)?.collect::<rusqlite::Result<_>>()?)
    }
}
