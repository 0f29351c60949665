//! What can be typed after `yunju`.

mod accounts;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use yunju_manager::model::ShareKind;
use yunju_protocol::machine::ByteSize;

pub use accounts::*;
pub use serve::*;

/// Desktops that live on this host and open in a browser.
#[derive(Debug, Parser)]
#[command(
    name = "yunju",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the service cannot be reached; 4 not logged in; \
                  5 not allowed; 6 not found; 7 in conflict with how things are; 8 over a quota; 9 timed out; 10 an operation was not done.\n\n\
                  Start the service with `yunju serve`; every other command talks to it through DATA/yunju.sock, \
                  or to the one that `yunju login` was used for."
)]
pub struct Cli {
    /// The service's data folder [default: /var/lib/yunju for root, else ~/.local/share/yunju]
    #[arg(long, global = true, env = "YUNJU_DATA", value_name = "DIR", hide_env_values = true)]
    pub data: Option<PathBuf>,
    /// The service that somebody logged in to under this name [default: the one in use; without any, this host's]
    #[arg(long, global = true, env = "YUNJU_CONTEXT", value_name = "NAME", conflicts_with = "data")]
    pub context: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service until Ctrl-C or SIGTERM
    Serve(Serve),
    /// Log in to a service, here or elsewhere, and use it from now on
    #[command(
        after_help = "A password is asked for, or read from standard input. It is exchanged for an API token of 30 days.\n\n\
                            A certificate that nobody vouches for is shown and asked about; what was answered is kept with the login.\n\n\
                            Examples:\n  yunju login https://desk.example --user alice\n  yunju login https://desk.example:8443 --ca-file our-ca.pem --token-stdin < token"
    )]
    Login(Login),
    /// End the token of a login and forget it
    Logout {
        /// The context [default: the one in use]
        name: Option<String>,
    },
    /// Choose between the services that somebody logged in to
    #[command(subcommand)]
    Context(Context),
    /// Ask the API
    #[command(
        after_help = "Examples:\n  yunju api GET desktops\n  yunju api POST groups --body '{\"name\": \"staff\"}'\n\nGET /docs/api of the service describes it."
    )]
    Api(Api),
    /// Add, list, change and remove users, give them new passwords
    #[command(subcommand)]
    User(User),
    /// Where users are logged in
    #[command(subcommand)]
    Session(Session),
    /// What programs show instead of a password
    #[command(subcommand)]
    Token(Token),
    /// Work that takes a while: list it, wait for it, cancel it
    #[command(subcommand)]
    Op(Op),
    /// Print what happens, as lines of JSON, until Ctrl-C
    #[command(after_help = "Example:\n  yunju events --cursor 120   # and what happened since the event with this id")]
    Events {
        /// Begin after the event with this id [default: with what happens from now on]
        #[arg(long, value_name = "ID")]
        cursor: Option<i64>,
    },
    /// What desktops used
    #[command(after_help = "Examples:\n  yunju usage --last 30d --by user\n  yunju usage --desktop alice -o csv")]
    Usage(Usage),
    /// Who did what, and who tried
    #[command(subcommand)]
    Audit(Audit),
    /// Give users a role together
    #[command(subcommand)]
    Group(Group),
    /// Make a desktop
    #[command(
        after_help = "Examples:\n  yunju create alice --image desktop --start\n  yunju create dev --image desktop --owner alice --memory 2G --cpus 2"
    )]
    Create(Create),
    /// Start the machine of a desktop, or wake it, and wait until it runs
    Start(Start),
    /// Ask a guest to shut down and wait until its machine has ended
    Stop(Stop),
    /// Stop, then start
    Restart(Stop),
    /// Put running desktops to sleep: they use no memory and go on where they were
    #[command(after_help = "Example:\n  yunju suspend alice")]
    Suspend(Suspend),
    /// Wake suspended desktops and wait until they run
    #[command(after_help = "Example:\n  yunju resume alice")]
    Resume(Resume),
    /// Keep moments of desktops and go back to them
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Make new desktops that go on where one is now, or was when a snapshot was taken
    #[command(after_help = "The new desktops belong to the same user and sleep until they are started.\n\n\
                            Examples:\n  yunju fork alice experiment\n  yunju fork alice try-1 try-2 --snapshot before --start")]
    Fork(Fork),
    /// Go back to the newest restore point; what was becomes one, so that `undo` again undoes this
    #[command(after_help = "Example:\n  yunju undo alice")]
    Undo(Undo),
    /// Let others look at a desktop, work in it, or go on from it with one of their own
    #[command(subcommand)]
    Share(Share),
    /// Delete desktops; they can be recovered for as long as `serve --keep-deleted` says
    #[command(after_help = "Examples:\n  yunju rm alice\n  yunju ls --deleted\n  yunju recover alice")]
    Rm(Remove),
    /// Take deleted desktops back
    Recover(Recover),
    /// Remove deleted desktops with everything in them, for good
    Purge(Purge),
    /// List desktops
    Ls(Ls),
    /// Show one desktop
    Show(Named),
    /// Print what a machine said
    #[command(after_help = "Examples:\n  yunju logs alice -f\n  yunju logs alice --source vmm")]
    Logs(Logs),
    /// Connect this terminal to a desktop's serial port
    #[command(
        after_help = "In a terminal, Ctrl-] leaves.\n\nWith a pipe, standard input is typed, and output is printed until --until is seen or --timeout \
                            seconds after the end of the input. --exec needs a shell that is logged in on the serial port.\n\n\
                            Examples:\n  yunju console alice\n  yunju console alice --exec 'uname -a'\n  echo poweroff | yunju console alice --timeout 5"
    )]
    Console(Console),
    /// Save what a desktop's screen shows as PNG
    Screenshot(Screenshot),
    /// Open a desktop in a browser, or bridge a local port for a VNC viewer
    #[command(
        after_help = "Examples:\n  yunju open alice\n  yunju open alice --vnc 5901   # then: vncviewer localhost:5901"
    )]
    Open(Open),
    /// List and build what desktops are made from
    #[command(subcommand)]
    Image(Image),
    /// Say what this host can do and what to change; exit code 0 if real guests can run
    Doctor(Doctor),
    /// Print a completion script
    #[command(after_help = "Example:\n  yunju completions bash > /etc/bash_completion.d/yunju")]
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Write man pages
    Man {
        /// Into this folder
        dir: PathBuf,
    },
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: what the API answers
    Json,
    /// The same as YAML
    Yaml,
    /// The table for spreadsheets
    Csv,
    /// The first column alone
    Name,
}

