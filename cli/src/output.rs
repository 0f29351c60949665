//! Data on standard output: as a table, JSON, YAML, CSV or names.

mod yaml;

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use yunju_manager::model::{
    AuditEntry, Desktop, Group, Image, Operation, Session, Share, Snapshot, State, Token, User, Watcher,
};
use yunju_protocol::machine::ByteSize;

use crate::args::Format;

/// Something that can be a row of a table.
pub trait Row {
    /// The columns' names.
    const COLUMNS: &'static [&'static str];
    /// Their contents.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list.
pub fn list<T: Row + Serialize>(items: &[T], format: Format) -> Result<()> {
    match format {
        Format::Json => json(items),
        Format::Yaml => raw(yaml::text(&serde_json::to_value(items)?).as_bytes()),
        Format::Csv => csv(T::COLUMNS, items.iter().map(Row::cells)),
        Format::Name => items.iter().try_for_each(|item| line(&item.cells()[0])),
        Format::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(T::COLUMNS.iter().copied());
            table.add_rows(items.iter().map(Row::cells));
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            let text = table.to_string();
            line(&text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Prints one thing: its columns one below the other, or for programs.
pub fn one<T: Row + Serialize>(item: &T, format: Format) -> Result<()> {
    match format {
        Format::Json => json(item),
        Format::Yaml => raw(yaml::text(&serde_json::to_value(item)?).as_bytes()),
        Format::Csv => csv(T::COLUMNS, std::iter::once(item.cells())),
        Format::Name => line(&item.cells()[0]),
        Format::Table => {
            let width = T::COLUMNS.iter().map(|name| name.len()).max().unwrap_or(0);
            for (name, cell) in T::COLUMNS.iter().zip(item.cells()) {
                line(format!("{:width$}  {cell}", name.to_lowercase()).trim_end())?;
            }
            Ok(())
        }
    }
}

/// Prints something that is shown only now: alone, after words for people, or with what is known of it for programs.
pub fn secret<T: Serialize>(about: &T, secret: &str, words: &str, format: Format) -> Result<()> {
    match format {
        Format::Json => json(about),
        Format::Yaml => raw(yaml::text(&serde_json::to_value(about)?).as_bytes()),
        Format::Table | Format::Csv | Format::Name => {
            eprintln!("{words}");
            line(secret)
        }
    }
}

/// RFC 4180; what a spreadsheet would take for a formula gets a quotation mark in front.
fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let cell = |text: &str| {
        let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
        if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    line(&columns.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>().join(","))?;
    for row in rows {
        line(&row.iter().map(|text| cell(text)).collect::<Vec<_>>().join(","))?;
    }
    Ok(())
}

/// Prints JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line. That nobody reads any more is no failure worth words, so it ends the program quietly.
pub fn line(text: &str) -> Result<()> {
    quiet(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints bytes at once.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    quiet(out.write_all(bytes).and_then(|()| out.flush()))
}

fn quiet(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

impl Row for Desktop {
    const COLUMNS: &'static [&'static str] = &["NAME", "OWNER", "STATE", "IMAGE", "MEMORY", "CPUS", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let note = match (&self.ended, self.state) {
            (Some(ended), State::Stopped | State::Suspended) => ended.reason.clone(),
            _ => String::new(),
        };
        let failed = self.ended.as_ref().is_some_and(|ended| ended.failed);
        let state = if self.state == State::Stopped && failed { "failed".to_owned() } else { self.state.to_string() };
        vec![
            self.name.clone(),
            self.owner.clone(),
            state,
            self.image.clone(),
            ByteSize(self.memory).to_string(),
            self.cpus.to_string(),
            note,
        ]
    }
}

impl Row for Snapshot {
    const COLUMNS: &'static [&'static str] = &["ID", "DESKTOP", "KIND", "TAKEN", "SIZE", "NAME"];

    fn cells(&self) -> Vec<String> {
        let size = if self.memory { format!("{}M", self.bytes.div_ceil(1 << 20)) } else { "disks".to_owned() };
        let id = self.id.to_string();
        let short = id.split('-').next().unwrap_or(&id).to_owned();
        vec![short, self.desktop.clone(), self.kind.to_string(), time(self.created), size, self.name.clone()]
    }
}

impl Row for Share {
    const COLUMNS: &'static [&'static str] = &["ID", "DESKTOP", "OWNER", "WITH", "KIND", "ALSO", "UNTIL"];

    fn cells(&self) -> Vec<String> {
        let also = [(self.clipboard, "clipboard"), (self.sound, "sound")];
        let also: Vec<_> = also.into_iter().filter(|(may, _)| *may).map(|(_, word)| word).collect();
        let with = self.user.clone().unwrap_or_else(|| "link".to_owned());
        let (kind, until) = (self.kind.to_string(), time(self.expires));
        vec![self.id.to_string(), self.desktop.clone(), self.owner.clone(), with, kind, words(&also), until]
    }
}

impl Row for Watcher {
    const COLUMNS: &'static [&'static str] = &["NAME", "BY", "MAY", "SINCE"];

    fn cells(&self) -> Vec<String> {
        let by = serde_json::to_value(self.by).ok().and_then(|by| by.as_str().map(str::to_owned)).unwrap_or_default();
        let may = if self.input { "work" } else { "look" };
        vec![self.name.clone(), by, may.to_owned(), time(self.since)]
    }
}

/// A moment in this host's time.
pub fn time(moment: Timestamp) -> String {
    moment.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

impl Row for User {
    const COLUMNS: &'static [&'static str] = &["NAME", "ROLE", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let note = match (self.disabled, self.must_change_password) {
            (true, _) => "may not log in",
            (false, true) => "has not chosen a password yet",
            (false, false) => "",
        };
        vec![self.name.clone(), self.role.to_string(), note.to_owned()]
    }
}

/// A user with all that is known of them.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Account(pub User);

impl Row for Account {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "ROLE", "GROUPS", "DESKTOPS", "MEMORY", "CPUS", "SECOND FACTOR", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let of = |used: String, limit: Option<String>| {
            limit.map_or_else(|| used.clone(), |limit| format!("{used} of {limit}"))
        };
        let User { quota, used, .. } = &self.0;
        let size = |bytes: u64| ByteSize(bytes).to_string();
        let row = self.0.cells();
        vec![
            row[0].clone(),
            row[1].clone(),
            self.0.groups.join(", "),
            of(used.desktops.to_string(), quota.desktops.map(|limit| limit.to_string())),
            of(size(used.memory), quota.memory.map(size)),
            of(used.cpus.to_string(), quota.cpus.map(|limit| limit.to_string())),
            if self.0.second_factor { "yes" } else { "no" }.to_owned(),
            row[2].clone(),
        ]
    }
}

