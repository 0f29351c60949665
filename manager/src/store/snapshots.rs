//! Moments of machines.

use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::desktops::{self, Desired, NewDesktop};
use super::layers::{DisksOf, Tops, set_tops, tops};
use super::operations::mark_done;
use super::quotas::{More, within_quota};
use super::{Result, Store, now, optional, parsed, timestamp};
use crate::model::SnapshotKind;

/// A snapshot as stored.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The name of its folder.
    pub id: Uuid,
    /// In whose list it stands.
    pub desktop: Option<Uuid>,
    /// The image that the machine was of.
    pub image: String,
    /// Its digest.
    pub image_digest: String,
    /// Its folder.
    pub image_folder: PathBuf,
    /// What it was taken for.
    pub kind: SnapshotKind,
    /// What its owner calls it.
    pub name: String,
    /// When it was taken.
    pub created: Timestamp,
    /// Its memory file is a difference to this one's.
    pub base: Option<Uuid>,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u8,
    /// Of a machine that ran; otherwise of its disks alone.
    pub has_memory: bool,
    /// There is a picture of its screen.
    pub has_screen: bool,
    /// What its files take.
    pub bytes: u64,
}

/// A snapshot whose files are there.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// All but the time, which is now.
    pub snapshot: Snapshot,
    /// Its disks.
    pub disks: Tops,
}

fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        id: parsed(row, "id")?,
        desktop: optional(row, "desktop_id")?,
        image: row.get("image")?,
        image_digest: row.get("image_digest")?,
        image_folder: row.get::<_, String>("image_folder")?.into(),
        kind: parsed(row, "kind")?,
        name: row.get("name")?,
        created: timestamp(row, "created")?,
        base: optional(row, "base")?,
        memory: row.get::<_, i64>("memory")?.unsigned_abs(),
        cpus: row.get("cpus")?,
        has_memory: row.get("has_memory")?,
        has_screen: row.get("has_screen")?,
        bytes: row.get::<_, i64>("bytes")?.unsigned_abs(),
    })
}

fn add(connection: &Connection, new: &NewSnapshot) -> Result<()> {
    let snapshot = &new.snapshot;
    connection.execute(
        "INSERT INTO snapshots (id, desktop_id, image, image_digest, image_folder, kind, name, created, base, memory, cpus,
             has_memory, has_screen, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            snapshot.id.to_string(),
            snapshot.desktop.map(|id| id.to_string()),
            snapshot.image,
            snapshot.image_digest,
            snapshot.image_folder.to_string_lossy(),
            snapshot.kind.as_str(),
            snapshot.name,
            now(),
            snapshot.base.map(|id| id.to_string()),
            i64::try_from(snapshot.memory).unwrap_or(i64::MAX),
            snapshot.cpus,
            snapshot.has_memory,
            snapshot.has_screen,
            i64::try_from(snapshot.bytes).unwrap_or(i64::MAX),
        ],
    )?;
    set_tops(connection, DisksOf::Snapshot(snapshot.id), &new.disks)
}

/// Puts a desktop where a snapshot was taken. It goes on from there when it is started.
fn put(connection: &Connection, desktop: Uuid, snapshot: Uuid) -> Result<()> {
    set_tops(connection, DisksOf::Desktop(desktop), &tops(connection, DisksOf::Snapshot(snapshot))?)?;
    connection.execute(
        "UPDATE desktops SET (resume, memory, cpus) =
             (SELECT CASE has_memory WHEN 1 THEN id END, memory, cpus FROM snapshots WHERE id = ?2),
             base = NULL, ended_at = NULL, ended_reason = NULL, ended_failed = NULL WHERE id = ?1",
        params![desktop.to_string(), snapshot.to_string()],
    )?;
    Ok(())
}

/// All snapshots to keep: those in a list, those that a desktop goes on from or is based on, the images' warm ones that are
/// not outdated, and what their differences are to.
const LIVE: &str = "WITH RECURSIVE live (id) AS (
        SELECT id FROM snapshots WHERE desktop_id IS NOT NULL AND kind IN ('manual', 'point')
        UNION SELECT resume FROM desktops WHERE resume IS NOT NULL
        UNION SELECT base FROM desktops WHERE base IS NOT NULL
        UNION SELECT id FROM snapshots WHERE kind = 'warm' AND name <> ''
        UNION SELECT snapshots.base FROM snapshots JOIN live USING (id) WHERE snapshots.base IS NOT NULL)";

impl Store {
    /// Adds a snapshot.
    pub fn add_snapshot(&self, new: &NewSnapshot) -> Result<()> {
        self.change(|transaction| {
            add(transaction, new)?;
            let asked_for = new.snapshot.kind == SnapshotKind::Manual;
            if let Some(desktop) = new.snapshot.desktop.filter(|_| asked_for) {
                let sql = "SELECT owner_id FROM desktops WHERE id = ?1 AND owner_id IS NOT NULL";
                let owner =
                    transaction.query_row(sql, [desktop.to_string()], |row| parsed(row, "owner_id")).optional()?;
                owner.map_or(Ok(()), |owner| within_quota(transaction, owner, More::Snapshots))?;
            }
            mark_done(transaction, &["snapshot"])
        })
    }

