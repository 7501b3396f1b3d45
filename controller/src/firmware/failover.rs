//! Who serves a pair, and how that moves: asked for, forced, or chosen after a split brain.
//!
//! A planned failover goes: the taker asks; the giver lets no host in any more, has everything under way land on both
//! arrays, and commits *released*; the taker commits *owner* and answers; the giver commits *standby*. In between nobody
//! serves; a crash in between is finished at the next contact ([`super::accord`]).
//!
//! What the taker still lacks, as it does nearly always in adaptive mode, is copied while the hosts are held off: so it is
//! refused if that is much, and given up if it takes long.

use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    CommandError, Halt, Kinship, Lineage, Owner, PairId, PeerId, Pinned, Role, Stage, TrackNo, TrackSet,
};
use twintrack_link::manage::{Answer, PairHalf, Refusal};
use twintrack_link::remote::{Answer as PeerAnswer, PeerError, Request};
use twintrack_link::size;

use super::durability::Waiter;
use super::event::{CallId, Effect, LinkId};
use super::links::{Asked, Served};
use super::mirror::{not_found, wrong_state as peer_wrong_state};
use super::pairs::{refused, told_by_peer};
use super::points::{Caller, Point, What};
use super::remotes::{gone, refusal, wrong_state};
use super::safety::returning;
use super::{Firmware, manage, rounds};

/// How long hosts are held off until what is under way has landed, and what the taker lacks is there.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);
/// How many tracks the taker may lack then.
const LACKED_MAX: u32 = 1024;

/// Pairs that a peer is to take over.
#[derive(Debug)]
pub(super) struct Release {
    served: Served,
    pairs: Vec<PairId>,
    /// When it is given up.
    until: Duration,
}

impl Release {
    pub(super) fn until(&self) -> Duration {
        self.until
    }
}

