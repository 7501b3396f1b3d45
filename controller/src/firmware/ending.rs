//! How a pair ends: `remote delete`, and the undoing of a creation that failed (A7).
//!
//! A deletion is the serving half's: the other half has it asked ([`Request::End`]), for only the one that serves knows
//! whether it has all that its hosts were promised; and so it is the half's whose command made the pair, until both know that
//! it is made. It goes: this half is over, durably, but for a note → the other half
//! goes ([`Request::Destroy`]) → the note goes. A crash or a lost link in between leaves the note, and the next contact goes
//! on from it ([`super::accord`]). By force a half ends alone; the other one hears of it at the next contact. Hosts use what
//! stood by once all that the other array had sent is written, durably, or refused.

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{DeviceId, Halt, Owner, PairId, PairRecord, Role, Stage};
use twintrack_link::manage::{Answer, Refusal};
use twintrack_link::remote::{Answer as PeerAnswer, PeerError, Request};

use super::Firmware;
use super::durability::Waiter;
use super::event::{CallId, Effect};
use super::links::{Asked, Served};
use super::manage;
use super::mirror::{not_found, wrong_state as peer_wrong_state};
use super::pairs::{refused, told_by_peer};
use super::remotes::{gone, wrong_state};
use super::safety::returning;

impl Firmware {
    /// `remote delete`: both halves go, both devices stay.
    pub(super) fn delete_remote(
        &mut self,
        call: CallId,
        device: &str,
        force: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair).ok_or_else(gone)?;
        let (peer, stage, role) = (record.peer, record.stage, record.role);
        self.check_back(pair)?;
        if !force {
            if self.links.up(peer).is_none() {
                return Err(wrong_state(format!(
                    "the other array cannot be asked: {}; with --force the pair ends here, and there at the next contact",
                    self.links.why(peer)
                )));
            }
            // A half that is being made for the other array's command does not know whether that has been answered.
            let theirs = stage == Stage::Creating && pair.serial != self.identity.serial;
            if theirs || stage == Stage::Ready && role != Role::Owner && !self.is_lost(pair) {
                self.ask(peer, Request::End { pair }, Asked::End(call), fx);
                return Ok(());
            }
            if let Some(reason) = self.keeps_alive(pair) {
                return Err(wrong_state(reason));
            }
        }
        self.end_here(pair, fx).map_err(|error| manage::refusal(&error))?;
        self.changed();
        self.answer(call, Ok(Answer::Done), fx);
        Ok(())
    }

    /// Why a pair cannot end without loss: its hosts were promised what only the other array has.
    fn keeps_alive(&self, pair: PairId) -> Option<String> {
        let record = self.tables.pair(pair).filter(|record| record.stage == Stage::Ready)?;
        let lacked = self.tables.lacked(pair).filter(|lacked| !lacked.is_empty())?;
        (record.role == Role::Owner).then(|| {
            format!(
                "{} tracks of {pair} have not been copied here yet: wait until they are; with --force they are lost here",
                lacked.count()
            )
        })
    }

    /// This half is over but for a note; the other one goes once that is durable: else a crash here would leave this one
    /// without it.
    fn end_here(&mut self, pair: PairId, fx: &mut Vec<Effect>) -> Result<(), twintrack_core::CommandError> {
        // Made for the other array's command, it may be ready there, and whoever gave it may know that: the volume stays.
        let mine = pair.serial == self.identity.serial;
        let creating = mine && self.tables.pair(pair).is_some_and(|record| record.stage == Stage::Creating);
        // Hosts whose writes are on their way have their answers without the peer.
        self.strike(&[pair], Halt::Operator);
        self.leave(pair);
        // What never was ready is undone: nobody has used a volume that was made for it.
        if creating {
            self.tables.undo_pair(pair)?
        } else {
            self.tables.end_pair(pair)?
        };
        self.standings.remove(&pair);
        self.marks.forget(pair);
        if self.pairs.callers.contains_key(&pair) {
            let failed = wrong_state(format!("{pair} was deleted while it was being made"));
            self.fail_creation(pair, failed, fx);
        }
        // If that never becomes durable, the next contact sees to it.
        self.durability.wait(&self.tables, Waiter::PairEnded(pair));
        Ok(())
    }

    /// This half's end is durable: the other one goes.
    pub(super) fn pair_ended(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        if let Some(peer) = self.tables.pair(pair).map(|record| record.peer) {
            self.ask(peer, Request::Destroy { pair }, Asked::Destroy(pair), fx);
        }
    }

    /// A person has the pair deleted at the half that stands by.
    pub(super) fn serve_end(
        &mut self,
        served: Served,
        pair: PairId,
        fx: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        if record.stage == Stage::Ready && record.role == Role::Released {
            return Err(peer_wrong_state(format!("a failover of {pair} is under way: ask again")));
        }
        // Asked by a half that has not heard yet that the pair is made, and serves it: only it knows then what it lacks.
        if record.stage == Stage::Ready && record.role == Role::Standby {
            return Err(peer_wrong_state(format!(
                "{pair} has just been made, or changes hands, and this array does not serve it: ask again"
            )));
        }
        if let Some(reason) = self.keeps_alive(pair) {
            return Err(peer_wrong_state(reason));
        }
        if !record.stage.is_over() {
            self.end_here(pair, fx).map_err(|error| refused(&error))?;
            self.changed();
        }
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// The half that serves has ended the pair, or has not; this one is asked to go right after it.
    pub(super) fn end_answered(
        &mut self,
        call: CallId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map(|_| Answer::Done).map_err(|error| told_by_peer(&error));
        self.answer(call, result, fx);
    }

    /// The other half is over: this one goes. If its hosts were promised what only the other array has, it stays, as a
    /// half that is lost: they get errors for that, not something else, until a person ends it here, too.
    pub(super) fn serve_destroy(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        if self.is_returning(pair) {
            return Err(returning(pair));
        }
        if self.keeps_alive(pair).is_some() {
            self.expect_nothing(pair);
            self.strike(&[pair], Halt::Peer);
            self.forget_state(served.link, pair);
        } else if self.tables.pair(pair).is_some() {
            self.drop_pair(pair);
        }
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// A half goes; a device that was made for it too, if the pair never was ready.
    fn drop_pair(&mut self, pair: PairId) {
        // Hosts whose writes are on their way have their answers without it.
        self.strike(&[pair], Halt::Operator);
        self.leave(pair);
        let _ = self.tables.remove_pair(pair);
        self.standings.remove(&pair);
        self.marks.forget(pair);
        self.jobs.hurry();
    }

    /// The volume of a half that stands by goes back to its hosts; that of a note that is left of one has done so before.
    fn leave(&mut self, pair: PairId) {
        let stood_by = |record: &&PairRecord| record.role == Role::Standby && !record.stage.is_over();
        let Some(record) = self.tables.pair(pair).filter(stood_by) else { return };
        if !planted(Defect::LeavesUndrained) {
            self.pairs.leaving.insert(pair, (record.device, false));
        }
    }

    /// What such a volume has got becomes durable, once nothing is being written into it any more; `false`: there is none.
    pub(super) fn advance_leaving(&mut self) -> bool {
        let drained = |(_, (device, waits)): &(&PairId, &mut (DeviceId, bool))| {
            !*waits && self.tracks.is_drained(Owner::Device(*device))
        };
        let Some((pair, (_, waits))) = self.pairs.leaving.iter_mut().find(drained) else { return false };
        *waits = self.durability.wait(&self.tables, Waiter::Left(*pair));
        *waits
    }

    /// Hosts may use it again.
    pub(super) fn left(&mut self, pair: PairId) {
        self.pairs.leaving.remove(&pair);
    }

    /// This half of an unfinished pair goes. `known`: the other array may have a half; it is asked to remove it, and until
    /// it says that it has, this array remembers to ask.
    pub(super) fn undo_here(&mut self, pair: PairId, known: bool, fx: &mut Vec<Effect>) {
        let Some(record) = self.tables.pair(pair) else { return };
        let peer = record.peer;
        if !known {
            self.drop_pair(pair);
            return;
        }
        if !record.stage.is_over() {
            // What was ready ends another way.
            let _ = self.tables.undo_pair(pair);
        }
        self.ask(peer, Request::Destroy { pair }, Asked::Destroy(pair), fx);
    }

    /// The other half is gone, or the next contact will see to it.
    pub(super) fn destroy_answered(
        &mut self,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(record) = self.tables.pair(pair).filter(|record| record.stage.is_over()) else { return };
        let link = self.links.up(record.peer);
        match (result, link) {
            (Ok(_), _) => self.drop_pair(pair),
            (Err(_), Some(link)) => self.break_epoch(link, fx),
            (Err(_), None) => {}
        }
    }
}
