//! The host's end of a guest's agent (`protocol::agent`): tells a guest who it is. Nothing that a guest says is believed
//! or kept; a guest without an agent misses nothing but its name.

mod talk;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;
use yunju_protocol::agent::PORT;

use self::talk::{Next, Talk};
use crate::folder::Folder;
use crate::store::Desktop;

/// A guest may have so many connections; more wait.
const CONNECTIONS: usize = 4;

/// An answer may take this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who a machine is, for whoever asks in its guest.
#[derive(Debug, Clone)]
struct Identity {
    id: Uuid,
    hostname: String,
}

/// Serves the agent of a desktop's guest until it is dropped.
pub async fn serve(folder: Folder, desktop: Desktop) {
    let path = folder.guest_socket(PORT);
    let identity = Identity { id: desktop.id, hostname: hostname(&desktop.name) };
    if let Err(error) = listen(&path, &identity).await {
        tracing::warn!(desktop = %desktop.name, path = %path.display(), %error, "the guest's agent is not heard");
    }
}

async fn listen(path: &PathBuf, identity: &Identity) -> io::Result<()> {
    // one that a service before this one left
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // the machine may be another user; the folders above are for nobody else
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    // those that are open end with this
    let mut open = tokio::task::JoinSet::new();
    loop {
        let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        while open.try_join_next().is_some() {}
        let (stream, _) = listener.accept().await?;
        let identity = identity.clone();
        open.spawn(async move {
            let _permit = permit;
            if let Err(error) = talk(stream, &identity).await {
                tracing::debug!(desktop = %identity.id, %error, "the guest's agent is gone");
            }
        });
    }
}

/// One connection, until it ends.
async fn talk(stream: UnixStream, identity: &Identity) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(4096, reader);
    let mut talk = Talk::new(identity.id.to_string(), identity.hostname.clone());
    loop {
        let line = if talk.waits() {
            timeout(PATIENCE, talk::line(&mut reader)).await??
        } else {
            talk::line(&mut reader).await?
        };
        match talk.hear(&line)? {
            Next::Say(line) => timeout(PATIENCE, writer.write_all(&line)).await??,
            Next::Known(version) => tracing::info!(desktop = %identity.id, %version, "the guest knows who it is"),
            Next::Listen => {}
        }
    }
}

/// A desktop's name as a host name (RFC 1123 §2.1): letters, digits, and hyphens that do not stand at an end.
fn hostname(name: &str) -> String {
    let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let safe = safe.trim_matches('-');
    if safe.is_empty() { "desktop".to_owned() } else { safe.to_owned() }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt;
    use yunju_protocol::agent::{LONGEST_LINE, ToAgent};

    use super::*;

    fn talking() -> (UnixStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (guest, host) = UnixStream::pair().unwrap();
        let identity = Identity { id: Uuid::from_u128(7), hostname: "dev".to_owned() };
        (guest, tokio::spawn(async move { talk(host, &identity).await }))
    }

    #[tokio::test]
    async fn an_agent_that_says_hello_is_told_who_it_is() {
        let (guest, talk) = talking();
        let (reader, mut writer) = guest.into_split();
        writer.write_all(b"{\"type\":\"hello\",\"version\":\"1\"}\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).await.unwrap();
        let ToAgent::Identity { id, hostname } = serde_json::from_str(&line).unwrap();
        assert_eq!((id.as_str(), hostname.as_str()), (Uuid::from_u128(7).to_string().as_str(), "dev"));
        writer.write_all(format!("{{\"type\":\"identity\",\"id\":\"{id}\"}}\n").as_bytes()).await.unwrap();
        assert!(!talk.is_finished());
    }

    #[tokio::test]
    async fn what_is_no_agent_is_hung_up_on() {
        for said in [
            b"nonsense\n".to_vec(),
            b"{\"type\":\"identity\",\"id\":\"x\"}\n".to_vec(),
            b"{\"type\":\"hello\",\"version\":\"1\"}\n{\"type\":\"identity\",\"id\":\"another\"}\n".to_vec(),
            vec![b'x'; 2 * LONGEST_LINE],
            vec![0xff, b'\n'],
        ] {
            let (mut guest, talk) = talking();
            let _ = guest.write_all(&said).await;
            assert!(talk.await.unwrap().is_err());
        }
    }

    #[test]
    fn any_name_becomes_a_host_name() {
        for (name, host) in [("dev-2", "dev-2"), ("0-", "0"), ("-", "desktop"), ("a.b c", "a-b-c"), ("é", "desktop")] {
            assert_eq!(hostname(name), host);
        }
        assert_eq!(hostname(&"x".repeat(90)).len(), 63);
    }
}
