//! The description of the API (OpenAPI 3.1), made from the table of routes and the bodies' types. `docs/openapi.json` is the same,
//! so that a changed contract is seen in review.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::response::Html;
use axum::{Json, response::IntoResponse};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::problem::CODES;
use super::routes::{self, Route};
use crate::auth::authorize::Action;
use crate::model as m;

/// What goes in and what comes out of an operation.
struct Shape {
    takes: Option<Value>,
    status: u16,
    answers: Answer,
    query: &'static [(&'static str, &'static str, &'static str)],
}

enum Answer {
    Nothing,
    Json(Value),
    Other(&'static str),
    Upgrade,
}

/// Bodies' types by name, collected as they are referred to.
type Schemas = BTreeMap<String, Value>;

fn reference<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    for (name, schema) in all {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
    json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

const PAGE: (&str, &str, &str) = ("limit", "integer", "At most so many, up to 1000");
const CURSOR: (&str, &str, &str) = ("cursor", "integer", "Where a page goes on: `Link` has it");
const NAME_CURSOR: (&str, &str, &str) = ("cursor", "string", "Where a page goes on: `Link` has it");
const OWNER: (&str, &str, &str) = ("owner", "string", "Only those of this user");
const DESKTOP_SEARCH: (&str, &str, &str) =
    ("search", "string", "Only those with this in their name, their owner's or their image's");
const USER_SEARCH: (&str, &str, &str) = ("search", "string", "Only those with this in their name");
const USER: (&str, &str, &str) = ("user", "string", "Somebody else's, for who may see them");

/// The shape of an operation; `None` if nobody wrote it down.
fn shape(operation: &str, s: &mut Schemas) -> Option<Shape> {
    fn of(takes: Option<Value>, status: u16, answers: Answer) -> Option<Shape> {
        Some(Shape { takes, status, answers, query: &[] })
    }
    fn asked(query: &'static [(&'static str, &'static str, &'static str)], shape: Option<Shape>) -> Option<Shape> {
        shape.map(|shape| Shape { query, ..shape })
    }
    macro_rules! takes {
        ($t:ty) => {
            Some(reference::<$t>(s))
        };
    }
    macro_rules! one {
        ($t:ty) => {
            Answer::Json(reference::<$t>(s))
        };
    }
    macro_rules! many { ($t:ty) => { Answer::Json(json!({"type": "array", "items": reference::<$t>(s)})) }; }
    const FILTER: &[(&str, &str, &str)] = &[
        ("actor", "string", "By this user"),
        ("action", "string", "What begins like this"),
        ("resource", "string", "Of a thing with this name"),
        ("since", "string", "Not earlier"),
        ("until", "string", "Earlier"),
        ("refused", "boolean", "Only what was not done, or only what was"),
        PAGE,
        CURSOR,
        ("format", "string", "`json` or `csv`"),
    ];
    match operation {
        "health" => of(None, 200, one!(m::Health)),
        "health.live" | "health.ready" | "metrics" => of(None, 200, Answer::Other("text/plain")),
        "openapi" => of(None, 200, Answer::Other("application/json")),
        "login" => of(takes!(m::Login), 200, one!(m::User)),
        "session.show" | "user.show" => of(None, 200, one!(m::User)),
        "token.self" => of(None, 200, one!(m::Token)),
        "logout"
        | "token.end"
        | "session.remove"
        | "token.remove"
        | "user.remove"
        | "user.factor.remove"
        | "group.remove"
        | "desktop.snapshot.remove"
        | "share.remove"
        | "trash.remove" => of(None, 204, Answer::Nothing),
        "desktop.remove" => asked(&[("purge", "boolean", "It cannot be recovered")], of(None, 204, Answer::Nothing)),
        "trash.list" => of(None, 200, many!(m::Deleted)),
        "trash.recover" => of(takes!(m::Recover), 200, one!(m::Desktop)),
        "password.change" => of(takes!(m::PasswordChange), 204, Answer::Nothing),
        "factor.begin" => of(takes!(m::FactorProof), 200, one!(m::FactorKey)),
        "factor.confirm" => of(takes!(m::FactorCode), 200, one!(m::RecoveryCodes)),
        "factor.remove" => of(takes!(m::FactorProof), 204, Answer::Nothing),
        "session.list" => asked(&[USER], of(None, 200, many!(m::Session))),
        "token.list" => asked(&[USER], of(None, 200, many!(m::Token))),
        "token.add" => of(takes!(m::NewToken), 201, one!(m::NewTokenAnswer)),
        "link.use" => of(takes!(m::LinkUse), 204, Answer::Nothing),
        "user.list" => asked(&[USER_SEARCH, PAGE, NAME_CURSOR], of(None, 200, many!(m::User))),
        "user.add" => of(takes!(m::NewUser), 201, one!(m::OneTimePassword)),
        "user.change" => of(takes!(m::UserChange), 200, one!(m::User)),
        "user.password" => of(None, 200, one!(m::OneTimePassword)),
        "user.link" => of(None, 201, one!(m::Link)),
        "user.invite" => of(takes!(m::Invitation), 201, one!(m::Link)),
        "group.list" => of(None, 200, many!(m::Group)),
        "group.add" => of(takes!(m::NewGroup), 201, one!(m::Group)),
        "group.change" => of(takes!(m::GroupChange), 200, one!(m::Group)),
        "group.join" | "group.leave" => of(None, 200, one!(m::Group)),
        "operation.list" => asked(&[PAGE, CURSOR], of(None, 200, many!(m::Operation))),
        "operation.show" => asked(
            &[("wait", "integer", "Answer when it has ended, or after so many seconds")],
            of(None, 200, one!(m::Operation)),
        ),
        "operation.cancel" => of(None, 200, one!(m::Operation)),
        "event.list" => {
            asked(&[("cursor", "integer", "Begin after this event")], of(None, 200, Answer::Other("text/event-stream")))
        }
        "audit.list" => asked(FILTER, of(None, 200, many!(m::AuditEntry))),
        "audit.export" => asked(FILTER, of(None, 200, Answer::Other("application/x-ndjson"))),
        "usage.list" => asked(
            &[
                ("by", "string", "What is added up: `hour`, `desktop` or `user`"),
                USER,
                ("desktop", "string", "Of this desktop"),
                ("since", "string", "Of hours that do not begin earlier"),
                ("until", "string", "Of hours that begin earlier"),
                PAGE,
                CURSOR,
                ("format", "string", "`json` or `csv`"),
            ],
            of(None, 200, many!(m::Usage)),
        ),
        "image.list" => of(None, 200, many!(m::Image)),
        "image.warm" => of(None, 202, Answer::Nothing),
        "desktop.list" => asked(&[OWNER, DESKTOP_SEARCH, PAGE, NAME_CURSOR], of(None, 200, many!(m::Desktop))),
        "desktop.add" => of(takes!(m::NewDesktop), 201, one!(m::Desktop)),
        "desktop.show" => of(None, 200, one!(m::Desktop)),
        "desktop.change" => of(takes!(m::DesktopChange), 200, one!(m::Desktop)),
        "desktop.start" => {
            asked(&[("cold", "boolean", "Forget a suspended one's memory")], of(None, 202, one!(m::Desktop)))
        }
        "desktop.resume" | "desktop.undo" | "desktop.snapshot.restore" => of(None, 202, one!(m::Desktop)),
        "desktop.stop" | "desktop.restart" => of(takes!(m::Stop), 202, one!(m::Desktop)),
        "desktop.suspend" => of(None, 200, one!(m::Desktop)),
        "desktop.fork" => of(takes!(m::Fork), 201, many!(m::Desktop)),
        "snapshot.list" | "desktop.snapshot.list" => of(None, 200, many!(m::Snapshot)),
        "desktop.snapshot.take" => of(takes!(m::NewSnapshot), 201, one!(m::Snapshot)),
        "desktop.snapshot.screen" | "desktop.screenshot" => of(None, 200, Answer::Other("image/png")),
        "desktop.thumbnail" => of(None, 200, Answer::Other("image/jpeg")),
        "desktop.logs" => asked(
            &[
                ("source", "string", "`serial`, `vmm`, `proxy` or `passt`"),
                ("offset", "integer", "Bytes from the start"),
            ],
            of(None, 200, Answer::Other("application/octet-stream")),
        ),
        "desktop.console" => {
            asked(&[("history", "boolean", "Begin with the latest output")], of(None, 101, Answer::Upgrade))
        }
        "desktop.open" => of(None, 200, one!(m::Door)),
        "desktop.viewer.list" => of(None, 200, many!(m::Watcher)),
        "desktop.share.list" | "share.list" => of(None, 200, many!(m::Share)),
        "desktop.share.add" => of(takes!(m::NewShare), 201, one!(m::NewShareAnswer)),
        "share.open" => of(takes!(m::LinkSecret), 200, one!(m::Shared)),
        "share.copy" => of(takes!(m::ShareCopy), 201, many!(m::Desktop)),
        "opening.enter" => of(takes!(m::Ticket), 204, Answer::Nothing),
        "opening.show" => of(None, 200, one!(m::Opening)),
        "desktop.watch" | "desktop.listen" | "desktop.io" => of(None, 101, Answer::Upgrade),
        _ => None,
    }
}

