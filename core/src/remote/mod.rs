//! Remote pairs: two volumes on two arrays that hold the same. What is kept of them, and their rules; no I/O.
//!
//! Each array has one *half* of a pair. `owed` are tracks that this half has and the peer lacks, `lacked` the other
//! way round; both are sets of whole tracks. After any crash, what differs between the halves is covered by what
//! either side owes or lacks and by the dirty regions of both (crash rule 5).
//!
//! # What the caller sees to
//! Each of these is a rule that `core/tests/mirror.rs` plays with two arrays; most can be broken there, and it shows.
//!
//! - *A write*: [`Tables::begin_write`](crate::Tables::begin_write), wait for its unit, then to the disk and to the peer, then
//!   [`end_write`](crate::Tables::end_write). The half that applies a peer's write does the same.
//! - *A write that cannot reach the peer*: [`halt_group`](crate::Tables::halt_group) with all tracks that were sent and
//!   not answered; the host has its answer when that is committed. Later ones:
//!   [`owe`](crate::Tables::owe), and an answer only if [`may_write_alone`](crate::Tables::may_write_alone); otherwise
//!   [`begin_generation`](crate::Tables::begin_generation) comes first.
//! - *The agreement of a new epoch* tells only what is committed. The owner owes what the other half owes or has marked
//!   ([`owe_words`](crate::Tables::owe_words)); a half that is behind is no longer complete. When both sides have
//!   committed that, and not before, [`marks_told`](crate::Tables::marks_told) and [`resume`](crate::Tables::resume).
//! - *The copy* sends tracks to which no write is under way, and [`pay`](crate::Tables::pay)s when the answer has come.
//!   When nothing is owed, [`set_shared`](crate::Tables::set_shared) is committed, then the peer is asked to
//!   [`adopt`](crate::Tables::adopt).
//! - *A planned failover*: released, committed; owner there, committed; standby here. A half that has released the
//!   volume applies the new owner's writes already.
//! - *Both were written alone*: the loser is standby, committed; the winner owes what the loser owes or has marked;
//!   then [`resolve`](crate::Tables::resolve).
//! - *Cleaning*: [`begin_flush`](crate::Tables::begin_flush), both arrays sync, then
//!   [`clean`](crate::Tables::clean) what is [`cleanable`](crate::Tables::cleanable); while there is no link, the sync
//!   here is enough, for what was sent is owed.

pub mod axes;
mod ledger;
mod lineage;
mod regions;
mod tracks;

use std::fmt;

use crate::ids::{DeviceId, PairGeneration, PeerId, SessionId, TrackNo};
use crate::local::Pace;

pub(crate) use ledger::Ledger;
pub use lineage::{ANCESTORS_MAX, Kinship, Lineage};
pub use regions::{FlushNo, Regions};
pub use tracks::TrackSet;

/// Peers of an array.
pub const PEERS_MAX: usize = 16;
/// Pairs of an array, those that are over included. A device has at most one that is not.
pub const PAIRS_MAX: usize = crate::records::DEVICES_MAX;
/// Results of finished requests that are kept (F2).
pub const SAGAS_MAX: usize = 256;
/// Bytes of an endpoint.
pub const ENDPOINT_BYTES_MAX: usize = 256;
/// Bytes of the reason of a request that was refused.
pub const REASON_BYTES_MAX: usize = 1024;

/// Another array that this one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Unique among the peers.
    pub name: String,
    /// Where it listens; `None`: it is the one that dials.
    pub endpoint: Option<String>,
    /// Its serial: given by the operator, or learnt at the first contact; then it stays.
    pub serial: Option<u64>,
}

/// One half of a pair (A1 to A8): what this array knows of it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRecord {
    /// The array with the other half.
    pub peer: PeerId,
    /// The volume here, a standard device. Once [`Stage::is_over`] it may be gone, or be another pair's.
    pub device: DeviceId,
    /// The name of the volume there, when the pair was created.
    pub peer_device: String,
    /// The request that created it: asked again it finds the pair here, and its result among the sagas (F2).
    pub request: u64,
    /// Which half this is, for good.
    pub half: Half,
    /// How far its creation is.
    pub stage: Stage,
    /// Who serves.
    pub role: Role,
    /// This half became owner by force, and the peer may not know: it stops serving at the first contact.
    pub forced: bool,
    /// When the peer gets a write.
    pub mode: Mode,
    /// How many tracks this half copies at a time, either way (A8).
    pub pace: Pace,
    /// What the owner does when a write of the group cannot reach the peer.
    pub policy: Policy,
    /// Pairs with the same peer and the same group name suspend together. A pair without a group has an empty name
    /// and suspends alone.
    pub group: String,
    /// Which state of the data this half has.
    pub lineage: Lineage,
    /// The newest generation that the peer may have whole. It is set, and committed, *before* the peer is asked to
    /// take it: otherwise a lost answer would leave this half writing alone in a generation that the peer has, too,
    /// and the two would look alike.
    pub shared: Option<PairGeneration>,
    /// The content here is one point of the lineage; `false` while a copy into this half is under way.
    pub complete: bool,
    /// Why nothing moves; `None`: it moves, or would if there were a link.
    pub halt: Option<Halt>,
    /// Wall time of the halt, in ms since 1970; 0: never.
    pub halted_ms: u64,
    /// Of a half that became owner by force: wall time, by this array's clock, up to which it surely has all that the other one
    /// had answered hosts; 0: not known. What came later may be lost.
    pub had_all_ms: u64,
    /// The number of the peer's boot at the last agreement; 0: never. Another one later: the peer may have lost what
    /// it had not flushed.
    pub peer_boot: u32,
    /// The copy pointer of what is owed, as it is durable: see [`TrackSet`].
    pub owed_from: TrackNo,
    /// The copy pointer of what is lacked, as it is durable.
    pub lacked_from: TrackNo,
    /// The volume was made for the pair: it goes with it if the creation is undone (A7).
    pub made_device: bool,
    /// What this half goes back to, should the copy into it never be complete.
    pub kept: Option<Kept>,
}

