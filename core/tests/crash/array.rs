//! The part of the firmware that core leaves to its caller, in a few lines: I/O in flight, block locks, drains, syncs
//! and commits that take time. Each rule that is the caller's can be broken on request.

use std::collections::VecDeque;

use twintrack_core::{
    BlockMask, Change, Entry, Geometry, Owner, PhysicalTrack, Place, StoreId, Tables, UnitSeq, WritePlan,
};

use crate::common::{Durable, Rng, formatted};
use crate::disk::{Disk, JUNK};

/// A rule of the caller's that is broken on purpose, to see that the histories notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Rule 1: a FLUSH with nothing to commit is answered without a sync.
    FlushWithoutSync,
    /// Rule 2: a commit carries units that no sync has covered.
    CommitAheadOfData,
    /// Rule 2a: an activation is committed and told after a sync of new tracks alone.
    PointToldEarly,
    /// Rule 4: what waits for a commit is answered after its sync.
    ReplyBeforeCommit,
    /// Rule 7: an activation does not wait for the writes in flight.
    ActivateUndrained,
    /// Rule 7: a trim does not wait for the writes in flight to its track.
    TrimUndrained,
    /// Rule 7: a merge does not wait for the writes in flight to its track.
    MergeUndrained,
    /// Rule 7: a deactivation does not wait for the writes through its virtual device.
    DeactivateUndrained,
    /// Rule 7: overlapping writes go at the same time.
    OverlapUnordered,
    /// Rule 7: a fresh write goes beside others to its track.
    FreshBesideOthers,
    /// Commits become durable in another order than they were taken.
    CommitsSwapped,
}

impl Break {
    pub const ALL: [Self; 11] = [
        Self::FlushWithoutSync,
        Self::CommitAheadOfData,
        Self::PointToldEarly,
        Self::ReplyBeforeCommit,
        Self::ActivateUndrained,
        Self::TrimUndrained,
        Self::MergeUndrained,
        Self::DeactivateUndrained,
        Self::OverlapUnordered,
        Self::FreshBesideOthers,
        Self::CommitsSwapped,
    ];
}

/// A write between its plan and its landing.
#[derive(Debug)]
pub struct Flight {
    pub plan: WritePlan,
    /// Block, value, and whether the disk has it already.
    pub values: Vec<(u32, u32, bool)>,
    /// Of a merge: no host's write.
    pub merge: bool,
}

/// A read in flight: it was begun on an entry, and may show any of `legal`.
#[derive(Debug)]
pub struct Reading {
    pub owner: Owner,
    pub key: (Owner, u32, u32),
    pub entry: Entry,
    pub legal: Vec<u32>,
}

/// A sync in flight.
#[derive(Debug)]
pub struct Syncing {
    pub unit: UnitSeq,
    pub mark: u64,
}

/// A commit in flight.
#[derive(Debug)]
pub struct Committing {
    pub upto: UnitSeq,
    pub changes: Vec<Change>,
}

/// One array: its tables, its disk, its metadata store, and what is under way.
#[derive(Debug)]
pub struct Array {
    pub tables: Tables,
    pub disk: Disk,
    pub durable: Durable,
    /// The last unit that is durable.
    pub durable_unit: UnitSeq,
    pub writes: Vec<Flight>,
    pub reads: Vec<Reading>,
    pub discards: Vec<(StoreId, u32, u32)>,
    pub syncs: Vec<Syncing>,
    pub commits: VecDeque<Committing>,
    /// What syncs that have ended cover: units, and writes.
    pub synced: UnitSeq,
    pub synced_mark: u64,
    /// The last unit that a commit took.
    pub taken: UnitSeq,
    pub broken: Option<Break>,
}

impl Array {
    pub fn new(geometry: Geometry, stores: &[u32], broken: Option<Break>) -> Self {
        let durable = formatted(stores);
        let tables = Tables::load(geometry, durable.changes()).expect("a formatted array loads");
        Self {
            tables,
            disk: Disk::default(),
            durable,
            durable_unit: UnitSeq::ZERO,
            writes: Vec::new(),
            reads: Vec::new(),
            discards: Vec::new(),
            syncs: Vec::new(),
            commits: VecDeque::new(),
            synced: UnitSeq::ZERO,
            synced_mark: 0,
            taken: UnitSeq::ZERO,
            broken,
        }
    }

