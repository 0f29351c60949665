//! Users and groups, for admins.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;

use super::access::Found;
use super::audit::Note;
use super::problem::Refusal;
use super::{Body, Query, paging};
use crate::model::{Group, GroupChange, NewGroup, NewUser, OneTimePassword, User, UserChange};
use crate::service::{Revoked, Service};
use crate::{auth, names, store};

type Shared = State<Arc<Service>>;

/// A user without their secrets.
pub fn shown(service: &Service, user: store::User) -> Result<User, Refusal> {
    let groups = service.store.groups_of(user.id)?;
    Ok(User {
        roles: service.store.roles(&user)?,
        name: user.name,
        role: user.role,
        groups: groups.into_iter().map(|group| group.name).collect(),
        must_change_password: user.must_change,
        disabled: user.disabled,
        second_factor: user.second_factor,
        quota: user.quota,
        used: service.store.used(user.id)?,
        created: user.created,
    })
}

/// `?limit=100&search=ann&cursor=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
    /// Only those whose name has this in it.
    #[serde(default)]
    search: String,
    /// The name after which the page begins.
    #[serde(default)]
    cursor: String,
}

pub async fn list(State(service): Shared, uri: Uri, Query(query): Query<ListQuery>) -> Result<Response, Refusal> {
    let limit = paging::limit(query.limit)?;
    let users = service.store.users_after(&query.search, &query.cursor, limit)?;
    let next = users.last().filter(|_| users.len() == limit as usize).map(|user| user.name.clone());
    let shown: Vec<_> = users.into_iter().map(|user| shown(&service, user)).collect::<Result<_, _>>()?;
    Ok(paging::page(&uri, next.as_deref(), Json(shown)))
}

pub async fn show(State(service): Shared, Found(user): Found<store::User>) -> Result<Json<User>, Refusal> {
    shown(&service, user).map(Json)
}

pub async fn add(State(service): Shared, Body(new): Body<NewUser>) -> Result<Response, Refusal> {
    names::check("user", &new.name)?;
    let password = auth::one_time_password();
    let hash = service.hash_password(password.clone()).await;
    let user = service.store.add_user(&new.name, new.role, &hash)?;
    tracing::info!(user = %user.name, role = %user.role, "user added");
    let about = Note {
        resource: Some(format!("user {}", user.name)),
        detail: format!("role {}", user.role),
        ..Note::default()
    };
    let answer = OneTimePassword { name: user.name, role: user.role, password };
    Ok(about.on((StatusCode::CREATED, Json(answer))))
}

pub async fn change(
    State(service): Shared,
    Found(user): Found<store::User>,
    Body(change): Body<UserChange>,
) -> Result<Response, Refusal> {
    let note = Note { detail: serde_json::to_string(&change).unwrap_or_default(), ..Note::default() };
    if let Some(role) = change.role {
        service.store.set_role(user.id, role)?;
        tracing::info!(user = %user.name, %role, "role changed");
    }
    if let Some(quota) = change.quota {
        service.store.set_quota(user.id, quota)?;
        tracing::info!(user = %user.name, ?quota, "quota changed");
    }
    if let Some(disabled) = change.disabled {
        service.store.set_disabled(user.id, disabled)?;
        tracing::info!(user = %user.name, disabled, "user disabled or enabled");
    }
    if change.role.is_some() || change.disabled.is_some() {
        // what they look at now may no longer be theirs to see; browsers come back if it is
        service.revoke(Revoked::User(user.id, None));
    }
    let changed = service.store.user(user.id)?.ok_or_else(|| Refusal::not_found("user", &user.name))?;
    Ok(note.on(Json(shown(&service, changed)?)))
}

pub async fn remove(State(service): Shared, Found(user): Found<store::User>) -> Result<StatusCode, Refusal> {
    service.store.delete_user(&user)?;
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(user = %user.name, "user deleted");
    Ok(StatusCode::NO_CONTENT)
}

pub async fn reset_password(
    State(service): Shared,
    Found(user): Found<store::User>,
) -> Result<Json<OneTimePassword>, Refusal> {
    let password = auth::one_time_password();
    let hash = service.hash_password(password.clone()).await;
    service.store.set_password(user.id, &hash, true, None)?;
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(user = %user.name, "password reset");
    Ok(Json(OneTimePassword { name: user.name, role: user.role, password }))
}

fn shown_group(service: &Service, group: store::Group) -> Result<Group, Refusal> {
    let members = service.store.members(group.id)?;
    Ok(Group {
        name: group.name,
        role: group.role,
        members: members.into_iter().map(|(_, name)| name).collect(),
        quota: group.quota,
        used: service.store.used_by_group(group.id)?,
    })
}

pub async fn groups(State(service): Shared) -> Result<Json<Vec<Group>>, Refusal> {
    let groups = service.store.groups()?;
    groups.into_iter().map(|group| shown_group(&service, group)).collect::<Result<_, _>>().map(Json)
}

pub async fn add_group(State(service): Shared, Body(new): Body<NewGroup>) -> Result<Response, Refusal> {
    names::check("group", &new.name)?;
    let group = service.store.add_group(&new.name, new.role)?;
    tracing::info!(group = %group.name, "group added");
    let about = format!("group {}", group.name);
    Ok(Note::about(about, (StatusCode::CREATED, Json(shown_group(&service, group)?))))
}

pub async fn change_group(
    State(service): Shared,
    Found(group): Found<store::Group>,
    Body(change): Body<GroupChange>,
) -> Result<Response, Refusal> {
    let note = Note { detail: serde_json::to_string(&change).unwrap_or_default(), ..Note::default() };
    if let Some(quota) = change.quota {
        service.store.set_group_quota(group.id, quota)?;
        tracing::info!(group = %group.name, ?quota, "quota changed");
    }
    let changed = service.store.group_named(&group.name)?;
    let changed = changed.ok_or_else(|| Refusal::not_found("group", &group.name))?;
    Ok(note.on(Json(shown_group(&service, changed)?)))
}

pub async fn remove_group(State(service): Shared, Found(group): Found<store::Group>) -> Result<StatusCode, Refusal> {
    let members = service.store.members(group.id)?;
    service.store.delete_group(group.id)?;
    for (member, _) in members {
        service.revoke(Revoked::User(member, None));
    }
    tracing::info!(group = %group.name, "group deleted");
    Ok(StatusCode::NO_CONTENT)
}

pub async fn add_member(
    state: Shared,
    group: Found<store::Group>,
    Path((_, member)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    set_member(state, group, &member, true)
}

pub async fn remove_member(
    state: Shared,
    group: Found<store::Group>,
    Path((_, member)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    set_member(state, group, &member, false)
}

fn set_member(
    State(service): Shared,
    Found(group): Found<store::Group>,
    member: &str,
    is: bool,
) -> Result<Response, Refusal> {
    let user = service.store.user_named(member)?.ok_or_else(|| Refusal::not_found("user", member))?;
    service.store.set_member(group.id, user.id, is)?;
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(group = %group.name, user = %user.name, member = is, "membership changed");
    let note = Note { detail: format!("user {}", user.name), ..Note::default() };
    Ok(note.on(Json(shown_group(&service, group)?)))
}
