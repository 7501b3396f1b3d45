//! The data and rules of a twintrack array: geometry, track tables by reference, sessions by generation, units and
//! the crash rules. Nothing here does I/O, tells the time, waits or draws a random number.
//!
//! The centre is [`Tables`]: everything an array knows about its tracks, changed in memory by units that are
//! committed later, in order. Who owns which bytes of which store follows from it alone.

mod audit;
mod command;
pub mod defect;
mod device;
mod differs;
mod entry;
mod extent;
pub mod geometry;
mod ids;
mod joint;
mod kept;
pub mod layout;
mod load;
mod local;
mod mask;
mod pair;
mod pair_records;
mod pair_tracks;
mod peer;
mod reclaim;
mod records;
pub mod remote;
mod session;
mod space;
mod table;
mod tables;
mod unit;
mod victim;
mod write;

pub use audit::{AuditError, EntryPlace};
pub use command::CommandError;
pub use differs::{Comparison, Look, Moment};
pub use entry::{Entry, Overlay};
pub use extent::{EXTENTS_MAX, Extent};
pub use geometry::{BLOCK_BYTES, Geometry, GeometryError, SECTOR_BYTES, TRACKS_PER_CYLINDER};
pub use ids::{
    CopyId, DeviceId, Generation, GroupId, Owner, PairGeneration, PairId, PeerId, PhysicalTrack, Place,
    PoolId, RegionNo, ScheduleId, SessionId, StoreId, TrackNo, UnitSeq,
};
pub use joint::NewPoint;
pub use load::LoadError;
pub use local::{
    COPIES_MAX, CopyRecord, CopyStatus, Fill, PERIOD_MS_MIN, Pace, PairCommand, Purpose, RestoreItem,
    SCHEDULES_MAX, SECONDARIES_MAX, ScheduleRecord,
};
pub use mask::BlockMask;
pub use pair::PairDevice;
pub use records::{
    Change, DEVICES_MAX, Decision, DeviceKind, DeviceRecord, GROUPS_MAX, NAME_BYTES_MAX, Pinned, PoolRecord,
    SESSIONS_PER_DEVICE_MAX, SessionRecord, SessionState, StoreRecord,
};
pub use remote::axes::{Cause, DataState, LinkState, PairStatus, Serving};
pub use remote::{
    ANCESTORS_MAX, FlushNo, Half, Halt, Kept, Kinship, Lineage, Mode, PairRecord, PeerRecord, Policy,
    Regions, Role, SagaOutcome, SagaResult, Stage, TrackSet,
};
pub use session::ActivateSession;
pub use space::PoolSpace;
pub use tables::Tables;
pub use victim::{Victim, VictimSearch};
pub use write::{WriteError, WritePlan};
