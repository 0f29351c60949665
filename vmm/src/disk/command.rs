//! `yunju-vmm disk`: the files of disks from the command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use yunju_protocol::machine::ByteSize;

use super::tools::{self, Info, ParentInfo};
use super::{Error, failed};

/// What to do with disks.
#[derive(Debug, Subcommand)]
pub enum DiskAction {
    /// Make an empty layer, on others or on nothing
    Create {
        /// The new file
        file: PathBuf,
        /// Size, such as 16G; with --on, if it is to be longer than what it lies on
        #[arg(long, value_name = "SIZE", required_unless_present = "on")]
        size: Option<ByteSize>,
        /// The files that it lies on, bottom first
        #[arg(long, value_name = "LOWER", num_args = 1..)]
        on: Vec<PathBuf>,
    },
    /// Say what files are
    Info {
        /// Raw files or layers
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to write it
        #[command(flatten)]
        form: Form,
    },
    /// Copy what a chain shows into one file
    Flatten {
        /// The chain, bottom first
        #[arg(required = true, value_name = "LAYER")]
        layers: Vec<PathBuf>,
        /// The new file: a layer on nothing
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
        /// Make it a raw file
        #[arg(long)]
        raw: bool,
    },
    /// Say which bytes the top of a chain has
    Diff {
        /// The chain, bottom first
        #[arg(required = true, value_name = "LAYER")]
        layers: Vec<PathBuf>,
        /// How to write it
        #[command(flatten)]
        form: Form,
    },
    /// Make one layer of two, which takes the place of both in a chain
    Merge {
        /// The one below
        lower: PathBuf,
        /// The one that lies on it
        upper: PathBuf,
        /// The new file
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
    },
}

/// How a result is written.
#[derive(Debug, Args)]
pub struct Form {
    /// As text or JSON
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Carries it out; results go to standard output.
pub fn run(action: DiskAction) -> Result<(), Error> {
    match action {
        DiskAction::Create { file, size, on } => tools::create(&file, &on, size.map(|size| size.0)),
        DiskAction::Flatten { layers, to, raw } => tools::flatten(&layers, &to, raw),
        DiskAction::Merge { lower, upper, to } => tools::merge(&lower, &upper, &to),
        DiskAction::Info { files, form } => {
            let infos: Vec<Info> = files.iter().map(|file| tools::info(file)).collect::<Result<_, _>>()?;
            print(&form, &infos, text)
        }
        DiskAction::Diff { layers, form } => {
            print(&form, &tools::diff(&layers)?, |piece| format!("{} {}", piece.offset, piece.length))
        }
    }
}

fn text(info: &Info) -> String {
    let size = format!("{}: {} bytes, {} used", info.file.display(), info.virtual_size, info.used);
    let on = match &info.parent {
        None => String::new(),
        Some(ParentInfo::Raw(length)) => format!(" on a raw file of {length} bytes"),
        Some(ParentInfo::Layer(uuid)) => format!(" on layer {uuid}"),
    };
    match &info.uuid {
        None => format!("{size}, raw"),
        Some(uuid) => format!("{size}, layer {uuid}{on}"),
    }
}

fn print<T: Serialize>(form: &Form, values: &[T], text: impl Fn(&T) -> String) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = match form.output {
        Output::Text => values.iter().try_for_each(|value| writeln!(out, "{}", text(value))),
        Output::Json => serde_json::to_string(values).map_err(io::Error::from).and_then(|text| writeln!(out, "{text}")),
    };
    written.and_then(|()| out.flush()).map_err(failed("standard output", "writing"))
}
