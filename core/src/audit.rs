//! Whether the tables agree with themselves: for tests and the simulator, between any two events.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::TrackNo;
use crate::entry::Entry;
use crate::ids::{CopyId, DeviceId, Generation, PairId, PhysicalTrack, SessionId};
use crate::local::{CopyRecord, CopyStatus};
use crate::mask::BlockMask;
use crate::records::{Pinned, SessionState};
use crate::tables::Tables;

/// Where an entry stands in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryPlace {
    /// A track of a standard device.
    Device(DeviceId, TrackNo),
    /// What a track of a standard device was up to a generation.
    Version(DeviceId, TrackNo, Generation),
    /// A track of a session's own.
    Own(SessionId, TrackNo),
}

impl EntryPlace {
    /// Which track.
    pub fn track(self) -> TrackNo {
        match self {
            Self::Device(_, track) | Self::Version(_, track, _) | Self::Own(_, track) => track,
        }
    }
}

impl fmt::Display for EntryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id, track) => write!(f, "{id}/{track}"),
            Self::Version(id, track, upto) => write!(f, "{id}/{track}@{upto}"),
            Self::Own(id, track) => write!(f, "{id}/{track}"),
        }
    }
}

/// A contradiction within the tables.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditError {
    /// A physical track's count is not the number of references to it.
    #[error("{track} is counted {counted} times and referred to {referred} times")]
    Count {
        /// Which.
        track: PhysicalTrack,
        /// What the count says.
        counted: u32,
        /// What the tables say.
        referred: u32,
    },
    /// A physical track is free, yet referred to.
    #[error("{track} is free, yet referred to")]
    Free {
        /// Which.
        track: PhysicalTrack,
    },
    /// An entry that cannot be.
    #[error("{place} has the entry {entry}, with an empty or complete mask")]
    Shape {
        /// Where.
        place: EntryPlace,
        /// The entry.
        entry: Entry,
    },
    /// A pinned session that is no longer what it was when it was made.
    #[error("{session} is pinned: {what}")]
    Pinned {
        /// Which.
        session: SessionId,
        /// What is wrong.
        what: &'static str,
    },
    /// A copy within the array that does not agree with itself.
    #[error("{copy}: {what}")]
    Copy {
        /// Which.
        copy: CopyId,
        /// What is wrong.
        what: &'static str,
    },
    /// A half of a pair that does not agree with itself.
    #[error("{pair}: {what}")]
    Pair {
        /// Which.
        pair: PairId,
        /// What is wrong.
        what: &'static str,
    },
}

impl Tables {
    /// Every entry that refers to a physical track.
    pub fn entries(&self) -> impl Iterator<Item = (EntryPlace, Entry)> {
        let devices = self.devices.iter().flat_map(|(id, device)| {
            let present = device.table.mapped(TrackNo(0));
            let present = present.map(|(track, entry)| (EntryPlace::Device(*id, track), entry));
            let version = |((track, upto), entry): (&(TrackNo, Generation), &Entry)| {
                (EntryPlace::Version(*id, *track, *upto), *entry)
            };
            present.chain(device.versions.iter().map(version))
        });
        let own = self.sessions.iter().flat_map(|(id, session)| {
            session.own.iter().map(|(track, entry)| (EntryPlace::Own(*id, *track), *entry))
        });
        devices.chain(own)
    }

    /// Compares reference counts with references, looks at the shape of every entry and at every pair. Takes time and
    /// memory in proportion to what is mapped, owed, lacked and dirty.
    pub fn audit(&self) -> Result<(), AuditError> {
        self.audit_pairs()?;
        self.audit_copies()?;
        let mut referred: BTreeMap<PhysicalTrack, u32> = self.space.owed_counts();
        for track in &self.flying {
            *referred.entry(*track).or_insert(0) += 1;
        }
        self.audit_pinned()?;
        let full = self.geometry.full();
        for (place, entry) in self.entries() {
            let wrong = |mask: BlockMask| mask.is_empty() || mask == full || !full.covers(mask);
            if entry.over.is_some_and(|over| wrong(over.mask)) {
                return Err(AuditError::Shape { place, entry });
            }
            for track in entry.tracks() {
                *referred.entry(track).or_insert(0) += 1;
            }
        }
        let counted = self.space.counted();
        for track in referred.keys().chain(counted.keys()) {
            let (has, wants) =
                (counted.get(track).copied().unwrap_or(0), referred.get(track).copied().unwrap_or(0));
            if has != wants {
                return Err(AuditError::Count { track: *track, counted: has, referred: wants });
            }
            if wants > 0 && self.space.is_free(*track) {
                return Err(AuditError::Free { track: *track });
            }
        }
        Ok(())
    }

