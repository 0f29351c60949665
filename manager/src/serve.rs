//! The whole service, listening: `yunju serve`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::api::access::Peer;
use crate::folder::LONGEST_DATA_PATH;
use crate::machines::{Limits, Machines, Programs};
use crate::origins::{DomainError, Origins};
use crate::service::Service;
use crate::store::Store;
use crate::viewers::{self, Policy};
use crate::{api, machines, meter, store, tls, trash, warm};

/// The local socket's name in the data folder.
pub const SOCKET: &str = "yunju.sock";

/// How the service is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that lasts.
    pub data: PathBuf,
    /// Where browsers connect.
    pub listen: SocketAddr,
    /// With which certificate; without one they speak HTTP.
    pub tls: Option<tls::Source>,
    /// Where who speaks HTTP is told where HTTPS is, beside `listen` itself.
    pub redirect: Option<SocketAddr>,
    /// The host name by which browsers reach it; each desktop that is open has one below.
    pub domain: String,
    /// Where images are.
    pub images: PathBuf,
    /// What machines consist of.
    pub programs: Programs,
    /// How long things may take.
    pub limits: Limits,
    /// What becomes of the machines when the service ends.
    pub at_end: AtEnd,
    /// Where, beside the API, what there is to count is told whoever can connect.
    pub metrics: Option<SocketAddr>,
    /// How often what desktops use is counted.
    pub meter_every: Duration,
    /// What was deleted can be recovered for so long.
    pub keep_deleted: Duration,
    /// What happens by itself while it runs.
    pub policy: Policy,
    /// Whether images are warmed by themselves.
    pub warm: Warm,
}

/// When images are warmed by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warm {
    /// Never.
    No,
    /// When no machine has run for a minute.
    Quietly,
    /// As soon as the service runs.
    AtOnce,
}

/// What becomes of the machines when the service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// They go on, and the next service takes them up.
    Leave,
    /// They are suspended, and the next service wakes them.
    Suspend,
    /// They are stopped.
    Stop,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Socket paths would be too long.
    #[error("the data folder's path {path} has {length} bytes, sockets in it allow {LONGEST_DATA_PATH}: choose a shorter one with --data", path = .0.display(), length = .0.as_os_str().len())]
    LongPath(PathBuf),
    /// Another service has the data.
    #[error("another `yunju serve` uses {path}: stop it, or choose another folder with --data", path = .0.display())]
    InUse(PathBuf),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The system refuses something else.
    #[error("{doing} {path}: {error}", path = path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No name for it.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What was left of machines.
    #[error(transparent)]
    Machines(#[from] machines::Error),
}

/// Runs the service until SIGINT or SIGTERM, or SIGHUP where that has no certificate to read anew. `ready` is told the address when browsers can connect.
pub async fn run(options: Options, ready: impl FnOnce(&str)) -> Result<(), Error> {
    let mut signals = Signals::new().map_err(|error| system("cannot watch signals for", &options.data, error))?;
    let origins = Origins::new(&options.domain, options.tls.is_some())?;
    let data = prepare(&options.data)?;
    let _lock = lock(&data)?;
    let listen = |error| Error::Listen { address: options.listen.to_string(), error };
    let browsers = TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = browsers.local_addr().map_err(listen)?;
    let url = url(&origins, address);
    let tls = options.tls.as_ref().map(|source| {
        let names = tls::own_names(address.ip(), origins.domain());
        let certificate = tls::Certificate::of(source, &data, names);
        certificate.map(Arc::new)
    });
    let tls = tls.transpose()?;
    let redirecting = match options.redirect.filter(|_| tls.is_some()) {
        Some(from) => {
            let bound = TcpListener::bind(from).await;
            let bound = bound.map_err(|error| Error::Listen { address: from.to_string(), error })?;
            Some(tokio::spawn(tls::redirect_all(bound, address.port())))
        }
        None => None,
    };
    if origins.local() && !address.ip().is_loopback() {
        tracing::warn!(
            "desktops open for browsers on this host only, at {url}: name the service with --domain NAME, where NAME and *.desk.NAME are its address"
        );
    }

    let store = Arc::new(Store::open(&data.join("yunju.sqlite"))?);
    let machines = Machines::new(store.clone(), data.clone(), options.programs, options.limits);
    machines.recover().await?;
    let local = bind_local(&data.join(SOCKET))?;

    let mut service = Service::new(store, machines.clone(), data.clone(), options.images, url.clone(), origins);
    service.keep_deleted = options.keep_deleted;
    let service = Arc::new(service);
    tokio::spawn(service.clone().tell_states());
    tokio::spawn(service.clone().tell_viewers());
    service.resume_operations()?;
    let metering = tokio::spawn(meter::tend(service.clone(), options.meter_every));
    let emptying = tokio::spawn(trash::tend(service.clone()));
    let tending = tokio::spawn(viewers::tend(service.clone(), options.policy));
    let warming =
        (options.warm != Warm::No).then(|| tokio::spawn(warm::tend(service.clone(), options.warm == Warm::AtOnce)));
    let counting = match options.metrics {
        Some(at) => {
            let bound = TcpListener::bind(at).await;
            let bound = bound.map_err(|error| Error::Listen { address: at.to_string(), error })?;
            Some(tokio::spawn(axum::serve(bound, api::health::alone(service.clone())).into_future()))
        }
        None => None,
    };
    let app = api::router(service.clone());
    let strict = options.tls.as_ref().is_some_and(|source| *source != tls::Source::SelfSigned);
    let header = strict.then(|| HeaderValue::from_static(tls::STRICT));
    let public = app
        .clone()
        .layer(SetResponseHeaderLayer::overriding(header::STRICT_TRANSPORT_SECURITY, move |_: &_| header.clone()));
    let public = public.into_make_service_with_connect_info::<Peer>();
    let app = app.into_make_service_with_connect_info::<Peer>();
    tracing::info!(%url, data = %data.display(), "listening");
    ready(&url);
    let watchdog = tokio::spawn(supervised(service.clone()));
    let stop = async {
        signals.end(tls.as_deref()).await;
        let _ = sd_notify::notify(&[NotifyState::Stopping]); // nobody may listen
        service.ending.store(true, Ordering::Relaxed);
        redirecting.iter().for_each(tokio::task::JoinHandle::abort);
        tending.abort();
        emptying.abort();
        metering.abort();
        warming.iter().for_each(tokio::task::JoinHandle::abort);
        match options.at_end {
            AtEnd::Leave => {}
            AtEnd::Suspend => {
                tracing::info!("suspending all machines; a second signal leaves them as they are");
                tokio::select! {
                    () = machines.suspend_all() => {}
                    () = signals.any() => {}
                }
            }
            AtEnd::Stop => {
                tracing::info!("stopping all machines; a second signal ends them at once");
                tokio::select! {
                    () = machines.stop_all() => {}
                    () = signals.any() => machines.kill_all().await,
                }
            }
        }
    };
    let listening = async {
        match &tls {
            Some(certificate) => match tls::Listener::new(browsers, certificate.clone()) {
                Ok(browsers) => drop(axum::serve(browsers, public).await),
                Err(error) => tracing::error!(%error, "no HTTPS"),
            },
            None => drop(axum::serve(browsers, public).await),
        }
    };
    // the pages go on answering while machines stop
    tokio::select! {
        () = stop => {}
        () = listening => {}
        _ = axum::serve(local, app).into_future() => {}
    }
    watchdog.abort();
    counting.iter().for_each(tokio::task::JoinHandle::abort);
    let _ = fs::remove_file(data.join(SOCKET));
    Ok(())
}

