//! What a server says about an export, and what both sides have agreed on when the transmission begins.

use std::fmt;

use thiserror::Error;

use super::PAYLOAD_BYTES_MAX;
use super::context::{BASE_ALLOCATION, Context};

/// What a client may do with an export: the 16 bits of the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// Always set.
    pub const HAS_FLAGS: Self = Self(1);
    /// Writes are refused.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// FLUSH works.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// FUA works.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// A spinning disk.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// TRIM works.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// WRITE_ZEROES works, with NO_HOLE.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// A read may ask for one piece. The handshake sets and clears it: it goes with structured replies.
    pub const SEND_DF: Self = Self(1 << 7);
    /// A flush on one connection covers what was written on any.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// CACHE is understood.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// FAST_ZERO is understood.
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);
    /// What an array offers on every device: flush, FUA, trim, write zeroes, several connections.
    pub const DEVICE: Self = Self(
        Self::HAS_FLAGS.0
            | Self::SEND_FLUSH.0
            | Self::SEND_FUA.0
            | Self::SEND_TRIM.0
            | Self::SEND_WRITE_ZEROES.0
            | Self::CAN_MULTI_CONN.0,
    );

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for TransmissionFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// The sizes that requests have to keep to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of it; a power of two.
    pub minimum_bytes: u32,
    /// Multiples of it are fast; a power of two.
    pub preferred_bytes: u32,
    /// The largest payload.
    pub maximum_bytes: u32,
}

impl BlockSizes {
    /// An array's: sectors of 512, blocks of 4096, payloads up to 32 MiB.
    pub const DEVICE: Self =
        Self { minimum_bytes: 512, preferred_bytes: 4096, maximum_bytes: PAYLOAD_BYTES_MAX };
    /// What the protocol assumes of a server that does not tell.
    pub const UNTOLD: Self =
        Self { minimum_bytes: 1, preferred_bytes: 4096, maximum_bytes: PAYLOAD_BYTES_MAX };

    /// Whether the protocol allows them: powers of two in order, the least one up to 64 KiB.
    pub fn are_legal(self) -> bool {
        self.minimum_bytes.is_power_of_two()
            && self.minimum_bytes <= 1 << 16
            && self.preferred_bytes.is_power_of_two()
            && self.preferred_bytes >= self.minimum_bytes.max(512)
            && self.maximum_bytes >= self.preferred_bytes
    }
}

/// An export as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its size; a multiple of the least block size.
    pub size_bytes: u64,
    /// What can be done with it.
    pub flags: TransmissionFlags,
    /// What requests keep to.
    pub sizes: BlockSizes,
    /// For people, up to 4096 bytes.
    pub description: Option<String>,
}

impl ExportInfo {
    /// A device of an array.
    pub fn device(size_bytes: u64, read_only: bool) -> Self {
        let flags = TransmissionFlags::DEVICE;
        Self {
            size_bytes,
            flags: if read_only { flags.with(TransmissionFlags::READ_ONLY) } else { flags },
            sizes: BlockSizes::DEVICE,
            description: None,
        }
    }
}

/// Why an export cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExportRefusal {
    /// `NBD_REP_ERR_UNKNOWN`.
    #[error("no such device on this array")]
    Unknown,
    /// `NBD_REP_ERR_POLICY`: offline, or a virtual device without an active session.
    #[error("the device is offline, or a virtual device without an active session")]
    NotReady,
    /// `NBD_REP_ERR_SHUTDOWN`.
    #[error("the array is shutting down")]
    ShuttingDown,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The export's name.
    pub export: String,
    /// What the server said about it.
    pub info: ExportInfo,
    /// Whether replies are structured.
    pub structured: bool,
    /// What block status tells of.
    pub contexts: Vec<Context>,
}

impl Negotiated {
    /// The number under which a context is told of, if it was selected.
    pub fn context(&self, name: &str) -> Option<u32> {
        self.contexts.iter().find(|context| context.name == name).map(|context| context.id)
    }

    /// That of `base:allocation`.
    pub fn allocation(&self) -> Option<u32> {
        self.context(BASE_ALLOCATION)
    }
}
