//! Work that takes a while, what happened, and answers that may be asked for again.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Error, Result, Store, optional_time, parsed, timestamp};
use crate::model::OperationState;

tokio::task_local! {
    /// The operation that this task works at.
    pub static CURRENT: Uuid;
}

/// An operation as stored; what it is to do, and what came of it, in JSON.
#[derive(Debug, Clone)]
pub struct Operation {
    /// In the order that they were asked for.
    pub number: i64,
    /// Never changes.
    pub id: Uuid,
    /// What is to be done.
    pub work: String,
    /// In a word.
    pub kind: String,
    /// With which desktop.
    pub desktop_id: Uuid,
    /// What that was called.
    pub desktop: String,
    /// Whose it was.
    pub owner_id: Uuid,
    /// Who asked for it.
    pub actor: String,
    /// How far it is.
    pub state: OperationState,
    /// What it is for is recorded.
    pub done: bool,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub problem: Option<String>,
    /// What came of it.
    pub result: Option<String>,
}

fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        number: row.get("number")?,
        id: parsed(row, "id")?,
        work: row.get("work")?,
        kind: row.get("kind")?,
        desktop_id: parsed(row, "desktop_id")?,
        desktop: row.get("desktop")?,
        owner_id: parsed(row, "owner_id")?,
        actor: row.get("actor")?,
        state: parsed(row, "state")?,
        done: row.get("done")?,
        created: timestamp(row, "created")?,
        ended: optional_time(row, "ended")?,
        problem: row.get("problem")?,
        result: row.get("result")?,
    })
}

/// What [`Store::add_operation`] needs.
#[derive(Debug)]
pub struct NewOperation<'a> {
    /// What is to be done, in JSON.
    pub work: &'a str,
    /// In a word.
    pub kind: &'a str,
    /// With which desktop.
    pub desktop: Subject<'a>,
    /// Who asks for it.
    pub actor: &'a str,
}

/// A desktop that is there, or is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Which.
    pub id: Uuid,
    /// What it is called.
    pub name: &'a str,
    /// Whose it is.
    pub owner: Uuid,
}

impl<'a> From<&'a super::Desktop> for Subject<'a> {
    fn from(desktop: &'a super::Desktop) -> Self {
        Self { id: desktop.id, name: &desktop.name, owner: desktop.owner_id }
    }
}

/// In the transaction that records what an operation of one of these kinds is for: it is not rolled back from here on.
pub(super) fn mark_done(connection: &Connection, kinds: &[&str]) -> Result<()> {
    if let Ok(id) = CURRENT.try_with(|id| *id) {
        let sql = "UPDATE operations SET done = 1 WHERE id = ?1 AND kind = ?2";
        for kind in kinds {
            connection.execute(sql, params![id.to_string(), kind])?;
        }
    }
    Ok(())
}

/// Operations that ended are kept for so long.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;

/// And at most so many.
const OPERATIONS: i64 = 10_000;

/// So many wait for a desktop at most.
pub const QUEUE: u32 = 16;

/// Operations that end a machine, and are begun at once: of those there may be more.
const ENDS: [&str; 3] = ["stop", "restart", "delete"];

/// So many answers are kept for each caller.
const ANSWERS: i64 = 1000;

/// So many events are kept.
const EVENTS: i64 = 10_000;

/// Answers are kept for so long.
const ANSWER_SECONDS: i64 = 24 * 3600;

impl Store {
    /// Records that something is to be done; forgets what ended long ago.
    pub fn add_operation(&self, new: &NewOperation<'_>) -> Result<Operation> {
        self.change(|transaction| {
            let now = super::now();
            transaction.execute("DELETE FROM operations WHERE ended < ?1", [now - KEPT_SECONDS])?;
            let many = "DELETE FROM operations WHERE ended IS NOT NULL AND number <= (SELECT max(number) FROM operations) - ?1";
            transaction.execute(many, [OPERATIONS])?;
            // what ends a machine does not wait for what is queued
            let ends = ENDS.contains(&new.kind);
            let waiting = "SELECT count(*) FROM operations
                           WHERE ended IS NULL AND desktop_id = ?1 AND (kind IN ('stop', 'restart', 'delete')) = ?2";
            let waiting: u32 =
                transaction.query_row(waiting, params![new.desktop.id.to_string(), ends], |row| row.get(0))?;
            if waiting >= if ends { QUEUE * 4 } else { QUEUE } {
                return Err(Error::Queue(new.desktop.name.to_owned()));
            }
            let sql = "INSERT INTO operations (id, work, kind, desktop_id, desktop, owner_id, actor, state, created)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'queued', ?8) RETURNING *";
            let (id, desktop, owner) =
                (Uuid::new_v4().to_string(), new.desktop.id.to_string(), new.desktop.owner.to_string());
            let values = params![id, new.work, new.kind, desktop, new.desktop.name, owner, new.actor, now];
            Ok(transaction.query_row(sql, values, operation)?)
        })
    }