/// A state that a half had, and can go back to while a copy into it, or into another half of its group, is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The session that has it; it is pinned for the pair.
    pub session: SessionId,
    /// The lineage of that state.
    pub lineage: Lineage,
    /// A person chose to go back: the half serves, and lets hosts in once every track is back.
    pub returning: bool,
}

impl PairRecord {
    /// Whether the present generation is this half's alone: a write that the peer lacks may be acknowledged.
    pub fn is_alone(&self) -> bool {
        self.shared != Some(self.lineage.current())
    }

    /// Whether this half is being put back to a state that was kept.
    pub fn is_returning(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.returning)
    }

    /// Whether it is ready, this half owns the data and nothing has stopped it from serving.
    pub fn is_owner(&self) -> bool {
        self.stage == Stage::Ready && self.role == Role::Owner
    }
}

/// Which half of a pair, fixed at its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// The source volume's.
    R1,
    /// The destination volume's.
    R2,
}

impl Half {
    /// The half on the other array.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::R1 => Self::R2,
            Self::R2 => Self::R1,
        }
    }
}

/// Who serves the volume: at most one half does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Hosts read and write here.
    Owner,
    /// Hosts are refused; the peer's writes are applied.
    Standby,
    /// Hosts are refused: this half gave the volume up, and the peer has not said yet that it took it.
    Released,
}

/// How far the creation of a pair is (A1 to A7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// This half exists; the other may not. Undone after a crash.
    Creating,
    /// Both halves exist. Completed after a crash.
    Ready,
    /// The creation failed: this half has been undone, and the record stays until the peer knows.
    Undoing,
    /// It was ready, and has been deleted here: the record stays until the peer knows. The volume there stays, even if
    /// it was made for the pair and the peer has not heard that it ever was ready.
    Ended,
}

impl Stage {
    /// This half is no more: what is left is a note for the peer.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Undoing | Self::Ended)
    }
}

/// When the peer gets a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Before the host has its answer.
    Synchronous,
    /// In the background: the track is owed.
    Adaptive,
    /// In numbered sets, each of which it takes as a whole, in order: it is behind, and never in between. It has its place here,
    /// in the link's protocol and in the metadata; no pair has it yet, [`Tables`](crate::Tables) refuses it.
    Asynchronous,
}

/// What the owner does when a write of the group cannot reach the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// It goes on alone, in a new generation.
    Continue,
    /// It takes no more writes until the peer is back or a person decides.
    Freeze,
}

/// Why nothing moves between the halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Halt {
    /// The operator suspended it.
    Operator,
    /// The link was lost.
    Link,
    /// The peer failed to write.
    Peer,
    /// The peer has no space left.
    Space,
    /// The operator split it.
    Split,
    /// The link was lost, and the policy is [`Policy::Freeze`].
    Frozen,
    /// Both sides were written alone: somebody has to choose (F4).
    Diverged,
}

/// The result of a finished command that spanned two arrays: what is answered when the same request comes again (F2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaOutcome {
    /// The order in which they finished, from 1: the oldest is forgotten first.
    pub order: u64,
    /// How it ended.
    pub result: SagaResult,
}

/// How a command that spanned two arrays ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SagaResult {
    /// It was done.
    Done,
    /// It was done, and the peer has yet to hear of it: until then it is not forgotten.
    Untold {
        /// Which.
        peer: PeerId,
    },
    /// It was refused or undone.
    Refused {
        /// The class of the refusal, in the numbering of management.
        code: u16,
        /// What to tell the caller; at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::R1 => "r1",
            Self::R2 => "r2",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Standby => "standby",
            Self::Released => "released",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Undoing => "undoing",
            Self::Ended => "deleted",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Synchronous => "synchronous",
            Self::Adaptive => "adaptive",
            Self::Asynchronous => "asynchronous",
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continue => "continue",
            Self::Freeze => "freeze",
        })
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Link => "link",
            Self::Peer => "peer",
            Self::Space => "space",
            Self::Split => "split",
            Self::Frozen => "frozen",
            Self::Diverged => "diverged",
        })
    }
}
