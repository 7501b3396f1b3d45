//! What goes wrong in plans of two arrays: power, disks, hosts' connections, and the link. Each family is off, or on and often.

use super::build::Draft;
use super::{Fault, LinkTrouble, METADATA_DISK, PairSpec, Scenario, Strike};
use crate::dice::Dice;
use crate::disk::{DiskFault, Survival};
use crate::site::Site;

/// In how many plans both arrays lose their power at once, per mille.
const BOTH: u32 = 150;

pub(super) fn add(draft: &mut Draft, scenario: Scenario, pairs: &[PairSpec], seed: u64) {
    let (horizon_ms, dice) = (draft.horizon_ms, &mut draft.dice);
    let mut on = |off_per_mille: u32, least: u64, most: u64| {
        if dice.chance(off_per_mille) { 0 } else { dice.between(least, most) }
    };
    let (cuts, crashes, drops) = (on(400, 1, 5), on(500, 1, 4), on(700, 1, 4));
    let link = if scenario == Scenario::SplitBrain { on(0, 2, 6) } else { on(250, 1, 6) };
    let command_cuts = if scenario == Scenario::Create { on(150, 1, 5) } else { on(500, 1, 4) };
    let survivals = match dice.below(3) {
        0 => vec![Survival::Nothing],
        1 => vec![Survival::Everything, Survival::Mixed],
        _ => vec![Survival::Mixed],
    };
    let site = |dice: &mut Dice| if dice.chance(500) { Site::A } else { Site::B };
    let down = |dice: &mut Dice| if dice.chance(500) { dice.between(1, 30) } else { dice.between(30, 1500) };
    let mut faults = Vec::new();
    for _ in 0..cuts {
        let after_ops = dice.below(300);
        let (at_ms, down_ms, survival) = (dice.below(horizon_ms), down(dice), *dice.pick(&survivals));
        let fault = Fault::PowerCut { at_ms, after_ops, down_ms, survival };
        faults.push(Strike { array: site(dice), fault });
    }
    for _ in 0..crashes {
        let (at_ms, down_ms, survival) = (dice.below(horizon_ms), down(dice), *dice.pick(&survivals));
        faults.push(Strike { array: site(dice), fault: Fault::Crash { at_ms, down_ms, survival } });
    }
    for _ in 0..drops {
        let nth = dice.chance(600).then(|| dice.below(8));
        faults.push(Fault::Drop { at_ms: dice.below(horizon_ms), nth }.into());
    }
    for _ in 0..link {
        let at_ms = dice.below(horizon_ms);
        let for_ms = if dice.chance(600) { dice.between(20, 800) } else { dice.between(800, 8000) };
        let trouble = match dice.below(10) {
            0..3 => LinkTrouble::Partition { for_ms },
            3..5 => LinkTrouble::OneWay { for_ms },
            5..7 => LinkTrouble::Hold { for_ms },
            7 => LinkTrouble::Delay { for_ms, by_ms: dice.between(5, 300) },
            8 => LinkTrouble::Stall { for_ms },
            _ => {
                let most = if dice.chance(500) { 200 } else { 200_000 };
                LinkTrouble::Reset { after_bytes: dice.below(most) }
            }
        };
        faults.push(Strike { array: site(dice), fault: Fault::Link { at_ms, trouble } });
    }
    for _ in 0..command_cuts {
        let what = match scenario {
            Scenario::Create => *dice.pick(&["create", "create", "create", "delete"]),
            Scenario::Pair => *dice.pick(&["suspend", "resume"]),
            _ => *dice.pick(&["failover", "failover", "resume", "resolve"]),
        };
        let command = format!("{what} {}", dice.pick(pairs).name);
        let (after_ops, down_ms, survival) = (dice.below(40), down(dice), *dice.pick(&survivals));
        faults.push(Strike {
            array: site(dice),
            fault: Fault::CommitCut { command, after_ops, down_ms, survival },
        });
    }
    match scenario {
        Scenario::Create => {}
        _ if dice.chance(200) => faults.extend(disk_faults(dice, horizon_ms, &survivals)),
        // Nobody reads the half that stands by.
        Scenario::Pair if dice.chance(300) => faults.extend((0..dice.between(1, 4)).map(|_| {
            let fault = Fault::Spoil { at_ms: dice.below(horizon_ms), pick: dice.bits() >> 1 };
            Strike { array: Site::B, fault }
        })),
        _ => {}
    }
    faults.extend(both_at_once(&mut Dice::new(seed, "both arrays"), horizon_ms));
    draft.faults.extend(faults);
}

/// The power of both arrays goes, as of two in one room; which one is back first is chance.
fn both_at_once(dice: &mut Dice, horizon_ms: u64) -> Vec<Strike> {
    let times = if dice.chance(BOTH) { dice.between(1, 2) } else { 0 };
    let mut faults = Vec::new();
    for _ in 0..times {
        let at_ms = dice.below(horizon_ms);
        for array in Site::ALL {
            let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
            let down_ms = dice.between(1, 300);
            faults.push(Strike { array, fault: Fault::Crash { at_ms, down_ms, survival } });
        }
    }
    faults
}

/// Disks of either array that do wrong. What cannot be read of a volume is all on one of them.
fn disk_faults(dice: &mut Dice, horizon_ms: u64, survivals: &[Survival]) -> Vec<Strike> {
    let site = |dice: &mut Dice| if dice.chance(500) { Site::A } else { Site::B };
    let decays = site(dice);
    let mut faults = Vec::new();
    for _ in 0..dice.between(1, 5) {
        let (at_ms, disk) = (dice.below(horizon_ms), "store0".to_string());
        let (array, fault) = match dice.below(12) {
            0..3 => (site(dice), DiskFault::Reads(dice.between(1, 5) as u32)),
            3..5 => (site(dice), DiskFault::Writes(dice.between(1, 3) as u32)),
            5..8 => (decays, DiskFault::Decay(dice.between(1, 4) as u32, dice.bits() >> 1)),
            8 => (site(dice), DiskFault::Full(true)),
            9..11 => (site(dice), DiskFault::Syncs(1)),
            _ => (site(dice), DiskFault::SyncsDropping(1)),
        };
        faults.push(Strike { array, fault: Fault::Disk { at_ms, disk: disk.clone(), fault } });
        match fault {
            DiskFault::Full(_) => {
                let (at_ms, fault) = (at_ms + dice.between(20, 400), DiskFault::Full(false));
                faults.push(Strike { array, fault: Fault::Disk { at_ms, disk, fault } });
            }
            // The store is offline until a restart.
            DiskFault::Syncs(_) | DiskFault::SyncsDropping(_) if dice.chance(700) => {
                let (at_ms, survival) = (at_ms + dice.between(20, 400), *dice.pick(survivals));
                faults.push(Strike { array, fault: Fault::Crash { at_ms, down_ms: 10, survival } });
            }
            _ => {}
        }
    }
    if dice.chance(200) {
        let fault = if dice.chance(500) { DiskFault::Writes(1) } else { DiskFault::SyncsDropping(1) };
        let fault = Fault::Disk { at_ms: dice.below(horizon_ms), disk: METADATA_DISK.into(), fault };
        faults.push(Strike { array: site(dice), fault });
    }
    faults
}
