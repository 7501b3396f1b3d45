//! Puts the pieces of a READ's reply together.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::reply_decode::Chunk;

/// The pieces of a reply that are worth remembering: one for each sector, and some.
const SECTOR_BYTES: u32 = 512;
const PIECES_SPARE: u32 = 64;

/// Collects what a server sends for one READ, in any order. Memory is bounded by the length that was asked for.
#[derive(Debug)]
pub struct ReadAssembly {
    offset: u64,
    length: u32,
    content: Assembled,
    /// What has come: first byte to the byte after the last, relative to `offset`; neighbours are joined.
    covered: BTreeMap<u32, u32>,
    pieces: u32,
}

#[derive(Debug)]
enum Assembled {
    Nothing,
    /// One piece that is all there is to come, uncopied.
    Whole(Bytes),
    Pieces(BytesMut),
}

/// Why the pieces are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// A byte was sent twice.
    #[error("the server sent the byte at {offset} twice")]
    Overlap {
        /// The first such byte.
        offset: u64,
    },
    /// The server said that it was done, and bytes are missing.
    #[error("the server sent nothing for the byte at {offset}")]
    Missing {
        /// The first such byte.
        offset: u64,
    },
    /// More pieces than sectors.
    #[error("the server sent more than {max} pieces")]
    TooManyPieces {
        /// The limit.
        max: u32,
    },
}

impl ReadAssembly {
    /// For a READ of `length` bytes at `offset`.
    pub fn new(offset: u64, length: u32) -> Self {
        Self { offset, length, content: Assembled::Nothing, covered: BTreeMap::new(), pieces: 0 }
    }

    /// Takes a piece; chunks without data are none. What lies outside of the request is ignored:
    /// [`super::ReplyDecoder`] lets none through.
    pub fn add(&mut self, chunk: Chunk) -> Result<(), ReadError> {
        let (offset, length) = match &chunk {
            Chunk::Data { offset, data } => (*offset, data.len() as u64),
            Chunk::Hole { offset, length } => (*offset, u64::from(*length)),
            Chunk::None | Chunk::Status { .. } | Chunk::Error { .. } => return Ok(()),
        };
        let Some(from) = offset.checked_sub(self.offset) else { return Ok(()) };
        let to = from.saturating_add(length);
        if length == 0 || to > u64::from(self.length) {
            return Ok(());
        }
        self.cover(from as u32, to as u32)?;
        match chunk {
            Chunk::Data { data, .. } if length == u64::from(self.length) => {
                self.content = Assembled::Whole(data);
            }
            chunk => {
                if !matches!(self.content, Assembled::Pieces(_)) {
                    self.content = Assembled::Pieces(BytesMut::zeroed(self.length as usize));
                }
                if let (Assembled::Pieces(buffer), Chunk::Data { data, .. }) = (&mut self.content, chunk) {
                    buffer[from as usize..to as usize].copy_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    /// What was read, once the server said that it was done.
    pub fn finish(self) -> Result<Bytes, ReadError> {
        let missing = match self.covered.first_key_value() {
            None => (self.length > 0).then_some(0),
            Some((&from, _)) if from > 0 => Some(0),
            Some((_, &to)) => (to < self.length).then_some(to),
        };
        if let Some(missing) = missing {
            return Err(ReadError::Missing { offset: self.offset + u64::from(missing) });
        }
        Ok(match self.content {
            Assembled::Nothing => Bytes::new(),
            Assembled::Whole(data) => data,
            Assembled::Pieces(buffer) => buffer.freeze(),
        })
    }

    fn cover(&mut self, from: u32, to: u32) -> Result<(), ReadError> {
        let max = self.length / SECTOR_BYTES + PIECES_SPARE;
        self.pieces += 1;
        if self.pieces > max {
            return Err(ReadError::TooManyPieces { max });
        }
        let before = self.covered.range(..=from).next_back().map(|(&a, &b)| (a, b));
        let after = self.covered.range(from..).next().map(|(&a, &b)| (a, b));
        let overlap = match (before, after) {
            (Some((_, end)), _) if end > from => Some(from),
            (_, Some((start, _))) if start < to => Some(start),
            _ => None,
        };
        if let Some(at) = overlap {
            return Err(ReadError::Overlap { offset: self.offset + u64::from(at) });
        }
        let mut joined = (from, to);
        if let Some((start, end)) = before
            && end == from
        {
            joined.0 = start;
        }
        if let Some((start, end)) = after
            && start == to
        {
            self.covered.remove(&start);
            joined.1 = end;
        }
        self.covered.insert(joined.0, joined.1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, bytes: &'static [u8]) -> Chunk {
        Chunk::Data { offset, data: Bytes::from_static(bytes) }
    }

    #[test]
    fn pieces_in_any_order() {
        let mut read = ReadAssembly::new(100, 10);
        read.add(data(106, b"wxyz")).unwrap();
        read.add(data(100, b"abc")).unwrap();
        read.add(Chunk::Hole { offset: 103, length: 3 }).unwrap();
        assert_eq!(read.finish().unwrap(), &b"abc\0\0\0wxyz"[..]);
    }

    #[test]
    fn what_is_sent_twice_or_not_at_all() {
        let mut read = ReadAssembly::new(100, 10);
        read.add(data(102, b"abcd")).unwrap();
        assert_eq!(read.add(data(105, b"x")), Err(ReadError::Overlap { offset: 105 }));
        assert_eq!(read.add(Chunk::Hole { offset: 100, length: 3 }), Err(ReadError::Overlap { offset: 102 }));
        read.add(data(100, b"ab")).unwrap();
        assert_eq!(read.finish(), Err(ReadError::Missing { offset: 106 }));
        assert_eq!(ReadAssembly::new(7, 1).finish(), Err(ReadError::Missing { offset: 7 }));
    }

    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![7; 4096]);
        let mut read = ReadAssembly::new(0, 4096);
        read.add(Chunk::Data { offset: 0, data: bytes.clone() }).unwrap();
        assert_eq!(read.finish().unwrap().as_ptr(), bytes.as_ptr());
    }
}
