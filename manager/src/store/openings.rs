//! Desktops that are open in browsers, each on a host name of its own.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::{Result, Session, Share, Store, now, optional, parsed, timestamp};

/// An opening that is still good, with what it was opened by.
#[derive(Debug, Clone)]
pub struct Opening {
    /// SHA-256 of the token.
    pub token_hash: Vec<u8>,
    /// The first part of the host name.
    pub label: String,
    /// What is open.
    pub desktop: Uuid,
    /// The login that it was opened by; `None`: by a link, without one.
    pub session: Option<Session>,
    /// The share that it was opened by; `None`: by the owner, or an admin.
    pub share: Option<Share>,
    /// What who looks is called.
    pub name: String,
    /// When it ends by itself.
    pub expires: Timestamp,
}

/// What [`Store::add_opening`] needs.
#[derive(Debug)]
pub struct NewOpening<'a> {
    /// SHA-256 of the token.
    pub token_hash: &'a [u8],
    /// The first part of the host name.
    pub label: &'a str,
    /// What is opened.
    pub desktop: Uuid,
    /// The hash of the login that it is opened by.
    pub session: Option<&'a [u8]>,
    /// The share that it is opened by.
    pub share: Option<Uuid>,
    /// What who looks is called.
    pub name: &'a str,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// Of the same login or share so many may be open: the oldest make room.
    pub most: u32,
}

impl Store {
    /// Adds an opening; forgets those that ran out. Fails if what it is opened by is gone.
    pub fn add_opening(&self, new: &NewOpening<'_>) -> Result<()> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM openings WHERE expires <= ?1", [now()])?;
            let share = new.share.map(|id| id.to_string());
            transaction.execute(
                "INSERT INTO openings (token_hash, label, desktop_id, session_hash, share_id, name, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    new.token_hash,
                    new.label,
                    new.desktop.to_string(),
                    new.session,
                    share,
                    new.name,
                    now(),
                    new.expires
                ],
            )?;
            transaction.execute("UPDATE shares SET last_used = ?2 WHERE id = ?1", params![share, now()])?;
            let same = "session_hash IS ?1 AND share_id IS ?2";
            transaction.execute(
                &format!(
                    "DELETE FROM openings WHERE token_hash <> ?3 AND token_hash IN
                     (SELECT token_hash FROM openings WHERE {same} ORDER BY token_hash = ?3 DESC, created DESC, token_hash LIMIT -1 OFFSET ?4)"
                ),
                params![new.session, share, new.token_hash, new.most],
            )?;
            Ok(())
        })
    }

    /// The opening with this token hash, if it, its login and its share are still good.
    pub fn opening(&self, token_hash: &[u8]) -> Result<Option<Opening>> {
        let found = {
            let connection = self.connection();
            let mut statement =
                connection.prepare_cached("SELECT * FROM openings WHERE token_hash = ?1 AND expires > ?2")?;
            let row = statement.query_row(params![token_hash, now()], |row| {
                let opening = Opening {
                    token_hash: row.get("token_hash")?,
                    label: row.get("label")?,
                    desktop: parsed(row, "desktop_id")?,
                    session: None,
                    share: None,
                    name: row.get("name")?,
                    expires: timestamp(row, "expires")?,
                };
                let (session, share): (Option<Vec<u8>>, _) =
                    (row.get("session_hash")?, optional::<Uuid>(row, "share_id")?);
                Ok((opening, session, share))
            });
            row.optional()?
        };
        let Some((mut opening, session, share)) = found else { return Ok(None) };
        opening.session = session.as_ref().map(|hash| self.session(hash)).transpose()?.flatten();
        opening.share = share.map(|id| self.share(&id.to_string())).transpose()?.flatten();
        let good = opening.session.is_some() == session.is_some() && opening.share.is_some() == share.is_some();
        Ok(Some(opening).filter(|_| good))
    }

    /// The first part of the host name that a login has a desktop open on.
    pub fn label_of(&self, session: &[u8], desktop: Uuid) -> Result<Option<String>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT label FROM openings WHERE session_hash = ?1 AND desktop_id = ?2 AND expires > ?3 LIMIT 1",
        )?;
        Ok(statement.query_row(params![session, desktop.to_string(), now()], |row| row.get(0)).optional()?)
    }

    /// How many there are now.
    pub fn count_openings(&self) -> Result<u32> {
        Ok(self.connection().query_row("SELECT count(*) FROM openings", [], |row| row.get(0))?)
    }
}
