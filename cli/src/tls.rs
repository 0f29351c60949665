//! HTTPS towards a service, and whom it is believed.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Those that whom this host trusts signed.
    #[default]
    Host,
    /// Those that these signed.
    Signed {
        /// Certificates in PEM.
        pem: String,
    },
    /// This one alone, whatever names are in it.
    Pinned {
        /// Of the whole certificate, in hexadecimal.
        sha256: String,
    },
}

impl Trust {
    /// Reads a SHA-256 in hexadecimal, with colons or without.
    pub fn fingerprint(text: &str) -> Result<Self> {
        let sha256 = text.trim_start_matches("sha256:").replace(':', "").to_lowercase();
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("`{text}` is no SHA-256: write its 64 hexadecimal digits");
        }
        Ok(Self::Pinned { sha256 })
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::Pinned { .. } => return Ok(None),
            Self::Signed { pem } => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots
                        .add(certificate.context("the --ca-file is no PEM")?)
                        .context("the --ca-file cannot be used")?;
                }
            }
            // what a host has and nobody can read is left out
            Self::Host => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            match self {
                Self::Host => return Ok(None), // no certificate is believed, but it can be asked about
                _ => bail!("the --ca-file has no certificate in PEM"),
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Ok(Some(verifier.build().context("whom this host trusts cannot be found out")?))
    }
}

/// The certificate's SHA-256 in hexadecimal.
fn sha256(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`Trust`] says, and a memory of what was shown.
#[derive(Debug)]
struct Judge {
    trust: Trust,
    signed: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<String>>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = sha256(own);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown.clone());
        match (&self.trust, &self.signed) {
            (Trust::Pinned { sha256 }, _) if *sha256 == shown => Ok(ServerCertVerified::assertion()),
            (_, Some(verifier)) => verifier.verify_server_cert(own, others, name, ocsp, now),
            _ => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes a connection HTTPS, if the other side is believed.
pub async fn speak(stream: TcpStream, host: &str, trust: &Trust, url: &str) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let signed = trust.verifier(&provider)?;
    let judge = Arc::new(Judge { trust: trust.clone(), signed, provider: provider.clone(), shown: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(judge.clone()).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("`{host}` is no name of a host"))?;
    let done = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    done.map_err(|error| {
        let shown = judge.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let url = url.to_owned();
        match (tls, shown) {
            (Some(Error::InvalidCertificate(why)), Some(fingerprint)) => {
                Failure::Distrusted { url, error: why.to_string(), fingerprint }.into()
            }
            _ => Failure::Away { url, error: error.to_string() }.into(),
        }
    })
}
