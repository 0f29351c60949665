//! Desktops that are opened, and shared.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What somebody may do with a desktop that is shared with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShareKind {
    /// Look.
    View,
    /// Work in it, and wake it.
    Control,
    /// Make one of their own that goes on from it.
    Copy,
}

impl ShareKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::View, Self::Control, Self::Copy];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Control => "control",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for ShareKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ShareKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| format!("`{text}` is no way to share: write view, control or copy"))
    }
}

/// A desktop is to be shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShare {
    /// What may be done.
    pub kind: ShareKind,
    /// With this user; absent: with who has the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For so many seconds, at most a year; absent: a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Copying and pasting too.
    #[serde(default)]
    pub clipboard: bool,
    /// Sound too.
    #[serde(default = "yes")]
    pub sound: bool,
}

fn yes() -> bool {
    true
}

/// A share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// Never changes.
    pub id: Uuid,
    /// The desktop that is shared.
    pub desktop: String,
    /// Whose it is.
    pub owner: String,
    /// With whom; absent: with who has the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What may be done.
    pub kind: ShareKind,
    /// Copying and pasting too.
    pub clipboard: bool,
    /// Sound too.
    pub sound: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When somebody last came in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// A share that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewShareAnswer {
    /// The link, if it is one; shown only now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What is known of it.
    #[serde(flatten)]
    pub about: Share,
}

/// What is known to who has a link.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSecret {
    /// What stands behind the `#`.
    pub secret: String,
}

/// A desktop of one's own is wanted that goes on from one that is shared as a copy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareCopy {
    /// What stands behind the `#` of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Or the share, if it is with the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Uuid>,
    /// What to call the new desktop.
    pub name: String,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shared {
    /// The desktop.
    pub desktop: String,
    /// Whose it is.
    pub owner: String,
    /// What may be done.
    pub kind: ShareKind,
    /// The way in, unless it is for a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
}

/// The way to a desktop, on a host name of its own: its page at `url` posts the ticket to `/v1/opening` there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Door {
    /// The page.
    pub url: String,
    /// Good once, for 30 seconds, there only. Put it behind the `#`.
    pub ticket: String,
    /// What the desktop is called.
    pub desktop: String,
}

/// A ticket is shown.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// It.
    pub ticket: String,
}

/// What the page of a desktop that is open may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(clippy::struct_excessive_bools)] // each is a right of its own
pub struct Opening {
    /// The desktop.
    pub desktop: String,
    /// What who looks is called.
    pub name: String,
    /// Keys and pointer.
    pub input: bool,
    /// Copying and pasting.
    pub clipboard: bool,
    /// Sound.
    pub sound: bool,
    /// Start, stop, keep, share it: all that its owner may.
    pub own: bool,
}

/// How somebody comes to look at a desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// It is theirs.
    Owner,
    /// They are an admin.
    Admin,
    /// It is shared with them.
    Share,
    /// From the host that the service runs on.
    Local,
}

/// Somebody who looks at a desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Watcher {
    /// What they are called.
    pub name: String,
    /// How they come to.
    pub by: By,
    /// By which share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Uuid>,
    /// They may work in it, not only look.
    pub input: bool,
    /// Since when.
    pub since: Timestamp,
}
