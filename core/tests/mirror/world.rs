//! Both arrays beside what was promised.

use twintrack_core::UnitSeq;
use twintrack_core::remote::{PairRecord, Role};

use crate::common::Rng;
use crate::halves::{HERE, THERE};
use crate::side::{Break, Side, USED};

/// The link between the arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Down,
    /// Up once each side has committed its unit.
    Agreeing([UnitSeq; 2]),
    Up,
}

/// How often some things happen: every history has a mix of its own.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// How many of a side's steps of durability are taken, of a hundred.
    pub rounds_percent: [u64; 2],
    /// How much more often the first tracks are meant.
    pub hot_percent: u64,
    /// How many of the faults happen, of a hundred.
    pub cuts_percent: u64,
    pub losses_percent: u64,
    pub forces_percent: u64,
    /// How often the pair is left alone for a while.
    pub calm_percent: u64,
}

impl Mix {
    pub fn new(rng: &mut Rng) -> Self {
        let often = |rng: &mut Rng| [5, 20, 50, 100][rng.below(4)];
        let rounds = |rng: &mut Rng| [20, 100, 100, 100][rng.below(4)];
        Self {
            rounds_percent: [rounds(rng), rounds(rng)],
            hot_percent: [0, 50, 90][rng.below(3)],
            cuts_percent: often(rng),
            losses_percent: often(rng),
            forces_percent: often(rng) / 4,
            calm_percent: 2 * often(rng),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    pub sides: [Side; 2],
    pub link: Link,
    pub broken: Option<Break>,
    pub last_value: u32,
    pub mix: Mix,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(mix: Mix, broken: Option<Break>) -> Self {
        let here = Side::new(HERE, twintrack_core::PairId { serial: HERE, number: 0 }, |half| half);
        let standby =
            |half| PairRecord { role: Role::Standby, half: twintrack_core::remote::Half::R2, ..half };
        let there = Side::new(THERE, here.id(), standby);
        Self { sides: [here, there], link: Link::Up, broken, last_value: 0, mix, trace: Vec::new() }
    }

    pub fn breaks(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    pub fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    /// The side that owns the volume, if there is just one. One that has released it applies writes, too.
    pub fn owner(&self) -> Option<usize> {
        match [0, 1].map(|at| self.sides[at].half().role) {
            [Role::Owner, Role::Standby | Role::Released] => Some(0),
            [Role::Standby | Role::Released, Role::Owner] => Some(1),
            _ => None,
        }
    }

    /// Whether the pair is what the operator calls synchronized, at rest.
    pub fn is_synchronized(&self) -> bool {
        let Some(owner) = self.owner() else { return false };
        let side = &self.sides[owner];
        let id = side.id();
        self.link == Link::Up
            && side.half().halt.is_none()
            && side.t.owed(id).is_some_and(|owed| owed.is_empty())
            && side.writes.is_empty()
            && self.sides.iter().all(|side| side.inbox.is_empty() && side.applying.is_none())
    }

    /// What must hold at any time.
    pub fn check(&self) -> Result<(), String> {
        for side in &self.sides {
            side.t.audit().map_err(|error| error.to_string())?;
        }
        for track in USED {
            let [a, b] = [0, 1].map(|at| self.sides[at].disk.read(track));
            if a != b && !self.sides.iter().any(|side| side.covers(track)) {
                return Err(format!("t{track} is {a} here and {b} there, and nothing covers that"));
            }
            if a != b && self.is_synchronized() {
                return Err(format!("t{track} is {a} here and {b} there, and the pair is synchronized"));
            }
        }
        if self.link == Link::Up && self.sides.iter().all(Side::serves) {
            return Err("both sides serve, and there is a link".into());
        }
        Ok(())
    }

    pub fn power_cut(&mut self, at: usize, rng: &mut Rng) -> Result<(), String> {
        let units = (self.sides[at].t.committed_unit(), self.sides[at].t.last_unit());
        self.say(format!("power cut of {at} at {} of {}", units.0, units.1));
        let alone = !self.sides[at].lone.is_empty();
        self.sides[at].power_cut(rng);
        if alone && !self.sides[at].half().is_alone() {
            return Err(format!(
                "{at} acknowledged what the peer lacks, and does not know it after a power cut"
            ));
        }
        self.lose_link()
    }

    /// All faults stop: the pair gets well in bounded time.
    pub fn wind_up(&mut self) -> Result<(), String> {
        self.say("wind up".into());
        for _ in 0..3000 {
            self.tend()?;
            let adopted = self.sides.iter().all(|side| side.half().complete);
            let settled = self.sides.iter().all(|side| side.half().role != Role::Released);
            if self.is_synchronized() && adopted && settled && self.sides.iter().any(Side::serves) {
                return self.check();
            }
        }
        let [a, b] = [0, 1].map(|at| self.sides[at].half());
        Err(format!("the pair does not get well: {:?}, {a:?}, {b:?}", self.link))
    }
}
