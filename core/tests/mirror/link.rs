//! The link: lost, opened again, and what each side has to say then.

use twintrack_core::remote::{Halt, Kinship, Lineage, Role};
use twintrack_core::{RegionNo, TrackNo};

use crate::side::{Break, Remote};
use crate::world::{Link, World};

impl World {
    /// What was under way is lost. Whoever serves notes it, together with what the peer lacks, before any answer.
    pub fn lose_link(&mut self) -> Result<(), String> {
        self.link = Link::Down;
        for at in 0..2 {
            self.sides[at].link_lost();
            self.leave_behind(at)?;
        }
        Ok(())
    }

    /// Writes that were sent and not answered: the peer lacks them, as far as is known.
    pub fn leave_behind(&mut self, at: usize) -> Result<(), String> {
        let (silent, forgetful) =
            (self.breaks(Break::GenerationNotBegun), self.breaks(Break::MirroredNotOwed));
        let side = &mut self.sides[at];
        let id = side.id();
        let sent = |write: &&mut crate::side::HostWrite| write.remote == Remote::Sent;
        let mut owes: Vec<_> = side.writes.iter_mut().filter(sent).map(|w| (id, TrackNo(w.track))).collect();
        if owes.is_empty() {
            return Ok(());
        }
        if forgetful {
            owes.clear();
        }
        let unit = if silent {
            for (id, track) in &owes {
                side.t.owe(*id, *track);
            }
            side.t.last_unit()
        } else {
            side.t.halt_group(&[id], Halt::Link, 1, &owes).map_err(|error| error.to_string())?
        };
        side.writes.iter_mut().filter(sent).for_each(|write| write.remote = Remote::Owed(unit));
        Ok(())
    }

    /// A new epoch: both sides say what they have, all of it durable, and what follows is committed before data flow.
    pub fn open_link(&mut self) -> Result<(), String> {
        if self.link != Link::Down || !self.sides.iter().all(|side| side.is_durable()) {
            return Ok(());
        }
        let halves = [0, 1].map(|at| self.sides[at].half());
        let roles = halves.map(|half| half.role);
        self.say(format!("open the link: {roles:?}"));
        let yields = |world: &mut Self, at: usize, to: Role| {
            // It says so in the next epoch.
            world.sides[at].set_role(to, false).map_err(|error| error.to_string())
        };
        match roles {
            // Who was not forced stops serving. If both were, a person chooses.
            [Role::Owner, Role::Owner] => {
                let loser = if self.sides[0].half().forced { 1 } else { 0 };
                let writing = !self.sides[loser].writes.is_empty();
                if writing { Ok(()) } else { yields(self, loser, Role::Standby) }
            }
            [Role::Released, Role::Standby] => yields(self, 0, Role::Owner),
            [Role::Standby, Role::Released] => yields(self, 1, Role::Owner),
            [Role::Released, _] => yields(self, 0, Role::Standby),
            [_, Role::Released] => yields(self, 1, Role::Standby),
            [Role::Owner, Role::Standby] => self.agree(0, 1),
            [Role::Standby, Role::Owner] => self.agree(1, 0),
            [Role::Standby, Role::Standby] => Err("nobody owns the volume".into()),
        }
    }

    fn agree(&mut self, owner: usize, standby: usize) -> Result<(), String> {
        let [o, s] = [owner, standby].map(|at| self.sides[at].half().clone());
        let mut words = Vec::new();
        let theirs = &self.sides[standby];
        let (id, boot) = (theirs.id(), theirs.boot);
        if let (Some(owed), Some(regions)) = (theirs.t.owed(id), theirs.t.regions(id)) {
            words.extend((0..4).map(|region| (RegionNo(region), owed.word(RegionNo(region)))));
            if !self.breaks(Break::MarksNotAsked) {
                words.extend(regions.marked().map(|region| (region, !0)));
            }
        }
        self.talk(owner, standby, &words, &o.lineage, &s.lineage).map_err(|error| error.to_string())?;
        match o.lineage.compare(&s.lineage) {
            Kinship::Behind => return Err("the owner's data are older than the other side's".into()),
            Kinship::Diverged => {
                self.say(format!("{owner} is kept by a person's choice"));
                self.sides[standby].lone.clear();
            }
            Kinship::Same | Kinship::Ahead => {
                if let Some(lone) = self.sides[standby].lone.first() {
                    return Err(format!("{lone:?} was acknowledged by {standby}, and will be overwritten"));
                }
            }
        }
        let side = &mut self.sides[owner];
        side.t.set_peer_boot(id, boot).map_err(|error| error.to_string())?;
        if side.half().forced {
            side.t.clear_forced(id).map_err(|error| error.to_string())?;
        }
        self.link = Link::Agreeing([0, 1].map(|at| self.sides[at].t.last_unit()));
        Ok(())
    }

    /// What follows from both lineages.
    fn talk(
        &mut self,
        owner: usize,
        standby: usize,
        words: &[(RegionNo, u64)],
        ours: &Lineage,
        theirs: &Lineage,
    ) -> Result<(), twintrack_core::CommandError> {
        let id = self.sides[owner].id();
        self.sides[owner].t.owe_words(id, words);
        let kinship = ours.compare(theirs);
        if kinship == Kinship::Diverged {
            for at in [owner, standby] {
                self.sides[at].t.halt_group(&[id], Halt::Diverged, 1, &[])?;
            }
            self.sides[owner].t.resolve(id, Some(theirs))?;
            self.sides[standby].t.resolve(id, None)?;
        }
        if kinship != Kinship::Same {
            self.sides[standby].t.set_complete(id, false)?;
        }
        Ok(())
    }

    /// Both have committed what follows: data may flow.
    pub fn settle_link(&mut self) -> Result<(), String> {
        let Link::Agreeing(units) = self.link else { return Ok(()) };
        if (0..2).all(|at| self.sides[at].t.committed_unit() >= units[at]) {
            self.say("the link is up".into());
            self.link = Link::Up;
            for side in &mut self.sides {
                let id = side.id();
                side.ready = true;
                if side.half().role == Role::Standby {
                    side.t.marks_told(id);
                } else if side.half().halt.is_some() {
                    // Not before: a write that found no link meanwhile would have halted it again.
                    side.t.resume(id).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }
}
