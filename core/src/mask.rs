//! Which blocks of a track are meant: at most 256, one bit each.

use std::fmt;
use std::ops::{BitAnd, BitOr, Not, Range};

use crate::geometry::BLOCK_BYTES;

/// A set of the blocks of one track, 4 KiB each, numbered from 0 to 255 at most.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockMask([u64; 4]);

impl BlockMask {
    /// No block.
    pub const EMPTY: Self = Self([0; 4]);

    /// The blocks `from..to`; `to` is at most 256.
    pub fn range(from: u32, to: u32) -> Self {
        let mut words = [0; 4];
        for (index, word) in words.iter_mut().enumerate() {
            let first = index as u32 * 64;
            let low = from.clamp(first, first + 64) - first;
            let high = to.clamp(first, first + 64) - first;
            if low < high {
                *word = (u64::MAX >> (64 - (high - low))) << low;
            }
        }
        Self(words)
    }

    /// The blocks that the bytes `within..within + length` of a track touch, wholly or in part.
    pub fn touched(within: u32, length: u32) -> Self {
        Self::range(within / BLOCK_BYTES, (within + length).div_ceil(BLOCK_BYTES))
    }

    /// The words, least blocks first: how a mask is written down.
    pub fn words(self) -> [u64; 4] {
        self.0
    }

    /// From its words.
    pub fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// Whether no block is in it.
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    /// How many blocks are in it.
    pub fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether a block is in it.
    pub fn has(self, block: u32) -> bool {
        block < 256 && self.0[block as usize / 64] >> (block % 64) & 1 == 1
    }

    /// Whether all of `other` is in it.
    pub fn covers(self, other: Self) -> bool {
        self & other == other
    }

    /// Whether a block is in both.
    pub fn overlaps(self, other: Self) -> bool {
        !(self & other).is_empty()
    }

    /// The blocks in this and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self & !other
    }

    /// The runs of adjacent blocks, in order.
    pub fn runs(self) -> impl Iterator<Item = Range<u32>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < 256 && !self.has(at) {
                // Skip the empty rest of a word at once.
                let rest = self.0[at as usize / 64] >> (at % 64);
                at = if rest == 0 { (at / 64 + 1) * 64 } else { at + rest.trailing_zeros() };
            }
            if at >= 256 {
                return None;
            }
            let start = at;
            while self.has(at) {
                at += 1;
            }
            Some(start..at)
        })
    }
}

impl BitOr for BlockMask {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl BitAnd for BlockMask {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl Not for BlockMask {
    type Output = Self;
    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

impl fmt::Display for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, run) in self.runs().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            if run.len() == 1 {
                write!(f, "{comma}{}", run.start)?;
            } else {
                write!(f, "{comma}{}-{}", run.start, run.end - 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for BlockMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_and_runs_agree(from in 0u32..256, length in 0u32..257) {
            let to = (from + length).min(256);
            let mask = BlockMask::range(from, to);
            prop_assert_eq!(mask.count(), to - from);
            for block in 0..256 {
                prop_assert_eq!(mask.has(block), (from..to).contains(&block));
            }
            let runs: Vec<_> = mask.runs().collect();
            let whole: Vec<_> = if from < to { Some(from..to) } else { None }.into_iter().collect();
            prop_assert_eq!(runs, whole);
        }

        #[test]
        fn runs_rebuild_any_mask(words in any::<[u64; 4]>()) {
            let mask = BlockMask::from_words(words);
            let rebuilt = mask.runs().fold(BlockMask::EMPTY, |m, r| m | BlockMask::range(r.start, r.end));
            prop_assert_eq!(mask, rebuilt);
        }
    }

    #[test]
    fn touched_counts_partial_blocks() {
        assert_eq!(BlockMask::touched(4095, 2), BlockMask::range(0, 2));
        assert_eq!(BlockMask::touched(4096, 4096), BlockMask::range(1, 2));
    }
}
