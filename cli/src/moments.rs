//! `yunju suspend`, `resume`, `snapshot`, `fork`, `undo`

use anyhow::Result;
use yunju_manager::model::{Desktop, Fork, NewSnapshot, Snapshot, State};

use crate::args::{self, Names, Undo};
use crate::client::{Client, segment};
use crate::desktops::{look, path, until_running};
use crate::output;

pub async fn suspend(client: &Client, names: &Names) -> Result<()> {
    for name in &names.names {
        eprintln!("{name}: suspending …");
        let desktop: Desktop = client.post(&path(name, "/suspend"), &()).await?;
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
        args::Snapshot::Create { name, label, listing } => {
            eprintln!("{name}: taking a snapshot …");
            let new = NewSnapshot { name: label.unwrap_or_default() };
            let taken: Snapshot = client.post(&path(&name, "/snapshots"), &new).await?;
            output::one(&taken, listing.output)
        }
        args::Snapshot::Ls { name, listing } => {
            let of = name.map_or_else(|| "/v1/snapshots".to_owned(), |name| path(&name, "/snapshots"));
            output::list(&client.get::<Vec<Snapshot>>(&of).await?, listing.output)
        }
        args::Snapshot::Restore { name, snapshot } => {
            eprintln!("{name}: keeping the present, then going back …");
            let back = path(&name, &format!("/snapshots/{}/restore", segment(&snapshot)));
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
    let mut made: Vec<Desktop> = client.post(&path(&fork.name, "/fork"), &body).await?;
    if body.start && !fork.waiting.no_wait {
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
    let desktop: Desktop = client.post(&path(&undo.name, "/undo"), &()).await?;
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
