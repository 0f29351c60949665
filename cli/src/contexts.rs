//! Which service is meant, and what to show it: `yunju login`, `logout`, `context …`.
//!
//! `$XDG_CONFIG_HOME/yunju/contexts.json` (default `~/.config`), which only its user can read, has a token for each service
//! that somebody logged in to. Without one that is in use, the service is the one on this host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use yunju_manager::model::{Login, NewToken, NewTokenAnswer, Scope, User};

use crate::args::{self, Listing};
use crate::client::{Client, Site};
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::tls::Trust;

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Contexts {
    /// The one in use, by name.
    current: Option<String>,
    /// All, by name.
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Context {
    url: String,
    user: String,
    token: String,
    #[serde(default)]
    trust: Trust,
}

impl Context {
    fn client(&self) -> Result<Client> {
        Client::remote(Site::parse(&self.url)?.trusting(self.trust.clone()), Some(self.token.clone()))
    }
}

/// A context as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    url: String,
    user: String,
    current: bool,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["NAME", "URL", "USER", "NOTE"];

    fn cells(&self) -> Vec<String> {
        let note = if self.current { "in use" } else { "" };
        vec![self.name.clone(), self.url.clone(), self.user.clone(), note.to_owned()]
    }
}

fn file() -> PathBuf {
    let folder = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty());
    folder.map_or_else(|| crate::home(".config"), PathBuf::from).join("yunju/contexts.json")
}

