//! Replies of the transmission, as a client takes them in. Their layout is drawn in [`super::reply`].

use bytes::{Buf, Bytes, BytesMut};

use super::error::{Errno, TransmissionError};
use super::export::Negotiated;
use super::option::lossy;
use super::reply::{
    BLOCK_STATUS, CHUNK_BYTES, DONE, ERROR, ERROR_BIT, ERROR_OFFSET, NONE, OFFSET_DATA, OFFSET_HOLE,
    SIMPLE_BYTES, StatusExtent,
};
use super::request::{Cookie, Request};
use super::{MAGIC_SIMPLE_REPLY, MAGIC_STRUCTURED_REPLY, STATUS_EXTENTS_MAX, TEXT_BYTES_MAX};

/// The longest payload of an error chunk.
const ERROR_BYTES_MAX: u32 = TEXT_BYTES_MAX as u32 + 64;

/// What kind of reply a request in flight waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The data of a READ.
    Data {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// The extents of a BLOCK_STATUS.
    Status,
    /// Success or failure.
    Done,
}

impl Expected {
    /// What `request` waits for.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Read { offset, length, .. } => Self::Data { offset: *offset, length: *length },
            Request::BlockStatus { .. } => Self::Status,
            Request::Write { .. } | Request::Flush | Request::Trim { .. } | Request::WriteZeroes { .. } => {
                Self::Done
            }
        }
    }
}

/// A simple reply, or one chunk of a structured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which request it answers.
    pub cookie: Cookie,
    /// Whether nothing more comes for that request.
    pub last: bool,
    /// What it says.
    pub chunk: Chunk,
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing but that there is nothing more.
    None,
    /// Data, within what was asked for.
    Data {
        /// First byte on the export.
        offset: u64,
        /// Not empty.
        data: Bytes,
    },
    /// Zeros, within what was asked for.
    Hole {
        /// First byte on the export.
        offset: u64,
        /// Bytes; not 0.
        length: u32,
    },
    /// At least one extent.
    Status {
        /// Which metadata context.
        context: u32,
        /// From the offset that was asked about on.
        extents: Vec<StatusExtent>,
    },
    /// The request failed.
    Error {
        /// How.
        errno: Errno,
        /// The server's words; may be empty.
        message: String,
        /// Where, if the server said so.
        offset: Option<u64>,
    },
}

/// Takes replies out of what a server sends. An error means that the server does not keep to the protocol: close.
#[derive(Debug, Clone)]
pub struct ReplyDecoder {
    structured: bool,
}

impl ReplyDecoder {
    /// For a transmission.
    pub fn new(negotiated: &Negotiated) -> Self {
        Self { structured: negotiated.structured }
    }

    /// The next reply or chunk. `Ok(None)`: it needs more. `expected` tells what a request in flight waits for, `None`
    /// for cookies that are not in flight; requests that nobody waits for any more are still in flight.
    pub fn next(
        &mut self,
        input: &mut BytesMut,
        expected: impl FnOnce(Cookie) -> Option<Expected>,
    ) -> Result<Option<Reply>, TransmissionError> {
        let Some(mut magic) = input.get(..4) else { return Ok(None) };
        match magic.get_u32() {
            MAGIC_SIMPLE_REPLY => self.simple(input, expected),
            MAGIC_STRUCTURED_REPLY => self.structured(input, expected),
            found => Err(TransmissionError::Magic { found }),
        }
    }

    fn simple(
        &mut self,
        input: &mut BytesMut,
        expected: impl FnOnce(Cookie) -> Option<Expected>,
    ) -> Result<Option<Reply>, TransmissionError> {
        let Some(mut header) = input.get(4..SIMPLE_BYTES) else { return Ok(None) };
        let errno = Errno::from_code(header.get_u32());
        let cookie = Cookie(header.get_u64());
        let expected = expected(cookie).ok_or(TransmissionError::UnknownCookie { cookie })?;
        let chunk = match (expected, errno) {
            (Expected::Data { .. }, _) | (Expected::Status, None) if self.structured => {
                return Err(TransmissionError::Form { cookie });
            }
            (Expected::Status, None) => return Err(TransmissionError::Form { cookie }),
            (_, Some(errno)) => {
                input.advance(SIMPLE_BYTES);
                Chunk::Error { errno, message: String::new(), offset: None }
            }
            (Expected::Data { offset, length }, None) => {
                if input.len() < SIMPLE_BYTES + length as usize {
                    return Ok(None);
                }
                input.advance(SIMPLE_BYTES);
                Chunk::Data { offset, data: input.split_to(length as usize).freeze() }
            }
            (Expected::Done, None) => {
                input.advance(SIMPLE_BYTES);
                Chunk::None
            }
        };
        Ok(Some(Reply { cookie, last: true, chunk }))
    }

