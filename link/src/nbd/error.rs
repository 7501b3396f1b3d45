//! What can be wrong with the other side's bytes, and the error values of the protocol.

use thiserror::Error;

use super::export::ExportRefusal;
use super::option::OptionErrorKind;
use super::request::Cookie;

/// The error values that a reply can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Errno {
    /// 1: a write to what takes no writes.
    #[error("operation not permitted (NBD_EPERM)")]
    Perm,
    /// 5: a store failed.
    #[error("input/output error (NBD_EIO)")]
    Io,
    /// 12.
    #[error("cannot allocate memory (NBD_ENOMEM)")]
    NoMem,
    /// 22: the request itself is wrong.
    #[error("invalid argument (NBD_EINVAL)")]
    Invalid,
    /// 28: no room, or a write past the end.
    #[error("no space left on device (NBD_ENOSPC)")]
    NoSpace,
    /// 75: longer than this server answers.
    #[error("value too large (NBD_EOVERFLOW)")]
    Overflow,
    /// 95: a fast zero that would not be fast.
    #[error("operation not supported (NBD_ENOTSUP)")]
    NotSupported,
    /// 108: the export is going or gone; the client has to disconnect.
    #[error("server is shutting down (NBD_ESHUTDOWN)")]
    Shutdown,
}

impl Errno {
    /// As it stands in a reply; never 0.
    pub fn code(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::NoMem => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }

    /// From a reply: `None` for 0, and as the protocol wants it [`Self::Invalid`] for what nobody knows.
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMem,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::Shutdown,
            _ => Self::Invalid,
        })
    }
}

/// Why a handshake cannot go on. The connection is to be closed after what was to be sent has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The peer does not speak fixed newstyle NBD.
    #[error("{place} begins with {found:#018x}: not fixed newstyle NBD")]
    Magic {
        /// Which message.
        place: &'static str,
        /// What stood there.
        found: u64,
    },
    /// The client set flags that the server did not offer.
    #[error("client flags {flags:#010x} were not offered")]
    ClientFlags {
        /// All of them.
        flags: u32,
    },
    /// More options than [`super::OPTIONS_MAX`].
    #[error("more than {max} options in one handshake")]
    TooManyOptions {
        /// The limit.
        max: u32,
    },
    /// `NBD_OPT_EXPORT_NAME` with a name that is none; it has no error reply.
    #[error("an export name that is longer than {max} bytes, or not UTF-8 text")]
    ExportName {
        /// The limit.
        max: usize,
    },
    /// `NBD_OPT_EXPORT_NAME` for an export that cannot be had; it has no error reply.
    #[error("export {name:?}: {refusal}")]
    Export {
        /// The name.
        name: String,
        /// Why not.
        refusal: ExportRefusal,
    },
    /// `NBD_OPT_EXPORT_NAME` where TLS is required; it has no error reply.
    #[error("an export was asked for without TLS, which is required")]
    TlsRequired,
    /// More was sent behind `NBD_OPT_STARTTLS`, or its reply, before TLS began: it may be somebody else's.
    #[error("plain text was sent where TLS had to begin")]
    BeforeTls,
    /// To a client: the server refused an option that it cannot do without.
    #[error("server refused option {option} ({kind}): {message}")]
    Refused {
        /// The option's number.
        option: u32,
        /// Why.
        kind: OptionErrorKind,
        /// The server's words; may be empty.
        message: String,
    },
    /// To a client: a reply that does not belong there.
    #[error("server answered option {option} with reply {found_type:#x} to option {found_option}")]
    UnexpectedReply {
        /// The option that waits for its answer.
        option: u32,
        /// Which option the reply names.
        found_option: u32,
        /// The reply's type.
        found_type: u32,
    },
    /// To a client: a reply, or all replies to one option together, over the limit.
    #[error("server's answer to option {option} is over {max} bytes")]
    ReplyTooLong {
        /// The option.
        option: u32,
        /// The limit.
        max: usize,
    },
    /// To a client: a reply whose content cannot be read.
    #[error("server's answer to option {option} is malformed")]
    MalformedReply {
        /// The option.
        option: u32,
    },
}

/// Why the transmission cannot go on: what follows can no longer be told apart. The connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransmissionError {
    /// Neither a request nor a reply begins so.
    #[error("a message begins with {found:#010x}")]
    Magic {
        /// What stood there.
        found: u32,
    },
    /// To a server: a write of more than [`super::DRAIN_BYTES_MAX`].
    #[error("a write of {length} bytes, over {max}")]
    WriteTooLong {
        /// Its length.
        length: u32,
        /// The limit.
        max: u32,
    },
    /// To a client: a reply to nothing that was asked.
    #[error("a reply to {cookie}, which is not in flight")]
    UnknownCookie {
        /// Its cookie.
        cookie: Cookie,
    },
    /// To a client: a simple reply where it has to be structured, or the other way round.
    #[error("a reply to {cookie} in a form that was not negotiated")]
    Form {
        /// Its cookie.
        cookie: Cookie,
    },
    /// To a client: a chunk of a type that does not answer what was asked, or with a length that its type cannot have.
    #[error("a chunk of type {kind:#06x} and {length} bytes in the reply to {cookie}")]
    Chunk {
        /// Its cookie.
        cookie: Cookie,
        /// Its type.
        kind: u16,
        /// The length of its payload.
        length: u32,
    },
}
