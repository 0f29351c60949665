//! The audit log: how it is written, read and taken away.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::Query;
use super::access::{Caller, Peer, Via};
use super::paging;
use super::problem::Refusal;
use super::request::RequestId;
use crate::auth::authorize::Action;
use crate::model::AuditEntry;
use crate::service::Service;
use crate::store::{self, AuditFilter, NewAudit};

/// What only a handler knows of what it did, in the extensions of its answer.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// Who acted, where nobody was known before: at a login.
    pub actor: Option<String>,
    /// What it was about, where the path does not say: what was made.
    pub resource: Option<String>,
    /// More.
    pub detail: String,
}

impl Note {
    /// An answer with a note that it was about this.
    pub fn about(resource: String, answer: impl IntoResponse) -> Response {
        Self { resource: Some(resource), ..Self::default() }.on(answer)
    }

    /// An answer with this note.
    pub fn on(self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A request that was answered.
pub struct Done<'a> {
    /// What was asked for.
    pub method: &'a Method,
    /// Its name.
    pub operation: &'static str,
    /// What it takes.
    pub action: Action,
    /// From where.
    pub peer: Peer,
    /// By whom.
    pub caller: Option<&'a Caller>,
    /// Of what.
    pub resource: String,
    /// Which request.
    pub request: &'a RequestId,
}

impl Done<'_> {
    /// Changes, logins, and what lets somebody look into a desktop; of unknown callers only what they came in with, or tried to.
    fn concerns(&self, status: StatusCode) -> bool {
        let opens = status == StatusCode::SWITCHING_PROTOCOLS;
        let changes = !matches!(*self.method, Method::GET | Method::HEAD);
        let known = self.caller.is_some() || self.action == Action::Enter;
        (changes || opens) && known && status != StatusCode::TOO_MANY_REQUESTS
    }

    /// Records it, before the answer is sent.
    pub fn record(&self, service: &Service, response: &Response) {
        let status = response.status();
        if !self.concerns(status) {
            return;
        }
        let note = response.extensions().get::<Note>().cloned().unwrap_or_default();
        let (via, name) = match self.caller.map(Caller::via) {
            None => ("nobody", ""),
            Some(Via::Local) => ("local", "local"),
            Some(Via::Session(session)) => ("session", session.user.name.as_str()),
            Some(Via::Token(token)) => ("token", token.user.name.as_str()),
            Some(Via::Desk(opening)) if opening.session.is_some() => ("session", opening.name.as_str()),
            Some(Via::Desk(opening)) => ("nobody", opening.name.as_str()),
        };
        let address = match self.peer {
            Peer::Remote(address) => address.to_string(),
            Peer::Local(uid) => uid.map_or_else(String::new, |uid| format!("uid {uid}")),
        };
        let entry = NewAudit {
            actor: note.actor.as_deref().unwrap_or(name),
            via,
            address: &address,
            action: self.operation,
            resource: note.resource.as_deref().unwrap_or(&self.resource),
            status: status.as_u16(),
            request: &self.request.0,
            detail: &note.detail,
        };
        if let Err(error) = service.store.add_audit(&entry) {
            tracing::error!(%error, action = self.operation, actor = entry.actor, "not in the audit log");
        }
    }
}

/// `?actor=alice&action=desktop&since=2026-11-24T00:00:00Z`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    actor: Option<String>,
    action: Option<String>,
    resource: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    refused: Option<bool>,
    limit: Option<u32>,
    cursor: Option<i64>,
    #[serde(default)]
    format: Format,
}

/// How entries are taken away.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line of JSON for each.
    #[default]
    Json,
    /// A table for spreadsheets.
    Csv,
}

impl AuditQuery {
    fn filter(&self) -> AuditFilter {
        AuditFilter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            since: self.since,
            until: self.until,
            refused: self.refused,
        }
    }
}

pub async fn list(
    State(service): State<Arc<Service>>,
    uri: Uri,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Refusal> {
    let limit = paging::limit(query.limit)?;
    let entries = service.store.audit_before(&query.filter(), query.cursor, limit)?;
    let next = entries.last().filter(|_| entries.len() == limit as usize).map(|entry| entry.id.to_string());
    Ok(paging::page(&uri, next.as_deref(), Json(entries)))
}

/// So many entries are read at once while they are sent.
const PIECE: u32 = 500;

pub async fn export(State(service): State<Arc<Service>>, Query(query): Query<AuditQuery>) -> Result<Response, Refusal> {
    let (filter, format) = (query.filter(), query.format);
    let (kind, file, head) = match format {
        Format::Json => ("application/x-ndjson", "audit.ndjson", String::new()),
        Format::Csv => ("text/csv; charset=utf-8", "audit.csv", HEAD.to_owned()),
    };
    let first = stream::iter([Ok::<_, store::Error>(Bytes::from(head))]);
    let pieces = stream::try_unfold(0, move |after| {
        let (service, filter) = (service.clone(), filter.clone());
        async move {
            let entries = service.store.audit_after(&filter, after, PIECE)?;
            let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(None) };
            let text: String = entries.iter().map(|entry| line(entry, format)).collect();
            Ok(Some((Bytes::from(text), last)))
        }
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(first, pieces));
    let name = format!("attachment; filename=\"{file}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)], body).into_response())
}

const HEAD: &str = "id,at,actor,via,address,action,resource,status,request,detail\r\n";

fn line(entry: &AuditEntry, format: Format) -> String {
    match format {
        Format::Json => serde_json::to_string(entry).map(|line| line + "\n").unwrap_or_default(),
        Format::Csv => {
            let (id, at, status) = (entry.id.to_string(), entry.at.to_string(), entry.status.to_string());
            let cells = [
                id.as_str(),
                &at,
                &entry.actor,
                &entry.via,
                &entry.address,
                &entry.action,
                &entry.resource,
                &status,
                &entry.request,
                &entry.detail,
            ];
            cells.map(cell).join(",") + "\r\n"
        }
    }
}

/// RFC 4180; what a spreadsheet would take for a formula gets a quotation mark in front.
pub fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "'=1+1"),
            ("@a,b", "\"'@a,b\""),
            ("two\nlines", "\"two\nlines\""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