    fn structured(
        &mut self,
        input: &mut BytesMut,
        expected: impl FnOnce(Cookie) -> Option<Expected>,
    ) -> Result<Option<Reply>, TransmissionError> {
        let Some(mut header) = input.get(4..CHUNK_BYTES) else { return Ok(None) };
        let (flags, kind) = (header.get_u16(), header.get_u16());
        let cookie = Cookie(header.get_u64());
        let length = header.get_u32();
        if !self.structured {
            return Err(TransmissionError::Form { cookie });
        }
        let expected = expected(cookie).ok_or(TransmissionError::UnknownCookie { cookie })?;
        let last = flags & DONE != 0;
        let bad = TransmissionError::Chunk { cookie, kind, length };
        // The length is judged before its payload is waited for.
        let fits = match (kind, expected) {
            (NONE, _) => length == 0 && last,
            (OFFSET_DATA, Expected::Data { length: asked, .. }) => {
                length > 8 && u64::from(length) <= u64::from(asked) + 8
            }
            (OFFSET_HOLE, Expected::Data { .. }) => length == 12,
            (BLOCK_STATUS, Expected::Status) => {
                length >= 12 && length % 8 == 4 && length as usize <= 4 + 8 * STATUS_EXTENTS_MAX
            }
            (ERROR_OFFSET, _) => (14..=ERROR_BYTES_MAX).contains(&length),
            (kind, _) if kind & ERROR_BIT != 0 => (6..=ERROR_BYTES_MAX).contains(&length),
            _ => false,
        };
        if !fits {
            return Err(bad);
        }
        if input.len() < CHUNK_BYTES + length as usize {
            return Ok(None);
        }
        input.advance(CHUNK_BYTES);
        let payload = input.split_to(length as usize).freeze();
        let chunk = payload_of(kind, expected, payload).ok_or(bad)?;
        Ok(Some(Reply { cookie, last, chunk }))
    }
}

/// `None`: its content does not fit its type or the request. `payload` has a length that its type can have.
fn payload_of(kind: u16, expected: Expected, mut payload: Bytes) -> Option<Chunk> {
    let within = |offset: u64, length: u32| {
        let Expected::Data { offset: first, length: asked } = expected else { return false };
        offset >= first
            && offset
                .checked_add(u64::from(length))
                .is_some_and(|end| end <= first.saturating_add(u64::from(asked)))
    };
    Some(match kind {
        NONE => Chunk::None,
        OFFSET_DATA => {
            let offset = payload.try_get_u64().ok()?;
            if !within(offset, payload.len() as u32) {
                return None;
            }
            Chunk::Data { offset, data: payload }
        }
        OFFSET_HOLE => {
            let offset = payload.try_get_u64().ok()?;
            let length = payload.try_get_u32().ok()?;
            if length == 0 || !within(offset, length) {
                return None;
            }
            Chunk::Hole { offset, length }
        }
        BLOCK_STATUS => {
            let context = payload.try_get_u32().ok()?;
            let mut extents = Vec::with_capacity(payload.len() / 8);
            while let (Ok(length), Ok(status)) = (payload.try_get_u32(), payload.try_get_u32()) {
                if length == 0 {
                    return None;
                }
                extents.push(StatusExtent { length, status });
            }
            Chunk::Status { context, extents }
        }
        _ => {
            // Unknown kinds of errors begin like ERROR. An error of 0 is an error all the same.
            let errno = Errno::from_code(payload.try_get_u32().ok()?).unwrap_or(Errno::Invalid);
            let message_bytes = usize::from(payload.try_get_u16().ok()?);
            if message_bytes > payload.len() {
                return None;
            }
            let message = lossy(&payload.split_to(message_bytes));
            let offset = match kind {
                ERROR_OFFSET => Some(payload.try_get_u64().ok()?),
                ERROR => None,
                _ => None,
            };
            Chunk::Error { errno, message, offset }
        }
    })
}
