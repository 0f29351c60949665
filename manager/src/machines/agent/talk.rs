//! What is said on one connection with a guest's agent, without the connection: each line that the agent says has an answer, a
//! meaning, or ends it. Nothing here waits, and nothing that the guest says is kept beyond its version.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use yunju_protocol::agent::{LONGEST_LINE, ToAgent, ToHost};

/// Longest version that is told on.
const VERSION: usize = 40;

/// What is to be done about a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Say this, a whole line.
    Say(Vec<u8>),
    /// The guest, whose agent has this version, knows who it is.
    Known(String),
    /// Nothing.
    Listen,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was said yet.
    Silent,
    /// An agent of this version was told who it is.
    Told(String),
    /// It said that it knows.
    Known,
}

/// One connection: hello, who it is, that it took that on; then it is kept for as long as the guest keeps it.
#[derive(Debug)]
pub struct Talk {
    id: String,
    hostname: String,
    phase: Phase,
}

impl Talk {
    /// With the guest of the desktop `id`, which is to call itself `hostname`.
    pub fn new(id: String, hostname: String) -> Self {
        Self { id, hostname, phase: Phase::Silent }
    }

    /// Whether the agent owes an answer.
    pub fn waits(&self) -> bool {
        !matches!(self.phase, Phase::Known)
    }

    /// What to do about a line of the agent, its end included. An error ends the connection.
    pub fn hear(&mut self, line: &[u8]) -> io::Result<Next> {
        let said: ToHost = serde_json::from_slice(line)?;
        match (&self.phase, said) {
            (Phase::Silent, ToHost::Hello { version }) => {
                let version = version.chars().filter(|c| !c.is_control()).take(VERSION).collect();
                self.phase = Phase::Told(version);
                let identity = ToAgent::Identity { id: self.id.clone(), hostname: self.hostname.clone() };
                let mut line = serde_json::to_vec(&identity)?;
                line.push(b'\n');
                Ok(Next::Say(line))
            }
            (Phase::Silent, _) => Err(io::Error::other("it does not say hello")),
            (Phase::Told(version), ToHost::Identity { id }) if id == self.id => {
                let version = version.clone();
                self.phase = Phase::Known;
                Ok(Next::Known(version))
            }
            (Phase::Told(_), other) => Err(io::Error::other(format!("it answers {other:?}"))),
            (Phase::Known, _) => Ok(Next::Listen),
        }
    }
}

/// One line with its end, as long as it may be.
pub async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let count = reader.take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::other("a line is too long or cut off"));
    }
    Ok(line)
}
