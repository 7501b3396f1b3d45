//! Points in time and what ends them: activate, deactivate, remove; what a half is before a copy, and the way back to it. Each
//! waits for the writes in flight (Fig. 19A).
//!
//! One at a time: the gates of the owners it concerns are closed, the writes that are inside land, the command changes
//! everything in one unit, the gates open. Hosts wait for the drain, not for the disk; the caller is told after a
//! sync and a commit that began after the cut (crash rule 2a).

use std::collections::VecDeque;

use twintrack_core::{ActivateSession, CommandError, GroupId, Owner, PairId, SessionId};
use twintrack_link::manage::Answer;
use twintrack_link::remote::Answer as PeerAnswer;

use super::event::{CallId, Effect};
use super::links::Served;
use super::pairs::refused;
use super::{Firmware, Work, manage};

/// Commands that wait for writes in flight, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Points {
    queue: VecDeque<Point>,
    /// The gates that the first one has closed.
    closed: Option<Vec<Owner>>,
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
    /// Halves serve by force, and go back to what was kept of them.
    GoBack(Vec<PairId>),
    /// Some more tracks of a half go back.
    GoBackStep(PairId),
}

impl Firmware {
    pub(super) fn start_point(&mut self, point: Point) {
        self.points.queue.push_back(point);
    }

    /// Goes on with the first command; `false`: it waits, or there is none.
    pub(super) fn advance_points(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Some(point) = self.points.queue.front() else { return false };
        let Some(owners) = self.points.closed.clone() else {
            match self.owners_of(point) {
                Ok(owners) => {
                    owners.iter().for_each(|owner| self.tracks.close(*owner));
                    self.points.closed = Some(owners);
                }
                Err(error) => self.end_point(Err(error), fx),
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
        for owner in self.points.closed.take().unwrap_or_default() {
            let granted = self.tracks.open(owner);
            self.work.extend(granted.into_iter().map(Work::Op));
        }
        let more = matches!(&point.what, What::Activate { lists, .. } if !lists.is_empty());
        self.points.queue.push_front(point);
        if !more || result.is_err() {
            self.end_point(result, fx);
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
            What::GoBack(pairs) => {
                Ok(self.tables.check_go_back(pairs)?.into_iter().map(Owner::Device).collect())
            }
            What::GoBackStep(pair) => {
                let device = self.tables.pair(*pair).map(|record| record.device);
                Ok(device.into_iter().map(Owner::Device).collect())
            }
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
            What::GoBack(pairs) => self.go_back(pairs)?,
            What::GoBackStep(pair) => self.go_back_step(*pair, fx),
        }
        Ok(())
    }

    /// The first command is over: refused, or to be told of once it is durable.
    fn end_point(&mut self, result: Result<(), CommandError>, fx: &mut Vec<Effect>) {
        let Some(point) = self.points.queue.pop_front() else { return };
        match point.caller {
            Caller::Nobody => {}
            Caller::Peer(served) => {
                let told = result.map_err(|error| refused(&error));
                if let Err(error) = told.and_then(|()| self.answer_durable(served, PeerAnswer::Done)) {
                    self.answer_peer(served, Err(error), fx);
                }
            }
            Caller::Call(call) => match result.map_err(|error| manage::refusal(&error)) {
                Ok(()) => self.point_made(call, point.what, fx),
                Err(refusal) => self.answer(call, Err(refusal), fx),
            },
        }
    }

    fn point_made(&mut self, call: CallId, what: What, fx: &mut Vec<Effect>) {
        let answer = match what {
            What::Activate { done, .. } => {
                Answer::Sessions(done.iter().filter_map(|id| self.session_info(*id)).collect())
            }
            What::Deactivate(session) => self.session_info(session).map_or(Answer::Done, Answer::Session),
            // The way has only begun.
            What::GoBack(pairs) => return self.await_return(call, pairs),
            What::Remove(_) | What::BeginCopy(_) | What::GoBackStep(_) => Answer::Done,
        };
        self.answer(call, Ok(answer), fx);
    }
}
