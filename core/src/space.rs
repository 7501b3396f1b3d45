//! Physical tracks: which are free, how often each is referred to, and by which I/O in flight.

use std::collections::{BTreeMap, BTreeSet};

use crate::defect::{Defect, planted};
use crate::ids::{Owner, PhysicalTrack, PoolId, StoreId};
use crate::records::StoreRecord;

/// The physical tracks of all stores.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// By their first track.
    stores: Vec<Store>,
    /// What a count of 255 is beyond it.
    overflow: BTreeMap<PhysicalTrack, u32>,
    /// Reads in flight: a pinned track is not reused, and written in place by no other owner (crash rule 7).
    pins: BTreeMap<PhysicalTrack, Vec<Owner>>,
    /// References dropped by units not yet committed, counted in `counts` too (crash rule 3).
    owed: BTreeMap<PhysicalTrack, u32>,
    /// Free tracks whose room the store has not got back.
    discardable: BTreeSet<PhysicalTrack>,
}

#[derive(Debug)]
struct Store {
    id: StoreId,
    pool: PoolId,
    first: u32,
    counts: Vec<u8>,
    free: FreeMap,
}

/// Space of a pool in physical tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolSpace {
    /// All there are.
    pub tracks: u64,
    /// Those that nothing takes.
    pub free: u64,
}

impl Space {
    /// Adds a store; `false` if its range is empty, overlaps another's or ends beyond 32 bits.
    pub(crate) fn add_store(&mut self, id: StoreId, record: &StoreRecord) -> bool {
        let end = record.first.checked_add(record.tracks);
        let fits = record.first > 0 && record.tracks > 0 && end.is_some();
        let clashes = |store: &Store| {
            store.id == id || (record.first < store.end() && end.is_some_and(|end| store.first < end))
        };
        if !fits || self.stores.iter().any(clashes) {
            return false;
        }
        let at = self.stores.partition_point(|store| store.first < record.first);
        let store = Store {
            id,
            pool: record.pool,
            first: record.first,
            counts: vec![0; record.tracks as usize],
            free: FreeMap::all_free(record.tracks),
        };
        self.stores.insert(at, store);
        true
    }

    /// The store of a track and the track's place in it.
    pub(crate) fn locate(&self, track: PhysicalTrack) -> Option<(StoreId, u32)> {
        let store = &self.stores[self.index(track)?];
        Some((store.id, track.get() - store.first))
    }

    pub(crate) fn pool_space(&self, pool: PoolId) -> PoolSpace {
        let mut space = PoolSpace::default();
        for store in self.stores.iter().filter(|store| store.pool == pool) {
            space.tracks += store.counts.len() as u64;
            space.free += u64::from(store.free.free);
        }
        space
    }

    /// The lowest free track of a pool, counted once from now on.
    pub(crate) fn allocate(&mut self, pool: PoolId) -> Option<PhysicalTrack> {
        for store in self.stores.iter_mut().filter(|store| store.pool == pool) {
            if let Some(index) = store.free.take_lowest() {
                let track = PhysicalTrack::new(store.first + index).expect("a store's first track is not 0");
                self.discardable.remove(&track);
                // Not an assertion that the count is 0: a planted defect may have freed a track that is owed.
                self.hold(track);
                return Some(track);
            }
        }
        None
    }

    /// How often a track is referred to; `None`: no store has it.
    pub(crate) fn count(&self, track: PhysicalTrack) -> Option<u32> {
        let store = &self.stores[self.index(track)?];
        let low = u32::from(store.counts[(track.get() - store.first) as usize]);
        Some(low + if low == 255 { self.overflow.get(&track).copied().unwrap_or(0) } else { 0 })
    }

    /// One reference more; `false`: no store has the track.
    pub(crate) fn hold(&mut self, track: PhysicalTrack) -> bool {
        let Some(at) = self.index(track) else { return false };
        let store = &mut self.stores[at];
        let index = track.get() - store.first;
        let count = &mut store.counts[index as usize];
        match *count {
            255 => *self.overflow.entry(track).or_insert(0) += 1,
            0 => {
                *count = 1;
                store.free.take(index);
                self.discardable.remove(&track);
            }
            _ => *count += 1,
        }
        true
    }

    /// One reference less; at none the track is free, unless a read in flight still needs it.
    pub(crate) fn release(&mut self, track: PhysicalTrack) {
        let at = self.index(track).expect("only held tracks are released");
        let store = &mut self.stores[at];
        let index = track.get() - store.first;
        let count = &mut store.counts[index as usize];
        if *count == 255
            && let Some(more) = self.overflow.get_mut(&track)
        {
            *more -= 1;
            if *more == 0 {
                self.overflow.remove(&track);
            }
            return;
        }
        *count = count.checked_sub(1).expect("a reference is released once");
        if *count == 0 && !self.pins.contains_key(&track) {
            store.free.give(index);
            self.discardable.insert(track);
        }
    }

