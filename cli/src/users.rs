//! `yunju user …`, `group …`, `session …`, `token …`

use anyhow::Result;
use yunju_manager::model::{
    self, GroupChange, Invitation, Link, NewGroup, NewToken, NewTokenAnswer, NewUser, OneTimePassword, Quota, Role,
    UserChange,
};

use crate::args::{Group, Limits, Listing, Named, Session, Token, User, Whose};
use crate::client::{Client, segment};
use crate::output::{self, Account};

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
            let change = UserChange { role, disabled: (disable || enable).then_some(disable), quota: None };
            let user: model::User = client.patch(&format!("/v1/users/{}", segment(&name)), &change).await?;
            output::one(&user, listing.output)
        }
        User::Show(Named { name, listing }) => {
            let user: model::User = client.get(&format!("/v1/users/{}", segment(&name))).await?;
            output::one(&Account(user), listing.output)
        }
        User::Quota { name, limits, listing } => {
            let path = format!("/v1/users/{}", segment(&name));
            let now: model::User = client.get(&path).await?;
            let change = UserChange { quota: Some(limited(now.quota, &limits)), ..UserChange::default() };
            let user: model::User = client.patch(&path, &change).await?;
            output::one(&Account(user), listing.output)
        }
        User::Invite { name, role, listing } => {
            link(client.post("/v1/invitations", &Invitation { name, role }).await?, &listing)
        }
        User::Link { name, listing } => {
            link(client.post(&format!("/v1/users/{}/link", segment(&name)), &()).await?, &listing)
        }
        User::RmFactor { name } => client.delete(&format!("/v1/users/{}/factor", segment(&name))).await,
        User::Rm { name } => client.delete(&format!("/v1/users/{}", segment(&name))).await,
    }
}

/// A quota with what was said of it.
fn limited(now: Quota, limits: &Limits) -> Quota {
    let before = if limits.none { Quota::default() } else { now };
    Quota {
        desktops: limits.desktops.or(before.desktops),
        memory: limits.memory.map(|size| size.0).or(before.memory),
        cpus: limits.cpus.or(before.cpus),
        disk: limits.disk.map(|size| size.0).or(before.disk),
        snapshots: limits.snapshots.or(before.snapshots),
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
        Group::Quota { name, limits, listing } => {
            let all: Vec<model::Group> = client.get("/v1/groups").await?;
            let now = all.into_iter().find(|group| group.name == name).map(|group| group.quota).unwrap_or_default();
            let change = GroupChange { quota: Some(limited(now, &limits)) };
            let group: model::Group = client.patch(&format!("/v1/groups/{}", segment(&name)), &change).await?;
            output::one(&group, listing.output)?;
        }
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

fn of(path: &str, user: Option<&str>) -> String {
    user.map_or_else(|| path.to_owned(), |user| format!("{path}?user={}", segment(user)))
}

/// Runs one of the session commands.
pub async fn session(client: &Client, command: Session) -> Result<()> {
    match command {
        Session::Ls(Whose { user, listing }) => {
            let sessions: Vec<model::Session> = client.get(&of("/v1/sessions", user.as_deref())).await?;
            output::list(&sessions, listing.output)
        }
        Session::Rm { ids } => {
            for id in &ids {
                client.delete(&format!("/v1/sessions/{}", segment(id))).await?;
            }
            Ok(())
        }
    }
}

/// Runs one of the token commands.
pub async fn token(client: &Client, command: Token) -> Result<()> {
    match command {
        Token::Add { name, scopes, days, user, listing } => {
            let made: NewTokenAnswer = client.post("/v1/tokens", &NewToken { name, scopes, days, user }).await?;
            let (until, scopes) = (output::time(made.about.expires), output::words(&made.about.scopes));
            output::secret(&made, &made.token, &format!("until {until}, for {scopes}:"), listing.output)
        }
        Token::Ls(Whose { user, listing }) => {
            let tokens: Vec<model::Token> = client.get(&of("/v1/tokens", user.as_deref())).await?;
            output::list(&tokens, listing.output)
        }
        Token::Rm { ids } => {
            for id in &ids {
                client.delete(&format!("/v1/tokens/{}", segment(id))).await?;
            }
            Ok(())
        }
    }
}

fn link(link: Link, listing: &Listing) -> Result<()> {
    let words = format!("{} chooses a password here, once, until {}:", link.user, output::time(link.expires));
    output::secret(&link, &link.url, &words, listing.output)
}

fn print(password: OneTimePassword, listing: &Listing) -> Result<()> {
    let words = format!("{} logs in once with this password and then chooses another:", password.name);
    output::secret(&password, &password.password, &words, listing.output)
}
