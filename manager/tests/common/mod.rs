//! A service to ask.

// test support: what panics here fails a test; not every test uses all of it
#![allow(clippy::unwrap_used, dead_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use yunju_manager::api::{access::Peer, router};
use yunju_manager::auth;
use yunju_manager::machines::{Jail, Limits, Machines, Programs};
use yunju_manager::model::Role;
use yunju_manager::origins::Origins;
use yunju_manager::service::Service;
use yunju_manager::store::{NewSession, Store, User};

/// A service that listens, with a folder of its own and no programs.
pub struct House {
    pub address: SocketAddr,
    pub service: Arc<Service>,
    pub folder: tempfile::TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The sentence of a refusal.
    pub fn detail(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.json()["detail"].as_str().unwrap().to_owned()
    }

    pub fn cookie(&self) -> String {
        self.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }
}

pub async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    for part in ["desktops", "layers", "snapshots", "images/card"] {
        std::fs::create_dir_all(folder.path().join(part)).unwrap();
    }
    image(folder.path(), json!({}));
    let store = Arc::new(Store::in_memory().unwrap());
    let nowhere = |name: &str| PathBuf::from("/nonexistent").join(name);
    let programs = Programs {
        vmm: nowhere("yunju-vmm"),
        proxy: nowhere("yunju-vnc-proxy"),
        passt: None,
        clipboard: yunju_protocol::seat::Policy::default(),
        jail: Jail::Warn,
    };
    let data = folder.path().to_owned();
    let machines = Machines::new(store.clone(), data.clone(), programs, Limits::default());
    let origins = Origins::new("localhost", false).unwrap();
    let service = Service::new(store, machines, data, folder.path().join("images"), "http://here".to_owned(), origins);
    let service = Arc::new(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(service.clone()).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(axum::serve(listener, app).into_future());
    House { address, service, folder }
}

/// An image called `card`, with some things other than they should be.
pub fn image(house: &Path, other: Value) {
    let folder = house.join("images/card");
    for file in ["vmlinux", "system.img"] {
        std::fs::write(folder.join(file), "x").unwrap();
    }
    let mut manifest = json!({"name": "card", "digest": "sha256:1", "kernel": "vmlinux",
        "disks": [{"path": "system.img"}], "memory": "128M"});
    manifest.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    std::fs::write(folder.join("image.json"), manifest.to_string()).unwrap();
}

impl House {
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn ask(&self, method: &str, path: &str, cookie: &str, body: Value) -> Answer {
        let origin = self.origin();
        self.send(method, path, &[("cookie", cookie), ("origin", &origin)], body.to_string()).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::<Bytes>::from(body)).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// A user with a session, who has chosen a password or not.
    pub fn user(&self, name: &str, role: Role, chosen: bool) -> (User, String) {
        let user = self.service.store.add_user(name, role, &auth::hash_password("correct horse")).unwrap();
        let hash = user.password_hash.clone();
        self.service.store.set_password(user.id, &hash, !chosen, None).unwrap();
        let token = auth::token();
        let new =
            NewSession { user: user.id, token_hash: &auth::token_hash(&token), seconds: 60, ..NewSession::default() };
        self.service.store.add_session(&new).unwrap();
        (user, format!("yunju_session={token}"))
    }

    pub async fn desktop(&self, name: &str, cookie: &str) {
        let made = self.ask("POST", "/v1/desktops", cookie, json!({"name": name, "image": "card"})).await;
        assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    }

    /// Asks as a program does: with a token and without an origin.
    pub async fn ask_as_program(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(method, path, &[("authorization", &bearer)], body.to_string()).await
    }
}
