//! What each write, copy and flush of a pair changes: dirty marks (crash rule 5), tracks owed and tracks lacking.
//!
//! A write on which nothing changes looks up two maps and allocates nothing.

use std::collections::BTreeSet;

use crate::defect::{Defect, planted};
use crate::ids::{PairId, RegionNo, TrackNo, UnitSeq};
use crate::pair::Pair;
use crate::records::Change;
use crate::remote::{FlushNo, Ledger, PairRecord, Regions, Role, TrackSet};
use crate::tables::Tables;

/// Which of the two sets of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Owed,
    Lacked,
}

impl Tables {
    // Dirty marks.

    /// A write to a region begins: it is marked if it was clean, and stays marked until [`Self::end_write`]. `Some`: the
    /// write must not reach a disk or the peer before that unit is committed, which marks the region, or by which a frozen pair
    /// takes writes again. `None`: it may.
    pub fn begin_write(&mut self, id: PairId, region: RegionNo) -> Option<UnitSeq> {
        let unit = match self.pairs.get(&id)?.regions.unit_of(region) {
            Some(unit) => unit,
            None => self.mark_dirty(id, region)?,
        };
        let pair = self.pairs.get_mut(&id)?;
        pair.regions.write_begins(region);
        let unit = unit.max(pair.thaw_unit);
        (unit > self.log.committed()).then_some(unit)
    }

