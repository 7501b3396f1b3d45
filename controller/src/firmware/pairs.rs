//! Commands that span two arrays, and what the peer asks of this one: make a pair, remove it, suspend, resume, fail over.
//!
//! A creation goes (A1–A7): this half's record durable, not ready → the peer makes its half, durably → ready here, durably
//! → the caller has its answer, and the peer is told. If the peer refuses, or the link breaks, or this array crashes before
//! *ready* is durable, both halves go: here at once, there by [`Request::Destroy`], at once or at the next contact
//! ([`super::accord`]). After it, the peer's half becomes ready at the next contact at the latest. Who asks again with
//! the same request number gets the same answer (F2).
//!
//! A planned failover goes: the taker asks; the giver lets no host in any more, has everything under way land on both
//! arrays, and commits *released*; the taker commits *owner* and answers; the giver commits *standby*. In between nobody
//! serves; a crash in between is finished at the next contact.

use std::collections::BTreeMap;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    ActivateSession, CommandError, DeviceId, Halt, Kinship, Lineage, Owner, PairId, PeerId, Role, Stage,
};
use twintrack_link::manage::{Answer, Refusal, RefusalCode};
use twintrack_link::remote::{
    Answer as PeerAnswer, CreateHalf, PairState, PeerError, PeerErrorCode, Request,
};

use super::Firmware;
use super::durability::Waiter;
use super::event::{CallId, Effect, LinkId};
use super::links::{Asked, Served};
use super::mirror::{not_found, wrong_state};
use super::{manage, rounds};

/// Commands under way that span two arrays.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Who waits for a creation or a removal that this array has begun.
    pub(super) callers: BTreeMap<PairId, CallId>,
    /// What the other array is to be asked for, once this half is durable.
    pub(super) creating: BTreeMap<PairId, CreateHalf>,
    /// What this array is about to let go. At most one.
    releases: Vec<Release>,
}

/// Pairs that a peer is to take over.
#[derive(Debug)]
struct Release {
    served: Served,
    pairs: Vec<PairId>,
}

impl Firmware {
    /// What a peer asks for.
    pub(super) fn asked(&mut self, served: Served, what: Request, fx: &mut Vec<Effect>) {
        // What is another array's is not there for this one. I/O looks at its link anyway.
        let peer = self.peer_of(served.link);
        let foreign = |pair: &PairId| self.tables.pair(*pair).is_some_and(|record| Some(record.peer) != peer);
        if let Some(pair) = what.commanded().iter().find(|pair| foreign(pair)) {
            let error = not_found(*pair);
            self.answer_peer(served, Err(error), fx);
            return;
        }
        let result = match what {
            Request::Write { .. }
            | Request::Zeros { .. }
            | Request::Clear { .. }
            | Request::Fetch { .. }
            | Request::Sums { .. } => {
                self.serve_io(served, what, fx);
                return;
            }
            Request::Flush { .. } => self.answer_durable(served, PeerAnswer::Done),
            Request::Echo { data } => {
                self.answer_peer(served, Ok(PeerAnswer::Data(data)), fx);
                return;
            }
            Request::Create(create) => self.serve_create(served, *create),
            Request::Ready { pair } => self.serve_ready(served, pair),
            Request::Destroy { pair } => self.serve_destroy(served, pair),
            Request::Begin { pair } => self.serve_begin(served, pair),
            Request::Complete { pair, lineage } => self.serve_complete(served, pair, &lineage),
            Request::SetMode { pair, mode } => {
                self.for_pair(served, pair, |tables| tables.set_mode(pair, mode))
            }
            Request::Halt { pairs, halt } => {
                for pair in pairs {
                    self.halt(pair, halt, fx);
                }
                self.answer_durable(served, PeerAnswer::Done)
            }
            Request::Resume { pairs } => {
                for pair in pairs {
                    self.resume_here(pair);
                }
                self.answer_durable(served, PeerAnswer::Done)
            }
            Request::Release { pairs } => self.serve_release(served, &pairs),
            Request::Taken { pair } => self.serve_taken(served, pair),
            Request::Yield { pair, lineage } => self.serve_yield(served, pair, &lineage, fx),
        };
        if let Err(error) = result {
            self.answer_peer(served, Err(error), fx);
        }
    }

