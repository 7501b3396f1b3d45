//! Carries out what [`super::durability`] decides: a round's headers, then its syncs; commits; and what follows from
//! their ends.

use bytes::Bytes;
use twintrack_core::defect::{Defect, planted};
use twintrack_core::{BLOCK_BYTES, StoreId, UnitSeq};
use twintrack_link::manage::{Refusal, RefusalCode};

use super::durability::{Step, Waiter};
use super::event::{DiskError, Effect, HostError};
use super::headers::HeaderBlock;
use super::io::{IoFor, layout_of};
use super::{Firmware, pairs};

/// Header blocks that are read, or written, at a time: each is some dozens of headers, and who waits for the lock waits
/// for all of them.
const HEADER_BLOCKS_AT_A_TIME: usize = 64;

/// The round under way.
#[derive(Debug)]
pub(super) struct Round {
    stage: Stage,
    /// The header blocks that it has not come to, the first one last.
    to_come: Vec<HeaderBlock>,
    /// Those that it is at.
    blocks: Vec<HeaderBlock>,
    /// Disk operations of this stage that have not ended.
    outstanding: u32,
    /// Stores that were written to before it began.
    stores: Vec<StoreId>,
    failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ReadHeaders,
    WriteHeaders,
    Sync,
}

impl Firmware {
    /// Begins what can be begun and ends waits that are over; `false`: there was nothing of either.
    pub(super) fn pump_durability(&mut self, fx: &mut Vec<Effect>) -> bool {
        let satisfied = self.durability.satisfied(&self.tables);
        let mut moved = !satisfied.is_empty();
        for waiter in satisfied {
            self.durable(waiter, fx);
        }
        if let Some(step) = self.durability.next(&self.tables) {
            moved = true;
            match step {
                Step::Commit(upto) => {
                    let changes = self.tables.take_commit(upto);
                    fx.push(Effect::Commit { upto, changes });
                }
                Step::Round(stores) => self.begin_round(stores, fx),
            }
        }
        moved
    }

    fn begin_round(&mut self, stores: Vec<StoreId>, fx: &mut Vec<Effect>) {
        let Self { headers, tables, .. } = self;
        let mut to_come = headers.begin(|store| layout_of(tables, store));
        to_come.reverse();
        let (stage, blocks) = (Stage::ReadHeaders, Vec::new());
        self.round = Some(Round { stage, to_come, blocks, outstanding: 0, stores, failed: false });
        self.go_on_with_headers(fx);
    }

    /// Reads the next header blocks, as far as they are not known, or writes them; when there is none left, the stores
    /// are synced.
    fn go_on_with_headers(&mut self, fx: &mut Vec<Effect>) {
        while let Some(round) = self.round.as_mut() {
            let rest = round.to_come.len().saturating_sub(HEADER_BLOCKS_AT_A_TIME);
            round.blocks = round.to_come.split_off(rest);
            round.blocks.reverse();
            if round.blocks.is_empty() {
                self.sync_stores(fx);
                return;
            }
            let unknown = round.blocks.iter().copied().filter(|block| self.headers.is_unknown(*block));
            let unknown: Vec<_> = unknown.collect();
            round.stage = Stage::ReadHeaders;
            round.outstanding = unknown.len() as u32;
            if unknown.is_empty() && !self.write_headers(fx) {
                continue;
            }
            for block in unknown {
                if let Some(io) = self.begin_io(IoFor::HeaderRead(block), block.store) {
                    let offset = block.offset;
                    fx.push(Effect::Read { io, store: block.store, offset, length: BLOCK_BYTES });
                }
            }
            return;
        }
    }

    pub(super) fn header_read(&mut self, block: HeaderBlock, content: Option<Bytes>, fx: &mut Vec<Effect>) {
        let well = self.headers.fill(block, content.as_deref());
        if self.stage_over(Stage::ReadHeaders, well) && !self.fail_round(fx) && !self.write_headers(fx) {
            self.go_on_with_headers(fx);
        }
    }

    /// Ends the round if its headers could not be read or written; `false`: they could.
    fn fail_round(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Some(round) = self.round.take_if(|round| round.failed) else { return false };
        self.headers.trim();
        for waiter in self.durability.round_failed(round.stores) {
            self.not_durable(waiter, fx);
        }
        true
    }

    /// Writes the header blocks that it is at; `false`: none of them has changed.
    fn write_headers(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Self { headers, tables, round, .. } = self;
        let Some(round) = round.as_mut() else { return true };
        let apply = |block| Some((block, headers.apply(block, &layout_of(tables, block.store))?));
        let writes: Vec<_> = std::mem::take(&mut round.blocks).into_iter().filter_map(apply).collect();
        round.stage = Stage::WriteHeaders;
        round.outstanding = writes.len() as u32;
        round.stores.extend(writes.iter().map(|(block, _)| block.store));
        round.stores.sort();
        round.stores.dedup();
        let changed = !writes.is_empty();
        for (block, content) in writes {
            if let Some(io) = self.begin_io(IoFor::HeaderWrite(block), block.store) {
                fx.push(Effect::Write { io, store: block.store, offset: block.offset, data: vec![content] });
            }
        }
        changed
    }

    pub(super) fn header_written(
        &mut self,
        block: HeaderBlock,
        result: Result<(), DiskError>,
        fx: &mut Vec<Effect>,
    ) {
        if result.is_ok() {
            self.headers.written(block);
        }
        if self.stage_over(Stage::WriteHeaders, result.is_ok()) && !self.fail_round(fx) {
            self.headers.trim();
            self.go_on_with_headers(fx);
        }
    }

