//! The remote leg of a write; [`super::standby`] is the other end of it.
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

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{Halt, Mode, Owner, PairId, Place, Policy, RegionNo, Role, Stage, TrackNo, UnitSeq};
use twintrack_link::remote::{Answer, Note, PeerError, PeerErrorCode, Request};

use super::durability::Waiter;
use super::event::{Effect, HostError};
use super::hosts::RequestId;
use super::io::{Change, OpId, Parent};
use super::links::Asked;
use super::{Firmware, Work};

/// How often those that wait for a link look by themselves.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many of them one answer lets look: it makes room for one large request, or some small ones.
const WOKEN: usize = 4;

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
                && !record.is_returning()
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
        if matches!(op.what, Change::Merge | Change::Move | Change::Copy | Change::Compare | Change::Fetch) {
            return Turn::Go;
        }
        let forward = matches!(parent, Parent::Host(_));
        if forward && self.tables.pair(pair).is_none_or(|record| record.role != Role::Owner) {
            // It came before this half stood by.
            return Turn::Refused(HostError::Gone);
        }
        if forward && self.is_frozen(pair) && !planted(Defect::FrozenWrites) {
            return Turn::Refused(HostError::Io);
        }
        // What it would lie over is the peer's, and could not be fetched; written over what is here, it would pass for it.
        if matches!(op.what, Change::Data(_) | Change::Zeros)
            && forward
            && self.tables.is_lacked(pair, place.track)
            && !self.covers(place, op.within, length)
        {
            return Turn::Refused(HostError::Io);
        }
        let mirrors = self.mirrors(pair);
        if forward && mirrors && !self.is_told(pair) {
            self.mirror_again(id);
            return Turn::Wait;
        }
        let sends = mirrors && !self.is_owed_still(pair, place.track);
        let peer = self.tables.pair(pair).map(|record| record.peer);
        if forward && sends && !peer.is_some_and(|peer| self.has_room(peer, length)) {
            self.mirror_again(id);
            return Turn::Wait;
        }
        let unit = match op_leg {
            OpLeg::Marking(_, unit) => unit,
            _ => {
                let region = RegionNo::of(place.track);
                if matches!(parent, Parent::Peer(_) | Parent::Fetch(..)) {
                    self.mark_ahead(pair, region);
                }
                let unit = self.tables.begin_write(pair, region).unwrap_or(UnitSeq::ZERO);
                self.set_leg(id, OpLeg::Marking(pair, unit));
                unit
            }
        };
        if unit > self.tables.committed_unit() {
            if self.durability.is_broken() {
                return Turn::Refused(HostError::Io);
            }
            if !planted(Defect::MarkNotAwaited) {
                self.await_mark(id);
                return Turn::Wait;
            }
            self.await_nothing();
        }
        let mut leg = OpLeg::Entered(pair);
        if forward {
            leg = match peer.filter(|_| sends) {
                Some(peer) => OpLeg::Leg(pair, self.send_leg(id, pair, peer, fx)),
                None => match self.lone_leg(pair, place, parent, mirrors, fx) {
                    Some(leg) => leg,
                    None => return Turn::Refused(HostError::Io),
                },
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
    /// synchronized, and no host takes it for that yet. `None`: the pair is frozen by it, and takes no write.
    fn lone_leg(
        &mut self,
        pair: PairId,
        place: Place,
        parent: Parent,
        mirrors: bool,
        fx: &mut Vec<Effect>,
    ) -> Option<OpLeg> {
        let waiting = self
            .tables
            .pair(pair)
            .is_some_and(|record| record.halt.is_none() && record.mode == Mode::Synchronous && !mirrors);
        if waiting {
            self.halt(pair, Halt::Link, fx);
        }
        if self.is_frozen(pair) && !planted(Defect::FrozenWrites) {
            return None;
        }
        // A copy of the track that is on its way has not this write.
        if planted(Defect::CopyPaysLater) {
            self.tables.owe(pair, place.track);
        } else {
            self.copy_anew(pair, place.track);
        }
        if self.may_answer_alone(pair) {
            return Some(OpLeg::Entered(pair));
        }
        let leg = LegId(self.next_number());
        let remote = Remote::Committing;
        self.mirror.legs.insert(leg, Leg { pair, track: place.track, parent, local: None, remote });
        self.await_commit(leg);
        Some(OpLeg::Leg(pair, leg))
    }

    /// Before a host hears of what the peer lacks, the data have a generation that the peer has not, durably. If not, it is
    /// begun, and has to be committed.
    fn may_answer_alone(&mut self, pair: PairId) -> bool {
        if self.tables.may_write_alone(pair) {
            return true;
        }
        // Without numbers for generations the array cannot go on anyway: they run out with those of devices.
        let _ = self.tables.begin_generation(pair);
        // The peer has not this one, even if it has all the tracks.
        self.look_at_copy(pair);
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
                let (pair, track) = (leg.pair, leg.track);
                self.halt(pair, cause_of(&error), fx);
                self.leave_leg(id, pair, track);
            }
        }
    }

    /// The peer will not have a write, and no halt has said so: its pair was halted before, or has ended. What this array
    /// knows of that is durable before the host has its answer.
    fn leave_leg(&mut self, id: LegId, pair: PairId, track: TrackNo) {
        let left = self.mirror.legs.get_mut(&id).filter(|leg| leg.remote == Remote::Asked);
        let Some(leg) = left else { return };
        leg.remote = Remote::Committing;
        self.tables.owe(pair, track);
        self.may_answer_alone(pair);
        self.await_commit(id);
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
        let group = if planted(Defect::HaltsOneByOne) { vec![pair] } else { self.tables.group_of(pair) };
        let group: Vec<PairId> = group.into_iter().filter(|id| self.is_going(*id)).collect();
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
        let now = self.now;
        for id in group {
            self.standing(*id).stop_copying(now);
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

    /// Whether the peer has yet to answer a write of one of these pairs, or that it lacks one is not durable.
    pub(super) fn has_legs(&self, pairs: &[PairId]) -> bool {
        self.mirror.legs.values().any(|leg| leg.remote != Remote::Over && pairs.contains(&leg.pair))
    }

    /// An operation comes again when a peer has answered something.
    pub(super) fn mirror_again(&mut self, op: OpId) {
        self.mirror.crowded_until.get_or_insert(self.now + LOOK_EVERY);
        self.mirror.crowded.push_back(op);
    }

    /// What those wait for that wait for a link may have come: all of them look.
    pub(super) fn crowd_again(&mut self) {
        self.mirror.crowded_until = None;
        self.work.extend(std::mem::take(&mut self.mirror.crowded).into_iter().map(Work::Op));
    }

    /// A peer has answered one request: the first who wait look whether there is room for them.
    pub(super) fn crowd_on(&mut self) {
        let first = self.mirror.crowded.len().min(WOKEN);
        self.work.extend(self.mirror.crowded.drain(..first).map(Work::Op));
        if self.mirror.crowded.is_empty() {
            self.mirror.crowded_until = None;
        }
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
        // What the peer has whole it has flushed.
        let kept = self.moves(pair) && self.is_whole(pair);
        if !kept && self.tables.regions(pair).is_some_and(|regions| regions.count() > 0) {
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
