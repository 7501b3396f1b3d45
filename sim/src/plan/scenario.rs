//! The scenarios: what each is about, and how a seed becomes a plan of it.

use twintrack_link::manage::WhenFull;

use super::build::{Draft, Mix};
use super::faults::{self, Swarm};
use super::{Plan, diffs, local, local_courses, operators, parts, remote, reserves};
use crate::dice::Dice;
use crate::trace::Trace;

/// A kind of plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Host I/O on a few devices, in place and thin, with crashes.
    Io,
    /// Sessions on devices under I/O: register, relate, activate, write both sides, remove (D3 to D7).
    Sessions,
    /// Groups of sessions activated at one instant (D8).
    Groups,
    /// Sessions deactivated, their change reports and changed tracks (D15).
    Deactivate,
    /// Pools that run full.
    Full,
    /// Disks that fail, decay and fill up.
    Disks,
    /// Odd sizes, the smallest and the largest tracks, many sessions.
    Limits,
    /// One power cut after the other, while formatting and booting, too.
    Restart,
    /// Pairs within the array and to another pool, copied by command and by the clock while hosts write; restores, mirrors, parts,
    /// reports (C1 to C10, C13, D9 to D15, D19, F7).
    Local,
    /// Pairs of two arrays: written to, suspended and resumed, all while hosts use them (A8, A10).
    Pair,
    /// Pairs whose halves take over from each other, planned and by force (A9, F4).
    Failover,
    /// Pairs of which both halves were written alone (F4).
    SplitBrain,
    /// Pairs that are made and deleted (A1 to A7).
    Create,
    /// A recorded trace: ext4.
    TraceExt4,
    /// A recorded trace: SQLite.
    TraceSqlite,
    /// A recorded trace: PostgreSQL.
    TracePg,
}

impl Scenario {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Io,
        Self::Sessions,
        Self::Groups,
        Self::Deactivate,
        Self::Full,
        Self::Disks,
        Self::Limits,
        Self::Restart,
        Self::Local,
        Self::Pair,
        Self::Failover,
        Self::SplitBrain,
        Self::Create,
        Self::TraceExt4,
        Self::TraceSqlite,
        Self::TracePg,
    ];

    /// As it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Sessions => "sessions",
            Self::Groups => "groups",
            Self::Deactivate => "deactivate",
            Self::Full => "full",
            Self::Disks => "disks",
            Self::Limits => "limits",
            Self::Restart => "restart",
            Self::Local => "local",
            Self::Pair => "pair",
            Self::Failover => "failover",
            Self::SplitBrain => "split-brain",
            Self::Create => "create",
            Self::TraceExt4 => "trace:ext4",
            Self::TraceSqlite => "trace:sqlite",
            Self::TracePg => "trace:pg",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == name)
    }

    /// Whether it is about two arrays.
    pub fn is_remote(self) -> bool {
        matches!(self, Self::Pair | Self::Failover | Self::SplitBrain | Self::Create)
    }

    /// The recorded trace that it replays.
    pub fn trace(self) -> Option<&'static str> {
        self.name().strip_prefix("trace:")
    }
}

/// The plan of a seed.
pub fn generate(scenario: Scenario, seed: u64) -> Plan {
    if let Some(name) = scenario.trace() {
        let trace = Trace::recorded(name).expect("every trace scenario has its recording");
        return generate_from_trace(scenario.name(), &trace, seed);
    }
    if scenario.is_remote() {
        return remote::generate(scenario, seed);
    }
    if let Some(course) = local_courses::draw(seed).filter(|_| scenario == Scenario::Local) {
        return local_courses::generate(course, seed);
    }
    let mut draft = Draft::new(scenario, seed);
    let swarm = Swarm::draw(scenario, &mut draft.dice);
    let mix = Mix::draw(scenario, swarm.give_ups, &mut draft.dice);
    let sessions = operators::Script::of(scenario);
    draft.add_devices();
    if scenario == Scenario::Local {
        local::add_mates(&mut draft);
    }
    if let Some(script) = &sessions {
        draft.add_virtual_devices();
        operators::add(&mut draft, script);
    }
    if scenario == Scenario::Local {
        local::add(&mut draft);
    }
    draft.add_io_tasks(&mix);
    faults::add(&mut draft, &swarm);
    if scenario == Scenario::Local {
        local::add_pool(&mut draft, seed);
        local::make_tight(&mut draft, seed);
        local::schedule(&mut draft, seed);
        local::fail_disk(&mut draft, seed);
    }
    parts::add(&mut draft, seed);
    if scenario == Scenario::Local {
        reserves::add(&mut draft, seed);
    }
    // What is to follow at once in a course would not.
    if !draft.temper.is_course() {
        diffs::add(&mut draft, seed);
    }
    let mut plan = draft.finish();
    // Of dice of its own, so that both policies meet the same plans.
    if plan.world.may_fill && Dice::new(seed, "when full").chance(500) {
        plan.world.when_full = WhenFull::RefuseWrites;
    }
    plan
}

/// A plan that replays a piece of a trace, with power cuts. The whole of it, if it is short.
pub fn generate_from_trace(name: &str, trace: &Trace, seed: u64) -> Plan {
    let mut draft = Draft::for_trace(name, trace, seed);
    let swarm = Swarm::for_trace(&mut draft.dice);
    draft.add_trace(trace);
    faults::add(&mut draft, &swarm);
    draft.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_plan() {
        for scenario in Scenario::ALL {
            assert_eq!(generate(*scenario, 3), generate(*scenario, 3));
            assert_ne!(generate(*scenario, 3), generate(*scenario, 4));
            assert_eq!(Scenario::from_name(scenario.name()), Some(*scenario));
        }
    }
}
