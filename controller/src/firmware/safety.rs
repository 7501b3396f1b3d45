//! What a half goes back to. A copy into a half that is one point of its lineage makes it something that the volume never
//! was, until it is complete; so before it begins, the half keeps what it is as a pinned session, its *safety copy*.
//!
//! The order, on the array that stands by: [`Request::Begin`](twintrack_link::remote::Request::Begin) comes, before
//! anything that belongs to a state that this half has not → its device's writes in flight land → one unit: the session
//! is active, the half is no point of the lineage → a sync and a commit → the answer, after which the other array sends. A
//! crash before the commit leaves a half that is whole; after it, one that can go back. With [`Complete`
//! ](twintrack_link::remote::Request::Complete) the half is whole again, and the session goes.
//!
//! The halves of a group keep one instant: all that are whole when the copy into the first of them begins. It is given up
//! when the copies into all of them are complete, for until then they are no instant together. In adaptive mode nothing is
//! kept: there the other half is behind all the time, and in no order; what it is between two copies is promised to nobody.
//!
//! The way back (`remote failover --force --to-safety-copy`): the halves serve by force, durably, and then each track that
//! changed gets its old entry, a step at a time, and is owed to the other array. No host is let in before that has ended; a
//! crash goes on with it. The other array has diverged from that, whatever it has.

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    CommandError, DeviceKind, Halt, Lineage, Mode, Owner, PairId, PairRecord, Pinned, PoolId, Role,
    SessionId, Stage,
};
use twintrack_link::manage::{PinnedInfo, PinnedKind, Refusal, SafetyCopyInfo};
use twintrack_link::remote::{Answer as PeerAnswer, PeerError, PeerErrorCode};
use twintrack_link::time::utc;

use super::Firmware;
use super::durability::Waiter;
use super::event::{CallId, Effect};
use super::io::{OpId, Parent};
use super::links::Served;
use super::pairs::refused;
use super::points::{Caller, Point, What};
use super::remotes::{gone, refusal, wrong_state};
use super::resync::Begun;
use super::rounds;

/// Halves on their way back.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Who waits for them.
    callers: Vec<(CallId, Vec<PairId>)>,
    /// The next step of one is among the points.
    stepping: bool,
}

impl Firmware {
    /// Whether a write may go to the peer, for the array that serves: the peer has been told that what comes may be of a
    /// state that it has not, and so of all of the group, for it keeps all of them first. On the link there is no order
    /// between that and a write.
    pub(super) fn is_told(&mut self, pair: PairId) -> bool {
        if !self.is_told_itself(pair) {
            return false;
        }
        let Some(record) = self.tables.pair(pair).filter(|record| !record.group.is_empty()) else {
            return true;
        };
        if self.standings.get(&pair).is_some_and(|standing| standing.group_told) {
            return true;
        }
        let waits = |(id, other): (PairId, &PairRecord)| {
            let member = other.peer == record.peer && other.group == record.group;
            let moves = other.is_owner() && other.halt.is_none() && other.mode == Mode::Synchronous;
            member && moves && !self.is_told_itself(id)
        };
        let told = !self.tables.pairs().any(waits);
        self.standing(pair).group_told = told;
        told
    }

    fn is_told_itself(&self, pair: PairId) -> bool {
        let begun = self.standings.get(&pair).is_some_and(|standing| standing.begun == Begun::Yes);
        begun || self.is_whole(pair) && self.tables.owed(pair).is_some_and(|owed| owed.is_empty())
    }

    /// A copy into this half begins. It is durable that it is no point of the lineage any more, and what it was is kept,
    /// before the sender hears of it.
    pub(super) fn serve_begin(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        self.check_standby(served, pair)?;
        let now = self.now;
        let standing = self.standing(pair);
        (standing.follows, standing.begun_at) = (false, now);
        // Who copies is not halted.
        self.resume_here(pair);
        if self.tables.pair(pair).is_some_and(|record| !record.complete) {
            return self.answer_durable(served, PeerAnswer::Done);
        }
        let wall_ms = self.wall_ms();
        let point = Point { caller: Caller::Peer(served), wall_ms, what: What::BeginCopy(pair) };
        self.start_beside(point).map_err(|error| refused(&error))
    }

