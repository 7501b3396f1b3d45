//! Whether the tables agree with themselves: for tests and the simulator, between any two events.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::TrackNo;
use crate::entry::Entry;
use crate::ids::{DeviceId, Generation, PhysicalTrack, SessionId};
use crate::mask::BlockMask;
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

    /// Compares reference counts with references, and looks at the shape of every entry. Takes time and memory in
    /// proportion to what is mapped.
    pub fn audit(&self) -> Result<(), AuditError> {
        let mut referred: BTreeMap<PhysicalTrack, u32> = self.space.owed_counts();
        for track in &self.flying {
            *referred.entry(*track).or_insert(0) += 1;
        }
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

    /// Physical tracks that are in use, for whatever reason. 0 once every device is gone and all is committed.
    pub fn used_tracks(&self) -> u64 {
        self.space.counted().len() as u64
    }
}