    fn sync_stores(&mut self, fx: &mut Vec<Effect>) {
        let Some(round) = self.round.as_mut() else { return };
        round.stage = Stage::Sync;
        round.outstanding = round.stores.len() as u32;
        let stores = round.stores.clone();
        if stores.is_empty() {
            self.round = None;
            self.durability.round_ended();
        }
        for store in stores {
            if let Some(io) = self.begin_io(IoFor::Sync(store), store) {
                fx.push(Effect::Sync { io, store });
            }
        }
    }

    pub(super) fn synced(&mut self, store: StoreId, result: Result<(), DiskError>, fx: &mut Vec<Effect>) {
        if result.is_err() && !planted(Defect::SyncErrorForgotten) {
            self.offline.insert(store);
        }
        if !self.stage_over(Stage::Sync, result.is_ok()) {
            return;
        }
        let failed = self.round.take().is_some_and(|round| round.failed);
        if !failed {
            self.durability.round_ended();
            return;
        }
        let waiters = if planted(Defect::SyncErrorForgotten) {
            self.durability.round_failed([])
        } else {
            self.durability.break_off()
        };
        for waiter in waiters {
            self.not_durable(waiter, fx);
        }
        if self.durability.is_broken() {
            // No commit will free space, no point in time will become durable.
            for op in std::mem::take(&mut self.starving) {
                self.end_op(op, Err(HostError::Io));
            }
            self.abandon_returns(fx);
        }
    }

    pub(super) fn commit_ended(
        &mut self,
        upto: UnitSeq,
        result: Result<(), DiskError>,
        fx: &mut Vec<Effect>,
    ) {
        if self.durability.committed(upto, result).is_err() {
            // Crash rule 9: what is on disk is not known. Nobody is answered any more; the boot path finds out.
            self.reloading = true;
            fx.push(Effect::Reload);
            return;
        }
        self.tables.committed(upto);
        self.note_free();
        self.feed_starving();
    }

    /// One operation of a stage has ended; `true`: the stage is over.
    fn stage_over(&mut self, stage: Stage, well: bool) -> bool {
        let Some(round) = self.round.as_mut().filter(|round| round.stage == stage) else { return false };
        round.failed |= !well;
        round.outstanding -= 1;
        round.outstanding == 0
    }

    fn durable(&mut self, waiter: Waiter, fx: &mut Vec<Effect>) {
        match waiter {
            Waiter::Host(request) => self.flushed(request, Ok(()), fx),
            Waiter::Marks => self.marks_over(),
            Waiter::Leg(leg) => self.leg_committed(leg, Ok(())),
            Waiter::Peer(served, answer) => self.answer_peer(served, Ok(*answer), fx),
            Waiter::States(link) => self.tell_states(link, fx),
            Waiter::Agreed(link, pairs) => self.agreed_here(link, pairs, fx),
            Waiter::PairMade(pair) => self.pair_made(pair, fx),
            Waiter::PairEnded(pair) => self.pair_ended(pair, fx),
            Waiter::Left(pair) => self.left(pair),
            Waiter::PairReady(pair) => self.pair_ready(pair, fx),
            Waiter::Clean(pair) => self.clean_flushed(pair, true),
            Waiter::Complete(pair, generation, run) => self.complete_ready(pair, generation, run, fx),
            Waiter::Taken(call, pairs) => self.taken(call, pairs, fx),
            Waiter::Resolved(call, pair) => self.resolved(call, pair, fx),
            Waiter::Joint(request) => self.joint_durable(request, fx),
            Waiter::Call(call, answer) => fx.push(Effect::Answer { call, result: *answer }),
            Waiter::Stop => fx.push(Effect::Stopped { result: Ok(()) }),
            Waiter::Background => {}
        }
    }

    pub(super) fn not_durable(&mut self, waiter: Waiter, fx: &mut Vec<Effect>) {
        match waiter {
            Waiter::Host(request) => self.flushed(request, Err(HostError::Io), fx),
            Waiter::Marks => self.marks_failed(),
            Waiter::Leg(leg) => self.leg_committed(leg, Err(HostError::Io)),
            Waiter::Peer(served, _) => self.answer_peer(served, Err(pairs::unavailable()), fx),
            Waiter::Clean(pair) => self.clean_flushed(pair, false),
            Waiter::States(link) | Waiter::Agreed(link, _) => self.break_epoch(link, fx),
            Waiter::PairEnded(pair) | Waiter::Complete(pair, ..) => {
                let peer = self.tables.pair(pair).map(|record| record.peer);
                if let Some(link) = peer.and_then(|peer| self.links.up(peer)) {
                    self.break_epoch(link, fx);
                }
            }
            Waiter::PairMade(pair) | Waiter::PairReady(pair) => self.fail_creation(pair, unavailable(), fx),
            Waiter::Taken(call, _) | Waiter::Resolved(call, _) => {
                fx.push(Effect::Answer { call, result: Err(unavailable()) });
            }
            Waiter::Joint(request) => self.joint_not_durable(request, fx),
            Waiter::Call(call, _) => fx.push(Effect::Answer { call, result: Err(unavailable()) }),
            Waiter::Stop => fx.push(Effect::Stopped { result: Err(DiskError::Failed) }),
            // No host gets it before a restart.
            Waiter::Left(_) | Waiter::Background => {}
        }
    }
}

/// What a management call gets when a store has failed.
pub(super) fn unavailable() -> Refusal {
    let reason = "a store of the array failed to make data durable: look at the store's disk, then restart the \
                  array; whether this command took effect shows then";
    Refusal { code: RefusalCode::Unavailable, reason: reason.into() }
}
