//! Points in time and what ends them: activate, deactivate, remove; what a half is before a copy, the way back to it, and what
//! it is when it is made to serve by force. Each waits for the writes in flight (Fig. 19A).
//!
//! The gates of the owners it concerns are closed, the writes that are inside land, the command changes everything in one unit, the
//! gates open. Hosts wait for the drain, not for the disk; the caller is told after a sync and a commit that began after
//! the cut (crash rule 2a).
//!
//! What this array's operators ask for goes one at a time. What the other array asks for, or what waits for it, goes beside
//! them: behind one that waits for writes which wait for the other array, both arrays could wait for each other.

use std::collections::VecDeque;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    ActivateSession, CommandError, CopyId, GroupId, Owner, Pace, PairCommand, PairId, RestoreItem,
    ScheduleId, SessionId,
};
use twintrack_link::manage::Answer;
use twintrack_link::remote::{Answer as PeerAnswer, PreparedPoint};

use super::event::{CallId, Effect};
use super::joint::Preparation;
use super::links::Served;
use super::pairs::refused;
use super::{Firmware, Work, manage};

/// Commands that wait for writes in flight, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Points {
    queue: VecDeque<Point>,
    /// The gates that the first one has closed.
    closed: Option<Vec<Owner>>,
    /// Those that wait for nobody but the writes in flight, each with the gates that it has closed.
    beside: Vec<(Point, Vec<Owner>)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) caller: Caller,
    pub(super) wall_ms: u64,
    pub(super) what: What,
}

/// Who is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller {
    /// A management call.
    Call(CallId),
    /// A peer.
    Peer(Served),
    /// Nobody: the array does it by itself.
    Nobody,
}

#[derive(Debug)]
pub(super) enum What {
    /// Lists that are activated one after the other, each at one instant, and the group that they wait in.
    Activate { lists: VecDeque<Vec<ActivateSession>>, group: Option<GroupId>, done: Vec<SessionId> },
    /// Ends a session's I/O.
    Deactivate(SessionId),
    /// Ends a session.
    Remove(SessionId),
    /// A copy into a half begins: what it was is kept first.
    BeginCopy(PairId),
    /// Halves serve by force.
    Force(Vec<PairId>),
    /// Halves serve by force, and go back to what was kept of them.
    GoBack(Vec<PairId>),
    /// A pair within the array is copied, or restored from its secondary.
    PairCopy { id: CopyId, command: PairCommand, keep_before: bool, pace: Option<Pace> },
    /// A schedule's copy.
    Run(ScheduleId),
    /// Devices become what sessions show, all at one instant.
    Restore(Vec<RestoreItem>),
    /// Some more tracks of a half go back.
    GoBackStep(PairId),
    /// A point in time on both arrays, of that request: this array's part, and then the other one is asked for its own.
    Joint(u64),
    /// This array's part of one that a peer asks for, and what has come of it.
    Prepare(Preparation, Vec<PreparedPoint>),
}

impl Firmware {
    pub(super) fn start_point(&mut self, point: Point) {
        self.points.queue.push_back(point);
    }

    /// One that does not wait for those before it: its gates are closed now.
    pub(super) fn start_beside(&mut self, point: Point) -> Result<(), CommandError> {
        let owners = self.owners_of(&point)?;
        owners.iter().for_each(|owner| self.tracks.close(*owner));
        self.points.beside.push((point, owners));
        Ok(())
    }

    /// Goes on with one of the commands; `false`: they wait, or there is none.
    pub(super) fn advance_points(&mut self, fx: &mut Vec<Effect>) -> bool {
        self.advance_beside(fx) || self.advance_queue(fx)
    }

    fn advance_beside(&mut self, fx: &mut Vec<Effect>) -> bool {
        let ready = |(point, owners): &(Point, Vec<Owner>)| {
            let drained = || owners.iter().all(|owner| self.tracks.is_drained(*owner));
            match point.what {
                What::Prepare(..) if planted(Defect::JointUndrained) => true,
                _ => drained() && self.has_landed_there(point),
            }
        };
        let Some(at) = self.points.beside.iter().position(ready) else { return false };
        let (mut point, owners) = self.points.beside.swap_remove(at);
        let result = self.cut(&mut point, &owners, fx);
        self.command_unit = self.tables.last_unit();
        self.open_gates(owners);
        self.end_point(point, result, fx);
        true
    }

    fn open_gates(&mut self, owners: Vec<Owner>) {
        for owner in owners {
            let granted = self.tracks.open(owner);
            self.work.extend(granted.into_iter().map(Work::Op));
        }
    }

    /// What is to be on both arrays at that instant is on the other one, too.
    fn has_landed_there(&self, point: &Point) -> bool {
        match &point.what {
            What::Joint(_) if planted(Defect::JointUndrained) => true,
            What::Joint(request) => self.has_no_legs(*request),
            _ => true,
        }
    }

    fn advance_queue(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Some(point) = self.points.queue.front() else { return false };
        let Some(owners) = self.points.closed.clone() else {
            match self.owners_of(point) {
                Ok(owners) => {
                    owners.iter().for_each(|owner| self.tracks.close(*owner));
                    self.points.closed = Some(owners);
                }
                Err(error) => {
                    if let Some(point) = self.points.queue.pop_front() {
                        self.end_point(point, Err(error), fx);
                    }
                }
            }
            return true;
        };
        if !owners.iter().all(|owner| self.tracks.is_drained(*owner)) {
            return false;
        }
        let Some(mut point) = self.points.queue.pop_front() else { return false };
        let result = self.cut(&mut point, &owners, fx);
        // Of one by one, some may have been activated before one was refused.
        self.command_unit = self.tables.last_unit();
        let closed = self.points.closed.take().unwrap_or_default();
        self.open_gates(closed);
        let more = matches!(&point.what, What::Activate { lists, .. } if !lists.is_empty());
        if more && result.is_ok() {
            self.points.queue.push_front(point);
        } else {
            self.end_point(point, result, fx);
        }
        true
    }

