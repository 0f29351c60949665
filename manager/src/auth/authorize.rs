//! May this actor do this to that? The one place that knows: what is not allowed here is denied.
//!
//! | role | own desktops | sees those of others | uses and changes those of others, and the service |
//! |---|---|---|---|
//! | `user` | yes | | |
//! | `developer` | yes | | |
//! | `auditor` | | yes, and the audit log, but no screen, console or log of a guest | |
//! | `admin` | yes | yes | yes |
//!
//! Groups give their members roles in addition to their own. An API token may do what its owner may, less what its
//! scopes leave out, and nothing about the account itself.

use uuid::Uuid;

use crate::model::{Role, Scope};

/// Something that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pages, health, the description of the API.
    Look,
    /// Log in, or choose a password with a link.
    Enter,
    /// See oneself, change the own password, log out: also for who has yet to choose a password.
    Own,
    /// See what the own account consists of: sessions, tokens.
    SeeOwn,
    /// Change what one shows who one is with: sessions, tokens, second factor.
    ChangeOwn,
    /// See and end the token that asks.
    OwnToken,
    /// See images and the own place in the service.
    See,
    /// List what one may see of desktops, snapshots, operations, events.
    List,
    /// See that a desktop is there, how it is, and its snapshots.
    SeeDesktop,
    /// Look at a desktop's screen, pictures and logs, use its console.
    Watch,
    /// Get a way to a desktop's own host name.
    Open,
    /// Let others look at a desktop, and see who does.
    Share,
    /// Make a desktop.
    Make,
    /// Choose other sizes than the image's without a quota that bounds them.
    ChooseSize,
    /// Change what a desktop is or does.
    Change,
    /// List users and groups.
    SeeUsers,
    /// Add, change and remove users and groups.
    ChangeUsers,
    /// Read the audit log.
    Audit,
    /// Read what the service counts.
    Count,
    /// Change what the service itself does.
    Rule,
}

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// The service as a whole, or what the actor's own account has.
    Service,
    /// Something that belongs to this user: a desktop, a session, a token, an operation.
    Of(Uuid),
    /// A desktop that somebody shares with the actor.
    Shared,
    /// There is no such thing.
    Missing,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Nobody knows.
    Nobody,
    /// A process on this host that runs as the service's user or as root.
    Local,
    /// Who came in by a share, on that desktop's own host name.
    Guest,
    /// A user.
    User {
        /// Who.
        id: Uuid,
        /// Their own role and those of their groups.
        roles: Vec<Role>,
        /// They have yet to choose a password.
        must_change: bool,
        /// What their token is for; `None` if they logged in.
        scopes: Option<Vec<Scope>>,
    },
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Who asks?
    Unknown,
    /// They must choose a password first.
    PasswordChange,
    /// They may know that it exists, but not do this.
    Forbidden(&'static str),
    /// They may not know whether it exists.
    Hidden,
}

const ADMIN_ONLY: Denial = Denial::Forbidden("only an admin may do this");
const NOT_YOURS: Denial = Denial::Forbidden("you may see this, but not use or change it");
const NO_SCOPE: Denial = Denial::Forbidden("this token is not for that: make one with another scope");
const NOT_SHARED: Denial = Denial::Forbidden("this is not shared with you");
const LOGIN_ONLY: Denial = Denial::Forbidden("a token may not do this: log in");

/// Decides.
pub fn authorize(actor: &Actor, action: Action, resource: Resource) -> Result<(), Denial> {
    if matches!(action, Action::Look | Action::Enter) {
        return Ok(());
    }
    let (id, roles, must_change, scopes) = match actor {
        Actor::Nobody => return Err(Denial::Unknown),
        Actor::Local if resource == Resource::Missing => return Err(Denial::Hidden),
        Actor::Local => return Ok(()),
        Actor::Guest => return as_guest(action, resource),
        Actor::User { id, roles, must_change, scopes } => (*id, roles.as_slice(), *must_change, scopes.as_deref()),
    };
    if must_change && action != Action::Own {
        return Err(Denial::PasswordChange);
    }
    by_role(id, roles, action, resource)?;
    match scopes {
        Some(scopes) => in_scope(scopes, action),
        None => Ok(()),
    }
}

/// What of a share's rights reaches the desktop, the edge decides.
fn as_guest(action: Action, resource: Resource) -> Result<(), Denial> {
    match (action, resource) {
        (Action::SeeDesktop | Action::Watch, Resource::Service | Resource::Shared) => Ok(()),
        (_, Resource::Missing | Resource::Of(_)) => Err(Denial::Hidden),
        _ => Err(NOT_SHARED),
    }
}

