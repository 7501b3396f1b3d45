//! The remote leg of a write, and the other end of it.
//!
//! A write to a paired device that this array serves goes: its region's mark durable ([`super::marks`]) → its track's
//! queue → the frame to the peer and the local write, side by side → both done → the answer. Frames go out in the order
//! in which operations have their turn at a track, and the peer's queue of that track keeps it.
//!
//! If the peer cannot be written to, the pair *halts*, and all pairs of its group with it: that, what the peer lacks,
//! and a new generation of the data are durable before any host has its answer (crash rule 4). So an answered write is
//! on both arrays, or the pair's record says that it may not be; and a peer that is forced to serve afterwards shows as
//! diverged, not as the same.
//!
//! What a crash leaves: the mark covers all that either half may have or not have of writes under way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    BLOCK_BYTES, Halt, Mode, Owner, PairId, Place, Policy, RegionNo, Role, Stage, TrackNo, UnitSeq,
};
use twintrack_link::remote::{Answer, Note, PeerError, PeerErrorCode, Request};

use super::durability::Waiter;
use super::event::{Effect, HostError, Segment};
use super::hosts::RequestId;
use super::io::{Change, OpId, Parent, Reader};
use super::links::{Asked, Served};
use super::{Firmware, Work};

/// How often those that wait for a link look by themselves.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The remote leg of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LegId(pub(super) u64);

/// What an operation needs besides its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpLeg {
    /// It has not had its turn.
    Undecided,
    /// It is on a device of this pair, and waits until the mark of its region is durable.
    Marking(PairId, UnitSeq),
    /// It is on a device of this pair, in a region that it has entered; nobody else is to hear of it.
    Entered(PairId),
    /// So, and it has a leg.
    Leg(PairId, LegId),
}

#[derive(Debug)]
struct Leg {
    pair: PairId,
    track: TrackNo,
    parent: Parent,
    local: Option<Result<(), HostError>>,
    remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remote {
    /// The peer was asked.
    Asked,
    /// The peer lacks it, and that is being made durable.
    Committing,
    /// The peer has it, or it is durable that it has not.
    Over,
    /// It cannot be had, and the pair's policy is to write no more.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Mirror {
    legs: BTreeMap<LegId, Leg>,
    /// Operations that wait for room on a link.
    crowded: VecDeque<OpId>,
    /// When they come again, if nothing brings them before.
    crowded_until: Option<Duration>,
}

impl Mirror {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.crowded_until
    }
}

/// Whether an operation may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Go,
    /// It comes again.
    Wait,
    Refused(HostError),
}

impl Firmware {
    /// The pair of a device that an operation would change.
    pub(super) fn pair_of(&self, owner: Owner) -> Option<PairId> {
        match owner {
            Owner::Device(device) => self.tables.pair_of_device(device),
            Owner::Session(_) => None,
        }
    }

    /// Whether this array sends to the peer what it writes, or copies what it owes: it serves the pair, nothing holds
    /// it up, and both arrays have agreed on the link that is up.
    pub(super) fn moves(&self, pair: PairId) -> bool {
        self.tables.pair(pair).is_some_and(|record| {
            record.stage == Stage::Ready
                && record.role == Role::Owner
                && record.halt.is_none()
                && self.is_agreed(pair)
        })
    }

    /// Whether the peer gets each write before its host has the answer.
    pub(super) fn mirrors(&self, pair: PairId) -> bool {
        self.moves(pair) && self.tables.pair(pair).is_some_and(|record| record.mode == Mode::Synchronous)
    }

