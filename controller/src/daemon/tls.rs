//! TLS of the daemon's sockets, by rustls: certificates and keys from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use twintrack_link::Endpoint;

use super::settings::{ControlTls, NbdTls, Settings};

/// The TLS of one socket. Clones are the same.
#[derive(Debug, Clone)]
pub struct ServerTls(pub(super) Arc<ServerConfig>);

/// Why certificates or a key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it has to be.
    #[error("{} cannot be used as {what}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// In words.
        reason: String,
    },
    /// Certificate and key are whole, but not for each other.
    #[error("{} and {} cannot be used together: {reason}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// In words.
        reason: String,
    },
}

/// The TLS of every TCP socket that has to have it.
pub(super) fn load(settings: &Settings, folder: &Path) -> Result<BTreeMap<Endpoint, ServerTls>, TlsError> {
    let mut all = BTreeMap::new();
    let (nbd, control) = settings.tcp();
    if let Some(NbdTls { certificate, key, client_ca }) = &settings.nbd.tls {
        let client_ca = client_ca.as_ref().map(|path| folder.join(path));
        let tls = server(&folder.join(certificate), &folder.join(key), client_ca.as_deref())?;
        all.extend(nbd.into_iter().map(|endpoint| (endpoint.clone(), tls.clone())));
    }
    if let Some(ControlTls { certificate, key }) = &settings.control.tls {
        let tls = server(&folder.join(certificate), &folder.join(key), None)?;
        all.extend(control.into_iter().map(|endpoint| (endpoint.clone(), tls.clone())));
    }
    Ok(all)
}

fn server(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerTls, TlsError> {
    let chain = certificates(certificate, "a certificate")?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable(key, "a private key", in_words(&error)))?;
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let what = "the CA of hosts";
            let mut roots = RootCertStore::empty();
            for root in certificates(path, what)? {
                roots.add(root).map_err(|error| unusable(path, what, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(path, what, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(ServerTls(Arc::new(builder.with_single_cert(chain, private).map_err(pair)?)))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let found = found.map_err(|error| unusable(path, what, in_words(&error)))?;
    if found.is_empty() {
        return Err(unusable(path, what, "there is no PEM certificate in it".to_owned()));
    }
    Ok(found)
}

/// Without the library's own words around those of the operating system.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn unusable(path: &Path, what: &'static str, reason: String) -> TlsError {
    TlsError::File { path: path.to_owned(), what, reason }
}
