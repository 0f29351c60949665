//! What can be typed about accounts, and about what is recorded of what they do.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use yunju_manager::model::{Role, Scope};
use yunju_protocol::machine::ByteSize;

use super::{Listing, Named};

#[derive(Debug, Args)]
pub struct Login {
    /// Where the service is: https://HOST or http://HOST:PORT
    pub url: String,
    /// Who signed the service's certificate, PEM [default: whom this host trusts]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Trust the certificate with this SHA-256 alone, without asking
    #[arg(long, value_name = "HEX", conflicts_with = "ca_file")]
    pub fingerprint: Option<String>,
    /// Who logs in [default: asked for]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// What to call this context [default: the host]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Read an API token from standard input instead of a password
    #[arg(long, conflicts_with = "user")]
    pub token_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub enum Context {
    /// List the services that somebody logged in to
    Ls(Listing),
    /// Use one of them from now on; `local` is the one on this host
    Use {
        /// Which
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Api {
    /// GET, POST, PATCH, PUT or DELETE
    pub method: String,
    /// The address; without a leading / it is below /v1/
    pub path: String,
    /// The body in JSON; `-` reads standard input
    #[arg(long, value_name = "JSON")]
    pub body: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a user and print a password that works for the first login
    #[command(after_help = "Example:\n  yunju user add alice --admin")]
    Add {
        /// 1 to 32 of a-z, 0-9 and -
        name: String,
        /// May do everything: the same as --role admin
        #[arg(long, conflicts_with = "role")]
        admin: bool,
        /// What they may do: admin, user, developer or auditor
        #[arg(long, default_value = "user")]
        role: Role,
        #[command(flatten)]
        listing: Listing,
    },
    /// List users
    Ls(Listing),
    /// Print a new password that works for the next login; the old one no longer does
    Passwd {
        /// Whose
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Change what a user may do, or whether they may log in
    #[command(after_help = "Example:\n  yunju user set bob --role auditor")]
    Set {
        /// Who
        name: String,
        /// admin, user, developer or auditor
        #[arg(long)]
        role: Option<Role>,
        /// They may no longer log in; what they are logged in with ends
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// They may log in again
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a user: what they may do, and how much their desktops have
    Show(Named),
    /// Limit how much a user's desktops may have together, running or not
    #[command(
        after_help = "A user whose memory and processors are limited chooses the sizes of their desktops.\n\nExamples:\n  yunju user quota bob --desktops 3 --memory 8G --cpus 6\n  yunju user quota bob --none"
    )]
    Quota {
        /// Who
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        listing: Listing,
    },
    /// Add a user and print an address where they choose a password; it works once, for a week
    #[command(after_help = "Example:\n  yunju user invite carol --role developer")]
    Invite {
        /// 1 to 32 of a-z, 0-9 and -
        name: String,
        /// What they may do: admin, user, developer or auditor
        #[arg(long, default_value = "user")]
        role: Role,
        #[command(flatten)]
        listing: Listing,
    },
    /// Print an address where a user chooses another password; it works once, for a day
    Link {
        /// Who
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Let a user log in without the authenticator that they lost
    RmFactor {
        /// Who
        name: String,
    },
    /// Delete a user who owns no desktop
    Rm {
        /// Who
        name: String,
    },
}

/// Whose things.
#[derive(Debug, Args)]
pub struct Whose {
    /// Of this user [default: your own; everybody's on the service's host]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Subcommand)]
pub enum Session {
    /// List where users are logged in
    Ls(Whose),
    /// End sessions, and what is open by them
    Rm {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it; it is not shown again
    #[command(after_help = "Example:\n  yunju token add backup --user alice --scope read --scope desktops --days 90")]
    Add {
        /// What to call it
        name: String,
        /// What it is for: read, screen, desktops, admin; may be given more than once
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// How many days it lasts, at most 366
        #[arg(long, default_value_t = 30)]
        days: u16,
        /// Whose it is [default: your own]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// List tokens
    Ls(Whose),
    /// End tokens, and what is open by them
    Rm {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Op {
    /// List operations, newest first
    Ls {
        /// At most so many
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Wait until operations have ended; exit code 10 if one is not done
    Wait {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Cancel operations that have not begun
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List who did what, newest first
    #[command(after_help = "Examples:\n  yunju audit ls --since 2h\n  yunju audit ls --action login --refused")]
    Ls {
        #[command(flatten)]
        filter: AuditFilter,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        listing: Listing,
    },
    /// Print the whole log, oldest first
    #[command(after_help = "Example:\n  yunju audit export --format csv --since 30d > audit.csv")]
    Export {
        #[command(flatten)]
        filter: AuditFilter,
        /// A line of JSON for each entry, or a table
        #[arg(long, value_enum, default_value = "json")]
        format: ExportFormat,
    },
}

/// Which entries of the audit log.
#[derive(Debug, Args)]
pub struct AuditFilter {
    /// By this user; `local` is this host's administrator
    #[arg(long, value_name = "USER")]
    pub actor: Option<String>,
    /// What begins like this: desktop, desktop.start, login …
    #[arg(long)]
    pub action: Option<String>,
    /// Of a thing with this name
    #[arg(long, value_name = "NAME")]
    pub resource: Option<String>,
    /// Not earlier: a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = crate::audit::moment)]
    pub since: Option<jiff::Timestamp>,
    /// Earlier
    #[arg(long, value_name = "TIME", value_parser = crate::audit::moment)]
    pub until: Option<jiff::Timestamp>,
    /// Only what was refused or failed
    #[arg(long)]
    pub refused: bool,
}

/// How the audit log is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Lines of JSON
    Json,
    /// For spreadsheets
    Csv,
}

/// How much there may be; what is not said stays.
#[derive(Debug, Args)]
pub struct Limits {
    /// At most so many desktops
    #[arg(long, value_name = "N")]
    pub desktops: Option<u32>,
    /// At most so much guest memory
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// At most so many virtual processors
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// No new desktops and snapshots when disks and snapshots take more than this
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<ByteSize>,
    /// At most so many snapshots, restore points aside
    #[arg(long, value_name = "N")]
    pub snapshots: Option<u32>,
    /// Limit nothing any more
    #[arg(long, conflicts_with_all = ["desktops", "memory", "cpus", "disk", "snapshots"])]
    pub none: bool,
}

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Add a group
    #[command(after_help = "Example:\n  yunju group add auditors --role auditor")]
    Add {
        /// 1 to 32 of a-z, 0-9 and -
        name: String,
        /// What its members may do in addition to their own role
        #[arg(long)]
        role: Option<Role>,
    },
    /// List groups
    Ls(Listing),
    /// Limit how much the desktops of a group's members may have together, beside what each may
    #[command(after_help = "Example:\n  yunju group quota class-7 --desktops 30 --memory 60G")]
    Quota {
        /// Which
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        listing: Listing,
    },
    /// Put users into a group
    Join {
        /// Which
        group: String,
        /// Who
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Take users out of a group
    Leave {
        /// Which
        group: String,
        /// Who
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Delete a group; its members stay
    Rm {
        /// Which
        name: String,
    },
}
