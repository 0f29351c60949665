//! `yunju ls --deleted`, `recover`, `purge`

use anyhow::Result;
use yunju_manager::model::{self, Deleted, Desktop};

use crate::args::{Listing, Purge, Recover};
use crate::client::{Client, segment};
use crate::desktops::confirm;
use crate::output::{self, Row};

impl Row for Deleted {
    const COLUMNS: &'static [&'static str] = &["NAME", "OWNER", "DELETED", "UNTIL", "SIZE", "ID"];

    fn cells(&self) -> Vec<String> {
        let (deleted, until) = (self.deleted.to_string(), self.until.to_string());
        let size = format!("{} MiB", self.bytes >> 20);
        vec![self.name.clone(), self.owner.clone(), deleted, until, size, self.id.to_string()]
    }
}

pub async fn list(client: &Client, listing: &Listing) -> Result<()> {
    output::list(&client.get::<Vec<Deleted>>("/v1/trash").await?, listing.output)
}

pub async fn recover(client: &Client, recover: &Recover) -> Result<()> {
    let how = model::Recover { name: recover.new_name.clone() };
    let desktop: Desktop = client.post(&format!("/v1/trash/{}/recover", segment(&recover.name)), &how).await?;
    output::one(&desktop, recover.listing.output)
}

pub async fn purge(client: &Client, purge: &Purge) -> Result<()> {
    let names = match purge.all {
        true => client.get::<Vec<Deleted>>("/v1/trash").await?.iter().map(|one| one.id.to_string()).collect(),
        false => purge.names.clone(),
    };
    if names.is_empty() {
        return Ok(());
    }
    if !purge.yes {
        confirm(&names.join(", "), true)?;
    }
    for name in &names {
        client.delete(&format!("/v1/trash/{}", segment(name))).await?;
        eprintln!("{name}: removed for good");
    }
    Ok(())
}
