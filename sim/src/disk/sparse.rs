//! Bytes that take room only where they were written.

use std::collections::BTreeMap;

/// The unit in which room is taken.
pub const CHUNK_BYTES: usize = 64 << 10;

/// A range of bytes, most of them never written.
#[derive(Debug, Default)]
pub struct Sparse {
    chunks: BTreeMap<u64, Box<[u8]>>,
    fill: u8,
}

impl Sparse {
    /// Every byte is `fill` at first.
    pub fn new(fill: u8) -> Self {
        Self { chunks: BTreeMap::new(), fill }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        for (chunk, within, range) in parts(offset, out.len()) {
            let to = &mut out[range];
            match self.chunks.get(&chunk) {
                Some(bytes) => to.copy_from_slice(&bytes[within..within + to.len()]),
                None => to.fill(self.fill),
            }
        }
    }

    /// Copies bytes in.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let fill = self.fill;
        for (chunk, within, range) in parts(offset, data.len()) {
            let from = &data[range];
            let bytes =
                self.chunks.entry(chunk).or_insert_with(|| vec![fill; CHUNK_BYTES].into_boxed_slice());
            bytes[within..within + from.len()].copy_from_slice(from);
        }
    }

    /// Whether all chunks of a range were written.
    pub fn has(&self, offset: u64, length: usize) -> bool {
        parts(offset, length).all(|(chunk, _, _)| self.chunks.contains_key(&chunk))
    }

    /// The first byte of each chunk that takes room.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = u64> {
        self.chunks.keys().map(|chunk| chunk * CHUNK_BYTES as u64)
    }
}

/// The chunks of a range: chunk, first byte in it, and which bytes of the range lie there.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset + done as u64;
            let within = (at % CHUNK_BYTES as u64) as usize;
            let take = (CHUNK_BYTES - within).min(length - done);
            let range = done..done + take;
            done += take;
            (at / CHUNK_BYTES as u64, within, range)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_across_chunks() {
        let mut sparse = Sparse::new(7);
        let edge = CHUNK_BYTES as u64 - 2;
        sparse.write(edge, &[1, 2, 3, 4]);
        let mut out = [0; 6];
        sparse.read(edge - 1, &mut out);
        assert_eq!(out, [7, 1, 2, 3, 4, 7]);
        assert!(sparse.has(edge, 4) && !sparse.has(edge, CHUNK_BYTES * 2));
        assert_eq!(sparse.offsets().len(), 2);
    }
}
