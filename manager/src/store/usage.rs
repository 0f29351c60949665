//! What desktops used, hour by hour.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Desktop, Result, Store, now, parsed, timestamp};
use crate::machines::spent::Spent;
use crate::model::{Usage, UsageBy};

const HOUR: i64 = 3600;

/// What was used is remembered for so long.
const KEPT_SECONDS: i64 = 400 * 24 * HOUR;

/// Which of what was used.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Of desktops of this owner.
    pub owner: Option<Uuid>,
    /// Of desktops of whoever had this name.
    pub user: Option<String>,
    /// Of this desktop, by the name that it had then or its id.
    pub desktop: Option<String>,
    /// Of hours that do not begin earlier.
    pub since: Option<Timestamp>,
    /// Of hours that begin earlier.
    pub until: Option<Timestamp>,
}

fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The row of a desktop's present hour, made if there is none.
fn hour(connection: &Connection, desktop: &Desktop) -> Result<i64> {
    let begin = now() / HOUR * HOUR;
    let sql = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
    let (id, owner) = (desktop.id.to_string(), desktop.owner_id.to_string());
    connection.prepare_cached(sql)?.execute(params![id, begin, desktop.name, owner, desktop.owner])?;
    Ok(begin)
}

impl Store {
    /// Adds what a machine used since this was last called.
    pub fn count_usage(&self, desktop: &Desktop, spent: &Spent) -> Result<()> {
        if spent.readings.is_empty() {
            return Ok(());
        }
        let (id, at) = (desktop.id.to_string(), Timestamp::now().as_millisecond());
        self.change(|transaction| {
            let (mut cpu, mut read, mut written, mut before) = (0, 0, 0, None);
            for reading in &spent.readings {
                let sql = "SELECT cpu_us, read, written, at FROM meters WHERE desktop_id = ?1 AND source = ?2";
                let last = transaction.prepare_cached(sql)?.query_row([&id, &reading.source], |row| {
                    Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
                });
                let last = last.optional()?;
                before = before.max(last.map(|last| last[3]));
                let last = last.unwrap_or_default();
                let now = [reading.cpu, reading.read, reading.written].map(counter);
                // what is given up while it is counted may make a sum smaller for a moment
                cpu += (now[0] - last[0]).max(0);
                read += (now[1] - last[1]).max(0);
                written += (now[2] - last[2]).max(0);
                let sql = "INSERT INTO meters VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                           cpu_us = max(cpu_us, ?3), read = max(read, ?4), written = max(written, ?5), at = ?6";
                transaction.prepare_cached(sql)?.execute(params![id, reading.source, now[0], now[1], now[2], at])?;
            }
            let gone = "DELETE FROM meters WHERE desktop_id = ?1 AND at < ?2";
            transaction.prepare_cached(gone)?.execute(params![id, at])?;
            let ms = before.map_or(0, |before| (at - before).max(0));
            let memory = counter(spent.memory >> 20).saturating_mul(ms);
            let begin = hour(transaction, desktop)?;
            let sql = "UPDATE usage SET running_ms = running_ms + ?3, cpu_us = cpu_us + ?4, memory_mib_ms = memory_mib_ms + ?5,
                       read = read + ?6, written = written + ?7 WHERE desktop_id = ?1 AND begin = ?2";
            transaction.prepare_cached(sql)?.execute(params![id, begin, ms, cpu, memory, read, written])?;
            Ok(())
        })
    }

    /// Records what the disks of desktops take now; forgets what was long ago.
    pub fn count_disks(&self, disks: &[(&Desktop, u64)]) -> Result<()> {
        self.change(|transaction| {
            for (desktop, bytes) in disks {
                let begin = hour(transaction, desktop)?;
                let sql = "UPDATE usage SET disk = max(disk, ?3) WHERE desktop_id = ?1 AND begin = ?2";
                transaction.prepare_cached(sql)?.execute(params![desktop.id.to_string(), begin, counter(*bytes)])?;
            }
            transaction.execute("DELETE FROM usage WHERE begin < ?1", [now() - KEPT_SECONDS])?;
            Ok(())
        })
    }

