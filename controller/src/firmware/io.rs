//! Reads and writes of single tracks, from the tables to the disks: nothing else issues data I/O.
//!
//! A write of a track goes: its place in the queue of the track ([`super::tracks`]) → plan ([`Tables::plan_write`]) →
//! read what completes blocks written in part, and blocks to carry → write → land. Between plan and landing the plan
//! pins what it reads and names. A crash at any point before the landing's unit is committed leaves the old entry,
//! whose tracks are untouched, or, in place, a block that is old, new or torn, as any disk would.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use twintrack_core::defect::{Defect, planted};
use twintrack_core::layout::StoreLayout;
use twintrack_core::{
    BLOCK_BYTES, BlockMask, CopyId, PairId, PhysicalTrack, Place, RegionNo, StoreId, Tables, TrackNo,
    WriteError, WritePlan,
};

use super::event::{DiskError, Effect, HostError, IoId, Segment};
use super::headers::{HeaderBlock, generation_of};
use super::hosts::RequestId;
use super::links::Served;
use super::mirror::{OpLeg, Turn};
use super::reads::{ReadId, runs};
use super::resync::CopyNo;
use super::starving::Waits;
use super::tracks::Access;
use super::{Firmware, Work};

/// One operation that changes a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpId(pub(super) u64);

/// What a disk operation is for.
#[derive(Debug)]
pub(super) enum IoFor {
    /// A piece of a read: which segment of its target.
    Read(ReadId, usize),
    /// What completes a write: where in the track.
    Fill(OpId, u32),
    /// A run of a write.
    Write(OpId, StoreId),
    /// A header block read before its change.
    HeaderRead(HeaderBlock),
    /// A header block.
    HeaderWrite(HeaderBlock),
    /// A sync of a round.
    Sync(StoreId),
    /// Free tracks whose room goes back to the store.
    Discard(StoreId, u32, u32),
}

/// An operation that changes a track.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) place: Place,
    /// First byte in the track, and bytes.
    pub(super) within: u32,
    pub(super) length: u32,
    pub(super) what: Change,
    pub(super) parent: Parent,
    /// What its pair needs of it.
    pub(super) leg: OpLeg,
    plan: Option<WritePlan>,
    /// What is to be written, by its place in the track.
    pieces: BTreeMap<u32, Bytes>,
    outstanding: u32,
    writing: bool,
    error: Option<HostError>,
    /// What it has waited for to find space.
    pub(super) waits: Waits,
}

/// What an operation does to its track.
#[derive(Debug)]
pub(super) enum Change {
    /// Writes bytes.
    Data(Bytes),
    /// Writes zeros.
    Zeros,
    /// Makes the track take no space.
    Clear,
    /// Completes the overlay from the base.
    Merge,
    /// Copies the track from another pool into its device's own.
    Move,
    /// Sends the track to the peer; changes nothing here.
    Copy,
    /// Compares the track with the peer's; changes nothing.
    Compare,
    /// Asks the peer for the track, and becomes the write of what it answers.
    Fetch,
}