fn by_role(id: Uuid, roles: &[Role], action: Action, resource: Resource) -> Result<(), Denial> {
    let is = |role| roles.contains(&role);
    let (admin, sees_all) = (is(Role::Admin), is(Role::Admin) || is(Role::Auditor));
    let has_own = is(Role::User) || is(Role::Developer) || admin;
    let allowed = |yes: bool, denial| if yes { Ok(()) } else { Err(denial) };
    match action {
        Action::SeeUsers => allowed(sees_all, ADMIN_ONLY)?,
        Action::Audit | Action::Count => {
            allowed(sees_all, Denial::Forbidden("only an admin or an auditor may do this"))?
        }
        Action::ChangeUsers | Action::Rule | Action::ChooseSize => allowed(admin, ADMIN_ONLY)?,
        Action::Make => allowed(has_own, Denial::Forbidden("your role has no desktops of its own"))?,
        _ => {}
    }
    let own = resource == Resource::Of(id);
    match resource {
        Resource::Missing => Err(Denial::Hidden),
        Resource::Shared => allowed(action == Action::Open, NOT_SHARED),
        // only what is one's own: not even an admin acts for somebody else here
        Resource::Of(_) if matches!(action, Action::Own) => allowed(own, Denial::Hidden),
        Resource::Of(_) if matches!(action, Action::Make) => {
            allowed(own || admin, Denial::Forbidden("only an admin makes desktops for others"))
        }
        Resource::Of(_) if matches!(action, Action::SeeDesktop | Action::SeeOwn | Action::SeeUsers) => {
            allowed(own || sees_all, Denial::Hidden)
        }
        Resource::Of(_) if matches!(action, Action::ChangeOwn) => allowed(own || admin, Denial::Hidden),
        Resource::Of(_) if admin || (own && has_own) => Ok(()),
        Resource::Of(_) => Err(if own || sees_all { NOT_YOURS } else { Denial::Hidden }),
        Resource::Service => Ok(()),
    }
}