    /// An operation that changes content has its turn at its track. What it needs of its pair comes first.
    pub(super) fn take_leg(&mut self, id: OpId, fx: &mut Vec<Effect>) -> Turn {
        let Some(op) = self.ops.get(&id) else { return Turn::Wait };
        let (place, parent, op_leg, length) = (op.place, op.parent, op.leg, op.length);
        let Some(pair) = self.pair_of(place.owner) else { return Turn::Go };
        match op.leg {
            OpLeg::Undecided | OpLeg::Marking(..) => {}
            OpLeg::Entered(_) | OpLeg::Leg(..) => return Turn::Go,
        }
        if matches!(op.what, Change::Merge | Change::Copy | Change::Compare | Change::Fetch) {
            return Turn::Go;
        }
        let forward = matches!(parent, Parent::Host(_));
        if forward && self.is_frozen(pair) {
            return Turn::Refused(HostError::Io);
        }
        let mirrors = self.mirrors(pair);
        let sends = mirrors && !self.is_owed_still(pair, place.track);
        let peer = self.tables.pair(pair).map(|record| record.peer);
        if forward && sends && !peer.is_some_and(|peer| self.has_room(peer, length)) {
            self.mirror_again(id);
            return Turn::Wait;
        }
        let unit = match op_leg {
            OpLeg::Marking(_, unit) => unit,
            _ => {
                let unit = self.tables.begin_write(pair, RegionNo::of(place.track)).unwrap_or(UnitSeq::ZERO);
                self.set_leg(id, OpLeg::Marking(pair, unit));
                unit
            }
        };
        if unit > self.tables.committed_unit() && !planted(Defect::MarkNotAwaited) {
            if self.durability.is_broken() {
                return Turn::Refused(HostError::Io);
            }
            self.await_mark(id);
            return Turn::Wait;
        }
        let mut leg = OpLeg::Entered(pair);
        if forward {
            leg = match peer.filter(|_| sends) {
                Some(peer) => OpLeg::Leg(pair, self.send_leg(id, pair, peer, fx)),
                None => self.lone_leg(pair, place, parent, mirrors, fx),
            };
        }
        self.set_leg(id, leg);
        Turn::Go
    }

