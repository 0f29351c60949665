//! One connection to the host: says hello, then does what each line asks for.

use std::io::{self, Read, Write};

use crate::identity::{self, Identity};
use crate::lines::Lines;
use crate::protocol::agent::{LONGEST_LINE, ToAgent, ToHost};

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// The host closed it.
    Closed,
    /// It broke.
    Broken(io::Error),
    /// The guest could not become what it was told to be. The host says it again at the next connection.
    Identity(identity::Error),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => write!(f, "closed by the host"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Serves one connection until it ends. Lines that mean nothing to this version are passed over.
pub fn run(from_host: impl Read, to_host: impl Write, identity: &Identity) -> End {
    match serve(from_host, to_host, identity) {
        Ok(()) => End::Closed,
        Err(end) => end,
    }
}

fn serve(from_host: impl Read, mut to_host: impl Write, identity: &Identity) -> Result<(), End> {
    say(&mut to_host, &ToHost::Hello { version: env!("CARGO_PKG_VERSION").to_owned() })?;
    let mut lines = Lines::new(from_host, LONGEST_LINE);
    while let Some(line) = lines.next()? {
        match serde_json::from_slice(&line) {
            Ok(ToAgent::Identity { id, hostname }) => {
                identity.take_on(&id, &hostname).map_err(End::Identity)?;
                say(&mut to_host, &ToHost::Identity { id })?;
            }
            Err(error) => eprintln!("yunju-agent: a line of the host means nothing to me: {error}"),
        }
    }
    Ok(())
}

/// One line, in one write.
fn say(to_host: &mut impl Write, word: &ToHost) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    to_host.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0d9cb1f6-5b3c-4b0e-9a55-2f5f3c1f0a11";

    /// What the agent answers to these lines, and how it ends.
    fn answers(lines: &[u8]) -> (Vec<ToHost>, End) {
        let root = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        let end = run(lines, &mut said, &Identity::new(root.path(), |_| Ok(())));
        let said = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (said.map(|line| serde_json::from_slice(line).unwrap()).collect(), end)
    }

    fn identity(id: &str) -> Vec<u8> {
        format!("{{\"type\":\"identity\",\"id\":\"{id}\",\"hostname\":\"alice\"}}\n").into_bytes()
    }

    #[test]
    fn it_says_hello_first_and_answers_each_identity() {
        let (said, end) = answers(&[identity(ID), identity(ID)].concat());
        assert!(matches!(&said[0], ToHost::Hello { version } if !version.is_empty()));
        assert_eq!(said[1..], [ToHost::Identity { id: ID.into() }, ToHost::Identity { id: ID.into() }]);
        assert!(matches!(end, End::Closed));
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let nonsense: [&[u8]; 7] = [
            b"\n",
            b"null\n",
            b"{\"type\":\"self-destruct\"}\n",
            b"{\"type\":\"identity\"}\n",
            b"{\"type\":\"identity\",\"id\":7,\"hostname\":[]}\n",
            b"\xff\xfe\0\n",
            &[b"[".repeat(60_000).as_slice(), b"\n"].concat(),
        ];
        let (said, end) = answers(&[nonsense.concat(), identity(ID)].concat());
        assert_eq!(said.last(), Some(&ToHost::Identity { id: ID.into() }));
        assert!(matches!(end, End::Closed));
    }

    #[test]
    fn a_line_that_never_ends_breaks_the_connection() {
        let (said, end) = answers(&b"x".repeat(LONGEST_LINE * 2));
        assert_eq!(said.len(), 1, "hello");
        assert!(matches!(end, End::Broken(_)));
    }

    #[test]
    fn an_identity_that_cannot_be_taken_on_is_not_answered() {
        let (said, end) = answers(&[identity("../../etc"), identity(ID)].concat());
        assert_eq!(said.len(), 1, "hello");
        assert!(matches!(end, End::Identity(_)));
    }
}
