//! Requests of the transmission.
//!
//! ```text
//! 0          4      6     8       16      24      28          28+length
//! 0x25609513 flags  type  cookie  offset  length  | data of a WRITE |
//!
//! type   0 READ   1 WRITE   2 DISC   3 FLUSH   4 TRIM   5 CACHE   6 WRITE_ZEROES   7 BLOCK_STATUS
//! flags  1 FUA (with any)   2 NO_HOLE (6)   4 DF (0)   8 REQ_ONE (7)   16 FAST_ZERO (6)
//! ```

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::{Errno, TransmissionError};
use super::export::{Negotiated, TransmissionFlags};
use super::{DRAIN_BYTES_MAX, MAGIC_REQUEST};

/// Bytes of a request without its payload.
pub const REQUEST_BYTES: usize = 28;
/// What [`RequestDecoder::reserve_bytes`] asks for at least, however little has arrived.
const RESERVE_BYTES_MIN: usize = 64 << 10;
/// The same for a payload that is announced: what most clients send at once, so that it need not be moved.
const PAYLOAD_RESERVE_BYTES_MIN: usize = 512 << 10;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

const FUA: u16 = 1;
const NO_HOLE: u16 = 1 << 1;
const DF: u16 = 1 << 2;
const REQ_ONE: u16 = 1 << 3;
const FAST_ZERO: u16 = 1 << 4;

/// A client's name for a request, repeated in the reply; unique among those in flight on its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checked request. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// The answer must be one piece.
        dont_fragment: bool,
    },
    /// Writes.
    Write {
        /// First byte.
        offset: u64,
        /// What to write.
        data: Bytes,
        /// Durable before the answer.
        fua: bool,
    },
    /// What was answered before becomes durable.
    Flush,
    /// The content is no longer needed.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// Durable before the answer.
        fua: bool,
    },
    /// The content becomes zeros.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// It has to take space.
        no_hole: bool,
        /// Only if that is faster than writing: else [`Errno::NotSupported`].
        fast: bool,
        /// Durable before the answer.
        fua: bool,
    },
    /// What every metadata context that was agreed on tells.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes; a hint.
        length: u32,
        /// One extent of each is enough.
        one: bool,
    },
}

impl Request {
    /// The header as it is sent.
    pub fn header(&self, cookie: Cookie) -> RequestHeader {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let (kind, flags, offset, length) = match self {
            Self::Read { offset, length, dont_fragment } => {
                (READ, flag(*dont_fragment, DF), *offset, *length)
            }
            Self::Write { offset, data, fua } => (WRITE, flag(*fua, FUA), *offset, data.len() as u32),
            Self::Flush => (FLUSH, 0, 0, 0),
            Self::Trim { offset, length, fua } => (TRIM, flag(*fua, FUA), *offset, *length),
            Self::WriteZeroes { offset, length, no_hole, fast, fua } => {
                let flags = flag(*no_hole, NO_HOLE) | flag(*fast, FAST_ZERO) | flag(*fua, FUA);
                (WRITE_ZEROES, flags, *offset, *length)
            }
            Self::BlockStatus { offset, length, one } => {
                (BLOCK_STATUS, flag(*one, REQ_ONE), *offset, *length)
            }
        };
        RequestHeader { flags, kind, cookie, offset, length }
    }

    /// The bytes to send: a header, and the payload of a write uncopied. A payload is at most 4 GiB.
    pub fn encode(self, cookie: Cookie, out: &mut Vec<Bytes>) {
        out.push(self.header(cookie).encode());
        if let Self::Write { data, .. } = self {
            out.push(data);
        }
    }

    /// The bytes that end a transmission.
    pub fn encode_disconnect() -> Bytes {
        RequestHeader { flags: 0, kind: DISC, cookie: Cookie(0), offset: 0, length: 0 }.encode()
    }

    /// `offset` and `length`; 0 and 0 for a flush.
    pub fn range(&self) -> (u64, u32) {
        match self {
            Self::Flush => (0, 0),
            Self::Write { offset, data, .. } => (*offset, data.len() as u32),
            Self::Read { offset, length, .. }
            | Self::Trim { offset, length, .. }
            | Self::WriteZeroes { offset, length, .. }
            | Self::BlockStatus { offset, length, .. } => (*offset, *length),
        }
    }
}

