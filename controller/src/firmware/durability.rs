//! When what is written becomes durable: alone issues syncs and commits.
//!
//! A *round* is: write the headers noted so far, then sync every store that was written to. It covers the units made
//! before it began, for their blocks were written before them. A *commit* carries the units that ended rounds have
//! covered, in order (crash rule 2), as many as one may carry. Who waits names the first round that will do and the
//! last unit it needs; one round and one commit serve all who wait. Rounds and commits each go one at a time, a round
//! beside a commit.

use std::collections::BTreeSet;
use std::collections::VecDeque;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{PairGeneration, PairId, StoreId, Tables, UnitSeq};
use twintrack_link::manage::{Answer, Refusal};
use twintrack_link::remote::Answer as PeerAnswer;

use super::event::{CallId, DiskError, LinkId};
use super::hosts::RequestId;
use super::links::Served;
use super::mirror::LegId;

/// Changes that one commit carries, unless its first unit has more. Taking them out of the log, and settling them once
/// they are durable, is one step each, and hosts wait meanwhile; commits of fewer would write the same chunks of the
/// metadata too often.
const COMMIT_CHANGES_MAX: usize = 8192;

/// Who waits for durability, and what it gets then.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Waiter {
    /// A host's FLUSH, or a request with FUA.
    Host(RequestId),
    /// A management call: its answer, or its refusal if that tells of what is not durable.
    Call(CallId, Box<Result<Answer, Refusal>>),
    /// The end of the array.
    Stop,
    /// Operations whose regions' marks are to be durable.
    Marks,
    /// The remote leg of a write that the peer will not have: that is to be durable.
    Leg(LegId),
    /// A peer's request: its answer.
    Peer(Served, Box<PeerAnswer>),
    /// What the other side of a link is to hear how the pairs stand.
    States(LinkId),
    /// What follows from both arrays' states of these pairs.
    Agreed(LinkId, Vec<PairId>),
    /// This half of a new pair exists.
    PairMade(PairId),
    /// This half of a pair has ended.
    PairEnded(PairId),
    /// What the other array has written into a half that has ended.
    Left(PairId),
    /// Both halves of a pair exist.
    PairReady(PairId),
    /// The peer may have all of a pair's present generation, as the copy with this number found.
    Complete(PairId, PairGeneration, u32),
    /// A flush that cleans marks of a pair.
    Clean(PairId),
    /// This array serves these pairs from now on.
    Taken(CallId, Vec<PairId>),
    /// What this array has stays, and what the other one wrote alone is given up.
    Resolved(CallId, PairId),
    /// That there is a point in time on both arrays, as this one has decided.
    Joint(u64),
    /// Nobody: what was dropped is to become free, or the log has become long.
    Background,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin the round: write headers, then sync these stores.
    Round(Vec<StoreId>),
    /// Commit the units up to this one.
    Commit(UnitSeq),
}

#[derive(Debug)]
pub(super) struct Durability {
    /// Rounds begun, and ended well.
    begun: u64,
    ended: u64,
    round: Option<UnitSeq>,
    /// Units that ended rounds have covered.
    synced: UnitSeq,
    committing: Option<UnitSeq>,
    waiting: VecDeque<(u64, UnitSeq, Waiter)>,
    /// Stores with writes that ended since the last round began.
    written: BTreeSet<StoreId>,
    /// A sync failed (crash rule 9): nothing of the whole array becomes durable until a restart, for units are committed
    /// in their order, whichever stores they are about.
    broken: bool,
}

impl Durability {
    pub(super) fn new(tables: &Tables) -> Self {
        let synced = tables.last_unit();
        Self {
            begun: 0,
            ended: 0,
            round: None,
            synced,
            committing: None,
            waiting: VecDeque::new(),
            // After the end of a process alone, its writes lie in the operating system's cache, where reads find them: the
            // first flush makes them durable too.
            written: tables.stores().map(|(id, _)| id).filter(|_| !planted(Defect::BootUnsynced)).collect(),
            broken: false,
        }
    }

