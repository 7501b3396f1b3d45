//! Copies within the array: pairs of volumes (C1 to C10) and restores (D10 to D13). What is kept of them, and their rules.
//!
//! A copy is a point in time. Its instant is one unit: a session of the source begins, and from then on the target shows, track
//! by track, what that session has ([`Fill`]), whatever its own table still says: it is usable at once, at any size. Behind
//! that, in bounded steps, the entries are taken over by reference ([`Tables::fill_step`](crate::Tables::fill_step)); a write
//! to a track that is still to come takes that one over first. When nothing is to come the session is no longer needed. A
//! target in another pool then has its tracks moved there, one by one
//! ([`Tables::plan_relocate`](crate::Tables::plan_relocate)); that alone moves data, and has a pace (C6).
//!
//! Two sets of tracks are kept of a pair, and told apart (C3): what is still *to copy*, and what is *unequal* (C5), written on
//! either side since. A bit becomes durable in the unit that gives the track another entry: the first write to a track
//! that is equal goes into a physical track of its own, and so does any other until that unit is committed. So there is no
//! write that a crash could leave unnoted, and none that waits for its bit.
//!
//! # Why no copy depends on another
//! The session that a target shows must not itself show a track that is still to come to *its* device: a copy whose source is
//! being filled is refused. A device that begins to be filled later goes on showing the sessions of before what they were:
//! those look at its own table, those of after at the fill ([`Fill::until`]).

mod draft;
mod fill;
mod pairs;
mod restore;
mod schedule;

use std::fmt;

pub(crate) use fill::Copy;
pub use pairs::PairCommand;
pub use restore::RestoreItem;
pub use schedule::{PERIOD_MS_MIN, SCHEDULES_MAX, SECONDARIES_MAX, ScheduleRecord};

use crate::ids::{DeviceId, Generation, SessionId, TrackNo};
use crate::records::Pinned;

/// Copies of an array at a time.
pub const COPIES_MAX: usize = crate::records::DEVICES_MAX;

/// A copy within the array (C3: number, status, primary, secondary, copy pointer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRecord {
    /// What it is for.
    pub purpose: Purpose,
    /// The primary; of a restore, the standard device whose session it is.
    pub primary: DeviceId,
    /// The secondary; of a restore, the device that gets the content, which may be the primary.
    pub secondary: DeviceId,
    /// Where it stands.
    pub status: CopyStatus,
    /// Whether the copy under way goes from the secondary to the primary.
    pub back: bool,
    /// While tracks are to come.
    pub fill: Option<Fill>,
    /// How many tracks are moved at a time.
    pub pace: Pace,
    /// Wall time of the last instant in ms since 1970; 0: there was none.
    pub copied_ms: u64,
    /// Tracks from here on are to come, but for those that the words name.
    pub to_copy_from: TrackNo,
    /// Tracks from here on are unequal, but for those that the words name.
    pub unequal_from: TrackNo,
    /// The copy pointer: tracks of the target before it lie in its own pool.
    pub moved_to: TrackNo,
}

/// What a copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A pair, until it is deleted.
    Pair,
    /// A restore, or a pair that was deleted while it was copied: it ends when all is copied.
    Once {
        /// The session that was restored is kept.
        keep: bool,
        /// What it was pinned for.
        pinned: Option<Pinned>,
    },
}

/// The status of a pair (C2, Fig. 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyStatus {
    /// Paired and not copied: hosts do not use the secondary.
    Paired,
    /// Copy in progress: both are usable.
    Copying,
    /// Paired and copied: both are usable, and what is written on either is unequal.
    Copied,
}

/// What a target shows where its own table is not filled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The content of the tracks to come.
    pub session: SessionId,
    /// The last generation of the target before it: sessions activated until then see its own table.
    pub until: Generation,
}

/// How many tracks are copied at a time, to another pool (C6) or another array (A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// 1.
    Slow,
    /// 3.
    Medium,
    /// 15.
    Fast,
    /// To another pool 1 to 15, to another array as many as fit the link; fewer as hosts wait longer.
    Adaptive,
}

impl CopyRecord {
    /// The device that is copied from.
    pub fn source(&self) -> DeviceId {
        if self.back { self.secondary } else { self.primary }
    }

    /// The device that is copied to.
    pub fn target(&self) -> DeviceId {
        if self.back { self.primary } else { self.secondary }
    }

    /// Whether it is a pair, and so notes what is unequal.
    pub fn is_pair(&self) -> bool {
        self.purpose == Purpose::Pair
    }
}

impl fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paired => "paired and not copied",
            Self::Copying => "being copied",
            Self::Copied => "paired and copied",
        })
    }
}
