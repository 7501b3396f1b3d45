//! Names of things, one type each, so that no two can be confused.

use std::fmt;
use std::num::NonZeroU32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A device of this array, standard or virtual. Never used again once the device is gone.
    DeviceId, u32, "dev-"
);
id!(
    /// A session: one snapshot of one standard device. Never used again.
    SessionId, u32, "ses-"
);
id!(
    /// A group between *Begin group* and *Process group* (D8); the source's list id.
    GroupId, u32, "grp-"
);
id!(
    /// A pool: the stores of one class.
    PoolId, u16, "pool-"
);
id!(
    /// A backing store: one file or disk of a pool.
    StoreId, u16, "store-"
);
id!(
    /// A track of a device, counted from 0.
    TrackNo, u32, "t"
);
id!(
    /// A generation of a standard device: raised by each activation and deactivation of a session on it.
    /// 0 before the first session.
    Generation, u32, "g"
);
id!(
    /// A copy within the array: a local pair (C3: its number), or a restore. Never used again.
    CopyId, u32, "copy-"
);
id!(
    /// A schedule of copies within the array. Never used again.
    ScheduleId, u32, "sch-"
);
id!(
    /// The place of a unit in the order in which units were made. The first is 1.
    UnitSeq, u64, "u"
);

id!(
    /// Another array that this one knows. Never used again once it is removed.
    PeerId, u32, "peer-"
);
id!(
    /// A region of a device: [`RegionNo::TRACKS`] adjacent tracks, counted from 0. What is dirty (crash rule 5), owed
    /// or lacked is kept a region at a time.
    RegionNo, u32, "r"
);

impl RegionNo {
    /// Tracks of a region; a set of them is a `u64`, whose lowest bit is the first track.
    pub const TRACKS: u32 = 64;

    /// The region of a track.
    pub fn of(track: TrackNo) -> Self {
        Self(track.0 / Self::TRACKS)
    }

    /// The bit of a track in the word of its region.
    pub fn bit(track: TrackNo) -> u64 {
        1 << (track.0 % Self::TRACKS)
    }

    /// Its first track; the last representable track for a region that no device has.
    pub fn first(self) -> TrackNo {
        TrackNo(self.0.saturating_mul(Self::TRACKS))
    }

    /// The tracks of the region that a word names, ascending; those that no device has are left out.
    pub fn tracks(self, word: u64) -> impl Iterator<Item = TrackNo> {
        let first = self.0.checked_mul(Self::TRACKS);
        let bits = (0..Self::TRACKS).filter(move |bit| word >> bit & 1 == 1);
        first.into_iter().flat_map(move |first| bits.clone().map(move |bit| TrackNo(first + bit)))
    }
}

/// A pair of volumes on two arrays: the same on both. Its number is one that the array which began its creation
/// gave out, and that array never gives it out again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId {
    /// The serial of the array that began the creation.
    pub serial: u64,
    /// Its number there.
    pub number: u32,
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pair-{:016x}-{}", self.serial, self.number)
    }
}

impl fmt::Debug for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A generation of the data of a pair: begun by an array before it first acknowledges a write that its peer lacks.
/// Its number is one that the array never gives out again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairGeneration {
    /// The serial of the array that began it.
    pub serial: u64,
    /// Its number there.
    pub number: u32,
}

impl fmt::Display for PairGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{:016x}-{}", self.serial, self.number)
    }
}

impl fmt::Debug for PairGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Generation {
    /// The next one; `None` after 4,294,967,295 activations.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl UnitSeq {
    /// Before the first unit.
    pub const ZERO: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One track-sized slot on the backing stores of the array. Numbered through all stores, from 1: every store has
/// a range of its own. 32 bits of them are 256 TiB an array at 64 KiB tracks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalTrack(pub NonZeroU32);

impl PhysicalTrack {
    /// `None` for 0, which stands for "none" wherever a physical track is written down as a plain number.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// As a plain number, from 1.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for PhysicalTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Debug for PhysicalTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose track table: a standard device's, or that of a session, as its virtual device shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A standard device.
    Device(DeviceId),
    /// The session that a virtual device shows.
    Session(SessionId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => fmt::Display::fmt(id, f),
            Self::Session(id) => fmt::Display::fmt(id, f),
        }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One track of one track table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Whose table.
    pub owner: Owner,
    /// Which track of it.
    pub track: TrackNo,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.track)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