/// Tells systemd, if it started us, that the service is ready, and as often as it wants to know that the store answers.
async fn supervised(service: Arc<Service>) {
    let _ = sd_notify::notify(&[NotifyState::Ready]); // nobody may listen
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut often = tokio::time::interval((within / 3).max(Duration::from_millis(100)));
    loop {
        often.tick().await;
        let asked = service.clone();
        match tokio::task::spawn_blocking(move || asked.store.answers()).await {
            Ok(Ok(())) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
            Ok(Err(error)) => tracing::error!(%error, "the store does not answer"),
            Err(error) => tracing::error!(%error, "the store cannot be asked"),
        }
    }
}

/// What to type into a browser.
fn url(origins: &Origins, address: SocketAddr) -> String {
    let (scheme, usual) = if origins.tls() { ("https", 443) } else { ("http", 80) };
    let port = if address.port() == usual { String::new() } else { format!(":{}", address.port()) };
    format!("{scheme}://{}{port}", origins.domain())
}

fn system(doing: &'static str, path: &Path, error: io::Error) -> Error {
    Error::System { doing, path: path.to_owned(), error }
}

/// Makes the data folder if it is missing and resolves it.
fn prepare(data: &Path) -> Result<PathBuf, Error> {
    for part in ["desktops", "layers", "snapshots"] {
        let folders = DirBuilder::new().recursive(true).mode(0o700).create(data.join(part));
        folders.map_err(|error| system("cannot make", data, error))?;
    }
    let data = fs::canonicalize(data).map_err(|error| system("cannot find", data, error))?;
    if data.as_os_str().len() > LONGEST_DATA_PATH {
        return Err(Error::LongPath(data));
    }
    Ok(data)
}

/// One service at a time: given back by the kernel whatever happens. A record lock, which a child that
/// was just forked does not hold as well.
fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join("serve.lock");
    let file = File::create(&path).map_err(|error| system("cannot open", &path, error))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Error::InUse(data.to_owned())),
        Err(error) => Err(system("cannot lock", &path, error.into())),
    }
}

/// The local socket appears with its permissions, in place of one that a killed service left.
fn bind_local(path: &Path) -> Result<UnixListener, Error> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let bind = || {
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    bind().map_err(|error| Error::Listen { address: path.display().to_string(), error })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the end. With a certificate SIGHUP is no end: it is read anew.
    async fn end(&mut self, tls: Option<&tls::Certificate>) {
        let Some(certificate) = tls else { return self.any().await };
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hang_up.recv() => match certificate.reload() {
                    Ok(()) => tracing::info!("the certificate was read anew"),
                    Err(error) => tracing::error!(%error, "the certificate stays as it was"),
                },
            }
        }
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
