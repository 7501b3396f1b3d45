//! Copies by the clock (C8). A schedule that is due asks for its copy like a person would, and waits for the writes in flight
//! with all others; what cannot be copied now is tried again, and what has no pair any more is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{CommandError, ScheduleId, ScheduleRecord};
use twintrack_link::manage::{Answer, ScheduleInfo};

use super::Firmware;
use super::points::{Caller, Point, What};

/// Between two attempts at a copy that cannot begin.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the schedules wait for.
#[derive(Debug)]
pub(super) struct Schedules {
    /// When the next one is due, or this is to be looked at again.
    due: Option<Duration>,
    /// Those that have asked for a copy.
    asked: BTreeSet<ScheduleId>,
    /// Why the last attempt of one failed, and when it is made again.
    troubles: BTreeMap<ScheduleId, (String, Duration)>,
}

impl Default for Schedules {
    /// All are to be looked at.
    fn default() -> Self {
        Self { due: Some(Duration::ZERO), asked: BTreeSet::new(), troubles: BTreeMap::new() }
    }
}

impl Schedules {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }
}

impl Firmware {
    /// A command may have changed a schedule, and tells the wall time anew.
    pub(super) fn look_at_schedules(&mut self) {
        if self.tables.schedules().next().is_none() || self.durability.is_broken() {
            self.schedules.due = None;
            return;
        }
        let due = |(id, record): (ScheduleId, &ScheduleRecord)| {
            if self.schedules.asked.contains(&id) {
                return None;
            }
            let at = self.due_at(record)?;
            let again = self.schedules.troubles.get(&id).map_or(Duration::ZERO, |(_, again)| *again);
            Some(at.max(again))
        };
        self.schedules.due = self.tables.schedules().filter_map(due).min();
    }

    pub(super) fn schedules_timer(&mut self) {
        if self.schedules.due.is_none_or(|due| due > self.now) {
            return;
        }
        let wall_ms = self.wall_ms();
        let due = |(id, record): &(ScheduleId, &ScheduleRecord)| {
            let again = self.schedules.troubles.get(id).is_some_and(|(_, again)| *again > self.now);
            !again
                && !self.schedules.asked.contains(id)
                && self.due_at(record).is_some_and(|at| at <= self.now)
        };
        let due: Vec<_> = self.tables.schedules().filter(due).map(|(id, _)| id).collect();
        for id in due {
            self.schedules.asked.insert(id);
            self.start_point(Point { caller: Caller::Nobody, wall_ms, what: What::Run(id) });
        }
        self.look_at_schedules();
    }

    /// A schedule's copy has begun, or could not.
    pub(super) fn run_over(&mut self, id: ScheduleId, result: &Result<(), CommandError>) {
        self.schedules.asked.remove(&id);
        self.schedules.troubles.remove(&id);
        if let Err(error) = result {
            if matches!(error, CommandError::NotPaired { .. }) {
                let wall_ms = self.wall_ms();
                self.tables.pass_run(id, wall_ms);
            }
            // One that is gone has no trouble any more.
            if self.tables.schedules().any(|(other, _)| other == id) {
                self.schedules.troubles.insert(id, (error.to_string(), self.now + RETRY_AFTER));
            }
        }
        self.look_at_schedules();
    }

    pub(super) fn schedule_answer(&self, id: ScheduleId) -> Answer {
        let found = self.tables.schedules().find(|(other, _)| *other == id);
        Answer::Schedules(found.map(|(id, record)| self.schedule_info(id, record)).into_iter().collect())
    }

    pub(super) fn schedule_infos(&self) -> Vec<ScheduleInfo> {
        self.tables.schedules().map(|(id, record)| self.schedule_info(id, record)).collect()
    }

    fn schedule_info(&self, id: ScheduleId, record: &ScheduleRecord) -> ScheduleInfo {
        let name = |id| self.tables.device(id).map_or_else(String::new, |device| device.name.clone());
        ScheduleInfo {
            number: id.0,
            primary: name(record.primary),
            secondaries: record.secondaries.iter().map(|id| name(*id)).collect(),
            next: record.secondary().map_or_else(String::new, name),
            next_ms: record.next_ms,
            every_ms: record.every_ms,
            trouble: self.schedules.troubles.get(&id).map(|(why, _)| why.clone()),
        }
    }

    /// When a schedule is due, in the time of `now`; `None`: the wall time is not known yet.
    fn due_at(&self, record: &ScheduleRecord) -> Option<Duration> {
        let wall_ms = self.wall_ms();
        if planted(Defect::MissedRunForgotten) && record.next_ms + 2 < wall_ms {
            return None;
        }
        (wall_ms > 0).then(|| self.now + Duration::from_millis(record.next_ms.saturating_sub(wall_ms)))
    }
}
