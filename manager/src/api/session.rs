//! Logging in and out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Body;
use super::access::{LoggedIn, Peer};
use super::audit::Note;
use super::problem::Refusal;
use super::users::shown;
use crate::auth::{self, PASSWORD_LENGTH, totp};
use crate::model::{Login, PasswordChange, User};
use crate::origins::Origins;
use crate::service::{Revoked, Service};
use crate::store::{self, NewSession};

pub async fn show(State(service): State<Arc<Service>>, LoggedIn(session): LoggedIn) -> Result<Json<User>, Refusal> {
    shown(&service, session.user).map(Json)
}

pub async fn login(
    State(service): State<Arc<Service>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Result<Response, Refusal> {
    // of names that are nobody's nothing is kept: people type passwords into the wrong field
    let tried = service.store.user_named(&login.name)?.map(|user| user.name);
    let note = Note {
        resource: Some(format!("user {}", tried.as_deref().unwrap_or("unknown"))),
        actor: tried,
        ..Note::default()
    };
    Ok(note.on(try_login(&service, &peer, &headers, login).await))
}

async fn try_login(service: &Service, peer: &Peer, headers: &HeaderMap, login: Login) -> Result<Response, Refusal> {
    let address = address(peer);
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
    if user.second_factor {
        let code = login.code.filter(|code| !code.is_empty()).ok_or_else(Refusal::second_factor_needed)?;
        if !shows_factor(service, &user, &code)? {
            service.brake.failed(&login.name, address);
            tracing::warn!(user = %user.name, %address, "failed login: wrong code");
            return Err(Refusal::forbidden("the code is wrong, or was used already"));
        }
    }
    service.brake.succeeded(&login.name, address);
    let token = auth::token();
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent: String = agent.chars().take(200).collect();
    service.store.add_session(&NewSession {
        user: user.id,
        token_hash: &auth::token_hash(&token),
        seconds: auth::SESSION_SECONDS,
        address: &address.to_string(),
        agent: &agent,
    })?;
    tracing::info!(user = %user.name, %address, "logged in");
    let cookie = Origins::session_cookie(&token, origin(headers), auth::SESSION_SECONDS);
    Ok(([(header::SET_COOKIE, cookie)], Json(shown(service, user)?)).into_response())
}

fn address(peer: &Peer) -> IpAddr {
    match peer {
        Peer::Remote(address) => *address,
        Peer::Local(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Whether `code` is one of the user's authenticator, or a recovery code; either is good once.
fn shows_factor(service: &Service, user: &store::User, code: &str) -> Result<bool, Refusal> {
    let Some((key, last)) = service.store.second_factor(user.id)? else { return Ok(false) };
    match totp::step_of(&key, code.trim(), Timestamp::now().as_second(), last) {
        Some(step) => Ok(service.store.use_step(user.id, step)?),
        None => Ok(service.store.use_recovery_code(user.id, &auth::token_hash(code.trim()))?),
    }
}

/// Whoever changes what an account consists of shows its password once more; guessing it here is no easier than at the login.
pub async fn proven(service: &Service, user: &store::User, peer: &Peer, password: String) -> Result<(), Refusal> {
    let address = address(peer);
    if let Some(wait) = service.brake.wait(&user.name, address) {
        return Err(Refusal::too_many(wait.as_secs() + 1));
    }
    if password.len() > *PASSWORD_LENGTH.end()
        || !service.verify_password(password, Some(user.password_hash.clone())).await
    {
        service.brake.failed(&user.name, address);
        return Err(Refusal::forbidden("the current password is wrong"));
    }
    Ok(())
}

/// Whether somebody may choose this password.
pub fn check_new_password(password: &str) -> Result<(), Refusal> {
    if PASSWORD_LENGTH.contains(&password.len()) {
        return Ok(());
    }
    let (least, most) = PASSWORD_LENGTH.into_inner();
    Err(Refusal::invalid(format!("a password has {least} to {most} bytes")))
}

/// From where the page came that sent this; it was checked to be ours.
pub fn origin(headers: &HeaderMap) -> &str {
    headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default()
}

pub async fn logout(
    State(service): State<Arc<Service>>,
    LoggedIn(session): LoggedIn,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    service.store.delete_session(&session.token_hash)?;
    service.revoke(Revoked::Credential(session.token_hash));
    let cookie = Origins::session_cookie("", origin(&headers), 0);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

pub async fn change_password(
    State(service): State<Arc<Service>>,
    LoggedIn(session): LoggedIn,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(change): Body<PasswordChange>,
) -> Result<StatusCode, Refusal> {
    check_new_password(&change.new)?;
    if change.new == change.current {
        return Err(Refusal::invalid("the new password is the one that you have"));
    }
    let user = session.user;
    proven(&service, &user, &peer, change.current).await?;
    let hash = service.hash_password(change.new).await;
    service.store.set_password(user.id, &hash, false, Some(&session.token_hash))?;
    service.revoke(Revoked::User(user.id, Some(session.token_hash)));
    tracing::info!(user = %user.name, "password changed");
    Ok(StatusCode::NO_CONTENT)
}
