//! Who may look at a desktop beside its owner.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Result, Store, now, optional, optional_time, parsed, timestamp};
use crate::model::ShareKind;

/// A share as stored, with the names of what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Never changes.
    pub id: Uuid,
    /// What is shared.
    pub desktop: Uuid,
    /// What that is called.
    pub desktop_name: String,
    /// Whose it is.
    pub owner_id: Uuid,
    /// What they are called.
    pub owner: String,
    /// Who shares it.
    pub made_by: Uuid,
    /// For whom; `None`: for who has the link.
    pub user_id: Option<Uuid>,
    /// What they are called.
    pub user: Option<String>,
    /// What may be done.
    pub kind: ShareKind,
    /// Copying and pasting too.
    pub clipboard: bool,
    /// Sound too.
    pub sound: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When somebody last came in by it.
    pub last_used: Option<Timestamp>,
}

/// What [`Store::add_share`] needs.
#[derive(Debug, Clone)]
pub struct NewShare {
    /// What is shared.
    pub desktop: Uuid,
    /// Who shares it.
    pub made_by: Uuid,
    /// For whom.
    pub with: With,
    /// What may be done.
    pub kind: ShareKind,
    /// Copying and pasting too.
    pub clipboard: bool,
    /// Sound too.
    pub sound: bool,
    /// How long it lasts.
    pub seconds: i64,
}

/// For whom a share is.
#[derive(Debug, Clone)]
pub enum With {
    /// This user.
    User(Uuid),
    /// Who has the link with the secret that has this hash.
    Link(Vec<u8>),
}

/// Only those whose maker can still log in.
const SELECT: &str =
    "SELECT shares.*, desktops.name AS desktop_name, desktops.owner_id, owners.name AS owner, receivers.name AS user
    FROM shares JOIN desktops ON desktops.id = desktop_id AND desktops.deleted IS NULL JOIN users AS owners ON owners.id = desktops.owner_id
    JOIN users AS makers ON makers.id = made_by AND NOT makers.disabled
    LEFT JOIN users AS receivers ON receivers.id = user_id";

fn share(row: &Row<'_>) -> rusqlite::Result<Share> {
    Ok(Share {
        id: parsed(row, "id")?,
        desktop: parsed(row, "desktop_id")?,
        desktop_name: row.get("desktop_name")?,
        owner_id: parsed(row, "owner_id")?,
        owner: row.get("owner")?,
        made_by: parsed(row, "made_by")?,
        user_id: optional(row, "user_id")?,
        user: row.get("user")?,
        kind: parsed(row, "kind")?,
        clipboard: row.get("clipboard")?,
        sound: row.get("sound")?,
        created: timestamp(row, "created")?,
        expires: timestamp(row, "expires")?,
        last_used: optional_time(row, "last_used")?,
    })
}

impl Store {
    /// Adds a share; forgets those that ran out.
    pub fn add_share(&self, new: &NewShare) -> Result<Share> {
        let id = Uuid::new_v4().to_string();
        let (user, secret) = match &new.with {
            With::User(user) => (Some(user.to_string()), None),
            With::Link(hash) => (None, Some(hash.as_slice())),
        };
        self.change(|transaction| {
            transaction.execute("DELETE FROM shares WHERE expires <= ?1", [now()])?;
            // somebody has one share of a desktop: the newest counts
            transaction.execute(
                "DELETE FROM shares WHERE desktop_id = ?1 AND user_id = ?2",
                params![new.desktop.to_string(), user],
            )?;
            transaction.execute(
                "INSERT INTO shares (id, desktop_id, made_by, user_id, secret_hash, kind, clipboard, sound, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    id,
                    new.desktop.to_string(),
                    new.made_by.to_string(),
                    user,
                    secret,
                    new.kind.as_str(),
                    new.clipboard,
                    new.sound,
                    now(),
                    now() + new.seconds
                ],
            )?;
            Ok(transaction.query_row(&format!("{SELECT} WHERE shares.id = ?1"), [&id], share)?)
        })
    }

    fn one_share(&self, good: &str, what: &[&dyn rusqlite::ToSql]) -> Result<Option<Share>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached(&format!("{SELECT} WHERE {good} AND shares.expires > unixepoch()"))?;
        Ok(statement.query_row(what, share).optional()?)
    }

    /// The share with this id, if it has not run out.
    pub fn share(&self, id: &str) -> Result<Option<Share>> {
        self.one_share("shares.id = ?1", &[&id])
    }

    /// The share whose link has a secret with this hash.
    pub fn share_by_secret(&self, hash: &[u8]) -> Result<Option<Share>> {
        self.one_share("secret_hash = ?1", &[&hash])
    }

    /// The share of a desktop with a user.
    pub fn share_with(&self, desktop: Uuid, user: Uuid) -> Result<Option<Share>> {
        self.one_share("desktop_id = ?1 AND user_id = ?2", &[&desktop.to_string(), &user.to_string()])
    }

    /// The shares of a desktop, or those with a user, the newest first.
    pub fn shares(&self, desktop: Option<Uuid>, user: Option<Uuid>) -> Result<Vec<Share>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT} WHERE (?1 IS NULL OR desktop_id = ?1) AND (?2 IS NULL OR user_id = ?2) AND shares.expires > ?3
             ORDER BY shares.created DESC, shares.id"
        ))?;
        let values = params![desktop.map(|id| id.to_string()), user.map(|id| id.to_string()), now()];
        Ok(statement.query_map(values, share)?.collect::<rusqlite::Result<_>>()?)
    }

    /// Ends a share, and what is open by it.
    pub fn delete_share(&self, id: Uuid) -> Result<()> {
        self.connection().execute("DELETE FROM shares WHERE id = ?1", [id.to_string()])?;
        Ok(())
    }
}