    /// The operation with this id.
    pub fn operation(&self, id: &str) -> Result<Option<Operation>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM operations WHERE id = ?1")?;
        Ok(statement.query_row([id], operation).optional()?)
    }

    /// At most `limit` operations with desktops of `owner`, or all, before the one with the number `before`; newest first.
    pub fn operations(&self, owner: Option<Uuid>, before: Option<i64>, limit: u32) -> Result<Vec<Operation>> {
        let connection = self.connection();
        let sql = "SELECT * FROM operations WHERE (?1 IS NULL OR owner_id = ?1) AND number < ?2 ORDER BY number DESC LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let values = params![owner.map(|id| id.to_string()), before.unwrap_or(i64::MAX), limit];
        Ok(statement.query_map(values, operation)?.collect::<rusqlite::Result<_>>()?)
    }

    /// How many operations there are of each kind and state.
    pub fn count_operations(&self) -> Result<Vec<(String, String, u32)>> {
        let connection = self.connection();
        let sql = "SELECT kind, state, count(*) FROM operations GROUP BY kind, state ORDER BY kind, state";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What a service before this one had not ended, in the order that it was asked for.
    pub fn unended_operations(&self) -> Result<Vec<Operation>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT * FROM operations WHERE ended IS NULL ORDER BY number")?;
        Ok(statement.query_map([], operation)?.collect::<rusqlite::Result<_>>()?)
    }

    /// A queued operation begins. False if it was cancelled.
    pub fn begin_operation(&self, id: Uuid) -> Result<bool> {
        let sql = "UPDATE operations SET state = 'running' WHERE id = ?1 AND state = 'queued'";
        Ok(self.connection().execute(sql, [id.to_string()])? == 1)
    }

    /// A queued operation will not begin. False if it had.
    pub fn cancel_operation(&self, id: Uuid) -> Result<bool> {
        let sql = "UPDATE operations SET state = 'cancelled', ended = ?2 WHERE id = ?1 AND state = 'queued'";
        Ok(self.connection().execute(sql, params![id.to_string(), super::now()])? == 1)
    }

    /// An operation ended.
    pub fn end_operation(
        &self,
        id: Uuid,
        state: OperationState,
        problem: Option<&str>,
        result: Option<&str>,
    ) -> Result<()> {
        let sql =
            "UPDATE operations SET state = ?2, ended = ?3, problem = ?4, result = ?5 WHERE id = ?1 AND ended IS NULL";
        self.connection().execute(sql, params![id.to_string(), state.as_str(), super::now(), problem, result])?;
        Ok(())
    }

    /// Adds an event; its number. The oldest go.
    pub fn add_event(&self, kind: &str, owner: Uuid, data: &str) -> Result<i64> {
        self.change(|transaction| {
            let sql = "INSERT INTO events (at, kind, owner_id, data) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![super::now(), kind, owner.to_string(), data])?;
            let id = transaction.last_insert_rowid();
            transaction.execute("DELETE FROM events WHERE id <= ?1", [id - EVENTS])?;
            Ok(id)
        })
    }

    /// At most 100 events after the one with the number `after`: number, kind, whose, data.
    pub fn events_after(&self, after: i64) -> Result<Vec<(i64, String, Uuid, String)>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM events WHERE id > ?1 ORDER BY id LIMIT 100")?;
        let row = |row: &Row<'_>| Ok((row.get("id")?, row.get("kind")?, parsed(row, "owner_id")?, row.get("data")?));
        Ok(statement.query_map([after], row)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The numbers of the oldest and the newest event that are kept; both 0 if there never was one.
    pub fn events_kept(&self) -> Result<(i64, i64)> {
        let sql = "SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM events";
        Ok(self.connection().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Begins to answer a request that `actor` gave a key, or finds that it came before.
    pub fn begin_answer(&self, actor: &str, key: &str, request: &[u8]) -> Result<Answered> {
        self.change(|transaction| {
            let now = super::now();
            transaction.execute("DELETE FROM idempotency WHERE created < ?1", [now - ANSWER_SECONDS])?;
            let sql = "INSERT OR IGNORE INTO idempotency (actor, key, request, created) VALUES (?1, ?2, ?3, ?4)";
            if transaction.execute(sql, params![actor, key, request, now])? == 1 {
                let many = "DELETE FROM idempotency WHERE actor = ?1 AND status IS NOT NULL AND key NOT IN
                    (SELECT key FROM idempotency WHERE actor = ?1 ORDER BY created DESC LIMIT ?2)";
                transaction.execute(many, params![actor, ANSWERS])?;
                return Ok(Answered::New);
            }
            let sql = "SELECT request, status, kind, body FROM idempotency WHERE actor = ?1 AND key = ?2";
            Ok(transaction.query_row(sql, [actor, key], |row| {
                let before: Vec<u8> = row.get(0)?;
                Ok(match row.get(1)? {
                    _ if before != request => Answered::Otherwise,
                    None => Answered::Unfinished,
                    Some(status) => Answered::With { status, kind: row.get(2)?, body: row.get(3)? },
                })
            })?)
        })
    }

    /// Keeps an answer; without one the request may be made again.
    pub fn end_answer(&self, actor: &str, key: &str, answer: Option<(u16, &str, &[u8])>) -> Result<()> {
        let connection = self.connection();
        match answer {
            Some((status, kind, body)) => {
                let sql = "UPDATE idempotency SET status = ?3, kind = ?4, body = ?5 WHERE actor = ?1 AND key = ?2";
                connection.execute(sql, params![actor, key, status, kind, body])?
            }
            None => connection.execute("DELETE FROM idempotency WHERE actor = ?1 AND key = ?2", [actor, key])?,
        };
        Ok(())
    }

    /// Forgets the requests that a service before this one had not answered.
    pub fn forget_unanswered(&self) -> Result<()> {
        self.connection().execute("DELETE FROM idempotency WHERE status IS NULL", [])?;
        Ok(())
    }
}

/// Whether a request with a key came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// No.
    New,
    /// Yes, and it is still being worked at.
    Unfinished,
    /// Yes, but it was another one.
    Otherwise,
    /// Yes, and this was the answer.
    With {
        /// Its HTTP status.
        status: u16,
        /// Its content type.
        kind: String,
        /// Its body.
        body: Vec<u8>,
    },
}
