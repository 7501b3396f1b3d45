//! The NBD wire format, both directions, without sockets: total codecs and pure state machines over bytes.
//!
//! Follows `doc/proto.md` of NetworkBlockDevice/nbd: fixed newstyle handshake, simple and structured replies,
//! metadata contexts. Everything is big-endian. Who uses what:
//!
//! | side | handshake | after it |
//! |---|---|---|
//! | array | [`ServerHandshake`] | [`RequestDecoder`], [`ReplyEncoder`] |
//! | host | [`ClientHandshake`] | [`Request::encode`], [`ReplyDecoder`], [`ReadAssembly`] |
//!
//! Both handshakes end in the same [`Negotiated`], from which the codecs of the transmission are made. A machine is
//! given what has arrived in a `BytesMut`, takes from it what it understands, and leaves the rest; what it wants
//! sent it appends to another. No decoder allocates because a length field says so: memory grows only with bytes that
//! have arrived, and up to a limit of this module.
//!
//! Byte layouts are drawn in the modules that own them: options in [`option`], requests in [`request`], replies in
//! [`reply`]. The start of a connection:
//!
//! ```text
//! server: 0        8        16      18
//!         NBDMAGIC IHAVEOPT hs-flags           hs-flags: 1 fixed newstyle, 2 no zeroes
//! client: 0            4
//!         client-flags                         the same two bits; any other ends the connection
//! ```
//!
//! With TLS the client's first option is `STARTTLS`. The TLS handshake follows its acknowledgement, and then options
//! as if none had been sent before. The machines say when; the encryption is their callers'.

mod client;
mod context;
mod error;
mod export;
pub mod option;
mod read;
pub mod reply;
mod reply_decode;
pub mod request;
mod server;

pub use client::{ClientHandshake, ClientWish, HandshakeEnd, ListedExport};
pub use context::{BASE_ALLOCATION, CONTEXTS_MAX, Context, ContextQuery, DIFF, DIRTY_BITMAP, NOW};
pub use error::{Errno, HandshakeError, TransmissionError};
pub use export::{BlockSizes, ExportInfo, ExportRefusal, Negotiated, TransmissionFlags};
pub use read::{ReadAssembly, ReadError};
pub use reply::{Content, ReplyEncoder, StatusExtent};
pub use reply_decode::{Chunk, Expected, Reply, ReplyDecoder};
pub use request::{Cookie, Incoming, Request, RequestDecoder, RequestHeader};
pub use server::{ContextQuestion, ExportPurpose, ExportQuestion, ServerHandshake, ServerStep};

/// `NBDMAGIC`.
const MAGIC_INIT: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const MAGIC_REQUEST: u32 = 0x2560_9513;
const MAGIC_SIMPLE_REPLY: u32 = 0x6744_6698;
const MAGIC_STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Handshake flags and client flags have the same two bits.
const FLAG_FIXED_NEWSTYLE: u32 = 1;
const FLAG_NO_ZEROES: u32 = 2;
/// Zeros after the answer to `NBD_OPT_EXPORT_NAME`, unless both sides said that they do without.
const EXPORT_NAME_ZEROES: usize = 124;

/// The longest string of the protocol in bytes: names, queries, messages.
pub const TEXT_BYTES_MAX: usize = 4096;
/// The longest data of an option that a server looks at, in bytes; longer ones are skipped and refused.
pub const OPTION_BYTES_MAX: u32 = 32 << 10;
/// Options that a client may send before a server ends the connection.
pub const OPTIONS_MAX: u32 = 1 << 14;
/// The largest payload of a read or write in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;
/// The largest payload of a write that is read and thrown away, so that it can be answered with an error; a larger
/// one ends the connection.
pub const DRAIN_BYTES_MAX: u32 = 64 << 20;
/// The most extents in a block status reply.
pub const STATUS_EXTENTS_MAX: usize = 1 << 20;
