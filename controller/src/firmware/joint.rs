//! Points in time on both arrays (F3): `remote snapshot`. The snapshots of both halves are the same, byte for byte.
//!
//! The array that serves the pairs goes: the gates of the volumes close, the writes that are inside land, here and at the
//! peer → one unit: sessions, prepared → [`Request::Prepare`] to the peer, and only then the gates open, so that in the order
//! of the link all that is in these sessions comes before it, and nothing else. The peer closes the gates of its halves when
//! that comes, and cuts when what came before has landed. Hosts wait for the drain, here and there; not for a disk's sync,
//! nor for the peer's answer.
//!
//! Prepared at the peer, durably, it is decided here, in one unit: all sessions here are shown, and the peer has yet to
//! hear of it. (That this array's part is durable follows: a commit carries all units before.) Then the peer shows its own ([`Request::Settle`]), and the caller has his answer. What is not decided is given
//! up: at once if the peer refuses or the link breaks, after a crash by whoever finds it undecided of his own. What
//! a peer has prepared it keeps until it hears, at the begin of the next epoch at the latest: then the array that decides
//! says what it has decided and what is still open, and all else goes. So there are both or none, whoever crashes when.

use std::collections::BTreeMap;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    CommandError, Decision, Mode, NewPoint, Owner, PairId, PeerId, Role, SagaResult, SessionId,
};
use twintrack_link::manage::{Answer, Refusal, RefusalCode, RemoteSnapshotInfo};
use twintrack_link::remote::{Answer as PeerAnswer, POINTS_MAX, PeerError, PreparedPoint, Request};

use super::Firmware;
use super::creation::{refused_before, saga_of};
use super::durability::Waiter;
use super::event::{CallId, Effect};
use super::links::{Asked, Served};
use super::manage::refusal as refusal_of;
use super::mirror::{not_found, wrong_state as peer_wrong_state};
use super::pairs::{refused, told_by_peer, unavailable as peer_unavailable};
use super::points::{Caller, Point, What};
use super::remotes::{gone, wrong_state};
use super::rounds;

/// Points in time on both arrays that are under way at a time.
const JOINTS_MAX: usize = 64;

/// One that this array decides.
#[derive(Debug)]
pub(super) struct Joint {
    /// Who asked, and was not answered.
    call: Option<CallId>,
    peer: PeerId,
    pairs: Vec<PairId>,
    points: Vec<NewPoint>,
    /// What the virtual devices are called behind their volumes' names.
    name: String,
    sessions: Vec<SessionId>,
    /// What the peer has prepared, durably.
    there: Option<Vec<PreparedPoint>>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The writes in flight land.
    Landing,
    /// The peer makes its part, durably.
    Preparing,
    /// It is decided, and that is not durable.
    Deciding,
    /// The peer is told.
    Telling,
}

/// What a peer wants to be prepared.
#[derive(Debug)]
pub(super) struct Preparation {
    request: u64,
    pairs: Vec<PairId>,
    name: String,
    online: bool,
}

/// A snapshot to make, as it was asked for.
#[derive(Debug)]
pub(super) struct NewSnapshot {
    pub(super) request: u64,
    pub(super) devices: Vec<String>,
    pub(super) whole_group: bool,
    pub(super) name: String,
    pub(super) offline: bool,
}

/// Those under way, by their requests.
pub(super) type Joints = BTreeMap<u64, Joint>;

impl Firmware {
    /// `remote snapshot`.
    pub(super) fn begin_snapshot(
        &mut self,
        call: CallId,
        new: NewSnapshot,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pairs = self.pairs_of_snapshot(&new)?;
        if let Some(again) = self.snapshot_before(call, &new, &pairs, fx) {
            return again;
        }
        let peer = self.check_snapshot(&pairs)?;
        let online = |point| NewPoint { online: !new.offline, ..point };
        let points = pairs.iter().filter_map(|pair| self.new_point(*pair, &new.name).map(online));
        let points: Vec<NewPoint> = points.collect();
        self.tables.check_prepare(&points).map_err(|error| refusal_of(&error))?;
        self.tables.check_decidable().map_err(|error| refusal_of(&error))?;
        let (there, step) = (None, Step::Landing);
        let joint = Joint {
            call: Some(call),
            peer,
            pairs,
            points,
            name: new.name,
            sessions: Vec::new(),
            there,
            step,
        };
        self.joints.insert(new.request, joint);
        let wall_ms = self.wall_ms();
        let point = Point { caller: Caller::Call(call), wall_ms, what: What::Joint(new.request) };
        self.start_beside(point).map_err(|error| refusal_of(&error))
    }

