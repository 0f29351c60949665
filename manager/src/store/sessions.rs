//! Who is logged in from which browser.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::{Result, Store, User, now, timestamp, users};

/// A valid session with its user.
#[derive(Debug, Clone)]
pub struct Session {
    /// SHA-256 of the token.
    pub token_hash: Vec<u8>,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// Whose it is.
    pub user: User,
}

impl Store {
    /// Opens a session for `user` that lasts `seconds`; forgets the ones that ran out.
    pub fn add_session(&self, user: Uuid, token_hash: &[u8], seconds: i64) -> Result<()> {
        let connection = self.connection();
        connection.execute("DELETE FROM sessions WHERE expires <= ?1", [now()])?;
        connection.execute(
            "INSERT INTO sessions (token_hash, user_id, created, expires, id, last_used) VALUES (?1, ?2, ?3, ?4, ?5, ?3)",
            params![token_hash, user.to_string(), now(), now() + seconds, Uuid::new_v4().to_string()],
        )?;
        Ok(())
    }

    /// The session with this token hash, if it has not run out.
    pub fn session(&self, token_hash: &[u8]) -> Result<Option<Session>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT token_hash, expires, users.* FROM sessions JOIN users ON users.id = user_id
             WHERE token_hash = ?1 AND expires > ?2 AND NOT disabled",
        )?;
        let session = statement.query_row(params![token_hash, now()], |row| {
            Ok(Session {
                token_hash: row.get("token_hash")?,
                expires: timestamp(row, "expires")?,
                user: users::user(row)?,
            })
        });
        Ok(session.optional()?)
    }

    /// Ends a session.
    pub fn delete_session(&self, token_hash: &[u8]) -> Result<()> {
        self.connection().execute("DELETE FROM sessions WHERE token_hash = ?1", [token_hash])?;
        Ok(())
    }
}
