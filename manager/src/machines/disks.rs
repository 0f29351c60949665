//! What a machine is about to run on: the files of its disks, and the snapshot that it goes on from.

use std::path::PathBuf;

use uuid::Uuid;
use yunju_protocol::machine::{DiskConfig, RestoreConfig};

use super::{Context, Error};
use crate::images::Image;
use crate::layers::LONGEST_CHAIN;
use crate::store::{Below, Desktop, DisksOf, Layer, Snapshot};

/// Files for one start of a machine.
#[derive(Debug, Clone, Default)]
pub struct Medium {
    /// All disks, as the guest sees them.
    pub disks: Vec<DiskConfig>,
    /// What the machine goes on from.
    pub restore: Option<RestoreConfig>,
    /// Bytes of that, if it is a difference; else 0.
    pub difference: u64,
}

/// Finds the files of a desktop's disks. A machine writes only to what nothing else reaches: a disk gets a new
/// layer on top where others, or the snapshot that the machine goes on from, need what is there.
pub fn prepare(context: &Context, desktop: &Desktop, image: &Image) -> Result<Medium, Error> {
    let store = &context.store;
    let (restore, difference) = match desktop.resume {
        Some(id) => {
            let snapshot = store.snapshot(id)?.ok_or(Error::NoSnapshot)?;
            // what an attempt before this one may have written is not what the snapshot was taken on
            store.set_tops(desktop.id, &store.tops(DisksOf::Snapshot(id))?)?;
            (Some(restore(context, &snapshot)), snapshot.base.map_or(0, |_| snapshot.bytes))
        }
        None => {
            store.runs(desktop.id, None)?;
            (None, 0)
        }
    };
    let tops = context.layers.tops(store, desktop.id)?;
    let mut new = Vec::new();
    for (number, disk) in (0..).zip(&image.manifest.disks).filter(|(_, disk)| !disk.readonly) {
        let top = tops.iter().find(|(of, _)| *of == number).map(|(_, top)| *top);
        let layer = |below| Layer { id: Uuid::new_v4(), below };
        match top {
            None => {
                let raw = image.folder.join(&disk.path);
                let layer = layer(Below::Image(raw.clone()));
                context.layers.create(&context.layers.path(layer.id), &[raw], disk.size.map(|size| size.0))?;
                new.push((number, layer));
            }
            Some(top) if store.users_of_layer(top)? > 1 => {
                let chain = context.layers.chain(store, top)?;
                let layer = layer(Below::Layer(top));
                let lower: Vec<PathBuf> = chain.lower.into_iter().chain([chain.top]).collect();
                context.layers.create(&context.layers.path(layer.id), &lower, None)?;
                new.push((number, layer));
            }
            Some(_) => {}
        }
    }
    if !new.is_empty() {
        store.put_on_top(desktop.id, &new)?;
    }
    Ok(Medium { disks: disks(context, desktop, image)?, restore, difference })
}

/// Makes the chains of a desktop whose machine does not run short again: layers that only it needs become one. The
/// caller has the desktop's lock.
pub fn shorten(context: &Context, desktop: Uuid) -> Result<(), Error> {
    let store = &context.store;
    let Some(desktop) = store.desktop(desktop)? else { return Ok(()) };
    // what it goes on from has the same tops
    let own = if desktop.resume.is_some() { 2 } else { 1 };
    for (_, top) in context.layers.tops(store, desktop.id)? {
        let chain = store.chain(top)?;
        if chain.len() <= LONGEST_CHAIN || store.users_of_layer(top)? > own {
            continue;
        }
        let mut run: Vec<Layer> = Vec::new();
        for layer in chain {
            let needed = !run.is_empty() && store.users_of_layer(layer.id)? > 1;
            if needed || layer.below == Below::Nothing {
                break;
            }
            run.push(layer);
        }
        let Some(lowest) = run.last().filter(|_| run.len() > 1) else { continue };
        let merged = Layer { id: Uuid::new_v4(), below: lowest.below.clone() };
        let files: Vec<PathBuf> = run.iter().rev().map(|layer| context.layers.path(layer.id)).collect();
        context.layers.merge(&files, merged.id)?;
        store.replace_layers(top, &merged)?;
        tracing::info!(desktop = %desktop.name, layers = run.len(), "layers merged");
    }
    context.sweep();
    Ok(())
}

/// All disks of a desktop with the layers that they have now.
fn disks(context: &Context, desktop: &Desktop, image: &Image) -> Result<Vec<DiskConfig>, Error> {
    let tops = context.store.tops(DisksOf::Desktop(desktop.id))?;
    let mut disks = Vec::new();
    for (number, disk) in (0..).zip(&image.manifest.disks) {
        let config = match tops.iter().find(|(of, _)| *of == number) {
            Some((_, top)) if !disk.readonly => {
                let chain = context.layers.chain(&context.store, *top)?;
                DiskConfig { path: chain.top, layers: chain.lower, ..DiskConfig::default() }
            }
            _ => DiskConfig { path: image.folder.join(&disk.path), readonly: true, ..DiskConfig::default() },
        };
        disks.push(config);
    }
    Ok(disks)
}

fn restore(context: &Context, snapshot: &Snapshot) -> RestoreConfig {
    let file = |id, name| context.snapshots.file(id, name);
    RestoreConfig {
        state: file(snapshot.id, "state"),
        memory: file(snapshot.id, "memory"),
        base: snapshot.base.map(|base| file(base, "memory")),
    }
}
