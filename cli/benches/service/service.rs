//! `yunju serve` with stand-ins for its programs, asked through its local socket.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::{self, Connection};

pub struct Service {
    folder: TempDir,
    serve: Child,
}

impl Service {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |part: &str| folder.path().join(part);
        let yunju = Path::new(env!("CARGO_BIN_EXE_yunju"));
        let stand_ins = yunju.with_file_name("examples").join("fake-programs");
        assert!(stand_ins.is_file(), "first: cargo build --release -p yunju --example fake-programs");
        fs::create_dir_all(path("bin")).unwrap();
        fs::create_dir_all(path("images/plain")).unwrap();
        symlink(&stand_ins, path("bin/yunju-vmm")).unwrap();
        symlink(&stand_ins, path("bin/passt")).unwrap();
        symlink(std::env::current_exe().unwrap(), path("bin/yunju-vnc-proxy")).unwrap();
        for file in ["vmlinux", "system.img"] {
            fs::write(path("images/plain").join(file), [1; 4096]).unwrap();
        }
        let manifest = json!({
            "name": "plain", "description": "of the bench", "digest": "sha256:plain", "created": "2026-11-24T05:00:00Z",
            "kernel": "vmlinux", "cmdline": "", "disks": [{"path": "system.img"}], "memory": "512M", "cpus": 1,
            "display": {"width": 1280, "height": 800}, "net": true,
        });
        fs::write(path("images/plain/image.json"), manifest.to_string()).unwrap();
        let serve = Command::new(yunju)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--images".as_ref(), path("images").as_os_str()])
            .args(["--bin-dir".as_ref(), path("bin").as_os_str()])
            .env("YUNJU_DATA", path("data"))
            .env("PATH", format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("serve.log")).unwrap())
            .spawn()
            .unwrap();
        Self { folder, serve }
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
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
            let desktop = json!({"name": format!("d{n}"), "image": "plain", "owner": "owner"});
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
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.serve.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Service {
    /// Ends what it runs, then it.
    fn drop(&mut self) {
        let stop = Command::new(env!("CARGO_BIN_EXE_yunju"))
            .args(["stop", "d0", "--force"])
            .env("YUNJU_DATA", self.path("data"))
            .stdout(Stdio::null())
            .status();
        if !stop.is_ok_and(|status| status.success()) {
            eprintln!("service: {}", fs::read_to_string(self.path("serve.log")).unwrap_or_default());
        }
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

/// Waits until somebody listens there.
pub async fn listens(socket: &Path) {
    load::connect(socket).await;
}
