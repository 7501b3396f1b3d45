//! Options of the handshake and the replies to them.
//!
//! ```text
//! option:  0        8       12      16          16+length
//!          IHAVEOPT option  length  data
//!
//! reply:   0                   8       12      16      20          20+length
//!          0x0003e889045565a9  option  type    length  data
//!
//! data of  EXPORT_NAME                 name                                        (no reply; see `server`)
//!          GO, INFO                    u32 n | name: n | u16 k | k × u16 info type
//!          LIST_/SET_META_CONTEXT      u32 n | export: n | u32 k | k × (u32 m | query: m)
//!          ABORT, LIST, STARTTLS, STRUCTURED_REPLY   none
//!
//! reply    1 ACK           none
//!          2 SERVER        u32 n | name: n | description: rest
//!          3 INFO          u16 type | 0 EXPORT       u64 size | u16 transmission flags
//!                                   | 1 NAME         name: rest
//!                                   | 2 DESCRIPTION  text: rest
//!                                   | 3 BLOCK_SIZE   u32 minimum | u32 preferred | u32 maximum
//!          4 META_CONTEXT  u32 id | name: rest
//!          2^31 + e        text for people: rest
//! ```

use bytes::{Buf, BufMut, BytesMut};
use thiserror::Error;

use super::export::{BlockSizes, TransmissionFlags};
use super::{MAGIC_OPTION, MAGIC_OPTION_REPLY, TEXT_BYTES_MAX};

/// `NBD_OPT_EXPORT_NAME`.
pub const EXPORT_NAME: u32 = 1;
/// `NBD_OPT_ABORT`.
pub const ABORT: u32 = 2;
/// `NBD_OPT_LIST`.
pub const LIST: u32 = 3;
/// `NBD_OPT_STARTTLS`.
pub const STARTTLS: u32 = 5;
/// `NBD_OPT_INFO`.
pub const INFO: u32 = 6;
/// `NBD_OPT_GO`.
pub const GO: u32 = 7;
/// `NBD_OPT_STRUCTURED_REPLY`.
pub const STRUCTURED_REPLY: u32 = 8;
/// `NBD_OPT_LIST_META_CONTEXT`.
pub const LIST_META_CONTEXT: u32 = 9;
/// `NBD_OPT_SET_META_CONTEXT`.
pub const SET_META_CONTEXT: u32 = 10;
/// `NBD_OPT_EXTENDED_HEADERS`.
pub const EXTENDED_HEADERS: u32 = 11;

/// `NBD_INFO_EXPORT`.
pub const INFO_EXPORT: u16 = 0;
/// `NBD_INFO_NAME`.
pub const INFO_NAME: u16 = 1;
/// `NBD_INFO_DESCRIPTION`.
pub const INFO_DESCRIPTION: u16 = 2;
/// `NBD_INFO_BLOCK_SIZE`.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Bytes before an option's data.
pub const OPTION_HEADER_BYTES: usize = 16;
/// Bytes before a reply's data.
pub const REPLY_HEADER_BYTES: usize = 20;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;

/// The data of an option or reply are not what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("lengths or text of an option or its reply are wrong")]
pub struct Malformed;

/// Appends an option.
pub fn encode(option: u32, data: &[u8], out: &mut BytesMut) {
    out.put_u64(MAGIC_OPTION);
    out.put_u32(option);
    out.put_u32(data.len() as u32);
    out.put_slice(data);
}

/// Text of the protocol: UTF-8, no NUL, at most 4096 bytes.
pub fn text(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.len() > TEXT_BYTES_MAX || bytes.contains(&0) {
        return Err(Malformed);
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

/// `NBD_OPT_GO` and `NBD_OPT_INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoRequest {
    /// The export.
    pub export: String,
    /// What the client wants to know: `INFO_…`, or numbers that nobody knows.
    pub infos: Vec<u16>,
}

impl GoRequest {
    /// The option's data.
    pub fn encode(&self) -> BytesMut {
        let mut data = BytesMut::new();
        put_text(&self.export, &mut data);
        data.put_u16(self.infos.len() as u16);
        for &info in &self.infos {
            data.put_u16(info);
        }
        data
    }

    /// From the option's data.
    pub fn decode(mut data: &[u8]) -> Result<Self, Malformed> {
        let export = get_text(&mut data)?;
        let count = data.try_get_u16().map_err(|_| Malformed)?;
        if data.len() != usize::from(count) * 2 {
            return Err(Malformed);
        }
        let infos = data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        Ok(Self { export, infos })
    }
}

/// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaContextRequest {
    /// The export.
    pub export: String,
    /// Which contexts: a namespace, a colon, and what the namespace takes.
    pub queries: Vec<String>,
}