    /// That write has ended on both sides, well or not.
    pub fn end_write(&mut self, id: PairId, region: RegionNo) {
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.regions.write_ended(region);
        }
    }

    /// Marks a region. `None`: it is marked already, perhaps not durably.
    pub fn mark_dirty(&mut self, id: PairId, region: RegionNo) -> Option<UnitSeq> {
        self.mark_run(id, region, 1)
    }

    /// Marks so many regions from one on, in one unit. `None`: all that the device has of them are marked already.
    pub fn mark_run(&mut self, id: PairId, first: RegionNo, count: u32) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        let run = (first.0..first.0.saturating_add(count)).map(RegionNo);
        let inside = run.take_while(|region| pair.owed.set.within(*region) != 0);
        let clean = inside.filter(|region| pair.regions.unit_of(*region).is_none());
        let changes: Vec<_> = clean.map(|region| Change::Dirty(id, region, true)).collect();
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    /// Whether a region is marked, durably.
    pub fn is_marked(&self, id: PairId, region: RegionNo) -> bool {
        let unit = self.pairs.get(&id).and_then(|pair| pair.regions.unit_of(region));
        unit.is_some_and(|unit| unit <= self.log.committed())
    }

    /// The dirty regions of a half.
    pub fn regions(&self, id: PairId) -> Option<&Regions> {
        self.pairs.get(&id).map(|pair| &pair.regions)
    }

    /// A flush of both arrays begins. When it has completed on both, [`Self::cleanable`] says what it cleaned.
    pub fn begin_flush(&mut self, id: PairId) -> Option<FlushNo> {
        self.pairs.get_mut(&id).map(|pair| pair.regions.begin_flush())
    }

    /// At most `most` regions that a flush which has completed on both arrays lets be cleaned.
    pub fn cleanable(&self, id: PairId, flush: FlushNo, most: usize) -> Vec<RegionNo> {
        self.pairs.get(&id).map_or_else(Vec::new, |pair| pair.regions.cleanable(flush, most))
    }

    /// Cleans regions. What is owed there because of the mark alone is noted in the same unit.
    pub fn clean(&mut self, id: PairId, regions: &[RegionNo]) -> UnitSeq {
        let mut changes = Vec::with_capacity(regions.len());
        if let Some(pair) = self.pairs.get_mut(&id) {
            for region in regions.iter().filter(|region| pair.regions.unit_of(**region).is_some()) {
                let word = pair.owed.word(*region, pair.record.owed_from);
                changes.extend(word.map(|word| Change::Owed(id, *region, word)));
                changes.push(Change::Dirty(id, *region, false));
            }
        }
        if changes.is_empty() { self.log.last() } else { self.put(changes, &[]) }
    }

    /// The peer has committed what follows from the marks that were here at the restart: they may be cleaned.
    pub fn marks_told(&mut self, id: PairId) {
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.regions.told();
        }
    }

    // Tracks owed: here, and lacking at the peer.

    /// The tracks that the peer lacks.
    pub fn owed(&self, id: PairId) -> Option<&TrackSet> {
        self.pairs.get(&id).map(|pair| &pair.owed.set)
    }

    /// Whether the peer lacks a track.
    pub fn is_owed(&self, id: PairId, track: TrackNo) -> bool {
        self.owed(id).is_some_and(|set| set.contains(track))
    }

    /// The first track from `from` on that the peer lacks.
    pub fn next_owed(&self, id: PairId, from: TrackNo) -> Option<TrackNo> {
        self.owed(id)?.next(from)
    }

    /// A track was written that the peer does not get with the write. `None`: it was owed already. The unit need not
    /// be committed before the write is answered, since the region's mark stands for it; but see
    /// [`Self::may_write_alone`].
    pub fn owe(&mut self, id: PairId, track: TrackNo) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        if !pair.owed.insert(track) {
            return None;
        }
        let region = RegionNo::of(track);
        let word = pair.owed.word(region, pair.record.owed_from)?;
        Some(self.put(vec![Change::Owed(id, region, word)], &[]))
    }

    /// Tracks that the peer says it may have lost, a word a region; what lies beyond the device is ignored. `None`:
    /// all was owed already.
    pub fn owe_words(&mut self, id: PairId, words: &[(RegionNo, u64)]) -> Option<UnitSeq> {
        self.insert_words(id, Side::Owed, words)
    }

    /// All tracks are owed. `None`: there is no such pair.
    pub fn owe_all(&mut self, id: PairId) -> Option<UnitSeq> {
        self.fill(id, Side::Owed)
    }

    /// The peer has a track, in its cache at least: its own dirty mark stands for that. Noted in memory at once, and
    /// durably a batch at a time: after a crash it may be owed again.
    pub fn pay(&mut self, id: PairId, track: TrackNo) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        if !pair.owed.remove(track) || !pair.owed.is_due(pair.record.owed_from) {
            return None;
        }
        self.settle_owed(id)
    }

    /// Notes durably what was paid. `None`: it is noted.
    pub fn settle_owed(&mut self, id: PairId) -> Option<UnitSeq> {
        let changes = self.settle_changes(id, Side::Owed);
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    // Tracks lacking: at the peer, and not here.

    /// The tracks that are lacking here.
    pub fn lacked(&self, id: PairId) -> Option<&TrackSet> {
        self.pairs.get(&id).map(|pair| &pair.lacked.set)
    }

    /// Whether a track is lacking here: it is to be fetched before anything of it is read, or written in part (A9).
    pub fn is_lacked(&self, id: PairId, track: TrackNo) -> bool {
        self.lacked(id).is_some_and(|set| set.contains(track))
    }

    /// The first track from `from` on that is lacking here.
    pub fn next_lacked(&self, id: PairId, from: TrackNo) -> Option<TrackNo> {
        self.lacked(id)?.next(from)
    }

    /// Tracks that the peer has and this half lacks, a word a region; what lies beyond the device is ignored. `None`:
    /// all were lacking already.
    pub fn lack_words(&mut self, id: PairId, words: &[(RegionNo, u64)]) -> Option<UnitSeq> {
        self.insert_words(id, Side::Lacked, words)
    }

    /// All tracks are lacking. `None`: there is no such pair.
    pub fn lack_all(&mut self, id: PairId) -> Option<UnitSeq> {
        self.fill(id, Side::Lacked)
    }

    /// A track is here, fetched or written whole. The unit is made at once: were a host's flush durable and this not,
    /// the track would be fetched again over what the host wrote. `None`: it was here before.
    pub fn fetched(&mut self, id: PairId, track: TrackNo) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        if !pair.lacked.remove(track) {
            return None;
        }
        let changes = if pair.lacked.is_due(pair.record.lacked_from) || pair.lacked.set.is_empty() {
            self.settle_changes(id, Side::Lacked)
        } else {
            let region = RegionNo::of(track);
            let word = pair.lacked.word(region, pair.record.lacked_from);
            word.map(|word| Change::Lacked(id, region, word)).into_iter().collect()
        };
        Some(self.put(changes, &[]))
    }

    // What the other files need.

    /// A half that has a device. Of one that is only a note for the peer nothing is recorded any more.
    fn held(&mut self, id: PairId) -> Option<&mut Pair> {
        self.pairs.get_mut(&id).filter(|pair| !pair.record.stage.is_over())
    }

    /// The changes by which tracks become owed, to go into one unit. All come in before the first word is made: of a
    /// region with several, each word would be made against what is logged without the others.
    pub(crate) fn owe_changes(&mut self, owes: &[(PairId, TrackNo)]) -> Vec<Change> {
        let mut regions = BTreeSet::new();
        for (id, track) in owes {
            if self.held(*id).is_some_and(|pair| pair.owed.insert(*track)) {
                regions.insert((*id, RegionNo::of(*track)));
            }
        }
        let mut changes = Vec::with_capacity(regions.len());
        for (id, region) in regions {
            if let Some(pair) = self.pairs.get_mut(&id) {
                let word = pair.owed.word(region, pair.record.owed_from);
                changes.extend(word.map(|word| Change::Owed(id, region, word)));
            }
        }
        changes
    }

    /// A half that becomes owner owes what its marks from before a restart stand for.
    pub(crate) fn owe_untold(&mut self, id: PairId) {
        if let Some(Pair { owed, regions, .. }) = self.pairs.get_mut(&id) {
            regions.untold().for_each(|region| owed.insert_marked(region));
            regions.told();
        }
    }

    /// Nothing is owed any more: the words that say so; the caller puts the pointer.
    pub(crate) fn forget_owed_tracks(&mut self, id: PairId) -> Vec<Change> {
        let Some(pair) = self.pairs.get_mut(&id) else { return Vec::new() };
        pair.owed.clear().1.into_iter().map(|(region, word)| Change::Owed(id, region, word)).collect()
    }

    /// Nothing is owed and nothing is lacking any more: the words that say so; the caller puts the pointers.
    pub(crate) fn forget_tracks(&mut self, id: PairId) -> Vec<Change> {
        let Some(pair) = self.pairs.get_mut(&id) else { return Vec::new() };
        let owed = pair.owed.clear().1.into_iter().map(|(region, word)| Change::Owed(id, region, word));
        let lacked = pair.lacked.clear().1.into_iter().map(|(region, word)| Change::Lacked(id, region, word));
        owed.chain(lacked).collect()
    }

    /// The number of tracks of a pair's device.
    pub(crate) fn end_of(&self, id: PairId) -> TrackNo {
        TrackNo(self.owed(id).map_or(0, TrackSet::tracks))
    }

    fn insert_words(&mut self, id: PairId, side: Side, words: &[(RegionNo, u64)]) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        let logged = pair.pointer(side);
        let ledger = pair.ledger(side);
        let came = words.iter().filter(|(region, word)| ledger.insert_word(*region, *word));
        // All come in before the first word is made, and each region has one.
        let regions: BTreeSet<_> = came.map(|(region, _)| *region).collect();
        let mut changes = Vec::with_capacity(regions.len());
        for region in regions {
            let word = ledger.word(region, logged);
            changes.extend(word.map(|word| side.change(id, region, word)));
        }
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    fn fill(&mut self, id: PairId, side: Side) -> Option<UnitSeq> {
        let pair = self.held(id)?;
        let (from, words) = pair.ledger(side).fill();
        let changes = pair.settled(id, side, from, words);
        Some(self.put(changes, &[]))
    }

    fn settle_changes(&mut self, id: PairId, side: Side) -> Vec<Change> {
        let Some(pair) = self.pairs.get_mut(&id) else { return Vec::new() };
        let logged = pair.pointer(side);
        let (from, words) = pair.ledger(side).settle(logged);
        pair.settled(id, side, from, words)
    }

    /// The changes to what this file and `pair.rs` keep.
    pub(crate) fn apply_remote(&mut self, change: Change) {
        match change {
            Change::Peer(id, Some(record)) => drop(self.peers.insert(id, record)),
            Change::Peer(id, None) => drop(self.peers.remove(&id)),
            Change::Saga(request, Some(outcome)) => drop(self.sagas.insert(request, outcome)),
            Change::Saga(request, None) => drop(self.sagas.remove(&request)),
            Change::Pair(id, record) => self.apply_pair(id, record),
            Change::Owed(id, region, word) => {
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.owed.apply(region, word);
                }
            }
            Change::Lacked(id, region, word) => {
                if let Some(pair) = self.pairs.get_mut(&id) {
                    pair.lacked.apply(region, word);
                }
            }
            Change::Dirty(id, region, marked) => {
                let unit = self.log.next();
                if let Some(pair) = self.pairs.get_mut(&id) {
                    if marked { pair.regions.mark(region, unit) } else { pair.regions.unmark(region) }
                }
            }
            _ => {}
        }
    }

    fn apply_pair(&mut self, id: PairId, record: Option<PairRecord>) {
        if let Some(device) = self.pairs.get(&id).map(|pair| pair.record.device)
            && self.paired.get(&device) == Some(&id)
        {
            self.paired.remove(&device);
        }
        self.returning.remove(&id);
        let Some(record) = record else {
            self.pairs.remove(&id);
            return;
        };
        if record.is_returning() {
            self.returning.insert(id);
        }
        let undoing = record.stage.is_over();
        if !undoing {
            self.paired.insert(record.device, id);
        }
        match self.pairs.get_mut(&id) {
            Some(pair) if !undoing => pair.record = record,
            _ => {
                let tracks = self.tracks_of_pair(&record);
                self.pairs.insert(id, Pair::new(record, tracks));
            }
        }
    }

    /// All was loaded: the sets are what the words say. An owner owes what was dirty; others keep their marks until
    /// the owner was told.
    pub(crate) fn settle_loaded_pairs(&mut self) {
        let tracks: Vec<_> = self.pairs.values().map(|pair| self.tracks_of_pair(&pair.record)).collect();
        for (pair, tracks) in self.pairs.values_mut().zip(tracks) {
            pair.owed.settle_loaded(tracks, pair.record.owed_from);
            pair.lacked.settle_loaded(tracks, pair.record.lacked_from);
            let owner = pair.record.role == Role::Owner;
            pair.regions.settle_loaded(!owner);
            if owner && !planted(Defect::DirtyNotOwed) {
                pair.regions.marked().for_each(|region| pair.owed.insert_marked(region));
            }
        }
    }

    fn tracks_of_pair(&self, record: &PairRecord) -> u32 {
        let device = self.device(record.device).filter(|_| !record.stage.is_over());
        device.map_or(0, |device| self.geometry.tracks(device.size_bytes))
    }
}

