//! The metadata file for a look: what redb writes while it opens one (marks, repairs after a kill) stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::metadata_file::MetadataFile;

const PAGE_BYTES: u64 = 4096;

/// A metadata file that stays as it is, whatever is done with it here.
#[derive(Debug)]
pub(super) struct MetadataLook {
    file: MetadataFile,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Of the file only so much counts: behind it are zeros, if it was ever shorter.
    file_length: u64,
    /// Pages that were written, by number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl MetadataLook {
    /// Of a file that is open to read.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let file = MetadataFile(file);
        let length = file.len()?;
        let state = State { length, file_length: length, pages: BTreeMap::new() };
        Ok(Self { file, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it is in the file.
    fn page(&self, number: u64, file_length: u64) -> io::Result<Vec<u8>> {
        let mut page = vec![0; PAGE_BYTES as usize];
        let begin = number * PAGE_BYTES;
        let there = file_length.saturating_sub(begin).min(PAGE_BYTES) as usize;
        self.file.read(begin, &mut page[..there])?;
        Ok(page)
    }
}

/// The pieces of a range, page by page: the page's number, where it begins there, and its place in the range.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let now = (PAGE_BYTES as usize - within).min(length - done);
        let piece = (at / PAGE_BYTES, within, done..done + now);
        done += now;
        (now > 0).then_some(piece)
    })
}

impl StorageBackend for MetadataLook {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, place) in pieces(offset, out.len()) {
            let (out, length) = (&mut out[place.clone()], place.len());
            match state.pages.get(&number) {
                Some(page) => out.copy_from_slice(&page[within..within + length]),
                None => {
                    let begin = number * PAGE_BYTES + within as u64;
                    let there = state.file_length.saturating_sub(begin).min(length as u64) as usize;
                    self.file.read(begin, &mut out[..there])?;
                    out[there..].fill(0);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.length = length;
        state.file_length = state.file_length.min(length);
        state.pages.retain(|number, _| number * PAGE_BYTES < length);
        // What is cut off is gone, should it grow again.
        let last = state.pages.get_mut(&(length / PAGE_BYTES));
        last.into_iter().for_each(|page| page[(length % PAGE_BYTES) as usize..].fill(0));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for (number, within, place) in pieces(offset, data.len()) {
            if !state.pages.contains_key(&number) {
                let page = self.page(number, state.file_length)?;
                state.pages.insert(number, page);
            }
            if let Some(page) = state.pages.get_mut(&number) {
                page[within..within + place.len()].copy_from_slice(&data[place]);
            }
        }
        state.length = state.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_as_a_file_and_changes_none() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let before: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        std::fs::write(named.path(), &before).unwrap();
        let look = MetadataLook::new(File::open(named.path()).unwrap()).unwrap();
        let mut wanted = before.clone();
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..500u64 {
            if round % 10 == 9 {
                let length = next(40_000);
                look.set_len(length).unwrap();
                wanted.resize(length as usize, 0);
            }
            let (offset, length) = (next(30_000), next(9000) as usize);
            let data = vec![round as u8; length];
            look.write(offset, &data).unwrap();
            wanted.resize(wanted.len().max(offset as usize + length), 0);
            wanted[offset as usize..offset as usize + length].copy_from_slice(&data);
            assert_eq!(look.len().unwrap(), wanted.len() as u64);
            let from = next(wanted.len() as u64) as usize;
            let mut read = vec![1; wanted.len() - from];
            look.read(from as u64, &mut read).unwrap();
            assert!(read == wanted[from..], "round {round}");
            assert!(look.read(from as u64 + 1, &mut read).is_err(), "behind its end");
        }
        look.sync_data().unwrap();
        assert_eq!(std::fs::read(named.path()).unwrap(), before);
    }
}
