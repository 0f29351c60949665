//! `yunju user …`, `yunju group …`

use anyhow::Result;
use yunju_manager::model::{self, NewGroup, NewUser, OneTimePassword, Role, UserChange};

use crate::args::{Format, Group, Listing, User};
use crate::client::{Client, segment};
use crate::output;

/// Runs one of the user commands.
pub async fn run(client: &Client, command: User) -> Result<()> {
    match command {
        User::Add { name, admin, role, listing } => {
            let new = NewUser { name, role: if admin { Role::Admin } else { role } };
            print(client.post("/v1/users", &new).await?, &listing)
        }
        User::Passwd { name, listing } => {
            let path = format!("/v1/users/{}/password", segment(&name));
            print(client.post(&path, &()).await?, &listing)
        }
        User::Ls(listing) => output::list(&client.get::<Vec<model::User>>("/v1/users").await?, listing.output),
        User::Set { name, role, disable, enable, listing } => {
            let change = UserChange { role, disabled: (disable || enable).then_some(disable) };
            let user: model::User = client.patch(&format!("/v1/users/{}", segment(&name)), &change).await?;
            output::one(&user, listing.output)
        }
        User::Rm { name } => client.delete(&format!("/v1/users/{}", segment(&name))).await,
    }
}

/// Runs one of the group commands.
pub async fn group(client: &Client, command: Group) -> Result<()> {
    let member = |group: &str, user: &str| format!("/v1/groups/{}/members/{}", segment(group), segment(user));
    match command {
        Group::Add { name, role } => {
            let _: model::Group = client.post("/v1/groups", &NewGroup { name, role }).await?;
        }
        Group::Ls(listing) => output::list(&client.get::<Vec<model::Group>>("/v1/groups").await?, listing.output)?,
        Group::Join { group, users } => {
            for user in &users {
                let _: model::Group = client.put(&member(&group, user)).await?;
            }
        }
        Group::Leave { group, users } => {
            for user in &users {
                client.delete(&member(&group, user)).await?;
            }
        }
        Group::Rm { name } => client.delete(&format!("/v1/groups/{}", segment(&name))).await?,
    }
    Ok(())
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
