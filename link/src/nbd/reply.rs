//! Replies of the transmission, as a server sends them.
//!
//! ```text
//! simple:      0          4      8       16
//!              0x67446698 error  cookie  | data of a successful READ |
//!
//! structured:  0          4      6     8       16      20       20+length
//!              0x668e33ef flags  type  cookie  length  payload          flags: 1 the last chunk of its reply
//!
//! type         0 NONE          none
//!              1 OFFSET_DATA   u64 offset | data
//!              2 OFFSET_HOLE   u64 offset | u32 length
//!              5 BLOCK_STATUS  u32 context | extents of (u32 length | u32 status)
//!                base:allocation: 1 hole, 2 zeros          others: 1 dirty
//!         2^15+1 ERROR         u32 error | u16 n | text: n
//!         2^15+2 ERROR_OFFSET  u32 error | u16 n | text: n | u64 offset
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::error::Errno;
use super::export::Negotiated;
use super::option::clip;
use super::request::Cookie;
use super::{MAGIC_SIMPLE_REPLY, MAGIC_STRUCTURED_REPLY, STATUS_EXTENTS_MAX};

pub(super) const SIMPLE_BYTES: usize = 16;
pub(super) const CHUNK_BYTES: usize = 20;
pub(super) const DONE: u16 = 1;
pub(super) const NONE: u16 = 0;
pub(super) const OFFSET_DATA: u16 = 1;
pub(super) const OFFSET_HOLE: u16 = 2;
pub(super) const BLOCK_STATUS: u16 = 5;
pub(super) const ERROR_BIT: u16 = 1 << 15;
pub(super) const ERROR: u16 = ERROR_BIT | 1;
pub(super) const ERROR_OFFSET: u16 = ERROR_BIT | 2;

/// What zeros are sent from.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A piece of what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Data(Bytes),
    /// That many zeros.
    Zeros(u32),
}

/// A run of block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusExtent {
    /// Bytes; not 0.
    pub length: u32,
    /// Flags; what they mean, the context says.
    pub status: u32,
}

impl StatusExtent {
    /// `base:allocation`: it takes no space.
    pub const HOLE: u32 = 1;
    /// `base:allocation`: it reads as zeros.
    pub const ZERO: u32 = 2;
    /// What is compared differs.
    pub const DIRTY: u32 = 1;

    /// By `base:allocation`: whether it takes no space.
    pub fn is_hole(self) -> bool {
        self.status & Self::HOLE != 0
    }

    /// By `base:allocation`: whether it reads as zeros.
    pub fn is_zero(self) -> bool {
        self.status & Self::ZERO != 0
    }

    /// By a context that compares: whether it differs.
    pub fn is_dirty(self) -> bool {
        self.status & Self::DIRTY != 0
    }
}

/// Makes the bytes of replies: appends to a list of segments, to be written one after the other; what was read is
/// in it uncopied.
#[derive(Debug, Clone)]
pub struct ReplyEncoder {
    structured: bool,
}

impl ReplyEncoder {
    /// For a transmission.
    pub fn new(negotiated: &Negotiated) -> Self {
        Self { structured: negotiated.structured }
    }

    /// A WRITE, FLUSH, TRIM or WRITE_ZEROES succeeded.
    pub fn done(&self, cookie: Cookie, out: &mut Vec<Bytes>) {
        if self.structured {
            let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
            chunk(&mut bytes, DONE, NONE, cookie, 0);
            out.push(bytes.freeze());
        } else {
            out.push(simple(0, cookie));
        }
    }