impl Contexts {
    fn load() -> Result<Self> {
        let file = file();
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} is not understood", file.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    fn save(&self) -> Result<()> {
        let file = file();
        let save = || {
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
            let new = file.with_extension("new");
            let _ = fs::remove_file(&new);
            let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            to.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            to.sync_all()?;
            fs::rename(&new, &file)
        };
        save().with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The service that is meant: by `--context`, by `--data`, by the context in use, or the one of this host.
pub fn choose(data: Option<&Path>, default_data: PathBuf, name: Option<&str>) -> Result<Client> {
    if let (Some(data), None) = (data, name) {
        return Ok(Client::local(data));
    }
    let contexts = Contexts::load()?;
    let Some(name) = name.or(contexts.current.as_deref()) else { return Ok(Client::local(&default_data)) };
    let context = contexts.contexts.get(name);
    let context = context.with_context(|| format!("there is no context `{name}`: see `yunju context ls`"))?;
    context.client()
}

/// Runs `yunju login`.
pub async fn login(login: args::Login) -> Result<()> {
    let trust = match (login.ca_file, login.fingerprint) {
        (Some(file), _) => {
            let pem = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Trust::Signed { pem }
        }
        (_, Some(text)) => Trust::fingerprint(&text)?,
        (None, None) => Trust::Host,
    };
    let (site, trust) = trusted(Site::parse(&login.url)?.trusting(trust.clone()), trust).await?;
    let name = login.name.unwrap_or_else(|| site.host().to_owned());
    let (token, user) = match login.token_stdin {
        true => with_token(&site, read_line("token: ", false)?).await?,
        false => with_password(&site, login.user).await?,
    };
    let mut contexts = Contexts::load()?;
    let context = Context { url: site.url(), user: user.clone(), token, trust };
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    contexts.save()?;
    eprintln!("logged in to {} as {user}; `yunju context use {name}` is in use", site.url());
    Ok(())
}

/// The site, and why it is believed. Somebody at a terminal is asked about a certificate that nobody vouches for.
async fn trusted(site: Site, trust: Trust) -> Result<(Site, Trust)> {
    let error = match site.check().await {
        Ok(()) => return Ok((site, trust)),
        Err(error) => error,
    };
    let shown = match error.downcast_ref() {
        Some(Failure::Distrusted { fingerprint, .. }) if trust == Trust::Host && io::stdin().is_terminal() => {
            fingerprint.clone()
        }
        _ => return Err(error),
    };
    eprintln!("{error}\nCompare that with what the service's owner says: it is in the log of `yunju serve`.");
    if read_line("trust it from now on? [y/N] ", true)?.to_lowercase() != "y" {
        return Err(error);
    }
    let trust = Trust::Pinned { sha256: shown };
    Ok((site.trusting(trust.clone()), trust))
}

async fn with_token(site: &Site, token: String) -> Result<(String, String)> {
    let client = Client::remote(site.clone(), Some(token.clone()))?;
    let about: yunju_manager::model::Token = client.get("/v1/token").await?;
    Ok((token, about.user))
}

async fn with_password(site: &Site, user: Option<String>) -> Result<(String, String)> {
    let name = match user {
        Some(user) => user,
        None => read_line("user: ", true)?,
    };
    let password = read_line("password: ", false)?;
    let client = Client::remote(site.clone(), None)?;
    let mut login = Login { name: name.clone(), password, code: None };
    let session = match client.log_in(&login).await {
        Err(error) if matches!(error.downcast_ref(), Some(Failure::Refused(p)) if p.code == "second_factor_needed") => {
            login.code = Some(read_line("code of your authenticator: ", true)?);
            client.log_in(&login).await?
        }
        session => session?,
    };
    let user: User = session.get("/v1/session").await?;
    if user.must_change_password {
        session.delete("/v1/session").await?;
        bail!("{name} has yet to choose a password: log in once at {}/login", site.url());
    }
    let random: u64 = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let new = NewToken { name: format!("cli-{random:016x}"), scopes: Scope::ALL.to_vec(), days: 30, user: None };
    let made: Result<NewTokenAnswer> = session.post("/v1/tokens", &new).await;
    session.delete("/v1/session").await?;
    let made = made?;
    Ok((made.token, user.name))
}

/// A line from the terminal, unseen unless `seen`, or from a pipe.
fn read_line(ask: &str, seen: bool) -> Result<String> {
    let input = io::stdin();
    let terminal = input.is_terminal();
    if terminal {
        eprint!("{ask}");
        io::stderr().flush()?;
    }
    let hidden = (terminal && !seen).then(|| Hidden::new(&input)).transpose()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    if hidden.is_some() {
        eprintln!();
    }
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    if line.is_empty() {
        bail!("{} is missing: type it, or write it to standard input", ask.trim_end_matches(": "));
    }
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn new(terminal: &io::Stdin) -> Result<Self> {
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= rustix::termios::LocalModes::ECHO;
        rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

/// Runs `yunju logout`: the token ends here and there.
pub async fn logout(name: Option<String>) -> Result<()> {
    let mut contexts = Contexts::load()?;
    let name = name.or(contexts.current.clone()).context("no context is in use: nobody is logged in")?;
    let context = contexts.contexts.remove(&name).with_context(|| format!("there is no context `{name}`"))?;
    if contexts.current.as_ref() == Some(&name) {
        contexts.current = None;
    }
    contexts.save()?;
    if let Err(error) = context.client()?.delete("/v1/token").await {
        eprintln!("the token was forgotten here, but not ended at {}: {error:#}", context.url);
    }
    Ok(())
}

/// Runs one of the context commands.
pub fn run(command: args::Context) -> Result<()> {
    let mut contexts = Contexts::load()?;
    match command {
        args::Context::Ls(Listing { output: format }) => {
            let current = contexts.current.clone();
            let listed: Vec<_> = contexts
                .contexts
                .into_iter()
                .map(|(name, context)| Listed {
                    current: current.as_ref() == Some(&name),
                    name,
                    url: context.url,
                    user: context.user,
                })
                .collect();
            output::list(&listed, format)
        }
        args::Context::Use { name } => {
            if name != "local" && !contexts.contexts.contains_key(&name) {
                bail!("there is no context `{name}`: see `yunju context ls`");
            }
            contexts.current = Some(name).filter(|name| name != "local");
            contexts.save()
        }
    }
}