fn in_scope(scopes: &[Scope], action: Action) -> Result<(), Denial> {
    let needed: &[Scope] = match action {
        Action::Look | Action::Enter | Action::OwnToken => return Ok(()),
        // a stolen token must not make itself last
        Action::Own | Action::ChangeOwn => return Err(LOGIN_ONLY),
        Action::SeeOwn | Action::See | Action::List | Action::SeeDesktop => &[Scope::Read],
        Action::Watch | Action::Open => &[Scope::Screen],
        Action::Make | Action::Change | Action::ChooseSize => &[Scope::Desktops],
        // whoever lets others look at a screen, or change what is in it, could do both
        Action::Share => &[Scope::Screen, Scope::Desktops],
        Action::SeeUsers | Action::ChangeUsers | Action::Audit | Action::Rule => &[Scope::Admin],
        Action::Count => &[Scope::Metrics],
    };
    if needed.iter().all(|scope| scopes.contains(scope)) { Ok(()) } else { Err(NO_SCOPE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn user(roles: &[Role]) -> Actor {
        Actor::User { id: ME, roles: roles.to_vec(), must_change: false, scopes: None }
    }

    fn token(role: Role, scopes: &[Scope]) -> Actor {
        Actor::User { id: ME, roles: vec![role], must_change: false, scopes: Some(scopes.to_vec()) }
    }

    #[test]
    fn desktops_of_others_are_hidden_from_users_seen_by_auditors_and_used_by_admins() {
        let answers = |role| {
            [Action::SeeDesktop, Action::Watch, Action::Change]
                .map(|action| authorize(&user(&[role]), action, Resource::Of(OTHER)))
        };
        assert_eq!(answers(Role::User), [Err(Denial::Hidden); 3]);
        assert_eq!(answers(Role::Developer), [Err(Denial::Hidden); 3]);
        assert_eq!(answers(Role::Auditor), [Ok(()), Err(NOT_YOURS), Err(NOT_YOURS)]);
        assert_eq!(answers(Role::Admin), [Ok(()); 3]);
    }

    #[test]
    fn an_auditor_has_no_desktops_unless_another_role_gives_them() {
        assert!(authorize(&user(&[Role::Auditor]), Action::Make, Resource::Of(ME)).is_err());
        let both = user(&[Role::Auditor, Role::User]);
        assert_eq!(authorize(&both, Action::Make, Resource::Of(ME)), Ok(()));
        assert_eq!(authorize(&both, Action::Change, Resource::Of(ME)), Ok(()));
        assert_eq!(authorize(&both, Action::Change, Resource::Of(OTHER)), Err(NOT_YOURS));
    }

    #[test]
    fn who_has_no_role_may_only_see_to_their_own_account() {
        let nobody = user(&[]);
        assert_eq!(authorize(&nobody, Action::Own, Resource::Service), Ok(()));
        for action in [Action::Make, Action::SeeUsers, Action::ChangeUsers, Action::Audit, Action::Rule] {
            assert!(authorize(&nobody, action, Resource::Service).is_err(), "{action:?}");
        }
        assert!(authorize(&nobody, Action::Change, Resource::Of(ME)).is_err());
    }

    #[test]
    fn what_is_missing_looks_like_what_is_hidden() {
        assert_eq!(authorize(&user(&[Role::User]), Action::SeeDesktop, Resource::Missing), Err(Denial::Hidden));
        assert_eq!(authorize(&user(&[Role::Admin]), Action::Change, Resource::Missing), Err(Denial::Hidden));
        assert_eq!(authorize(&Actor::Local, Action::Change, Resource::Missing), Err(Denial::Hidden));
        // but who may not manage users learns nothing of which there are
        assert_eq!(authorize(&user(&[Role::User]), Action::ChangeUsers, Resource::Missing), Err(ADMIN_ONLY));
    }

    #[test]
    fn a_token_does_what_its_owner_may_and_its_scopes_name_and_never_changes_the_account() {
        let reader = token(Role::Admin, &[Scope::Read]);
        assert_eq!(authorize(&reader, Action::SeeDesktop, Resource::Of(OTHER)), Ok(()));
        assert_eq!(authorize(&reader, Action::Change, Resource::Of(ME)), Err(NO_SCOPE));
        assert_eq!(authorize(&reader, Action::Rule, Resource::Service), Err(NO_SCOPE));
        let all = [Scope::Read, Scope::Screen, Scope::Desktops, Scope::Admin];
        assert_eq!(authorize(&token(Role::User, &all), Action::Rule, Resource::Service), Err(ADMIN_ONLY));
        assert_eq!(authorize(&token(Role::User, &all), Action::Change, Resource::Of(OTHER)), Err(Denial::Hidden));
        assert_eq!(authorize(&token(Role::Admin, &all), Action::ChangeOwn, Resource::Of(ME)), Err(LOGIN_ONLY));
        assert_eq!(authorize(&token(Role::Admin, &all), Action::Rule, Resource::Service), Ok(()));
    }

    #[test]
    fn a_guest_looks_at_what_is_shared_and_does_nothing_else() {
        for action in [Action::SeeDesktop, Action::Watch] {
            assert_eq!(authorize(&Actor::Guest, action, Resource::Shared), Ok(()));
            assert_eq!(authorize(&Actor::Guest, action, Resource::Of(OTHER)), Err(Denial::Hidden));
            assert_eq!(authorize(&Actor::Guest, action, Resource::Missing), Err(Denial::Hidden));
        }
        for action in
            [Action::Open, Action::Share, Action::Change, Action::List, Action::Own, Action::See, Action::Make]
        {
            assert_eq!(authorize(&Actor::Guest, action, Resource::Shared), Err(NOT_SHARED), "{action:?}");
            assert_eq!(authorize(&Actor::Guest, action, Resource::Service), Err(NOT_SHARED), "{action:?}");
        }
    }

    #[test]
    fn who_something_is_shared_with_opens_it_and_an_auditor_does_not() {
        assert_eq!(authorize(&user(&[Role::User]), Action::Open, Resource::Shared), Ok(()));
        assert_eq!(authorize(&user(&[Role::User]), Action::Change, Resource::Shared), Err(NOT_SHARED));
        assert_eq!(authorize(&user(&[Role::Auditor]), Action::Open, Resource::Of(OTHER)), Err(NOT_YOURS));
        let all = token(Role::User, &[Scope::Read, Scope::Screen]);
        assert_eq!(authorize(&all, Action::Share, Resource::Of(ME)), Err(NO_SCOPE));
    }

    #[test]
    fn who_has_yet_to_choose_a_password_may_do_nothing_else() {
        let new = Actor::User { id: ME, roles: vec![Role::Admin], must_change: true, scopes: None };
        assert_eq!(authorize(&new, Action::Own, Resource::Service), Ok(()));
        assert_eq!(authorize(&new, Action::See, Resource::Service), Err(Denial::PasswordChange));
        assert_eq!(authorize(&Actor::Nobody, Action::Own, Resource::Service), Err(Denial::Unknown));
        assert_eq!(authorize(&Actor::Nobody, Action::Look, Resource::Service), Ok(()));
    }
}
