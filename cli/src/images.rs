//! `yunju image …`

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use yunju_manager::model::{Image, Warmth};

use crate::args::Listing;
use crate::client::{Client, segment};
use crate::output;
use crate::serve::own_folder;

/// Lists images.
pub async fn list(client: &Client, listing: &Listing) -> Result<()> {
    output::list(&client.get::<Vec<Image>>("/v1/images").await?, listing.output)
}

/// Warms an image and waits until it is.
pub async fn warm(client: &Client, name: &str, no_wait: bool) -> Result<()> {
    client.command(&format!("/v1/images/{}/warm", segment(name))).await?;
    let mut said = false;
    loop {
        let images = client.get::<Vec<Image>>("/v1/images").await?;
        let image = images.into_iter().find(|image| image.name == name).context("the image is gone")?;
        match image.warm {
            Some(Warmth::Warm) => {
                eprintln!("{name}: warm");
                return Ok(());
            }
            Some(Warmth::Failed(problem)) => bail!("{name} was not warmed: {problem}"),
            _ if no_wait => return Ok(()),
            _ if !said => eprintln!("{name}: warming …"),
            _ => {}
        }
        said = true;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
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
