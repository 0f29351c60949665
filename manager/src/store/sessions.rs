//! Who is logged in from which browser.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Result, Store, User, now, timestamp, users};

/// A valid session with its user.
#[derive(Debug, Clone)]
pub struct Session {
    /// What it is called where it is listed.
    pub id: String,
    /// SHA-256 of the token.
    pub token_hash: Vec<u8>,
    /// When it began.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was last used, to within a minute.
    pub last_used: Timestamp,
    /// From where it was opened.
    pub address: String,
    /// What the browser called itself then.
    pub agent: String,
    /// Whose it is.
    pub user: User,
}

/// What [`Store::add_session`] needs.
#[derive(Debug, Default)]
pub struct NewSession<'a> {
    /// Whose it is.
    pub user: Uuid,
    /// SHA-256 of the token.
    pub token_hash: &'a [u8],
    /// How long it lasts.
    pub seconds: i64,
    /// From where it is opened.
    pub address: &'a str,
    /// What the browser calls itself.
    pub agent: &'a str,
}

const SELECT: &str =
    "SELECT sessions.id AS session_id, token_hash, sessions.created AS session_created, expires, last_used,
    address, agent, users.* FROM sessions JOIN users ON users.id = user_id";

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get("session_id")?,
        token_hash: row.get("token_hash")?,
        created: timestamp(row, "session_created")?,
        expires: timestamp(row, "expires")?,
        last_used: timestamp(row, "last_used")?,
        address: row.get("address")?,
        agent: row.get("agent")?,
        user: users::user(row)?,
    })
}

impl Store {
    /// Opens a session; forgets the ones that ran out.
    pub fn add_session(&self, new: &NewSession<'_>) -> Result<()> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM sessions WHERE expires <= ?1", [now()])?;
            let (id, user, expires) = (Uuid::new_v4().to_string(), new.user.to_string(), now() + new.seconds);
            transaction.execute(
                "INSERT INTO sessions (id, token_hash, user_id, created, expires, last_used, address, agent)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?6, ?7)",
                params![id, new.token_hash, user, now(), expires, new.address, new.agent],
            )?;
            Ok(())
        })
    }

    /// The session with this token hash, if it has not run out.
    pub fn session(&self, token_hash: &[u8]) -> Result<Option<Session>> {
        let connection = self.connection();
        let good = "token_hash = ?1 AND expires > ?2 AND NOT disabled";
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE {good}"))?;
        let found = statement.query_row(params![token_hash, now()], session).optional()?;
        if found.as_ref().is_some_and(|session| session.last_used.as_second() < now() - 60) {
            let sql = "UPDATE sessions SET last_used = ?2 WHERE token_hash = ?1";
            connection.prepare_cached(sql)?.execute(params![token_hash, now()])?;
        }
        Ok(found)
    }

    /// The sessions of a user, or all, the latest first.
    pub fn sessions(&self, user: Option<Uuid>) -> Result<Vec<Session>> {
        let connection = self.connection();
        let order = "WHERE (?1 IS NULL OR user_id = ?1) AND expires > ?2 ORDER BY sessions.created DESC, sessions.id";
        let mut statement = connection.prepare_cached(&format!("{SELECT} {order}"))?;
        let user = user.map(|id| id.to_string());
        Ok(statement.query_map(params![user, now()], session)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The session that is listed as `id`.
    pub fn session_by_id(&self, id: &str) -> Result<Option<Session>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE sessions.id = ?1"))?;
        Ok(statement.query_row([id], session).optional()?)
    }

    /// Ends a session.
    pub fn delete_session(&self, token_hash: &[u8]) -> Result<()> {
        self.connection().execute("DELETE FROM sessions WHERE token_hash = ?1", [token_hash])?;
        Ok(())
    }
}