    /// The pairs, each once, in the order of their volumes' names.
    fn pairs_of_snapshot(&self, new: &NewSnapshot) -> Result<Vec<PairId>, Refusal> {
        let mut pairs = Vec::new();
        for device in &new.devices {
            let pair = self.pair_named(device)?;
            pairs.extend(if new.whole_group { self.tables.group_of(pair) } else { vec![pair] });
        }
        pairs.sort_by_key(|pair| self.device_name(*pair));
        pairs.dedup();
        match pairs.len() {
            0 => Err(refusal_of(&CommandError::Nothing)),
            1..=POINTS_MAX => Ok(pairs),
            many => {
                let reason =
                    format!("one snapshot has at most {POINTS_MAX} volumes, and {many} are asked for");
                Err(Refusal { code: RefusalCode::Limit, reason })
            }
        }
    }

    /// The same request again gets the same answer (F2).
    fn snapshot_before(
        &mut self,
        call: CallId,
        new: &NewSnapshot,
        pairs: &[PairId],
        fx: &mut Vec<Effect>,
    ) -> Option<Result<(), Refusal>> {
        if self.joints.contains_key(&new.request) {
            let reason = format!("request {} is under way: ask again", new.request);
            return Some(Err(Refusal { code: RefusalCode::Unavailable, reason }));
        }
        let shown_there = match &self.tables.saga(new.request)?.result {
            SagaResult::Refused { code, reason } => return Some(Err(refused_before(*code, reason))),
            SagaResult::Done => true,
            SagaResult::Untold { .. } => false,
        };
        let shown = |pair: &PairId| {
            let point = self.new_point(*pair, &new.name)?;
            let (device, _) = self.tables.device_named(&point.shown_by)?;
            let there = self.name_there(*pair, &new.name);
            self.snapshot_info(*pair, self.tables.session_shown_by(device)?, None, there, shown_there)
        };
        // It was done; of what has been removed here since nothing is left to tell.
        let infos = pairs.iter().filter_map(shown).collect();
        self.answer(call, Ok(Answer::RemoteSnapshots(infos)), fx);
        Some(Ok(()))
    }

