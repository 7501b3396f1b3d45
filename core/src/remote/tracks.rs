//! A set of tracks of a device: constant size for "all from here on", sparse where it differs from that.

use std::collections::BTreeMap;

use crate::ids::{RegionNo, TrackNo};

/// A set of the tracks of one device.
///
/// All tracks at or after [`Self::from`] (the copy pointer) are in it, and none before, but for the *exceptions*,
/// for which it is the other way round: what is written behind the pointer comes in, what is fetched ahead of it goes
/// out. Exceptions are kept a region at a time, so that a new pair's "all of them" takes no memory, and no more than a
/// word a region at the worst. The pointer moves on by itself over tracks that went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSet {
    /// Tracks of the device.
    end: u32,
    /// At most `end`. The track here is in the set.
    from: u32,
    /// Never 0.
    exceptions: BTreeMap<RegionNo, u64>,
    count: u32,
}

impl TrackSet {
    /// No track of a device with so many.
    pub fn none(tracks: u32) -> Self {
        Self { end: tracks, from: tracks, exceptions: BTreeMap::new(), count: 0 }
    }

    /// All tracks of a device with so many.
    pub fn all(tracks: u32) -> Self {
        Self { end: tracks, from: 0, exceptions: BTreeMap::new(), count: tracks }
    }

    /// All tracks from `from` on, but for the exceptions. Of several words of a region the last counts; what lies
    /// beyond the device is ignored.
    pub fn from_parts(
        tracks: u32,
        from: TrackNo,
        exceptions: impl IntoIterator<Item = (RegionNo, u64)>,
    ) -> Self {
        let from = from.0.min(tracks);
        let mut set = Self { end: tracks, from, exceptions: BTreeMap::new(), count: 0 };
        for (region, word) in exceptions {
            set.put(region, word & set.within(region));
        }
        let (mut more, mut fewer) = (0, 0);
        for (region, word) in &set.exceptions {
            let ahead = baseline(*region, from);
            fewer += (word & ahead).count_ones();
            more += (word & !ahead).count_ones();
        }
        set.count = tracks - from + more - fewer;
        set.move_on();
        set
    }

    /// The copy pointer: the track here is in the set, unless the device ends here.
    pub fn from(&self) -> TrackNo {
        TrackNo(self.from)
    }

    /// Tracks of the device.
    pub fn tracks(&self) -> u32 {
        self.end
    }

    /// How many tracks are in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether no track is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a track is in it; a track beyond the device is not.
    pub fn contains(&self, track: TrackNo) -> bool {
        track.0 < self.end && self.word(RegionNo::of(track)) & RegionNo::bit(track) != 0
    }

    /// The tracks of a region that are in it.
    pub fn word(&self, region: RegionNo) -> u64 {
        (self.exception(region) ^ baseline(region, self.from)) & self.within(region)
    }

    /// The tracks of a region for which it is not as a pointer at `from` says.
    pub fn word_against(&self, region: RegionNo, from: TrackNo) -> u64 {
        (self.word(region) ^ baseline(region, from.0)) & self.within(region)
    }

    /// The exceptions by region, as [`Self::from_parts`] takes them; no word is 0.
    pub fn exceptions(&self) -> impl DoubleEndedIterator<Item = (RegionNo, u64)> + '_ {
        self.exceptions.iter().map(|(region, word)| (*region, *word))
    }

    /// The exceptions of some regions, both ends included.
    pub fn exceptions_between(
        &self,
        first: RegionNo,
        last: RegionNo,
    ) -> impl Iterator<Item = (RegionNo, u64)> + '_ {
        self.exceptions.range(first..=last).map(|(region, word)| (*region, *word))
    }

    /// The first track in it at or after `at`.
    pub fn next(&self, at: TrackNo) -> Option<TrackNo> {
        if at.0 < self.from {
            let last = RegionNo::of(TrackNo(self.from));
            let sparse = self.exceptions.range(RegionNo::of(at)..=last);
            let behind = sparse.filter_map(|(region, _)| self.first_in(*region, at.0)).next();
            if behind.is_some() {
                return behind;
            }
        }
        // Beyond the pointer a region without exceptions is all in: this ends at the first.
        let mut at = at.0.max(self.from);
        while at < self.end {
            let region = RegionNo::of(TrackNo(at));
            if let Some(found) = self.first_in(region, at) {
                return Some(found);
            }
            at = region.first().0.saturating_add(RegionNo::TRACKS);
        }
        None
    }

    /// Puts a track in; whether it was out. A track beyond the device stays out.
    pub fn insert(&mut self, track: TrackNo) -> bool {
        let new = track.0 < self.end && !self.contains(track);
        if new {
            self.turn(track);
            self.count += 1;
        }
        new
    }

    /// Takes a track out; whether it was in.
    pub fn remove(&mut self, track: TrackNo) -> bool {
        let was = self.contains(track);
        if was {
            self.turn(track);
            self.count -= 1;
            self.move_on();
        }
        was
    }

    /// Puts several tracks of a region in, those that the device has; which of them were out.
    pub fn insert_word(&mut self, region: RegionNo, word: u64) -> u64 {
        let new = word & self.within(region) & !self.word(region);
        if new != 0 {
            self.put(region, self.exception(region) ^ new);
            self.count += new.count_ones();
        }
        new
    }

    /// The tracks of a region that the device has.
    pub fn within(&self, region: RegionNo) -> u64 {
        !baseline(region, self.end)
    }

    fn exception(&self, region: RegionNo) -> u64 {
        self.exceptions.get(&region).copied().unwrap_or(0)
    }

    fn put(&mut self, region: RegionNo, word: u64) {
        if word == 0 {
            self.exceptions.remove(&region);
        } else {
            self.exceptions.insert(region, word);
        }
    }

    fn turn(&mut self, track: TrackNo) {
        let region = RegionNo::of(track);
        self.put(region, self.exception(region) ^ RegionNo::bit(track));
    }

    /// The first track of a region in the set, at or after a track number.
    fn first_in(&self, region: RegionNo, at: u32) -> Option<TrackNo> {
        let word = self.word(region) & baseline(region, at);
        (word != 0).then(|| TrackNo(region.0 * RegionNo::TRACKS + word.trailing_zeros()))
    }

    /// The pointer passes over tracks ahead of it that went out.
    fn move_on(&mut self) {
        while self.from < self.end {
            let region = RegionNo::of(TrackNo(self.from));
            let word = self.exception(region);
            let gone = word & baseline(region, self.from);
            let run = (gone >> (self.from % RegionNo::TRACKS)).trailing_ones();
            if run == 0 {
                return;
            }
            let before = self.from;
            self.from += run;
            // Those passed over are behind the pointer now, and out: no exceptions any more.
            self.put(region, word & !(baseline(region, before) & !baseline(region, self.from)));
        }
    }
}

