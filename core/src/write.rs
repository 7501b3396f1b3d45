//! Where a write goes, and what the tables say once it is there: the one write path of hosts, jobs and merges.

use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::ids::{Owner, PhysicalTrack, Place, PoolId, UnitSeq};
use crate::mask::BlockMask;
use crate::records::{Change, SessionState};
use crate::tables::Tables;

/// A write between its plan and its landing. It pins the tracks of [`Self::old`], so that what it reads and what its
/// entry will name stay as they are (crash rule 7). Ends in [`Tables::land_write`] or [`Tables::abandon_write`].
#[derive(Debug)]
#[must_use]
pub struct WritePlan {
    place: Place,
    slot: PhysicalTrack,
    blocks: BlockMask,
    carry: BlockMask,
    old: Entry,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The track is ours alone.
    InPlace,
    /// Into a track of its own; `keep`: a session still sees the old entry.
    Fresh { keep: bool },
    /// The rest of an overlay, from its base: no change of content.
    Merge,
    /// All of a track that lies in another pool, into one of its own: no change of content.
    Move,
}

/// Why a write has no place to go, or cannot land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// No physical track of this pool is free.
    NoSpace(PoolId),
    /// The device or session is not there, or takes no writes any more.
    Gone,
}

impl WritePlan {
    /// Which track of which table.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The physical track that takes the blocks.
    pub fn slot(&self) -> PhysicalTrack {
        self.slot
    }

    /// The blocks that are written.
    pub fn blocks(&self) -> BlockMask {
        self.blocks
    }

    /// Blocks of the old, shared overlay that are to be copied to [`Self::slot`] as well: depth stays one.
    pub fn carry(&self) -> BlockMask {
        if planted(Defect::OverlayNotCarried) { BlockMask::EMPTY } else { self.carry }
    }

    /// The entry as it was: where blocks to carry, and the rest of blocks written in part, are read from.
    pub fn old(&self) -> Entry {
        self.old
    }

    /// Whether the entry will change beyond its mask: no other write to the track may be under way.
    pub fn fresh(&self) -> bool {
        matches!(self.kind, Kind::Fresh { .. } | Kind::Move)
    }

    /// Whether a block of [`Self::slot`] already holds the track's present content, so that a part of it can be
    /// written alone.
    pub fn in_place(&self, block: u32) -> bool {
        self.kind == Kind::InPlace && self.old.place_of(block) == Some(self.slot)
    }
}

impl Tables {
    /// Where a write of these blocks (at least one) goes.
    ///
    /// In place if the track is ours alone; otherwise a free physical track takes just these blocks, over the base,
    /// and nothing old is read or copied (F1), but for the blocks of an overlay that is shared.
    pub fn plan_write(&mut self, place: Place, blocks: BlockMask) -> Result<WritePlan, WriteError> {
        if let Owner::Device(id) = place.owner {
            self.take_over(id, place.track);
        }
        let (old, pool, keep, mine) = self.write_situation(place)?;
        if mine
            && let Some(slot) = old.top()
            && self.space.sole(slot, place.owner)
        {
            self.pin_write(place.owner, old);
            return Ok(WritePlan { place, slot, blocks, carry: BlockMask::EMPTY, old, kind: Kind::InPlace });
        }
        let slot = self.space.allocate(pool).ok_or(WriteError::NoSpace(pool))?;
        self.flying.insert(slot);
        self.pin_write(place.owner, old);
        let carry = old.mask().without(blocks);
        Ok(WritePlan { place, slot, blocks, carry, old, kind: Kind::Fresh { keep } })
    }

    /// Whether a write planned now would go in place.
    pub fn writes_in_place(&self, place: Place) -> bool {
        if let Owner::Device(id) = place.owner
            && self.to_come(id, place.track).is_some()
        {
            return false;
        }
        self.write_situation(place).is_ok_and(|(old, _, _, mine)| {
            mine && old.top().is_some_and(|slot| self.space.sole(slot, place.owner))
        })
    }

    /// Fills a standard device's overlay from its base, if the overlay is the entry's alone: the plan's blocks are
    /// those to copy. `None`: there is nothing to merge, or not now.
    pub fn plan_merge(&mut self, place: Place) -> Option<WritePlan> {
        let Owner::Device(id) = place.owner else { return None };
        let old = self.devices.get(&id)?.table.entry(place.track);
        let over = old.over?;
        if !self.space.sole(over.track, place.owner) {
            return None;
        }
        self.pin_write(place.owner, old);
        let blocks = self.geometry.full().without(over.mask);
        Some(WritePlan { place, slot: over.track, blocks, carry: BlockMask::EMPTY, old, kind: Kind::Merge })
    }

    /// A track of a standard device that lies in another pool, to be copied into one of its own: the plan's blocks are those to
    /// copy. `None`: it does not. The track must be the operation's alone. If it is still to come by a later copy, its entry is
    /// taken over first: else that could come while it is moved, and what is moved would go over it.
    pub fn plan_relocate(&mut self, place: Place) -> Result<Option<WritePlan>, WriteError> {
        let Owner::Device(id) = place.owner else { return Ok(None) };
        if !planted(Defect::MoveUntaken) {
            self.take_over(id, place.track);
        }
        let Some((old, pool)) = self.devices.get(&id).map(|it| (it.table.entry(place.track), it.pool()))
        else {
            return Err(WriteError::Gone);
        };
        let Some(pool) = pool.filter(|pool| self.is_foreign(old, *pool)) else { return Ok(None) };
        let slot = self.space.allocate(pool).ok_or(WriteError::NoSpace(pool))?;
        self.flying.insert(slot);
        self.pin_write(place.owner, old);
        let blocks = self.geometry.full();
        if planted(Defect::MoveUnlanded) {
            self.put(vec![self.entry_change(place, Entry::whole(slot))], &[]);
        }
        Ok(Some(WritePlan { place, slot, blocks, carry: BlockMask::EMPTY, old, kind: Kind::Move }))
    }

