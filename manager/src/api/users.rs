//! Users, for admins.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::Body;
use super::access::Admin;
use super::problem::Refusal;
use crate::model::{NewUser, OneTimePassword, User};
use crate::service::{Revoked, Service};
use crate::{auth, names, store};

/// A user without their secrets.
pub fn shown(user: store::User) -> User {
    User { name: user.name, role: user.role, must_change_password: user.must_change, created: user.created }
}

pub async fn list(State(service): State<Arc<Service>>, _: Admin) -> Result<Json<Vec<User>>, Refusal> {
    Ok(Json(service.store.users()?.into_iter().map(shown).collect()))
}

pub async fn add(
    State(service): State<Arc<Service>>,
    _: Admin,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<OneTimePassword>), Refusal> {
    names::check("user", &new.name)?;
    let password = auth::one_time_password();
    let hash = service.hash_password(password.clone()).await;
    let user = service.store.add_user(&new.name, new.role, &hash)?;
    tracing::info!(user = %user.name, role = %user.role, "user added");
    Ok((StatusCode::CREATED, Json(OneTimePassword { name: user.name, role: user.role, password })))
}

pub async fn remove(
    State(service): State<Arc<Service>>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let user = find(&service, &name)?;
    service.store.delete_user(&user)?;
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(user = %user.name, "user deleted");
    Ok(StatusCode::NO_CONTENT)
}

pub async fn reset_password(
    State(service): State<Arc<Service>>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<Json<OneTimePassword>, Refusal> {
    let user = find(&service, &name)?;
    let password = auth::one_time_password();
    let hash = service.hash_password(password.clone()).await;
    service.store.set_password(user.id, &hash, true, None)?;
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(user = %user.name, "password reset");
    Ok(Json(OneTimePassword { name: user.name, role: user.role, password }))
}

fn find(service: &Service, name: &str) -> Result<store::User, Refusal> {
    service.store.user_named(name)?.ok_or_else(|| Refusal::not_found("user", name))
}
