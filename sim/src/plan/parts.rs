//! Virtual devices of parts of standard devices (D19): made again and again, while hosts use them and what they are of.

use std::collections::BTreeSet;

use super::build::Draft;
use super::{Act, Fault, LocalAct, Op, PartSpec, RestoreItem, Scenario, Task};
use crate::dice::Dice;
use crate::disk::Survival;

/// How many plans have some, per mille.
const PLANS: u32 = 300;
const SECTOR: u64 = 512;

/// A virtual device of parts, and who uses it.
struct Shown<'a> {
    name: String,
    track_bytes: u64,
    devices: &'a [(String, u64)],
    /// Parts are put back (D10, D19).
    restores: bool,
    dice: &'a mut Dice,
}

/// Adds a task for each of one or two such virtual devices, of dice of their own, to plans that leave them room.
pub(super) fn add(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "parts");
    let without = matches!(draft.scenario, None | Some(Scenario::Io));
    if without || draft.temper.is_course() || !dice.chance(PLANS) {
        return;
    }
    // Secondaries of pairs have tasks of their own.
    let devices: Vec<_> = draft.standard.iter().filter(|(name, _)| !name.starts_with('c')).cloned().collect();
    for n in 0..dice.between(1, 2) {
        let name = format!("p{n}");
        let (host, depth) = (dice.below(2) as u8, *dice.pick(&[1, 4]));
        let mut shown = Shown {
            name: name.clone(),
            track_bytes: draft.track_bytes,
            devices: &devices,
            restores: draft.scenario == Some(Scenario::Local),
            dice: &mut dice,
        };
        let ops = shown.rounds(draft.horizon_ms);
        draft.faults.extend(shown.cut(&ops).map(Into::into));
        draft.virtuals.push(name);
        draft.tasks.push(Task { host, depth, ops });
    }
}

