//! Which tracks writes are under way to, who waits for them, and the gate that a point in time closes (crash rule 7).
//!
//! Reads take no part: they pin what they read. Writes in place of different blocks of a track go side by side; a
//! write that gives the track another entry, a trim and a merge have it to themselves. What conflicts goes in the
//! order in which it came.

use std::collections::{BTreeMap, VecDeque};

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{BlockMask, Owner, Place};

use super::io::OpId;

/// What an operation needs of its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// These blocks, written in place.
    Blocks(BlockMask),
    /// The track.
    Whole,
}

impl Access {
    fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Blocks(a), Self::Blocks(b)) => a.overlaps(b) && !planted(Defect::OverlapUnordered),
            _ => true,
        }
    }
}

/// The busy tracks.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    busy: BTreeMap<Place, Busy>,
    /// Operations let in and not finished, by owner.
    inside: BTreeMap<Owner, u32>,
    gates: BTreeMap<Owner, Gate>,
}

/// A gate that is closed.
#[derive(Debug, Default)]
struct Gate {
    /// How often: it opens when as many have opened it.
    closed: u32,
    /// Operations that came since.
    waiting: VecDeque<(OpId, Place, Access)>,
}

#[derive(Debug, Default)]
struct Busy {
    holders: Vec<(OpId, Access)>,
    waiting: VecDeque<(OpId, Access)>,
}

impl Tracks {
    /// An operation comes. `true`: it may go; otherwise a later call returns it.
    pub(super) fn admit(&mut self, op: OpId, place: Place, access: Access) -> bool {
        if let Some(gate) = self.gates.get_mut(&place.owner) {
            gate.waiting.push_back((op, place, access));
            return false;
        }
        self.enter(op, place, access)
    }

    /// Whether an operation that may go has its track to itself.
    pub(super) fn has_whole(&self, op: OpId, place: Place) -> bool {
        self.busy.get(&place).is_some_and(|busy| busy.holders.contains(&(op, Access::Whole)))
    }

    /// An operation that may go turns out to need the whole track. `true`: it has it; otherwise it has lost what it
    /// had, and is the next to get it all.
    pub(super) fn upgrade(&mut self, op: OpId, place: Place) -> bool {
        let busy = self.busy.get_mut(&place).expect("an operation that may go holds its track");
        busy.holders.retain(|(holder, _)| *holder != op);
        if busy.holders.is_empty() {
            busy.holders.push((op, Access::Whole));
            return true;
        }
        busy.waiting.push_front((op, Access::Whole));
        false
    }

    /// An operation that has the whole track needs less of it. Who may go now.
    pub(super) fn downgrade(&mut self, op: OpId, place: Place, blocks: BlockMask) -> Vec<OpId> {
        let busy = self.busy.get_mut(&place).expect("an operation that may go holds its track");
        if let Some((_, access)) = busy.holders.iter_mut().find(|(holder, _)| *holder == op) {
            *access = Access::Blocks(blocks);
        }
        busy.grant()
    }

    /// An operation is over. Who may go now.
    pub(super) fn finish(&mut self, op: OpId, place: Place) -> Vec<OpId> {
        let busy = self.busy.get_mut(&place).expect("an operation that may go holds its track");
        busy.holders.retain(|(holder, _)| *holder != op);
        let granted = busy.grant();
        if busy.holders.is_empty() && busy.waiting.is_empty() {
            self.busy.remove(&place);
        }
        if let Some(inside) = self.inside.get_mut(&place.owner) {
            *inside -= 1;
            if *inside == 0 {
                self.inside.remove(&place.owner);
            }
        }
        granted
    }

    /// Operations of this owner that come from now on wait until [`Self::open`], as often as this.
    pub(super) fn close(&mut self, owner: Owner) {
        self.gates.entry(owner).or_default().closed += 1;
    }

    /// Whether nothing of this owner is under way.
    pub(super) fn is_drained(&self, owner: Owner) -> bool {
        !self.inside.contains_key(&owner) || planted(Defect::ActivateUndrained)
    }

