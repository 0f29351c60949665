//! How much there may be of what somebody, or a group together, has.

use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::{Error, Result, Store, parsed};
use crate::model::{Quota, Used};

/// What there is to be more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// Desktops, or what they have.
    Desktops,
    /// Snapshots that somebody asked for.
    Snapshots,
}

/// The columns of a user's row, or a group's.
pub(super) fn quota(row: &Row<'_>) -> rusqlite::Result<Quota> {
    let bytes = |column| row.get::<_, Option<i64>>(column).map(|bytes| bytes.map(i64::unsigned_abs));
    Ok(Quota {
        desktops: row.get("max_desktops")?,
        memory: bytes("max_memory")?,
        cpus: row.get("max_cpus")?,
        disk: bytes("max_disk")?,
        snapshots: row.get("max_snapshots")?,
    })
}

/// What some have together; `whose` selects the ids of users by ?1.
fn used(connection: &Connection, whose: &str, by: Uuid) -> Result<Used> {
    let sql = format!(
        "WITH whose (id) AS ({whose})
         SELECT count(*), coalesce(sum(memory), 0), coalesce(sum(cpus), 0),
             (SELECT coalesce(sum(bytes), 0) FROM disk_use WHERE user_id IN whose),
             (SELECT count(*) FROM snapshots JOIN desktops ON desktops.id = desktop_id
              WHERE snapshots.kind = 'manual' AND deleted IS NULL AND owner_id IN whose)
         FROM desktops WHERE owner_id IN whose AND deleted IS NULL"
    );
    let row = |row: &Row<'_>| {
        let bytes = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(Used {
            desktops: row.get(0)?,
            memory: bytes(1)?,
            cpus: row.get(2)?,
            disk: bytes(3)?,
            snapshots: row.get(4)?,
        })
    };
    Ok(connection.prepare_cached(&sql)?.query_row([by.to_string()], row)?)
}

const USER: &str = "SELECT ?1";
const GROUP: &str = "SELECT user_id FROM group_members WHERE group_id = ?1";

/// In the transaction that gave a user more: whether that is still within their quota, and those of their groups. So however many
/// ask at once, no more than that is given. Of disks is known what was last measured.
pub(super) fn within_quota(connection: &Connection, user: Uuid, more: More) -> Result<()> {
    let own = connection.prepare_cached("SELECT * FROM users WHERE id = ?1")?.query_row([user.to_string()], quota)?;
    check(own, more, "", || used(connection, USER, user))?;
    let sql = "SELECT groups.* FROM groups JOIN group_members ON group_id = id WHERE user_id = ?1 ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let groups = statement.query_map([user.to_string()], |row| {
        Ok((parsed::<Uuid>(row, "id")?, row.get::<_, String>("name")?, quota(row)?))
    })?;
    for group in groups {
        let (id, name, quota) = group?;
        check(quota, more, &format!(" of group {name}"), || used(connection, GROUP, id))?;
    }
    Ok(())
}

fn check(quota: Quota, more: More, of: &str, used: impl FnOnce() -> Result<Used>) -> Result<()> {
    if quota == Quota::default() {
        return Ok(());
    }
    let used = used()?;
    let count = |count: u64| count.to_string();
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    type Shown<'a> = &'a dyn Fn(u64) -> String;
    let disk: (&str, Option<u64>, u64, Shown<'_>) = ("disk", quota.disk, used.disk, &mebibytes);
    let limits: Vec<(&str, Option<u64>, u64, Shown<'_>)> = match more {
        More::Desktops => vec![
            ("desktops", quota.desktops.map(u64::from), used.desktops.into(), &count),
            ("memory", quota.memory, used.memory, &mebibytes),
            ("processors", quota.cpus.map(u64::from), used.cpus.into(), &count),
            disk,
        ],
        More::Snapshots => vec![("snapshots", quota.snapshots.map(u64::from), used.snapshots.into(), &count), disk],
    };
    for (what, limit, used, shown) in limits {
        if let Some(limit) = limit.filter(|limit| used > *limit) {
            let what = format!("{what}{of}");
            return Err(Error::Quota { what, limit: shown(limit), would: shown(used) });
        }
    }
    Ok(())
}

impl Store {
    /// Changes how much a user's desktops may have. What they have stays.
    pub fn set_quota(&self, user: Uuid, quota: Quota) -> Result<()> {
        self.change(|transaction| set(transaction, "users", user, quota))
    }

    /// Changes how much the desktops of a group's members may have together. What they have stays.
    pub fn set_group_quota(&self, group: Uuid, quota: Quota) -> Result<()> {
        self.change(|transaction| set(transaction, "groups", group, quota))
    }

    /// How much a user's desktops have together.
    pub fn used(&self, user: Uuid) -> Result<Used> {
        used(&self.connection(), USER, user)
    }

    /// How much the desktops of a group's members have together.
    pub fn used_by_group(&self, group: Uuid) -> Result<Used> {
        used(&self.connection(), GROUP, group)
    }
}

fn set(connection: &Connection, table: &str, id: Uuid, quota: Quota) -> Result<()> {
    let sql = format!(
        "UPDATE {table} SET max_desktops = ?2, max_memory = ?3, max_cpus = ?4, max_disk = ?5, max_snapshots = ?6 WHERE id = ?1"
    );
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let (memory, disk) = (bytes(quota.memory), bytes(quota.disk));
    connection.execute(&sql, params![id.to_string(), quota.desktops, memory, quota.cpus, disk, quota.snapshots])?;
    Ok(())
}
