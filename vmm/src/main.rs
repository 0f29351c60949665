//! The `yunju-vmm` command.

use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::{io, mem};

use clap::Parser;
use yunju_vmm::config::{Action, Cli, RunArgs, SnapshotArgs};
use yunju_vmm::machine::{Command, Ending, Machine};
use yunju_vmm::snapshot::client;
use yunju_vmm::threads::{self, Kind};
use yunju_vmm::{control, disk, jail, sockets};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version, which are no errors and go to standard output.
        Err(request) if !request.use_stderr() => request.exit(),
        Err(usage) => {
            let text = usage.to_string();
            // The first paragraph says what is wrong; what follows is in the help.
            let words: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let line = words.join(" ");
            eprintln!("yunju-vmm: error: {}; see yunju-vmm run --help", line.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
    };
    let args = match cli.action {
        Action::Run(args) => args,
        Action::Snapshot(args) => return take_snapshot(args),
        Action::Disk(action) => {
            return match disk::command::run(action) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("yunju-vmm: error: {error}");
                    ExitCode::FAILURE
                }
            };
        }
    };
    match run(*args) {
        Ok(ending) => {
            let (text, code) = match ending {
                Ending::PoweredOff => ("powered off by the guest".to_owned(), 0),
                Ending::Reset => ("restarted by the guest".to_owned(), 0),
                Ending::Killed => ("ended by request".to_owned(), 0),
                Ending::Suspended => ("suspended".to_owned(), 0),
                Ending::Crashed(reason) => (format!("guest crashed: {reason}"), 3),
            };
            eprintln!("yunju-vmm: machine ended: {text}");
            ExitCode::from(code)
        }
        Err((code, reason)) => {
            eprintln!("yunju-vmm: error: {reason}");
            ExitCode::from(code)
        }
    }
}

/// Asks a machine for a snapshot; what is known of it goes to standard output.
fn take_snapshot(args: SnapshotArgs) -> ExitCode {
    let taken = client::take(&args.into()).map_err(|error| error.to_string());
    match taken.and_then(|info| serde_json::to_string(&info).map_err(|error| error.to_string())) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("yunju-vmm: error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Builds and runs the machine. The error is an exit code and one line that says why.
///
/// All files and sockets are opened first, then this process goes to jail, and only there are threads started.
fn run(args: RunArgs) -> Result<Ending, (u8, String)> {
    let (reboot, flags) = (!args.no_reboot, args.jail.clone());
    let mut config = args.into_config().map_err(|error| (2, error.to_string()))?;
    let failed = |error: &dyn std::error::Error| (1, error.to_string());

    jail::prepare(&mut config).map_err(|error| failed(&error))?;
    let (commands, receiver) = channel();
    ignore_full_files();
    tell_of_cut_files();
    let mut machine = Machine::new(config.clone(), commands.clone()).map_err(|error| failed(&error))?;
    let control = config.control.as_ref().map(sockets::listen_stream).transpose().map_err(|error| failed(&error))?;
    jail::enter(&config, &flags, || machine.look_at_itself(), threads::bind).map_err(|error| failed(&error))?;

    obey_signals(commands.clone()).map_err(|error| failed(&error))?;
    machine.serve().map_err(|error| failed(&error))?;
    if let Some(listener) = control {
        let screenshot = machine.host().screenshot();
        control::serve(listener, commands, screenshot).map_err(|error| failed(&error))?;
    }
    threads::become_kind(Kind::Main);
    machine.run(&receiver, reboot).map_err(|error| failed(&error))
}

/// A file that may not grow is an error of the write, not the end of the machine.
fn ignore_full_files() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Bitmaps of disks and the memory of a snapshot are mapped. What is mapped of a file that somebody cut short cannot be had any
/// more, and no guest can go on without it.
fn tell_of_cut_files() {
    extern "C" fn tell(_: libc::c_int) {
        const LINE: &[u8] =
            b"yunju-vmm: error: a file of this machine was cut short while it ran: a disk or a snapshot\n";
        // SAFETY: the bytes are valid for the call; then the process ends, without running anything else.
        unsafe {
            libc::write(2, LINE.as_ptr().cast(), LINE.len());
            libc::_exit(1)
        }
    }
    // SAFETY: the handler makes two system calls, which every thread may make at any time.
    unsafe { libc::signal(libc::SIGBUS, tell as extern "C" fn(libc::c_int) as libc::sighandler_t) };
}

/// SIGTERM and SIGINT, which the jail has blocked, press the power button; the second one ends the machine.
fn obey_signals(commands: Sender<Command>) -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is used, and the calls only touch it.
    let signals = unsafe {
        let mut signals = mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGINT);
        signals
    };
    threads::spawn(Kind::Signals, "signals", 64 << 10, move || {
        let mut command = Command::PowerButton;
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are valid for the call.
            if unsafe { libc::sigwait(&signals, &mut signal) } != 0 || commands.send(command).is_err() {
                return;
            }
            command = Command::Kill;
        }
    })?;
    Ok(())
}
