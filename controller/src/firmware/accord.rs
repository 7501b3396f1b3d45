//! How two arrays agree, at the begin of each epoch of their link, how each of their pairs stands; before that nothing of it
//! moves.
//!
//! Each side tells its state of every pair ([`Message::States`]), and from the two states each concludes the same
//! ([`conclude`]): who serves, whether the data have diverged, whether a creation is undone or finished. The side that does
//! not serve tells what may differ ([`Message::Marks`]): its dirty regions if it was down since both last agreed, and
//! what it wrote while it served alone; the side that serves owes it all that. Each makes durable what follows, and says so
//! ([`Message::Agreed`]); once both have, data flow.
//!
//! A crash anywhere in between ends the link, and the next epoch begins with what is durable. What a side may forget (its
//! marks, what it owed) it forgets only when the other has said *agreed*, that is, has it durably.

use std::collections::{BTreeMap, BTreeSet};

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    Half, Halt, Kinship, Lineage, PairId, PeerId, RegionNo, Role, Stage, TrackNo, TrackSet,
};
use twintrack_link::remote::{MARKS_MAX, MarkSet, Marks, Message, PairState, STATES_MAX};

use super::Firmware;
use super::durability::Waiter;
use super::event::{Effect, LinkId};

/// The agreement on one link.
#[derive(Debug, Default)]
pub(super) struct Accord {
    /// What this side tells, or told: it concludes from that too, whatever has changed since.
    ours: BTreeMap<PairId, PairState>,
    /// It has been told. What follows from both is said after it: the other side would not know what to make of it before.
    said: bool,
    theirs: BTreeMap<PairId, PairState>,
    /// Pairs whose other half has ended since.
    ended: BTreeSet<PairId>,
    /// All their states are in.
    told: bool,
    /// Sets of tracks that are still to come.
    awaited: BTreeSet<(PairId, MarkSet)>,
    /// What follows from the states is durable here.
    mine: BTreeSet<PairId>,
    /// And there.
    agreed: BTreeSet<PairId>,
}

/// What follows from the two states of a pair, for this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This half serves, the other does not.
    Serve,
    /// The other half serves.
    Follow,
    /// Nobody serves until a person says who.
    Nobody,
    /// Both were written, each without the other: nothing moves until a person has chosen. This half goes on serving if
    /// it was forced to, or stops.
    Diverged { serve: bool },
    /// Its creation was not finished, or it is being removed: this half goes.
    Undo,
    /// The other half is about to go, or to be asked to go on.
    Wait,
    /// The other array does not know the pair.
    Lost,
}

/// What two states say together. Both sides come to fitting ends: of two halves at most one serves, forced ones that have
/// diverged excepted.
pub(super) fn conclude(mine: &PairState, theirs: Option<&PairState>, began_here: bool) -> Verdict {
    let Some(theirs) = theirs else {
        return match mine.stage {
            Stage::Ready => Verdict::Lost,
            Stage::Creating | Stage::Undoing | Stage::Ended => Verdict::Undo,
        };
    };
    match (mine.stage, theirs.stage) {
        (Stage::Undoing | Stage::Ended, _) => return Verdict::Undo,
        (_, Stage::Undoing | Stage::Ended) => return Verdict::Wait,
        // Who asked for it is told that it failed: its command ended with the link.
        (Stage::Creating, _) if began_here => return Verdict::Undo,
        (Stage::Creating, Stage::Creating) | (_, Stage::Creating) => return Verdict::Wait,
        (Stage::Creating | Stage::Ready, Stage::Ready) => {}
    }
    let serve = match (mine.role, theirs.role) {
        (Role::Owner, Role::Standby | Role::Released) => true,
        (Role::Standby | Role::Released, Role::Owner) => false,
        // The giver has let go: the taker takes.
        (Role::Standby, Role::Released) => true,
        (Role::Released, Role::Standby) => false,
        (Role::Released, Role::Released) => mine.half == Half::R1,
        (Role::Standby, Role::Standby) => return Verdict::Nobody,
        (Role::Owner, Role::Owner) if mine.forced != theirs.forced => mine.forced,
        (Role::Owner, Role::Owner) => return Verdict::Diverged { serve: true },
    };
    let (server, other): (&Lineage, &Lineage) =
        if serve { (&mine.lineage, &theirs.lineage) } else { (&theirs.lineage, &mine.lineage) };
    match server.compare(other) {
        Kinship::Same | Kinship::Ahead if serve => Verdict::Serve,
        Kinship::Same | Kinship::Ahead => Verdict::Follow,
        _ if planted(Defect::SplitForgotten) => {
            if serve {
                Verdict::Serve
            } else {
                Verdict::Follow
            }
        }
        Kinship::Behind | Kinship::Diverged => Verdict::Diverged { serve },
    }
}

