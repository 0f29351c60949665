//! The least that could answer: a router, a connection to SQLite behind a lock, one statement a request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{DESKTOPS, service};

type Shared = Arc<Mutex<Connection>>;

/// Listens on `socket`; as durable as the service.
pub async fn start(folder: PathBuf) -> PathBuf {
    std::fs::create_dir(&folder).unwrap();
    let database = Connection::open(folder.join("peer.db")).unwrap();
    database.pragma_update(None, "journal_mode", "WAL").unwrap();
    database.pragma_update(None, "synchronous", "FULL").unwrap();
    database
        .execute_batch("CREATE TABLE desktops (name TEXT PRIMARY KEY, image TEXT) STRICT; CREATE TABLE groups (name TEXT PRIMARY KEY) STRICT;")
        .unwrap();
    for n in 0..DESKTOPS {
        database.execute("INSERT INTO desktops VALUES (?1, 'plain')", [format!("d{n}")]).unwrap();
    }
    let app = Router::new()
        .route("/rows/{name}", routing::get(show))
        .route("/rows", routing::post(add))
        .with_state(Arc::new(Mutex::new(database)));
    let socket = folder.join("peer.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    service::listens(&socket).await;
    socket
}

async fn show(State(database): State<Shared>, Path(name): Path<String>) -> Json<Value> {
    let row = move || {
        let database = database.lock().unwrap();
        let mut statement = database.prepare_cached("SELECT name, image FROM desktops WHERE name = ?1").unwrap();
        statement
            .query_row([name], |row| Ok(json!({"name": row.get::<_, String>(0)?, "image": row.get::<_, String>(1)?})))
            .unwrap()
    };
    Json(tokio::task::spawn_blocking(row).await.unwrap())
}

async fn add(State(database): State<Shared>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let name = body["name"].as_str().unwrap().to_owned();
    let row = move || {
        database.lock().unwrap().execute("INSERT INTO groups VALUES (?1)", [name]).unwrap();
    };
    tokio::task::spawn_blocking(row).await.unwrap();
    (StatusCode::CREATED, Json(body))
}
