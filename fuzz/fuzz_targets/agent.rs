//! The guest's agent, told anything; and the host, told anything by an agent.
#![no_main]
#![allow(dead_code, missing_docs)]

#[path = "../../images/agent/src/identity.rs"]
mod identity;
#[path = "../../images/agent/src/lines.rs"]
mod lines;
#[path = "../../images/agent/src/session.rs"]
mod session;

use std::path::PathBuf;
use std::sync::LazyLock;

use identity::Identity;
use yunju_protocol as protocol;

/// Stands for the guest's file system.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").unwrap().keep());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut said = Vec::new();
    let _ = session::run(data, &mut said, &Identity::new(&ROOT, |_| Ok(())));
    for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<protocol::agent::ToHost>(line).unwrap();
    }
    let _ = serde_json::from_slice::<protocol::agent::ToHost>(data);
});
