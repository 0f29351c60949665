//! `yunju serve` with stand-ins for its programs, asked through its local socket.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, Connection};

pub struct Service(common::Service);

impl Service {
    /// Its proxies are this program: streams of the bench's.
    pub fn start() -> Self {
        let mut service = common::service();
        let proxy = service.path("bin/yunju-vnc-proxy");
        fs::remove_file(&proxy).unwrap();
        symlink(std::env::current_exe().unwrap(), proxy).unwrap();
        service.serve(&[]);
        Self(service)
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.0.path(part)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("data/yunju.sock")
    }

    /// Makes so many, `d0` and on.
    pub async fn desktops(&self, count: usize) {
        let mut connection = Connection::open(&self.socket()).await;
        let owner = json!({"name": "owner"});
        assert_eq!(connection.send("POST", "/v1/users", Some(&owner)).await.0, 201);
        for n in 0..count {
            let desktop = json!({"name": format!("d{n}"), "image": "good", "owner": "owner"});
            let (status, answer) = connection.send("POST", "/v1/desktops", Some(&desktop)).await;
            assert_eq!(status, 201, "{answer}");
        }
    }

    pub async fn start_desktop(&self, name: &str) {
        let mut connection = Connection::open(&self.socket()).await;
        let (status, answer) = connection.send("POST", &format!("/v1/desktops/{name}/start"), None).await;
        assert!(status < 300, "{answer}");
        let path = format!("/v1/desktops/{name}");
        while connection.send("GET", &path, None).await.1["state"] != "running" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where a desktop's proxy listens.
    pub async fn proxy_socket(&self, name: &str) -> PathBuf {
        let (_, desktop): (_, Value) =
            Connection::open(&self.socket()).await.send("GET", &format!("/v1/desktops/{name}"), None).await;
        self.path("data/desktops").join(desktop["id"].as_str().unwrap()).join("run/websocket.sock")
    }

    /// Private and its share of shared memory.
    pub fn memory_mib(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.pid_of_serve())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

/// Waits until somebody listens there.
pub async fn listens(socket: &Path) {
    load::connect(socket).await;
}