/// A request as it stands on the wire, nothing checked but its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Type.
    pub kind: u16,
    /// The client's name for it.
    pub cookie: Cookie,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

impl RequestHeader {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(REQUEST_BYTES);
        out.put_u32(MAGIC_REQUEST);
        out.put_u16(self.flags);
        out.put_u16(self.kind);
        out.put_u64(self.cookie.0);
        out.put_u64(self.offset);
        out.put_u32(self.length);
        out.freeze()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, TransmissionError> {
        let mut bytes = &bytes[..];
        let found = bytes.get_u32();
        if found != MAGIC_REQUEST {
            return Err(TransmissionError::Magic { found });
        }
        Ok(Self {
            flags: bytes.get_u16(),
            kind: bytes.get_u16(),
            cookie: Cookie(bytes.get_u64()),
            offset: bytes.get_u64(),
            length: bytes.get_u32(),
        })
    }
}

/// What a server has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// To be carried out and answered.
    Request {
        /// Its name.
        cookie: Cookie,
        /// What.
        request: Request,
    },
    /// Not to be carried out; answer with this error.
    Rejected {
        /// Its name.
        cookie: Cookie,
        /// Whether it was a read, for the form of the answer.
        read: bool,
        /// The error.
        errno: Errno,
        /// What is wrong, for people.
        reason: &'static str,
    },
    /// The client is done: answer what is in flight, then close.
    Disconnect,
}

/// Takes requests out of what a client sends.
///
/// Read some bytes into `input`, then call [`next`](Self::next) until it wants more. Keeps at most one payload of
/// `maximum_bytes` waiting in `input`; payloads of rejected writes are thrown away as they come. After
/// [`Incoming::Disconnect`] or an error nothing more is decoded.
#[derive(Debug)]
pub struct RequestDecoder {
    size_bytes: u64,
    flags: TransmissionFlags,
    minimum_bytes: u32,
    maximum_bytes: u32,
    structured: bool,
    has_contexts: bool,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Payload { cookie: Cookie, offset: u64, length: u32, fua: bool },
    Drain { left: u32, cookie: Cookie, rejection: Rejection },
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Rejection {
    errno: Errno,
    reason: &'static str,
}

impl RequestDecoder {
    /// For a transmission.
    pub fn new(negotiated: &Negotiated) -> Self {
        Self {
            size_bytes: negotiated.info.size_bytes,
            flags: negotiated.info.flags,
            minimum_bytes: negotiated.info.sizes.minimum_bytes.max(1),
            maximum_bytes: negotiated.info.sizes.maximum_bytes,
            structured: negotiated.structured,
            has_contexts: !negotiated.contexts.is_empty(),
            state: State::Header,
        }
    }

