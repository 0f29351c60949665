//! Users, groups, and how they show who they are.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a user may do; `auth/authorize.rs` says what that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Their own desktops.
    User,
    /// Their own desktops, and to publish.
    Developer,
    /// See everything but screens, and change nothing.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::User, Self::Developer, Self::Auditor];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Developer => "developer",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| format!("`{text}` is no role: write admin, user, developer or auditor"))
    }
}

/// What an API token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See what its owner sees in lists.
    Read,
    /// Look at screens, pictures and logs, use consoles.
    Screen,
    /// Make, change and delete desktops.
    Desktops,
    /// Manage users and the service, as far as its owner may.
    Admin,
    /// Read what the service counts.
    Metrics,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Screen, Self::Desktops, Self::Admin, Self::Metrics];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Screen => "screen",
            Self::Desktops => "desktops",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scope = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        scope.ok_or_else(|| format!("`{text}` is no scope: write read, screen, desktops, admin or metrics"))
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// What they log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The same, and what their groups add.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// The groups that they are in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// They have yet to choose a password of their own.
    pub must_change_password: bool,
    /// They cannot log in.
    #[serde(default)]
    pub disabled: bool,
    /// They show a code of an authenticator at each login.
    #[serde(default)]
    pub second_factor: bool,
    /// How much their desktops may have together.
    #[serde(default)]
    pub quota: Quota,
    /// How much they have.
    #[serde(default)]
    pub used: Used,
    /// When they were added.
    pub created: Timestamp,
}

/// How much the desktops of a user may have together, whether they run or not; what is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktops: Option<u32>,
    /// Guest memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Virtual processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Bytes that disks and snapshots take on the host, also of deleted ones: beyond that there are no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Snapshots that somebody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u32>,
}

/// How much the desktops of a user have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Used {
    /// How many there are.
    pub desktops: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Bytes that disks and snapshots take, as last measured.
    #[serde(default)]
    pub disk: u64,
    /// Snapshots that somebody asked for.
    #[serde(default)]
    pub snapshots: u32,
}

/// `PATCH /v1/groups/{group}`: what is absent stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// How much its members' desktops may have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// `PATCH /v1/users/{user}`: what is absent stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What they may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// They cannot log in, and what they are logged in with ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How much their desktops may have from now on, as a whole; more that they have already stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// Users who have a role together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What its members may do in addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Who is in it.
    #[serde(default)]
    pub members: Vec<String>,
    /// How much their desktops may have together.
    #[serde(default)]
    pub quota: Quota,
    /// How much they have.
    #[serde(default)]
    pub used: Used,
}

/// `POST /v1/groups`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Its name.
    pub name: String,
    /// What its members may do in addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// `POST /v1/users`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What they log in with.
    pub name: String,
    /// What they may do.
    #[serde(default = "plain_user")]
    pub role: Role,
}

fn plain_user() -> Role {
    Role::User
}

/// A password that works until its user has logged in and chosen another.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OneTimePassword {
    /// Whose.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Shown once, stored nowhere.
    pub password: String,
}

/// `POST /v1/session`
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    pub name: String,
    /// Their password.
    pub password: String,
    /// What their authenticator shows, or a recovery code; asked for with the code `second_factor_needed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `POST /v1/session/password`
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The password until now.
    pub current: String,
    /// The one from now on, at least 8 characters.
    pub new: String,
}

/// Somewhere that a user is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// What it is called.
    pub id: String,
    /// Who.
    pub user: String,
    /// When they logged in.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was last used, to within a minute.
    pub last_used: Timestamp,
    /// From where they logged in.
    pub address: String,
    /// What their browser called itself then.
    pub agent: String,
    /// It is the one that asks.
    pub current: bool,
}

/// `POST /v1/tokens`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What to call it.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<Scope>,
    /// How many days it lasts, 1 to 366.
    #[serde(default = "some_days")]
    pub days: u16,
    /// Whose it is; the caller's own if absent. Only a local caller names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

fn some_days() -> u16 {
    30
}

/// An API token, of which only this is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Never changes.
    pub id: Uuid,
    /// Whose it is.
    pub user: String,
    /// What they call it.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was last used, to within a minute.
    pub last_used: Option<Timestamp>,
}

/// A token that was just made.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewTokenAnswer {
    /// Goes behind `Authorization: Bearer`. Shown once, stored nowhere.
    pub token: String,
    /// What is known of it from now on.
    pub about: Token,
}

/// `POST /v1/invitations`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// What they will log in with.
    pub name: String,
    /// What they may do.
    #[serde(default = "plain_user")]
    pub role: Role,
}

/// With this somebody chooses a password, once.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Whose password.
    pub user: String,
    /// For `POST /v1/links`. Shown once, stored nowhere.
    pub token: String,
    /// The same for people.
    pub url: String,
    /// When it ends by itself.
    pub expires: Timestamp,
}

/// `POST /v1/links`
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkUse {
    /// Of the link.
    pub token: String,
    /// The password from now on, at least 8 characters.
    pub password: String,
}

/// `POST /v1/session/factor` and `…/remove`
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorProof {
    /// The own password.
    pub password: String,
}

/// What an authenticator needs to know.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct FactorKey {
    /// For typing.
    pub key: String,
    /// For a QR code.
    pub uri: String,
    /// That QR code, as an SVG document.
    pub qr: String,
}

/// `POST /v1/session/factor/confirm`
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorCode {
    /// What the authenticator shows.
    pub code: String,
}

/// Each logs in once instead of a code. Shown once, stored nowhere.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RecoveryCodes {
    /// To be written down.
    pub codes: Vec<String>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// In the order that they happened.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// The user's name; `local` for a process of the host, `service` for the service itself, empty if nobody knows.
    pub actor: String,
    /// `local`, `session`, `token`, `service` or `nobody`.
    pub via: String,
    /// From where.
    pub address: String,
    /// What was asked for: the operation's id in the description of the API.
    pub action: String,
    /// Of what: its kind and its name.
    pub resource: String,
    /// The HTTP status of the answer: from 400 on it was not done.
    pub status: u16,
    /// Which request.
    pub request: String,
    /// More about it.
    pub detail: String,
}
