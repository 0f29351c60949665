//! What the service remembers, in one SQLite file. Nothing else in this crate knows SQL.

mod audit;
mod desktops;
mod groups;
mod layers;
mod openings;
mod operations;
mod quotas;
mod sessions;
mod shares;
mod snapshots;
mod tokens;
mod trash;
mod usage;
mod users;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::Connection;

pub use audit::{AuditFilter, NewAudit};
pub use desktops::{Desired, Desktop, Ended, NewDesktop, Wanted};
pub use groups::Group;
pub use layers::{Below, DisksOf, Layer, Tops};
pub use openings::{NewOpening, Opening};
pub use operations::{Answered, CURRENT, NewOperation, Operation, Subject};
pub use sessions::{NewSession, Session};
pub use shares::{NewShare, Share, With};
pub use snapshots::{NewSnapshot, Snapshot};
pub use tokens::Token;
pub use usage::UsageFilter;
pub use users::User;

/// Each entry brings a database from the version of its index to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
    include_str!("schema-8.sql"),
];

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is in use.
    #[error("there is already a {kind} called `{name}`")]
    Exists {
        /// What has the name.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A user who owns desktops is not deleted.
    #[error("`{0}` still owns desktops, perhaps deleted ones: remove them for good first")]
    OwnsDesktops(String),
    /// Much is to be done with the desktop already.
    #[error("`{0}` has enough to do already: wait until some of its operations have ended")]
    Queue(String),
    /// It would be more than the user may have.
    #[error("the quota is {limit} of {what}, and with this there would be {would}")]
    Quota {
        /// Of what.
        what: String,
        /// How much there may be.
        limit: String,
        /// How much there would be.
        would: String,
    },
    /// The file was written by a later version of the program.
    #[error("{path} is of version {found}, this program knows {known}: use a newer one", path = path.display())]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Something refers to a row that is not there.
    #[error("{path} was not brought to version {version}: {broken} rows refer to what is not there; it was left as it was", path = path.display())]
    Broken {
        /// The database.
        path: PathBuf,
        /// What it should have become.
        version: u32,
        /// How many.
        broken: u32,
    },
    /// Anything else that SQLite says.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Shorthand for this module.
pub type Result<T> = std::result::Result<T, Error>;

/// The one connection. Statements take microseconds, so callers on the async runtime use it directly.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the database at `path`, makes it if it is missing and brings it up to date.
    pub fn open(path: &Path) -> Result<Self> {
        Self::prepare(Connection::open(path)?, path)
    }

    /// A store that is forgotten, for tests.
    pub fn in_memory() -> Result<Self> {
        Self::prepare(Connection::open_in_memory()?, Path::new(":memory:"))
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Self> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // off while migrating: a table that is made anew is dropped while others refer to it
        connection.pragma_update(None, "foreign_keys", false)?;
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = MIGRATIONS.len() as u32;
        if found > known {
            return Err(Error::TooNew { path: path.to_owned(), found, known });
        }
        for (version, sql) in (1..=known).zip(MIGRATIONS).skip(found as usize) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            let broken =
                transaction.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
            if broken != 0 {
                return Err(Error::Broken { path: path.to_owned(), version, broken });
            }
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()?;
        }
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Whether the database can be asked.
    pub fn answers(&self) -> Result<()> {
        Ok(self.connection().query_row("SELECT 1", [], |_| Ok(()))?)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // every change is one statement or one transaction: a panic elsewhere leaves nothing half done
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// All of `work` or nothing.
    fn change<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// A column of seconds since 1970.
fn timestamp(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let seconds: i64 = row.get(column)?;
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// [`timestamp`], if there is something.
fn optional_time(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let seconds: Option<i64> = row.get(column)?;
    Ok(seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

/// A column of text that was written from a value of this program.
fn parsed<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| rusqlite::Error::InvalidColumnName(format!("{column} = {text}")))
}

/// [`parsed`], if there is something.
fn optional<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|_| parsed(row, column)).transpose()
}

/// Turns a violated UNIQUE into [`Error::Exists`].
fn unique(error: rusqlite::Error, kind: &'static str, name: &str) -> Error {
    match error.sqlite_error() {
        Some(e) if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => {
            Error::Exists { kind, name: name.to_owned() }
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests;