impl Shown<'_> {
    fn rounds(&mut self, horizon_ms: u64) -> Vec<Op> {
        let (count, mut ops) = (self.dice.between(2, 5), Vec::new());
        let pause_ms = horizon_ms / (count * 8) + 1;
        for round in 0..count {
            let parts = self.parts(round);
            let size = parts.iter().map(|part| u64::from(part.last - part.first) + 1).sum::<u64>()
                * self.track_bytes;
            let shown_by = self.name.clone();
            let establish = Act::EstablishParts { shown_by, parts: parts.clone() };
            ops.push(Op { after_ms: self.dice.below(pause_ms * 3), ..Op::now(establish) });
            for _ in 0..self.dice.between(4, 16) {
                let act = if self.dice.chance(400) { self.write_below(&parts) } else { self.use_it(size) };
                let after_ms = if self.dice.chance(600) { 0 } else { self.dice.below(pause_ms) };
                ops.push(Op { after_ms, ..Op::now(act) });
            }
            if self.dice.chance(400) {
                let session = self.dice.pick(&parts).session.clone();
                ops.push(Op::now(match self.dice.below(3) {
                    0 => Act::Changed { session },
                    1 => Act::Deactivate { session },
                    _ => Act::ReadTracks { session },
                }));
                let session = self.dice.pick(&parts).session.clone();
                ops.push(Op::now(Act::ReadTracks { session }));
            }
            // All of it, over the ends of parts.
            let length = (size / 2).min(1 << 20) as u32;
            for offset in [0, u64::from(length)] {
                ops.push(Op::now(Act::Read { device: self.name.clone(), offset, length }));
            }
            let mut left = parts;
            if self.restores && self.dice.chance(400) {
                let items = self.restore(round, &left);
                left.retain(|part| items.iter().all(|item| item.keep || item.session != part.session));
                ops.push(Op::now(Act::Local(LocalAct::Restore { items })));
            }
            if round + 1 < count || self.dice.chance(500) {
                self.remove(&left, &mut ops);
            }
        }
        ops
    }

    /// The power goes about a commit of one of its commands: all parts begin together, or none does.
    fn cut(&mut self, ops: &[Op]) -> Option<Fault> {
        let titles: Vec<_> = ops.iter().filter_map(|op| op.act.title()).collect();
        let survival = *self.dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
        let (after_ops, down_ms) = (self.dice.below(60), self.dice.between(1, 20));
        let command = self.dice.pick(&titles).clone();
        self.dice.chance(300).then_some(Fault::CommitCut { command, after_ops, down_ms, survival })
    }

    /// Tracks of some devices. Only what comes last may end within a track.
    fn parts(&mut self, round: u64) -> Vec<PartSpec> {
        let mut parts = Vec::new();
        let count = *self.dice.pick(&[1, 2, 2, 3, 5]);
        for n in 0..count {
            let (device, size) = self.dice.pick(self.devices).clone();
            let tracks =
                if n + 1 == count { size.div_ceil(self.track_bytes) } else { size / self.track_bytes };
            let Some(most) = tracks.checked_sub(1) else { continue };
            let first = self.dice.below(tracks) as u32;
            let last = self.dice.between(u64::from(first), most.min(u64::from(first) + 4)) as u32;
            parts.push(PartSpec { session: format!("{}.{round}.{n}", self.name), device, first, last });
        }
        parts
    }

    /// Some of the parts are put back to their devices, of each device one; what is used up nobody has to remove.
    fn restore(&mut self, round: u64, parts: &[PartSpec]) -> Vec<RestoreItem> {
        let mut items: Vec<RestoreItem> = Vec::new();
        let mut devices = BTreeSet::new();
        for part in parts.iter().filter(|part| devices.insert(&part.device)) {
            if !items.is_empty() && self.dice.chance(500) {
                continue;
            }
            let keep = self.dice.chance(500);
            let makes =
                (keep || self.dice.chance(700)).then(|| format!("{}.{round}.b{}", self.name, items.len()));
            items.push(RestoreItem { keep, makes, ..RestoreItem::of(&part.session) });
        }
        items
    }

    /// Something at a standard device, where a part is of: the parts keep what is there.
    fn write_below(&mut self, parts: &[PartSpec]) -> Act {
        let PartSpec { device, first, last, .. } = self.dice.pick(parts).clone();
        let track = self.dice.between(u64::from(first), u64::from(last));
        let at = self.dice.below(self.track_bytes / SECTOR) * SECTOR;
        let length = (self.dice.between(1, 16) * SECTOR).min(self.track_bytes - at) as u32;
        Act::Write { device, offset: track * self.track_bytes + at, length, fua: false }
    }

    /// Something at the virtual device.
    fn use_it(&mut self, size: u64) -> Act {
        let device = self.name.clone();
        let offset = if self.dice.chance(400) {
            // Often over the end of a track, which may be that of a part.
            let edge = self.dice.between(1, (size / self.track_bytes).max(1)) * self.track_bytes;
            edge - self.dice.between(1, 8) * SECTOR
        } else {
            self.dice.below(size / SECTOR) * SECTOR
        };
        let length = (self.dice.between(1, 24) * SECTOR) as u32;
        let track = (offset / self.track_bytes * self.track_bytes, self.track_bytes as u32);
        match self.dice.below(20) {
            0..8 => Act::Read { device, offset, length },
            8..15 => Act::Write { device, offset, length, fua: false },
            15 => Act::Flush { device },
            16 => Act::Trim { device, offset: track.0, length: track.1, fua: false },
            17 => Act::Zero { device, offset, length, no_hole: false, fua: false },
            _ => Act::Status { device, offset: 0, length: size.min(1 << 20) as u32 },
        }
    }

    /// One after the other. Hosts try it when some are gone.
    fn remove(&mut self, parts: &[PartSpec], ops: &mut Vec<Op>) {
        let mut left: Vec<_> = parts.iter().map(|part| part.session.clone()).collect();
        while !left.is_empty() {
            let at = self.dice.below(left.len() as u64) as usize;
            ops.push(Op::now(Act::Remove { session: left.swap_remove(at) }));
            if self.dice.chance(300) {
                let device = self.name.clone();
                ops.push(Op::now(Act::Read { device, offset: 0, length: SECTOR as u32 }));
            }
        }
    }
}