impl Row for Session {
    const COLUMNS: &'static [&'static str] = &["ID", "USER", "SINCE", "LAST USED", "FROM", "BROWSER"];

    fn cells(&self) -> Vec<String> {
        let (since, used) = (time(self.created), time(self.last_used));
        vec![self.id.clone(), self.user.clone(), since, used, self.address.clone(), self.agent.clone()]
    }
}

impl Row for Token {
    const COLUMNS: &'static [&'static str] = &["ID", "USER", "NAME", "SCOPES", "EXPIRES", "LAST USED"];

    fn cells(&self) -> Vec<String> {
        let used = self.last_used.map_or_else(|| "never".to_owned(), time);
        let scopes = words(&self.scopes);
        vec![self.id.to_string(), self.user.clone(), self.name.clone(), scopes, time(self.expires), used]
    }
}

impl Row for Operation {
    const COLUMNS: &'static [&'static str] = &["ID", "KIND", "DESKTOP", "STATE", "BY", "SINCE", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let note = self.problem.as_ref().map_or_else(String::new, |problem| problem.detail.clone());
        let (id, state, since) = (self.id.to_string(), self.state.to_string(), time(self.created));
        vec![id, self.kind.clone(), self.desktop.clone(), state, self.actor.clone(), since, note]
    }
}

impl Row for AuditEntry {
    const COLUMNS: &'static [&'static str] = &["AT", "ACTOR", "FROM", "ACTION", "RESOURCE", "STATUS", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let (status, at) = (self.status.to_string(), time(self.at));
        let texts = [&self.actor, &self.address, &self.action, &self.resource, &status, &self.detail];
        std::iter::once(at).chain(texts.into_iter().cloned()).collect()
    }
}

/// Words with commas between.
pub fn words<T: ToString>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Row for Group {
    const COLUMNS: &'static [&'static str] = &["NAME", "ROLE", "MEMBERS"];

    fn cells(&self) -> Vec<String> {
        let role = self.role.map_or_else(|| "-".to_owned(), |role| role.to_string());
        vec![self.name.clone(), role, self.members.join(", ")]
    }
}

impl Row for Image {
    const COLUMNS: &'static [&'static str] = &["NAME", "MEMORY", "CPUS", "SCREEN", "NET", "WARM", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let description = match &self.problem {
            Some(problem) => format!("unusable: {problem}"),
            None => self.description.clone(),
        };
        vec![
            self.name.clone(),
            ByteSize(self.memory).to_string(),
            self.cpus.to_string(),
            yes(self.display),
            yes(self.net),
            self.warm.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            description,
        ]
    }
}
