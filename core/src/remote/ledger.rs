//! One of the two sets of tracks of a half, owed or lacked, with what of it is durable.

use std::collections::{BTreeMap, BTreeSet};

use super::TrackSet;
use crate::ids::{RegionNo, TrackNo};

/// Regions whose durable words lag behind, at most, before [`Ledger::is_due`].
const STALE_MAX: usize = 64;
/// Regions by which the copy pointer moves on, at most, before [`Ledger::is_due`].
const POINTER_LAG_MAX: u32 = 16;

/// The set as it is in memory, and the words as the last unit left them.
///
/// The durable words are exceptions to the durable pointer, which is the record's (`logged` below); the pointer in
/// memory is ahead of it. Pointer and words change together, in one unit.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) set: TrackSet,
    /// The words as logged; none is 0.
    rows: BTreeMap<RegionNo, u64>,
    /// Regions whose word is not as logged, but for those in `marked`, and those that the pointer passed over.
    stale: BTreeSet<RegionNo>,
    /// Regions with tracks that are in because of a dirty mark alone: logged by the unit that cleans the mark.
    marked: BTreeSet<RegionNo>,
}

impl Ledger {
    pub(crate) fn new(tracks: u32, from: TrackNo) -> Self {
        Self {
            set: TrackSet::from_parts(tracks, from, []),
            rows: BTreeMap::new(),
            stale: BTreeSet::new(),
            marked: BTreeSet::new(),
        }
    }

    /// All was loaded: the set is what the words say.
    pub(crate) fn settle_loaded(&mut self, tracks: u32, from: TrackNo) {
        self.set =
            TrackSet::from_parts(tracks, from, self.rows.iter().map(|(region, word)| (*region, *word)));
    }

    /// A word was logged or loaded.
    pub(crate) fn apply(&mut self, region: RegionNo, word: u64) {
        if word == 0 {
            self.rows.remove(&region);
        } else {
            self.rows.insert(region, word);
        }
    }

    pub(crate) fn insert(&mut self, track: TrackNo) -> bool {
        let new = self.set.insert(track);
        if new {
            self.stale.insert(RegionNo::of(track));
        }
        new
    }

    pub(crate) fn insert_word(&mut self, region: RegionNo, word: u64) -> bool {
        let new = self.set.insert_word(region, word) != 0;
        if new {
            self.stale.insert(region);
        }
        new
    }

    /// A dirty region: all of it comes in, for as long as the mark is durable without a unit.
    pub(crate) fn insert_marked(&mut self, region: RegionNo) {
        if self.set.insert_word(region, !0) != 0 && !self.stale.contains(&region) {
            self.marked.insert(region);
        }
    }

    pub(crate) fn remove(&mut self, track: TrackNo) -> bool {
        let was = self.set.remove(track);
        let region = RegionNo::of(track);
        if was && !self.marked.contains(&region) {
            self.stale.insert(region);
        }
        was
    }

    /// Whether the durable words lag behind so much that it is time for [`Self::settle`].
    pub(crate) fn is_due(&self, logged: TrackNo) -> bool {
        let moved = RegionNo::of(self.set.from()).0.saturating_sub(RegionNo::of(logged).0);
        self.stale.len() >= STALE_MAX || moved >= POINTER_LAG_MAX
    }

    /// The word to log for a region, against the pointer as it is durable; `None`: it is logged so already.
    pub(crate) fn word(&mut self, region: RegionNo, logged: TrackNo) -> Option<u64> {
        self.stale.remove(&region);
        self.marked.remove(&region);
        let word = self.set.word_against(region, logged);
        (self.rows.get(&region).copied().unwrap_or(0) != word).then_some(word)
    }

    /// Everything that is not as logged but what dirty marks stand for: the pointer, and the words against it. To be
    /// logged together.
    pub(crate) fn settle(&mut self, logged: TrackNo) -> (TrackNo, Vec<(RegionNo, u64)>) {
        let from = self.set.from();
        let mut regions = std::mem::take(&mut self.stale);
        if from != logged {
            let (first, last) = (RegionNo::of(from.min(logged)), RegionNo::of(from.max(logged)));
            regions.extend(self.rows.range(first..=last).map(|(region, _)| *region));
            regions.extend(self.set.exceptions_between(first, last).map(|(region, _)| region));
        }
        let words =
            regions.into_iter().filter_map(|region| self.word(region, from).map(|word| (region, word)));
        (from, words.collect())
    }

    /// Nothing is in it any more: the words to log with the pointer at the end.
    pub(crate) fn clear(&mut self) -> (TrackNo, Vec<(RegionNo, u64)>) {
        self.replace(TrackSet::none(self.set.tracks()))
    }

    /// Everything is in it: the words to log with the pointer at the beginning.
    pub(crate) fn fill(&mut self) -> (TrackNo, Vec<(RegionNo, u64)>) {
        self.replace(TrackSet::all(self.set.tracks()))
    }

    /// Another set is in its place: the pointer, and the words to log with it.
    pub(crate) fn become_set(&mut self, set: TrackSet) -> (TrackNo, Vec<(RegionNo, u64)>) {
        self.set = set;
        self.stale.clear();
        self.marked.clear();
        let from = self.set.from();
        let regions: BTreeSet<_> =
            self.rows.keys().copied().chain(self.set.exceptions().map(|(region, _)| region)).collect();
        let words =
            regions.into_iter().filter_map(|region| self.word(region, from).map(|word| (region, word)));
        (from, words.collect())
    }

    fn replace(&mut self, set: TrackSet) -> (TrackNo, Vec<(RegionNo, u64)>) {
        self.set = set;
        self.stale.clear();
        self.marked.clear();
        (self.set.from(), self.rows.keys().map(|region| (*region, 0)).collect())
    }

    /// Regions with tracks that are in because of a dirty mark alone.
    pub(crate) fn marked(&self) -> impl Iterator<Item = RegionNo> + '_ {
        self.marked.iter().copied()
    }

    /// Whether the durable words and marks together cover the set, and the words are of the device.
    pub(crate) fn is_consistent(&self, logged: TrackNo) -> bool {
        let rows = self.rows.iter().map(|(region, word)| (*region, *word));
        let durable = TrackSet::from_parts(self.set.tracks(), logged, rows);
        let lag = self.stale.iter().chain(&self.marked);
        let lag: BTreeSet<_> = lag.copied().collect();
        let (from, end) =
            (RegionNo::of(logged.min(self.set.from())), RegionNo::of(logged.max(self.set.from())));
        let regions = self.rows.keys().copied().chain(self.set.exceptions().map(|(region, _)| region));
        self.rows.iter().all(|(region, word)| *word != 0 && word & !self.set.within(*region) == 0)
            && regions
                .chain([from, end])
                .all(|region| lag.contains(&region) || durable.word(region) == self.set.word(region))
    }
}
