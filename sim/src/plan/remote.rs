//! Plans of two arrays: pairs, their operators, and what goes wrong with the link and with either array.

use super::build::{Draft, Mix};
use super::{Act, Fault, LinkTrouble, Op, PairAct, PairSpec, Plan, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How often an operator looks at the pairs, ms.
const LOOK_MS: u64 = 25;

pub(super) fn generate(scenario: Scenario, seed: u64) -> Plan {
    let mut draft = Draft::new(scenario, seed);
    let give_ups = draft.dice.chance(350);
    let mix = Mix::draw(scenario, give_ups, &mut draft.dice);
    draft.horizon_ms = draft.dice.between(500, 2500);
    draft.add_devices();
    let pairs = add_pairs(&mut draft, scenario);
    let made = |name: &String| pairs.iter().any(|pair| pair.r1 == *name && pair.from == Site::B);
    let first: Vec<_> = draft.standard.iter().filter(|(name, _)| !made(name)).cloned().collect();
    if scenario != Scenario::Pair {
        // Hosts try either half.
        draft.standard.extend(draft.second.clone());
    }
    draft.add_io_tasks(&mix);
    draft.standard = first;
    add_operator(&mut draft, scenario, &pairs);
    if scenario != Scenario::Create {
        add_looks(&mut draft, &pairs);
    }
    add_faults(&mut draft, scenario, &pairs);
    draft.finish()
}

/// Pairs of all devices: from the beginning, or to be made.
fn add_pairs(draft: &mut Draft, scenario: Scenario) -> Vec<PairSpec> {
    let grouped = draft.dice.chance(500).then(|| "g".to_string());
    let mut pairs = Vec::new();
    for (n, (r1, size)) in draft.standard.clone().into_iter().enumerate() {
        let (dice, r2) = (&mut draft.dice, format!("e{n}"));
        let late = scenario == Scenario::Create;
        // Made with the pair is R2, or R1 of what R2 has.
        let from = if late && dice.chance(300) { Site::B } else { Site::A };
        let makes = (late && (from == Site::B || dice.chance(500))).then_some((from.other(), size));
        let spec = PairSpec {
            name: format!("p{n}"),
            r1,
            r2: r2.clone(),
            asked: if late && dice.chance(400) { Site::B } else { Site::A },
            from,
            makes,
            adaptive: scenario == Scenario::Pair && dice.chance(150),
            freeze: false,
            group: grouped.clone(),
        };
        if makes.is_none_or(|(site, _)| site == Site::A) {
            draft.second.push((r2, size));
        }
        pairs.push(spec);
    }
    if scenario != Scenario::Create {
        draft.pairs.clone_from(&pairs);
    }
    pairs
}

fn op(array: Site, after_ms: u64, act: PairAct) -> Op {
    Op { array, after_ms, ..Op::now(Act::Pair(act)) }
}

fn add_operator(draft: &mut Draft, scenario: Scenario, pairs: &[PairSpec]) {
    let steps = draft.dice.between(3, 9);
    let pause_ms = draft.horizon_ms / steps;
    let mut ops = Vec::new();
    for _ in 0..steps {
        let dice = &mut draft.dice;
        let (pair, after_ms) = (dice.pick(pairs).name.clone(), dice.below(pause_ms * 2));
        let site = if dice.chance(500) { Site::A } else { Site::B };
        match scenario {
            Scenario::Failover => match dice.below(10) {
                0..5 => ops.push(op(site, after_ms, PairAct::Failover { pair, force: false })),
                5..7 => ops.push(op(site, after_ms, PairAct::Failover { pair, force: true })),
                7 => ops.push(op(site, after_ms, PairAct::Suspend { pair, split: false })),
                _ => ops.push(op(site, after_ms, PairAct::Resume { pair })),
            },
            Scenario::SplitBrain => match dice.below(10) {
                0..5 => ops.push(op(Site::B, after_ms, PairAct::Failover { pair, force: true })),
                5..8 => {
                    let keep = if dice.chance(500) { Site::A } else { Site::B };
                    ops.push(op(site, after_ms, PairAct::Resolve { pair, keep }));
                }
                _ => ops.push(op(site, after_ms, PairAct::Resume { pair })),
            },
            Scenario::Create => {
                let spec = dice.pick(pairs).clone();
                let (asked, force) = (spec.asked, dice.chance(100));
                let pair = spec.name.clone();
                ops.push(op(asked, after_ms, PairAct::Create(spec)));
                if dice.chance(400) {
                    ops.push(op(site, dice.below(200), PairAct::Delete { pair, force }));
                }
            }
            _ => {
                let adaptive = dice.chance(500);
                match dice.below(10) {
                    0..4 => {
                        let split = dice.chance(200);
                        ops.push(op(Site::A, after_ms, PairAct::Suspend { pair: pair.clone(), split }));
                        ops.push(op(Site::A, dice.below(pause_ms * 2), PairAct::Resume { pair }));
                    }
                    4..6 => ops.push(op(Site::A, after_ms, PairAct::Mode { pair, adaptive })),
                    6..8 => ops.push(op(Site::A, after_ms, PairAct::Resume { pair })),
                    _ => ops.push(op(site, after_ms, PairAct::Show { pair })),
                }
            }
        }
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops });
}

/// Somebody looks at the pairs all the time: so it is known what a failover may not lose.
fn add_looks(draft: &mut Draft, pairs: &[PairSpec]) {
    let mut ops = Vec::new();
    for at_ms in (0..draft.horizon_ms).step_by(LOOK_MS as usize) {
        let pair = pairs[(at_ms / LOOK_MS) as usize % pairs.len()].name.clone();
        ops.push(Op { at_ms, ..Op::now(Act::Pair(PairAct::Show { pair })) });
    }
    draft.tasks.push(Task { host: 1, depth: 1, ops });
}

fn add_faults(draft: &mut Draft, scenario: Scenario, pairs: &[PairSpec]) {
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
    draft.faults.extend(faults);
}
