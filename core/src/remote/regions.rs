//! The dirty marks of one pair (crash rule 5): which regions may differ from what the tables and the peer say.

use std::collections::BTreeMap;

use crate::ids::{RegionNo, UnitSeq};

/// A flush of the whole pair, counted from 1 within one run of the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushNo(pub u64);

/// The dirty marks of one half of a pair, with what is under way in each region.
///
/// Before the first write to a region since it was last clean its mark is committed; from then on writing there
/// commits nothing. A region may be cleaned when no write to it is under way and a flush that began after its last
/// write has completed, on both arrays. There is no fixed number of dirty regions, so no cliff; [`Self::cleanable`]
/// keeps them few.
#[derive(Debug, Default)]
pub struct Regions {
    marks: BTreeMap<RegionNo, Mark>,
    /// Flushes begun.
    flushes: u64,
}

#[derive(Debug)]
struct Mark {
    /// The unit that made it; durable once that is.
    unit: UnitSeq,
    /// Writes under way.
    writes: u32,
    /// Flushes that had begun when it was made, or when the last write ended.
    last: u64,
    /// From before a restart, and the peer has not been told: see [`Regions::told`].
    untold: bool,
}

impl Regions {
    /// How many regions are marked.
    pub fn count(&self) -> usize {
        self.marks.len()
    }

    /// The marked regions, ascending.
    pub fn marked(&self) -> impl Iterator<Item = RegionNo> + '_ {
        self.marks.keys().copied()
    }

    /// The unit that marked a region; `None`: it is clean.
    pub fn unit_of(&self, region: RegionNo) -> Option<UnitSeq> {
        self.marks.get(&region).map(|mark| mark.unit)
    }

    /// A write to a marked region begins. It ends with [`Self::write_ended`]; until then the region stays marked.
    pub fn write_begins(&mut self, region: RegionNo) {
        if let Some(mark) = self.marks.get_mut(&region) {
            mark.writes += 1;
        }
    }

    /// That write has ended, well or not.
    pub fn write_ended(&mut self, region: RegionNo) {
        if let Some(mark) = self.marks.get_mut(&region) {
            mark.writes = mark.writes.saturating_sub(1);
            mark.last = self.flushes;
        }
    }

    /// A flush of both arrays begins: writes that have ended are covered by it.
    pub fn begin_flush(&mut self) -> FlushNo {
        self.flushes += 1;
        FlushNo(self.flushes)
    }

    /// Regions, ascending and at most `most`, that may be cleaned once that flush has completed on both arrays.
    pub fn cleanable(&self, flush: FlushNo, most: usize) -> Vec<RegionNo> {
        let free = self.marks.iter().filter(|(_, mark)| mark.may_go(flush));
        free.map(|(region, _)| *region).take(most).collect()
    }

    /// The peer has committed what follows from the marks that were there at the restart: they are like any others.
    pub(crate) fn told(&mut self) {
        self.marks.values_mut().for_each(|mark| mark.untold = false);
    }

    /// Marks that the peer has not been told of, ascending.
    pub(crate) fn untold(&self) -> impl Iterator<Item = RegionNo> + '_ {
        self.marks.iter().filter(|(_, mark)| mark.untold).map(|(region, _)| *region)
    }

    pub(crate) fn mark(&mut self, region: RegionNo, unit: UnitSeq) {
        self.marks.insert(region, Mark { unit, writes: 0, last: self.flushes, untold: false });
    }

    /// All was loaded: the marks are durable.
    pub(crate) fn settle_loaded(&mut self, untold: bool) {
        self.marks.values_mut().for_each(|mark| (mark.unit, mark.untold) = (UnitSeq::ZERO, untold));
    }

    pub(crate) fn unmark(&mut self, region: RegionNo) {
        self.marks.remove(&region);
    }
}

impl Mark {
    fn may_go(&self, flush: FlushNo) -> bool {
        self.writes == 0 && self.last < flush.0 && !self.untold
    }
}