    /// Anything failed. `reason` is for people; up to 4096 bytes of it are sent, if replies are structured.
    pub fn error(&self, cookie: Cookie, errno: Errno, reason: &str, out: &mut Vec<Bytes>) {
        if !self.structured {
            out.push(simple(errno.code(), cookie));
            return;
        }
        let reason = clip(reason);
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + 6 + reason.len());
        chunk(&mut bytes, DONE, ERROR, cookie, 6 + reason.len() as u32);
        put_error(&mut bytes, errno, reason);
        out.push(bytes.freeze());
    }

    /// Anything failed, at a known place of the export, within the request.
    pub fn error_at(&self, cookie: Cookie, errno: Errno, offset: u64, reason: &str, out: &mut Vec<Bytes>) {
        if !self.structured {
            out.push(simple(errno.code(), cookie));
            return;
        }
        let reason = clip(reason);
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + 14 + reason.len());
        chunk(&mut bytes, DONE, ERROR_OFFSET, cookie, 14 + reason.len() as u32);
        put_error(&mut bytes, errno, reason);
        bytes.put_u64(offset);
        out.push(bytes.freeze());
    }

    /// A READ at `offset` succeeded. The pieces together are as long as what was asked for: a simple reply has no
    /// length of its own, so a client would lose its place.
    pub fn data(
        &self,
        cookie: Cookie,
        offset: u64,
        dont_fragment: bool,
        content: impl IntoIterator<Item = Content>,
        out: &mut Vec<Bytes>,
    ) {
        let pieces = content.into_iter().filter(|piece| piece.length() > 0);
        if !self.structured {
            out.push(simple(0, cookie));
            pieces.for_each(|piece| piece.append(out));
            return;
        }
        let runs = runs(pieces, dont_fragment);
        if runs.is_empty() {
            self.done(cookie, out);
        }
        let mut headers = BytesMut::with_capacity(runs.len() * (CHUNK_BYTES + 12));
        let mut offset = offset;
        let mut left = runs.len();
        for (length, pieces) in runs {
            left -= 1;
            let flags = if left == 0 { DONE } else { 0 };
            // Runs of zeros alone are holes, unless the client wants one piece of data.
            if let ([Content::Zeros(_)], false) = (&pieces[..], dont_fragment) {
                chunk(&mut headers, flags, OFFSET_HOLE, cookie, 12);
                headers.put_u64(offset);
                headers.put_u32(length);
                out.push(headers.split().freeze());
            } else {
                chunk(&mut headers, flags, OFFSET_DATA, cookie, 8 + length);
                headers.put_u64(offset);
                out.push(headers.split().freeze());
                pieces.into_iter().for_each(|piece| piece.append(out));
            }
            offset += u64::from(length);
        }
    }

    /// A BLOCK_STATUS succeeded: for each context that was agreed on its number and at least one extent, from the offset
    /// that was asked about on, and no more than one if the client wanted one. Those after the first 2^20 are left out.
    pub fn status<E>(
        &self,
        cookie: Cookie,
        contexts: impl IntoIterator<Item = (u32, E), IntoIter: ExactSizeIterator>,
        out: &mut Vec<Bytes>,
    ) where
        E: IntoIterator<Item = StatusExtent>,
    {
        let contexts = contexts.into_iter();
        let mut left = contexts.len();
        for (context, extents) in contexts {
            let mut payload = BytesMut::new();
            payload.put_u32(context);
            for extent in extents.into_iter().take(STATUS_EXTENTS_MAX) {
                payload.put_u32(extent.length);
                payload.put_u32(extent.status);
            }
            left -= 1;
            let flags = if left == 0 { DONE } else { 0 };
            let mut header = BytesMut::with_capacity(CHUNK_BYTES);
            chunk(&mut header, flags, BLOCK_STATUS, cookie, payload.len() as u32);
            out.push(header.freeze());
            out.push(payload.freeze());
        }
    }
}

impl Content {
    /// Bytes of it.
    pub fn length(&self) -> u32 {
        match self {
            Self::Data(data) => data.len() as u32,
            Self::Zeros(length) => *length,
        }
    }

    fn append(self, out: &mut Vec<Bytes>) {
        match self {
            Self::Data(data) => out.push(data),
            Self::Zeros(mut left) => {
                while left > 0 {
                    let now = (left as usize).min(ZEROES.len());
                    out.push(Bytes::from_static(&ZEROES[..now]));
                    left -= now as u32;
                }
            }
        }
    }
}

/// Neighbours that go into one chunk: data with data, zeros with zeros; or everything.
fn runs(pieces: impl Iterator<Item = Content>, together: bool) -> Vec<(u32, Vec<Content>)> {
    let mut runs: Vec<(u32, Vec<Content>)> = Vec::new();
    for piece in pieces {
        let length = piece.length();
        match (runs.last_mut(), &piece) {
            (Some((total, run)), Content::Zeros(_)) if matches!(run[..], [Content::Zeros(_)]) => {
                *total += length;
                run[0] = Content::Zeros(*total);
            }
            (Some((total, run)), _)
                if together || matches!((run.last(), &piece), (Some(Content::Data(_)), Content::Data(_))) =>
            {
                *total += length;
                run.push(piece);
            }
            _ => runs.push((length, vec![piece])),
        }
    }
    runs
}

fn simple(error: u32, cookie: Cookie) -> Bytes {
    let mut bytes = BytesMut::with_capacity(SIMPLE_BYTES);
    bytes.put_u32(MAGIC_SIMPLE_REPLY);
    bytes.put_u32(error);
    bytes.put_u64(cookie.0);
    bytes.freeze()
}

fn chunk(bytes: &mut BytesMut, flags: u16, kind: u16, cookie: Cookie, length: u32) {
    bytes.put_u32(MAGIC_STRUCTURED_REPLY);
    bytes.put_u16(flags);
    bytes.put_u16(kind);
    bytes.put_u64(cookie.0);
    bytes.put_u32(length);
}

fn put_error(bytes: &mut BytesMut, errno: Errno, reason: &[u8]) {
    bytes.put_u32(errno.code());
    bytes.put_u16(reason.len() as u16);
    bytes.put_slice(reason);
}