    pub fn breaks(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    pub fn read(&self, entry: Entry, block: u32) -> u32 {
        self.disk.read(entry.place_of(block), block)
    }

    /// Whether a write of these blocks has to wait for another, before it is planned.
    pub fn has_to_wait(&self, place: Place, blocks: BlockMask) -> bool {
        self.writes.iter().filter(|other| other.plan.place() == place).any(|other| {
            other.merge
                || (other.plan.fresh() && !self.breaks(Break::FreshBesideOthers))
                || (other.plan.blocks().overlaps(blocks) && !self.breaks(Break::OverlapUnordered))
        })
    }

    /// Whether a write that turned out fresh has to wait for others.
    pub fn fresh_has_to_wait(&self, plan: &WritePlan) -> bool {
        let beside = self.writes.iter().any(|other| other.plan.place() == plan.place());
        plan.fresh() && beside && !self.breaks(Break::FreshBesideOthers)
    }

    /// The disk gets the blocks of a write that it does not have yet, those that the plan carries, too.
    pub fn finish_blocks(&mut self, flight: &Flight) {
        let (slot, old) = (flight.plan.slot(), flight.plan.old());
        for block in flight.plan.carry().runs().flatten() {
            let value = self.disk.read(old.over.map(|over| over.track), block);
            self.disk.write(slot, block, value);
        }
        for (block, value, _) in flight.values.iter().filter(|(_, _, there)| !there) {
            self.disk.write(slot, *block, *value);
        }
    }

    pub fn begin_sync(&mut self) -> Result<(), String> {
        self.syncs.push(Syncing { unit: self.tables.last_unit(), mark: self.disk.mark() });
        Ok(())
    }

    pub fn end_sync(&mut self, at: usize) -> Result<(), String> {
        let sync = self.syncs.remove(at);
        self.disk.sync(sync.mark, |_| true);
        self.synced = self.synced.max(sync.unit);
        self.synced_mark = self.synced_mark.max(sync.mark);
        Ok(())
    }

    /// A sync of the tracks that the durable tables do not have: not enough for a point in time.
    pub fn sync_new_tracks(&mut self) {
        let known: Vec<_> = self.durable.entries.values().flat_map(|entry| entry.tracks()).collect();
        self.disk.sync(self.disk.mark(), |track| !known.contains(&track));
        self.synced = self.tables.last_unit();
    }

    /// Begins a commit of a prefix of the units that may be committed; all of them, or a part.
    pub fn begin_commit(&mut self, rng: &mut Rng) -> Result<(), String> {
        let most = if self.breaks(Break::CommitAheadOfData) { self.tables.last_unit() } else { self.synced };
        if most > self.taken {
            let (all, part) = (most.0 - self.taken.0, rng.below((most.0 - self.taken.0) as usize) as u64 + 1);
            self.taken.0 += if rng.chance(60) { all } else { part };
            let changes = self.tables.take_commit(self.taken);
            self.commits.push_back(Committing { upto: self.taken, changes });
        }
        Ok(())
    }

    /// The oldest commit is durable.
    pub fn end_commit(&mut self) -> Result<(), String> {
        if self.breaks(Break::CommitsSwapped) && self.commits.len() > 1 {
            self.commits.swap(0, 1);
        }
        if let Some(commit) = self.commits.pop_front() {
            self.durable.apply(commit.changes);
            self.durable_unit = commit.upto;
            self.tables.committed(commit.upto);
        }
        Ok(())
    }

    pub fn junk(&mut self, (store, start, count): (StoreId, u32, u32)) {
        let first = self.durable.stores[&store].first;
        for number in first + start..first + start + count {
            let track = PhysicalTrack::new(number).expect("a store begins at 1 or later");
            for block in 0..self.tables.geometry().blocks() {
                self.disk.write(track, block, JUNK);
            }
        }
    }

    /// The power fails: of everything under way, any part may have reached the disks. What was in memory is gone.
    pub fn power_cut(&mut self, rng: &mut Rng) -> Result<(), String> {
        for flight in std::mem::take(&mut self.writes) {
            let carried = flight.plan.carry().runs().flatten();
            let over = flight.plan.old().over.map(|over| over.track);
            let carried: Vec<_> = carried.map(|b| (b, self.disk.read(over, b), false)).collect();
            for (block, value, there) in flight.values.iter().chain(&carried) {
                if !there && rng.chance(50) {
                    self.disk.write(flight.plan.slot(), *block, *value);
                }
            }
        }
        for discard in std::mem::take(&mut self.discards) {
            if rng.chance(50) {
                self.junk(discard);
            }
        }
        while !self.commits.is_empty() && rng.chance(50) {
            self.end_commit()?;
        }
        self.disk.cut(rng);
        self.commits.clear();
        self.syncs.clear();
        self.reads.clear();
        (self.synced, self.synced_mark, self.taken) = (UnitSeq::ZERO, self.disk.mark(), UnitSeq::ZERO);
        let loaded = Tables::load(self.tables.geometry(), self.durable.changes());
        self.tables = loaded.map_err(|error| format!("the durable tables do not load: {error}"))?;
        Ok(())
    }
}