    fn set_leg(&mut self, id: OpId, leg: OpLeg) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.leg = leg;
        }
    }

    fn send_leg(
        &mut self,
        id: OpId,
        pair: PairId,
        peer: twintrack_core::PeerId,
        fx: &mut Vec<Effect>,
    ) -> LegId {
        let leg = LegId(self.next_number());
        let op = &self.ops[&id];
        let (track, within, length, parent) = (op.place.track, op.within, op.length, op.parent);
        let what = match &op.what {
            Change::Data(data) => Request::Write { pair, track, within, data: data.clone() },
            Change::Clear => Request::Clear { pair, track, count: 1 },
            _ => Request::Zeros { pair, track, within, length },
        };
        self.mirror.legs.insert(leg, Leg { pair, track, parent, local: None, remote: Remote::Asked });
        self.ask(peer, what, Asked::Leg(leg), fx);
        leg
    }

    /// The peer does not get a write now: it is owed. `mirrors`: it will have the whole track before the pair is called
    /// synchronized, and no host takes it for that yet.
    fn lone_leg(
        &mut self,
        pair: PairId,
        place: Place,
        parent: Parent,
        mirrors: bool,
        fx: &mut Vec<Effect>,
    ) -> OpLeg {
        let waiting = self
            .tables
            .pair(pair)
            .is_some_and(|record| record.halt.is_none() && record.mode == Mode::Synchronous && !mirrors);
        if waiting {
            self.halt(pair, Halt::Link, fx);
        }
        self.tables.owe(pair, place.track);
        self.look_at_copy(pair);
        if self.may_answer_alone(pair) {
            return OpLeg::Entered(pair);
        }
        let leg = LegId(self.next_number());
        let remote = Remote::Committing;
        self.mirror.legs.insert(leg, Leg { pair, track: place.track, parent, local: None, remote });
        self.await_commit(leg);
        OpLeg::Leg(pair, leg)
    }

    /// Before a host hears of what the peer lacks, the data have a generation that the peer has not, durably. If not, it is
    /// begun, and has to be committed.
    fn may_answer_alone(&mut self, pair: PairId) -> bool {
        if self.tables.may_write_alone(pair) {
            return true;
        }
        // Without numbers for generations the array cannot go on anyway: they run out with those of devices.
        let _ = self.tables.begin_generation(pair);
        false
    }

    fn await_commit(&mut self, leg: LegId) {
        if !self.durability.wait(&self.tables, Waiter::Leg(leg)) {
            self.leg_committed(leg, Err(HostError::Io));
        }
    }

    /// The local part of an operation with a leg is over.
    pub(super) fn leg_local(&mut self, id: LegId, result: Result<(), HostError>) {
        let Some(leg) = self.mirror.legs.get_mut(&id) else { return };
        leg.local = Some(result);
        let (pair, track) = (leg.pair, leg.track);
        if result.is_err() {
            // The peer may have it and this array not: whatever is here now goes there.
            self.copy_anew(pair, track);
        }
        self.end_leg(id);
    }

    /// The peer has answered, or will not.
    pub(super) fn leg_answered(
        &mut self,
        id: LegId,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(leg) = self.mirror.legs.get_mut(&id).filter(|leg| leg.remote == Remote::Asked) else {
            return;
        };
        match result {
            Ok(_) => {
                leg.remote = Remote::Over;
                self.end_leg(id);
            }
            Err(error) => {
                let pair = leg.pair;
                self.halt(pair, cause_of(&error), fx);
            }
        }
    }

    /// What the halt of a pair changed is durable, or cannot become so.
    pub(super) fn leg_committed(&mut self, id: LegId, result: Result<(), HostError>) {
        let Some(leg) = self.mirror.legs.get_mut(&id) else { return };
        leg.remote = if result.is_ok() { Remote::Over } else { Remote::Refused };
        self.end_leg(id);
    }

    fn end_leg(&mut self, id: LegId) {
        let Some(leg) = self.mirror.legs.get(&id) else { return };
        let result = match (leg.local, leg.remote) {
            (Some(local), Remote::Over) => local,
            (Some(local), Remote::Asked) if planted(Defect::ReplyBeforePeer) => local,
            (Some(local), Remote::Refused) => local.and(Err(HostError::Io)),
            _ => return,
        };
        let Some(leg) = self.mirror.legs.remove(&id) else { return };
        self.tables.end_write(leg.pair, RegionNo::of(leg.track));
        self.op_told(leg.parent, result);
    }

    /// Nothing of the pair moves any more, nor of its group: one write of it could not reach the peer, or a person says
    /// so. Whoever waits for the peer waits for the commit of that.
    pub(super) fn halt(&mut self, pair: PairId, cause: Halt, fx: &mut Vec<Effect>) {
        let group: Vec<PairId> =
            self.tables.group_of(pair).into_iter().filter(|id| self.is_going(*id)).collect();
        if group.is_empty() {
            return;
        }
        let freezes = matches!(cause, Halt::Link | Halt::Peer | Halt::Space)
            && self.tables.pair(pair).is_some_and(|record| record.policy == Policy::Freeze);
        let cause = if freezes { Halt::Frozen } else { cause };
        self.strike(&group, cause);
        if let Some(peer) = self.tables.pair(pair).map(|record| record.peer) {
            self.note_to(peer, Note::Halted { pairs: group, halt: cause }, fx);
        }
    }

    /// Halts pairs, in one unit with what their legs under way leave owed; these wait for its commit.
    pub(super) fn strike(&mut self, group: &[PairId], cause: Halt) {
        let struck = |leg: &Leg| leg.remote == Remote::Asked && group.contains(&leg.pair);
        let struck: Vec<_> = self
            .mirror
            .legs
            .iter()
            .filter(|(_, leg)| struck(leg))
            .map(|(id, leg)| (*id, leg.pair, leg.track))
            .collect();
        let owes = struck.iter().filter(|_| !planted(Defect::OwedNotNoted));
        let owes: Vec<_> = owes.map(|(_, pair, track)| (*pair, *track)).collect();
        let wall_ms = self.wall_ms();
        let _ = self.tables.halt_group(group, cause, wall_ms, &owes);
        for id in group {
            self.standing(*id).stop_copying();
            if !matches!(cause, Halt::Operator | Halt::Split | Halt::Diverged) {
                self.heal_later(*id);
            }
        }
        for (id, of, _) in struck {
            let frozen = self.is_frozen(of);
            if let Some(leg) = self.mirror.legs.get_mut(&id) {
                leg.remote = if frozen { Remote::Refused } else { Remote::Committing };
            }
            if frozen {
                self.end_leg(id);
            } else {
                self.await_commit(id);
            }
        }
        self.crowd_again();
    }

    /// Ready, served by this array, and not halted.
    fn is_going(&self, pair: PairId) -> bool {
        self.tables.pair(pair).is_some_and(|record| {
            record.stage == Stage::Ready && record.role == Role::Owner && record.halt.is_none()
        })
    }

    /// The link is gone and the group's policy is that nothing is written until a person decides.
    pub(super) fn is_frozen(&self, pair: PairId) -> bool {
        self.tables
            .pair(pair)
            .is_some_and(|record| record.role == Role::Owner && record.halt == Some(Halt::Frozen))
    }

    /// Whether a write of a track is on its way to the peer.
    pub(super) fn has_leg(&self, pair: PairId, track: TrackNo) -> bool {
        self.mirror
            .legs
            .values()
            .any(|leg| leg.pair == pair && leg.track == track && leg.remote == Remote::Asked)
    }

    /// An operation comes again when a peer has answered something.
    pub(super) fn mirror_again(&mut self, op: OpId) {
        self.mirror.crowded_until.get_or_insert(self.now + LOOK_EVERY);
        self.mirror.crowded.push_back(op);
    }

    /// There may be room on a link again.
    pub(super) fn crowd_again(&mut self) {
        self.mirror.crowded_until = None;
        self.work.extend(std::mem::take(&mut self.mirror.crowded).into_iter().map(Work::Op));
    }

    /// A host's flush of a mirrored pair covers the peer as well. `false`: it need not.
    pub(super) fn flush_peer(&mut self, request: RequestId, owner: Owner, fx: &mut Vec<Effect>) -> bool {
        let Some(pair) = self.pair_of(owner) else { return false };
        let Some(record) = self.tables.pair(pair).filter(|record| record.role == Role::Owner) else {
            return false;
        };
        let peer = record.peer;
        if planted(Defect::FlushHereOnly) {
            return false;
        }
        if self.mirrors(pair) {
            self.ask(peer, Request::Flush { pairs: vec![pair] }, Asked::Flush(request, pair), fx);
            return true;
        }
        if self.tables.regions(pair).is_some_and(|regions| regions.count() > 0) {
            // The peer may lose what this flush keeps.
            self.may_answer_alone(pair);
        }
        false
    }

    /// The peer has flushed, or has not.
    pub(super) fn peer_flushed(
        &mut self,
        request: RequestId,
        pair: PairId,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        if let Err(error) = result {
            self.halt(pair, cause_of(&error), fx);
            self.may_answer_alone(pair);
            if self.is_frozen(pair) || !self.durability.wait(&self.tables, Waiter::Host(request)) {
                self.flushed(request, Err(HostError::Io), fx);
            }
            return;
        }
        self.flushed(request, Ok(()), fx);
    }

    /// An operation of a peer is over.
    pub(super) fn served(&mut self, served: Served, result: Result<(), HostError>, fx: &mut Vec<Effect>) {
        self.answer_peer(served, result.map(|()| Answer::Done).map_err(peer_error), fx);
    }

    /// What a peer wanted to read.
    pub(super) fn peer_read(
        &mut self,
        served: Served,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map_err(peer_error).map(|segments| match &segments[..] {
            [Segment::Zeros(_)] => Answer::Zeros,
            [Segment::Bytes(data)] => Answer::Data(data.clone()),
            // From several places: one message takes one payload.
            _ => Answer::Data(join(&segments)),
        });
        self.answer_peer(served, result, fx);
    }

    /// The check sums that a peer wanted.
    pub(super) fn peer_summed(
        &mut self,
        served: Served,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map_err(peer_error).map(|segments| Answer::Sums(sums(&segments)));
        self.answer_peer(served, result, fx);
    }

    /// The peer asks for I/O on its pair.
    pub(super) fn serve_io(&mut self, served: Served, what: Request, fx: &mut Vec<Effect>) {
        if let Err(error) = self.begin_served(served, what, fx) {
            self.answer_peer(served, Err(error), fx);
        }
    }

    fn begin_served(&mut self, served: Served, what: Request, fx: &mut Vec<Effect>) -> Result<(), PeerError> {
        let geometry = self.tables.geometry();
        let (pair, track, within, length) = match &what {
            Request::Write { pair, track, within, data } => (*pair, *track, *within, data.len() as u64),
            Request::Zeros { pair, track, within, length }
            | Request::Fetch { pair, track, within, length } => (*pair, *track, *within, u64::from(*length)),
            Request::Clear { pair, track, count } => {
                (*pair, *track, 0, u64::from(*count) * u64::from(geometry.track_bytes()))
            }
            Request::Sums { pair, track } => (*pair, *track, 0, 512),
            _ => return Err(invalid("a request that is none for data")),
        };
        let record = self.tables.pair(pair).filter(|record| record.stage == Stage::Ready);
        let record = record.ok_or_else(|| not_found(pair))?;
        let device = record.device;
        if record.role != Role::Standby || self.agreed_link(pair) != Some(served.link) {
            return Err(wrong_state(format!("this array has not agreed to take what belongs to {pair}")));
        }
        let size = self.tables.device(device).map_or(0, |record| record.size_bytes);
        let start = geometry.offset_of(track) + u64::from(within);
        let clear = matches!(what, Request::Clear { .. });
        let inside = u64::from(within) + length <= u64::from(geometry.track_bytes()) || clear && within == 0;
        let last = if clear { start < size && length > 0 } else { start + length <= size };
        if !inside || !last || length == 0 || !length.is_multiple_of(512) || !within.is_multiple_of(512) {
            return Err(invalid("bytes that the device does not have"));
        }
        let owner = Owner::Device(device);
        let place = Place { owner, track };
        let parent = Parent::Peer(served);
        match what {
            Request::Write { data, .. } => {
                self.start_op(place, within, length as u32, Change::Data(data), parent);
            }
            Request::Zeros { .. } => self.start_op(place, within, length as u32, Change::Zeros, parent),
            Request::Clear { count: 1, .. } => {
                let whole = geometry.track_bytes();
                self.start_op(place, 0, whole, Change::Clear, parent);
            }
            Request::Fetch { .. } | Request::Sums { .. } => {
                let length = match what {
                    Request::Sums { .. } => (size - start).min(u64::from(geometry.track_bytes())) as u32,
                    _ => length as u32,
                };
                let entry = self.tables.entry(place).ok_or_else(|| not_found(pair))?;
                let reader = match what {
                    Request::Sums { .. } => Reader::Sums(served),
                    _ => Reader::Peer(served),
                };
                self.start_read(owner, entry, within..within + length, reader, 0, fx);
            }
            _ => return Err(invalid("more tracks than one")),
        }
        Ok(())
    }
}

