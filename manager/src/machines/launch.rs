//! Making the processes of a machine, each recorded before it runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::disks::Medium;
use super::process::{Identity, Process};
use super::record::Record;
use super::spawn::{Gated, append_log, fresh_log, spawn};
use super::{Context, Error, cgroup, config, disks, user};
use crate::folder::Folder;
use crate::images::Image;
use crate::store::Desktop;

/// A machine whose processes were just made.
pub struct Launched {
    /// What is recorded of them.
    pub record: Record,
    /// `yunju-vmm`
    pub vmm: Process,
    /// `passt`, if the machine has a network.
    pub passt: Option<Process>,
    /// It wants a proxy.
    pub display: bool,
}

/// Makes the processes of a machine but the proxy. On an error those that ran are in the record.
pub fn launch(context: &Context, folder: &Folder, desktop: &Desktop) -> Result<Launched, Error> {
    let image = Image::at(&desktop.image_folder, &desktop.image)?;
    if image.manifest.digest != desktop.image_digest {
        return Err(Error::ImageChanged(desktop.image.clone()));
    }
    let programs = &context.programs;
    present(&programs.vmm)?;
    let medium = disks::prepare(context, desktop, &image)?;
    folder.prepare_run().map_err(|error| system(format!("making {}", folder.run().display()), error))?;
    fresh_log(&folder.file("proxy.log")).map_err(|error| system("opening proxy.log", error))?;
    let (mut passt, mut net) = (None, None);
    match &programs.passt {
        _ if !image.manifest.net => {}
        Some(program) => {
            let (gated, socket) = gate_passt(program, folder)?;
            (passt, net) = (Some(gated), Some(socket));
        }
        None => tracing::warn!(desktop = %desktop.name, "passt is not installed: the machine has no network"),
    }
    let difference = medium.difference;
    let vmm = gate_vmm(context, folder, desktop, &image, medium, net.as_ref())?;
    let identity = |gated: &Gated| gated.process.identity().clone();
    let (of_vmm, of_passt) = (Some(identity(&vmm)), passt.as_ref().map(identity));
    let mut record = Record { vmm: of_vmm, passt: of_passt, difference, ..Record::default() };
    save(&record, folder)?;
    confine(context, desktop, record.identities());
    let passt = passt.map(open).transpose()?;
    let vmm = open(vmm)?;
    record.started = true;
    save(&record, folder)?;
    Ok(Launched { record, vmm, passt, display: image.manifest.display.is_some() })
}

fn gate_vmm(
    context: &Context,
    folder: &Folder,
    desktop: &Desktop,
    image: &Image,
    medium: Medium,
    net: Option<&OwnedFd>,
) -> Result<Gated, Error> {
    let machine = config::machine(desktop, image, folder, medium, net.map(AsRawFd::as_raw_fd), &context.limits);
    let path = folder.file("machine.json");
    let text = serde_json::to_vec_pretty(&machine).map_err(|error| system("writing machine.json", error.into()))?;
    std::fs::write(&path, text).map_err(|error| system(format!("writing {}", path.display()), error))?;
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), path.display().to_string()];
    arguments.extend(context.programs.jail.flags().chain(user::of_vmm()));
    let descriptors: Vec<_> = net.iter().map(AsFd::as_fd).collect();
    let log = fresh_log(&folder.file("vmm.log")).map_err(|error| system("opening vmm.log", error))?;
    gate(&context.programs.vmm, &arguments, folder, log, &descriptors)
}

/// passt, and the end of its socket that is the machine's.
fn gate_passt(program: &Path, folder: &Folder) -> Result<(Gated, OwnedFd), Error> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|error| system("making a socket pair", error.into()))?;
    // the guest must not reach the host's loopback through the gateway's address
    let arguments =
        ["--foreground", "--quiet", "--no-map-gw", "--fd", &theirs.as_raw_fd().to_string()].map(String::from);
    let log = fresh_log(&folder.file("passt.log")).map_err(|error| system("opening passt.log", error))?;
    Ok((gate(program, &arguments, folder, log, &[theirs.as_fd()])?, ours))
}

/// Makes the proxy of a running machine.
pub fn start_proxy(
    context: &Context,
    folder: &Folder,
    desktop: &Desktop,
    record: &mut Record,
) -> Result<Process, Error> {
    let program = &context.programs.proxy;
    present(program)?;
    let unix = |path: std::path::PathBuf| format!("unix:{}", path.display());
    let mut arguments = vec![
        "--display".to_owned(),
        unix(folder.display_socket()),
        "--websocket".to_owned(),
        unix(folder.run_file("websocket.sock")),
        "--agent".to_owned(),
        unix(folder.guest_socket(yunju_protocol::seat::PORT)),
        "--clipboard".to_owned(),
        context.programs.clipboard.to_string(),
        "--name".to_owned(),
        desktop.name.clone(),
    ];
    arguments.extend(context.programs.jail.flags().chain(user::beside(record.vmm.as_ref())));
    // a proxy that was killed leaves its sockets
    let _ = std::fs::remove_file(folder.run_file("websocket.sock"));
    let _ = std::fs::remove_file(folder.guest_socket(yunju_protocol::seat::PORT));
    let log = append_log(&folder.file("proxy.log")).map_err(|error| system("opening proxy.log", error))?;
    let gated = gate(program, &arguments, folder, log, &[])?;
    record.proxy = Some(gated.process.identity().clone());
    save(record, folder)?;
    confine(context, desktop, record.proxy.iter());
    open(gated)
}

/// Puts processes that wait at their gates into the machine's control group.
fn confine<'a>(context: &Context, desktop: &Desktop, processes: impl Iterator<Item = &'a Identity>) {
    let disk = context.limits.disk.map(|bytes| (context.data.as_path(), bytes.0));
    if let Some(group) = cgroup::make(desktop.id, desktop.memory, desktop.cpus, disk) {
        processes.for_each(|process| group.add(process.pid));
    }
}

fn present(program: &Path) -> Result<(), Error> {
    if program.is_file() { Ok(()) } else { Err(Error::NoProgram(program.to_owned())) }
}

/// Makes a process that waits at its gate.
fn gate(
    program: &Path,
    arguments: &[String],
    folder: &Folder,
    log: File,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Gated, Error> {
    spawn(program, arguments, folder.path(), log, descriptors)
        .map_err(|error| system(format!("starting {}", program.display()), error))
}

fn open(gated: Gated) -> Result<Process, Error> {
    gated.open().map_err(|error| system("starting a process", error))
}

fn save(record: &Record, folder: &Folder) -> Result<(), Error> {
    let path = folder.run_file("processes.json");
    record.save(&path).map_err(|error| system(format!("writing {}", path.display()), error))
}

fn system(doing: impl Into<String>, error: io::Error) -> Error {
    Error::System { doing: doing.into(), error }
}
