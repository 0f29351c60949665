//! What people own.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::layers::{self, DisksOf, Layer};
use super::operations::mark_done;
use super::quotas::{More, within_quota};
use super::{Result, Store, now, optional, optional_time, parsed, timestamp, unique};

/// A desktop as stored.
#[derive(Debug, Clone)]
pub struct Desktop {
    /// Never changes; the name of its folder.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub owner_id: Uuid,
    /// Their name.
    pub owner: String,
    /// What it was made from.
    pub image: String,
    /// The image's digest then.
    pub image_digest: String,
    /// The image's folder then.
    pub image_folder: PathBuf,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u8,
    /// When it was made.
    pub created: Timestamp,
    /// What its owner wants of the machine.
    pub desired: Desired,
    /// The snapshot that the machine goes on from when it is next started; none: it boots.
    pub resume: Option<Uuid>,
    /// The snapshot whose memory file the machine's next one is a difference to.
    pub base: Option<Uuid>,
    /// How the machine last ended, unless it was started since.
    pub ended: Option<Ended>,
    /// How often what it is was changed.
    pub generation: i64,
    /// When it was deleted: then it can be recovered, and nothing else.
    pub deleted: Option<Timestamp>,
}

/// What the owner of a desktop wants of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// It should run.
    Running,
    /// It should not.
    Stopped,
    /// It should wait, as it was, for somebody.
    Suspended,
}

impl Desired {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
        }
    }
}

impl FromStr for Desired {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        [Self::Running, Self::Stopped, Self::Suspended].into_iter().find(|desired| desired.as_str() == text).ok_or(())
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When it was noticed.
    pub at: Timestamp,
    /// Why, in the words of whoever knew best.
    pub reason: String,
    /// Nobody wanted it.
    pub failed: bool,
}

/// Desktops with an owner, which are those that people see.
const SELECT: &str =
    "SELECT desktops.*, users.name AS owner FROM desktops JOIN users ON users.id = owner_id AND deleted IS NULL";

/// Those that were deleted.
pub(super) const SELECT_DELETED: &str =
    "SELECT desktops.*, users.name AS owner FROM desktops JOIN users ON users.id = owner_id AND deleted IS NOT NULL";

/// All.
const SELECT_ANY: &str =
    "SELECT desktops.*, coalesce(users.name, '') AS owner FROM desktops LEFT JOIN users ON users.id = owner_id";

pub(super) fn desktop(row: &Row<'_>) -> rusqlite::Result<Desktop> {
    let reason: Option<String> = row.get("ended_reason")?;
    let ended = match reason {
        Some(reason) => Some(Ended { at: timestamp(row, "ended_at")?, reason, failed: row.get("ended_failed")? }),
        None => None,
    };
    Ok(Desktop {
        id: parsed(row, "id")?,
        name: row.get::<_, Option<String>>("deleted_name")?.map_or_else(|| row.get("name"), Ok)?,
        owner_id: optional(row, "owner_id")?.unwrap_or_default(),
        owner: row.get("owner")?,
        image: row.get("image")?,
        image_digest: row.get("image_digest")?,
        image_folder: row.get::<_, String>("image_folder")?.into(),
        memory: row.get::<_, i64>("memory")?.unsigned_abs(),
        cpus: row.get("cpus")?,
        created: timestamp(row, "created")?,
        desired: parsed(row, "desired")?,
        resume: optional(row, "resume")?,
        base: optional(row, "base")?,
        ended,
        generation: row.get("generation")?,
        deleted: optional_time(row, "deleted")?,
    })
}

/// What [`Store::add_desktop`] needs.
#[derive(Debug)]
pub struct NewDesktop<'a> {
    /// The name of its folder, already made.
    pub id: Uuid,
    /// What people call it.
    pub name: &'a str,
    /// Whose it is; nobody's, if nil.
    pub owner: Uuid,
    /// The image's name.
    pub image: &'a str,
    /// The image's digest.
    pub image_digest: &'a str,
    /// The image's folder, without symbolic links.
    pub image_folder: &'a Path,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u8,
}

/// Which desktops are asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Only those of this user, by name.
    pub owner: Option<String>,
    /// Only those with this in their name, their owner's or their image's.
    pub search: String,
}

pub(super) fn add(connection: &Connection, new: &NewDesktop<'_>) -> Result<()> {
    let added = connection.execute(
        "INSERT INTO desktops (id, name, owner_id, image, image_digest, image_folder, memory, cpus, created, desired)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'stopped')",
        params![
            new.id.to_string(),
            new.name,
            (!new.owner.is_nil()).then(|| new.owner.to_string()),
            new.image,
            new.image_digest,
            new.image_folder.to_string_lossy(),
            i64::try_from(new.memory).unwrap_or(i64::MAX),
            new.cpus,
            now()
        ],
    );
    added.map_err(|error| unique(error, "desktop", new.name))?;
    if new.owner.is_nil() { Ok(()) } else { within_quota(connection, new.owner, More::Desktops) }
}

/// Wanting a desktop to run forgets how it last ended.
pub(super) fn set_desired(connection: &Connection, id: Uuid, desired: Desired) -> Result<()> {
    let sql = "UPDATE desktops SET desired = ?2 WHERE id = ?1";
    connection.execute(sql, params![id.to_string(), desired.as_str()])?;
    if desired == Desired::Running {
        let sql = "UPDATE desktops SET ended_at = NULL, ended_reason = NULL, ended_failed = NULL WHERE id = ?1";
        connection.execute(sql, [id.to_string()])?;
    }
    Ok(())
}

