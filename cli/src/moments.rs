//! `yunju suspend`, `resume`, `snapshot`, `fork`, `undo`

use anyhow::Result;
use serde::Serialize;
use yunju_manager::model::{Desktop, Fork, NewSnapshot, Snapshot, State};

use crate::args::{self, Undo};
use crate::client::{Client, segment};
use crate::desktops::{look, path, until_running};
use crate::output;

/// Begins what nobody waits for, and prints where to look for it.
async fn begin(client: &Client, path: &str, body: &impl Serialize) -> Result<()> {
    println!("{}", client.begin(path, body).await?.id);
    Ok(())
}

pub async fn suspend(client: &Client, suspend: &args::Suspend) -> Result<()> {
    for name in &suspend.names {
        eprintln!("{name}: suspending …");
        let path = path(name, "/suspend");
        if suspend.waiting.no_wait {
            begin(client, &path, &()).await?;
            continue;
        }
        let desktop: Desktop = client.post(&path, &()).await?;
        eprintln!("{name}: {}", desktop.state);
    }
    Ok(())
}

pub async fn resume(client: &Client, resume: &args::Resume) -> Result<()> {
    for name in &resume.names {
        let _: Desktop = client.post(&path(name, "/resume"), &()).await?;
    }
    for name in resume.names.iter().filter(|_| !resume.waiting.no_wait) {
        until_running(client, name).await?;
    }
    Ok(())
}

pub async fn snapshot(client: &Client, snapshot: args::Snapshot) -> Result<()> {
    match snapshot {
        args::Snapshot::Create { name, label, waiting, listing } => {
            eprintln!("{name}: taking a snapshot …");
            let new = NewSnapshot { name: label.unwrap_or_default() };
            let path = path(&name, "/snapshots");
            if waiting.no_wait {
                return begin(client, &path, &new).await;
            }
            output::one(&client.post::<Snapshot>(&path, &new).await?, listing.output)
        }
        args::Snapshot::Ls { name, listing } => {
            let of = name.map_or_else(|| "/v1/snapshots".to_owned(), |name| path(&name, "/snapshots"));
            output::list(&client.get::<Vec<Snapshot>>(&of).await?, listing.output)
        }
        args::Snapshot::Restore { name, snapshot, waiting } => {
            eprintln!("{name}: keeping the present, then going back …");
            let back = path(&name, &format!("/snapshots/{}/restore", segment(&snapshot)));
            if waiting.no_wait {
                return begin(client, &back, &()).await;
            }
            let desktop: Desktop = client.post(&back, &()).await?;
            settle(client, &name, &desktop).await
        }
        args::Snapshot::Rm { name, snapshots } => {
            for snapshot in snapshots {
                client.delete(&path(&name, &format!("/snapshots/{}", segment(&snapshot)))).await?;
                eprintln!("{name}: snapshot {snapshot} removed");
            }
            Ok(())
        }
    }
}

pub async fn fork(client: &Client, fork: args::Fork) -> Result<()> {
    eprintln!("{}: forking …", fork.name);
    let body = Fork { names: fork.new, snapshot: fork.snapshot, start: fork.start };
    let path = path(&fork.name, "/fork");
    if fork.waiting.no_wait {
        return begin(client, &path, &body).await;
    }
    let mut made: Vec<Desktop> = client.post(&path, &body).await?;
    if body.start {
        for desktop in &mut made {
            *desktop = until_running(client, &desktop.name).await?;
        }
    }
    output::list(&made, fork.listing.output)
}

pub async fn undo(client: &Client, undo: &Undo) -> Result<()> {
    let before = look(client, &undo.name).await?;
    if let Some(point) = before.restore_point {
        eprintln!("{}: keeping the present, then going back to {} …", undo.name, output::time(point));
    }
    let path = path(&undo.name, "/undo");
    if undo.waiting.no_wait {
        return begin(client, &path, &()).await;
    }
    let desktop: Desktop = client.post(&path, &()).await?;
    settle(client, &undo.name, &desktop).await
}

async fn settle(client: &Client, name: &str, desktop: &Desktop) -> Result<()> {
    match desktop.state {
        State::Starting | State::Running => until_running(client, name).await.map(drop),
        state => {
            eprintln!("{name}: {state}");
            Ok(())
        }
    }
}
