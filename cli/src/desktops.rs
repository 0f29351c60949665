//! `yunju create`, `start`, `stop`, `restart`, `rm`, `ls`, `show`, `logs`, `screenshot`

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use yunju_manager::model::{self, Desktop, NewDesktop, State};

use crate::args::{Create, Listing, Logs, Named, Remove, Screenshot, Source, Start, Stop};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;

/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub fn path(name: &str, rest: &str) -> String {
    format!("/v1/desktops/{}{rest}", segment(name))
}

pub async fn look(client: &Client, name: &str) -> Result<Desktop> {
    client.get(&path(name, "")).await
}

pub async fn list(client: &Client, listing: &Listing) -> Result<()> {
    output::list(&client.pages::<Desktop>("/v1/desktops").await?, listing.output)
}

pub async fn show(client: &Client, named: &Named) -> Result<()> {
    output::one(&look(client, &named.name).await?, named.listing.output)
}

pub async fn create(client: &Client, create: Create) -> Result<()> {
    eprintln!("making {} from image {} …", create.name, create.image);
    let new = NewDesktop {
        name: create.name,
        image: create.image,
        owner: create.owner,
        memory: create.memory,
        cpus: create.cpus,
        start: create.start,
    };
    let mut desktop: Desktop = client.post("/v1/desktops", &new).await?;
    if new.start && !create.waiting.no_wait {
        desktop = until_running(client, &new.name).await?;
    }
    output::one(&desktop, create.listing.output)
}

pub async fn start(client: &Client, start: Start) -> Result<()> {
    for name in &start.names {
        let start = if start.cold { "/start?cold=true" } else { "/start" };
        let _: Desktop = client.post(&path(name, start), &()).await?;
    }
    for name in start.names.iter().filter(|_| !start.waiting.no_wait) {
        until_running(client, name).await?;
    }
    Ok(())
}

pub async fn stop(client: &Client, stop: Stop) -> Result<()> {
    let body = model::Stop { force: stop.force, timeout: stop.timeout };
    for name in &stop.names {
        let _: Desktop = client.post(&path(name, "/stop"), &body).await?;
    }
    for name in stop.names.iter().filter(|_| !stop.waiting.no_wait) {
        let stopped = |desktop: &Desktop| desktop.state == State::Stopped;
        let desktop = until(client, name, stopped).await?;
        eprintln!("{name}: stopped{}", desktop.ended.map(|ended| format!(" ({})", ended.reason)).unwrap_or_default());
    }
    Ok(())
}

pub async fn restart(client: &Client, stop: Stop) -> Result<()> {
    let body = model::Stop { force: stop.force, timeout: stop.timeout };
    for name in &stop.names {
        let _: Desktop = client.post(&path(name, "/restart"), &body).await?;
    }
    for name in stop.names.iter().filter(|_| !stop.waiting.no_wait) {
        // between its old and its new run a desktop is stopped for a moment, without a failure
        let up = |desktop: &Desktop| match desktop.state {
            State::Running => true,
            State::Stopped => desktop.ended.as_ref().is_some_and(|ended| ended.failed),
            State::Suspended => true,
            State::Starting | State::Stopping | State::Suspending => false,
        };
        let desktop = until(client, name, up).await?;
        report(name, &desktop)?;
    }
    Ok(())
}

pub async fn until_running(client: &Client, name: &str) -> Result<Desktop> {
    let settled = |desktop: &Desktop| matches!(desktop.state, State::Running | State::Stopped | State::Suspended);
    let desktop = until(client, name, settled).await?;
    report(name, &desktop)?;
    Ok(desktop)
}

fn report(name: &str, desktop: &Desktop) -> Result<()> {
    match (&desktop.ended, desktop.state) {
        (_, State::Running) => {
            eprintln!("{name}: running");
            Ok(())
        }
        (Some(ended), State::Suspended) => bail!(
            "{name} did not go on and is still suspended: {}; `yunju start {name} --cold` boots it without its memory",
            ended.reason
        ),
        (Some(ended), _) => bail!("{name} ended: {}; see `yunju logs {name} --source vmm`", ended.reason),
        (None, state) => bail!("{name} is {state}"),
    }
}

/// Waits until a desktop is as it should be. The service bounds every change, so this ends; the limit
/// here is for a service that does not.
async fn until(client: &Client, name: &str, good: impl Fn(&Desktop) -> bool) -> Result<Desktop> {
    let begun = Instant::now();
    let mut said = None;
    loop {
        let desktop = look(client, name).await?;
        if good(&desktop) {
            return Ok(desktop);
        }
        if said != Some(desktop.state) {
            eprintln!("{name}: {} …", desktop.state);
            said = Some(desktop.state);
        }
        if begun.elapsed() > Duration::from_secs(3700) {
            return Err(Failure::TimedOut(format!("{name} is still {}", desktop.state)).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub async fn remove(client: &Client, remove: Remove) -> Result<()> {
    for name in &remove.names {
        look(client, name).await?;
    }
    if !remove.yes {
        confirm(&remove.names.join(", "), remove.purge)?;
    }
    for name in &remove.names {
        client.delete(&path(name, if remove.purge { "?purge=true" } else { "" })).await?;
        eprintln!("{name}: deleted");
    }
    Ok(())
}

/// Asks whether something is to be deleted, perhaps for good.
pub fn confirm(names: &str, for_good: bool) -> Result<()> {
    let input = io::stdin();
    if !input.is_terminal() {
        bail!("deleting {names} needs --yes when nobody can be asked");
    }
    eprint!("Delete {names}{}? [y/N] ", if for_good { " with everything in it, for good" } else { "" });
    io::stderr().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    if !answer.trim().eq_ignore_ascii_case("y") {
        bail!("nothing was deleted");
    }
    Ok(())
}

pub async fn logs(client: &Client, logs: &Logs) -> Result<()> {
    let source = match logs.source {
        Source::Serial => "serial",
        Source::Vmm => "vmm",
        Source::Proxy => "proxy",
        Source::Passt => "passt",
    };
    let base = path(&logs.name, &format!("/logs?source={source}"));
    let mut at: Option<u64> = None;
    loop {
        let path = at.map_or_else(|| base.clone(), |offset| format!("{base}&offset={offset}"));
        let (bytes, next) = client.bytes(&path, "yunju-next-offset").await?;
        output::raw(&bytes)?;
        at = next.and_then(|offset| offset.parse().ok());
        match (bytes.is_empty(), logs.follow) {
            (true, true) => tokio::time::sleep(LOOK * 3).await,
            (true, false) => return Ok(()),
            (false, _) => {}
        }
    }
}

pub async fn screenshot(client: &Client, screenshot: Screenshot) -> Result<()> {
    let (png, _) = client.bytes(&path(&screenshot.name, "/screenshot"), "etag").await?;
    let file = screenshot.output.unwrap_or_else(|| PathBuf::from(format!("{}.png", segment(&screenshot.name))));
    if file.as_os_str() == "-" {
        return output::raw(&png);
    }
    std::fs::write(&file, &png).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("{}: {} bytes", file.display(), png.len());
    Ok(())
}
