//! Buffers that reads fill, used again and again: a new one would have to be cleared first, and large ones come from
//! the system and go back to it page by page.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The smallest buffer, and how many times that may be doubled: 4 KiB to 1 MiB.
const SMALLEST_BYTES: usize = 4 << 10;
const SIZES: usize = 9;
/// What is kept of each size, in bytes.
const KEPT_BYTES: usize = 4 << 20;

/// The buffers of one store. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    /// By size.
    kept: Arc<[Mutex<Vec<Vec<u8>>>; SIZES]>,
}

/// Bytes to be filled. What was read before may still be in them.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// What of them is asked for.
    length: usize,
    home: Buffers,
}

impl Buffers {
    /// So many bytes.
    pub(super) fn take(&self, length: usize) -> Buffer {
        let bytes = match size(length) {
            Some(size) => self.of(size).pop().unwrap_or_else(|| vec![0; SMALLEST_BYTES << size]),
            None => vec![0; length],
        };
        Buffer { bytes, length, home: self.clone() }
    }

    fn of(&self, size: usize) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        // A list of buffers is as good after a panic as before.
        self.kept[size].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// All of it.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// To be passed on; comes back when the last part of it is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(size) = size(self.length) {
            let mut kept = self.home.of(size);
            if kept.len() < KEPT_BYTES / (SMALLEST_BYTES << size) {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// The least size that has so many bytes.
fn size(length: usize) -> Option<usize> {
    (0..SIZES).find(|size| length <= SMALLEST_BYTES << size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_has_a_part_of_it() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(5000);
        buffer.as_mut().fill(7);
        let bytes = buffer.freeze();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(buffers.of(1).is_empty());
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert_eq!(buffers.of(1).len(), 1);
        assert_eq!(buffers.take(8192).as_ref().len(), 8192);
        assert_eq!(buffers.of(1).len(), 1, "taken, and back again");
    }

    #[test]
    fn what_is_kept_is_limited_and_what_is_large_is_not_kept() {
        let buffers = Buffers::default();
        drop((0..2000).map(|_| buffers.take(512)).collect::<Vec<_>>());
        assert_eq!(buffers.of(0).len(), KEPT_BYTES / SMALLEST_BYTES);
        drop(buffers.take(2 << 20));
        assert_eq!((size(0), size(1 << 20), size((1 << 20) + 1)), (Some(0), Some(8), None));
    }
}
