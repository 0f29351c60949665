//! `yunju console`: a terminal, or a script's pipes, on a desktop's serial port.

use std::io::{IsTerminal, stdin, stdout};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use crate::args::Console;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;

/// Ctrl-]
const LEAVE: u8 = 0x1d;

type Serial = TokioIo<hyper::upgrade::Upgraded>;

/// Runs the command.
pub async fn run(client: &Client, arguments: Console) -> Result<()> {
    let interactive = stdin().is_terminal() && arguments.exec.is_none() && arguments.until.is_none();
    let path = format!("/v1/desktops/{}/console?history={interactive}", segment(&arguments.name));
    let upgraded = client.upgrade(&path, "yunju-console").await?;
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let timeout = arguments.timeout.map(|seconds| Duration::from_secs(seconds.into()));
    if let Some(command) = &arguments.exec {
        return exec(command, timeout.unwrap_or(Duration::from_secs(60)), reader, writer).await;
    }
    if interactive {
        return terminal(&arguments.name, reader, writer).await;
    }
    pipe(arguments.until.as_deref(), timeout, reader, writer).await
}

/// The terminal's settings, put back at the end.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = tcgetattr(stdin()).context("this terminal's settings cannot be read")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).context("this terminal's settings cannot be changed")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

async fn terminal(name: &str, mut reader: ReadHalf<Serial>, mut writer: WriteHalf<Serial>) -> Result<()> {
    if stdout().is_terminal() {
        eprintln!("connected to the serial port of {name}; Ctrl-] leaves");
    }
    let raw = Raw::new()?;
    let typing = async {
        let mut input = tokio::io::stdin();
        let mut buffer = [0; 1024];
        loop {
            let count = input.read(&mut buffer).await?;
            let typed = &buffer[..count];
            let leave = typed.iter().position(|&byte| byte == LEAVE);
            writer.write_all(&typed[..leave.unwrap_or(count)]).await?;
            if leave.is_some() || count == 0 {
                return anyhow::Ok("left");
            }
        }
    };
    let showing = async {
        let mut buffer = [0; 16 << 10];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return anyhow::Ok("the machine ended"),
                count => output::raw(&buffer[..count])?,
            }
        }
    };
    let end = tokio::select! { end = typing => end, end = showing => end };
    drop(raw);
    eprintln!("\n{name}: {}", end?);
    Ok(())
}

/// Types standard input, prints output until the end.
async fn pipe(
    until: Option<&str>,
    timeout: Option<Duration>,
    mut reader: ReadHalf<Serial>,
    mut writer: WriteHalf<Serial>,
) -> Result<()> {
    let patience = timeout.unwrap_or(Duration::from_secs(if until.is_some() { 60 } else { 10 }));
    let typing = async {
        let begun = Instant::now();
        tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await?;
        sleep_until(if until.is_some() { begun } else { Instant::now() } + patience).await;
        anyhow::Ok(())
    };
    tokio::pin!(typing);
    let mut seen = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        tokio::select! {
            end = &mut typing => {
                end?;
                return match until {
                    Some(text) => Err(Failure::TimedOut(format!("`{text}` was not printed within {} s", patience.as_secs())).into()),
                    None => Ok(()),
                };
            }
            count = reader.read(&mut buffer) => {
                let count = count?;
                if count == 0 {
                    return match until {
                        Some(text) => anyhow::bail!("the machine ended before it printed `{text}`"),
                        None => Ok(()),
                    };
                }
                output::raw(&buffer[..count])?;
                if let Some(text) = until {
                    seen.extend_from_slice(&buffer[..count]);
                    if find(&seen, text.as_bytes()).is_some() {
                        return Ok(());
                    }
                    seen.drain(..seen.len().saturating_sub(text.len()));
                }
            }
        }
    }
}

/// Runs a command between two marks that the shell prints, so that its output can be told from the
/// echo of what is typed.
async fn exec(
    command: &str,
    patience: Duration,
    mut reader: ReadHalf<Serial>,
    mut writer: WriteHalf<Serial>,
) -> Result<()> {
    let id = std::process::id();
    let quoted = command.replace('\'', r"'\''");
    // the echo of this line holds the marks with quotes in them, what it prints holds them without
    let line = format!("\necho 'yunju-''{id}-begin'; (eval '{quoted}'); echo \"yunju-\"\"{id}-end:$?:\"\n");
    writer.write_all(line.as_bytes()).await?;
    let (begin, end) = (format!("yunju-{id}-begin"), format!("yunju-{id}-end:"));
    let mut exchange = Exchange { seen: Vec::new(), begin, end, begun: false };
    let late = Instant::now() + patience;
    let mut buffer = [0; 16 << 10];
    loop {
        let count = tokio::select! {
            count = reader.read(&mut buffer) => count?,
            () = sleep_until(late) => {
                let text = format!("the command did not end within {} s", patience.as_secs());
                return Err(Failure::TimedOut(text).into());
            }
        };
        if count == 0 {
            anyhow::bail!("the machine ended before the command did");
        }
        let (text, code) = exchange.take(&buffer[..count]);
        output::raw(&text)?;
        match code {
            Some(0) => return Ok(()),
            Some(code) => return Err(Failure::Guest(code).into()),
            None => {}
        }
    }
}

/// What came so far of a command's output.
struct Exchange {
    seen: Vec<u8>,
    begin: String,
    end: String,
    begun: bool,
}

impl Exchange {
    /// Takes bytes in and gives out what is surely the command's, and its code at the end.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<u8>) {
        self.seen.extend_from_slice(bytes);
        if !self.begun {
            let line_end = |at: usize| find(&self.seen[at..], b"\n").map(|end| at + end + 1);
            match find(&self.seen, self.begin.as_bytes()).and_then(line_end) {
                Some(start) => drop(self.seen.drain(..start)),
                None => return (Vec::new(), None),
            }
            self.begun = true;
        }
        if let Some(at) = find(&self.seen, self.end.as_bytes()) {
            let rest = &self.seen[at + self.end.len()..];
            if let Some(stop) = find(rest, b":") {
                let code = String::from_utf8_lossy(&rest[..stop]).parse().unwrap_or(1);
                return (plain(&self.seen[..at]), Some(code));
            }
            return (Vec::new(), None);
        }
        // a mark may have come in half, and a line's end too
        let sure = self.seen.len().saturating_sub(self.end.len() + 1);
        let text: Vec<u8> = self.seen.drain(..sure).collect();
        (plain(&text), None)
    }
}

/// Without the carriage returns that a terminal line discipline adds.
fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|&byte| byte != b'\r').collect()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len().max(1)).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(text: &[u8], piece: usize) -> (String, Option<u8>) {
        let mut exchange =
            Exchange { seen: Vec::new(), begin: "yunju-1-begin".into(), end: "yunju-1-end:".into(), begun: false };
        let mut all = Vec::new();
        for bytes in text.chunks(piece) {
            let (text, code) = exchange.take(bytes);
            all.extend(text);
            if code.is_some() {
                return (String::from_utf8(all).unwrap(), code);
            }
        }
        (String::from_utf8(all).unwrap(), None)
    }

    #[test]
    fn a_commands_output_is_cut_out_of_echo_and_prompt_however_it_arrives() {
        let text = b"# echo 'yunju-''1-begin'; (eval 'ls'); echo \"yunju-\"\"1-end:$?:\"\r\nyunju-1-begin\r\na\r\nb\r\nyunju-1-end:3:\r\n# ";
        for piece in 1..text.len() {
            assert_eq!(through(text, piece), ("a\nb\n".to_owned(), Some(3)), "in pieces of {piece}");
        }
    }
}
