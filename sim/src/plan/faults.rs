//! What goes wrong in a plan: each family of faults is off, or on and often.

use super::build::Draft;
use super::hot::Temper;
use super::{Act, Fault, METADATA_DISK, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::disk::{DiskFault, Survival};

/// Which families are on, and how often they strike.
pub(super) struct Swarm {
    /// Power cuts after some number of disk operations.
    cuts: u64,
    /// Power cuts during management commands.
    command_cuts: u64,
    /// Power cuts and kills at some time.
    crashes: u64,
    /// Broken connections.
    drops: u64,
    /// Disks that do wrong.
    disk: u64,
    /// Syncs that fail.
    syncs: u64,
    /// Metadata writes and syncs that fail.
    metadata: u64,
    /// Whether hosts give up.
    pub(super) give_ups: bool,
    survivals: Vec<Survival>,
    /// The most operations before a cut.
    cut_ops_max: u64,
}

impl Swarm {
    pub(super) fn draw(scenario: Scenario, dice: &mut Dice) -> Self {
        let mut on = |off_per_mille: u32, least: u64, most: u64| {
            if dice.chance(off_per_mille) { 0 } else { dice.between(least, most) }
        };
        let failing = scenario == Scenario::Disks;
        let (cuts, cut_ops_max) = match scenario {
            Scenario::Restart => (on(0, 5, 25), 60),
            _ => (on(300, 1, 7), 400),
        };
        let managed = !matches!(scenario, Scenario::Io);
        let command_cuts = if managed { on(450, 1, 8) } else { 0 };
        let (crashes, drops) = (on(500, 1, 5), on(650, 1, 6));
        let disk = if failing { on(200, 2, 9) } else { 0 };
        let syncs = if failing { on(500, 1, 3) } else { 0 };
        let metadata = if failing { on(500, 1, 3) } else { 0 };
        // What a host gave up might reach a secondary only after the copy that follows.
        let give_ups = dice.chance(350) && scenario != Scenario::Local;
        let survivals = survivals(dice);
        Self { cuts, command_cuts, crashes, drops, disk, syncs, metadata, give_ups, survivals, cut_ops_max }
    }

    pub(super) fn for_trace(dice: &mut Dice) -> Self {
        let cuts = dice.between(2, 9);
        Self {
            cuts,
            command_cuts: 0,
            crashes: 0,
            drops: dice.below(2),
            disk: 0,
            syncs: 0,
            metadata: 0,
            give_ups: false,
            survivals: survivals(dice),
            cut_ops_max: 1200,
        }
    }
}

/// How caches are lost in this plan.
fn survivals(dice: &mut Dice) -> Vec<Survival> {
    match dice.below(5) {
        0 => vec![Survival::Nothing],
        1 => vec![Survival::Everything, Survival::Mixed],
        2 => vec![Survival::Nothing, Survival::Mixed, Survival::Everything],
        _ => vec![Survival::Mixed],
    }
}

/// Adds the faults.
pub(super) fn add(draft: &mut Draft, swarm: &Swarm) {
    // A course of events has a power cut at its turning points, and no others.
    let course = draft.temper.is_course();
    let [cuts, crashes, drops] = [swarm.cuts, swarm.crashes, swarm.drops].map(|n| if course { 0 } else { n });
    let horizon_ms = draft.horizon_ms;
    let disks: Vec<String> = (0..3).map(|n| format!("store{n}")).collect();
    let dice = &mut draft.dice;
    let mut faults = Vec::new();
    for _ in 0..cuts {
        let after_ops = if dice.chance(500) { dice.below(20) } else { dice.below(swarm.cut_ops_max) };
        let (at_ms, down_ms) = (dice.below(horizon_ms), down(dice));
        let survival = *dice.pick(&swarm.survivals);
        // A power cut in the first operations of a boot, now and then.
        let at_ms = if draft.faults_at_boot && dice.chance(400) { dice.below(40) } else { at_ms };
        faults.push(Fault::PowerCut { at_ms, after_ops, down_ms, survival });
    }
    let commands: Vec<&Act> = draft.tasks.iter().flat_map(commands_of).collect();
    let is_end = |(_, act): &(u64, &&Act)| matches!(act, Act::Remove { .. } | Act::Deactivate { .. });
    let ends: Vec<u64> = (1..).zip(&commands).filter(is_end).map(|(nth, _)| nth).collect();
    // Where sessions are brief, their ends are what matters, and what is written then must not be lost with the cache.
    let brief = draft.temper == Temper::Brief;
    let command_cuts = match draft.temper {
        Temper::Brief => swarm.command_cuts.max(3),
        Temper::Relay => swarm.command_cuts.min(1),
        Temper::Rounds | Temper::Points => 0,
        _ => swarm.command_cuts,
    };
    // What a command does to sessions it does wholly or not at all: the power goes around its commits. An
    // establishment is some commands that prepare and one that activates.
    let titles = commands.iter().filter_map(|act| {
        let preparing =
            if let Act::Establish { pairs } = act { 16 * (1 + 2 * pairs.len() as u64) } else { 0 };
        Some((act.title()?, preparing))
    });
    let titles: Vec<(String, u64)> = titles.collect();
    let commit_cuts = match draft.scenario {
        _ if course || titles.is_empty() => 0,
        Some(Scenario::Groups) => dice.between(2, 6),
        _ if swarm.command_cuts == 0 => 0,
        _ => dice.below(4),
    };
    for _ in 0..commit_cuts {
        let (command, preparing) = dice.pick(&titles).clone();
        let after_ops = dice.below(preparing + 24);
        let survival = *dice.pick(&swarm.survivals);
        faults.push(Fault::CommitCut { command, after_ops, down_ms: down(dice), survival });
    }
    for _ in 0..command_cuts {
        let (mut nth, mut after_ops) = (dice.between(1, commands.len().max(1) as u64), dice.below(40));
        if brief && !ends.is_empty() && dice.chance(800) {
            (nth, after_ops) = (*dice.pick(&ends), dice.below(70));
        }
        let survival = match dice.below(3) {
            0 if brief => Survival::Everything,
            1 if brief => Survival::Mixed,
            _ => *dice.pick(&swarm.survivals),
        };
        faults.push(Fault::CommandCut { nth, after_ops, down_ms: down(dice), survival });
    }
    for _ in 0..crashes {
        let survival = *dice.pick(&swarm.survivals);
        faults.push(Fault::Crash { at_ms: dice.below(horizon_ms), down_ms: down(dice), survival });
    }
    for _ in 0..drops {
        let nth = dice.chance(600).then(|| dice.below(8));
        faults.push(Fault::Drop { at_ms: dice.below(horizon_ms), nth });
    }
    for _ in 0..swarm.disk {
        let disk = dice.pick(&disks[..1]).clone();
        let at_ms = dice.below(horizon_ms);
        let fault = match dice.below(8) {
            0..3 => DiskFault::Reads(dice.between(1, 5) as u32),
            3..5 => DiskFault::Writes(dice.between(1, 3) as u32),
            5..7 => DiskFault::Decay(dice.between(1, 4) as u32, dice.bits() >> 1),
            _ => DiskFault::Full(true),
        };
        faults.push(Fault::Disk { at_ms, disk: disk.clone(), fault });
        if fault == DiskFault::Full(true) {
            let at_ms = at_ms + dice.between(20, 200);
            faults.push(Fault::Disk { at_ms, disk, fault: DiskFault::Full(false) });
        }
    }
    for _ in 0..swarm.syncs {
        let at_ms = dice.below(horizon_ms);
        faults.push(Fault::Disk { at_ms, disk: disks[0].clone(), fault: DiskFault::Syncs(1) });
        if dice.chance(700) {
            let at_ms = at_ms + dice.between(20, 200);
            faults.push(Fault::Crash { at_ms, down_ms: 10, survival: *dice.pick(&swarm.survivals) });
        }
    }
    for _ in 0..swarm.metadata {
        let fault = match dice.below(3) {
            0 => DiskFault::Writes(1),
            _ => DiskFault::SyncsDropping(1),
        };
        faults.push(Fault::Disk { at_ms: dice.below(horizon_ms), disk: METADATA_DISK.into(), fault });
    }
    draft.faults.extend(faults.into_iter().map(Strike::from));
}

/// The management commands of a task.
fn commands_of(task: &Task) -> impl Iterator<Item = &Act> {
    let is_command = |act: &&Act| {
        !matches!(
            act,
            Act::Read { .. }
                | Act::Write { .. }
                | Act::Flush { .. }
                | Act::Trim { .. }
                | Act::Zero { .. }
                | Act::Status { .. }
                | Act::Reconnect { .. }
        )
    };
    task.ops.iter().map(|op| &op.act).filter(is_command)
}

fn down(dice: &mut Dice) -> u64 {
    if dice.chance(700) { dice.between(1, 20) } else { dice.between(20, 120) }
}
