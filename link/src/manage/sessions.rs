//! Sessions, what changed in them, and what differs between two of them, as they are told.

use serde::{Deserialize, Serialize};

use super::PinnedKind;

/// Tracks of a standard device, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackRange {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub id: u32,
    /// Its standard device.
    pub standard: String,
    /// The tracks of it that the session is of (D19); `None`: all.
    #[serde(default)]
    pub tracks: Option<TrackRange>,
    /// Its virtual device.
    pub virtual_device: Option<String>,
    /// Where it stands.
    pub state: SessionInfoState,
    /// The group it waits in.
    pub group: Option<u32>,
    /// Wall time of its activation in ms since 1970.
    pub activated_ms: Option<u64>,
    /// What the array keeps it for, whatever room there is.
    #[serde(default)]
    pub pinned: Option<PinnedInfo>,
}

/// What a session is kept for that does not give way when room runs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedInfo {
    /// What it has.
    pub what: PinnedKind,
    /// Of which pair or copy; empty: of none.
    pub pair: String,
    /// A pair may have to go back to it, or a copy is made from it: it cannot be removed.
    pub needed: bool,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionInfoState {
    /// Reserved.
    Registered,
    /// Has its virtual device.
    Related,
    /// Half of a point in time on two arrays, until it is decided whether both have it.
    Prepared,
    /// A point in time.
    Active,
    /// A set of changed tracks (D15).
    Deactivated,
    /// Lost its old tracks to a full pool.
    Failed,
    /// On its way out.
    Removing,
}

/// The tracks of a standard device that changed since a session's activation, or that were written through its
/// virtual device; for a deactivated session, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedTracks {
    /// Track numbers in order, at most [`PAGE_MAX`](super::PAGE_MAX).
    pub tracks: Vec<u32>,
    /// Where to go on, if that was not all.
    pub next: Option<u32>,
}

/// What differs between two moments of a device, at most as coarse as a track. While hosts write, each answer is of another
/// instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// In order, at most [`PAGE_MAX`](super::PAGE_MAX).
    pub ranges: Vec<ByteRange>,
    /// Where to go on, if that was not all.
    pub next: Option<u64>,
}

/// Some bytes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// The first.
    pub offset: u64,
    /// How many.
    pub length: u64,
}