    /// A reference was dropped by a unit that is not committed: it goes on counting until [`Self::settle_owed`].
    pub(crate) fn owe(&mut self, track: PhysicalTrack) {
        *self.owed.entry(track).or_insert(0) += 1;
        if planted(Defect::DropReused) && self.count(track) == self.owed.get(&track).copied() {
            let at = self.index(track).expect("an owed track is held");
            let store = &mut self.stores[at];
            store.free.give(track.get() - store.first);
        }
    }

    /// The unit that dropped it is committed.
    pub(crate) fn settle_owed(&mut self, track: PhysicalTrack) {
        let owed = self.owed.get_mut(&track).expect("owed before it is settled");
        *owed -= 1;
        if *owed == 0 {
            self.owed.remove(&track);
        }
        self.release(track);
    }

    /// Whether there are references that a commit would give back.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// A read of `owner` begins on a track.
    pub(crate) fn pin(&mut self, track: PhysicalTrack, owner: Owner) {
        self.pins.entry(track).or_default().push(owner);
    }

    /// A read of `owner` has ended on a track.
    pub(crate) fn unpin(&mut self, track: PhysicalTrack, owner: Owner) {
        let owners = self.pins.get_mut(&track).expect("pinned before it is unpinned");
        let at = owners.iter().position(|o| *o == owner).expect("by this owner");
        owners.swap_remove(at);
        if owners.is_empty() {
            self.pins.remove(&track);
            let at = self.index(track).expect("a pinned track is of a store");
            let store = &mut self.stores[at];
            let index = track.get() - store.first;
            if store.counts[index as usize] == 0 && !store.free.is_free(index) {
                store.free.give(index);
                self.discardable.insert(track);
            }
        }
    }

    /// Whether `owner`, who refers to the track once, may write it in place: nobody else refers to it, reads it or,
    /// after a crash, would (crash rules 3 and 7).
    pub(crate) fn sole(&self, track: PhysicalTrack, owner: Owner) -> bool {
        let mut count = self.count(track);
        if planted(Defect::DropWrittenInPlace) {
            let owed = self.owed.get(&track).copied().unwrap_or(0);
            count = count.map(|count| count - owed.min(count - 1));
        }
        count == Some(1) && self.pins.get(&track).is_none_or(|owners| owners.iter().all(|o| *o == owner))
    }

    /// Takes up to `most` adjacent free tracks of one store out of use, for their room to be given back to it: the
    /// store, the first one's place in it, and how many. [`Self::discarded`] frees them again.
    pub(crate) fn take_discardable(&mut self, most: u32) -> Option<(StoreId, u32, u32)> {
        let first = *self.discardable.first()?;
        let at = self.index(first).expect("a discardable track is of a store");
        let store = &mut self.stores[at];
        let (start, mut count) = (first.get() - store.first, 0);
        while count < most
            && let Some(track) = PhysicalTrack::new(first.get() + count)
            && track.get() < store.end()
            && self.discardable.remove(&track)
        {
            if !planted(Defect::DiscardUnheld) {
                store.free.take(start + count);
            }
            count += 1;
        }
        Some((store.id, start, count))
    }

    /// Their room was given back, or could not be: they are free.
    pub(crate) fn discarded(&mut self, id: StoreId, start: u32, count: u32) {
        let store = self.stores.iter_mut().find(|store| store.id == id).expect("stores stay");
        for index in start..start + count {
            if !planted(Defect::DiscardUnheld) {
                store.free.give(index);
            }
        }
    }

    /// Every track that is counted, with its count. For checks: as long as the stores are large.
    pub(crate) fn counted(&self) -> BTreeMap<PhysicalTrack, u32> {
        let mut counted = BTreeMap::new();
        for store in &self.stores {
            for (index, _) in store.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let track = PhysicalTrack::new(store.first + index as u32).expect("not 0");
                counted.insert(track, self.count(track).expect("its own store has it"));
            }
        }
        counted
    }

    /// The references that count until a commit, by track.
    pub(crate) fn owed_counts(&self) -> BTreeMap<PhysicalTrack, u32> {
        self.owed.clone()
    }

    /// Whether a track is free for use.
    pub(crate) fn is_free(&self, track: PhysicalTrack) -> bool {
        self.index(track).is_some_and(|at| self.stores[at].free.is_free(track.get() - self.stores[at].first))
    }

    fn index(&self, track: PhysicalTrack) -> Option<usize> {
        let at = self.stores.partition_point(|store| store.first <= track.get()).checked_sub(1)?;
        (track.get() < self.stores[at].end()).then_some(at)
    }
}

impl Store {
    fn end(&self) -> u32 {
        self.first + self.counts.len() as u32
    }
}

