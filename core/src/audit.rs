//! Whether the tables agree with themselves: for tests and the simulator, between any two events.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::entry::Entry;
use crate::ids::PhysicalTrack;
use crate::tables::Tables;

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
    #[error("{what} has the entry {entry}, with an empty or complete mask")]
    Shape {
        /// Whose.
        what: String,
        /// The entry.
        entry: Entry,
    },
}

impl Tables {
    /// Compares reference counts with references, and looks at the shape of every entry. Takes time and memory in
    /// proportion to what is mapped.
    pub fn audit(&self) -> Result<(), AuditError> {
        let mut referred: BTreeMap<PhysicalTrack, u32> = self.space.owed_counts();
        for track in &self.flying {
            *referred.entry(*track).or_insert(0) += 1;
        }
        let mut see = |what: &dyn Fn() -> String, entry: Entry| {
            let full = self.geometry.full();
            if entry
                .over
                .is_some_and(|over| over.mask.is_empty() || over.mask == full || !full.covers(over.mask))
            {
                return Err(AuditError::Shape { what: what(), entry });
            }
            for track in entry.tracks() {
                *referred.entry(track).or_insert(0) += 1;
            }
            Ok(())
        };
        for (id, device) in &self.devices {
            for (track, entry) in device.table.mapped(crate::TrackNo(0)) {
                see(&|| format!("{id}/{track}"), entry)?;
            }
            for ((track, upto), entry) in &device.versions {
                see(&|| format!("{id}/{track}@{upto}"), *entry)?;
            }
        }
        for (id, session) in &self.sessions {
            for (track, entry) in &session.own {
                see(&|| format!("{id}/{track}"), *entry)?;
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
