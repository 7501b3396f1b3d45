//! What fio wrote, in order, and what a device may show of it.
//!
//! A job with one request in flight and `write_iolog` logs each request when it issues it; with `verify=crc32c` each
//! block that it writes begins with a header that has the write's number:
//!
//! ```text
//! 0      2     4       8     16      24   28    32      34      36         40      44
//! 0xacca check length  seed  offset  sec  nsec  thread  number  of header  of data data
//! ```

use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a write.
pub const BLOCK: u64 = 4096;
/// The header's number has 16 bits.
pub const WRITES_MAX: u64 = 65_000;
const HEADER_BYTES: usize = 44;

/// A job's requests.
#[derive(Debug, Default)]
pub struct IoLog {
    /// The numbers of the writes to each offset, in order.
    writes: BTreeMap<u64, Vec<u64>>,
    /// Writes that were begun.
    pub begun: u64,
    /// Writes that were answered before the last flush that was answered began.
    pub flushed: u64,
}

impl IoLog {
    /// Reads what a job left behind.
    ///
    /// When a connection breaks, fio notices by the request that it cannot send any more, not by the one that was
    /// never answered, and has logged both. So a flush was answered if two requests follow it.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut log = Self::default();
        // How many writes the flushes before the last and the last request covered.
        let mut covered = [0, 0];
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [_, _, "write", offset, length] => {
                    assert_eq!(length.parse(), Ok(BLOCK), "{line}");
                    log.writes.entry(offset.parse().unwrap()).or_default().push(log.begun);
                    log.begun += 1;
                    log.flushed = covered[0];
                    covered[0] = covered[1];
                }
                [_, _, "sync", ..] => {
                    log.flushed = covered[0];
                    covered = [covered[1], log.begun];
                }
                _ => {}
            }
        }
        assert!(log.begun < WRITES_MAX, "{} writes", log.begun);
        log
    }

    /// The image is the device at one instant: all writes up to one are there, none after it is. Returns how many are.
    pub fn instant(&self, image: &[u8]) -> u64 {
        let seen = self.versions(image);
        let count = seen.values().flatten().max().map_or(0, |last| last + 1);
        for (offset, numbers) in &self.writes {
            let expected = numbers.iter().rev().find(|number| **number < count);
            assert_eq!(seen[offset].as_ref(), expected, "at {offset}, when {count} writes were done");
        }
        count
    }

    /// The image has all that was flushed; of the rest each block is there or not.
    pub fn at_least_flushed(&self, image: &[u8]) {
        for (offset, found) in self.versions(image) {
            let flushed = self.writes[&offset].iter().rev().find(|number| **number < self.flushed);
            assert!(found.as_ref() >= flushed, "at {offset}: write {found:?}, but {flushed:?} was flushed");
        }
    }

    /// Which write each block shows. Each is whole, and belongs there.
    fn versions(&self, image: &[u8]) -> BTreeMap<u64, Option<u64>> {
        let version = |(offset, numbers): (&u64, &Vec<u64>)| {
            let block = &image[*offset as usize..][..BLOCK as usize];
            let found = number(*offset, block);
            assert!(
                found.is_none_or(|number| numbers.contains(&number)),
                "at {offset}: {found:?} was not written there"
            );
            (*offset, found)
        };
        self.writes.iter().map(version).collect()
    }
}

/// The number of the write that a block shows; `None` if it was never written.
fn number(offset: u64, block: &[u8]) -> Option<u64> {
    if block.iter().all(|byte| *byte == 0) {
        return None;
    }
    let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().unwrap());
    assert_eq!(
        (u16_at(0), u32_at(4), u64_at(16)),
        (0xACCA, BLOCK as u32, offset),
        "at {offset}: no header of fio"
    );
    // fio leaves out the last step of the usual CRC32C.
    assert_eq!(u32_at(40), !crc32c::crc32c(&block[HEADER_BYTES..]), "at {offset}: a torn block");
    Some(u16_at(34).into())
}
