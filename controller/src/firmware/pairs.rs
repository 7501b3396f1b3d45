//! Commands that span two arrays, and what the peer asks of this one: make a pair, remove it, suspend, resume. Who serves is
//! [`super::failover`]'s.
//!
//! A creation goes (A1–A7): this half's record durable, not ready → the peer makes its half, durably → ready here, durably
//! → the caller has its answer, and the peer is told. The half that stands by takes nothing more from hosts, and what they had
//! under way on it ends before the next step, for then the other array may read it. If the peer refuses, or the link breaks, or this array crashes before
//! *ready* is durable, both halves go: here at once, there by [`Request::Destroy`], at once or at the next contact
//! ([`super::accord`]). After it, the peer's half becomes ready at the next contact at the latest. Who asks again with
//! the same request number gets the same answer (F2).

use std::collections::BTreeMap;
use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{CommandError, DeviceId, Halt, PairId, Role, Stage};
use twintrack_link::manage::{Refusal, RefusalCode};
use twintrack_link::remote::{
    Answer as PeerAnswer, CreateHalf, PairState, PeerError, PeerErrorCode, Request,
};

use super::Firmware;
use super::creation::not_made;
use super::durability::Waiter;
use super::event::{CallId, Effect, LinkId};
use super::failover::Release;
use super::joint::Preparation;
use super::links::{Asked, Served};
use super::manage;
use super::mirror::{not_found, wrong_state};

/// Commands under way that span two arrays.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Who waits for a creation or a removal that this array has begun.
    pub(super) callers: BTreeMap<PairId, CallId>,
    /// What the other array is to be asked for, once this half is durable.
    pub(super) creating: BTreeMap<PairId, CreateHalf>,
    /// New halves that stand by, and wait until what hosts had asked of their volumes before has ended: the other array may
    /// read them then. Who is told: the other array, or nobody, which is asked for its half.
    pub(super) entering: Vec<(PairId, Option<Served>)>,
    /// Halves that stood by and have ended, and their volumes, into which something of the other array is still being written,
    /// or of which that is not durable yet (`true`: it becomes so). No host uses them before, or what it reads would change by
    /// itself, or by a crash.
    pub(super) leaving: BTreeMap<PairId, (DeviceId, bool)>,
    /// What this array is about to let go. At most one.
    pub(super) releases: Vec<Release>,
}