/// Operations that go on by themselves; `Prefer: respond-async` does not wait for them.
const WORK: [&str; 11] = [
    "desktop.add",
    "desktop.remove",
    "desktop.start",
    "desktop.stop",
    "desktop.restart",
    "desktop.resume",
    "desktop.suspend",
    "desktop.undo",
    "desktop.fork",
    "desktop.snapshot.take",
    "desktop.snapshot.restore",
];

/// The whole description.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let problem = reference::<m::Problem>(&mut schemas);
    let operation = reference::<m::Operation>(&mut schemas);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes::api() {
        let described = describe(&route, &mut schemas, &operation);
        paths.entry(route.path).or_default().insert(route.method.as_str().to_lowercase(), described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Yunju",
            "version": "v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Lists come in pages with a `Link` to the next. A POST may have an `Idempotency-Key`. Who shows a session's cookie sends the `Origin` of this service with each change.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Problem": {
                "description": format!("Not done. Codes: {}", CODES.join(", ")),
                "content": {"application/problem+json": {"schema": problem}},
            }},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token: `yj_…`"},
                "session": {"type": "apiKey", "in": "cookie", "name": crate::origins::COOKIE},
            },
        },
    })
}

fn describe(route: &Route, schemas: &mut Schemas, operation: &Value) -> Value {
    let shape = shape(route.operation, schemas);
    let path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> =
        path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect();
    let query = shape.as_ref().map_or(&[] as &[_], |shape| shape.query);
    parameters.extend(query.iter().map(|(name, kind, what)| {
        json!({"name": name, "in": "query", "required": false, "description": what, "schema": {"type": kind}})
    }));
    let header = |name: &str, required: bool, what: &str| json!({"name": name, "in": "header", "required": required, "description": what, "schema": {"type": "string"}});
    if route.operation == "desktop.change" {
        parameters.push(header("If-Match", true, "The `ETag` that it was shown with, or `*`"));
    }
    let work = WORK.contains(&route.operation);
    if work {
        parameters.push(header("Prefer", false, "`respond-async`: 202 and the operation, at once"));
    }
    let mut responses = Map::new();
    if let Some(shape) = &shape {
        let content = match &shape.answers {
            Answer::Nothing | Answer::Upgrade => json!({}),
            Answer::Json(schema) => json!({"content": {"application/json": {"schema": schema}}}),
            Answer::Other(kind) => json!({"content": {*kind: {}}}),
        };
        let mut answer = json!({"description": route.summary});
        if let (Some(answer), Value::Object(content)) = (answer.as_object_mut(), content) {
            answer.extend(content);
        }
        responses.insert(shape.status.to_string(), answer);
    }
    if work {
        let accepted = responses.entry("202").or_insert_with(|| json!({"description": "Begun"}));
        let schema = match accepted.pointer("/content/application~1json/schema") {
            Some(waited) => json!({"oneOf": [waited, operation]}),
            None => operation.clone(),
        };
        accepted["content"] = json!({"application/json": {"schema": schema}});
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
    let mut described = json!({
        "operationId": route.operation,
        "tags": [route.operation.split('.').next().unwrap_or_default()],
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = shape.and_then(|shape| shape.takes) {
        described["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    if matches!(route.action, Action::Look | Action::Enter) {
        described["security"] = json!([]);
    }
    described
}

/// The description for programs.
pub async fn serve() -> impl IntoResponse {
    Json(document())
}

/// The description for people.
pub async fn page() -> Html<String> {
    let document = document();
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>API · Yunju</title><link rel=\"stylesheet\" href=\"/assets/style.css\"><main><h1>API</h1>",
    );
    let _ = write!(
        html,
        "<p>{}</p><p><a href=\"/v1/openapi.json\">OpenAPI 3.1</a></p>",
        escape(&document["info"]["description"])
    );
    for route in routes::api() {
        let described = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let _ = write!(
            html,
            "<section><h2 id=\"{0}\"><code>{1} {2}</code></h2><p>{3}.</p>",
            route.operation,
            route.method,
            route.path,
            escape(&described["summary"])
        );
        let body = described.pointer("/requestBody/content/application~1json/schema");
        let answer =
            described["responses"].as_object().and_then(|all| all.iter().find(|(status, _)| *status != "default"));
        let _ = write!(html, "<ul>");
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let _ = write!(
                html,
                "<li><code>{}</code> ({}) {}</li>",
                escape(&parameter["name"]),
                escape(&parameter["in"]),
                escape(&parameter["description"])
            );
        }
        if let Some(body) = body {
            let _ = write!(html, "<li>body: {}</li>", link(body));
        }
        if let Some((status, answer)) = answer {
            let schema = answer.pointer("/content/application~1json/schema").map(link).unwrap_or_default();
            let _ = write!(html, "<li>{status} {schema}</li>");
        }
        html += "</ul></section>";
    }
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let text = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ =
            write!(html, "<section><h2 id=\"{name}\">{name}</h2><pre>{}</pre></section>", escape(&Value::String(text)));
    }
    Html(html + "</main></html>")
}

fn link(schema: &Value) -> String {
    match (schema["$ref"].as_str(), schema.get("items"), schema["oneOf"].as_array()) {
        (Some(reference), ..) => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            format!("<a href=\"#{name}\">{name}</a>")
        }
        (_, Some(items), _) => format!("list of {}", link(items)),
        (.., Some(any)) => any.iter().map(link).collect::<Vec<_>>().join(" or "),
        _ => String::new(),
    }
}

fn escape(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn every_operation_has_a_shape_and_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for route in routes::api() {
            assert!(names.insert(route.operation), "{} twice", route.operation);
            let shape = shape(route.operation, &mut Schemas::new());
            assert!(shape.is_some(), "{} has no shape", route.operation);
            let body = shape.is_some_and(|shape| shape.takes.is_some());
            assert!(!body || route.method != Method::GET, "{}", route.operation);
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }

    /// `YUNJU_WRITE_OPENAPI=1 cargo test -p yunju-manager openapi` writes it anew.
    #[test]
    fn the_committed_description_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("YUNJU_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let committed: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(committed == document(), "docs/openapi.json is not current: see this test");
    }
}
