//! Dirty marks (crash rule 5): before the first write to a region of a paired device since it was last clean, its mark
//! is durable. Steady writing after that commits nothing.
//!
//! A mark says: after a crash this half may differ from the other one here. So it has to be durable before either half
//! is written, and may go once a flush of both arrays begun after the region's last write has ended well; what the peer
//! lacks of the region is recorded with that. Writes that wait for a mark hold their tracks meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use twintrack_core::{FlushNo, PairId, PeerId, RegionNo, Regions, Role};
use twintrack_link::remote::Request;

use super::durability::Waiter;
use super::event::{Effect, HostError};
use super::io::OpId;
use super::links::Asked;
use super::{Firmware, Work};

/// How often the regions that were not written since the time before become clean: one that is written again and again stays
/// dirty, for cleaning it would be two commits for nothing.
const CLEAN_EVERY: Duration = Duration::from_secs(5);
/// Marks that one unit cleans.
const CLEANED_MAX: usize = 1024;
/// Regions ahead of a copy into the half here that are marked: so far it can go while what it has written is synced and the
/// marks are committed. So many at most are sent again after a crash that need not be.
const AHEAD: u32 = 64;
/// How many of them are marked in one unit. With each, what was copied since the one before becomes durable, which keeps the
/// disk busy while the copy goes on; what comes behind the last of them is left for the end.
const AT_A_TIME: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Operations that wait for a commit of their regions' marks.
    waiting: Vec<OpId>,
    /// When marks are to be looked at next.
    due: Option<Duration>,
    /// Flushes under way, to clean by.
    flushing: BTreeMap<PairId, Flushing>,
}

#[derive(Debug)]
struct Flushing {
    number: FlushNo,
    /// This array, and the peer if it takes part.
    left: u32,
    failed: bool,
}

impl Marks {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// There are marks: they are looked at in some time.
    pub(super) fn note(&mut self, now: Duration) {
        self.due.get_or_insert(now + CLEAN_EVERY);
    }

    pub(super) fn forget(&mut self, pair: PairId) {
        self.flushing.remove(&pair);
    }
}

impl Firmware {
    /// An operation waits for a commit of what was marked for it; it comes again then.
    pub(super) fn await_mark(&mut self, op: OpId) {
        self.marks.note(self.now);
        self.marks.waiting.push(op);
        if !self.durability.wait(&self.tables, Waiter::Marks) {
            self.marks_failed();
        }
    }

    /// What was marked becomes durable at some time: an operation does not wait for it, as the planted defect has it.
    pub(super) fn await_nothing(&mut self) {
        self.marks.note(self.now);
        self.durability.wait(&self.tables, Waiter::Marks);
    }

    /// A region is about to be written by what comes from the peer. A copy into the half here goes up through the device:
    /// the marks of regions that come next are made together, and well before it is there, else it would stand still for
    /// their sync and commit.
    pub(super) fn mark_ahead(&mut self, pair: PairId, region: RegionNo) {
        let is_copied = self.tables.pair(pair).is_some_and(|record| !record.complete);
        let near = RegionNo(region.0.saturating_add(AHEAD - AT_A_TIME));
        // It goes on from a region before. What is scattered is marked one by one, else many would be marked for nothing.
        let goes_on = |regions: &Regions| {
            region.0.checked_sub(1).is_none_or(|before| regions.unit_of(RegionNo(before)).is_some())
        };
        let is_due = |regions: &Regions| goes_on(regions) && regions.unit_of(near).is_none();
        let is_due = self.tables.regions(pair).is_some_and(is_due);
        if is_copied && is_due && self.tables.mark_run(pair, region, AHEAD).is_some() {
            self.marks.note(self.now);
            // Nobody waits for it yet; who comes before it is durable waits for himself.
            self.durability.wait(&self.tables, Waiter::Marks);
        }
    }

    /// What was marked could not be made durable: who waits for it has an error. Would it be tried again at once, a store
    /// that fails at once would keep the array at nothing else.
    pub(super) fn marks_failed(&mut self) {
        for op in std::mem::take(&mut self.marks.waiting) {
            self.end_op(op, Err(HostError::Io));
        }
    }

    /// A commit that somebody waited for has ended.
    pub(super) fn marks_over(&mut self) {
        self.work.extend(std::mem::take(&mut self.marks.waiting).into_iter().map(Work::Op));
    }

    /// Begins to clean what may be clean.
    pub(super) fn clean_marks(&mut self, fx: &mut Vec<Effect>) {
        if self.marks.due.is_none_or(|due| due > self.now) {
            return;
        }
        self.marks.due = None;
        if self.durability.is_broken() {
            // None becomes clean any more.
            return;
        }
        let dirty =
            |tables: &twintrack_core::Tables, pair| tables.regions(pair).is_some_and(|r| r.count() > 0);
        let pairs: Vec<(PairId, PeerId)> = self
            .tables
            .pairs()
            .filter(|(id, _)| dirty(&self.tables, *id))
            .map(|(id, r)| (id, r.peer))
            .collect();
        for (pair, peer) in pairs {
            self.marks.note(self.now);
            if self.marks.flushing.contains_key(&pair) {
                continue;
            }
            let Some(number) = self.tables.begin_flush(pair) else { continue };
            let both = self.moves(pair);
            self.marks.flushing.insert(pair, Flushing { number, left: 1 + u32::from(both), failed: false });
            if !self.durability.wait(&self.tables, Waiter::Clean(pair)) {
                self.clean_flushed(pair, false);
            }
            if both {
                self.ask(peer, Request::Flush { pairs: vec![pair] }, Asked::Clean(pair), fx);
            }
        }
    }

    /// One of the arrays has flushed, or failed to.
    pub(super) fn clean_flushed(&mut self, pair: PairId, well: bool) {
        let Some(flushing) = self.marks.flushing.get_mut(&pair) else { return };
        flushing.failed |= !well;
        flushing.left -= 1;
        if flushing.left > 0 {
            return;
        }
        let Some(Flushing { number, failed, .. }) = self.marks.flushing.remove(&pair) else { return };
        if !failed {
            // This flush covers what was written until it began; what was written until the one before is old enough.
            let old = FlushNo(number.0.saturating_sub(1));
            let regions = self.tables.cleanable(pair, old, CLEANED_MAX);
            if !regions.is_empty() {
                self.tables.clean(pair, &regions);
            }
        }
    }

    /// Marks of the half that stands by, from before its restart: the other half has them durably.
    pub(super) fn marks_are_told(&mut self, pair: PairId) {
        if self.tables.pair(pair).is_some_and(|record| record.role == Role::Standby) {
            self.tables.marks_told(pair);
            self.marks.note(self.now);
        }
    }

    /// The dirty regions of a pair, whole.
    pub(super) fn dirty_words(&self, pair: PairId) -> Vec<(RegionNo, u64)> {
        let regions = self.tables.regions(pair);
        regions.into_iter().flat_map(|regions| regions.marked()).map(|region| (region, u64::MAX)).collect()
    }
}