impl Store {
    /// Adds a stopped desktop, and the layers that are its disks.
    pub fn add_desktop(&self, new: &NewDesktop<'_>, disks: &[(u32, Layer)]) -> Result<()> {
        self.change(|transaction| {
            add(transaction, new)?;
            disks.iter().try_for_each(|(_, layer)| layers::add(transaction, layer))?;
            let tops: Vec<_> = disks.iter().map(|(disk, layer)| (*disk, layer.id)).collect();
            layers::set_tops(transaction, DisksOf::Desktop(new.id), &tops)?;
            mark_done(transaction, &["create"])
        })
    }

    /// All desktops, or those of `owner`, by name.
    pub fn desktops(&self, owner: Option<Uuid>) -> Result<Vec<Desktop>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached(&format!("{SELECT} WHERE ?1 IS NULL OR owner_id = ?1 ORDER BY desktops.name"))?;
        let owner = owner.map(|id| id.to_string());
        Ok(statement.query_map([owner], desktop)?.collect::<rusqlite::Result<_>>()?)
    }

    /// At most `limit` desktops of `owner`, or all, whose names come behind `after`, by name; of these what is asked for.
    pub fn desktops_after(
        &self,
        owner: Option<Uuid>,
        wanted: &Wanted,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Desktop>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT} WHERE (?1 IS NULL OR owner_id = ?1) AND desktops.name > ?2 AND (?4 IS NULL OR users.name = ?4)
             AND instr(lower(desktops.name || ' ' || users.name || ' ' || image), lower(?5)) > 0
             ORDER BY desktops.name LIMIT ?3"
        ))?;
        let owner = owner.map(|id| id.to_string());
        let found = params![owner, after, limit, wanted.owner, wanted.search];
        Ok(statement.query_map(found, desktop)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The desktop with this id, also if it was deleted and can be recovered.
    pub fn desktop(&self, id: Uuid) -> Result<Option<Desktop>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT_ANY} WHERE desktops.id = ?1"))?;
        Ok(statement.query_row([id.to_string()], desktop).optional()?)
    }

    /// The desktop called `name`.
    pub fn desktop_named(&self, name: &str) -> Result<Option<Desktop>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE desktops.name = ?1"))?;
        Ok(statement.query_row([name], desktop).optional()?)
    }

    /// Changes what a desktop of this generation is. False if it was changed in the meantime.
    pub fn change_desktop(&self, id: Uuid, generation: i64, name: &str, memory: u64, cpus: u8) -> Result<bool> {
        let sql = "UPDATE desktops SET name = ?3, memory = ?4, cpus = ?5, generation = generation + 1
                   WHERE id = ?1 AND generation = ?2 AND deleted IS NULL";
        let memory = i64::try_from(memory).unwrap_or(i64::MAX);
        self.change(|transaction| {
            let grows = "SELECT owner_id FROM desktops WHERE id = ?1 AND (memory < ?2 OR cpus < ?3)";
            let owner: Option<String> =
                transaction.query_row(grows, params![id.to_string(), memory, cpus], |row| row.get(0)).optional()?;
            let changed = transaction.execute(sql, params![id.to_string(), generation, name, memory, cpus]);
            let changed = changed.map_err(|error| unique(error, "desktop", name))? == 1;
            if let (true, Some(owner)) = (changed, owner.and_then(|owner| Uuid::parse_str(&owner).ok())) {
                within_quota(transaction, owner, More::Desktops)?;
            }
            Ok(changed)
        })
    }

    /// Deletes the rows of desktops that are nobody's.
    pub fn delete_unowned(&self) -> Result<()> {
        self.connection().execute("DELETE FROM desktops WHERE owner_id IS NULL", [])?;
        Ok(())
    }

    /// Deletes a desktop's row.
    pub fn delete_desktop(&self, id: Uuid) -> Result<()> {
        self.connection().execute("DELETE FROM desktops WHERE id = ?1", [id.to_string()])?;
        Ok(())
    }

    /// Records what the owner wants. Wanting it to run forgets how it last ended.
    pub fn set_desired(&self, id: Uuid, desired: Desired) -> Result<()> {
        self.change(|transaction| set_desired(transaction, id, desired))
    }

    /// Forgets what the machine would go on from: it boots when it is next started.
    pub fn forget_memory(&self, id: Uuid) -> Result<()> {
        let sql = "UPDATE desktops SET resume = NULL, base = NULL, desired = 'stopped' WHERE id = ?1";
        self.connection().execute(sql, [id.to_string()])?;
        Ok(())
    }

    /// Records how a machine ended. It is no longer wanted to run; one that has not yet gone on from its snapshot stays on it.
    pub fn set_ended(&self, id: Uuid, reason: &str, failed: bool) -> Result<()> {
        self.connection().execute(
            "UPDATE desktops SET desired = CASE WHEN resume IS NULL THEN 'stopped' ELSE 'suspended' END, base = NULL,
                 ended_at = ?2, ended_reason = ?3, ended_failed = ?4 WHERE id = ?1",
            params![id.to_string(), now(), reason, failed],
        )?;
        Ok(())
    }
}
