//! Units and their log (crash rule 2): what changed in memory and is not yet committed, in the order it was made.
//!
//! A unit is everything that one write or one command changes. A commit carries a prefix of the log, and only units
//! that a sync has covered: one begun after the unit was made, so after its blocks were written.

use std::collections::VecDeque;

use crate::defect::{Defect, planted};
use crate::ids::{DeviceId, Generation, PhysicalTrack, UnitSeq};
use crate::records::Change;

/// Units that are not durable, and what counts until they are.
#[derive(Debug)]
pub(crate) struct UnitLog {
    units: VecDeque<(UnitSeq, Vec<Change>)>,
    last: UnitSeq,
    committed: UnitSeq,
    /// References dropped by a unit (crash rule 3), in the order of the units.
    owed: VecDeque<(UnitSeq, PhysicalTrack)>,
    /// Activations whose protection a unit ended (crash rule 3a), in the order of the units.
    lapsed: VecDeque<(UnitSeq, DeviceId, Generation)>,
    /// A planted defect's: the unit that was left out.
    left_out: Vec<Change>,
}

impl Default for UnitLog {
    fn default() -> Self {
        Self {
            units: VecDeque::new(),
            last: UnitSeq::ZERO,
            committed: UnitSeq::ZERO,
            owed: VecDeque::new(),
            lapsed: VecDeque::new(),
            left_out: Vec::new(),
        }
    }
}

impl UnitLog {
    /// The number that the next unit gets.
    pub(crate) fn next(&self) -> UnitSeq {
        self.last.next()
    }

    pub(crate) fn push(&mut self, changes: Vec<Change>) -> UnitSeq {
        if planted(Defect::UnitTorn) && changes.len() > 1 {
            let mut first = changes;
            let second = first.split_off(first.len().div_ceil(2));
            self.last = self.last.next();
            self.units.push_back((self.last, first));
            self.last = self.last.next();
            self.units.push_back((self.last, second));
            return self.last;
        }
        self.last = self.last.next();
        self.units.push_back((self.last, changes));
        self.last
    }

    pub(crate) fn owe(&mut self, unit: UnitSeq, track: PhysicalTrack) {
        self.owed.push_back((unit, track));
    }

    pub(crate) fn lapse(&mut self, unit: UnitSeq, device: DeviceId, activated: Generation) {
        self.lapsed.push_back((unit, device, activated));
    }

    /// The last unit made.
    pub(crate) fn last(&self) -> UnitSeq {
        self.last
    }

    /// Every unit up to this one is durable.
    pub(crate) fn committed(&self) -> UnitSeq {
        self.committed
    }

    /// Units not yet handed to a commit.
    pub(crate) fn waiting(&self) -> usize {
        self.units.len()
    }

    /// The last unit of the log, up to `upto`, with which the changes before it and its own are not more than `most`; the
    /// first one in any case.
    pub(crate) fn last_fitting(&self, upto: UnitSeq, most: usize) -> UnitSeq {
        let mut changes = 0;
        let units = self.units.iter().take_while(|(seq, _)| *seq <= upto).enumerate();
        let fitting = units.take_while(|(at, (_, unit))| {
            changes += unit.len();
            *at == 0 || changes <= most
        });
        fitting.last().map_or(upto, |(_, (seq, _))| *seq)
    }

    /// Takes the changes of all units up to `upto` out of the log, in order.
    pub(crate) fn take(&mut self, upto: UnitSeq) -> Vec<Change> {
        let mut changes = Vec::new();
        let oldest = self.units.front().map(|(seq, _)| *seq);
        while let Some((seq, _)) = self.units.front()
            && *seq <= upto
        {
            let (seq, unit) = self.units.pop_front().expect("just seen");
            if planted(Defect::CommitOutOfOrder) && Some(seq) == oldest && seq < upto {
                changes.append(&mut self.left_out);
                self.left_out = unit;
            } else {
                changes.extend(unit);
            }
        }
        changes
    }

    /// The units up to `upto` are durable: the references and activations that no longer count.
    pub(crate) fn settle(&mut self, upto: UnitSeq) -> (Vec<PhysicalTrack>, Vec<(DeviceId, Generation)>) {
        self.committed = self.committed.max(upto);
        let due = self.owed.partition_point(|(seq, _)| *seq <= upto);
        let tracks = self.owed.drain(..due).map(|(_, track)| track).collect();
        let due = self.lapsed.partition_point(|(seq, ..)| *seq <= upto);
        let lapsed = self.lapsed.drain(..due).map(|(_, device, activated)| (device, activated)).collect();
        (tracks, lapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_carries_what_fits_and_at_least_one_unit() {
        let mut log = UnitLog::default();
        for changes in [3, 1, 2, 9, 1] {
            log.push(vec![Change::NextId(1); changes]);
        }
        let fitting = |log: &UnitLog, upto, most| log.last_fitting(UnitSeq(upto), most).0;
        let upto_5: Vec<_> = [0, 3, 4, 5, 6, 14, 15, 99].map(|most| fitting(&log, 5, most)).into();
        assert_eq!(upto_5, [1, 1, 2, 2, 3, 3, 4, 5]);
        assert_eq!((fitting(&log, 2, 99), fitting(&log, 1, 99)), (2, 1));
        log.take(UnitSeq(3));
        assert_eq!((fitting(&log, 5, 1), fitting(&log, 5, 10)), (4, 5));
        log.take(UnitSeq(5));
        assert_eq!(fitting(&log, 5, 10), 5, "there is none");
    }
}
