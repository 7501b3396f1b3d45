//! What can go wrong between a host and an export.

use std::io;

use thiserror::Error;
use twintrack_link::nbd::{Errno, HandshakeError, ReadError, TransmissionError};

use crate::tls_failure::TlsFailure;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NbdError {
    /// The connection broke, ended or was silent during the handshake. Nothing was asked.
    #[error("the handshake was cut off: {kind}")]
    Connect {
        /// As the stream said.
        kind: io::ErrorKind,
    },
    /// The connection could not be encrypted, or the server or this side is not trusted. Nothing was asked.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The server refused the export, or does not speak the protocol.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The handshake ended other than it was begun.
    #[error("the handshake ended in something that was not asked for")]
    HandshakeEnd,
    /// The server answered with an error. A failed write may have been carried out in part.
    #[error("the server refused: {errno}{}{message}", if message.is_empty() { "" } else { ": " })]
    Remote {
        /// Which.
        errno: Errno,
        /// The server's words; may be empty.
        message: String,
        /// Where, if the server said so.
        offset: Option<u64>,
    },
    /// The connection had ended before; nothing was sent.
    #[error("the connection is closed{}", lost.as_ref().map(|lost| format!(": {lost}")).unwrap_or_default())]
    Closed {
        /// Why, unless it was [`super::NbdClient::disconnect`].
        lost: Option<Lost>,
    },
    /// The connection ended while the request was in flight: it may or may not have been carried out, or still be.
    #[error("the outcome is unknown: {lost}")]
    OutcomeUnknown {
        /// Why it ended.
        lost: Lost,
    },
    /// Over the server's limit; nothing was sent.
    #[error("{length_bytes} bytes in one request, over {max_bytes}")]
    TooLong {
        /// What was asked for.
        length_bytes: usize,
        /// The limit.
        max_bytes: u32,
    },
    /// The metadata context was not negotiated; nothing was sent.
    #[error("block status was not negotiated")]
    NoBlockStatus,
    /// The server said that it was done, without what was asked for.
    #[error("the server answered without what was asked for")]
    Unanswered,
    /// The server sent data that do not fit together.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl NbdError {
    /// From an error of the stream during the handshake.
    pub(crate) fn connect(error: io::Error) -> Self {
        TlsFailure::of(&error).map_or(Self::Connect { kind: error.kind() }, Self::Tls)
    }

    /// Whether the request may have been carried out all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Remote { .. } | Self::Unanswered)
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Lost {
    /// The server closed it.
    #[error("the server closed the connection")]
    Eof,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    /// The server did not keep to the protocol.
    #[error(transparent)]
    Protocol(TransmissionError),
    /// This client said goodbye.
    #[error("disconnected")]
    Disconnected,
    /// The connection's task was stopped with its runtime.
    #[error("the connection's task was stopped")]
    Stopped,
}
