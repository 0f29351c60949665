//! What an account consists of: sessions, API tokens, links to choose a password, the second factor.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::access::{Caller, Found, LoggedIn, Peer, Via};
use super::audit::Note;
use super::problem::Refusal;
use super::session::{check_new_password, proven};
use super::{Body, Query};
use crate::auth::authorize::{Action, Resource};
use crate::auth::{self, totp};
use crate::model::{
    FactorCode, FactorKey, FactorProof, Invitation, Link, LinkUse, NewToken, NewTokenAnswer, NewUser, RecoveryCodes,
    Session, Token,
};
use crate::service::{Revoked, Service};
use crate::{names, store};

type Shared = State<Arc<Service>>;

/// An invitation is good for so long.
const INVITATION_SECONDS: i64 = 7 * 24 * 3600;

/// A link to choose another password is good for so long.
const RESET_SECONDS: i64 = 24 * 3600;

/// A token lasts at most so many days.
const LONGEST_TOKEN: u16 = 366;

/// A user has at most so many tokens.
const TOKENS: usize = 50;

/// `?user=alice`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoseQuery {
    /// Somebody else's, for who may see them.
    user: Option<String>,
}

/// Whose things a caller asks for; `None`: everybody's.
fn whose(service: &Service, caller: &Caller, query: &WhoseQuery) -> Result<Option<store::User>, Refusal> {
    let Some(name) = &query.user else { return Ok(caller.user().cloned()) };
    let user = service.store.user_named(name)?;
    let resource = user.as_ref().map_or(Resource::Missing, |user| Resource::Of(user.id));
    caller.may(Action::SeeOwn, resource).map_err(|denial| Refusal::denied(denial, "user", name))?;
    Ok(user)
}

pub async fn sessions(
    State(service): Shared,
    caller: Caller,
    Query(query): Query<WhoseQuery>,
) -> Result<Json<Vec<Session>>, Refusal> {
    let user = whose(&service, &caller, &query)?;
    let own = match caller.via() {
        Via::Session(session) => Some(session.id.clone()),
        Via::Local | Via::Token(_) | Via::Desk(_) => None,
    };
    let sessions = service.store.sessions(user.map(|user| user.id))?;
    let shown = sessions.into_iter().map(|session| Session {
        current: own.as_ref() == Some(&session.id),
        id: session.id,
        user: session.user.name,
        created: session.created,
        expires: session.expires,
        last_used: session.last_used,
        address: session.address,
        agent: session.agent,
    });
    Ok(Json(shown.collect()))
}

pub async fn end_session(State(service): Shared, Found(session): Found<store::Session>) -> Result<StatusCode, Refusal> {
    service.store.delete_session(&session.token_hash)?;
    service.revoke(Revoked::Credential(session.token_hash));
    tracing::info!(user = %session.user.name, "session ended");
    Ok(StatusCode::NO_CONTENT)
}

fn shown(token: store::Token) -> Token {
    Token {
        id: token.id,
        user: token.user.name,
        name: token.name,
        scopes: token.scopes,
        created: token.created,
        expires: token.expires,
        last_used: token.last_used,
    }
}

pub async fn tokens(
    State(service): Shared,
    caller: Caller,
    Query(query): Query<WhoseQuery>,
) -> Result<Json<Vec<Token>>, Refusal> {
    let user = whose(&service, &caller, &query)?;
    let tokens = service.store.tokens(user.map(|user| user.id))?;
    Ok(Json(tokens.into_iter().map(shown).collect()))
}

pub async fn add_token(State(service): Shared, caller: Caller, Body(new): Body<NewToken>) -> Result<Response, Refusal> {
    names::check("token", &new.name)?;
    if new.scopes.is_empty() {
        return Err(Refusal::invalid("say what the token is for: read, screen, desktops or admin"));
    }
    if !(1..=LONGEST_TOKEN).contains(&new.days) {
        return Err(Refusal::invalid(format!("a token lasts 1 to {LONGEST_TOKEN} days")));
    }
    let user = match (caller.user(), &new.user) {
        (Some(user), None) => user.clone(),
        (Some(user), Some(name)) if user.name == *name => user.clone(),
        // not even an admin shows who they are as somebody else
        (Some(_), Some(_)) => return Err(Refusal::forbidden("a token is made by who owns it")),
        (None, Some(name)) => service.store.user_named(name)?.ok_or_else(|| Refusal::not_found("user", name))?,
        (None, None) => return Err(Refusal::invalid("say whose token it shall be")),
    };
    if service.store.tokens(Some(user.id))?.len() >= TOKENS {
        return Err(Refusal::limit(format!(
            "`{}` has {TOKENS} tokens, which is the most: remove one first",
            user.name
        )));
    }
    let secret = auth::api_token();
    let seconds = i64::from(new.days) * 24 * 3600;
    let token = service.store.add_token(user.id, &new.name, &auth::token_hash(&secret), &new.scopes, seconds)?;
    tracing::info!(user = %user.name, token = %new.name, "token made");
    let note = Note {
        resource: Some(format!("token {}", token.name)),
        detail: format!("of user {}", user.name),
        ..Note::default()
    };
    Ok(note.on((StatusCode::CREATED, Json(NewTokenAnswer { token: secret, about: shown(token) }))))
}

pub async fn end_token(State(service): Shared, Found(token): Found<store::Token>) -> Result<StatusCode, Refusal> {
    service.store.delete_token(token.id)?;
    service.revoke(Revoked::Credential(token.token_hash));
    tracing::info!(user = %token.user.name, token = %token.name, "token ended");
    Ok(StatusCode::NO_CONTENT)
}

