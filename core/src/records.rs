//! What a device, a session, a group and a pool are, apart from their tracks: the records that are kept durably.

use std::fmt;

use crate::extent::Extent;
use crate::ids::{
    CopyId, DeviceId, Generation, GroupId, PairId, PeerId, PoolId, RegionNo, ScheduleId, SessionId, StoreId,
};
use crate::local::{CopyRecord, ScheduleRecord};
use crate::remote::{PairRecord, PeerRecord, SagaOutcome};

/// Devices of an array.
pub const DEVICES_MAX: usize = 4096;
/// Sessions of a standard device (F1); those being removed in the background count too.
pub const SESSIONS_PER_DEVICE_MAX: usize = 1024;
/// Groups that may be open at a time.
pub const GROUPS_MAX: usize = 256;
/// Bytes of a device's name.
pub const NAME_BYTES_MAX: usize = 64;

/// A device (D1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Unique among the devices; also its NBD export name.
    pub name: String,
    /// Standard or virtual.
    pub kind: DeviceKind,
    /// A multiple of 512. A virtual device has the size of the standard device that it was last related to.
    pub size_bytes: u64,
    /// Whether hosts may use it.
    pub online: bool,
    /// Kept to become the secondary of a pair (C9): hosts use it only once it has been copied to.
    pub reserved: bool,
}

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Has data of its own.
    Standard {
        /// Where its tracks lie.
        pool: PoolId,
        /// Raised by each activation and deactivation of a session.
        generation: Generation,
        /// It was deleted; its tracks are being given back.
        deleting: bool,
    },
    /// Has pointers only: it shows the session that it is related to.
    Virtual,
}

/// A session: one snapshot of one standard device (D7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The standard device.
    pub standard: DeviceId,
    /// Which of its tracks it is of (D19); `None`: of all.
    pub extent: Option<Extent>,
    /// The virtual device that shows it, from *relate* on. `None` again once the session is being removed.
    pub virtual_device: Option<DeviceId>,
    /// Where it stands.
    pub state: SessionState,
    /// Wall time of its activation in ms since 1970; 0 before.
    pub activated_ms: u64,
    /// What it is kept for; `None`: a session like any other.
    pub pinned: Option<Pinned>,
}

/// What a session is kept for that is not failed when room runs out. The array makes it itself, with the virtual device that
/// shows it, on a device of a pair, and nobody writes through that device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pinned {
    /// The last state of a half before a copy into it began. Removed when the copy is complete.
    SafetyCopy(PairId),
    /// What the half that was given up had after both were written alone (F4).
    Loser(PairId),
    /// A point in time on two arrays (F3) of which it is not decided whether both have it. Then it is a session like any
    /// other, or gone.
    Undecided(Decision),
    /// What a device was before a restore, so that it can be undone.
    Before,
    /// What a copy within the array goes on from. The array has made it, or a person, who restores it.
    Source(CopyId),
}

/// Who decides whether two arrays have a point in time, and by which request it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decision {
    /// The array that does; `None`: this one.
    pub by: Option<PeerId>,
    /// The request (F2).
    pub request: u64,
}

impl Pinned {
    /// The pair that it is for.
    pub fn pair(self) -> Option<PairId> {
        match self {
            Self::SafetyCopy(pair) | Self::Loser(pair) => Some(pair),
            Self::Undecided(_) | Self::Before | Self::Source(_) => None,
        }
    }
}

/// Where a session stands: registered → related → active → deactivated → removed (Fig. 15–18, 27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Reserved on its standard device; costs writes nothing.
    Registered {
        /// The group it will be activated with.
        group: Option<GroupId>,
    },
    /// Has a virtual device; costs writes nothing.
    Related {
        /// The group it will be activated with.
        group: Option<GroupId>,
    },
    /// A point in time.
    Active {
        /// The generation of its standard device that its activation began.
        activated: Generation,
    },
    /// Takes no more I/O and costs no more; its changed tracks stay readable (D15).
    Deactivated {
        /// As when it was active.
        activated: Generation,
        /// The last generation it sees.
        until: Generation,
    },
    /// Lost its old tracks to a full pool; only *remove* is left for it.
    Failed,
    /// Its own tracks are being given back; then the record goes.
    Removing,
}

