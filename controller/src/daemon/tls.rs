//! TLS of the daemon's sockets, by rustls: certificates and keys from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use thiserror::Error;
use twintrack_link::Endpoint;

use super::settings::{ControlTls, LinkTls, NbdTls, Settings};

/// What is spoken with other arrays: nothing older.
const LINK_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// The TLS of one socket. Clones are the same.
#[derive(Debug, Clone)]
pub struct ServerTls(pub(super) Arc<ServerConfig>);

/// How other arrays are connected to over TCP. Clones are the same.
#[derive(Debug, Clone, Default)]
pub enum LinkSecurity {
    /// As it is, and on this machine only.
    #[default]
    ThisMachine,
    /// As it is, anywhere: the network is trusted.
    Trusted,
    /// Over TLS: both sides show who they are.
    Tls(Arc<ClientConfig>),
}

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
    let [nbd, control, link] = settings.tcp();
    let mut add = |endpoints: Vec<&Endpoint>, tls: ServerTls| {
        all.extend(endpoints.into_iter().map(|endpoint| (endpoint.clone(), tls.clone())));
    };
    if let Some(NbdTls { certificate, key, client_ca }) = &settings.nbd.tls {
        let client_ca = client_ca.as_ref().map(|path| (folder.join(path), "the CA of hosts"));
        add(nbd, Identity::read(folder, certificate, key)?.server(client_ca, ALL_VERSIONS)?);
    }
    if let Some(ControlTls { certificate, key }) = &settings.control.tls {
        add(control, Identity::read(folder, certificate, key)?.server(None, ALL_VERSIONS)?);
    }
    if let Some(LinkTls { certificate, key, peer_ca }) = &settings.link.tls {
        let peer_ca = (folder.join(peer_ca), PEER_CA);
        add(link, Identity::read(folder, certificate, key)?.server(Some(peer_ca), LINK_VERSIONS)?);
    }
    Ok(all)
}

/// How other arrays are connected to.
pub(super) fn link(settings: &Settings, folder: &Path) -> Result<LinkSecurity, TlsError> {
    Ok(match &settings.link.tls {
        Some(LinkTls { certificate, key, peer_ca }) => {
            let identity = Identity::read(folder, certificate, key)?;
            LinkSecurity::Tls(identity.client(&folder.join(peer_ca), LINK_VERSIONS)?)
        }
        None if settings.link.insecure => LinkSecurity::Trusted,
        None => LinkSecurity::ThisMachine,
    })
}

const PEER_CA: &str = "the CA of other arrays";

/// Who this array is.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
}

impl Identity {
    fn read(folder: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (certificate, key) = (folder.join(certificate), folder.join(key));
        let chain = certificates(&certificate, "a certificate")?;
        let private = PrivateKeyDer::from_pem_file(&key)
            .map_err(|error| unusable(&key, "a private key", in_words(&error)))?;
        Ok(Self { certificate, key, chain, private })
    }

    /// For who is connected to; `client_ca`: whose certificates clients have to show.
    fn server(
        self,
        client_ca: Option<(PathBuf, &'static str)>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerTls, TlsError> {
        let Self { certificate, key, chain, private } = self;
        let pair = |error: rustls::Error| unmatched(&certificate, &key, &error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(pair)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some((path, what)) => {
                let roots = Arc::new(roots(&path, what)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| unusable(&path, what, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        Ok(ServerTls(Arc::new(builder.with_single_cert(chain, private).map_err(pair)?)))
    }

    /// For who connects, to those whose certificates that CA has signed.
    fn client(
        self,
        ca: &Path,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let Self { certificate, key, chain, private } = self;
        let pair = |error: rustls::Error| unmatched(&certificate, &key, &error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(pair)?;
        let builder = builder.with_root_certificates(roots(ca, PEER_CA)?);
        Ok(Arc::new(builder.with_client_auth_cert(chain, private).map_err(pair)?))
    }
}

fn roots(path: &Path, what: &'static str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path, what)? {
        roots.add(root).map_err(|error| unusable(path, what, error.to_string()))?;
    }
    Ok(roots)
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

fn unmatched(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
