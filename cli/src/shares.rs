//! `yunju share …`

use anyhow::Result;
use yunju_manager::model::{self, NewShare, NewShareAnswer, Watcher};

use crate::args::{Named, Share};
use crate::client::{Client, segment};
use crate::desktops::path;
use crate::output;

/// Runs one of the commands.
pub async fn run(client: &Client, command: Share) -> Result<()> {
    match command {
        Share::Create { name, kind, user, lasts, clipboard, no_sound, listing } => {
            let seconds = u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX);
            let new = NewShare { kind, user, seconds: Some(seconds), clipboard, sound: !no_sound };
            let made: NewShareAnswer = client.post(&path(&name, "/shares"), &new).await?;
            match &made.url {
                Some(url) => {
                    let words = format!("whoever has this link can {kind} until {}:", output::time(made.about.expires));
                    output::secret(&made, url, &words, listing.output)
                }
                None => output::one(&made.about, listing.output),
            }
        }
        Share::Ls { name, listing } => {
            let path = name.map_or_else(|| "/v1/shares".to_owned(), |name| path(&name, "/shares"));
            output::list(&client.get::<Vec<model::Share>>(&path).await?, listing.output)
        }
        Share::Revoke { ids } => {
            for id in &ids {
                client.delete(&format!("/v1/shares/{}", segment(id))).await?;
            }
            Ok(())
        }
        Share::Who(Named { name, listing }) => {
            output::list(&client.get::<Vec<Watcher>>(&path(&name, "/viewers")).await?, listing.output)
        }
    }
}