impl MetaContextRequest {
    /// The option's data.
    pub fn encode(&self) -> BytesMut {
        let mut data = BytesMut::new();
        put_text(&self.export, &mut data);
        data.put_u32(self.queries.len() as u32);
        for query in &self.queries {
            put_text(query, &mut data);
        }
        data
    }

    /// From the option's data.
    pub fn decode(mut data: &[u8]) -> Result<Self, Malformed> {
        let export = get_text(&mut data)?;
        let count = data.try_get_u32().map_err(|_| Malformed)?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(get_text(&mut data)?);
        }
        if data.is_empty() { Ok(Self { export, queries }) } else { Err(Malformed) }
    }
}

/// Why a server refused an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OptionErrorKind {
    /// Not known there.
    #[error("unsupported")]
    Unsupported,
    /// Known, and not allowed.
    #[error("against policy")]
    Policy,
    /// Its data are wrong.
    #[error("invalid")]
    Invalid,
    /// Not on that platform.
    #[error("unsupported by the platform")]
    Platform,
    /// Not without TLS.
    #[error("TLS required")]
    TlsRequired,
    /// No such export.
    #[error("unknown export")]
    Unknown,
    /// The server is going down.
    #[error("server is shutting down")]
    Shutdown,
    /// Not without asking for block sizes.
    #[error("block size request required")]
    BlockSizeRequired,
    /// The request or the reply is too large.
    #[error("too big")]
    TooBig,
    /// Something newer.
    #[error("error {0:#x}")]
    Other(u32),
}

impl OptionErrorKind {
    fn code(self) -> u32 {
        REP_ERROR
            | match self {
                Self::Unsupported => 1,
                Self::Policy => 2,
                Self::Invalid => 3,
                Self::Platform => 4,
                Self::TlsRequired => 5,
                Self::Unknown => 6,
                Self::Shutdown => 7,
                Self::BlockSizeRequired => 8,
                Self::TooBig => 9,
                Self::Other(code) => code,
            }
    }

    fn from_code(code: u32) -> Self {
        match code & !REP_ERROR {
            1 => Self::Unsupported,
            2 => Self::Policy,
            3 => Self::Invalid,
            4 => Self::Platform,
            5 => Self::TlsRequired,
            6 => Self::Unknown,
            7 => Self::Shutdown,
            8 => Self::BlockSizeRequired,
            9 => Self::TooBig,
            other => Self::Other(other),
        }
    }
}

/// One piece of what a server tells about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Info {
    /// What every client has to know.
    Export {
        /// Its size.
        size_bytes: u64,
        /// What can be done with it.
        flags: TransmissionFlags,
    },
    /// Its name as the server lists it.
    Name(String),
    /// For people.
    Description(String),
    /// What requests keep to.
    BlockSizes(BlockSizes),
    /// A type that is not known here; a client ignores it.
    Other(u16),
}

/// A reply to an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionReply {
    /// Done; the last reply to its option.
    Ack,
    /// An export.
    Server {
        /// Its name.
        name: String,
        /// For people; may be empty.
        description: String,
    },
    /// About the export that was asked for.
    Info(Info),
    /// A metadata context.
    MetaContext {
        /// Its number in block status replies.
        id: u32,
        /// Its name.
        name: String,
    },
    /// Refused; the last reply to its option.
    Error {
        /// Why.
        kind: OptionErrorKind,
        /// For people.
        message: String,
    },
}

impl OptionReply {
    /// Appends the reply to `option`.
    pub fn encode(&self, option: u32, out: &mut BytesMut) {
        let mut data = BytesMut::new();
        let kind = match self {
            Self::Ack => REP_ACK,
            Self::Server { name, description } => {
                put_text(name, &mut data);
                data.put_slice(clip(description));
                REP_SERVER
            }
            Self::Info(info) => {
                put_info(info, &mut data);
                REP_INFO
            }
            Self::MetaContext { id, name } => {
                data.put_u32(*id);
                data.put_slice(clip(name));
                REP_META_CONTEXT
            }
            Self::Error { kind, message } => {
                data.put_slice(clip(message));
                kind.code()
            }
        };
        out.put_u64(MAGIC_OPTION_REPLY);
        out.put_u32(option);
        out.put_u32(kind);
        out.put_u32(data.len() as u32);
        out.put_slice(&data);
    }

