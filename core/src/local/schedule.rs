//! Copies at a time and every period, to one secondary after the other (C8): they form a history of the primary.
//!
//! A run is one unit: the copy begins, and the schedule says when the next one is due. So none is made twice, and what a time out
//! of service has missed is made up for once.

use super::{CopyStatus, PairCommand};
use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::ids::{CopyId, DeviceId, ScheduleId, UnitSeq};
use crate::records::Change;
use crate::tables::Tables;

/// Schedules of an array.
pub const SCHEDULES_MAX: usize = 1024;
/// Between two runs at least, ms: each takes numbers that are never given out again.
pub const PERIOD_MS_MIN: u64 = 1000;
/// Secondaries of a schedule.
pub const SECONDARIES_MAX: usize = 64;

/// When a primary is copied, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// What is copied.
    pub primary: DeviceId,
    /// Its secondaries, each of a pair, by turns.
    pub secondaries: Vec<DeviceId>,
    /// Wall time of the next run in ms since 1970.
    pub next_ms: u64,
    /// Between two runs; `None`: there is one.
    pub every_ms: Option<u64>,
    /// Whose turn it is.
    pub turn: u32,
}

impl ScheduleRecord {
    /// The secondary whose turn it is.
    pub fn secondary(&self) -> Option<DeviceId> {
        self.secondaries.get(self.turn as usize).copied()
    }

    /// After a run at a time; `None`: there is no other.
    fn after(mut self, wall_ms: u64) -> Option<Self> {
        let every_ms = self.every_ms?;
        let missed =
            if planted(Defect::MissedMadeEach) { 0 } else { wall_ms.saturating_sub(self.next_ms) / every_ms };
        self.next_ms = self.next_ms.saturating_add(every_ms.saturating_mul(missed.saturating_add(1)));
        if !planted(Defect::TurnKept) {
            self.turn = (self.turn + 1) % (self.secondaries.len().max(1) as u32);
        }
        Some(self)
    }
}

impl Tables {
    /// The schedules, by number.
    pub fn schedules(&self) -> impl Iterator<Item = (ScheduleId, &ScheduleRecord)> {
        self.schedules.iter().map(|(id, record)| (*id, record))
    }

    /// A new schedule. Each secondary is that of a pair with the primary.
    pub fn add_schedule(
        &mut self,
        primary: DeviceId,
        secondaries: Vec<DeviceId>,
        next_ms: u64,
        every_ms: Option<u64>,
    ) -> Result<(ScheduleId, UnitSeq), CommandError> {
        if secondaries.is_empty() || every_ms.is_some_and(|every_ms| every_ms < PERIOD_MS_MIN) {
            return Err(CommandError::Schedule);
        }
        if secondaries.len() > SECONDARIES_MAX {
            let what = "the number of secondaries of a schedule".into();
            return Err(CommandError::Limit { what, most: SECONDARIES_MAX });
        }
        for secondary in &secondaries {
            self.scheduled_pair(primary, *secondary)?;
        }
        if self.schedules.len() >= SCHEDULES_MAX {
            return Err(CommandError::Limit { what: "the number of schedules".into(), most: SCHEDULES_MAX });
        }
        let (number, next) = self.take_id()?;
        let id = ScheduleId(number);
        let record = ScheduleRecord { primary, secondaries, next_ms, every_ms, turn: 0 };
        Ok((id, self.put(vec![next, Change::Schedule(id, Some(record))], &[])))
    }

    /// Ends a schedule; its pairs stay.
    pub fn remove_schedule(&mut self, id: ScheduleId) -> Result<UnitSeq, CommandError> {
        if !self.schedules.contains_key(&id) {
            return Err(CommandError::NoSchedule { schedule: id });
        }
        Ok(self.put(vec![Change::Schedule(id, None)], &[]))
    }

    /// Whether a run could begin now, and the devices to which no write may be under way then. Refused while the last copy to the
    /// same secondary is in progress, or a copy from another array into the primary is, or if the pair has ended.
    pub fn check_run(&self, id: ScheduleId) -> Result<Vec<DeviceId>, CommandError> {
        let pair = self.pair_of_run(id)?;
        let record = self.known_local_pair(pair)?;
        if record.status == CopyStatus::Copying {
            let (state, verb) = (record.status, PairCommand::Copy);
            return Err(CommandError::CopyState { copy: pair, state, verb });
        }
        let devices = [record.primary, record.secondary];
        devices.iter().try_for_each(|device| self.check_filled(*device))?;
        self.check_whole_half(record.primary)?;
        Ok(devices.into())
    }

    /// A run: the secondary whose turn it is becomes the primary as it is at this instant, re-synchronized before if it was
    /// copied. No write to the two devices may be under way.
    pub fn run_schedule(&mut self, id: ScheduleId, wall_ms: u64) -> Result<UnitSeq, CommandError> {
        self.check_run(id)?;
        let pair = self.pair_of_run(id)?;
        let record = self.schedules.get(&id).cloned();
        let next = match record {
            Some(record) if planted(Defect::RunRepeated) => {
                Some(ScheduleRecord { next_ms: wall_ms + 40, ..record })
            }
            record => record.and_then(|record| record.after(wall_ms)),
        };
        let mut changes = self.copy_changes(pair, PairCommand::Copy, false, wall_ms)?;
        changes.push(Change::Schedule(id, next));
        Ok(self.put(changes, &[]))
    }

    /// A run that cannot be made is passed over: it is the next one's turn.
    pub fn pass_run(&mut self, id: ScheduleId, wall_ms: u64) -> Option<UnitSeq> {
        let next = self.schedules.get(&id)?.clone().after(wall_ms);
        Some(self.put(vec![Change::Schedule(id, next)], &[]))
    }

    fn pair_of_run(&self, id: ScheduleId) -> Result<CopyId, CommandError> {
        let record = self.schedules.get(&id).ok_or(CommandError::NoSchedule { schedule: id })?;
        let secondary = record.secondary().ok_or(CommandError::NoSchedule { schedule: id })?;
        self.scheduled_pair(record.primary, secondary)
    }

    fn scheduled_pair(&self, primary: DeviceId, secondary: DeviceId) -> Result<CopyId, CommandError> {
        let name = |id| self.device(id).map_or_else(String::new, |device| device.name.clone());
        self.local_pair(primary, secondary)
            .ok_or_else(|| CommandError::NotPaired { primary: name(primary), secondary: name(secondary) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C8: what was missed is made up for once, and the times stay those of the schedule.
    #[test]
    fn missed_runs_are_made_up_for_once() {
        let record = ScheduleRecord {
            primary: DeviceId(1),
            secondaries: vec![DeviceId(2), DeviceId(3)],
            next_ms: 1_000,
            every_ms: Some(100),
            turn: 1,
        };
        let next = |wall_ms| record.clone().after(wall_ms).map(|next| (next.next_ms, next.turn));
        assert_eq!([next(1_000), next(1_099)], [Some((1_100, 0)); 2]);
        assert_eq!(next(1_730), Some((1_800, 0)));
        assert_eq!(ScheduleRecord { every_ms: None, ..record }.after(1_000), None);
    }
}
