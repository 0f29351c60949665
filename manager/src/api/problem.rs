//! Refusals: one clear sentence for people, one word for programs.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::authorize::Denial;
use crate::model::Problem;
use crate::{folder, http, images, machines, names, store};

/// Every code that there is. They stay what they are.
pub const CODES: [&str; 22] = [
    "invalid",
    "login_needed",
    "forbidden",
    "password_change_needed",
    "second_factor_needed",
    "not_found",
    "method_not_allowed",
    "conflict",
    "interrupted",
    "limit",
    "no_memory",
    "stale",
    "no_precondition",
    "cursor_gone",
    "other_request",
    "quota_exceeded",
    "too_many_attempts",
    "too_many_requests",
    "disk_full",
    "machine",
    "internal",
    "wrong_host",
];

/// A request that is not carried out.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    /// 400: the request makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 401: who asks?
    pub fn login_needed() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login_needed", "log in first")
    }

    /// 403: not for this caller.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403: a one-time password opens nothing else.
    pub fn password_change_needed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "password_change_needed", "choose a password of your own first")
    }

    /// 404
    pub fn not_found(what: &str, name: &str) -> Self {
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} called `{name}`"))
    }

    /// What [`crate::auth::authorize`] says, of this kind of thing with this name.
    pub fn denied(denial: Denial, kind: &str, name: &str) -> Self {
        match denial {
            Denial::Unknown => Self::login_needed(),
            Denial::PasswordChange => Self::password_change_needed(),
            Denial::Forbidden(why) => Self::forbidden(why),
            Denial::Hidden => Self::not_found(kind, name),
        }
    }

    /// 405
    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this cannot be done here")
    }

    /// 409: not in this state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 409: the service ended in the middle of it.
    pub fn interrupted(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "interrupted", detail)
    }

    /// 412: it was changed since the caller looked.
    pub fn stale() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "stale", "it was changed in the meantime: look at it again")
    }

    /// 428: the caller does not say what it looked at.
    pub fn no_precondition() -> Self {
        let detail = "say with `If-Match` which state of it you want to change: the `ETag` that it was shown with";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "no_precondition", detail)
    }

    /// 410: the events after that one are gone.
    pub fn cursor_gone() -> Self {
        let detail =
            "events after this cursor are not kept any more: look at everything anew, then begin without a cursor";
        Self::new(StatusCode::GONE, "cursor_gone", detail)
    }

    /// 422: the key was another request's.
    pub fn other_request() -> Self {
        let detail = "another request had this idempotency key: take a fresh one";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "other_request", detail)
    }

    /// 409: there are enough of them.
    pub fn limit(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "limit", detail)
    }

    /// 421: desktops open from another host name.
    pub fn wrong_host(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail)
    }

    /// 429
    pub fn too_many(seconds: u64) -> Self {
        let detail = format!("too many failed attempts: try again in {seconds} s");
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail) }
    }

    /// 429
    pub fn too_fast(seconds: u64) -> Self {
        let detail = format!("too many requests: try again in {seconds} s");
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail) }
    }

    /// 403: the password is right, and a code is needed too.
    pub fn second_factor_needed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "second_factor_needed", "enter the code that your authenticator shows")
    }

    /// 502: a process of ours does not do its part.
    pub fn upstream(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "machine", detail)
    }

    /// 500: the host does not do its part.
    pub fn internal(detail: impl Into<String>) -> Self {
        let detail = detail.into();
        tracing::error!(%detail, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Refusal {
    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Its body.
    pub fn problem(&self, request: Option<&str>) -> Problem {
        Problem {
            kind: format!("urn:yunju:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            request_id: request.map(str::to_owned),
            retry_after: self.retry_after,
        }
    }
}

/// The refusal itself goes along as an extension: who knows the request's id writes it into the body.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.problem(None))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Exists { .. } | store::Error::OwnsDesktops(_) => Self::conflict(error.to_string()),
            store::Error::Queue(_) => Self::limit(error.to_string()),
            store::Error::Quota { .. } => Self::new(StatusCode::FORBIDDEN, "quota_exceeded", error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<machines::Error> for Refusal {
    fn from(error: machines::Error) -> Self {
        match error {
            machines::Error::Store(error) => error.into(),
            machines::Error::Image(error) => error.into(),
            machines::Error::NoMemory(error) => Self::new(StatusCode::CONFLICT, "no_memory", error.to_string()),
            machines::Error::Gone => Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
            machines::Error::Stopping
            | machines::Error::Suspending
            | machines::Error::NotRunning
            | machines::Error::Asleep
            | machines::Error::NoSnapshot
            | machines::Error::Busy(_)
            | machines::Error::ImageChanged(_) => Self::conflict(error.to_string()),
            machines::Error::DiskFull(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", error.to_string()),
            machines::Error::NoSnapshotTaken(_) | machines::Error::NoAnswer(_) => Self::upstream(error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<images::Error> for Refusal {
    fn from(error: images::Error) -> Self {
        match error {
            images::Error::Missing { .. } => Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<names::NameError> for Refusal {
    fn from(error: names::NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<http::Error> for Refusal {
    fn from(error: http::Error) -> Self {
        Self::upstream(error.to_string())
    }
}

impl From<folder::Error> for Refusal {
    fn from(error: folder::Error) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self { status: rejection.status(), ..Self::invalid(rejection.body_text()) }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_is_used_is_listed() {
        let used = include_str!("problem.rs")
            .split("Self::new(StatusCode::")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1));
        let used: Vec<_> = used.filter(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect();
        assert!(used.len() >= 15, "{used:?}");
        for code in used {
            assert!(CODES.contains(&code), "{code}");
        }
    }
}