impl Firmware {
    /// A link is up. The other side hears how the pairs stand now, once that is durable: from what a crash could undo, it
    /// must not conclude. What changes meanwhile it hears of like anything later.
    pub(super) fn begin_accord(&mut self, link: LinkId, peer: PeerId, fx: &mut Vec<Effect>) {
        let pairs: Vec<PairId> = self.tables.pairs_of_peer(peer).collect();
        pairs.iter().for_each(|pair| self.expect_accord(*pair));
        let ours = pairs.into_iter().filter_map(|pair| Some((pair, self.state_of(pair)?))).collect();
        self.accords.insert(link, Accord { ours, ..Accord::default() });
        if self.tables.committed_unit() == self.tables.last_unit() {
            self.tell_states(link, fx);
        } else {
            // If nothing becomes durable any more, there will be no agreement.
            self.durability.wait(&self.tables, Waiter::States(link));
        }
    }

    /// How the pairs stood here when the link came up is durable: the other side hears of it.
    pub(super) fn tell_states(&mut self, link: LinkId, fx: &mut Vec<Effect>) {
        let Some(accord) = self.accords.get_mut(&link) else { return };
        accord.said = true;
        let states: Vec<PairState> = accord.ours.values().cloned().collect();
        let mut chunks = states.chunks(STATES_MAX).peekable();
        if chunks.peek().is_none() {
            self.send(link, Message::States { pairs: Vec::new(), last: true }, fx);
        }
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            self.send(link, Message::States { pairs: chunk.to_vec(), last }, fx);
        }
        self.conclude_all(link, fx);
    }

    fn state_of(&self, pair: PairId) -> Option<PairState> {
        let record = self.tables.pair(pair)?;
        Some(PairState {
            pair,
            half: record.half,
            stage: record.stage,
            role: record.role,
            forced: record.forced,
            mode: record.mode,
            policy: record.policy,
            halt: record.halt,
            complete: record.complete,
            lineage: record.lineage.clone(),
            shared: record.shared,
            peer_boot: record.peer_boot,
            size_bytes: self.tables.device(record.device).map_or(0, |device| device.size_bytes),
            owed_tracks: self.tables.owed(pair).map_or(0, TrackSet::count),
        })
    }

    /// Whether a peer has told all its states on the link that is up.
    pub(super) fn has_states(&self, peer: PeerId) -> bool {
        let accord = self.links.up(peer).and_then(|link| self.accords.get(&link));
        accord.is_some_and(|accord| accord.said && accord.told)
    }

    /// Whether a peer has told its states, and knows nothing of a pair that is ready here, or no more.
    pub(super) fn is_lost(&self, pair: PairId) -> bool {
        let Some(record) = self.tables.pair(pair).filter(|record| record.stage == Stage::Ready) else {
            return false;
        };
        let accord = self.links.up(record.peer).and_then(|link| self.accords.get(&link));
        // One that was made since, on this link, was told by neither.
        let is_missing = |accord: &Accord| {
            let ready = accord.ours.get(&pair).is_some_and(|ours| ours.stage == Stage::Ready);
            accord.ended.contains(&pair) || ready && !accord.theirs.contains_key(&pair)
        };
        !self.is_agreed(pair) && accord.is_some_and(|accord| accord.told && is_missing(accord))
    }

    /// The other side's states.
    pub(super) fn take_states(
        &mut self,
        link: LinkId,
        states: Vec<PairState>,
        last: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Some(accord) = self.accords.get_mut(&link) else { return };
        accord.theirs.extend(states.into_iter().map(|state| (state.pair, state)));
        if !last || accord.told {
            return;
        }
        accord.told = true;
        self.conclude_all(link, fx);
    }

    /// Does what follows for each pair, once both sides have told their states.
    fn conclude_all(&mut self, link: LinkId, fx: &mut Vec<Effect>) {
        let Some(accord) = self.accords.get(&link).filter(|accord| accord.said && accord.told) else {
            return;
        };
        let pairs: Vec<PairId> = accord.ours.keys().copied().collect();
        let mut settled = Vec::new();
        for pair in pairs {
            if self.apply_verdict(link, pair, fx) {
                settled.push(pair);
            }
        }
        self.commit_accord(link, settled);
        if let Some(peer) = self.peer_of(link) {
            self.settle_joints(peer, fx);
        }
    }

    /// Does what follows for one pair; `true`: nothing more has to come from the other side before it is made durable.
    fn apply_verdict(&mut self, link: LinkId, pair: PairId, fx: &mut Vec<Effect>) -> bool {
        let Some(accord) = self.accords.get(&link) else { return false };
        let Some(mine) = accord.ours.get(&pair).cloned() else { return false };
        if self.tables.pair(pair).is_none_or(|record| record.stage != mine.stage) {
            // It has ended since; the other side is asked to end its half.
            return false;
        }
        let theirs = accord.theirs.get(&pair).cloned();
        let began_here = pair.serial == self.identity.serial;
        match conclude(&mine, theirs.as_ref(), began_here) {
            Verdict::Undo if planted(Defect::CreationLeft) => return false,
            Verdict::Undo => {
                self.undo_here(pair, theirs.is_some(), fx);
                return false;
            }
            Verdict::Wait => return self.resume_creation(pair, theirs.as_ref(), fx),
            Verdict::Lost => {
                let wall_ms = self.wall_ms();
                let _ = self.tables.halt_group(&[pair], Halt::Peer, wall_ms, &[]);
                return false;
            }
            Verdict::Nobody => return true,
            Verdict::Serve => {
                self.finish_creation(pair);
                if mine.role != Role::Owner {
                    let _ = self.tables.set_roles(&[pair], Role::Owner, false);
                }
                self.await_marks(link, pair);
                return false;
            }
            Verdict::Follow => {
                self.finish_creation(pair);
                let served = mine.role != Role::Standby;
                // What was released is given up only once the other side has taken it, durably: see `stand_on`.
                if mine.role == Role::Owner {
                    let _ = self.tables.set_roles(&[pair], Role::Standby, false);
                }
                self.follow_halt(pair, theirs.as_ref().and_then(|theirs| theirs.halt));
                if let Some(mode) =
                    theirs.as_ref().map(|theirs| theirs.mode).filter(|mode| *mode != mine.mode)
                {
                    let _ = self.tables.set_mode(pair, mode);
                }
                let fresh = theirs.is_some_and(|theirs| theirs.peer_boot == self.identity.boot);
                let told = (!fresh && !planted(Defect::MarksUntold)) || served;
                self.tell_marks(link, pair, told, fx);
            }
            Verdict::Diverged { serve } => {
                if !serve && mine.role == Role::Owner {
                    let _ = self.tables.set_roles(&[pair], Role::Standby, false);
                }
                let wall_ms = self.wall_ms();
                let _ = self.tables.halt_group(&[pair], Halt::Diverged, wall_ms, &[]);
            }
        }
        true
    }

    /// What holds a pair up is the serving side's to say.
    fn follow_halt(&mut self, pair: PairId, theirs: Option<Halt>) {
        let wall_ms = self.wall_ms();
        match (self.tables.pair(pair).and_then(|record| record.halt), theirs) {
            (None, None) | (Some(Halt::Diverged), _) => {}
            (Some(_), None | Some(Halt::Link | Halt::Frozen | Halt::Peer | Halt::Space)) => {
                let _ = self.tables.resume(pair);
            }
            (mine, Some(theirs)) if mine != Some(theirs) => {
                let _ = self.tables.halt_group(&[pair], theirs, wall_ms, &[]);
            }
            _ => {}
        }
    }

    /// The side that serves needs what the other has to tell.
    pub(super) fn await_marks(&mut self, link: LinkId, pair: PairId) {
        if let Some(accord) = self.accords.get_mut(&link) {
            accord.awaited.extend([(pair, MarkSet::Dirty), (pair, MarkSet::Owed)]);
        }
    }

    /// What may differ here from what the other side believes.
    pub(super) fn tell_marks(&mut self, link: LinkId, pair: PairId, dirty: bool, fx: &mut Vec<Effect>) {
        let regions = if dirty { self.dirty_words(pair) } else { Vec::new() };
        self.send_marks(link, pair, MarkSet::Dirty, None, regions, fx);
        let (mut from, mut words) = (None, Vec::new());
        if let Some(owed) = self.tables.owed(pair) {
            from = Some(owed.from()).filter(|from| from.0 < owed.tracks());
            words = owed
                .exceptions()
                .map(|(region, _)| (region, owed.word(region)))
                .filter(|(_, word)| *word != 0)
                .collect();
        }
        self.send_marks(link, pair, MarkSet::Owed, from, words, fx);
    }

    fn send_marks(
        &mut self,
        link: LinkId,
        pair: PairId,
        set: MarkSet,
        from: Option<TrackNo>,
        regions: Vec<(RegionNo, u64)>,
        fx: &mut Vec<Effect>,
    ) {
        let mut chunks = regions.chunks(MARKS_MAX).peekable();
        loop {
            let part = chunks.next().unwrap_or_default().to_vec();
            let last = chunks.peek().is_none();
            self.send(link, Message::Marks(Marks { pair, set, from, regions: part, last }), fx);
            if last {
                return;
            }
        }
    }

    /// The other side tells what may differ there: all of it is owed.
    pub(super) fn take_marks(&mut self, link: LinkId, marks: Marks) {
        let Some(accord) = self.accords.get_mut(&link) else { return };
        if !accord.awaited.contains(&(marks.pair, marks.set)) {
            return;
        }
        if marks.from.is_some() {
            // More than a few: all of it, then.
            self.tables.owe_all(marks.pair);
        }
        self.tables.owe_words(marks.pair, &marks.regions);
        if !marks.last {
            return;
        }
        accord.awaited.remove(&(marks.pair, marks.set));
        let other = if marks.set == MarkSet::Dirty { MarkSet::Owed } else { MarkSet::Dirty };
        // Who yields tells its marks too, long after both have agreed: its answer comes behind them.
        if !accord.awaited.contains(&(marks.pair, other)) && !accord.mine.contains(&marks.pair) {
            self.commit_accord(link, vec![marks.pair]);
        }
    }

    /// The lineage of the other half, as it was told on a link.
    pub(super) fn lineage_there(&self, link: LinkId, pair: PairId) -> Option<Lineage> {
        Some(self.accords.get(&link)?.theirs.get(&pair)?.lineage.clone())
    }

    /// Tracks that the other half had and this one may lack, as it was told when the link came up.
    pub(super) fn owed_there(&self, pair: PairId) -> Option<u32> {
        let link = self.links.up(self.tables.pair(pair)?.peer)?;
        Some(self.accords.get(&link)?.theirs.get(&pair)?.owed_tracks)
    }

    /// The other half is no more.
    pub(super) fn forget_state(&mut self, link: LinkId, pair: PairId) {
        if let Some(accord) = self.accords.get_mut(&link) {
            accord.theirs.remove(&pair);
            accord.ended.insert(pair);
        }
    }

    fn commit_accord(&mut self, link: LinkId, pairs: Vec<PairId>) {
        if pairs.is_empty() {
            return;
        }
        let boot = self.peer_boot(link);
        for pair in &pairs {
            let _ = self.tables.set_peer_boot(*pair, boot);
        }
        // If nothing becomes durable any more, there will be no agreement.
        self.durability.wait(&self.tables, Waiter::Agreed(link, pairs));
    }

    /// What follows from the states of these pairs is durable here.
    pub(super) fn agreed_here(&mut self, link: LinkId, pairs: Vec<PairId>, fx: &mut Vec<Effect>) {
        let Some(accord) = self.accords.get_mut(&link) else { return };
        accord.mine.extend(&pairs);
        self.send(link, Message::Agreed { pairs: pairs.clone() }, fx);
        self.agree(link, &pairs);
    }

    /// It is durable there.
    pub(super) fn agreed_there(&mut self, link: LinkId, pairs: Vec<PairId>) {
        let Some(accord) = self.accords.get_mut(&link) else { return };
        accord.agreed.extend(&pairs);
        self.agree(link, &pairs);
    }

    fn agree(&mut self, link: LinkId, pairs: &[PairId]) {
        let Some(accord) = self.accords.get(&link) else { return };
        let both: Vec<PairId> = pairs
            .iter()
            .filter(|pair| accord.mine.contains(pair) && accord.agreed.contains(pair))
            // While it was made durable here the other half may have ended.
            .filter(|pair| !accord.ended.contains(pair))
            .copied()
            .collect();
        for pair in both {
            let theirs = self.accords.get(&link).and_then(|accord| accord.theirs.get(&pair));
            let theirs = theirs.filter(|theirs| theirs.complete).map(|theirs| theirs.lineage.current());
            let mine = self.tables.pair(pair).map(|record| record.lineage.current());
            self.stand_on(link, pair, theirs.is_some() && theirs == mine);
        }
    }

    /// From now on the data of a pair flow on this link. `whole`: the other half is one point of the lineage, this half's.
    pub(super) fn stand_on(&mut self, link: LinkId, pair: PairId, whole: bool) {
        if self.tables.pair(pair).is_some_and(|record| record.role == Role::Released) {
            let _ = self.tables.set_roles(&[pair], Role::Standby, false);
        }
        let Some(record) = self.tables.pair(pair) else { return };
        let (role, halt, forced) = (record.role, record.halt, record.forced);
        // Of a group each half is completed once: until all are, the other array keeps what it had of all of them.
        let whole = whole && record.group.is_empty();
        if role == Role::Standby && halt != Some(Halt::Diverged) {
            // The other side has it durably now.
            self.tables.forget_owed(pair);
            self.marks_are_told(pair);
        }
        if role == Role::Owner && forced && halt != Some(Halt::Diverged) {
            // The other side has stopped serving, durably: from now on nobody has to be made to.
            let _ = self.tables.clear_forced(pair);
        }
        // What the arrays have noticed themselves before they had agreed no longer holds it up. The other side hears of that
        // when a copy begins.
        let healed = role == Role::Owner && self.tables.agreed(pair).is_some();
        if healed {
            self.heal_group(link, pair);
        }
        let boot = self.peer_boot(link);
        if self.tables.pair(pair).is_some_and(|record| record.peer_boot != boot) {
            // A pair that was made on this link: what is not clean there has been here all the time.
            let _ = self.tables.set_peer_boot(pair, boot);
        }
        let record = self.tables.pair(pair);
        let current = record.map(|record| record.lineage.current());
        let follows = whole && record.is_some_and(|record| record.role == Role::Standby && record.complete);
        let now = self.now;
        let standing = self.standing(pair);
        standing.stop_copying(now);
        standing.agreed = Some(link);
        (standing.agreed_at, standing.follows) = (now, follows);
        standing.whole = current.filter(|_| whole && !healed);
        if standing.whole.is_some() {
            standing.behind_since = None;
        }
        standing.copied_bytes = 0;
        // Who has given it up does not serve again before the other side says so anew.
        standing.vouched = role == Role::Owner;
        self.look_at_copy(pair);
        self.crowd_again();
    }

    /// Who takes over agrees pair by pair, and a write to one of a group that is not agreed yet holds up those that are:
    /// they go on with it.
    fn heal_group(&mut self, link: LinkId, pair: PairId) {
        for mate in self.tables.group_of(pair) {
            let serves = self.tables.pair(mate).is_some_and(|record| record.role == Role::Owner);
            if serves && self.agreed_link(mate) == Some(link) && self.tables.agreed(mate).is_some() {
                self.look_at_copy(mate);
            }
        }
    }

    /// A link is gone: so is what was agreed on it.
    pub(super) fn end_accord(&mut self, link: LinkId) {
        self.accords.remove(&link);
        let now = self.now;
        for standing in self.standings.values_mut().filter(|standing| standing.agreed == Some(link)) {
            standing.agreed = None;
            standing.stop_copying(now);
        }
    }

    /// Whether both arrays have agreed on a pair, on a link that is up.
    pub(super) fn is_agreed(&self, pair: PairId) -> bool {
        self.agreed_link(pair).is_some()
    }

    /// On which link.
    pub(super) fn agreed_link(&self, pair: PairId) -> Option<LinkId> {
        self.standings.get(&pair)?.agreed
    }
}