    /// A pinned session has not failed, and shows what its device was.
    fn audit_pinned(&self) -> Result<(), AuditError> {
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.record.pinned.is_some()) {
            let wrong = |what| Err(AuditError::Pinned { session: *id, what });
            if session.record.state == SessionState::Failed {
                return wrong("it has failed");
            }
            let written = !session.own.is_empty();
            if written && !matches!(session.record.pinned, Some(Pinned::Source(_))) {
                return wrong("it was written through its virtual device");
            }
        }
        Ok(())
    }

    /// What is to copy and what is unequal is what is noted, and what a copy is made from is there.
    fn audit_copies(&self) -> Result<(), AuditError> {
        for (id, copy) in &self.copies {
            let (record, wrong) = (&copy.record, |what| Err(AuditError::Copy { copy: *id, what }));
            let there = |device| self.standard(device).is_ok();
            if !there(record.primary) || !there(record.secondary) {
                return wrong("a device of it is not there");
            }
            if !copy.to_copy.is_consistent(record.to_copy_from) {
                return wrong("what is to copy is not what is noted");
            }
            if !copy.unequal.is_consistent(record.unequal_from) {
                return wrong("what is unequal is not what is noted");
            }
            if record.fill.is_none() && !copy.to_copy.set.is_empty() {
                return wrong("tracks are to come from nowhere");
            }
            if self.lies_elsewhere_before_pointer(*id, record) {
                return wrong("a track before its copy pointer is not in the pool of its target");
            }
            if let Some(fill) = record.fill
                && self.session(fill.session).is_none_or(|session| {
                    session.pinned != Some(Pinned::Source(*id)) || session.state.window().is_none()
                })
            {
                return wrong("what it is made from is not there");
            }
        }
        Ok(())
    }

    /// Whether a track of a target lies in another pool, though the copy pointer has passed it. What another copy has brought
    /// there since, that copy moves.
    fn lies_elsewhere_before_pointer(&self, id: CopyId, copy: &CopyRecord) -> bool {
        let target = copy.target();
        let is_moving = copy.status == CopyStatus::Copying && copy.fill.is_none();
        if !is_moving || self.copies().any(|(other, it)| other != id && it.target() == target) {
            return false;
        }
        let Some(device) = self.devices.get(&target) else { return false };
        let mut passed = device.table.mapped(TrackNo(0)).take_while(|(track, _)| *track < copy.moved_to);
        device.pool().is_some_and(|pool| passed.any(|(_, entry)| self.is_foreign(entry, pool)))
    }

    /// What a half owes, lacks and has marked is of its device, and is what its durable words and marks stand for; a
    /// device has one pair, a pair a peer.
    fn audit_pairs(&self) -> Result<(), AuditError> {
        for (id, pair) in &self.pairs {
            let wrong = |what| Err(AuditError::Pair { pair: *id, what });
            let record = &pair.record;
            let device = self.device(record.device).filter(|_| !record.stage.is_over());
            let tracks = device.map_or(0, |device| self.geometry.tracks(device.size_bytes));
            if !self.peers.contains_key(&record.peer) {
                return wrong("its peer is not known");
            }
            if !record.stage.is_over() && self.pair_of_device(record.device) != Some(*id) {
                return wrong("its device is not known to be its own");
            }
            if !record.stage.is_over() && device.is_none_or(|device| !device.is_standard()) {
                return wrong("its device is not there, or not a standard one");
            }
            if pair.owed.set.tracks() != tracks || pair.lacked.set.tracks() != tracks {
                return wrong("its device had another size");
            }
            if record.kept.as_ref().is_some_and(|kept| !self.is_kept_for(kept.session, *id, record.device)) {
                return wrong("what it goes back to is not there");
            }
            if !pair.owed.is_consistent(record.owed_from) {
                return wrong("what is owed is not what is noted");
            }
            if !pair.lacked.is_consistent(record.lacked_from) {
                return wrong("what is lacking is not what is noted");
            }
            if pair.owed.marked().any(|region| pair.regions.unit_of(region).is_none()) {
                return wrong("tracks are owed because of a mark that is gone");
            }
            if pair.regions.marked().any(|region| pair.owed.set.within(region) == 0) {
                return wrong("a region beyond its device is marked");
            }
        }
        let of_pairs = self.pairs.values().filter(|pair| !pair.record.stage.is_over()).count();
        match self.paired.values().next() {
            Some(pair) if self.paired.len() != of_pairs => Err(AuditError::Pair {
                pair: *pair,
                what: "the devices of pairs are not as many as the pairs",
            }),
            _ => Ok(()),
        }
    }

    /// Physical tracks that are in use, for whatever reason. 0 once every device is gone and all is committed.
    pub fn used_tracks(&self) -> u64 {
        self.space.counted().len() as u64
    }
}
