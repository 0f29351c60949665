//! Each request has an id: in its answer, in the log, in the audit log, and in the problem that it ended with.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::problem::Refusal;

/// The header that tells it.
pub const HEADER: &str = "x-request-id";

/// What a request is called. Always ours: what a client sends would be anything.
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

/// Gives a request its id and puts it on the answer.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().simple().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>()
        && let Ok(problem) = serde_json::to_vec(&refusal.problem(Some(&id)))
    {
        *response.body_mut() = Body::from(problem);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_ENCODING);
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}