    /// From a reply's type and data. `Ok(None)`: of a type that is not known here.
    pub fn decode(kind: u32, mut data: &[u8]) -> Result<Option<Self>, Malformed> {
        Ok(Some(match kind {
            REP_ACK if data.is_empty() => Self::Ack,
            REP_ACK => return Err(Malformed),
            REP_SERVER => {
                let name = get_text(&mut data)?;
                Self::Server { name, description: lossy(data) }
            }
            REP_INFO => Self::Info(get_info(data)?),
            REP_META_CONTEXT => {
                let id = data.try_get_u32().map_err(|_| Malformed)?;
                Self::MetaContext { id, name: text(data)? }
            }
            code if code & REP_ERROR != 0 => {
                Self::Error { kind: OptionErrorKind::from_code(code), message: lossy(data) }
            }
            _ => return Ok(None),
        }))
    }
}

fn put_info(info: &Info, data: &mut BytesMut) {
    match info {
        Info::Export { size_bytes, flags } => {
            data.put_u16(INFO_EXPORT);
            data.put_u64(*size_bytes);
            data.put_u16(flags.0);
        }
        Info::Name(name) => {
            data.put_u16(INFO_NAME);
            data.put_slice(clip(name));
        }
        Info::Description(description) => {
            data.put_u16(INFO_DESCRIPTION);
            data.put_slice(clip(description));
        }
        Info::BlockSizes(sizes) => {
            data.put_u16(INFO_BLOCK_SIZE);
            data.put_u32(sizes.minimum_bytes);
            data.put_u32(sizes.preferred_bytes);
            data.put_u32(sizes.maximum_bytes);
        }
        Info::Other(kind) => data.put_u16(*kind),
    }
}

fn get_info(mut data: &[u8]) -> Result<Info, Malformed> {
    let kind = data.try_get_u16().map_err(|_| Malformed)?;
    Ok(match (kind, data.len()) {
        (INFO_EXPORT, 10) => {
            Info::Export { size_bytes: data.get_u64(), flags: TransmissionFlags(data.get_u16()) }
        }
        (INFO_NAME, _) => Info::Name(text(data)?),
        (INFO_DESCRIPTION, _) => Info::Description(lossy(data)),
        (INFO_BLOCK_SIZE, 12) => {
            let sizes = BlockSizes {
                minimum_bytes: data.get_u32(),
                preferred_bytes: data.get_u32(),
                maximum_bytes: data.get_u32(),
            };
            if !sizes.are_legal() {
                return Err(Malformed);
            }
            Info::BlockSizes(sizes)
        }
        (INFO_EXPORT | INFO_BLOCK_SIZE, _) => return Err(Malformed),
        (other, _) => Info::Other(other),
    })
}

/// A length and that many bytes of text.
fn put_text(value: &str, data: &mut BytesMut) {
    let bytes = clip(value);
    data.put_u32(bytes.len() as u32);
    data.put_slice(bytes);
}

fn get_text(data: &mut &[u8]) -> Result<String, Malformed> {
    let length = data.try_get_u32().map_err(|_| Malformed)?;
    let (head, rest) = data.split_at_checked(length as usize).ok_or(Malformed)?;
    *data = rest;
    text(head)
}

/// The first 4096 bytes, never half a character.
pub(super) fn clip(value: &str) -> &[u8] {
    &value.as_bytes()[..value.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Words for people from somebody else: whatever they are, they become text.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_point_outside_are_refused() {
        for data in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\x05abc\0\0",
            b"\xff\xff\xff\xff\0\0",
            b"\0\0\0\x01a\0\x02\0\0",
            b"\0\0\0\x01a\0\x01\0\0\0",
        ] {
            assert_eq!(GoRequest::decode(data), Err(Malformed), "{data:?}");
        }
        for data in [
            &b"\0\0\0\x01a\xff\xff\xff\xff"[..],
            b"\0\0\0\x01a\0\0\0\x01\0\0\0\x09ab",
            b"\0\0\0\x01a\0\0\0\0x",
        ] {
            assert_eq!(MetaContextRequest::decode(data), Err(Malformed), "{data:?}");
        }
    }

    #[test]
    fn text_is_text() {
        assert_eq!(text(b"db-1"), Ok("db-1".to_owned()));
        assert_eq!(text(b"a\0b"), Err(Malformed));
        assert_eq!(text(b"\xff"), Err(Malformed));
        assert_eq!(text(&[b'a'; 4096]).map(|t| t.len()), Ok(4096));
        assert_eq!(text(&[b'a'; 4097]), Err(Malformed));
        assert_eq!(clip(&"ä".repeat(3000)).len(), 4096);
    }
}