#[derive(Debug, Args)]
pub struct Listing {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Named {
    /// Name or id
    pub name: String,
    #[command(flatten)]
    pub listing: Listing,
}

/// A number with s, m, h or d, or of seconds.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let seconds = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let time = seconds.and_then(|seconds| digits.parse::<u32>().ok().map(|count| u64::from(count) * seconds));
    time.map(Duration::from_secs).ok_or_else(|| "write a time such as 90s, 30m or 2h, or 0".to_owned())
}

#[derive(Debug, Args)]
pub struct Create {
    /// 1 to 32 of a-z, 0-9 and -
    pub name: String,
    /// What it is made from (see `yunju image ls`)
    #[arg(long)]
    pub image: String,
    /// Whose it is [default: the user who is called like the desktop]
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// Memory, such as 512M or 2G [default: the image's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processors, 1 to 8 [default: the image's]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u8>,
    /// Start it, too
    #[arg(long)]
    pub start: bool,
    #[command(flatten)]
    pub waiting: Waiting,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Waiting {
    /// Return when the work has begun; suspend, snapshot, fork and undo then print their operation's id (see `op`)
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct Suspend {
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Resume {
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Keep the present of a desktop, which goes on; of one that does not run its disks are kept
    #[command(after_help = "Example:\n  yunju snapshot create alice --name before-upgrade")]
    Create {
        /// Name or id of the desktop
        name: String,
        /// What to call the snapshot
        #[arg(long = "name", value_name = "LABEL")]
        label: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
        #[command(flatten)]
        listing: Listing,
    },
    /// List the snapshots of a desktop, or all; restore points are taken by the service
    Ls {
        /// Name or id of the desktop
        name: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Put a desktop back to a snapshot; what was becomes a restore point (see `undo`)
    #[command(after_help = "Example:\n  yunju snapshot restore alice before-upgrade")]
    Restore {
        /// Name or id of the desktop
        name: String,
        /// Its name, its id, or the beginning of that
        snapshot: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Remove snapshots of a desktop
    Rm {
        /// Name or id of the desktop
        name: String,
        /// Their names, their ids, or the beginnings of those
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Fork {
    /// Name or id of the desktop
    pub name: String,
    /// What the new ones are called
    #[arg(required = true)]
    pub new: Vec<String>,
    /// Go on from this snapshot: its name, its id, or the beginning of that [default: the present]
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// Start them, too
    #[arg(long)]
    pub start: bool,
    #[command(flatten)]
    pub waiting: Waiting,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Undo {
    /// Name or id
    pub name: String,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Start {
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Boot suspended desktops from their disks, as after a power loss; what is only in their memory is lost
    #[arg(long)]
    pub cold: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Do not ask the guest, end the machine at once; a suspended one loses its memory
    #[arg(long)]
    pub force: bool,
    /// Seconds that the guest gets before the machine is ended [default: the service's]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Usage {
    /// What is added up: hour, desktop or user
    #[arg(long, default_value = "desktop", value_name = "WHAT")]
    pub by: String,
    /// The last so many hours or days, such as 24h or 30d [default: all that is remembered]
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "since")]
    pub last: Option<Duration>,
    /// Of hours that do not begin before this, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<jiff::Timestamp>,
    /// Of hours that begin before this
    #[arg(long, value_name = "WHEN")]
    pub until: Option<jiff::Timestamp>,
    /// Of desktops of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Of this desktop: name or id
    #[arg(long, value_name = "NAME")]
    pub desktop: Option<String>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Those that were deleted and can be recovered
    #[arg(long)]
    pub deleted: bool,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Recover {
    /// Name or id; of several with a name it is the one that was deleted last
    pub name: String,
    /// What to call it, should its name be another's now
    #[arg(long = "name", value_name = "NAME")]
    pub new_name: Option<String>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct Purge {
    /// Names or ids
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All that were deleted
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
    /// With everything in them, so that they cannot be recovered
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The guest on its serial port
    Serial,
    /// The machine monitor
    Vmm,
    /// The screen's server
    Proxy,
    /// The network's process
    Passt,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Name or id
    pub name: String,
    /// Go on as more comes
    #[arg(short, long)]
    pub follow: bool,
    /// Whose words
    #[arg(long, value_enum, default_value = "serial")]
    pub source: Source,
}

#[derive(Debug, Args)]
pub struct Console {
    /// Name or id
    pub name: String,
    /// Run this command in the guest's shell, print its output, end with its exit code
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// End when the guest prints this
    #[arg(long, value_name = "TEXT", conflicts_with = "exec")]
    pub until: Option<String>,
    /// End after so many seconds: counted from the end of the input, or from the start with --exec or --until [default: 10, 60 with --exec or --until]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Screenshot {
    /// Name or id
    pub name: String,
    /// The file; `-` is standard output [default: NAME.png]
    #[arg(short, long, value_name = "FILE.png")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Open {
    /// Name or id
    pub name: String,
    /// Listen on this local port and pass connections to the desktop's screen
    #[arg(long, value_name = "PORT")]
    pub vnc: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub enum Share {
    /// Share a desktop with a user, or with whoever has the link that is printed
    #[command(
        after_help = "Examples:\n  yunju share create alice --kind view --for 2h\n  yunju share create alice --kind control --user bob --clipboard"
    )]
    Create {
        /// Name or id of the desktop
        name: String,
        /// What may be done: view, control or copy
        #[arg(long, default_value = "view", value_name = "KIND")]
        kind: ShareKind,
        /// With this user [default: with who has the link]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// For so long, such as 90m, 2h or 7d
        #[arg(long = "for", default_value = "7d", value_name = "TIME", value_parser = parse_time)]
        lasts: Duration,
        /// They may copy and paste, too
        #[arg(long)]
        clipboard: bool,
        /// They do not hear it
        #[arg(long)]
        no_sound: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// List with whom a desktop is shared, or what others share with oneself
    Ls {
        /// Name or id of the desktop
        name: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// End shares and what is open by them
    Revoke {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// List who looks at a desktop now
    Who(Named),
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// List images
    Ls(Listing),
    /// Boot an image once to its desktop, from where its new desktops start
    #[command(after_help = "Example:\n  yunju image warm desktop")]
    Warm {
        /// Which
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Build images
    #[command(after_help = "Example:\n  yunju image build desktop minimal")]
    Build {
        /// What to build
        #[arg(required = true)]
        names: Vec<String>,
        /// The script that builds [default: images/build of the checkout that this program is in]
        #[arg(long, env = "YUNJU_IMAGE_BUILDER", value_name = "FILE")]
        builder: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The address that browsers shall reach
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub listing: Listing,
}
