//! Frames: messages as bytes.
//!
//! ```text
//! 0     4        5     6      8         16      20         24        28       32      32+body  +payload
//! "twln" version  kind  flags  sequence  body    payload    content   header   | body | payload |
//! u32   u8 (1)   u8    u16 0  u64       u32     u32        CRC32C    CRC32C
//!                             from 1,   bytes   bytes, a   of body   of the
//!                             by 1               multiple   and       28 bytes
//!                                                of 512     payload   before
//! ```
//!
//! All numbers are little-endian. The version is that of this header and stays as it is; that of the protocol is
//! in the `Hello`. The sequence counts the frames of one direction of one connection, so that none is lost, doubled or
//! of another epoch unseen. A kind bounds the body; nothing is waited for that the bound does not allow, and no
//! length is believed before its check sum is right. Any error ends the link.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::kind::{self, Kind};
use super::message::{Message, PAYLOAD_BYTES_MAX, PAYLOAD_UNIT_BYTES};
use super::wire::EncodeError;

/// Bytes before a body.
pub const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"twln";
const VERSION: u8 = 1;
/// Where the header's check sum begins: it covers what is before it.
const HEADER_SUM_AT: usize = 28;
/// What [`Decoder::reserve_bytes`] asks for at least, however little has arrived.
const RESERVE_BYTES_MIN: usize = 64 << 10;
/// The same for a payload that is announced: a peer sends it at once.
const PAYLOAD_RESERVE_BYTES_MIN: usize = 256 << 10;
/// What an [`Encoder`] allocates at a time for headers and bodies.
const BUFFER_BYTES: usize = 16 << 10;

/// Why bytes are no frame. The link has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Something else is spoken.
    #[error("it does not begin as a frame does: is this the link's address of an array?")]
    Magic,
    /// A header of another version.
    #[error("a frame has version {found}, not {VERSION}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// A header was damaged.
    #[error("the header of frame {expected} was damaged on the way")]
    HeaderSum {
        /// Which frame should have come.
        expected: u64,
    },
    /// A frame was lost, doubled, or is of another connection.
    #[error("frame {found} came where {expected} should have come")]
    Sequence {
        /// Which should have come.
        expected: u64,
        /// Which came.
        found: u64,
    },
    /// A kind that is not known, or flags that no kind has.
    #[error("a frame has the unknown kind {code} with flags {flags}")]
    Kind {
        /// The kind.
        code: u8,
        /// The flags.
        flags: u16,
    },
    /// Lengths that the kind does not allow.
    #[error("a frame of kind {code} has a body of {body_bytes} and a payload of {payload_bytes} bytes")]
    Lengths {
        /// The kind.
        code: u8,
        /// Of the body.
        body_bytes: u32,
        /// Of the payload.
        payload_bytes: u32,
    },
    /// A body or payload was damaged.
    #[error("the content of frame {sequence} was damaged on the way")]
    ContentSum {
        /// Which frame.
        sequence: u64,
    },
    /// A body that is whole and makes no sense.
    #[error("the body of frame {sequence}, of kind {code}, cannot be understood: {what}")]
    Body {
        /// Which frame.
        sequence: u64,
        /// The kind.
        code: u8,
        /// What is wrong.
        what: &'static str,
    },
}

/// Makes frames of messages, for one direction of one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Of the last frame.
    sequence: u64,
    /// Where headers and bodies are put together.
    body: Vec<u8>,
    buffer: BytesMut,
}

impl Encoder {
    /// For a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the pieces to send: header and body, then the payload, which is not copied. An error leaves things as
    /// they were.
    pub fn encode(&mut self, message: &Message, out: &mut Vec<Bytes>) -> Result<(), EncodeError> {
        let payload = message.payload().map_or(&[][..], |payload| payload);
        check_payload(payload.len())?;
        self.body.clear();
        let kind = kind::put(message, &mut self.body)?;
        self.sequence += 1;
        let content = crc32c::crc32c_append(crc32c::crc32c(&self.body), payload);
        let header = Header {
            kind,
            sequence: self.sequence,
            body_bytes: self.body.len() as u32,
            payload_bytes: payload.len() as u32,
            content,
        };
        let bytes = HEADER_BYTES + self.body.len();
        if self.buffer.capacity() < bytes {
            self.buffer.reserve(bytes.max(BUFFER_BYTES));
        }
        self.buffer.extend_from_slice(&header.encode());
        self.buffer.extend_from_slice(&self.body);
        out.push(self.buffer.split().freeze());
        out.extend(message.payload().filter(|payload| !payload.is_empty()).cloned());
        Ok(())
    }
}

/// Whether a message can be sent.
pub(super) fn check(message: &Message) -> Result<(), EncodeError> {
    match message.payload() {
        // What is beside a payload has one length.
        Some(payload) => check_payload(payload.len()),
        None => kind::put(message, &mut Vec::new()).map(drop),
    }
}