/// A bit a track, set if it is free, and a bit for every 64 of them, set if one is free.
#[derive(Debug)]
struct FreeMap {
    words: Vec<u64>,
    summary: Vec<u64>,
    free: u32,
    /// No summary word before this one has a bit set.
    hint: usize,
}

impl FreeMap {
    fn all_free(tracks: u32) -> Self {
        let set = |bits: usize| {
            let mut words = vec![u64::MAX; bits.div_ceil(64)];
            if !bits.is_multiple_of(64)
                && let Some(last) = words.last_mut()
            {
                *last = (1 << (bits % 64)) - 1;
            }
            words
        };
        let words = set(tracks as usize);
        let summary = set(words.len());
        Self { words, summary, free: tracks, hint: 0 }
    }

    fn is_free(&self, index: u32) -> bool {
        self.words[index as usize / 64] >> (index % 64) & 1 == 1
    }

    fn give(&mut self, index: u32) {
        if !self.is_free(index) {
            let word = index as usize / 64;
            self.words[word] |= 1 << (index % 64);
            self.summary[word / 64] |= 1 << (word % 64);
            self.hint = self.hint.min(word / 64);
            self.free += 1;
        }
    }

    fn take(&mut self, index: u32) {
        if self.is_free(index) {
            let word = index as usize / 64;
            self.words[word] &= !(1 << (index % 64));
            if self.words[word] == 0 {
                self.summary[word / 64] &= !(1 << (word % 64));
            }
            self.free -= 1;
        }
    }

    fn take_lowest(&mut self) -> Option<u32> {
        while *self.summary.get(self.hint)? == 0 {
            self.hint += 1;
        }
        let word = self.hint * 64 + self.summary[self.hint].trailing_zeros() as usize;
        let index = word as u32 * 64 + self.words[word].trailing_zeros();
        self.take(index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceId;
    use proptest::prelude::*;

    fn track(number: u32) -> PhysicalTrack {
        PhysicalTrack::new(number).unwrap()
    }

    fn space(tracks: u32) -> Space {
        let mut space = Space::default();
        let record = StoreRecord { name: "a".into(), pool: PoolId(0), first: 1, tracks };
        assert!(space.add_store(StoreId(0), &record));
        space
    }

    #[test]
    fn stores_may_not_overlap() {
        let mut space = space(10);
        let record = |first, tracks| StoreRecord { name: "b".into(), pool: PoolId(0), first, tracks };
        assert!(!space.add_store(StoreId(1), &record(10, 5)));
        assert!(!space.add_store(StoreId(1), &record(0, 5)));
        assert!(!space.add_store(StoreId(1), &record(u32::MAX, 2)));
        assert!(!space.add_store(StoreId(0), &record(11, 5)));
        assert!(space.add_store(StoreId(1), &record(11, 5)));
        assert_eq!(space.locate(track(12)), Some((StoreId(1), 1)));
        assert_eq!(space.locate(track(16)), None);
    }

    #[test]
    fn counts_beyond_a_byte() {
        let mut space = space(2);
        let a = space.allocate(PoolId(0)).unwrap();
        for _ in 0..1000 {
            space.hold(a);
        }
        assert_eq!(space.count(a), Some(1001));
        for _ in 0..1000 {
            space.release(a);
        }
        assert_eq!(space.count(a), Some(1));
        assert!(!space.is_free(a));
        space.release(a);
        assert!(space.is_free(a));
    }

    /// Crash rule 7: a read in flight keeps a track from being reused, and others from writing it in place.
    #[test]
    fn pins_keep_a_track() {
        let (mut space, reader, other) = (space(1), Owner::Device(DeviceId(1)), Owner::Device(DeviceId(2)));
        let a = space.allocate(PoolId(0)).unwrap();
        space.pin(a, reader);
        assert!(space.sole(a, reader));
        assert!(!space.sole(a, other));
        space.release(a);
        assert_eq!(space.allocate(PoolId(0)), None);
        space.unpin(a, reader);
        assert_eq!(space.allocate(PoolId(0)), Some(a));
    }

    proptest! {
        #[test]
        fn the_free_map_is_a_set(tracks in 1u32..5000, ops in prop::collection::vec(any::<(bool, u32)>(), 0..300)) {
            let mut map = FreeMap::all_free(tracks);
            let mut free: BTreeSet<u32> = (0..tracks).collect();
            for (give, index) in ops {
                if give {
                    map.give(index % tracks);
                    free.insert(index % tracks);
                } else if index % 3 == 0 {
                    map.take(index % tracks);
                    free.remove(&(index % tracks));
                } else {
                    prop_assert_eq!(map.take_lowest(), free.pop_first());
                }
                prop_assert_eq!(map.free as usize, free.len());
            }
        }
    }
}
