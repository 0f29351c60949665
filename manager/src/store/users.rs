//! Who may use the service.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::quotas::quota;
use super::{Error, Result, Store, now, parsed, timestamp, unique};
use crate::model::{Quota, Role};

/// A user as stored.
#[derive(Debug, Clone)]
pub struct User {
    /// Never changes.
    pub id: Uuid,
    /// What they log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Argon2id, in PHC form.
    pub password_hash: String,
    /// The password was made by the service and must be replaced.
    pub must_change: bool,
    /// They cannot log in.
    pub disabled: bool,
    /// They show a code at each login.
    pub second_factor: bool,
    /// How much their desktops may have together.
    pub quota: Quota,
    /// When they were added.
    pub created: Timestamp,
}

/// A row of `users`, perhaps joined with others.
pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        role: parsed(row, "role")?,
        password_hash: row.get("password_hash")?,
        must_change: row.get("must_change")?,
        disabled: row.get("disabled")?,
        second_factor: row.get("totp_confirmed")?,
        quota: quota(row)?,
        created: timestamp(row, "created")?,
    })
}

pub(super) fn set_password(
    connection: &Connection,
    user: Uuid,
    password_hash: &str,
    must_change: bool,
    keep: Option<&[u8]>,
) -> Result<()> {
    let user = user.to_string();
    connection.execute(
        "UPDATE users SET password_hash = ?2, must_change = ?3 WHERE id = ?1",
        params![user, password_hash, must_change],
    )?;
    connection.execute("DELETE FROM sessions WHERE user_id = ?1 AND token_hash IS NOT ?2", params![user, keep])?;
    if keep.is_none() {
        connection.execute("DELETE FROM tokens WHERE user_id = ?1", [&user])?;
        connection.execute("DELETE FROM links WHERE user_id = ?1", [&user])?;
    }
    Ok(())
}

impl Store {
    /// Adds a user whose password must be changed at the first login.
    pub fn add_user(&self, name: &str, role: Role, password_hash: &str) -> Result<User> {
        let connection = self.connection();
        connection
            .query_row(
                "INSERT INTO users (id, name, role, password_hash, must_change, created)
                 VALUES (?1, ?2, ?3, ?4, 1, ?5) RETURNING *",
                params![Uuid::new_v4().to_string(), name, role.as_str(), password_hash, now()],
                user,
            )
            .map_err(|error| unique(error, "user", name))
    }

    /// At most `limit` users whose names have `search` in them and come behind `after`, by name.
    pub fn users_after(&self, search: &str, after: &str, limit: u32) -> Result<Vec<User>> {
        let connection = self.connection();
        let sql = "SELECT * FROM users WHERE instr(lower(name), lower(?1)) > 0 AND name > ?2 ORDER BY name LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_map(params![search, after, limit], user)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The user called `name`.
    pub fn user_named(&self, name: &str) -> Result<Option<User>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM users WHERE name = ?1")?;
        Ok(statement.query_row([name], user).optional()?)
    }

    /// The user with this id.
    pub fn user(&self, id: Uuid) -> Result<Option<User>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM users WHERE id = ?1")?;
        Ok(statement.query_row([id.to_string()], user).optional()?)
    }

    /// What a user may do: their own role, and those of their groups.
    pub fn roles(&self, user: &User) -> Result<Vec<Role>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT DISTINCT role FROM groups JOIN group_members ON group_id = id
             WHERE user_id = ?1 AND role IS NOT NULL AND role <> ?2",
        )?;
        let of_groups =
            statement.query_map([user.id.to_string().as_str(), user.role.as_str()], |row| parsed(row, "role"))?;
        std::iter::once(Ok(user.role)).chain(of_groups).collect::<rusqlite::Result<_>>().map_err(Error::from)
    }

    /// Changes what a user may do.
    pub fn set_role(&self, user: Uuid, role: Role) -> Result<()> {
        let sql = "UPDATE users SET role = ?2 WHERE id = ?1";
        self.connection().execute(sql, [user.to_string().as_str(), role.as_str()])?;
        Ok(())
    }

    /// Lets a user in again, or no longer: then their sessions end.
    pub fn set_disabled(&self, user: Uuid, disabled: bool) -> Result<()> {
        self.change(|transaction| {
            transaction.execute("UPDATE users SET disabled = ?2 WHERE id = ?1", params![user.to_string(), disabled])?;
            if disabled {
                transaction.execute("DELETE FROM sessions WHERE user_id = ?1", [user.to_string()])?;
            }
            Ok(())
        })
    }

    /// Replaces a password and ends the sessions that were opened with the old one, except `keep`. Without one to keep
    /// somebody else did it: tokens and links of the user end too.
    pub fn set_password(&self, user: Uuid, password_hash: &str, must_change: bool, keep: Option<&[u8]>) -> Result<()> {
        self.change(|transaction| set_password(transaction, user, password_hash, must_change, keep))
    }

    /// Deletes a user who owns no desktop, with their sessions.
    pub fn delete_user(&self, user: &User) -> Result<()> {
        let result = self.connection().execute("DELETE FROM users WHERE id = ?1", [user.id.to_string()]);
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                Err(Error::OwnsDesktops(user.name.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
