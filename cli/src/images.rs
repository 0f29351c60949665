//! `yunju image …`

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use yunju_manager::model::Image;

use crate::args::Listing;
use crate::client::Client;
use crate::output;
use crate::serve::own_folder;

/// Lists images.
pub async fn list(client: &Client, listing: &Listing) -> Result<()> {
    output::list(&client.get::<Vec<Image>>("/v1/images").await?, listing.output)
}

/// Runs the builder, whose progress is its own.
pub fn build(names: &[String], builder: Option<PathBuf>) -> Result<()> {
    let builder = match builder {
        Some(builder) => builder,
        None => find()?,
    };
    let status = Command::new(&builder).args(names).status();
    let status = status.with_context(|| format!("cannot run {}", builder.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", builder.display());
    }
    Ok(())
}

/// `images/build` of the checkout that this program was built in.
fn find() -> Result<PathBuf> {
    let folder = own_folder()?;
    let found = folder.ancestors().map(|folder| folder.join("images/build")).find(|file| file.is_file());
    found.context("there is no images/build above this program: say with --builder where the image builder is")
}