    /// The devices of the halves that are kept before a copy.
    pub(super) fn owners_kept(&self, into: PairId) -> Vec<Owner> {
        let devices = self.kept_for(into).into_iter().filter_map(|pair| self.tables.pair(pair));
        devices.map(|record| Owner::Device(record.device)).collect()
    }

    /// Nothing is under way on those devices: what they have is kept, and the copy may begin.
    pub(super) fn begin_copy(
        &mut self,
        caller: Caller,
        into: PairId,
        closed: &[Owner],
    ) -> Result<(), CommandError> {
        // The link may be another by now, and then nobody waits for it.
        let Caller::Peer(served) = caller else { return Ok(()) };
        if self.check_standby(served, into).is_err() {
            return Err(CommandError::NoPair { pair: into });
        }
        let drained = |pair: &PairId| {
            self.tables.pair(*pair).is_some_and(|record| closed.contains(&Owner::Device(record.device)))
        };
        let keep: Vec<_> = self.kept_for(into).into_iter().filter(drained).collect();
        let wall_ms = self.wall_ms();
        self.tables.begin_copy(into, &keep, Pinned::SafetyCopy, wall_ms).map(drop)
    }

    /// The halves that are kept before a copy into one.
    fn kept_for(&self, into: PairId) -> Vec<PairId> {
        if self.tables.pair(into).is_none_or(|record| record.mode == Mode::Adaptive) {
            return Vec::new();
        }
        let whole = |record: &PairRecord| {
            let stands_by = record.role == Role::Standby && record.mode == Mode::Synchronous;
            stands_by && record.stage == Stage::Ready && record.complete && record.kept.is_none()
        };
        let group = self.tables.group_of(into);
        group.into_iter().filter(|pair| self.tables.pair(*pair).is_some_and(whole)).collect()
    }

