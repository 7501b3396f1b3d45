//! TLS by rustls: whom this side trusts, who it is, and connections that are encrypted from their start.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use twintrack_link::Endpoint;

use crate::dial::{Dial, Socket, TokioDial};
use crate::tls_failure::TlsFailure;

/// Whom this side trusts, and who it is. Clones are the same.
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<ClientConfig>);

/// Why certificates or a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientTlsError {
    /// Not PEM, or nothing of the kind in it.
    #[error("{what}: {reason}")]
    Pem {
        /// Which of the texts.
        what: &'static str,
        /// In words.
        reason: String,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("certificate and key cannot be used: {reason}")]
    Identity {
        /// In words.
        reason: String,
    },
}

impl ClientTls {
    /// Trusts what these CAs have signed: certificates as PEM.
    pub fn new(ca_pem: &[u8]) -> Result<Self, ClientTlsError> {
        Self::build(ca_pem, None)
    }

    /// And shows a certificate (a chain, own first, as PEM) with its private key (as PEM) to those who ask for one.
    pub fn with_identity(
        ca_pem: &[u8],
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<Self, ClientTlsError> {
        Self::build(ca_pem, Some((certificate_pem, key_pem)))
    }

    fn build(ca_pem: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, ClientTlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", ca_pem)? {
            roots.add(certificate).map_err(|error| pem("CA", error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(identity_error)?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| pem("key", error))?;
                let chain = certificates("certificate", certificate)?;
                builder.with_client_auth_cert(chain, key).map_err(identity_error)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Does the client's part of a TLS handshake over a fresh stream, and checks that the server is `host`, a name or an
    /// address. The error has a [`TlsFailure`] within, if it is one. A deadline is the caller's.
    pub async fn encrypt<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::from(TlsFailure::WrongName { host: host.to_owned() }))?;
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        connecting.await.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            cause.map(|cause| failure(cause, host).into()).unwrap_or(error)
        })
    }
}

/// Sockets of the operating system; those over TCP are encrypted from their start, as `https` is.
#[derive(Debug, Clone)]
pub struct TlsDial(ClientTls);

impl TlsDial {
    /// With these CAs, and perhaps a certificate.
    pub fn new(tls: ClientTls) -> Self {
        Self(tls)
    }
}

impl Dial for TlsDial {
    type Stream = Socket;

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<Socket> {
        match endpoint {
            Endpoint::Unix(_) => TokioDial.dial(endpoint).await,
            Endpoint::Tcp(host, port) => {
                let stream = crate::dial::tcp(host, *port).await?;
                Ok(Socket::from(self.0.encrypt(stream, host).await?))
            }
        }
    }
}

/// What an error of rustls says, of a server that was reached under the name `host`.
pub(crate) fn failure(error: &rustls::Error, host: &str) -> TlsFailure {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    match error {
        // A CA of the same name with another key shows as a signature that is wrong.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            TlsFailure::UnknownIssuer
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            TlsFailure::WrongName { host: host.to_owned() }
        }
        rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => TlsFailure::NotValidNow,
        rustls::Error::InvalidMessage(_) => TlsFailure::NotTls,
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => TlsFailure::CertificateRefused,
        other => TlsFailure::Other { reason: other.to_string() },
    }
}

fn certificates(what: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| pem(what, error))?;
    if found.is_empty() {
        return Err(pem(what, "there is no certificate in it"));
    }
    Ok(found)
}

fn pem(what: &'static str, reason: impl ToString) -> ClientTlsError {
    ClientTlsError::Pem { what, reason: reason.to_string() }
}

fn identity_error(error: rustls::Error) -> ClientTlsError {
    ClientTlsError::Identity { reason: error.to_string() }
}
