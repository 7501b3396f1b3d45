//! What may happen next: one step of a history.

use twintrack_core::remote::{Halt, Role};
use twintrack_core::{CommandError, RegionNo, TrackNo, UnitSeq};

use crate::common::Rng;
use crate::side::{Applying, Break, Completing, Flushing, HostWrite, Lone, Message, Remote, TRACKS, USED};
use crate::world::{Link, World};

impl World {
    pub fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        let at = rng.below(2);
        let mix = self.mix;
        let track = USED[if rng.chance(mix.hot_percent) { rng.below(3) } else { rng.below(USED.len()) }];
        match rng.below(100) {
            0..=14 => self.start_write(at, track)?,
            15..=34 => self.advance_write(at, rng)?,
            35..=52 if rng.chance(mix.rounds_percent[at]) => self.sides[at].round(),
            53..=70 => self.receive(at)?,
            71..=76 => self.copy(at, rng)?,
            77..=81 => self.begin_flush(at),
            82..=84 => self.end_flush(at),
            85..=88 => self.complete(at)?,
            89..=92 | 94 => self.open_link()?,
            93 if self.link == Link::Up && rng.chance(mix.losses_percent) => {
                self.say("the link is lost".into());
                self.lose_link()?;
            }
            95 if rng.chance(mix.forces_percent) => self.force(at)?,
            96 => self.swap()?,
            97 | 98 if rng.chance(mix.cuts_percent) => self.power_cut(at, rng)?,
            99 if rng.chance(mix.calm_percent) => {
                for _ in 0..rng.below(12) {
                    self.tend()?;
                }
            }
            _ => {}
        }
        self.settle_link()?;
        self.check()
    }

    /// A little of everything that brings the pair on.
    pub fn tend(&mut self) -> Result<(), String> {
        let mut rng = Rng::new(1);
        self.open_link()?;
        for at in 0..2 {
            for _ in 0..self.sides[at].writes.len() {
                self.advance_write(at, &mut rng)?;
            }
            self.copy(at, &mut rng)?;
            self.receive(at)?;
            self.complete(at)?;
            self.sides[at].round();
            if self.sides.iter().any(|side| side.half().role == Role::Released) {
                self.swap()?;
            }
        }
        self.settle_link()?;
        self.check()
    }

    /// Whether writes go to the peer with the answer.
    fn mirrors(&self, at: usize) -> bool {
        self.link == Link::Up && self.sides[at].half().halt.is_none() && self.owner() == Some(at)
    }

    fn start_write(&mut self, at: usize, track: u32) -> Result<(), String> {
        if !self.sides[at].serves() || self.sides[at].writes.iter().any(|write| write.track == track) {
            return Ok(());
        }
        self.last_value += 1;
        let side = &mut self.sides[at];
        let id = side.id();
        let unit = side.t.begin_write(id, RegionNo::of(TrackNo(track)));
        let value = self.last_value;
        side.writes.push(HostWrite { track, value, remote: Remote::Waiting(unit), landed: false });
        self.say(format!("{at}: write {value} to t{track}, mark {unit:?}"));
        Ok(())
    }

    /// One of the writes under way gets further.
    fn advance_write(&mut self, at: usize, rng: &mut Rng) -> Result<(), String> {
        if self.sides[at].writes.is_empty() {
            return Ok(());
        }
        let index = rng.below(self.sides[at].writes.len());
        let write = self.sides[at].writes[index].clone();
        let committed = self.sides[at].t.committed_unit();
        match write.remote {
            Remote::Waiting(Some(unit)) if unit > committed && !self.breaks(Break::MarkNotCommitted) => {}
            Remote::Waiting(_) => self.go(at, index)?,
            _ if !write.landed => {
                self.sides[at].disk.write(write.track, write.value);
                self.sides[at].writes[index].landed = true;
                self.say(format!("{at}: {} landed on t{}", write.value, write.track));
            }
            Remote::Sent => {}
            Remote::Done => self.answer(at, index, false)?,
            Remote::Owed(unit) => {
                let id = self.sides[at].id();
                let noted = unit <= committed && self.sides[at].t.may_write_alone(id);
                let careless = self.breaks(Break::HaltNotCommitted) || self.breaks(Break::GenerationNotBegun);
                if noted || careless {
                    self.answer(at, index, true)?;
                } else if !self.sides[at].half().is_alone() {
                    // A copy was completed meanwhile.
                    let begun = self.sides[at].t.begin_generation(id).map_err(|error| error.to_string())?;
                    self.sides[at].writes[index].remote = Remote::Owed(begun.unwrap_or(unit));
                }
            }
        }
        Ok(())
    }

    /// The mark is durable: to the disk and to the peer, or a note that the peer lacks it.
    fn go(&mut self, at: usize, index: usize) -> Result<(), String> {
        let HostWrite { track, value, .. } = self.sides[at].writes[index];
        if self.mirrors(at) {
            self.sides[1 - at].inbox.push_back(Message::Write { track, value, resync: false });
            self.sides[at].writes[index].remote = Remote::Sent;
            return Ok(());
        }
        let silent = self.breaks(Break::GenerationNotBegun);
        let side = &mut self.sides[at];
        let id = side.id();
        let unit = if side.half().halt.is_none() && !silent {
            side.t.halt_group(&[id], Halt::Link, 1, &[(id, TrackNo(track))])
        } else {
            side.t.owe(id, TrackNo(track));
            if !silent {
                side.t.begin_generation(id).map_err(|error| error.to_string())?;
            }
            Ok(side.t.last_unit())
        };
        side.writes[index].remote = Remote::Owed(unit.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn answer(&mut self, at: usize, index: usize, lone: bool) -> Result<(), String> {
        let (ours, theirs) = (self.sides[at].half().lineage.clone(), &self.sides[1 - at].half().lineage);
        if lone && (theirs.current() == ours.current() || theirs.ancestors().contains(&ours.current())) {
            return Err(format!("{at} acknowledges what the peer lacks in a generation that the peer has"));
        }
        let side = &mut self.sides[at];
        let write = side.writes.swap_remove(index);
        let id = side.id();
        side.t.end_write(id, RegionNo::of(TrackNo(write.track)));
        side.lone.retain(|lone| lone.track != write.track);
        if lone {
            let (mark, unit) = (side.disk.mark(), side.t.last_unit());
            side.lone.push(Lone { track: write.track, mark, unit, flushed: false });
        }
        self.say(format!("{at}: {} answered{}", write.value, if lone { ", the peer lacks it" } else { "" }));
        Ok(())
    }

    /// The first message that has come is dealt with, or gets on with what it waits for.
    fn receive(&mut self, at: usize) -> Result<(), String> {
        let Some(message) = self.sides[at].inbox.front().cloned() else { return Ok(()) };
        let hasty = self.breaks(Break::MarkNotCommitted);
        let unsynced = self.breaks(Break::CleanedAheadOfSync);
        let side = &mut self.sides[at];
        let (id, committed) = (side.id(), side.t.committed_unit());
        let applying = side.applying.take();
        let answer = match (message, applying) {
            (Message::Write { track, .. }, None) => {
                let unit = side.t.begin_write(id, RegionNo::of(TrackNo(track)));
                side.applying = Some(Applying::Mark(unit));
                return Ok(());
            }
            (Message::Write { track, value, resync }, Some(Applying::Mark(unit))) => {
                if unit.is_some_and(|unit| unit > committed) && !hasty {
                    side.applying = Some(Applying::Mark(unit));
                    return Ok(());
                }
                side.disk.write(track, value);
                side.t.end_write(id, RegionNo::of(TrackNo(track)));
                Some(Message::Written { track, resync })
            }
            (Message::Flush, None) => {
                let flush = side.t.begin_flush(id);
                let mark = if unsynced { 0 } else { side.disk.mark() };
                side.applying = Some(Applying::Sync(mark, flush));
                return Ok(());
            }
            // No flush of its own: the unit is committed after a sync of all that was copied (rule 2).
            (Message::Complete { lineage }, None) => {
                let unit = side.t.adopt(id, &lineage).map_err(|error| error.to_string())?;
                side.applying = Some(Applying::Adopt(unit));
                return Ok(());
            }
            (_, Some(Applying::Sync(mark, flush))) if mark > side.disk.synced() => {
                side.applying = Some(Applying::Sync(mark, flush));
                return Ok(());
            }
            (Message::Flush, Some(Applying::Sync(_, flush))) => {
                let regions = flush.map(|flush| side.t.cleanable(id, flush, 9)).unwrap_or_default();
                side.clean(&regions, unsynced);
                Some(Message::Flushed)
            }
            (Message::Complete { .. }, Some(Applying::Adopt(unit))) => {
                if unit > committed {
                    side.applying = Some(Applying::Adopt(unit));
                    return Ok(());
                }
                Some(Message::Completed)
            }
            (message, _) => {
                self.told(at, message)?;
                None
            }
        };
        self.sides[at].inbox.pop_front();
        self.sides[1 - at].inbox.extend(answer);
        Ok(())
    }

    /// An answer has come.
    fn told(&mut self, at: usize, message: Message) -> Result<(), String> {
        let late = self.breaks(Break::SharedNotNoted);
        let side = &mut self.sides[at];
        let id = side.id();
        match message {
            Message::Written { track, resync } => {
                side.t.pay(id, TrackNo(track));
                side.lone.retain(|lone| lone.track != track);
                if resync {
                    side.copying.remove(&track);
                } else if let Some(write) = side.writes.iter_mut().find(|write| write.track == track) {
                    write.remote = Remote::Done;
                }
            }
            Message::Flushed => {
                if let Some(flushing) = &mut side.flushing {
                    flushing.peer_done = true;
                }
            }
            Message::Completed => {
                if let Some(done) = side.completing.take().filter(|_| late) {
                    side.t.set_shared(id, done.generation).map_err(|error| error.to_string())?;
                }
            }
            _ => return Err("a request where an answer was expected".into()),
        }
        Ok(())
    }

    /// The copy job sends a track that is owed and not busy.
    fn copy(&mut self, at: usize, rng: &mut Rng) -> Result<(), String> {
        if !self.mirrors(at) || !self.sides[at].ready {
            return Ok(());
        }
        let hasty = self.breaks(Break::PaidWhenSent);
        let side = &mut self.sides[at];
        let id = side.id();
        // Tracks that nobody writes are the same on both sides: as if they had been sent.
        for track in (0..TRACKS as u32).filter(|track| !USED.contains(track)) {
            side.t.pay(id, TrackNo(track));
        }
        let free = |track: &u32| {
            side.t.is_owed(id, TrackNo(*track))
                && !side.copying.contains(track)
                && side.writes.iter().all(|write| write.track != *track)
        };
        let tracks: Vec<_> = USED.iter().copied().filter(free).take(1 + rng.below(3)).collect();
        for track in tracks {
            let side = &mut self.sides[at];
            let value = side.disk.read(track);
            side.copying.insert(track);
            if hasty {
                side.t.pay(id, TrackNo(track));
                side.lone.retain(|lone| lone.track != track);
            }
            self.sides[1 - at].inbox.push_back(Message::Write { track, value, resync: true });
        }
        Ok(())
    }

    /// All was copied: the peer takes the generation, which is noted as shared before.
    fn complete(&mut self, at: usize) -> Result<(), String> {
        let same = self.sides[0].half().lineage == self.sides[1].half().lineage;
        if !self.mirrors(at) || !self.sides[at].ready || same {
            return Ok(());
        }
        let late = self.breaks(Break::SharedNotNoted);
        let side = &mut self.sides[at];
        let (id, generation) = (side.id(), side.half().lineage.current());
        let copied = side.t.owed(id).is_some_and(|owed| owed.is_empty()) && side.copying.is_empty();
        match side.completing {
            None if copied => {
                let noted = if late { Ok(UnitSeq::ZERO) } else { side.t.set_shared(id, generation) };
                let unit = noted.map_err(|error| error.to_string())?;
                side.completing = Some(Completing { unit, generation, sent: false });
            }
            Some(done) if !copied && !done.sent => side.completing = None,
            Some(done) if !done.sent && done.unit <= side.t.committed_unit() => {
                side.completing = Some(Completing { sent: true, ..done });
                let lineage = side.half().lineage.clone();
                self.say(format!("{at}: complete {generation}"));
                self.sides[1 - at].inbox.push_back(Message::Complete { lineage });
            }
            _ => {}
        }
        Ok(())
    }

    /// A flush of both arrays; of the owner alone while there is no link, for then what was sent is owed.
    fn begin_flush(&mut self, at: usize) {
        let (unsynced, both) = (self.breaks(Break::CleanedAheadOfSync), self.mirrors(at));
        let side = &mut self.sides[at];
        if side.flushing.is_some() || !side.serves() {
            return;
        }
        let id = side.id();
        let Some(flush) = side.t.begin_flush(id) else { return };
        let mark = if unsynced { 0 } else { side.disk.mark() };
        side.flushing = Some(Flushing { flush, mark, peer_done: !both });
        if both {
            self.sides[1 - at].inbox.push_back(Message::Flush);
        }
    }

    fn end_flush(&mut self, at: usize) {
        let hasty = self.breaks(Break::CleanedWhileWriting);
        let unsynced = self.breaks(Break::CleanedAheadOfSync);
        let side = &mut self.sides[at];
        let done = side.flushing.filter(|f| f.peer_done && f.mark <= side.disk.synced());
        if let Some(Flushing { flush, .. }) = done {
            side.flushing = None;
            let id = side.id();
            let mut regions = side.t.cleanable(id, flush, 9);
            if hasty {
                regions = side.t.regions(id).into_iter().flat_map(|regions| regions.marked()).collect();
            }
            side.clean(&regions, unsynced);
            self.say(format!("{at}: clean {regions:?}"));
        }
    }

    /// A person says that the other side is out of order.
    fn force(&mut self, at: usize) -> Result<(), String> {
        let tame = self.breaks(Break::ForcedWithoutGeneration);
        if self.link != Link::Down || self.sides[at].serves() {
            return Ok(());
        }
        let side = &mut self.sides[at];
        let forced = !tame || side.half().role == Role::Owner;
        match side.set_role(Role::Owner, forced) {
            Ok(()) => side.ready = true,
            Err(CommandError::Incomplete { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        self.say(format!("{at}: forced"));
        Ok(())
    }

    /// A planned failover, from where it is: released, taken, yielded, each committed before the next.
    fn swap(&mut self) -> Result<(), String> {
        if self.link != Link::Up {
            return Ok(());
        }
        let roles = [0, 1].map(|at| self.sides[at].half().role);
        let from = if matches!(roles, [Role::Released, _] | [Role::Owner, Role::Standby]) { 0 } else { 1 };
        let same = self.sides[0].half().lineage == self.sides[1].half().lineage;
        let [x, y] = [from, 1 - from];
        let done = match (self.sides[x].half().role, self.sides[y].half().role) {
            (Role::Owner, Role::Standby) => {
                let side = &self.sides[x];
                let idle = self.is_synchronized() && same && side.completing.is_none();
                if !idle || side.half().is_alone() || side.flushing.is_some() || !side.serves() {
                    return Ok(());
                }
                self.sides[x].set_role(Role::Released, false)
            }
            (Role::Released, Role::Standby) if self.sides[x].is_durable() => {
                self.sides[y].set_role(Role::Owner, false)
            }
            (Role::Released, Role::Owner) if self.sides[y].is_durable() => {
                self.sides[x].set_role(Role::Standby, false)
            }
            _ => return Ok(()),
        };
        self.say(format!("swap from {x}: was {roles:?}"));
        done.map_err(|error| error.to_string())
    }
}