impl SessionState {
    /// The generations it sees: the first, and the last if it is deactivated. `None`: it is not a point in time.
    pub fn window(self) -> Option<(Generation, Option<Generation>)> {
        match self {
            Self::Active { activated } => Some((activated, None)),
            Self::Deactivated { activated, until } => Some((activated, Some(until))),
            _ => None,
        }
    }

    /// The group it waits in, before its activation.
    pub fn group(self) -> Option<GroupId> {
        match self {
            Self::Registered { group } | Self::Related { group } => group,
            _ => None,
        }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SafetyCopy(pair) => write!(f, "the safety copy of {pair}"),
            Self::Loser(pair) => write!(f, "what was given up of {pair}"),
            Self::Before => write!(f, "what its device was before a restore"),
            Self::Source(copy) => write!(f, "what {copy} is made from"),
            Self::Undecided(decision) => write!(f, "half of request {}, undecided", decision.request),
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered { .. } => "registered",
            Self::Related { .. } => "related",
            Self::Active { .. } => "active",
            Self::Deactivated { .. } => "deactivated",
            Self::Failed => "failed",
            Self::Removing => "removing",
        })
    }
}

/// A pool of the array's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRecord {
    /// Unique among the pools.
    pub name: String,
}

/// A store and its range of physical tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRecord {
    /// The name by which the shell opens it.
    pub name: String,
    /// Its pool.
    pub pool: PoolId,
    /// The number of its first physical track.
    pub first: u32,
    /// How many physical tracks it has.
    pub tracks: u32,
}

/// One thing that is durable: what units change, and what a boot reads back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A pool was made.
    Pool(PoolId, PoolRecord),
    /// A store was added to a pool.
    Store(StoreId, StoreRecord),
    /// The least number that no device, session or group has had.
    NextId(u32),
    /// A device; `None`: gone.
    Device(DeviceId, Option<DeviceRecord>),
    /// A session; `None`: gone.
    Session(SessionId, Option<SessionRecord>),
    /// An open group; `false`: processed.
    Group(GroupId, bool),
    /// A track of a standard device.
    Entry(DeviceId, crate::TrackNo, crate::Entry),
    /// The entry that sessions activated at or before a generation still see; `None`: no longer kept.
    Version(DeviceId, crate::TrackNo, Generation, Option<crate::Entry>),
    /// A track that a session has of its own; `None`: given back.
    Own(SessionId, crate::TrackNo, Option<crate::Entry>),
    /// Another array; `None`: no longer known.
    Peer(PeerId, Option<PeerRecord>),
    /// A half of a pair; `None`: gone, with all that it owed, lacked and had marked.
    Pair(PairId, Option<PairRecord>),
    /// Tracks of a region for which it is not as [`PairRecord::owed_from`] says; 0: none.
    Owed(PairId, RegionNo, u64),
    /// Tracks of a region for which it is not as [`PairRecord::lacked_from`] says; 0: none.
    Lacked(PairId, RegionNo, u64),
    /// A region is dirty, or clean again (crash rule 5).
    Dirty(PairId, RegionNo, bool),
    /// A copy within the array; `None`: gone, with its sets of tracks.
    Copy(CopyId, Option<CopyRecord>),
    /// Tracks of a region for which it is not as [`CopyRecord::to_copy_from`] says; 0: none.
    ToCopy(CopyId, RegionNo, u64),
    /// Tracks of a region for which it is not as [`CopyRecord::unequal_from`] says; 0: none.
    Unequal(CopyId, RegionNo, u64),
    /// A schedule of copies; `None`: gone.
    Schedule(ScheduleId, Option<ScheduleRecord>),
    /// How a request that spanned two arrays ended (F2); `None`: forgotten.
    Saga(u64, Option<SagaOutcome>),
}
