//! Logging in and out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Body;
use super::access::{COOKIE, LoggedIn, Peer};
use super::problem::Refusal;
use super::users::shown;
use crate::auth::{self, PASSWORD_LENGTH};
use crate::model::{Login, PasswordChange, User};
use crate::service::{Revoked, Service};

pub async fn show(State(service): State<Arc<Service>>, LoggedIn(session): LoggedIn) -> Result<Json<User>, Refusal> {
    shown(&service, session.user).map(Json)
}

pub async fn login(
    State(service): State<Arc<Service>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(login): Body<Login>,
) -> Result<Response, Refusal> {
    let address = match peer {
        Peer::Remote(address) => address,
        Peer::Local(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    if login.name.len() > 64 || login.password.len() > *PASSWORD_LENGTH.end() {
        return Err(Refusal::invalid("the name or the password is too long"));
    }
    if let Some(wait) = service.brake.wait(&login.name, address) {
        return Err(Refusal::too_many(wait.as_secs() + 1));
    }
    let user = service.store.user_named(&login.name)?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = service.verify_password(login.password, hash).await;
    let Some(user) = user.filter(|user| right && !user.disabled) else {
        service.brake.failed(&login.name, address);
        tracing::warn!(%address, "failed login");
        return Err(Refusal::forbidden("the name or the password is wrong"));
    };
    service.brake.succeeded(&login.name, address);
    let token = auth::token();
    service.store.add_session(user.id, &auth::token_hash(&token), auth::SESSION_SECONDS)?;
    tracing::info!(user = %user.name, %address, "logged in");
    let cookie = format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}", auth::SESSION_SECONDS);
    Ok(([(header::SET_COOKIE, cookie)], Json(shown(&service, user)?)).into_response())
}

pub async fn logout(State(service): State<Arc<Service>>, LoggedIn(session): LoggedIn) -> Result<Response, Refusal> {
    service.store.delete_session(&session.token_hash)?;
    service.revoke(Revoked::Session(session.token_hash));
    let cookie = format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

pub async fn change_password(
    State(service): State<Arc<Service>>,
    LoggedIn(session): LoggedIn,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(change): Body<PasswordChange>,
) -> Result<StatusCode, Refusal> {
    if !PASSWORD_LENGTH.contains(&change.new.len()) {
        let (least, most) = PASSWORD_LENGTH.into_inner();
        return Err(Refusal::invalid(format!("a password has {least} to {most} bytes")));
    }
    if change.new == change.current {
        return Err(Refusal::invalid("the new password is the one that you have"));
    }
    let user = session.user;
    let Peer::Remote(address) = peer else { return Err(Refusal::login_needed()) };
    if let Some(wait) = service.brake.wait(&user.name, address) {
        return Err(Refusal::too_many(wait.as_secs() + 1));
    }
    if change.current.len() > *PASSWORD_LENGTH.end()
        || !service.verify_password(change.current, Some(user.password_hash)).await
    {
        service.brake.failed(&user.name, address);
        return Err(Refusal::forbidden("the current password is wrong"));
    }
    let hash = service.hash_password(change.new).await;
    service.store.set_password(user.id, &hash, false, Some(&session.token_hash))?;
    service.revoke(Revoked::User(user.id, Some(session.token_hash)));
    tracing::info!(user = %user.name, "password changed");
    Ok(StatusCode::NO_CONTENT)
}