/// Who wants to know that an operation is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parent {
    /// A host's request.
    Host(RequestId),
    /// The merging job.
    Merge,
    /// The job that moves a track to another pool.
    Move(CopyId, TrackNo),
    /// The peer.
    Peer(Served),
    /// The job that copies to a peer.
    Copy(PairId, TrackNo, CopyNo),
    /// The job that fetches from a peer.
    Fetch(PairId, TrackNo),
    /// A host's read of what has to be fetched first.
    Read(RequestId),
    /// A comparison of a pair.
    Verify(PairId),
    /// Nobody: others wait for the track.
    Nobody,
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl Firmware {
    /// Begins an operation that changes a track; its parent hears when it is over.
    pub(super) fn start_op(&mut self, place: Place, within: u32, length: u32, what: Change, parent: Parent) {
        let id = OpId(self.next_number());
        let access = match what {
            Change::Data(_) | Change::Zeros if self.tables.writes_in_place(place) => {
                Access::Blocks(BlockMask::touched(within, length))
            }
            Change::Copy if planted(Defect::CopyUnheld) => Access::Blocks(BlockMask::EMPTY),
            Change::Compare if planted(Defect::VerifyUnheld) => Access::Blocks(BlockMask::EMPTY),
            _ => Access::Whole,
        };
        let hasty = matches!(what, Change::Clear) && planted(Defect::TrimUndrained);
        let op = Op {
            place,
            within,
            length,
            what,
            parent,
            leg: OpLeg::Undecided,
            plan: None,
            pieces: BTreeMap::new(),
            outstanding: 0,
            writing: false,
            error: None,
            waits: Waits::default(),
        };
        if hasty {
            // Not its turn; the queue does not know of it.
            let _ = self.tables.clear(place);
            self.op_told(parent, Ok(()));
            return;
        }
        self.ops.insert(id, op);
        if self.tracks.admit(id, place, access) {
            self.work.push_back(Work::Op(id));
        }
    }

    /// An operation has its turn, or was waiting for space.
    pub(super) fn run_op(&mut self, id: OpId, fx: &mut Vec<Effect>) {
        match self.take_leg(id, fx) {
            Turn::Go => {}
            Turn::Wait => return,
            Turn::Refused(error) => {
                self.end_op(id, Err(error));
                return;
            }
        }
        let Some(op) = self.ops.get(&id) else { return };
        let (place, within, length) = (op.place, op.within, op.length);
        match op.what {
            Change::Copy => self.run_copy(id, fx),
            Change::Compare => self.run_compare(id, fx),
            Change::Fetch => self.run_fetch(id, fx),
            Change::Clear => {
                let result = self.tables.clear(place);
                self.end_op(id, result.map(|_| ()).map_err(host_error));
            }
            Change::Merge => match self.tables.plan_merge(place) {
                Some(plan) => self.prepare(id, plan, fx),
                None => self.end_op(id, Ok(())),
            },
            // No session is failed for it, and nobody waits for it: it comes again.
            Change::Move => match self.tables.plan_relocate(place) {
                Ok(Some(plan)) => self.prepare(id, plan, fx),
                Ok(None) => self.end_op(id, Ok(())),
                Err(error) => self.end_op(id, Err(host_error(error))),
            },
            Change::Data(_) | Change::Zeros => {
                let blocks = BlockMask::touched(within, length);
                match self.tables.plan_write(place, blocks) {
                    Ok(plan) if plan.fresh() && !self.tracks.has_whole(id, place) => {
                        self.tables.abandon_write(plan);
                        if self.tracks.upgrade(id, place) {
                            self.work.push_back(Work::Op(id));
                        }
                    }
                    Ok(plan) => {
                        if plan.fresh()
                            && let Some(pool) = self.gives_way(id)
                        {
                            self.tables.abandon_write(plan);
                            self.out_of_space(id, pool);
                            return;
                        }
                        if !plan.fresh() {
                            let granted = self.tracks.downgrade(id, place, blocks);
                            self.work.extend(granted.into_iter().map(Work::Op));
                        }
                        self.prepare(id, plan, fx);
                    }
                    Err(WriteError::NoSpace(pool)) => self.out_of_space(id, pool),
                    Err(WriteError::Gone) => self.end_op(id, Err(HostError::Gone)),
                }
            }
        }
    }

    /// Gathers what is to be written: the data, the rest of blocks written in part, blocks to carry.
    fn prepare(&mut self, id: OpId, plan: WritePlan, fx: &mut Vec<Effect>) {
        let size_bytes = self.size_of(plan.place().owner);
        let Some(op) = self.ops.get_mut(&id) else { return };
        let (start, end) = (op.within, op.within + op.length);
        match &op.what {
            Change::Data(data) => {
                op.pieces.insert(start, data.clone());
            }
            Change::Zeros => put_zeros(&mut op.pieces, start..end),
            Change::Clear | Change::Merge | Change::Move | Change::Copy | Change::Compare | Change::Fetch => {
            }
        }
        let limit = size_bytes.saturating_sub(self.tables.geometry().offset_of(op.place.track));
        let limit = limit.min(u64::from(self.tables.geometry().track_bytes())) as u32;
        let mut missing: Vec<Range<u32>> = Vec::new();
        if matches!(op.what, Change::Merge | Change::Move) {
            missing.extend(plan.blocks().runs().map(|run| run.start * BLOCK_BYTES..run.end * BLOCK_BYTES));
        } else {
            let head = start / BLOCK_BYTES;
            if !plan.in_place(head) {
                missing.push(head * BLOCK_BYTES..start);
            }
            let tail = (end - 1) / BLOCK_BYTES;
            if !plan.in_place(tail) {
                missing.push(end..(tail + 1) * BLOCK_BYTES);
            }
            missing.extend(plan.carry().runs().map(|run| run.start * BLOCK_BYTES..run.end * BLOCK_BYTES));
        }
        let whole_blocks = matches!(op.what, Change::Merge | Change::Move);
        let mut reads = Vec::new();
        for range in missing.into_iter().filter(|range| !range.is_empty()) {
            // What lies behind the end of the device is zeros, and stays so when the device grows.
            let inside = range.start..range.end.min(limit.max(range.start));
            put_tail(&mut op.pieces, inside.end..range.end);
            for (part, lies) in runs(plan.old(), inside.start, inside.end - inside.start) {
                let zeroed = planted(Defect::RestOfBlockZeroed)
                    && !whole_blocks
                    && part.end - part.start < BLOCK_BYTES;
                match lies.filter(|_| !zeroed) {
                    Some(track) => reads.push((part, track)),
                    None => put_zeros(&mut op.pieces, part),
                }
            }
        }
        op.plan = Some(plan);
        op.outstanding = reads.len() as u32;
        if reads.is_empty() {
            self.write_out(id, fx);
        }
        for (part, track) in reads {
            self.issue_read(IoFor::Fill(id, part.start), track, part, fx);
        }
    }

    /// Everything is gathered: adjacent pieces go in one disk write.
    fn write_out(&mut self, id: OpId, fx: &mut Vec<Effect>) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let Some(slot) = op.plan.as_ref().map(WritePlan::slot) else { return };
        let mut outs: Vec<(u32, u32, Vec<Bytes>)> = Vec::new();
        for (at, piece) in std::mem::take(&mut op.pieces) {
            match outs.last_mut() {
                Some((start, length, pieces)) if *start + *length == at => {
                    *length += piece.len() as u32;
                    pieces.push(piece);
                }
                _ => outs.push((at, piece.len() as u32, vec![piece])),
            }
        }
        op.writing = true;
        op.outstanding = outs.len() as u32;
        for (at, _, data) in outs {
            let (store, offset) = self.address(slot, at);
            let io = self.begin_io(IoFor::Write(id, store), store);
            if let Some(io) = io {
                fx.push(Effect::Write { io, store, offset, data });
            }
        }
    }

    /// A disk operation is over.
    pub(super) fn disk_done(&mut self, io: IoId, result: Result<Bytes, DiskError>, fx: &mut Vec<Effect>) {
        let Some(what) = self.io.remove(&io) else { return };
        match what {
            IoFor::Read(id, index) => {
                let Some(read) = self.reads.get_mut(&id) else { return };
                match result {
                    Ok(bytes) => read.segments[index] = Some(Segment::Bytes(bytes)),
                    Err(error) => read.error = Some(disk_error(error)),
                }
                read.outstanding -= 1;
                if read.outstanding == 0 {
                    self.read_over(id, fx);
                }
            }
            IoFor::Fill(id, at) => {
                let Some(op) = self.ops.get_mut(&id) else { return };
                match result {
                    Ok(bytes) => {
                        op.pieces.insert(at, bytes);
                    }
                    Err(error) => op.error = Some(disk_error(error)),
                }
                op.outstanding -= 1;
                if op.outstanding == 0 {
                    match op.error {
                        Some(error) => self.give_up(id, error),
                        None => self.write_out(id, fx),
                    }
                }
            }
            IoFor::Write(id, store) => {
                // Failed or not, it may have changed the store.
                self.durability.wrote(store);
                let Some(op) = self.ops.get_mut(&id) else { return };
                if let Err(error) = result {
                    op.error = Some(disk_error(error));
                }
                op.outstanding -= 1;
                if op.outstanding == 0 {
                    match op.error {
                        Some(error) => self.give_up(id, error),
                        None => self.land(id),
                    }
                }
            }
            IoFor::HeaderRead(block) => self.header_read(block, result.ok(), fx),
            IoFor::HeaderWrite(block) => self.header_written(block, result.map(|_| ()), fx),
            IoFor::Sync(store) => self.synced(store, result.map(|_| ()), fx),
            IoFor::Discard(store, start, count) => self.discard_done(store, start, count),
        }
    }

    fn land(&mut self, id: OpId) {
        let Some(plan) = self.ops.get_mut(&id).and_then(|op| op.plan.take()) else { return };
        let (place, slot, fresh) = (plan.place(), plan.slot(), plan.fresh());
        match self.tables.land_write(plan) {
            Ok(None) => self.end_op(id, Ok(())),
            Ok(Some(_)) => {
                self.note_header(place, slot, fresh);
                self.end_op(id, Ok(()));
            }
            Err(error) => self.end_op(id, Err(host_error(error))),
        }
    }

    fn note_header(&mut self, place: Place, slot: PhysicalTrack, fresh: bool) {
        let (Some(at), Some(entry)) = (self.tables.locate(slot), self.tables.entry(place)) else { return };
        let full = self.tables.geometry().full();
        let mask = entry.over.filter(|over| over.track == slot).map_or(full, |over| over.mask);
        if fresh {
            self.headers.born(at, place, generation_of(&self.tables, place.owner), mask);
        } else {
            self.headers.grew(at, mask);
        }
        if entry.over.is_some() {
            self.jobs.overlaid(place.owner);
        }
    }

    fn give_up(&mut self, id: OpId, error: HostError) {
        if let Some(plan) = self.ops.get_mut(&id).and_then(|op| op.plan.take()) {
            self.tables.abandon_write(plan);
        }
        self.end_op(id, Err(error));
    }

    pub(super) fn end_op(&mut self, id: OpId, result: Result<(), HostError>) {
        let Some(op) = self.ops.remove(&id) else { return };
        let granted = self.tracks.finish(id, op.place);
        self.work.extend(granted.into_iter().map(Work::Op));
        match op.leg {
            OpLeg::Undecided => self.op_told(op.parent, result),
            OpLeg::Marking(pair, _) | OpLeg::Entered(pair) => {
                self.tables.end_write(pair, RegionNo::of(op.place.track));
                self.settle_lacked(pair, op.place.track, result);
                self.op_told(op.parent, result);
            }
            OpLeg::Leg(pair, leg) => {
                self.settle_lacked(pair, op.place.track, result);
                self.leg_local(leg, result);
            }
        }
    }

    /// Tells who wanted an operation that it is over.
    pub(super) fn op_told(&mut self, parent: Parent, result: Result<(), HostError>) {
        match parent {
            Parent::Host(request) => self.host_op_done(request, result),
            Parent::Merge => self.jobs.merged(),
            Parent::Move(copy, track) => self.work.push_back(Work::Moved(copy, track, result)),
            Parent::Copy(pair, track, number) => self.copy_sent(pair, track, number, result),
            Parent::Fetch(pair, track) => self.fetch_over(pair, track, result),
            Parent::Peer(served) => self.work.push_back(Work::Served(served, result)),
            Parent::Verify(pair) => self.work.push_back(Work::Compared(pair)),
            Parent::Read(request) => self.read_fetched(request, result),
            Parent::Nobody => {}
        }
    }

    pub(super) fn issue_read(
        &mut self,
        what: IoFor,
        track: PhysicalTrack,
        range: Range<u32>,
        fx: &mut Vec<Effect>,
    ) {
        let (store, offset) = self.address(track, range.start);
        if let Some(io) = self.begin_io(what, store) {
            fx.push(Effect::Read { io, store, offset, length: range.end - range.start });
        }
    }

    /// Names a disk operation; `None`: the store is offline, and the operation will fail by itself.
    pub(super) fn begin_io(&mut self, what: IoFor, store: StoreId) -> Option<IoId> {
        let io = IoId(self.next_number());
        self.io.insert(io, what);
        if self.offline.contains(&store) {
            self.work.push_back(Work::Offline(io));
            return None;
        }
        Some(io)
    }

    fn address(&self, track: PhysicalTrack, within: u32) -> (StoreId, u64) {
        let (store, index) = self.tables.locate(track).expect("an entry names tracks of stores");
        (store, layout_of(&self.tables, store).track_offset(index) + u64::from(within))
    }
}

pub(super) fn layout_of(tables: &Tables, store: StoreId) -> StoreLayout {
    let tracks = tables.store(store).map_or(0, |record| record.tracks);
    StoreLayout::with_tracks(tables.geometry(), tracks)
}

fn put_zeros(pieces: &mut BTreeMap<u32, Bytes>, range: Range<u32>) {
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(ZEROS.len() as u32);
        pieces.insert(at, Bytes::from_static(&ZEROS[..length as usize]));
        at += length;
    }
}

/// Fills what lies behind the end of a device.
fn put_tail(pieces: &mut BTreeMap<u32, Bytes>, range: Range<u32>) {
    if planted(Defect::TailNotZeroed) && !range.is_empty() {
        pieces.insert(range.start, Bytes::from(vec![0xdb; (range.end - range.start) as usize]));
    } else {
        put_zeros(pieces, range);
    }
}

pub(super) fn disk_error(error: DiskError) -> HostError {
    match error {
        DiskError::Failed => HostError::Io,
        DiskError::Full => HostError::NoSpace,
    }
}

fn host_error(error: WriteError) -> HostError {
    match error {
        WriteError::NoSpace(_) => HostError::NoSpace,
        WriteError::Gone => HostError::Gone,
    }
}