    /// Records what the disks and snapshots of each user take together now.
    pub fn set_disk_use(&self, bytes: &HashMap<Uuid, u64>) -> Result<()> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM disk_use", [])?;
            for (user, bytes) in bytes {
                let sql = "INSERT INTO disk_use SELECT id, ?2 FROM users WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute(params![user.to_string(), counter(*bytes)])?;
            }
            Ok(())
        })
    }

    /// The layers that a user's desktops and snapshots need, also deleted ones, but for those that an image's warm snapshot has
    /// too; each once for each user.
    pub fn layers_by_owner(&self) -> Result<Vec<(Uuid, Uuid)>> {
        let sql = "WITH RECURSIVE
            mine (owner, layer) AS (
                SELECT owner_id, layer_id FROM desktop_disks JOIN desktops ON id = desktop_id WHERE owner_id IS NOT NULL
                UNION SELECT owner_id, layer_id FROM snapshot_disks JOIN snapshots ON snapshots.id = snapshot_id
                    JOIN desktops ON desktops.id = snapshots.desktop_id WHERE owner_id IS NOT NULL
                UNION SELECT owner, parent FROM mine JOIN layers ON id = layer WHERE parent IS NOT NULL),
            warm (layer) AS (
                SELECT layer_id FROM snapshot_disks JOIN snapshots ON snapshots.id = snapshot_id WHERE kind = 'warm'
                UNION SELECT parent FROM warm JOIN layers ON id = layer WHERE parent IS NOT NULL)
            SELECT owner, layer FROM mine WHERE layer NOT IN warm";
        self.pairs(sql, |row| parsed(row, "layer"))
    }

    /// Bytes of the memory files of each snapshot that a user's desktops list, or go on from; each once for each user.
    pub fn snapshot_bytes_by_owner(&self) -> Result<Vec<(Uuid, u64)>> {
        let sql = "SELECT DISTINCT owner, snapshots.id, bytes FROM snapshots JOIN (
                SELECT owner_id AS owner, snapshots.id AS id FROM snapshots JOIN desktops ON desktops.id = desktop_id
                UNION SELECT owner_id, resume FROM desktops UNION SELECT owner_id, base FROM desktops) AS needed
            ON needed.id = snapshots.id WHERE owner IS NOT NULL AND kind <> 'warm'";
        self.pairs(sql, |row| row.get::<_, i64>("bytes").map(i64::unsigned_abs))
    }

    fn pairs<T>(&self, sql: &str, second: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<(Uuid, T)>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((parsed(row, "owner")?, second(row)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What was used, added up, oldest first: at most `limit` records behind the first `skip`. Names and disks are those of the
    /// last hour.
    pub fn usage(&self, filter: &UsageFilter, by: UsageBy, skip: u32, limit: u32) -> Result<Vec<Usage>> {
        let group = match by {
            UsageBy::Hour => "desktop_id, begin",
            UsageBy::Desktop => "desktop_id",
            UsageBy::User => {
                let all = self.usage(filter, UsageBy::Desktop, 0, u32::MAX)?;
                return Ok(by_user(all).into_iter().skip(skip as usize).take(limit as usize).collect());
            }
        };
        // beside one max() SQLite takes the columns of the row that has it
        let sql = format!(
            "SELECT desktop_id, desktop, owner, first, max(begin) AS last, sum(running_ms) AS running_ms, sum(cpu_us) AS cpu_us,
                 sum(memory_mib_ms) AS memory_mib_ms, sum(read) AS read, sum(written) AS written, disk
             FROM (SELECT *, min(begin) OVER (PARTITION BY {group}) AS first FROM usage
                 WHERE (?1 IS NULL OR owner_id = ?1) AND (?2 IS NULL OR owner = ?2)
                     AND (?3 IS NULL OR desktop = ?3 OR desktop_id = ?3) AND begin >= ?4 AND begin < ?5)
             GROUP BY {group} ORDER BY first, desktop_id LIMIT ?7 OFFSET ?6"
        );
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&sql)?;
        let second = |at: Option<Timestamp>, none| at.map_or(none, Timestamp::as_second);
        let values = params![
            filter.owner.map(|id| id.to_string()),
            filter.user,
            filter.desktop,
            second(filter.since, i64::MIN),
            second(filter.until, i64::MAX),
            skip,
            limit
        ];
        Ok(statement.query_map(values, usage)?.collect::<rusqlite::Result<_>>()?)
    }
}

/// What the desktops of each user used, by name.
fn by_user(all: Vec<Usage>) -> Vec<Usage> {
    let mut users: BTreeMap<String, Usage> = BTreeMap::new();
    for one in all {
        match users.get_mut(&one.owner) {
            Some(sum) => {
                (sum.begin, sum.end) = (sum.begin.min(one.begin), sum.end.max(one.end));
                sum.running_seconds += one.running_seconds;
                sum.cpu_seconds += one.cpu_seconds;
                sum.memory_mib_seconds += one.memory_mib_seconds;
                sum.read_bytes += one.read_bytes;
                sum.written_bytes += one.written_bytes;
                sum.disk_bytes += one.disk_bytes;
            }
            None => drop(users.insert(one.owner.clone(), Usage { desktop: None, desktop_id: None, ..one })),
        }
    }
    users.into_values().collect()
}

#[allow(clippy::cast_precision_loss)] // figures for people, exact to a millionth
fn usage(row: &Row<'_>) -> rusqlite::Result<Usage> {
    let number = |column| row.get::<_, i64>(column);
    let last: i64 = row.get("last")?;
    Ok(Usage {
        begin: timestamp(row, "first")?,
        end: Timestamp::from_second(last + HOUR).unwrap_or(Timestamp::MAX),
        desktop_id: Some(parsed(row, "desktop_id")?),
        desktop: Some(row.get("desktop")?),
        owner: row.get("owner")?,
        running_seconds: number("running_ms")? as f64 / 1e3,
        cpu_seconds: number("cpu_us")? as f64 / 1e6,
        memory_mib_seconds: number("memory_mib_ms")? as f64 / 1e3,
        read_bytes: number("read")?.unsigned_abs(),
        written_bytes: number("written")?.unsigned_abs(),
        disk_bytes: number("disk")?.unsigned_abs(),
    })
}