/// CRC32C of each block of a track.
pub(super) fn sums(segments: &[Segment]) -> Vec<u32> {
    join(segments).chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect()
}

fn join(segments: &[Segment]) -> Bytes {
    let mut joined = BytesMut::with_capacity(segments.iter().map(|segment| segment.len() as usize).sum());
    for segment in segments {
        match segment {
            Segment::Bytes(data) => joined.extend_from_slice(data),
            Segment::Zeros(length) => joined.resize(joined.len() + *length as usize, 0),
        }
    }
    joined.freeze()
}

fn peer_error(error: HostError) -> PeerError {
    let (code, reason) = match error {
        HostError::NoSpace => (PeerErrorCode::NoSpace, "the pool of the other array's device is full"),
        HostError::Invalid => {
            (PeerErrorCode::Invalid, "the other array took it for no request of this device")
        }
        HostError::Gone | HostError::ReadOnly => {
            (PeerErrorCode::WrongState, "the other array's device is not there any more")
        }
        HostError::Io => (PeerErrorCode::Io, "a store of the other array failed"),
    };
    PeerError { code, reason: reason.into() }
}

pub(super) fn cause_of(error: &PeerError) -> Halt {
    match error.code {
        PeerErrorCode::NoSpace => Halt::Space,
        PeerErrorCode::Unavailable => Halt::Link,
        _ => Halt::Peer,
    }
}

pub(super) fn not_found(pair: PairId) -> PeerError {
    PeerError { code: PeerErrorCode::NotFound, reason: format!("this array has no pair {pair}") }
}

pub(super) fn wrong_state(reason: String) -> PeerError {
    PeerError { code: PeerErrorCode::WrongState, reason }
}

fn invalid(what: &str) -> PeerError {
    PeerError { code: PeerErrorCode::Invalid, reason: format!("the request asks for {what}") }
}