    /// Lets go what waited. Who may go now.
    pub(super) fn open(&mut self, owner: Owner) -> Vec<OpId> {
        let Some(gate) = self.gates.get_mut(&owner) else { return Vec::new() };
        gate.closed -= 1;
        if gate.closed > 0 {
            return Vec::new();
        }
        let waiting = self.gates.remove(&owner).unwrap_or_default().waiting;
        waiting
            .into_iter()
            .filter(|(op, place, access)| self.enter(*op, *place, *access))
            .map(|(op, ..)| op)
            .collect()
    }

    fn enter(&mut self, op: OpId, place: Place, access: Access) -> bool {
        *self.inside.entry(place.owner).or_insert(0) += 1;
        let busy = self.busy.entry(place).or_default();
        busy.waiting.push_back((op, access));
        busy.grant().contains(&op)
    }
}

impl Busy {
    /// Lets in, in order, who conflicts with no holder and with nobody who waits before him.
    fn grant(&mut self) -> Vec<OpId> {
        let (mut granted, mut still) = (Vec::new(), VecDeque::new());
        for (op, access) in std::mem::take(&mut self.waiting) {
            let before = self.holders.iter().chain(&still);
            if before.into_iter().any(|(_, other): &(OpId, Access)| access.conflicts(*other)) {
                still.push_back((op, access));
            } else {
                self.holders.push((op, access));
                granted.push(op);
            }
        }
        self.waiting = still;
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twintrack_core::{DeviceId, TrackNo};

    const OWNER: Owner = Owner::Device(DeviceId(1));
    const PLACE: Place = Place { owner: OWNER, track: TrackNo(0) };

    fn blocks(from: u32, to: u32) -> Access {
        Access::Blocks(BlockMask::range(from, to))
    }

    #[test]
    fn disjoint_blocks_go_side_by_side_and_order_is_kept() {
        let mut tracks = Tracks::default();
        assert!(tracks.admit(OpId(1), PLACE, blocks(0, 2)));
        assert!(tracks.admit(OpId(2), PLACE, blocks(2, 4)));
        assert!(!tracks.admit(OpId(3), PLACE, blocks(1, 3)));
        // Free of conflict with the holders, but not with who waits before.
        assert!(!tracks.admit(OpId(4), PLACE, Access::Whole));
        assert!(!tracks.admit(OpId(5), PLACE, blocks(9, 10)));
        assert_eq!(tracks.finish(OpId(1), PLACE), []);
        assert_eq!(tracks.finish(OpId(2), PLACE), [OpId(3)]);
        assert_eq!(tracks.finish(OpId(3), PLACE), [OpId(4)]);
        assert_eq!(tracks.downgrade(OpId(4), PLACE, BlockMask::range(0, 1)), [OpId(5)]);
    }

    #[test]
    fn an_upgrade_goes_first() {
        let mut tracks = Tracks::default();
        assert!(tracks.admit(OpId(1), PLACE, blocks(0, 1)));
        assert!(tracks.admit(OpId(2), PLACE, blocks(1, 2)));
        assert!(!tracks.admit(OpId(3), PLACE, blocks(0, 1)));
        assert!(!tracks.upgrade(OpId(1), PLACE));
        assert_eq!(tracks.finish(OpId(2), PLACE), [OpId(1)]);
        assert_eq!(tracks.finish(OpId(1), PLACE), [OpId(3)]);
    }

    /// Fig. 19A: new writes are held, those in flight land, then all go on.
    #[test]
    fn a_gate_drains() {
        let mut tracks = Tracks::default();
        assert!(tracks.admit(OpId(1), PLACE, blocks(0, 1)));
        assert!(!tracks.admit(OpId(2), PLACE, blocks(0, 1)));
        tracks.close(OWNER);
        assert!(!tracks.admit(OpId(3), PLACE, blocks(5, 6)));
        assert_eq!(tracks.finish(OpId(1), PLACE), [OpId(2)]);
        assert!(!tracks.is_drained(OWNER));
        tracks.finish(OpId(2), PLACE);
        assert!(tracks.is_drained(OWNER));
        tracks.close(OWNER);
        assert_eq!(tracks.open(OWNER), []);
        assert_eq!(tracks.open(OWNER), [OpId(3)]);
        assert!(!tracks.is_drained(OWNER));
    }
}
