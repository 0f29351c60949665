//! Requests that may be sent twice: a `POST` with an `Idempotency-Key` is carried out once, and its answer kept for a day for
//! whoever sends the same again.

use std::sync::Arc;

use axum::body::{self, Body};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::Refusal;
use crate::service::Service;
use crate::store::Answered;

/// The header that gives a request its key.
pub const KEY: &str = "idempotency-key";

/// Bodies of requests and answers that may be kept have at most so many bytes.
const MOST: usize = 256 << 10;

/// Operations whose answers hold secrets, which are stored nowhere.
const SECRETS: [&str; 12] = [
    "login",
    "token.add",
    "user.add",
    "user.password",
    "user.invite",
    "user.link",
    "factor.begin",
    "factor.confirm",
    "desktop.open",
    "desktop.share.add",
    "share.open",
    "opening.enter",
];

/// Carries a request out, or repeats the answer that it had before.
pub async fn once(
    service: Arc<Service>,
    actor: String,
    operation: &'static str,
    request: Request,
    next: Next,
) -> Response {
    // it is finished and kept although the caller goes away
    let done = tokio::spawn(async move { try_once(&service, &actor, operation, request, next).await }).await;
    done.unwrap_or_else(|panic| Err(Refusal::internal(panic.to_string()))).into_response()
}

async fn try_once(
    service: &Service,
    actor: &str,
    operation: &str,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (parts, content) = request.into_parts();
    let key = parts.headers.get(KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    if key.is_empty() || key.len() > 255 {
        return Err(Refusal::invalid("an idempotency key has 1 to 255 visible characters"));
    }
    if SECRETS.contains(&operation) {
        return Err(Refusal::invalid(
            "this answer holds a secret, which is not kept: send it without an idempotency key",
        ));
    }
    let content =
        body::to_bytes(content, MOST).await.map_err(|_| Refusal::invalid("the body is too long to be kept"))?;
    let mut hash = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), &content] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    match service.store.begin_answer(actor, &key, &hash.finalize())? {
        Answered::New => {}
        Answered::Unfinished => {
            return Err(Refusal::conflict("a request with this idempotency key is being worked at"));
        }
        Answered::Otherwise => return Err(Refusal::other_request()),
        Answered::With { status, kind, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok((
                status,
                [(header::CONTENT_TYPE.as_str(), kind.as_str()), ("idempotent-replayed", "true")],
                body,
            )
                .into_response());
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(content))).await;
    let (mut parts, answer) = response.into_parts();
    let answer = body::to_bytes(answer, MOST).await.unwrap_or_default();
    // what failed on our side may go better another time
    let kept = !parts.status.is_server_error();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    service.store.end_answer(actor, &key, kept.then_some((parts.status.as_u16(), kind, &answer[..])))?;
    parts.headers.insert(KEY, HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("")));
    Ok(Response::from_parts(parts, Body::from(answer)))
}
