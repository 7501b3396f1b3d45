//! Room in a sparse file, taken ahead of direct writes.
//!
//! A file system that finds room for a write past the page cache keeps all others to the file waiting meanwhile (ext4
//! until the disk has answered). Writes to room that was taken before go side by side. So the first write to a piece of
//! the file takes what is left of that piece, where nothing lies yet: it still reads as zeros.
//!
//! It costs room that may not be needed soon: of each piece that something lies in, what comes after it. Therefore
//! nothing is taken ahead where little is left, and what was given back is not taken again as long as something
//! lies behind it.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fstatvfs, seek};
use rustix::io::{Errno, retry_on_intr};

/// What is taken at a time.
const PIECE_BYTES: u64 = 16 << 20;
/// What has to be left for others.
const LEFT_BYTES: u64 = 16 * PIECE_BYTES;

/// The pieces of one file.
#[derive(Debug)]
pub(super) struct RoomAhead {
    size: u64,
    /// A bit for each piece: it was looked at, and nothing in it was given back since.
    looked_at: Vec<AtomicU64>,
    /// Whether the file system can do it.
    works: AtomicBool,
}

impl RoomAhead {
    pub(super) fn new(size: u64) -> Self {
        let words = size.div_ceil(PIECE_BYTES).div_ceil(64);
        let looked_at = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { size, looked_at, works: AtomicBool::new(true) }
    }

    /// Before a write to that place; blocks. Whatever fails here fails there again, or does no harm.
    pub(super) fn take(&self, file: &File, offset: u64, length: u64) {
        for piece in pieces(offset, length) {
            let (word, bit) = (&self.looked_at[(piece / 64) as usize], 1 << (piece % 64));
            if word.load(Ordering::Relaxed) & bit != 0 || !self.works.load(Ordering::Relaxed) {
                continue;
            }
            // Those that come meanwhile do not wait.
            if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                let begin = piece * PIECE_BYTES;
                let end = self.size.min(begin + PIECE_BYTES);
                self.take_free(file, [begin, offset.max(begin)], end);
            }
        }
    }

    /// Room there was given back.
    pub(super) fn given_back(&self, offset: u64, length: u64) {
        for piece in pieces(offset, length) {
            self.looked_at[(piece / 64) as usize].fetch_and(!(1 << (piece % 64)), Ordering::Relaxed);
        }
    }

    /// Takes everything up to `end` from the first of these places behind which nothing lies there.
    fn take_free(&self, file: &File, begins: [u64; 2], end: u64) {
        let is_free = |begin: &u64| match seek(file, SeekFrom::Data(*begin)) {
            Ok(data) => data >= end,
            // There is none up to the end of the file.
            Err(Errno::NXIO) => true,
            Err(_) => false,
        };
        let left = fstatvfs(file).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize));
        let Some(begin) = begins.into_iter().find(is_free).filter(|_| left >= LEFT_BYTES) else { return };
        let taken = retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, begin, end - begin));
        if let Err(Errno::OPNOTSUPP | Errno::NOSYS) = taken {
            self.works.store(false, Ordering::Relaxed);
        }
    }
}

fn pieces(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    offset / PIECE_BYTES..(offset + length).div_ceil(PIECE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    const SIZE: u64 = 3 * PIECE_BYTES + 4096;

    /// Writes a block as a store does; what the file takes then, in bytes.
    fn write(file: &File, room: &RoomAhead, offset: u64) -> u64 {
        room.take(file, offset, 4096);
        file.write_all_at(&[7; 4096], offset).unwrap();
        file.sync_data().unwrap();
        file.metadata().unwrap().blocks() * 512
    }

    fn punch(file: &File, room: &RoomAhead, offset: u64, length: u64) {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length).unwrap();
        room.given_back(offset, length);
    }

    /// A sparse file; `None`, with a word: there is too little left where it is.
    fn sparse() -> Option<(File, RoomAhead)> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let space = fstatvfs(&file).unwrap();
        if space.f_bavail * space.f_frsize < 2 * LEFT_BYTES {
            eprintln!("skipped: too little room in {}", std::env::temp_dir().display());
            return None;
        }
        Some((file, RoomAhead::new(SIZE)))
    }

    #[test]
    fn the_first_write_to_a_piece_takes_it() {
        let Some((file, room)) = sparse() else { return };
        let one = write(&file, &room, PIECE_BYTES + 8192);
        assert!((PIECE_BYTES..PIECE_BYTES * 3 / 2).contains(&one), "{one}");
        assert_eq!(write(&file, &room, 2 * PIECE_BYTES - 4096), one);
        // The last one is short.
        assert!(write(&file, &room, 3 * PIECE_BYTES) < PIECE_BYTES * 3 / 2);
        // Across two of them.
        room.take(&file, PIECE_BYTES - 4096, 8192);
        assert!(file.metadata().unwrap().blocks() * 512 >= 2 * PIECE_BYTES);
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        let mut read = [1; 4096];
        file.read_exact_at(&mut read, PIECE_BYTES).unwrap();
        assert_eq!(read, [0; 4096]);
    }

    #[test]
    fn what_lies_behind_stays_as_it_is() {
        let Some((file, room)) = sparse() else { return };
        // By another daemon, of which this one knows nothing.
        file.write_all_at(&[7; 4096], PIECE_BYTES / 2).unwrap();
        file.sync_data().unwrap();
        let little = write(&file, &room, 0);
        assert!(little < PIECE_BYTES / 4, "{little}");
        punch(&file, &room, 0, PIECE_BYTES / 4);
        let half = write(&file, &room, PIECE_BYTES / 2 + 4096);
        assert!(
            (PIECE_BYTES / 2..PIECE_BYTES * 3 / 4).contains(&half),
            "what comes after it is taken: {half}"
        );
    }

    #[test]
    fn a_piece_that_was_given_back_is_taken_again() {
        let Some((file, room)) = sparse() else { return };
        let one = write(&file, &room, 0);
        punch(&file, &room, 0, PIECE_BYTES);
        assert!(file.metadata().unwrap().blocks() * 512 < PIECE_BYTES / 2);
        assert_eq!(write(&file, &room, 4096), one);
    }
}
