//! `yunju user …`

use anyhow::Result;
use yunju_manager::model::{self, NewUser, OneTimePassword};

use crate::args::{Format, Listing, User};
use crate::client::{Client, segment};
use crate::output;

/// Runs one of the user commands.
pub async fn run(client: &Client, command: User) -> Result<()> {
    match command {
        User::Add { name, admin, listing } => {
            let new = NewUser { name, role: User::role(admin) };
            print(client.post("/v1/users", &new).await?, &listing)
        }
        User::Passwd { name, listing } => {
            let path = format!("/v1/users/{}/password", segment(&name));
            print(client.post(&path, &()).await?, &listing)
        }
        User::Ls(listing) => output::list(&client.get::<Vec<model::User>>("/v1/users").await?, listing.output),
        User::Rm { name } => client.delete(&format!("/v1/users/{}", segment(&name))).await,
    }
}

fn print(password: OneTimePassword, listing: &Listing) -> Result<()> {
    match listing.output {
        Format::Json => output::json(&password),
        Format::Table => {
            eprintln!("{} logs in once with this password and then chooses another:", password.name);
            output::line(&password.password)
        }
    }
}