    /// The disk has the blocks: the tables say so. The unit, if anything but content changed.
    pub fn land_write(&mut self, plan: WritePlan) -> Result<Option<UnitSeq>, WriteError> {
        let landed = self.install(&plan);
        self.end_plan(&plan);
        landed
    }

    /// The write failed or was given up: the tables stay as they are. What was written in place may be there or not.
    pub fn abandon_write(&mut self, plan: WritePlan) {
        self.end_plan(&plan);
    }

    /// Makes a whole track zeros that take no space (trim). `None`: it is so already. No write to the track may be
    /// under way.
    pub fn clear(&mut self, place: Place) -> Result<Option<UnitSeq>, WriteError> {
        if let Owner::Device(id) = place.owner {
            self.take_over(id, place.track);
        }
        let (old, _, keep, _) = self.write_situation(place)?;
        if old.is_zeros() {
            return Ok(None);
        }
        let changes = self.replace(place, old, Entry::ZEROS, keep);
        Ok(Some(self.put(changes, &[])))
    }

    /// The present entry; the pool; whether a session still needs it kept; whether it is this owner's to change.
    fn write_situation(&self, place: Place) -> Result<(Entry, PoolId, bool, bool), WriteError> {
        match place.owner {
            Owner::Device(id) => {
                let device = self.devices.get(&id).ok_or(WriteError::Gone)?;
                let pool = device.pool().filter(|_| !device.record.is_deleting()).ok_or(WriteError::Gone)?;
                let keep = device.protects(self.geometry, place.track) && !planted(Defect::OldTrackNotKept);
                // What is equal in a pair goes elsewhere, so that one unit says where, and that it is equal no more.
                let mine = !keep && !self.is_equal_in_a_pair(id, place.track);
                Ok((device.table.entry(place.track), pool, keep, mine))
            }
            Owner::Session(id) => {
                let session = self.sessions.get(&id).ok_or(WriteError::Gone)?;
                // What a pinned one shows stays what it was.
                let active = matches!(session.record.state, SessionState::Active { .. });
                if !active || session.record.pinned.is_some() {
                    return Err(WriteError::Gone);
                }
                let standard = self.devices.get(&session.record.standard).ok_or(WriteError::Gone)?;
                let pool = standard.pool().ok_or(WriteError::Gone)?;
                let entry = self.entry(place).ok_or(WriteError::Gone)?;
                Ok((entry, pool, false, session.own.contains_key(&place.track)))
            }
        }
    }

    fn install(&mut self, plan: &WritePlan) -> Result<Option<UnitSeq>, WriteError> {
        let (present, _, still_seen, _) = self.write_situation(plan.place)?;
        let full = self.geometry.full();
        let mut blocks = plan.blocks;
        if planted(Defect::MaskBitTooMany)
            && let Some(run) = blocks.runs().last()
        {
            blocks = blocks | (BlockMask::range(run.end, run.end + 1) & full);
        }
        let (new, keep) = match plan.kind {
            Kind::Fresh { keep } => {
                let mask = blocks | plan.carry;
                (Entry::layered(plan.old.base, plan.slot, mask, full), keep && still_seen)
            }
            Kind::Move => (Entry::whole(plan.slot), false),
            // Others may have landed beside it: the mask grows from what it is now.
            Kind::InPlace | Kind::Merge => match present.over {
                Some(over) if over.track == plan.slot => {
                    (Entry::layered(present.base, over.track, over.mask | blocks, full), false)
                }
                _ => (present, false),
            },
        };
        let changes = if matches!(plan.kind, Kind::Merge | Kind::Move) {
            // No change of content: sessions that see the standard track go on seeing it, the stamp stays.
            vec![self.entry_change(plan.place, new)]
        } else {
            self.replace(plan.place, present, new, keep)
        };
        if new == present && !keep {
            return Ok(None);
        }
        Ok(Some(self.put(changes, &[])))
    }

    /// The changes that put `new` in the place of `old`, keeping that for the sessions that see it; stamps the track.
    pub(crate) fn replace(&mut self, place: Place, old: Entry, new: Entry, keep: bool) -> Vec<Change> {
        let mut changes = Vec::with_capacity(2);
        if let Owner::Device(id) = place.owner
            && let Some(device) = self.devices.get_mut(&id)
        {
            let mut upto = device.record.generation();
            if !device.live.is_empty() {
                device.table.set_stamp(place.track, upto);
            }
            if keep {
                if planted(Defect::VersionOffByOne) {
                    upto.0 -= 1;
                }
                changes.push(Change::Version(id, place.track, upto, Some(old)));
            }
        }
        changes.push(self.entry_change(place, new));
        if let Owner::Device(id) = place.owner {
            changes.extend(self.unequal_changes(id, place.track, None));
        }
        changes
    }

    fn entry_change(&self, place: Place, entry: Entry) -> Change {
        match place.owner {
            Owner::Device(id) => Change::Entry(id, place.track, entry),
            Owner::Session(id) => Change::Own(id, place.track, Some(entry)),
        }
    }

    fn pin_write(&mut self, owner: Owner, old: Entry) {
        if !planted(Defect::WriteUnpinned) {
            old.tracks().for_each(|track| self.space.pin(track, owner));
        }
    }

    fn end_plan(&mut self, plan: &WritePlan) {
        if !planted(Defect::WriteUnpinned) {
            plan.old.tracks().for_each(|track| self.space.unpin(track, plan.place.owner));
        }
        if plan.fresh() {
            self.flying.remove(&plan.slot);
            self.space.release(plan.slot);
        }
    }
}