fn check_payload(bytes: usize) -> Result<(), EncodeError> {
    if bytes <= PAYLOAD_BYTES_MAX as usize && bytes.is_multiple_of(PAYLOAD_UNIT_BYTES as usize) {
        Ok(())
    } else {
        Err(EncodeError::Payload { bytes })
    }
}

/// Takes messages out of what the peer sends, for one direction of one connection.
///
/// Read some bytes into `input`, then call [`next`](Self::next) until it wants more. At most one frame waits in
/// `input`. After an error nothing more is decoded.
#[derive(Debug)]
pub struct Decoder {
    /// Of the next frame.
    expected: u64,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Content(Header),
    Ended,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// For a new connection.
    pub fn new() -> Self {
        Self { expected: 1, state: State::Header }
    }

    /// The next message. `Ok(None)`: it needs more. Its payload shares the memory of `input`.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Message>, FrameError> {
        let header = match self.state {
            State::Ended => return Ok(None),
            State::Content(header) => header,
            State::Header => match self.header(input) {
                Ok(None) => return Ok(None),
                Ok(Some(header)) => {
                    self.state = State::Content(header);
                    header
                }
                Err(error) => return self.end(error),
            },
        };
        if input.len() < header.content_bytes() {
            return Ok(None);
        }
        let body = input.split_to(header.body_bytes as usize);
        let payload = input.split_to(header.payload_bytes as usize).freeze();
        let Header { kind, sequence, content, .. } = header;
        if crc32c::crc32c_append(crc32c::crc32c(&body), &payload) != content {
            return self.end(FrameError::ContentSum { sequence });
        }
        match kind::take(kind, &body, payload) {
            Ok(message) => {
                self.expected += 1;
                self.state = State::Header;
                Ok(Some(message))
            }
            Err(malformed) => self.end(FrameError::Body { sequence, code: kind as u8, what: malformed.0 }),
        }
    }

    /// Bytes that are missing before [`next`](Self::next) gets further.
    pub fn want(&self, input: &BytesMut) -> usize {
        match self.state {
            State::Header => HEADER_BYTES.saturating_sub(input.len()),
            State::Content(header) => header.content_bytes().saturating_sub(input.len()),
            State::Ended => 0,
        }
    }

    /// How much room the caller may well make in `input` before it reads on: what is missing of a frame, but never
    /// more than what has arrived of it, or 256 KiB. So a peer gets no memory for a payload that it only announces.
    pub fn reserve_bytes(&self, input: &BytesMut) -> usize {
        match self.state {
            State::Content(header) if header.content_bytes() > RESERVE_BYTES_MIN => {
                self.want(input).min(input.len().max(PAYLOAD_RESERVE_BYTES_MIN)).max(HEADER_BYTES)
            }
            _ => RESERVE_BYTES_MIN,
        }
    }

    /// Takes the next header, once it is whole.
    fn header(&self, input: &mut BytesMut) -> Result<Option<Header>, FrameError> {
        // At once, so that who speaks something else need not say 32 bytes of it.
        let begun = input.len().min(MAGIC.len());
        if input[..begun] != MAGIC[..begun] {
            return Err(FrameError::Magic);
        }
        let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(bytes, self.expected)?;
        input.advance(HEADER_BYTES);
        Ok(Some(header))
    }

    fn end(&mut self, error: FrameError) -> Result<Option<Message>, FrameError> {
        self.state = State::Ended;
        Err(error)
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: Kind,
    sequence: u64,
    body_bytes: u32,
    payload_bytes: u32,
    /// The check sum of body and payload.
    content: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.content.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..HEADER_SUM_AT]);
        bytes[HEADER_SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], expected: u64) -> Result<Self, FrameError> {
        let mut rest = &bytes[MAGIC.len()..];
        let version = rest.get_u8();
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let (code, flags, sequence) = (rest.get_u8(), rest.get_u16_le(), rest.get_u64_le());
        let (body_bytes, payload_bytes) = (rest.get_u32_le(), rest.get_u32_le());
        let (content, sum) = (rest.get_u32_le(), rest.get_u32_le());
        if crc32c::crc32c(&bytes[..HEADER_SUM_AT]) != sum {
            return Err(FrameError::HeaderSum { expected });
        }
        if sequence != expected {
            return Err(FrameError::Sequence { expected, found: sequence });
        }
        let kind = Kind::new(code).filter(|_| flags == 0).ok_or(FrameError::Kind { code, flags })?;
        let payload_bytes_max = if kind.has_payload() { PAYLOAD_BYTES_MAX } else { 0 };
        if body_bytes > kind.body_bytes_max()
            || payload_bytes > payload_bytes_max
            || !payload_bytes.is_multiple_of(PAYLOAD_UNIT_BYTES)
        {
            return Err(FrameError::Lengths { code, body_bytes, payload_bytes });
        }
        Ok(Self { kind, sequence, body_bytes, payload_bytes, content })
    }

    fn content_bytes(&self) -> usize {
        self.body_bytes as usize + self.payload_bytes as usize
    }
}