impl Pair {
    fn new(record: PairRecord, tracks: u32) -> Self {
        Self {
            owed: Ledger::new(tracks, record.owed_from),
            lacked: Ledger::new(tracks, record.lacked_from),
            regions: Regions::default(),
            generation_unit: UnitSeq::ZERO,
            thaw_unit: UnitSeq::ZERO,
            returned: TrackNo(0),
            record,
        }
    }

    /// The copy pointer as it is durable.
    fn pointer(&self, side: Side) -> TrackNo {
        match side {
            Side::Owed => self.record.owed_from,
            Side::Lacked => self.record.lacked_from,
        }
    }

    fn ledger(&mut self, side: Side) -> &mut Ledger {
        match side {
            Side::Owed => &mut self.owed,
            Side::Lacked => &mut self.lacked,
        }
    }

    /// The changes that put the copy pointer and words.
    fn settled(&self, id: PairId, side: Side, from: TrackNo, words: Vec<(RegionNo, u64)>) -> Vec<Change> {
        let mut record = (from != self.pointer(side)).then(|| self.record.clone());
        if let Some(record) = &mut record {
            match side {
                Side::Owed => record.owed_from = from,
                Side::Lacked => record.lacked_from = from,
            }
        }
        let record = record.map(|record| Change::Pair(id, Some(record)));
        record
            .into_iter()
            .chain(words.into_iter().map(|(region, word)| side.change(id, region, word)))
            .collect()
    }
}

impl Side {
    fn change(self, id: PairId, region: RegionNo, word: u64) -> Change {
        match self {
            Self::Owed => Change::Owed(id, region, word),
            Self::Lacked => Change::Lacked(id, region, word),
        }
    }
}
