//! **A volume on two arrays, as one handle, is a disk that does not fail**: whoever uses nothing but the handle reads what he
//! was last told is written, whichever array serves, crashed or was left meanwhile, flushed or not. What he was not told of
//! may be there or not, and may go with the power, until he writes over it.
//!
//! One thing at a time is asked, so this needs no order of calls and answers.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::content::{Value, fill, parse};
use crate::disk::SECTOR_BYTES;

const S: usize = SECTOR_BYTES as usize;

/// What one handle was told.
#[derive(Debug, Default)]
pub struct Told {
    writes: u64,
    sectors: BTreeMap<u64, Sector>,
}

#[derive(Debug)]
struct Sector {
    /// The last write that was answered.
    holds: Value,
    /// Writes that were not answered, and may be there or come.
    open: BTreeSet<u64>,
}

impl Default for Sector {
    fn default() -> Self {
        Self { holds: Value::Zero, open: BTreeSet::new() }
    }
}

impl Sector {
    /// Whether bytes are parts of what was answered and of what was not: the power went while it was written.
    fn is_torn(&self, number: u64, bytes: &[u8; S]) -> bool {
        let mut whole: Vec<[u8; S]> = Vec::new();
        for value in std::iter::once(self.holds).chain(self.open.iter().map(|open| value(*open))) {
            let mut bytes = [0; S];
            if let Value::Written(write) = value {
                fill(write, number, &mut bytes);
            }
            whole.push(bytes);
        }
        whole.len() > 1 && (0..S).all(|at| whole.iter().any(|whole| whole[at] == bytes[at]))
    }
}

impl Told {
    /// A write is asked for: its number, and its bytes if it is one of data.
    pub fn begin(&mut self, offset: u64, length: u64) -> (u64, Vec<u8>) {
        self.writes += 1;
        let mut bytes = vec![0; length as usize];
        for (sector, out) in sectors(offset, length).zip(bytes.as_chunks_mut().0) {
            fill(self.writes, sector, out);
        }
        (self.writes, bytes)
    }

    /// A write is answered, or will not be. `zeros`: it was one of zeros.
    pub fn end(&mut self, write: u64, offset: u64, length: u64, zeros: bool, answered: bool) {
        let number = if zeros { 0 } else { write };
        for sector in sectors(offset, length) {
            let sector = self.sectors.entry(sector).or_default();
            if answered {
                // What is answered comes after all that were asked before.
                *sector = Sector { holds: value(number), ..Sector::default() };
            } else {
                sector.open.insert(number);
            }
        }
    }

    /// These bytes were read.
    pub fn read(&mut self, pair: &str, offset: u64, bytes: &[u8]) -> Result<(), Violation> {
        for (number, bytes) in sectors(offset, bytes.len() as u64).zip(bytes.as_chunks::<S>().0) {
            let sector = self.sectors.entry(number).or_default();
            let read = parse(bytes, number);
            let mut values = std::iter::once(sector.holds).chain(sector.open.iter().map(|open| value(*open)));
            if values.any(|value| Some(value) == read) || sector.is_torn(number, bytes) {
                continue;
            }
            let read = read
                .map_or_else(|| format!("bytes of no write ({:02x?}…)", &bytes[..16]), |v| format!("{v:?}"));
            let Sector { holds, open, .. } = sector;
            let what = format_args!(
                "the handle of pair {pair} reads {read} in sector {number}, and it was told of {holds:?}; not answered: {open:?}"
            );
            return Err(Violation::new("handle", what));
        }
        Ok(())
    }
}

/// 0 stands for zeros.
fn value(write: u64) -> Value {
    if write == 0 { Value::Zero } else { Value::Written(write) }
}

fn sectors(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / SECTOR_BYTES..(offset + length) / SECTOR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read() {
        let mut told = Told::default();
        let (first, old) = told.begin(0, 512);
        told.end(first, 0, 512, false, true);
        assert!(told.read("p", 0, &old).is_ok());
        assert_eq!(told.read("p", 0, &[0; S]).unwrap_err().oracle, "handle");
        assert!(told.read("p", 512, &old).is_err(), "it is of another sector");
        let (second, new) = told.begin(0, 512);
        told.end(second, 0, 512, false, false);
        assert!(told.read("p", 0, &old).is_ok());
        assert!(told.read("p", 0, &new).is_ok(), "it came late");
        assert!(told.read("p", 0, &old).is_ok(), "and went with the power");
        assert!(told.read("p", 0, &[&old[..9], &new[9..]].concat()).is_ok(), "or half of it did");
        let (third, _) = told.begin(0, 512);
        told.end(third, 0, 512, true, true);
        assert!(told.read("p", 0, &new).is_err());
        assert!(told.read("p", 0, &[0; S]).is_ok());
        assert!(told.read("p", 0, &[7; S]).is_err(), "no write put that");
    }
}