    /// The next request. `Ok(None)`: it needs more. An error: close.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, TransmissionError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Header => {
                let Some(header) = input.first_chunk::<REQUEST_BYTES>() else { return Ok(None) };
                let header = RequestHeader::decode(header).inspect_err(|_| self.state = State::Ended)?;
                input.advance(REQUEST_BYTES);
                if let Some(incoming) = self.header(header)? {
                    return Ok(Some(incoming));
                }
            }
            State::Payload { .. } | State::Drain { .. } => {}
        }
        match self.state {
            State::Payload { cookie, offset, length, fua } if input.len() >= length as usize => {
                self.state = State::Header;
                let data = input.split_to(length as usize).freeze();
                Ok(Some(Incoming::Request { cookie, request: Request::Write { offset, data, fua } }))
            }
            State::Drain { left, cookie, rejection } => {
                let now = input.len().min(left as usize);
                input.advance(now);
                let left = left - now as u32;
                if left > 0 {
                    self.state = State::Drain { left, cookie, rejection };
                    return Ok(None);
                }
                self.state = State::Header;
                Ok(Some(rejected(cookie, WRITE, rejection)))
            }
            _ => Ok(None),
        }
    }

    /// How much room the caller may well make in `input` before it reads on: what is missing of a payload, but never
    /// more than what has arrived of it, or 512 KiB. So a client gets no memory for a payload that it only announces.
    pub fn reserve_bytes(&self, input: &BytesMut) -> usize {
        let State::Payload { length, .. } = self.state else { return RESERVE_BYTES_MIN };
        (length as usize)
            .saturating_sub(input.len())
            .min(input.len().max(PAYLOAD_RESERVE_BYTES_MIN))
            .max(REQUEST_BYTES)
    }

    /// What a header alone decides; `None` if a payload follows.
    fn header(&mut self, header: RequestHeader) -> Result<Option<Incoming>, TransmissionError> {
        let RequestHeader { flags, kind, cookie, offset, length } = header;
        if kind == DISC {
            self.state = State::Ended;
            return Ok(Some(Incoming::Disconnect));
        }
        let checked = self.check(&header);
        if kind != WRITE {
            return Ok(Some(match checked {
                Ok(request) => Incoming::Request { cookie, request },
                Err(rejection) => rejected(cookie, kind, rejection),
            }));
        }
        if length > DRAIN_BYTES_MAX {
            self.state = State::Ended;
            return Err(TransmissionError::WriteTooLong { length, max: DRAIN_BYTES_MAX });
        }
        self.state = match checked {
            Ok(_) => State::Payload { cookie, offset, length, fua: flags & FUA != 0 },
            Err(rejection) => State::Drain { left: length, cookie, rejection },
        };
        Ok(None)
    }

    /// The request if it may be carried out; a write without its payload.
    fn check(&self, header: &RequestHeader) -> Result<Request, Rejection> {
        let &RequestHeader { flags, kind, offset, length, .. } = header;
        let reject = |errno, reason| Err(Rejection { errno, reason });
        let fua = flags & FUA != 0;
        let has = |flag| self.flags.contains(flag);
        let (request, known) = match kind {
            READ => {
                let df = if has(TransmissionFlags::SEND_DF) { DF } else { 0 };
                (Request::Read { offset, length, dont_fragment: flags & DF != 0 }, df)
            }
            WRITE => (Request::Write { offset, data: Bytes::new(), fua }, 0),
            FLUSH if has(TransmissionFlags::SEND_FLUSH) => (Request::Flush, 0),
            TRIM if has(TransmissionFlags::SEND_TRIM) => (Request::Trim { offset, length, fua }, 0),
            WRITE_ZEROES if has(TransmissionFlags::SEND_WRITE_ZEROES) => {
                let fast = if has(TransmissionFlags::SEND_FAST_ZERO) { FAST_ZERO } else { 0 };
                let no_hole = flags & NO_HOLE != 0;
                let request =
                    Request::WriteZeroes { offset, length, no_hole, fast: flags & FAST_ZERO != 0, fua };
                (request, NO_HOLE | fast)
            }
            BLOCK_STATUS if self.has_contexts => {
                (Request::BlockStatus { offset, length, one: flags & REQ_ONE != 0 }, REQ_ONE)
            }
            BLOCK_STATUS => return reject(Errno::Invalid, "no metadata context was negotiated"),
            _ => return reject(Errno::Invalid, "unknown command"),
        };
        let known = if has(TransmissionFlags::SEND_FUA) { known | FUA } else { known };
        if flags & !known != 0 {
            return reject(Errno::Invalid, "a flag that the command does not take");
        }
        if kind == FLUSH {
            if offset != 0 || length != 0 {
                return reject(Errno::Invalid, "a flush takes no offset and no length");
            }
            return Ok(request);
        }
        let writes = matches!(kind, WRITE | TRIM | WRITE_ZEROES);
        if writes && has(TransmissionFlags::READ_ONLY) {
            return reject(Errno::Perm, "the export is read-only");
        }
        if length == 0 {
            return reject(Errno::Invalid, "a length of 0");
        }
        let step = u64::from(self.minimum_bytes);
        if !offset.is_multiple_of(step) || !u64::from(length).is_multiple_of(step) {
            return reject(Errno::Invalid, "not a multiple of the minimum block size");
        }
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > self.size_bytes) {
            let errno = if matches!(kind, WRITE | WRITE_ZEROES) { Errno::NoSpace } else { Errno::Invalid };
            return reject(errno, "past the end of the export");
        }
        if matches!(kind, READ | WRITE) && length > self.maximum_bytes {
            let errno = if kind == READ && self.structured { Errno::Overflow } else { Errno::Invalid };
            return reject(errno, "longer than the maximum payload");
        }
        Ok(request)
    }
}

fn rejected(cookie: Cookie, kind: u16, rejection: Rejection) -> Incoming {
    let Rejection { errno, reason } = rejection;
    Incoming::Rejected { cookie, read: kind == READ, errno, reason }
}