fn that_asks(caller: Caller) -> Result<store::Token, Refusal> {
    match caller.via() {
        Via::Token(token) => Ok(token.clone()),
        Via::Local | Via::Session(_) | Via::Desk(_) => Err(Refusal::invalid("this is for who shows an API token")),
    }
}

pub async fn own_token(caller: Caller) -> Result<Json<Token>, Refusal> {
    that_asks(caller).map(|token| Json(shown(token)))
}

pub async fn end_own_token(State(service): Shared, caller: Caller) -> Result<StatusCode, Refusal> {
    end_token(State(service), Found(that_asks(caller)?)).await
}

fn give_link(service: &Service, user: &store::User, seconds: i64) -> Result<Link, Refusal> {
    let token = auth::token();
    service.store.add_link(user.id, &auth::token_hash(&token), seconds)?;
    let expires = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap_or(Timestamp::MAX);
    // behind `#`, so that no server and no log sees it
    let url = format!("{}/login#link={token}", service.url);
    Ok(Link { user: user.name.clone(), token, url, expires })
}

pub async fn invite(
    State(service): Shared,
    Body(Invitation { name, role }): Body<Invitation>,
) -> Result<Response, Refusal> {
    let new = NewUser { name, role };
    names::check("user", &new.name)?;
    let user = service.store.add_user(&new.name, new.role, auth::NO_PASSWORD)?;
    tracing::info!(user = %user.name, role = %user.role, "user invited");
    let note = Note {
        resource: Some(format!("user {}", user.name)),
        detail: format!("role {}", user.role),
        ..Note::default()
    };
    Ok(note.on((StatusCode::CREATED, Json(give_link(&service, &user, INVITATION_SECONDS)?))))
}

pub async fn link(
    State(service): Shared,
    Found(user): Found<store::User>,
) -> Result<(StatusCode, Json<Link>), Refusal> {
    let invited = user.password_hash == auth::NO_PASSWORD;
    let seconds = if invited { INVITATION_SECONDS } else { RESET_SECONDS };
    tracing::info!(user = %user.name, "link to choose a password made");
    Ok((StatusCode::CREATED, Json(give_link(&service, &user, seconds)?)))
}

pub async fn use_link(State(service): Shared, Body(used): Body<LinkUse>) -> Result<Response, Refusal> {
    let gone = || Refusal::not_found("link", "of this address: it was used, it ran out, or there is another");
    check_new_password(&used.password)?;
    let token_hash = auth::token_hash(&used.token);
    // hashing is work: not for who has no link
    let user = service.store.link(&token_hash)?.ok_or_else(gone)?;
    let hash = service.hash_password(used.password).await;
    if !service.store.use_link(&token_hash, user.id, &hash)? {
        return Err(gone());
    }
    service.revoke(Revoked::User(user.id, None));
    tracing::info!(user = %user.name, "password chosen by a link");
    Ok(Note { actor: Some(user.name), ..Note::default() }.on(StatusCode::NO_CONTENT))
}

pub async fn begin_factor(
    State(service): Shared,
    LoggedIn(session): LoggedIn,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(proof): Body<FactorProof>,
) -> Result<Json<FactorKey>, Refusal> {
    let user = session.user;
    proven(&service, &user, &peer, proof.password).await?;
    let key = totp::key();
    if !service.store.set_unconfirmed_factor(user.id, &key)? {
        return Err(Refusal::conflict("there is a second factor already: remove it first"));
    }
    let uri = totp::uri(&user.name, &key);
    let qr = totp::qr(&uri).ok_or_else(|| Refusal::internal("the authenticator's key does not fit into a QR code"))?;
    Ok(Json(FactorKey { key: totp::base32(&key), uri, qr }))
}

pub async fn confirm_factor(
    State(service): Shared,
    LoggedIn(session): LoggedIn,
    Body(shown): Body<FactorCode>,
) -> Result<Json<RecoveryCodes>, Refusal> {
    let user = session.user;
    let key = service.store.unconfirmed_factor(user.id)?;
    let key = key.ok_or_else(|| Refusal::conflict("there is no second factor to confirm: begin with its key"))?;
    let now = Timestamp::now().as_second();
    let step = totp::step_of(&key, &shown.code, now, 0)
        .ok_or_else(|| Refusal::forbidden("the code is wrong: is the clock of the authenticator right?"))?;
    let codes: Vec<String> = (0..totp::RECOVERY_CODES).map(|_| auth::one_time_password()).collect();
    let hashes: Vec<_> = codes.iter().map(|code| auth::token_hash(code)).collect();
    service.store.confirm_factor(user.id, step, &hashes)?;
    tracing::info!(user = %user.name, "second factor added");
    Ok(Json(RecoveryCodes { codes }))
}

pub async fn remove_own_factor(
    State(service): Shared,
    LoggedIn(session): LoggedIn,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(proof): Body<FactorProof>,
) -> Result<StatusCode, Refusal> {
    proven(&service, &session.user, &peer, proof.password).await?;
    service.store.remove_factor(session.user.id)?;
    tracing::info!(user = %session.user.name, "second factor removed");
    Ok(StatusCode::NO_CONTENT)
}

pub async fn remove_factor(State(service): Shared, Found(user): Found<store::User>) -> Result<StatusCode, Refusal> {
    service.store.remove_factor(user.id)?;
    tracing::info!(user = %user.name, "second factor removed by an admin");
    Ok(StatusCode::NO_CONTENT)
}
