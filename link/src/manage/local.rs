//! What is asked and told of copies within the array: pairs and restores.

use serde::{Deserialize, Serialize};

/// A local pair, or a copy that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairInfo {
    /// Its number (C3).
    pub number: u32,
    /// The primary's name.
    pub primary: String,
    /// The secondary's name.
    pub secondary: String,
    /// Where it stands (Fig. 8).
    pub status: PairStage,
    /// What an operator calls that (C13).
    pub called: PairCalled,
    /// The copy in progress goes from the secondary to the primary.
    pub back: bool,
    /// How many tracks are moved at a time.
    pub pace: PairPace,
    /// Tracks of each volume.
    pub tracks: u32,
    /// Tracks of the copy in progress that the target has not taken over yet; it shows them all the same.
    pub to_copy_tracks: u32,
    /// Of a copy to another pool, the copy pointer: tracks before it lie there.
    pub moved_to_track: Option<u32>,
    /// Tracks that were written on either side since the last instant: what the next copy moves (C5).
    pub unequal_tracks: u32,
    /// Wall time of the last instant in ms since 1970.
    pub copied_ms: Option<u64>,
    /// Why the copy in progress does not go on.
    pub trouble: Option<String>,
}

named! {
    /// The status of a pair (C2, Fig. 8).
    PairStage {
        /// Hosts do not use the secondary.
        Paired = "paired and not copied",
        /// Both volumes are usable.
        Copying = "copy in progress",
        /// Both volumes are usable.
        Copied = "paired and copied",
    }
    /// What an operator calls the status (C13). A volume without a pair is *simplex*.
    PairCalled {
        /// Never copied yet.
        Pending = "pending",
        /// Both volumes are the same.
        Duplex = "duplex",
        /// Both volumes are used, and differ.
        Split = "split",
        /// What differs is to be copied, or copied back.
        Resync = "re-sync",
        /// A copy in progress does not go on.
        Suspend = "suspend",
        /// A restore, or a pair that was deleted while it was copied: it goes when all is copied.
        Once = "once",
        /// The secondary is what the primary was, and still being copied.
        SpPending = "SP-pending",
    }
}

/// How many tracks are moved to another pool at a time (C6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairPace {
    /// 1.
    Slow,
    /// 3.
    #[default]
    Medium,
    /// 15.
    Fast,
    /// 1 to 15, fewer as hosts wait longer.
    Adaptive,
}

impl PairPace {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Medium => "medium",
            Self::Fast => "fast",
            Self::Adaptive => "adaptive",
        }
    }
}

/// A schedule of copies (C8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleInfo {
    /// Its number.
    pub number: u32,
    /// What is copied.
    pub primary: String,
    /// Where to, by turns.
    pub secondaries: Vec<String>,
    /// Whose turn it is.
    pub next: String,
    /// Wall time of the next run in ms since 1970.
    pub next_ms: u64,
    /// Between two runs in ms; `None`: there is one.
    pub every_ms: Option<u64>,
    /// Why the last attempt failed; it is made again.
    pub trouble: Option<String>,
}

/// One session to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The session: active.
    pub session: u32,
    /// The device that becomes what the session shows: another one of the same size (D11, D12), or a virtual device that shows
    /// nothing (D13); `None`: its own standard device (D10).
    #[serde(default)]
    pub to: Option<String>,
    /// The session stays; otherwise it is used up (Fig. 20B).
    #[serde(default)]
    pub keep: bool,
    /// What a standard device was before is not kept as a session.
    #[serde(default)]
    pub discard_before: bool,
    /// A new name for the device (D9).
    #[serde(default)]
    pub name: Option<String>,
    /// Keeps hosts off the device (D9).
    #[serde(default)]
    pub offline: bool,
    /// How many tracks are moved at a time if the session's are in another pool (C6); `None`: *fast*.
    #[serde(default)]
    pub pace: Option<PairPace>,
}