    /// A write to a store has ended.
    pub(super) fn wrote(&mut self, store: StoreId) {
        self.written.insert(store);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Everything up to now is to become durable. `false`: it will not.
    pub(super) fn wait(&mut self, tables: &Tables, waiter: Waiter) -> bool {
        if self.broken {
            return false;
        }
        if waiter == Waiter::Background && self.waiting.iter().any(|(_, _, other)| *other == waiter) {
            return true;
        }
        let mut round = self.begun + 1;
        if planted(Defect::PointToldEarly)
            && matches!(&waiter, Waiter::Call(_, answer) if matches!(**answer, Ok(Answer::Sessions(_))))
        {
            round = self.ended;
        }
        if planted(Defect::FlushWithoutSync)
            && matches!(waiter, Waiter::Host(_))
            && tables.last_unit() == tables.committed_unit()
        {
            round = self.ended;
        }
        self.waiting.push_back((round, tables.last_unit(), waiter));
        true
    }

    /// What is to be begun now, until `None`.
    pub(super) fn next(&mut self, tables: &Tables) -> Option<Step> {
        if self.broken {
            return None;
        }
        let ahead = planted(Defect::CommitAheadOfData) || planted(Defect::PointToldEarly);
        let ready = if ahead { tables.last_unit() } else { self.synced };
        let wanted = self.waiting.iter().map(|(_, unit, _)| *unit).max().unwrap_or(UnitSeq::ZERO);
        let committed = tables.committed_unit();
        // The halves of a torn unit are two: the commit parts them.
        let torn = planted(Defect::UnitTorn) && ready.0 > committed.0 + 1;
        let ready = if torn { UnitSeq(ready.0 - 1) } else { ready };
        if self.committing.is_none() && wanted > committed && ready > committed {
            let ready = tables.last_fitting(ready, COMMIT_CHANGES_MAX);
            self.committing = Some(ready);
            return Some(Step::Commit(ready));
        }
        if self.round.is_none() && self.waiting.iter().any(|(round, ..)| *round > self.begun) {
            self.begun += 1;
            self.round = Some(tables.last_unit());
            return Some(Step::Round(std::mem::take(&mut self.written).into_iter().collect()));
        }
        None
    }

    /// The round has ended well.
    pub(super) fn round_ended(&mut self) {
        if let Some(upto) = self.round.take() {
            self.synced = self.synced.max(upto);
            self.ended = self.begun;
        }
    }

    /// Headers could not be written: the round has come to nothing, and nobody is told that it did.
    pub(super) fn round_failed(&mut self, stores: impl IntoIterator<Item = StoreId>) -> Vec<Waiter> {
        self.written.extend(stores);
        self.round = None;
        let begun = self.begun;
        let (failed, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(round, ..)| *round <= begun);
        self.waiting = rest;
        let failed: VecDeque<(u64, UnitSeq, Waiter)> = failed;
        failed.into_iter().map(|(.., waiter)| waiter).collect()
    }

    /// A sync has failed: what it should have covered is lost, and no later sync may say otherwise.
    pub(super) fn break_off(&mut self) -> Vec<Waiter> {
        self.broken = true;
        self.round = None;
        std::mem::take(&mut self.waiting).into_iter().map(|(.., waiter)| waiter).collect()
    }

    /// A commit has ended; `Err`: its outcome is unknown.
    pub(super) fn committed(
        &mut self,
        upto: UnitSeq,
        result: Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        self.committing = None;
        // A planted defect may have let the commit run ahead.
        self.synced = self.synced.max(if planted(Defect::CommitAheadOfData) { upto } else { self.synced });
        if planted(Defect::CommitErrorIgnored) { Ok(()) } else { result }
    }

    /// Takes those whose wait is over.
    pub(super) fn satisfied(&mut self, tables: &Tables) -> Vec<Waiter> {
        let (ended, committed) = (self.ended, tables.committed_unit());
        let early = planted(Defect::ReplyBeforeCommit);
        let mut done = Vec::new();
        self.waiting.retain(|(round, unit, waiter)| {
            let over = *round <= ended && (*unit <= committed || early);
            if over {
                done.push(waiter.clone());
            }
            !over
        });
        done
    }
}
