//! Why a connection could not be encrypted, or not trusted.

use std::io;

use thiserror::Error;

/// Why TLS with an array failed. Nothing was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsFailure {
    /// Its certificate is signed by somebody else.
    #[error("its certificate is signed by none of the CAs that are trusted here")]
    UnknownIssuer,
    /// Its certificate is another host's.
    #[error("its certificate is not for {host}")]
    WrongName {
        /// Under which name it was reached.
        host: String,
    },
    /// Its certificate is too old or too new.
    #[error("its certificate is not valid at this time")]
    NotValidNow,
    /// What it said is not TLS.
    #[error("it does not speak TLS there")]
    NotTls,
    /// The array refused the certificate of this side, or the lack of one.
    #[error("it refused this side's certificate, or that there is none")]
    CertificateRefused,
    /// Anything else.
    #[error("TLS failed: {reason}")]
    Other {
        /// In words.
        reason: String,
    },
}

impl TlsFailure {
    /// What a [`Dial`](crate::Dial), or an encrypted stream, packed into its error.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        #[cfg(feature = "tls")]
        if let Some(cause) = inner.downcast_ref::<rustls::Error>() {
            return Some(crate::tls::failure(cause, "the server"));
        }
        inner.downcast_ref::<Self>().cloned()
    }
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        Self::new(io::ErrorKind::InvalidData, failure)
    }
}