    /// Whether both halves of these pairs are the same, and all with one peer: which.
    fn check_snapshot(&self, pairs: &[PairId]) -> Result<PeerId, Refusal> {
        let mut peers = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let record = self.tables.pair(*pair).ok_or_else(gone)?;
            let device = self.device_name(*pair);
            if record.role != Role::Owner {
                return Err(wrong_state(format!("the other array serves {device}: ask it there")));
            }
            if record.mode == Mode::Adaptive {
                return Err(wrong_state(format!(
                    "the pair of {device} is adaptive, so that its halves are the same at no instant: \
                     `twintrack remote mode {device} synchronous` first"
                )));
            }
            if !self.is_synchronized(*pair) {
                return Err(wrong_state(format!(
                    "the halves of {device} are not the same: `twintrack remote show {device}` says what they wait for"
                )));
            }
            peers.push(record.peer);
        }
        peers.dedup();
        if self.joints.len() >= JOINTS_MAX {
            let reason = format!("{JOINTS_MAX} snapshots on two arrays are under way: ask again");
            return Err(Refusal { code: RefusalCode::Limit, reason });
        }
        match peers[..] {
            [peer] => Ok(peer),
            _ => Err(wrong_state(
                "the other halves of these volumes are on several arrays: ask for each".into(),
            )),
        }
    }

    fn new_point(&self, pair: PairId, name: &str) -> Option<NewPoint> {
        let device = self.tables.pair(pair)?.device;
        let shown_by = format!("{}.{name}", self.tables.device(device)?.name);
        Some(NewPoint { device, shown_by, online: true })
    }

    fn name_there(&self, pair: PairId, name: &str) -> String {
        let device = self.tables.pair(pair).map(|record| record.peer_device.clone());
        format!("{}.{name}", device.unwrap_or_default())
    }

    /// The volumes of one, whose gates are closed.
    pub(super) fn joint_owners(&self, request: u64) -> Result<Vec<Owner>, CommandError> {
        let points = self.joints.get(&request).map(|joint| &joint.points);
        Ok(points.into_iter().flatten().map(|point| Owner::Device(point.device)).collect())
    }

    /// Whether the peer has answered all that was sent of the volumes of one.
    pub(super) fn has_no_legs(&self, request: u64) -> bool {
        self.joints.get(&request).is_none_or(|joint| !self.has_legs(&joint.pairs))
    }

    /// Nothing is in flight: this array's part, and the peer is asked for its own before anything else is sent.
    pub(super) fn cut_joint(
        &mut self,
        request: u64,
        wall_ms: u64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), CommandError> {
        let Some(joint) = self.joints.get(&request) else { return Err(CommandError::Nothing) };
        if let Some(pair) = joint.pairs.iter().find(|pair| !self.is_synchronized(**pair)) {
            return Err(CommandError::PairState {
                pair: *pair,
                state: "no longer synchronized".into(),
                verb: "snapshot on both arrays",
                advice: "it was halted while its last writes landed; wait until it is synchronized",
            });
        }
        let decision = Decision { by: None, request };
        let sessions = self.tables.prepare(&joint.points, decision, wall_ms)?;
        let Some(joint) = self.joints.get_mut(&request) else { return Ok(()) };
        joint.sessions = sessions;
        joint.step = Step::Preparing;
        let online = joint.points.iter().all(|point| point.online);
        let (peer, pairs, name) = (joint.peer, joint.pairs.clone(), joint.name.clone());
        self.ask(peer, Request::Prepare { request, pairs, name, online }, Asked::Prepare(request), fx);
        Ok(())
    }

    /// The peer has its part, durably, or will not.
    pub(super) fn prepare_answered(
        &mut self,
        request: u64,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(joint) = self.joints.get_mut(&request).filter(|joint| joint.step == Step::Preparing) else {
            return;
        };
        match result {
            Ok(PeerAnswer::Prepared { points }) if points.len() == joint.pairs.len() => {
                joint.there = Some(points);
                self.decide_joint(request, fx);
            }
            Ok(_) => self.fail_joint(request, told_by_peer(&peer_unavailable()), fx),
            Err(error) => self.fail_joint(request, told_by_peer(&error), fx),
        }
    }

    /// What was decided is durable: the peer hears of it.
    pub(super) fn joint_durable(&mut self, request: u64, fx: &mut Vec<Effect>) {
        if let Some(joint) = self.joints.get_mut(&request) {
            joint.step = Step::Telling;
            let peer = joint.peer;
            self.settle_joints(peer, fx);
        }
    }

    /// Nothing becomes durable any more: whether it was decided shows after a restart.
    pub(super) fn joint_not_durable(&mut self, request: u64, fx: &mut Vec<Effect>) {
        // It stays: the peer is not told that it was decided.
        if let Some(call) = self.joints.get_mut(&request).and_then(|joint| joint.call.take()) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    /// The peer has its part durably: there is the point in time.
    fn decide_joint(&mut self, request: u64, fx: &mut Vec<Effect>) {
        let Some(joint) = self.joints.get_mut(&request) else { return };
        joint.step = Step::Deciding;
        self.tables.decide(request, joint.peer);
        self.changed();
        if planted(Defect::DecidedEarly) {
            self.joint_durable(request, fx);
        } else if !self.durability.wait(&self.tables, Waiter::Joint(request)) {
            self.joint_not_durable(request, fx);
        }
    }

    /// There is no such point in time: what this array has of it goes, and the peer's part when it hears.
    pub(super) fn fail_joint(&mut self, request: u64, refusal: Refusal, fx: &mut Vec<Effect>) {
        let Some(joint) = self.joints.remove(&request) else { return };
        self.tables.drop_undecided(Decision { by: None, request });
        self.tables.finish_saga(request, saga_of(&refusal));
        self.jobs.hurry();
        self.changed();
        if let Some(call) = joint.call {
            self.answer(call, Err(refusal), fx);
        }
        self.settle_joints(joint.peer, fx);
    }

    /// A peer hears what this array has decided, and what it may yet decide; all else that it has prepared for this one goes.
    pub(super) fn settle_joints(&mut self, peer: PeerId, fx: &mut Vec<Effect>) {
        let mut decided = self.tables.untold_to(peer);
        if planted(Defect::UntoldForgotten) {
            decided.retain(|request| self.joints.contains_key(request));
        }
        let mut open = Vec::new();
        for (request, joint) in self.joints.iter().filter(|(_, joint)| joint.peer == peer) {
            if joint.step != Step::Telling {
                // Not durably, if at all.
                decided.retain(|other| other != request);
                open.push(*request);
            }
        }
        let what = Request::Settle { decided: decided.clone(), open };
        self.ask(peer, what, Asked::Settle(decided), fx);
    }

    /// The peer shows what was decided, or will when it hears of it.
    pub(super) fn settle_answered(
        &mut self,
        decided: Vec<u64>,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        for request in decided {
            if result.is_ok() {
                self.tables.told(request);
            }
            let Some(joint) = self.joints.remove(&request) else { continue };
            let there = joint.there.unwrap_or_default();
            let infos =
                joint.pairs.iter().zip(&joint.sessions).zip(&there).filter_map(|((pair, here), there)| {
                    self.snapshot_info(
                        *pair,
                        *here,
                        Some(there.session),
                        there.shown_by.clone(),
                        result.is_ok(),
                    )
                });
            let infos = infos.collect();
            if let Some(call) = joint.call {
                self.answer(call, Ok(Answer::RemoteSnapshots(infos)), fx);
            }
        }
    }

    fn snapshot_info(
        &self,
        pair: PairId,
        here: SessionId,
        there: Option<u32>,
        virtual_device_there: String,
        shown_there: bool,
    ) -> Option<RemoteSnapshotInfo> {
        let peer = self.tables.pair(pair).and_then(|record| self.tables.peer(record.peer));
        Some(RemoteSnapshotInfo {
            here: self.session_info(here)?,
            peer: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
            there,
            virtual_device_there,
            shown_there,
        })
    }

    /// After a restart: what this array has not decided it has given up.
    pub(super) fn give_up_undecided(&mut self) {
        let own: Vec<_> = self.tables.undecided().filter(|(_, decision)| decision.by.is_none()).collect();
        for (_, decision) in own {
            self.tables.drop_undecided(decision);
        }
    }

    // The other array's part.

    /// A peer asks for this array's part.
    pub(super) fn serve_prepare(
        &mut self,
        served: Served,
        preparation: Preparation,
    ) -> Result<(), PeerError> {
        let points = self.points_prepared(served, &preparation)?;
        self.tables.check_prepare(&points).map_err(|error| refused(&error))?;
        let (caller, wall_ms) = (Caller::Peer(served), self.wall_ms());
        let what = What::Prepare(preparation, Vec::new());
        self.start_beside(Point { caller, wall_ms, what }).map_err(|error| refused(&error))
    }

    fn points_prepared(&self, served: Served, preparation: &Preparation) -> Result<Vec<NewPoint>, PeerError> {
        let mut points = Vec::with_capacity(preparation.pairs.len());
        for pair in &preparation.pairs {
            self.check_standby(served, *pair)?;
            if self.tables.pair(*pair).is_none_or(|record| !record.complete) {
                return Err(peer_wrong_state(format!("the copy into this half of {pair} is not complete")));
            }
            let point = self.new_point(*pair, &preparation.name).ok_or_else(|| not_found(*pair))?;
            points.push(NewPoint { online: preparation.online, ..point });
        }
        if points.len() > POINTS_MAX {
            return Err(peer_wrong_state(format!("more than {POINTS_MAX} volumes at a time")));
        }
        Ok(points)
    }

    /// The volumes whose gates are closed.
    pub(super) fn preparation_owners(&self, preparation: &Preparation) -> Result<Vec<Owner>, CommandError> {
        let records = preparation.pairs.iter().filter_map(|pair| self.tables.pair(*pair));
        Ok(records.map(|record| Owner::Device(record.device)).collect())
    }

    /// All that was sent before has landed: this array's part.
    pub(super) fn cut_prepared(
        &mut self,
        caller: Caller,
        preparation: &Preparation,
        wall_ms: u64,
    ) -> Result<Vec<PreparedPoint>, CommandError> {
        // On another link it would be at another instant, and nobody waits for it.
        let Caller::Peer(served) = caller else { return Err(CommandError::Nothing) };
        let points = self.points_prepared(served, preparation).map_err(|_| CommandError::Nothing)?;
        let by = self.peer_of(served.link).ok_or(CommandError::Nothing)?;
        let decision = Decision { by: Some(by), request: preparation.request };
        let sessions = self.tables.prepare(&points, decision, wall_ms)?;
        let made = sessions.into_iter().zip(points);
        Ok(made
            .map(|(session, point)| PreparedPoint { session: session.0, shown_by: point.shown_by })
            .collect())
    }

    /// A peer says what it has decided, and what it may yet decide.
    pub(super) fn serve_settle(
        &mut self,
        served: Served,
        decided: &[u64],
        open: &[u64],
    ) -> Result<(), PeerError> {
        let peer = self.peer_of(served.link).ok_or_else(peer_unavailable)?;
        let undecided: Vec<_> = self.tables.undecided().map(|(_, decision)| decision).collect();
        for decision in undecided.into_iter().filter(|decision| decision.by == Some(peer)) {
            if decided.contains(&decision.request) {
                self.tables.decided(peer, decision.request);
            } else if !open.contains(&decision.request) {
                self.tables.drop_undecided(decision);
                self.jobs.hurry();
            }
        }
        self.changed();
        self.answer_durable(served, PeerAnswer::Done)
    }
}

impl Preparation {
    pub(super) fn new(request: u64, pairs: Vec<PairId>, name: String, online: bool) -> Self {
        Self { request, pairs, name, online }
    }
}
