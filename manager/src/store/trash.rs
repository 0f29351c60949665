//! Desktops that were deleted and can be recovered.

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::desktops::{SELECT_DELETED, desktop};
use super::operations::mark_done;
use super::quotas::{More, within_quota};
use super::{Desktop, Result, Store, now, unique};

impl Store {
    /// Deletes a desktop so that it can be recovered: its name is free, and it no longer counts to a quota but that of disks.
    /// What it goes on from stays. False if it was deleted before.
    pub fn trash(&self, id: Uuid) -> Result<bool> {
        self.change(|transaction| {
            let sql = "UPDATE desktops SET deleted = ?2, deleted_name = name, name = id, generation = generation + 1,
                           desired = CASE WHEN resume IS NULL THEN 'stopped' ELSE 'suspended' END
                       WHERE id = ?1 AND deleted IS NULL";
            let deleted = transaction.execute(sql, params![id.to_string(), now()])? == 1;
            mark_done(transaction, &["delete"])?;
            Ok(deleted)
        })
    }

    /// Takes a desktop back, as `name`, if its owner's quota has room. False if it is not there any longer.
    pub fn recover(&self, id: Uuid, name: &str) -> Result<bool> {
        self.change(|transaction| {
            let sql = "UPDATE desktops SET name = ?2, deleted = NULL, deleted_name = NULL, generation = generation + 1
                       WHERE id = ?1 AND deleted IS NOT NULL RETURNING owner_id";
            let owner = transaction.query_row(sql, params![id.to_string(), name], |row| row.get::<_, String>(0));
            let owner = owner.optional().map_err(|error| unique(error, "desktop", name))?;
            if let Some(owner) = owner.as_deref().and_then(|owner| Uuid::parse_str(owner).ok()) {
                within_quota(transaction, owner, More::Desktops)?;
            }
            Ok(owner.is_some())
        })
    }

    /// Deletes the row of a desktop that was deleted. False if it was recovered meanwhile, or is gone.
    pub fn purge(&self, id: Uuid) -> Result<bool> {
        let sql = "DELETE FROM desktops WHERE id = ?1 AND deleted IS NOT NULL";
        Ok(self.connection().execute(sql, [id.to_string()])? == 1)
    }

    /// All desktops that were deleted, or those of `owner`, the newest first.
    pub fn deleted(&self, owner: Option<Uuid>) -> Result<Vec<Desktop>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT_DELETED} WHERE ?1 IS NULL OR owner_id = ?1 ORDER BY deleted DESC, desktops.id"
        ))?;
        let owner = owner.map(|id| id.to_string());
        Ok(statement.query_map([owner], desktop)?.collect::<rusqlite::Result<_>>()?)
    }
}