    /// Records that a machine ended with a snapshot, from which it goes on when it is started.
    pub fn suspended(&self, desktop: Uuid, new: &NewSnapshot, desired: Desired) -> Result<()> {
        self.change(|transaction| {
            add(transaction, new)?;
            put(transaction, desktop, new.snapshot.id)?;
            desktops::set_desired(transaction, desktop, desired)
        })
    }

    /// Puts a desktop whose machine does not run where a snapshot was taken.
    pub fn put_on_snapshot(&self, desktop: Uuid, snapshot: Uuid) -> Result<()> {
        self.change(|transaction| {
            put(transaction, desktop, snapshot)?;
            mark_done(transaction, &["restore", "undo"])
        })
    }

    /// Adds desktops that go on from a snapshot, which is added as well if it is `new`.
    pub fn fork(&self, snapshot: Uuid, new: Option<&NewSnapshot>, desktops: &[NewDesktop<'_>]) -> Result<()> {
        self.change(|transaction| {
            if let Some(new) = new {
                add(transaction, new)?;
            }
            for desktop in desktops {
                desktops::add(transaction, desktop)?;
                put(transaction, desktop.id, snapshot)?;
                let suspended = "UPDATE desktops SET desired = CASE WHEN resume IS NULL THEN 'stopped' ELSE 'suspended' END WHERE id = ?1";
                transaction.execute(suspended, [desktop.id.to_string()])?;
            }
            mark_done(transaction, &["fork", "create"])
        })
    }

    /// Records that the machine of a desktop runs: what it went on from is behind it, its memory is a difference to `base`.
    pub fn runs(&self, desktop: Uuid, base: Option<Uuid>) -> Result<()> {
        let sql = "UPDATE desktops SET resume = NULL, base = ?2 WHERE id = ?1";
        self.connection().execute(sql, params![desktop.to_string(), base.map(|id| id.to_string())])?;
        Ok(())
    }

    /// The snapshot with this id.
    pub fn snapshot(&self, id: Uuid) -> Result<Option<Snapshot>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM snapshots WHERE id = ?1")?;
        Ok(statement.query_row([id.to_string()], snapshot).optional()?)
    }

    /// The snapshots in a desktop's list, the newest first.
    pub fn snapshots(&self, desktop: Uuid) -> Result<Vec<Snapshot>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT * FROM snapshots WHERE desktop_id = ?1 AND kind IN ('manual', 'point') ORDER BY number DESC",
        )?;
        Ok(statement.query_map([desktop.to_string()], snapshot)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest restore point of a desktop.
    pub fn newest_point(&self, desktop: Uuid) -> Result<Option<Snapshot>> {
        let found = self.snapshots(desktop)?.into_iter().find(|snapshot| snapshot.kind == SnapshotKind::Point);
        Ok(found)
    }

    /// The snapshot that desktops of an image start from.
    pub fn warm_snapshot(&self, image: &str, digest: &str) -> Result<Option<Snapshot>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT * FROM snapshots WHERE kind = 'warm' AND image = ?1 AND image_digest = ?2 AND name <> '' ORDER BY number DESC",
        )?;
        Ok(statement.query_row([image, digest], snapshot).optional()?)
    }

    /// The images that have warm snapshots, with their digests then and the snapshots.
    pub fn warm_images(&self) -> Result<Vec<(String, String, Uuid)>> {
        let connection = self.connection();
        let sql = "SELECT image, image_digest, id FROM snapshots WHERE kind = 'warm' AND name <> ''";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, parsed(row, "id")?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Takes a snapshot from its list: it goes when nothing refers to it.
    pub fn hide_snapshot(&self, id: Uuid) -> Result<()> {
        let sql = "UPDATE snapshots SET desktop_id = NULL, name = '' WHERE id = ?1";
        self.connection().execute(sql, [id.to_string()])?;
        Ok(())
    }

    /// Takes all but the newest `keep` restore points of a desktop from its list.
    pub fn hide_old_points(&self, desktop: Uuid, keep: u32) -> Result<()> {
        let sql = "UPDATE snapshots SET desktop_id = NULL WHERE desktop_id = ?1 AND kind = 'point' AND number NOT IN
            (SELECT number FROM snapshots WHERE desktop_id = ?1 AND kind = 'point' ORDER BY number DESC LIMIT ?2)";
        self.connection().execute(sql, params![desktop.to_string(), keep])?;
        Ok(())
    }

    /// Forgets the snapshots that nothing refers to; their folders can go.
    pub fn sweep_snapshots(&self) -> Result<Vec<Uuid>> {
        let connection = self.connection();
        let sql = format!("{LIVE} DELETE FROM snapshots WHERE id NOT IN live RETURNING id");
        let mut statement = connection.prepare_cached(&sql)?;
        let gone = statement.query_map([], |row| parsed(row, "id"))?;
        Ok(gone.collect::<rusqlite::Result<_>>()?)
    }
}
