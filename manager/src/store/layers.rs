//! What disks are made of.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{Result, Store, now, optional, parsed};

/// The topmost layer of each of the disks that a guest can write to, with the disk's number in `image.json`.
pub type Tops = Vec<(u32, Uuid)>;

/// What is below a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// Another layer.
    Layer(Uuid),
    /// A raw file of an image.
    Image(PathBuf),
    /// Nothing: the layer's file is itself raw.
    Nothing,
}

/// A file in `layers/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The file's name.
    pub id: Uuid,
    /// What it lies on.
    pub below: Below,
}

/// Whose disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisksOf {
    /// A desktop's, as it is now.
    Desktop(Uuid),
    /// A snapshot's.
    Snapshot(Uuid),
}

impl DisksOf {
    const fn table(self) -> (&'static str, Uuid) {
        match self {
            Self::Desktop(id) => ("desktop", id),
            Self::Snapshot(id) => ("snapshot", id),
        }
    }
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    let image: Option<String> = row.get("image")?;
    let below = match (optional(row, "parent")?, image) {
        (Some(parent), _) => Below::Layer(parent),
        (None, Some(path)) => Below::Image(path.into()),
        (None, None) => Below::Nothing,
    };
    Ok(Layer { id: parsed(row, "id")?, below })
}

/// All that is reached from desktops and snapshots.
const LIVE: &str = "WITH RECURSIVE live (id) AS (
        SELECT layer_id FROM desktop_disks UNION SELECT layer_id FROM snapshot_disks
        UNION SELECT parent FROM layers JOIN live USING (id) WHERE parent IS NOT NULL)";

pub(super) fn add(connection: &Connection, layer: &Layer) -> Result<()> {
    let (parent, image) = match &layer.below {
        Below::Layer(id) => (Some(id.to_string()), None),
        Below::Image(path) => (None, Some(path.to_string_lossy().into_owned())),
        Below::Nothing => (None, None),
    };
    let mut statement =
        connection.prepare_cached("INSERT INTO layers (id, parent, image, created) VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute(params![layer.id.to_string(), parent, image, now()])?;
    Ok(())
}

pub(super) fn tops(connection: &Connection, of: DisksOf) -> Result<Tops> {
    let (kind, id) = of.table();
    let sql = format!("SELECT disk, layer_id FROM {kind}_disks WHERE {kind}_id = ?1 ORDER BY disk");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([id.to_string()], |row| Ok((row.get("disk")?, parsed(row, "layer_id")?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn set_tops(connection: &Connection, of: DisksOf, tops: &[(u32, Uuid)]) -> Result<()> {
    let (kind, id) = of.table();
    connection.execute(&format!("DELETE FROM {kind}_disks WHERE {kind}_id = ?1"), [id.to_string()])?;
    let sql = format!("INSERT INTO {kind}_disks ({kind}_id, disk, layer_id) VALUES (?1, ?2, ?3)");
    let mut statement = connection.prepare_cached(&sql)?;
    for (disk, layer) in tops {
        statement.execute(params![id.to_string(), *disk, layer.to_string()])?;
    }
    Ok(())
}

impl Store {
    /// The topmost layers.
    pub fn tops(&self, of: DisksOf) -> Result<Tops> {
        tops(&self.connection(), of)
    }

    /// A chain from its top downwards.
    pub fn chain(&self, top: Uuid) -> Result<Vec<Layer>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM layers WHERE id = ?1")?;
        let (mut chain, mut next) = (Vec::new(), Some(top));
        while let Some(id) = next {
            let found = statement.query_row([id.to_string()], layer)?;
            next = match found.below {
                Below::Layer(id) => Some(id),
                Below::Image(_) | Below::Nothing => None,
            };
            chain.push(found);
        }
        Ok(chain)
    }

    /// How many reach a layer directly: desktops, snapshots and layers on top of it.
    pub fn users_of_layer(&self, id: Uuid) -> Result<u32> {
        let sql = "SELECT (SELECT count(*) FROM desktop_disks WHERE layer_id = ?1)
            + (SELECT count(*) FROM snapshot_disks WHERE layer_id = ?1) + (SELECT count(*) FROM layers WHERE parent = ?1)";
        Ok(self.connection().query_row(sql, [id.to_string()], |row| row.get(0))?)
    }

    /// Gives a desktop layers of its own, whose files are there, and makes them its disks' tops.
    pub fn put_on_top(&self, desktop: Uuid, layers: &[(u32, Layer)]) -> Result<()> {
        self.change(|transaction| {
            let mut tops = tops(transaction, DisksOf::Desktop(desktop))?;
            for (disk, new) in layers {
                add(transaction, new)?;
                tops.retain(|(number, _)| number != disk);
                tops.push((*disk, new.id));
            }
            set_tops(transaction, DisksOf::Desktop(desktop), &tops)
        })
    }

    /// Makes `tops` the disks of a desktop.
    pub fn set_tops(&self, desktop: Uuid, tops: &[(u32, Uuid)]) -> Result<()> {
        self.change(|transaction| set_tops(transaction, DisksOf::Desktop(desktop), tops))
    }

    /// Puts `merged` in the place of the layers from `top` down to and without what it lies on.
    pub fn replace_layers(&self, top: Uuid, merged: &Layer) -> Result<()> {
        self.change(|transaction| {
            add(transaction, merged)?;
            let ids = params![top.to_string(), merged.id.to_string()];
            transaction.execute("UPDATE desktop_disks SET layer_id = ?2 WHERE layer_id = ?1", ids)?;
            transaction.execute("UPDATE snapshot_disks SET layer_id = ?2 WHERE layer_id = ?1", ids)?;
            transaction.execute("UPDATE layers SET parent = ?2 WHERE parent = ?1", ids)?;
            Ok(())
        })
    }

    /// Forgets the layers that nothing reaches; their files can go.
    pub fn sweep_layers(&self) -> Result<Vec<Uuid>> {
        let connection = self.connection();
        let sql = format!("{LIVE} DELETE FROM layers WHERE id NOT IN live RETURNING id");
        let mut statement = connection.prepare_cached(&sql)?;
        let gone = statement.query_map([], |row| parsed(row, "id"))?;
        Ok(gone.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a layer is known.
    pub fn knows_layer(&self, id: Uuid) -> Result<bool> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT 1 FROM layers WHERE id = ?1")?;
        Ok(statement.query_row([id.to_string()], |_| Ok(())).optional()?.is_some())
    }
}
