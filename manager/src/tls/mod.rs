//! HTTPS: which certificate is shown, and how it is made or read anew.

mod listener;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

pub use listener::{Listener, redirect_all};

/// What a browser is to remember of a service with a certificate: RFC 6797. Not of one that made its own, as
/// nobody could get around a new one.
pub const STRICT: &str = "max-age=31536000";

/// A certificate that the service makes is good for so long, and replaced after [`REPLACED`].
const LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
const REPLACED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// PEM files: the chain, the service's own first, and its private key.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The service makes one, for development, and keeps it in its data folder.
    SelfSigned,
}

/// Why there is no HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the certificate's.
    #[error("reading {what} from {path}: {error}", path = path.display())]
    Read {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: rustls_pki_types::pem::Error,
    },
    /// There is nothing in it.
    #[error("{path} has no certificate in PEM", path = .0.display())]
    Empty(PathBuf),
    /// The two do not fit.
    #[error("the certificate in {path} cannot be used: {error}", path = path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
    /// One could not be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Nor kept.
    #[error("keeping a certificate in {path}: {error}", path = path.display())]
    Keep {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The certificate that connections from now on are shown.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    now: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads it, or makes one in `data` for these names if that is what is wanted and there is none.
    pub fn of(source: &Source, data: &Path, names: Vec<String>) -> Result<Self, Error> {
        let (cert, key) = match source {
            Source::Files { cert, key } => (cert.clone(), key.clone()),
            Source::SelfSigned => own(&data.join("tls"), names)?,
        };
        let now = RwLock::new(read(&cert, &key)?);
        Ok(Self { cert, key, now })
    }

    /// Reads the files anew. Should they not be right, what was shown until now stays.
    pub fn reload(&self) -> Result<(), Error> {
        let config = read(&self.cert, &self.key)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn now(&self) -> Arc<ServerConfig> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let failed = |what, path: &Path, error| Error::Read { what, path: path.to_owned(), error };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| failed("a certificate", cert, error))?;
    if chain.is_empty() {
        return Err(Error::Empty(cert.to_owned()));
    }
    let fingerprint: String = Sha256::digest(&chain[0]).iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("a private key", key, error))?;
    let unusable = |error| Error::Unusable { path: cert.to_owned(), error };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(unusable)?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, secret).map_err(unusable)?;
    // websockets are asked for by HTTP/1.1
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tracing::info!(path = %cert.display(), %fingerprint, "certificate");
    Ok(Arc::new(config))
}

/// The service's own certificate in `folder`, made if there is none or it is old.
fn own(folder: &Path, names: Vec<String>) -> Result<(PathBuf, PathBuf), Error> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let age = fs::metadata(&cert).and_then(|file| file.modified()).ok().and_then(|made| made.elapsed().ok());
    if age.is_some_and(|age| age < REPLACED) && key.exists() {
        return Ok((cert, key));
    }
    let now = OffsetDateTime::from(SystemTime::now());
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "yunju development certificate");
    parameters.not_before = now - time::Duration::DAY;
    parameters.not_after = now + LIFE;
    let secret = rcgen::KeyPair::generate()?;
    let made = parameters.self_signed(&secret)?;
    let keep = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // the certificate last: without it both are made anew
        let _ = fs::remove_file(&cert);
        write(&key, &secret.serialize_pem())?;
        write(&cert, &made.pem())
    };
    keep().map_err(|error| Error::Keep { path: folder.to_owned(), error })?;
    Ok((cert, key))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The names that a certificate of the service's own is for: this host's, and those of the portal and of desktops.
pub fn own_names(listen: std::net::IpAddr, domain: &str) -> Vec<String> {
    let mut names: Vec<_> =
        ["localhost", "*.localhost", "*.desk.localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    names.extend(Some(host).filter(|host| !host.is_empty() && host != "localhost"));
    if domain != "localhost" {
        names.extend([domain.to_owned(), format!("*.desk.{domain}")]);
    }
    if !listen.is_unspecified() && !listen.is_loopback() {
        names.push(listen.to_string());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Certificate) {
        let data = tempfile::tempdir().unwrap();
        let names = own_names(std::net::Ipv4Addr::LOCALHOST.into(), "localhost");
        let certificate = Certificate::of(&Source::SelfSigned, data.path(), names).unwrap();
        (data, certificate)
    }

    #[test]
    fn a_certificate_that_was_made_is_kept_unseen_by_others_and_replaced_when_it_is_old() {
        use std::os::unix::fs::PermissionsExt;
        let (data, _) = made();
        let read = || fs::read(data.path().join("tls/cert.pem")).unwrap();
        let first = read();
        let mode = fs::metadata(data.path().join("tls/key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = || Certificate::of(&Source::SelfSigned, data.path(), vec!["localhost".to_owned()]).unwrap();
        again();
        assert_eq!(read(), first);
        let old = SystemTime::now() - REPLACED - Duration::from_secs(60);
        let file = fs::File::options().write(true).open(data.path().join("tls/cert.pem")).unwrap();
        file.set_modified(old).unwrap();
        again();
        assert_ne!(read(), first);
        fs::remove_file(data.path().join("tls/key.pem")).unwrap();
        again();
    }

    #[test]
    fn what_is_no_certificate_or_has_another_key_is_refused_and_the_one_before_stays() {
        let (data, certificate) = made();
        let before = certificate.now();
        let (cert, key) = (data.path().join("tls/cert.pem"), data.path().join("tls/key.pem"));
        fs::write(&cert, "nonsense").unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("no certificate"));
        fs::remove_file(&cert).unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("cert.pem"));
        let (other, _) = made();
        fs::copy(other.path().join("tls/cert.pem"), &cert).unwrap();
        assert!(matches!(certificate.reload(), Err(Error::Unusable { .. })));
        assert!(Arc::ptr_eq(&before, &certificate.now()));
        fs::copy(other.path().join("tls/key.pem"), &key).unwrap();
        certificate.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &certificate.now()));
    }
}