    /// Whose writes must have landed.
    fn owners_of(&self, point: &Point) -> Result<Vec<Owner>, CommandError> {
        match &point.what {
            What::Activate { lists, group, .. } => {
                let list = lists.front().ok_or(CommandError::Nothing)?;
                let standards = self.tables.check_activate(list, *group)?;
                Ok(standards.into_iter().map(Owner::Device).collect())
            }
            What::Deactivate(session) | What::Remove(session) => Ok(vec![Owner::Session(*session)]),
            What::BeginCopy(pair) => Ok(self.owners_kept(*pair)),
            What::PairCopy { id, command, .. } => {
                let devices = self.tables.check_pair_command(*id, *command)?;
                Ok(devices.into_iter().map(Owner::Device).collect())
            }
            What::Run(id) => Ok(self.tables.check_run(*id)?.into_iter().map(Owner::Device).collect()),
            What::Restore(list) => {
                let (sessions, devices) = self.tables.check_restore(list)?;
                let sessions = sessions.into_iter().map(Owner::Session);
                Ok(sessions.chain(devices.into_iter().map(Owner::Device)).collect())
            }
            What::Force(pairs) => Ok(self.owners_forced(pairs)),
            What::GoBack(pairs) => {
                Ok(self.tables.check_go_back(pairs)?.into_iter().map(Owner::Device).collect())
            }
            What::GoBackStep(pair) => {
                let device = self.tables.pair(*pair).map(|record| record.device);
                Ok(device.into_iter().map(Owner::Device).collect())
            }
            What::Joint(request) => self.joint_owners(*request),
            What::Prepare(preparation, _) => self.preparation_owners(preparation),
        }
    }

    /// The command itself: nothing it concerns is in flight.
    fn cut(&mut self, point: &mut Point, closed: &[Owner], fx: &mut Vec<Effect>) -> Result<(), CommandError> {
        match &mut point.what {
            What::Activate { lists, group, done } => {
                let list = lists.pop_front().ok_or(CommandError::Nothing)?;
                self.tables.activate(&list, *group, point.wall_ms)?;
                done.extend(list.iter().map(|item| item.session));
            }
            What::Deactivate(session) => {
                self.tables.deactivate(*session)?;
            }
            What::Remove(session) => {
                self.tables.remove_session(*session)?;
                self.jobs.hurry();
            }
            What::BeginCopy(pair) => self.begin_copy(point.caller, *pair, closed)?,
            What::PairCopy { id, command, keep_before, pace } => {
                self.tables.begin_local_copy(*id, *command, *keep_before, point.wall_ms)?;
                pace.map(|pace| self.tables.set_pace(*id, pace)).transpose()?;
            }
            What::Run(id) => {
                self.tables.run_schedule(*id, point.wall_ms)?;
            }
            What::Restore(list) => {
                self.tables.restore(list, point.wall_ms)?;
            }
            What::Force(pairs) => self.serve_by_force(pairs)?,
            What::GoBack(pairs) => self.go_back(pairs)?,
            What::GoBackStep(pair) => self.go_back_step(*pair, fx),
            What::Joint(request) => self.cut_joint(*request, point.wall_ms, fx)?,
            What::Prepare(preparation, made) => {
                *made = self.cut_prepared(point.caller, preparation, point.wall_ms)?;
            }
        }
        Ok(())
    }

    /// A command is over: refused, or to be told of once it is durable.
    fn end_point(&mut self, point: Point, result: Result<(), CommandError>, fx: &mut Vec<Effect>) {
        match point.caller {
            Caller::Nobody => {
                if let What::Run(id) = point.what {
                    self.run_over(id, &result);
                }
            }
            Caller::Peer(served) => {
                let answer = match point.what {
                    What::Prepare(_, points) => PeerAnswer::Prepared { points },
                    _ => PeerAnswer::Done,
                };
                let told = result.map_err(|error| refused(&error));
                if told.is_ok()
                    && planted(Defect::PreparedToldEarly)
                    && matches!(answer, PeerAnswer::Prepared { .. })
                {
                    self.answer_peer(served, Ok(answer), fx);
                    return;
                }
                if let Err(error) = told.and_then(|()| self.answer_durable(served, answer)) {
                    self.answer_peer(served, Err(error), fx);
                }
            }
            Caller::Call(call) => match (result.map_err(|error| manage::refusal(&error)), point.what) {
                (Ok(()), what) => self.point_made(call, what, fx),
                (Err(refusal), What::Joint(request)) => self.fail_joint(request, refusal, fx),
                (Err(refusal), _) => self.answer(call, Err(refusal), fx),
            },
        }
    }

    fn point_made(&mut self, call: CallId, what: What, fx: &mut Vec<Effect>) {
        let answer = match what {
            What::Activate { done, .. } => {
                Answer::Sessions(done.iter().filter_map(|id| self.session_info(*id)).collect())
            }
            What::Deactivate(session) => self.session_info(session).map_or(Answer::Done, Answer::Session),
            What::PairCopy { id, .. } => self.pair_answer(id),
            What::Restore(list) => self.restored_answer(&list),
            What::Force(pairs) => return self.take_by_force(call, pairs, fx),
            // The way has only begun.
            What::GoBack(pairs) => return self.await_return(call, pairs),
            // So has this.
            What::Joint(_) => return,
            What::Remove(_) | What::BeginCopy(_) | What::GoBackStep(_) | What::Prepare(..) | What::Run(_) => {
                Answer::Done
            }
        };
        self.answer(call, Ok(answer), fx);
    }
}
