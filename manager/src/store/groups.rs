//! Users who have a role together.

use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::quotas::quota;
use super::{Result, Store, now, optional, parsed, unique};
use crate::model::{Quota, Role};

/// A group as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Never changes.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// What its members may do in addition.
    pub role: Option<Role>,
    /// How much its members' desktops may have together.
    pub quota: Quota,
}

fn group(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { id: parsed(row, "id")?, name: row.get("name")?, role: optional(row, "role")?, quota: quota(row)? })
}

impl Store {
    /// Adds a group without members.
    pub fn add_group(&self, name: &str, role: Option<Role>) -> Result<Group> {
        let connection = self.connection();
        let sql = "INSERT INTO groups (id, name, role, created) VALUES (?1, ?2, ?3, ?4) RETURNING *";
        let id = Uuid::new_v4().to_string();
        let added = connection.query_row(sql, params![id, name, role.map(Role::as_str), now()], group);
        added.map_err(|error| unique(error, "group", name))
    }

    /// All groups, by name.
    pub fn groups(&self) -> Result<Vec<Group>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM groups ORDER BY name")?;
        Ok(statement.query_map([], group)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The group called `name`.
    pub fn group_named(&self, name: &str) -> Result<Option<Group>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM groups WHERE name = ?1")?;
        Ok(statement.query_row([name], group).optional()?)
    }

    /// The groups that a user is in, by name.
    pub fn groups_of(&self, user: Uuid) -> Result<Vec<Group>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT groups.* FROM groups JOIN group_members ON group_id = id WHERE user_id = ?1 ORDER BY name",
        )?;
        Ok(statement.query_map([user.to_string()], group)?.collect::<rusqlite::Result<_>>()?)
    }

    /// Who is in a group: ids and names, by name.
    pub fn members(&self, group: Uuid) -> Result<Vec<(Uuid, String)>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT id, name FROM users JOIN group_members ON user_id = id WHERE group_id = ?1 ORDER BY name",
        )?;
        let members = statement.query_map([group.to_string()], |row| Ok((parsed(row, "id")?, row.get("name")?)))?;
        Ok(members.collect::<rusqlite::Result<_>>()?)
    }

    /// Puts a user into a group, or takes them out.
    pub fn set_member(&self, group: Uuid, user: Uuid, member: bool) -> Result<()> {
        let sql = match member {
            true => "INSERT OR IGNORE INTO group_members (group_id, user_id) VALUES (?1, ?2)",
            false => "DELETE FROM group_members WHERE group_id = ?1 AND user_id = ?2",
        };
        self.connection().execute(sql, [group.to_string(), user.to_string()])?;
        Ok(())
    }

    /// Deletes a group; its members stay.
    pub fn delete_group(&self, group: Uuid) -> Result<()> {
        self.connection().execute("DELETE FROM groups WHERE id = ?1", [group.to_string()])?;
        Ok(())
    }
}