    /// Answers once everything up to now is durable.
    fn answer_durable(&mut self, served: Served, answer: PeerAnswer) -> Result<(), PeerError> {
        if self.durability.wait(&self.tables, Waiter::Peer(served, Box::new(answer))) {
            return Ok(());
        }
        Err(unavailable())
    }

    fn for_pair<T>(
        &mut self,
        served: Served,
        pair: PairId,
        change: impl FnOnce(&mut twintrack_core::Tables) -> T,
    ) -> Result<(), PeerError> {
        if self.tables.pair(pair).is_none() {
            return Err(not_found(pair));
        }
        change(&mut self.tables);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// A2: the other half. Asked again, it is there already.
    fn serve_create(&mut self, served: Served, create: CreateHalf) -> Result<(), PeerError> {
        let peer = self.peer_of(served.link).ok_or_else(unavailable)?;
        let pair = create.pair;
        if self.tables.pair(pair).is_none() {
            let (record, device) = self.wanted_half(peer, &create)?;
            self.tables.create_pair(pair, record, device).map_err(|error| refused(&error))?;
        }
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        let answer = PeerAnswer::Created { made_device: record.made_device, lineage: record.lineage.clone() };
        self.answer_durable(served, answer)
    }

    /// The other array has both halves: this one is made.
    fn serve_ready(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        if self.tables.pair(pair).is_none() {
            return Err(not_found(pair));
        }
        self.finish_creation(pair);
        self.stand_whole(served.link, pair);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// From now on data flow; the peer's half is whole, unless this side has a generation of its own.
    fn stand_whole(&mut self, link: LinkId, pair: PairId) {
        self.stand_on(link, pair);
        self.standing(pair).whole = self.tables.pair(pair).is_some_and(|record| !record.is_alone());
    }

    /// Makes a half that was being created ready.
    pub(super) fn finish_creation(&mut self, pair: PairId) {
        if self.tables.pair(pair).is_some_and(|record| record.stage == Stage::Creating) {
            let _ = self.tables.ready_pair(pair);
        }
    }

    fn serve_destroy(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        if self.tables.pair(pair).is_some() {
            self.drop_pair(pair);
        }
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// A half goes; a device that was made for it too, if the pair never was ready.
    fn drop_pair(&mut self, pair: PairId) {
        let _ = self.tables.remove_pair(pair);
        self.standings.remove(&pair);
        self.marks.forget(pair);
        self.jobs.hurry();
    }

    /// A copy into this half begins: from now on it is no point of the lineage.
    fn serve_begin(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        self.check_standby(served, pair)?;
        self.tables.set_complete(pair, false).map_err(|error| refused(&error))?;
        // Who copies is not halted.
        self.resume_here(pair);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// The copy into this half is done. What it wrote is made durable before the lineage that says so.
    fn serve_complete(&mut self, served: Served, pair: PairId, lineage: &Lineage) -> Result<(), PeerError> {
        self.check_standby(served, pair)?;
        self.tables.adopt(pair, lineage).map_err(|error| refused(&error))?;
        self.answer_durable(served, PeerAnswer::Done)
    }

    fn check_standby(&self, served: Served, pair: PairId) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        if record.role == Role::Standby && self.agreed_link(pair) == Some(served.link) {
            return Ok(());
        }
        Err(wrong_state(format!("this array does not stand by for {pair}")))
    }

    /// The other half was made, or was not.
    pub(super) fn create_answered(
        &mut self,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(record) = self.tables.pair(pair) else { return };
        if record.stage != Stage::Creating {
            return;
        }
        match result {
            Ok(_) => {
                let serves = record.role == Role::Owner;
                let _ = self.tables.ready_pair(pair);
                // Nobody else ever did.
                self.standing(pair).vouched = serves;
                self.expect_accord(pair);
                self.durability.wait(&self.tables, Waiter::PairReady(pair));
            }
            Err(error) => {
                let sure = error.code != PeerErrorCode::Unavailable;
                self.undo_here(pair, !sure, fx);
                self.fail_creation(pair, Some(&error), fx);
            }
        }
    }

    /// Both halves exist, and here that is durable.
    pub(super) fn pair_ready(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let Some(record) = self.tables.pair(pair) else { return };
        let peer = record.peer;
        if record.role == Role::Standby
            && let Some(link) = self.links.up(peer)
        {
            // Before the other side may write.
            self.stand_on(link, pair);
        }
        if let Some(call) = self.pairs.callers.remove(&pair) {
            let answer = self.remote_answer(pair);
            fx.push(Effect::Answer { call, result: answer });
        }
        self.ask(peer, Request::Ready { pair }, Asked::Ready(pair), fx);
    }

    /// The other half is ready too: data may flow. If it is not known whether it is, the next contact tells.
    pub(super) fn ready_answered(&mut self, pair: PairId, result: Result<PeerAnswer, PeerError>) {
        let peer = self.tables.pair(pair).map(|record| record.peer);
        if result.is_ok()
            && let Some(link) = peer.and_then(|peer| self.links.up(peer))
        {
            self.stand_whole(link, pair);
        }
    }

    /// This half of an unfinished pair goes. `known`: the other array may have a half; it is asked to remove it, and until
    /// it says that it has, this array remembers to ask.
    pub(super) fn undo_here(&mut self, pair: PairId, known: bool, fx: &mut Vec<Effect>) {
        let Some(record) = self.tables.pair(pair) else { return };
        let peer = record.peer;
        if !known {
            self.drop_pair(pair);
            return;
        }
        if record.stage != Stage::Undoing {
            // What was ready ends another way.
            let _ = self.tables.undo_pair(pair);
        }
        self.ask(peer, Request::Destroy { pair }, Asked::Destroy(pair), fx);
    }

    /// The other half is gone, or the next contact will see to it.
    pub(super) fn destroy_answered(&mut self, pair: PairId, result: Result<PeerAnswer, PeerError>) {
        if result.is_ok() && self.tables.pair(pair).is_some_and(|record| record.stage == Stage::Undoing) {
            self.drop_pair(pair);
        }
    }

    /// A creation of before the link broke that the other side may still finish or undo.
    pub(super) fn resume_creation(
        &mut self,
        pair: PairId,
        theirs: Option<&PairState>,
        fx: &mut Vec<Effect>,
    ) -> bool {
        let Some(record) = self.tables.pair(pair) else { return false };
        let peer = record.peer;
        // This side is ready, the other has not heard of it.
        if record.stage == Stage::Ready && theirs.is_some_and(|theirs| theirs.stage == Stage::Creating) {
            self.ask(peer, Request::Ready { pair }, Asked::Ready(pair), fx);
        }
        false
    }

    /// A person says that what is owed may move again.
    pub(super) fn resume_here(&mut self, pair: PairId) {
        if self.tables.pair(pair).is_some_and(|record| record.halt.is_some_and(|halt| halt != Halt::Diverged))
        {
            let _ = self.tables.resume(pair);
            self.look_at_copy(pair);
        }
    }

    /// This half has lost a split brain: what it has is kept as a session, and it stands by. The sender owes it all that may
    /// differ.
    fn serve_yield(
        &mut self,
        served: Served,
        pair: PairId,
        lineage: &Lineage,
        fx: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        let (device, role) = (record.device, record.role);
        // Asked again, it has yielded already.
        let yielded = record.role == Role::Standby && !record.complete;
        let diverged = record.halt == Some(Halt::Diverged) || yielded;
        if !diverged || record.lineage.compare(lineage) != Kinship::Diverged {
            return Err(wrong_state(format!("{pair} has not diverged here")));
        }
        if !self.is_idle(pair) {
            return Err(wrong_state(format!(
                "hosts still use {pair}'s volume here: stop them, and ask again"
            )));
        }
        if !yielded {
            self.keep_aside(device).map_err(|error| refused(&error))?;
        }
        if role == Role::Owner {
            self.tables.set_roles(&[pair], Role::Standby, false).map_err(|error| refused(&error))?;
        }
        if !yielded || self.tables.pair(pair).is_some_and(|record| record.halt == Some(Halt::Diverged)) {
            self.tables.resolve(pair, None).map_err(|error| refused(&error))?;
        }
        self.tables.set_complete(pair, false).map_err(|error| refused(&error))?;
        self.standing(pair).vouched = false;
        self.tell_marks(served.link, pair, true, fx);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// A session of what a device has now, shown by a virtual device of its own, offline.
    fn keep_aside(&mut self, device: DeviceId) -> Result<(), CommandError> {
        let name = self.tables.device(device).map(|record| record.name.clone()).unwrap_or_default();
        let free = (1..)
            .map(|n| format!("{name:.48}.lost-{n}"))
            .find(|name| self.tables.device_named(name).is_none());
        let (shown_by, _) = self.tables.create_virtual(&free.unwrap_or_default())?;
        let (session, _) = self.tables.register(device, None)?;
        self.tables.relate(session, shown_by)?;
        let list = [ActivateSession { session, name: None, online: false }];
        let wall_ms = self.wall_ms();
        self.tables.activate(&list, None, wall_ms)?;
        Ok(())
    }

    /// A planned failover, for the side that serves: nothing new is let in, and what is under way lands.
    fn serve_release(&mut self, served: Served, pairs: &[PairId]) -> Result<(), PeerError> {
        for pair in pairs {
            let record = self.tables.pair(*pair).ok_or_else(|| not_found(*pair))?;
            if record.role != Role::Owner || !self.is_synchronized(*pair) {
                return Err(wrong_state(format!(
                    "{pair} is not synchronized: resume it and wait until it is; only if this array is out of reach, force \
                     the failover"
                )));
            }
        }
        if !self.pairs.releases.is_empty() {
            return Err(wrong_state("another failover is under way: try again".into()));
        }
        self.pairs.releases.push(Release { served, pairs: pairs.to_vec() });
        Ok(())
    }

    /// Whether hosts' I/O of a device is held off because its pair is about to be released.
    pub(super) fn is_releasing(&self, pair: PairId) -> bool {
        self.pairs.releases.iter().any(|release| release.pairs.contains(&pair))
    }

    /// Lets pairs go whose last I/O has landed, on both arrays; `false`: there are none.
    pub(super) fn advance_releases(&mut self, fx: &mut Vec<Effect>) -> bool {
        let ready = |release: &Release| release.pairs.iter().all(|pair| self.is_idle(*pair));
        let Some(at) = self.pairs.releases.iter().position(ready) else { return false };
        let Release { served, pairs } = self.pairs.releases.swap_remove(at);
        // What was under way may have halted it.
        if !pairs.iter().all(|pair| self.is_synchronized(*pair)) {
            let reason = "the pair was halted while its last writes landed: nothing was changed".into();
            self.answer_peer(served, Err(wrong_state(reason)), fx);
            return true;
        }
        let mut lineages = Vec::new();
        for pair in pairs {
            if !planted(Defect::ServesAfterRelease) {
                let _ = self.tables.set_roles(&[pair], Role::Released, false);
            }
            lineages.extend(self.tables.pair(pair).map(|record| (pair, record.lineage.clone())));
        }
        let answer = PeerAnswer::Released { pairs: lineages };
        if let Err(error) = self.answer_durable(served, answer) {
            self.answer_peer(served, Err(error), fx);
        }
        true
    }

    /// A link is gone: nobody waits for its releases.
    pub(super) fn forget_releases(&mut self, link: LinkId) {
        self.pairs.releases.retain(|release| release.served.link != link);
    }

    fn is_idle(&self, pair: PairId) -> bool {
        let Some(record) = self.tables.pair(pair) else { return true };
        let owner = Owner::Device(record.device);
        self.tracks.is_drained(owner) && !self.requests.values().any(|request| request.owner == owner)
    }

    /// A planned failover to this side.
    pub(super) fn ask_release(
        &mut self,
        peer: PeerId,
        call: CallId,
        pairs: Vec<PairId>,
        fx: &mut Vec<Effect>,
    ) {
        let what = Request::Release { pairs: pairs.clone() };
        self.ask(peer, what, Asked::Release(call, pairs), fx);
    }

    /// The giver has let go, durably: this side serves.
    pub(super) fn release_answered(
        &mut self,
        call: CallId,
        pairs: Vec<PairId>,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let taken = result.map_err(|error| told_by_peer(&error)).and_then(|_| {
            self.tables.set_roles(&pairs, Role::Owner, false).map_err(|error| manage::refusal(&error))
        });
        if taken.is_ok() {
            // Nothing is sent to the giver before it stands by.
            pairs.iter().for_each(|pair| self.standing(*pair).agreed = None);
        }
        if let Err(refusal) = taken {
            self.answer(call, Err(refusal), fx);
        } else if !self.durability.wait(&self.tables, Waiter::Taken(call, pairs)) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    /// That this side serves is durable.
    pub(super) fn taken(&mut self, call: CallId, pairs: Vec<PairId>, fx: &mut Vec<Effect>) {
        pairs.iter().for_each(|pair| self.serve_from_now(*pair, fx));
        let infos = pairs.iter().filter_map(|pair| self.remote_info(*pair)).collect();
        fx.push(Effect::Answer { call, result: Ok(Answer::Remotes(infos)) });
    }

    /// That what is here stays is durable, and that this side serves.
    pub(super) fn resolved(&mut self, call: CallId, pair: PairId, fx: &mut Vec<Effect>) {
        self.serve_from_now(pair, fx);
        fx.push(Effect::Answer { call, result: self.remote_answer(pair) });
    }

    fn serve_from_now(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let Some(peer) = self.tables.pair(pair).map(|record| record.peer) else { return };
        self.standing(pair).vouched = true;
        self.ask(peer, Request::Taken { pair }, Asked::Taken(pair), fx);
    }

    /// The taker serves, durably: this side stands by.
    fn serve_taken(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        match record.role {
            Role::Released => {
                let _ = self.tables.set_roles(&[pair], Role::Standby, false);
            }
            Role::Standby => {}
            Role::Owner => return Err(wrong_state(format!("this array has not released {pair}"))),
        }
        self.stand_on(served.link, pair);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// The giver stands by: writes go there.
    pub(super) fn taken_answered(&mut self, pair: PairId, result: Result<PeerAnswer, PeerError>) {
        let peer = self.tables.pair(pair).map(|record| record.peer);
        if result.is_ok()
            && let Some(link) = peer.and_then(|peer| self.links.up(peer))
        {
            // What was written here since is owed.
            self.stand_whole(link, pair);
        }
    }
}

/// What a management call gets for what the other array says.
pub(super) fn told_by_peer(error: &PeerError) -> Refusal {
    let code = match error.code {
        PeerErrorCode::NotFound => RefusalCode::NotFound,
        PeerErrorCode::Exists => RefusalCode::Exists,
        PeerErrorCode::WrongState => RefusalCode::WrongState,
        PeerErrorCode::Limit => RefusalCode::Limit,
        PeerErrorCode::Invalid => RefusalCode::BadRequest,
        PeerErrorCode::NoSpace => RefusalCode::NoSpace,
        PeerErrorCode::Io | PeerErrorCode::Unavailable => RefusalCode::Unavailable,
    };
    Refusal { code, reason: format!("the other array: {}", error.reason) }
}

/// What a peer gets for a command that core refuses.
pub(super) fn refused(error: &CommandError) -> PeerError {
    let refusal = manage::refusal(error);
    let code = match refusal.code {
        RefusalCode::NotFound => PeerErrorCode::NotFound,
        RefusalCode::Exists => PeerErrorCode::Exists,
        RefusalCode::WrongState => PeerErrorCode::WrongState,
        RefusalCode::Limit => PeerErrorCode::Limit,
        RefusalCode::NoSpace => PeerErrorCode::NoSpace,
        RefusalCode::Unavailable => PeerErrorCode::Unavailable,
        RefusalCode::BadRequest | RefusalCode::Unauthorized => PeerErrorCode::Invalid,
    };
    PeerError { code, reason: refusal.reason }
}

pub(super) fn unavailable() -> PeerError {
    let reason =
        "a store of the array failed, or it is going down: whether this took effect shows later".into();
    PeerError { code: PeerErrorCode::Unavailable, reason }
}