impl Pairs {
    /// When what this array is about to let go is given up.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.releases.iter().map(Release::until).min()
    }

    /// Whether a volume has still to go back to its hosts.
    pub(super) fn is_leaving(&self, device: DeviceId) -> bool {
        self.leaving.values().any(|(leaving, _)| *leaving == device)
    }
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
            Request::Flush { .. } if planted(Defect::PeerFlushedEarly) => {
                self.answer_peer(served, Ok(PeerAnswer::Done), fx);
                return;
            }
            Request::Flush { .. } => self.answer_durable(served, PeerAnswer::Done),
            Request::Echo { data } => {
                self.answer_peer(served, Ok(PeerAnswer::Data(data)), fx);
                return;
            }
            Request::Create(create) => self.serve_create(served, *create),
            Request::Ready { pair } => self.serve_ready(served, pair),
            Request::End { pair } => self.serve_end(served, pair, fx),
            Request::Destroy { pair } => self.serve_destroy(served, pair),
            Request::Begin { pair } => self.serve_begin(served, pair),
            Request::Complete { pair, lineage } => self.serve_complete(served, pair, &lineage),
            Request::SetMode { pair, mode } => {
                let done = self.tables.set_mode(pair, mode).map_err(|error| refused(&error));
                done.and_then(|_| self.answer_durable(served, PeerAnswer::Done))
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
            Request::Prepare { request, pairs, name, online } => {
                self.serve_prepare(served, Preparation::new(request, pairs, name, online))
            }
            Request::Settle { decided, open } => self.serve_settle(served, &decided, &open),
            Request::Taken { pair } => self.serve_taken(served, pair),
            Request::Yield { pair, lineage } => self.serve_yield(served, pair, &lineage, fx),
        };
        if let Err(error) = result {
            self.answer_peer(served, Err(error), fx);
        }
    }

    /// Answers once everything up to now is durable.
    pub(super) fn answer_durable(&mut self, served: Served, answer: PeerAnswer) -> Result<(), PeerError> {
        if self.durability.wait(&self.tables, Waiter::Peer(served, Box::new(answer))) {
            return Ok(());
        }
        Err(unavailable())
    }

    /// A2: the other half. Asked again, it is there already.
    fn serve_create(&mut self, served: Served, create: CreateHalf) -> Result<(), PeerError> {
        let peer = self.peer_of(served.link).ok_or_else(unavailable)?;
        let pair = create.pair;
        if self.tables.pair(pair).is_none() {
            let (record, device) = self.wanted_half(peer, &create)?;
            self.tables.create_pair(pair, record, device).map_err(|error| refused(&error))?;
        }
        if self.tables.pair(pair).is_some_and(|record| record.role == Role::Standby) {
            self.pairs.entering.push((pair, Some(served)));
            return Ok(());
        }
        self.answer_created(served, pair)
    }

    fn answer_created(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        let answer = PeerAnswer::Created { made_device: record.made_device, lineage: record.lineage.clone() };
        self.answer_durable(served, answer)
    }

    /// Goes on with a creation whose volume no host uses any more; `false`: there is none.
    pub(super) fn advance_entering(&mut self, fx: &mut Vec<Effect>) -> bool {
        let idle = |(pair, _): &(PairId, _)| self.is_idle(*pair);
        let Some(at) = self.pairs.entering.iter().position(idle) else { return false };
        match self.pairs.entering.swap_remove(at) {
            (pair, None) => self.ask_for_half(pair, fx),
            (pair, Some(served)) => {
                if let Err(error) = self.answer_created(served, pair) {
                    self.answer_peer(served, Err(error), fx);
                }
            }
        }
        true
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
    pub(super) fn stand_whole(&mut self, link: LinkId, pair: PairId) {
        let whole = self.tables.pair(pair).is_some_and(|record| !record.is_alone());
        self.stand_on(link, pair, whole);
    }

    /// Makes a half that was being created ready.
    pub(super) fn finish_creation(&mut self, pair: PairId) {
        if self.tables.pair(pair).is_some_and(|record| record.stage == Stage::Creating) {
            let _ = self.tables.ready_pair(pair);
        }
    }

    pub(super) fn check_standby(&self, served: Served, pair: PairId) -> Result<(), PeerError> {
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
                let refusal = not_made(pair, &error);
                // While this half is known, of which request it is.
                self.note_failed(pair, &refusal);
                self.undo_here(pair, !sure, fx);
                self.tell_failed(pair, refusal, fx);
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
            self.stand_on(link, pair, false);
        }
        if let Some(call) = self.pairs.callers.remove(&pair) {
            let answer = self.remote_answer(pair);
            fx.push(Effect::Answer { call, result: answer });
        }
        self.ask(peer, Request::Ready { pair }, Asked::Ready(pair), fx);
    }

    /// The other half is ready too: data may flow. If it is not known whether it is, the next contact tells.
    pub(super) fn ready_answered(
        &mut self,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let peer = self.tables.pair(pair).map(|record| record.peer);
        let Some(link) = peer.and_then(|peer| self.links.up(peer)) else { return };
        match result {
            Ok(_) => self.stand_whole(link, pair),
            Err(_) => self.break_epoch(link, fx),
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
        match (record.stage, theirs.map(|theirs| theirs.stage)) {
            // This side is ready, the other has not heard of it.
            (Stage::Ready, Some(Stage::Creating)) => {
                self.ask(record.peer, Request::Ready { pair }, Asked::Ready(pair), fx);
            }
            // The pair was ready, and has ended, before this side had heard of either: its volume stays, and has promised
            // nobody what the other one has.
            (Stage::Creating, Some(Stage::Ended)) => {
                let _ = self.tables.end_pair(pair);
            }
            _ => {}
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