/// The tracks of a region at or after a track number.
fn baseline(region: RegionNo, from: u32) -> u64 {
    let first = u64::from(region.0) * u64::from(RegionNo::TRACKS);
    match u64::from(from).checked_sub(first) {
        None => !0,
        Some(before) if before < u64::from(RegionNo::TRACKS) => !0 << before,
        Some(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u32),
        Remove(u32),
        RemoveRun(u32, u32),
        InsertWord(u32, u64),
        Again,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0u32..400).prop_map(Op::Insert),
            4 => (0u32..400).prop_map(Op::Remove),
            2 => (0u32..400, 1u32..200).prop_map(|(at, run)| Op::RemoveRun(at, run)),
            1 => (0u32..8, any::<u64>()).prop_map(|(region, word)| Op::InsertWord(region, word)),
            1 => Just(Op::Again),
        ];
        prop::collection::vec(op, 0..60)
    }

    fn agree(set: &TrackSet, model: &BTreeSet<u32>) {
        assert_eq!(set.count() as usize, model.len());
        assert_eq!(set.is_empty(), model.is_empty());
        for track in 0..420 {
            assert_eq!(set.contains(TrackNo(track)), model.contains(&track), "{track}: {set:?}");
            let next = model.range(track..).next().map(|track| TrackNo(*track));
            assert_eq!(set.next(TrackNo(track)), next, "from {track}: {set:?}");
        }
        assert!(set.exceptions().all(|(_, word)| word != 0));
        assert!(set.from().0 == set.tracks() || set.contains(set.from()));
    }

    proptest! {
        #[test]
        fn it_is_a_set(end in 0u32..400, from in 0u32..450, ops in ops()) {
            let mut set = TrackSet::from_parts(end, TrackNo(from), []);
            let mut model: BTreeSet<u32> = (from..end).collect();
            agree(&set, &model);
            for op in ops {
                match op {
                    Op::Insert(t) => prop_assert_eq!(set.insert(TrackNo(t)), t < end && model.insert(t)),
                    Op::Remove(t) => prop_assert_eq!(set.remove(TrackNo(t)), model.remove(&t)),
                    Op::RemoveRun(at, run) => for t in at..at + run {
                        prop_assert_eq!(set.remove(TrackNo(t)), model.remove(&t));
                    },
                    Op::InsertWord(region, word) => {
                        let region = RegionNo(region);
                        let new = set.insert_word(region, word);
                        for track in region.tracks(word).filter(|track| track.0 < end) {
                            prop_assert_eq!(new & RegionNo::bit(track) != 0, model.insert(track.0));
                        }
                        prop_assert_eq!(new & !word, 0);
                    }
                    Op::Again => {
                        let again = TrackSet::from_parts(end, set.from(), set.exceptions());
                        prop_assert_eq!(&again, &set);
                    }
                }
            }
            agree(&set, &model);
        }

        /// Words against any pointer, put together with that pointer, are the set.
        #[test]
        fn any_pointer_will_do(end in 0u32..400, from in 0u32..400, other in 0u32..400, ops in ops()) {
            let mut set = TrackSet::from_parts(end, TrackNo(from), []);
            for op in ops {
                match op {
                    Op::Insert(t) => drop(set.insert(TrackNo(t))),
                    Op::Remove(t) => drop(set.remove(TrackNo(t))),
                    _ => {}
                }
            }
            let other = TrackNo(other.min(end));
            let words = (0..8).map(|r| (RegionNo(r), set.word_against(RegionNo(r), other)));
            let again = TrackSet::from_parts(end, other, words);
            for track in 0..end {
                prop_assert_eq!(again.contains(TrackNo(track)), set.contains(TrackNo(track)));
            }
            prop_assert_eq!(again.count(), set.count());
        }
    }

    /// A new pair of the largest device, copied in order, never takes more than a word or two.
    #[test]
    fn all_from_here_on_is_constant() {
        let tracks = 1 << 30;
        let mut set = TrackSet::all(tracks);
        for track in 0..10_000 {
            assert_eq!(set.next(TrackNo(0)), Some(TrackNo(track)));
            assert!(set.remove(TrackNo(track)));
            assert!(set.exceptions().count() <= 1);
        }
        assert!(set.remove(TrackNo(tracks - 1)));
        assert_eq!((set.count(), set.exceptions().count()), (tracks - 10_001, 1));
        assert!(!set.insert(TrackNo(tracks)) && !set.contains(TrackNo(u32::MAX)));
    }
}