    /// The copy into this half is complete. What it wrote is made durable before the lineage that says so.
    pub(super) fn serve_complete(
        &mut self,
        served: Served,
        pair: PairId,
        lineage: &Lineage,
    ) -> Result<(), PeerError> {
        self.check_standby(served, pair)?;
        self.standing(pair).settled = true;
        let group = self.tables.group_of(pair);
        let others = || group.iter().filter(|other| **other != pair);
        let forget = if others().all(|other| self.is_settled(*other)) {
            let whole = |other: &&PairId| self.tables.pair(**other).is_some_and(|record| record.complete);
            others().filter(whole).copied().chain([pair]).collect()
        } else {
            Vec::new()
        };
        let left = self.tables.end_copy(pair, lineage, &forget).map_err(|error| refused(&error))?;
        self.remove_safety_copies(left);
        self.has_all(pair, served.link);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// Whether a half of a group is whole since both arrays have agreed last, or stays behind because a person says so.
    fn is_settled(&self, pair: PairId) -> bool {
        let Some(record) = self.tables.pair(pair) else { return true };
        let left_behind = matches!(record.halt, Some(Halt::Operator | Halt::Split | Halt::Diverged))
            || record.mode == Mode::Adaptive
            || record.role != Role::Standby;
        let settled = self.standings.get(&pair).is_some_and(|standing| standing.settled);
        left_behind || settled && record.complete
    }

    /// Of sessions that nobody has to go back to, those that are not for a person to look at.
    pub(super) fn remove_safety_copies(&mut self, sessions: Vec<SessionId>) {
        let wall_ms = self.wall_ms();
        for session in sessions {
            let pinned = self.tables.session(session).and_then(|record| record.pinned);
            if matches!(pinned, Some(Pinned::SafetyCopy(_))) {
                self.start_point(Point { caller: Caller::Nobody, wall_ms, what: What::Remove(session) });
            }
        }
    }

    /// The pool whose rest what a peer writes has to leave to the hosts of this array: it goes over what a half keeps, so
    /// that each track needs another one. No session is failed for it that hosts may still need the room of.
    pub(super) fn gives_way(&self, op: OpId) -> Option<PoolId> {
        let op = self.ops.get(&op).filter(|op| matches!(op.parent, Parent::Peer(_)))?;
        let pair = self.pair_of(op.place.owner)?;
        let record = self.tables.pair(pair).filter(|record| record.kept.is_some())?;
        let DeviceKind::Standard { pool, .. } = self.tables.device(record.device)?.kind else { return None };
        let (space, track) = (self.tables.pool_space(pool), u64::from(self.tables.geometry().track_bytes()));
        let leaves = self.policy(pool).warn_below.of(space.tracks * track);
        (space.free * track < leaves).then_some(pool)
    }

    // The way back.

    /// Refuses to serve what is no state of the volume, and says what could be served instead.
    pub(super) fn check_whole(&self, pairs: &[PairId]) -> Result<(), Refusal> {
        for pair in pairs {
            self.check_back(*pair)?;
            if planted(Defect::HalfCopiedServes) {
                continue;
            }
            let record = self.tables.pair(*pair).ok_or_else(gone)?;
            if record.complete && record.kept.is_none() {
                continue;
            }
            let what = if record.complete { "another half of the group of" } else { "this half of" };
            let advice = match self.safety_copy(*pair) {
                Some(kept) => format!(
                    "what it was before, at {}, is kept as {} (on {}): to go back to that, with all of its group, \
                     `--force --to-safety-copy`; or bring the other array back",
                    utc(kept.since_ms),
                    SessionId(kept.session),
                    kept.device
                ),
                None => "bring the other array back".to_owned(),
            };
            return Err(wrong_state(format!(
                "a copy into {what} {pair} was under way: what is here is no state that the volume ever had; {advice}"
            )));
        }
        Ok(())
    }

    /// Refuses what would come between while a half is put back.
    pub(super) fn check_back(&self, pair: PairId) -> Result<(), Refusal> {
        if self.is_returning(pair) { Err(wrong_state(returning(pair).reason)) } else { Ok(()) }
    }

    /// Whether a half is being put back to its safety copy.
    pub(super) fn is_returning(&self, pair: PairId) -> bool {
        self.tables.pair(pair).is_some_and(PairRecord::is_returning)
    }

    /// `remote failover --force --to-safety-copy`.
    pub(super) fn begin_going_back(&mut self, call: CallId, device: &str) -> Result<(), Refusal> {
        let pairs = self.tables.group_of(self.pair_named(device)?);
        self.check_unlinked(&pairs)?;
        self.tables.check_go_back(&pairs).map_err(refusal)?;
        let wall_ms = self.wall_ms();
        self.start_point(Point { caller: Caller::Call(call), wall_ms, what: What::GoBack(pairs) });
        Ok(())
    }

    /// Nobody is forced to serve while the other array answers.
    pub(super) fn check_unlinked(&self, pairs: &[PairId]) -> Result<(), Refusal> {
        for pair in pairs {
            let record = self.tables.pair(*pair).ok_or_else(gone)?;
            if self.links.up(record.peer).is_some() {
                return Err(wrong_state(format!(
                    "the other array of {pair} answers: fail over without --force"
                )));
            }
        }
        Ok(())
    }

    /// The same, after what was under way has landed.
    pub(super) fn check_unlinked_still(
        &self,
        pairs: &[PairId],
        verb: &'static str,
    ) -> Result<(), CommandError> {
        if self.check_unlinked(pairs).is_ok() {
            return Ok(());
        }
        let (pair, state, advice) = (pairs[0], "linked again".into(), "fail over without --force");
        Err(CommandError::PairState { pair, state, verb, advice })
    }

    /// Nothing is under way on the devices: their halves serve from now on, though no host yet.
    pub(super) fn go_back(&mut self, pairs: &[PairId]) -> Result<(), CommandError> {
        self.check_unlinked_still(pairs, "put back to what was kept of it")?;
        let wall_ms = self.wall_ms();
        self.tables.go_back(pairs, wall_ms)?;
        for pair in pairs {
            // What this half may have or not have of the last writes goes to the other one, whatever that has.
            let dirty = self.dirty_words(*pair);
            self.tables.owe_words(*pair, &dirty);
        }
        Ok(())
    }

    /// Who chose it is told when every track is back.
    pub(super) fn await_return(&mut self, call: CallId, pairs: Vec<PairId>) {
        self.returns.callers.push((call, pairs));
    }

    /// The next step of the way back, if there is one; they go one at a time, with other commands between them.
    pub(super) fn return_some(&mut self) {
        if let Some(pair) = self.tables.next_returning().filter(|_| !self.returns.stepping) {
            self.returns.stepping = true;
            let (caller, wall_ms, what) = (Caller::Nobody, self.wall_ms(), What::GoBackStep(pair));
            self.start_point(Point { caller, wall_ms, what });
        }
    }

    /// Nothing is under way on the device of a half on its way back.
    pub(super) fn go_back_step(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        self.returns.stepping = false;
        if !self.tables.go_back_step(pair) {
            return;
        }
        self.remove_safety_copies(self.tables.left_safety_copies());
        self.look_at_copy(pair);
        let callers = std::mem::take(&mut self.returns.callers);
        for (call, pairs) in callers {
            if pairs.iter().any(|pair| self.is_returning(*pair)) {
                self.returns.callers.push((call, pairs));
            } else {
                self.take_by_force(call, pairs, fx);
            }
        }
    }

    /// These halves serve, once that is durable: no host is let in before.
    pub(super) fn take_by_force(&mut self, call: CallId, pairs: Vec<PairId>, fx: &mut Vec<Effect>) {
        if !self.durability.wait(&self.tables, Waiter::Taken(call, pairs)) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    /// Nothing becomes durable any more: who waits for a half on its way back hears of it.
    pub(super) fn abandon_returns(&mut self, fx: &mut Vec<Effect>) {
        for (call, _) in std::mem::take(&mut self.returns.callers) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    // What is told.

    /// What a half can go back to.
    pub(super) fn safety_copy(&self, pair: PairId) -> Option<SafetyCopyInfo> {
        let kept = self.tables.pair(pair)?.kept.as_ref()?;
        let session = self.tables.session(kept.session)?;
        let shown_by = session.virtual_device.and_then(|device| self.tables.device(device));
        Some(SafetyCopyInfo {
            session: kept.session.0,
            device: shown_by.map(|device| device.name.clone()).unwrap_or_default(),
            since_ms: session.activated_ms,
        })
    }

    pub(super) fn pinned_info(&self, session: SessionId, pinned: Pinned) -> Option<PinnedInfo> {
        let what = match pinned {
            Pinned::SafetyCopy(_) => PinnedKind::SafetyCopy,
            Pinned::Loser(_) => PinnedKind::Loser,
            Pinned::Before => PinnedKind::Before,
            Pinned::Source(copy) => {
                let what = PinnedKind::Source;
                return Some(PinnedInfo { what, pair: copy.to_string(), needed: true });
            }
            Pinned::Undecided(_) => return None,
        };
        let needed = self.tables.needed_for(session).is_some();
        let pair = pinned.pair().map_or_else(String::new, |pair| pair.to_string());
        Some(PinnedInfo { what, pair, needed })
    }
}

/// A half is on its way back: nothing else is done with it before it is there.
pub(super) fn returning(pair: PairId) -> PeerError {
    let reason = format!("{pair} is being put back to its safety copy: ask again in a moment");
    PeerError { code: PeerErrorCode::Unavailable, reason }
}