impl Firmware {
    /// A failover to this side: asked for, or forced.
    pub(super) fn fail_over(
        &mut self,
        call: CallId,
        device: &str,
        force: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair).ok_or_else(gone)?;
        let (peer, role) = (record.peer, record.role);
        if record.stage != Stage::Ready {
            return Err(wrong_state(format!("{pair} is not ready yet")));
        }
        let pairs = self.tables.group_of(pair);
        if force {
            return self.force(call, pairs);
        }
        if role == Role::Owner && self.is_vouched(pair) {
            let infos = pairs.iter().filter_map(|pair| self.remote_info(*pair)).collect();
            self.answer(call, Ok(Answer::Remotes(infos)), fx);
            return Ok(());
        }
        if !pairs.iter().all(|pair| self.is_agreed(*pair)) {
            let out_of_order = "; if it is out of order, add --force";
            let advice = if self.links.up(peer).is_some() { "" } else { out_of_order };
            return Err(wrong_state(self.cannot_ask(peer) + advice));
        }
        self.ask_release(peer, call, pairs, fx);
        Ok(())
    }

    /// Why a peer is not asked about a pair.
    fn cannot_ask(&self, peer: PeerId) -> String {
        match self.links.up(peer) {
            Some(_) => "both arrays are agreeing on what each has: try again in a moment".to_owned(),
            None => format!("the other array cannot be asked: {}", self.links.why(peer)),
        }
    }

    /// This array serves, whatever the other one does: a person says that it is out of order. What that one has sent lands first,
    /// or hosts would see it come. Then the role, and what this half may have or not have, are one unit after the other, committed
    /// before the answer and before a host is let in: a crash until then leaves a half that stands by, or one that serves and
    /// still has its marks, from which the same is owed again.
    fn force(&mut self, call: CallId, pairs: Vec<PairId>) -> Result<(), Refusal> {
        self.check_unlinked(&pairs)?;
        self.check_whole(&pairs)?;
        let (caller, wall_ms) = (Caller::Call(call), self.wall_ms());
        self.start_beside(Point { caller, wall_ms, what: What::Force(pairs) }).map_err(refusal)
    }

    /// The devices of halves that are to serve by force, and do not yet.
    pub(super) fn owners_forced(&self, pairs: &[PairId]) -> Vec<Owner> {
        if planted(Defect::ForcedUndrained) {
            return Vec::new();
        }
        let forced = pairs.iter().filter(|pair| !self.surely_serves(**pair));
        forced.filter_map(|pair| self.tables.pair(*pair)).map(|record| Owner::Device(record.device)).collect()
    }

    fn surely_serves(&self, pair: PairId) -> bool {
        self.tables.pair(pair).is_some_and(|record| record.role == Role::Owner) && self.is_vouched(pair)
    }

    /// Nothing is under way on the devices: their halves serve.
    pub(super) fn serve_by_force(&mut self, pairs: &[PairId]) -> Result<(), CommandError> {
        self.check_unlinked_still(pairs, "forced")?;
        if self.check_whole(pairs).is_err() {
            return Err(CommandError::Incomplete { pair: pairs[0] });
        }
        let forced: Vec<PairId> = pairs.iter().filter(|pair| !self.surely_serves(**pair)).copied().collect();
        let had_all = forced.iter().map(|pair| (*pair, self.had_all_ms(*pair))).collect::<Vec<_>>();
        self.tables.set_roles(&forced, Role::Owner, true)?;
        let now = self.now;
        for (pair, had_all_ms) in &had_all {
            self.tables.note_had_all(*pair, *had_all_ms)?;
            self.standing(*pair).behind_since = Some(now);
            // What this half may have or not have of the last writes goes to the other one, whatever that has.
            let dirty = self.dirty_words(*pair);
            self.tables.owe_words(*pair, &dirty);
        }
        Ok(())
    }

    /// Both were written alone, and a person chooses this side. The other one keeps what it has as a session, tells what
    /// may differ there, and stands by; then all that is owed, durably, and copied.
    pub(super) fn resolve(
        &mut self,
        call: CallId,
        device: &str,
        keep: PairHalf,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair).ok_or_else(gone)?;
        if record.halt != Some(Halt::Diverged) {
            return Err(wrong_state(format!("{pair} has not diverged: there is nothing to resolve")));
        }
        if PairHalf::from(record.half) != keep {
            return Err(wrong_state(format!("ask the array whose half is to stay: {}", record.peer_device)));
        }
        let (peer, lineage) = (record.peer, record.lineage.clone());
        self.check_back(pair)?;
        let Some(link) = self.agreed_link(pair) else {
            return Err(wrong_state(self.cannot_ask(peer)));
        };
        self.await_marks(link, pair);
        self.ask(peer, Request::Yield { pair, lineage }, Asked::Yield(call, pair), fx);
        Ok(())
    }

    /// The other side has yielded, and told what may differ there.
    pub(super) fn yield_answered(
        &mut self,
        call: CallId,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        if let Err(error) = result {
            self.answer(call, Err(told_by_peer(&error)), fx);
            return;
        }
        let owner = self.tables.pair(pair).is_some_and(|record| record.role == Role::Owner);
        let link = self.tables.pair(pair).and_then(|record| self.links.up(record.peer));
        let loser = link.and_then(|link| self.lineage_there(link, pair));
        let resolved = self.tables.resolve(pair, loser.as_ref()).and_then(|_| {
            if owner { Ok(()) } else { self.tables.set_roles(&[pair], Role::Owner, false).map(drop) }
        });
        if let Err(error) = resolved {
            self.answer(call, Err(refusal(error)), fx);
            return;
        }
        let dirty = self.dirty_words(pair);
        self.tables.owe_words(pair, &dirty);
        // The other side hears of it once it is durable.
        self.standing(pair).agreed = None;
        if !self.durability.wait(&self.tables, Waiter::Resolved(call, pair)) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    /// This half has lost a split brain: what it has is kept as a session, and it stands by. The sender owes it all that may
    /// differ.
    pub(super) fn serve_yield(
        &mut self,
        served: Served,
        pair: PairId,
        lineage: &Lineage,
        fx: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        if self.is_returning(pair) {
            return Err(returning(pair));
        }
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        let role = record.role;
        // Asked again, it has yielded already.
        let yielded = record.role == Role::Standby && !record.complete;
        let diverged = record.halt == Some(Halt::Diverged) || yielded;
        if !diverged || record.lineage.compare(lineage) != Kinship::Diverged {
            return Err(peer_wrong_state(format!("{pair} has not diverged here")));
        }
        if !self.is_idle(pair) {
            return Err(peer_wrong_state(format!(
                "hosts still use {pair}'s volume here: stop them, and ask again"
            )));
        }
        if !yielded {
            let wall_ms = self.wall_ms();
            let keep: &[PairId] = if planted(Defect::LoserNotKept) { &[] } else { &[pair] };
            self.tables.begin_copy(pair, keep, Pinned::Loser, wall_ms).map_err(|error| refused(&error))?;
        }
        if role == Role::Owner {
            self.tables.set_roles(&[pair], Role::Standby, false).map_err(|error| refused(&error))?;
        }
        if !yielded || self.tables.pair(pair).is_some_and(|record| record.halt == Some(Halt::Diverged)) {
            self.tables.resolve(pair, None).map_err(|error| refused(&error))?;
        }
        self.standing(pair).vouched = false;
        self.tell_marks(served.link, pair, true, fx);
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// A planned failover, for the side that serves: nothing new is let in, and what is under way lands.
    pub(super) fn serve_release(&mut self, served: Served, pairs: &[PairId]) -> Result<(), PeerError> {
        for pair in pairs {
            if self.tables.pair(*pair).is_none() {
                return Err(not_found(*pair));
            }
            if !self.moves(*pair) || self.tables.next_lacked(*pair, TrackNo(0)).is_some() {
                return Err(peer_wrong_state(format!(
                    "{pair} is not synchronized: resume it and wait until it is; only if this array is out of reach, force \
                     the failover"
                )));
            }
        }
        let lacked = |pair: &PairId| self.tables.owed(*pair).map_or(0, TrackSet::count);
        let lacked: u32 = pairs.iter().map(lacked).sum();
        if lacked > LACKED_MAX {
            let bytes =
                |tracks| size::show(u64::from(tracks) * u64::from(self.tables.geometry().track_bytes()));
            let (left, most) = (bytes(lacked), bytes(LACKED_MAX));
            return Err(peer_wrong_state(format!(
                "{left} are still to be copied, and hosts would be held off until they are: ask again when it is {most} or less \
                 (`remote show` tells); only if this array is out of reach, force the failover"
            )));
        }
        if !self.pairs.releases.is_empty() {
            return Err(peer_wrong_state("another failover is under way: try again".into()));
        }
        self.pairs.releases.push(Release { served, pairs: pairs.to_vec(), until: self.now + RELEASE_WITHIN });
        Ok(())
    }

    /// Whether hosts' I/O of a device is held off because its pair is about to be released.
    pub(super) fn is_releasing(&self, pair: PairId) -> bool {
        self.pairs.releases.iter().any(|release| release.pairs.contains(&pair))
    }

    /// Lets pairs go whose last I/O has landed, on both arrays; `false`: there are none.
    pub(super) fn advance_releases(&mut self, fx: &mut Vec<Effect>) -> bool {
        // What was under way may have halted one.
        let is_halted = |release: &Release| !release.pairs.iter().all(|pair| self.moves(*pair));
        let is_landed = |release: &Release| release.pairs.iter().all(|pair| self.has_landed(*pair));
        let is_over =
            |release: &Release| is_landed(release) || is_halted(release) || release.until <= self.now;
        let Some(at) = self.pairs.releases.iter().position(is_over) else { return false };
        let reason = match &self.pairs.releases[at] {
            release if is_landed(release) => None,
            release if is_halted(release) => {
                Some("the pair was halted while its last writes landed: nothing was changed".to_owned())
            }
            _ => Some(format!(
                "what was under way had not landed on both arrays after {} s: nothing was changed, and hosts go on; ask again",
                RELEASE_WITHIN.as_secs()
            )),
        };
        let Release { served, pairs, .. } = self.pairs.releases.swap_remove(at);
        if let Some(reason) = reason {
            self.answer_peer(served, Err(peer_wrong_state(reason)), fx);
            return true;
        }
        let mut lineages = Vec::new();
        for pair in pairs {
            if !planted(Defect::ServesAfterRelease) {
                let _ = self.tables.set_roles(&[pair], Role::Released, false);
            }
            lineages.extend(self.tables.pair(pair).map(|record| (pair, record.lineage.clone())));
        }
        let answer = PeerAnswer::Released { pairs: lineages };
        if let Err(error) = self.answer_durable(served, answer) {
            self.answer_peer(served, Err(error), fx);
        }
        true
    }

    /// No host's I/O is under way any more, and the other half is the same.
    fn has_landed(&self, pair: PairId) -> bool {
        let is_same = if planted(Defect::ReleaseBehind) { self.moves(pair) } else { self.is_same(pair) };
        is_same && (planted(Defect::ReleaseUndrained) || self.is_idle(pair))
    }

    /// A link is gone: nobody waits for its releases.
    pub(super) fn forget_releases(&mut self, link: LinkId) {
        self.pairs.releases.retain(|release| release.served.link != link);
    }

    pub(super) fn is_idle(&self, pair: PairId) -> bool {
        let Some(record) = self.tables.pair(pair) else { return true };
        let owner = Owner::Device(record.device);
        self.tracks.is_drained(owner) && !self.requests.values().any(|request| request.owner == owner)
    }

    /// A planned failover to this side.
    pub(super) fn ask_release(
        &mut self,
        peer: PeerId,
        call: CallId,
        pairs: Vec<PairId>,
        fx: &mut Vec<Effect>,
    ) {
        let what = Request::Release { pairs: pairs.clone() };
        self.ask(peer, what, Asked::Release(call, pairs), fx);
    }

    /// The giver has let go, durably: this side serves.
    pub(super) fn release_answered(
        &mut self,
        call: CallId,
        pairs: Vec<PairId>,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let taken = result.map_err(|error| told_by_peer(&error)).and_then(|_| {
            self.tables.set_roles(&pairs, Role::Owner, false).map_err(|error| manage::refusal(&error))
        });
        if taken.is_ok() {
            // Nothing is sent to the giver before it stands by.
            pairs.iter().for_each(|pair| self.standing(*pair).agreed = None);
        }
        if let Err(refusal) = taken {
            self.answer(call, Err(refusal), fx);
        } else if !self.durability.wait(&self.tables, Waiter::Taken(call, pairs)) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    /// That this side serves is durable.
    pub(super) fn taken(&mut self, call: CallId, pairs: Vec<PairId>, fx: &mut Vec<Effect>) {
        pairs.iter().for_each(|pair| self.serve_from_now(*pair, fx));
        let infos = pairs.iter().filter_map(|pair| self.remote_info(*pair)).collect();
        fx.push(Effect::Answer { call, result: Ok(Answer::Remotes(infos)) });
    }

    /// That what is here stays is durable, and that this side serves.
    pub(super) fn resolved(&mut self, call: CallId, pair: PairId, fx: &mut Vec<Effect>) {
        self.serve_from_now(pair, fx);
        fx.push(Effect::Answer { call, result: self.remote_answer(pair) });
    }

    fn serve_from_now(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let Some(peer) = self.tables.pair(pair).map(|record| record.peer) else { return };
        self.standing(pair).vouched = true;
        self.ask(peer, Request::Taken { pair }, Asked::Taken(pair), fx);
    }

    /// The taker serves, durably: this side stands by.
    pub(super) fn serve_taken(&mut self, served: Served, pair: PairId) -> Result<(), PeerError> {
        let record = self.tables.pair(pair).ok_or_else(|| not_found(pair))?;
        let released = match record.role {
            Role::Released => {
                let _ = self.tables.set_roles(&[pair], Role::Standby, false);
                true
            }
            Role::Standby => false,
            Role::Owner => return Err(peer_wrong_state(format!("this array has not released {pair}"))),
        };
        self.stand_on(served.link, pair, false);
        // It was released while both halves were the same.
        self.standing(pair).follows = released;
        self.answer_durable(served, PeerAnswer::Done)
    }

    /// The giver stands by: writes go there.
    pub(super) fn taken_answered(
        &mut self,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let peer = self.tables.pair(pair).map(|record| record.peer);
        let Some(link) = peer.and_then(|peer| self.links.up(peer)) else { return };
        match result {
            // What was written here since is owed.
            Ok(_) => self.stand_whole(link, pair),
            Err(_) => self.break_epoch(link, fx),
        }
    }
}
