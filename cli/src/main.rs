//! The `yunju` command: the service and its client.

mod api;
mod args;
mod audit;
mod client;
mod console;
mod contexts;
mod desktops;
mod doctor;
mod failure;
mod images;
mod moments;
mod operations;
mod output;
mod serve;
mod shares;
mod tls;
mod trash;
mod usage;
mod users;
mod vnc;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if !matches!(error.downcast_ref(), Some(Failure::Guest(_))) {
                eprintln!("yunju: {error:#}");
            }
            if let Some(hint) = failure::hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let chosen = (cli.data.clone(), cli.context.clone());
    let data = cli.data.unwrap_or_else(default_data);
    match cli.command {
        Command::Doctor(arguments) => return doctor::run(&data, &arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "yunju", &mut std::io::stdout());
        }
        Command::Man { dir } => man(&dir)?,
        Command::Image(args::Image::Build { names, builder }) => images::build(&names, builder)?,
        command => {
            let runtime = tokio::runtime::Runtime::new().context("the async runtime does not start")?;
            let done = runtime.block_on(talk(chosen, data, command));
            // a thread may still wait for standard input
            runtime.shutdown_background();
            done?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn talk(chosen: (Option<PathBuf>, Option<String>), data: PathBuf, command: Command) -> Result<()> {
    let command = match command {
        Command::Serve(arguments) => return serve::run(data, arguments).await,
        Command::Login(arguments) => return contexts::login(arguments).await,
        Command::Logout { name } => return contexts::logout(name.or(chosen.1)).await,
        Command::Context(arguments) => return contexts::run(arguments),
        command => command,
    };
    let client = contexts::choose(chosen.0.as_deref(), data, chosen.1.as_deref())?;
    match command {
        Command::Api(arguments) => api::run(&client, arguments).await,
        Command::User(arguments) => users::run(&client, arguments).await,
        Command::Session(arguments) => users::session(&client, arguments).await,
        Command::Token(arguments) => users::token(&client, arguments).await,
        Command::Op(arguments) => operations::run(&client, arguments).await,
        Command::Events { cursor } => operations::events(&client, cursor).await,
        Command::Usage(arguments) => usage::run(&client, &arguments).await,
        Command::Audit(arguments) => audit::run(&client, arguments).await,
        Command::Group(arguments) => users::group(&client, arguments).await,
        Command::Create(arguments) => desktops::create(&client, arguments).await,
        Command::Start(arguments) => desktops::start(&client, arguments).await,
        Command::Stop(arguments) => desktops::stop(&client, arguments).await,
        Command::Restart(arguments) => desktops::restart(&client, arguments).await,
        Command::Suspend(arguments) => moments::suspend(&client, &arguments).await,
        Command::Resume(arguments) => moments::resume(&client, &arguments).await,
        Command::Snapshot(arguments) => moments::snapshot(&client, arguments).await,
        Command::Fork(arguments) => moments::fork(&client, arguments).await,
        Command::Undo(arguments) => moments::undo(&client, &arguments).await,
        Command::Share(arguments) => shares::run(&client, arguments).await,
        Command::Rm(arguments) => desktops::remove(&client, arguments).await,
        Command::Recover(arguments) => trash::recover(&client, &arguments).await,
        Command::Purge(arguments) => trash::purge(&client, &arguments).await,
        Command::Ls(arguments) if arguments.deleted => trash::list(&client, &arguments.listing).await,
        Command::Ls(arguments) => desktops::list(&client, &arguments.listing).await,
        Command::Show(arguments) => desktops::show(&client, &arguments).await,
        Command::Logs(arguments) => desktops::logs(&client, &arguments).await,
        Command::Screenshot(arguments) => desktops::screenshot(&client, arguments).await,
        Command::Console(arguments) => console::run(&client, arguments).await,
        Command::Open(arguments) => vnc::open(&client, &arguments).await,
        Command::Image(args::Image::Ls(arguments)) => images::list(&client, &arguments).await,
        Command::Image(args::Image::Warm { name, waiting }) => images::warm(&client, &name, waiting.no_wait).await,
        Command::Doctor(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Image(_)
        | Command::Serve(_)
        | Command::Login(_)
        | Command::Logout { .. }
        | Command::Context(_) => {
            unreachable!("these do not talk to the service")
        }
    }
}

fn man(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| format!("cannot write to {}", folder.display()))
}

fn home(below: &str) -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from).join(below)
}

fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() { PathBuf::from("/var/lib/yunju") } else { home(".local/share/yunju") }
}
