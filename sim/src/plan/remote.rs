//! Plans of two arrays: pairs, their operators, and what goes wrong with the link and with either array.

use super::build::{Draft, Mix};
use super::{Act, Op, PairAct, PairSpec, Plan, Scenario, Task};
use super::{remote_courses, remote_faults, remote_snapshots};
use crate::dice::Dice;
use crate::site::Site;

/// How often an operator looks at the pairs, ms.
const LOOK_MS: u64 = 25;
/// In how many plans of failovers the other halves are told in the background only, per mille.
const BEHIND: u32 = 150;

pub(super) fn generate(scenario: Scenario, seed: u64) -> Plan {
    let mut draft = Draft::new(scenario, seed);
    if remote_courses::add(&mut draft, scenario, seed) {
        return draft.finish();
    }
    let give_ups = draft.dice.chance(350);
    let mix = Mix::draw(scenario, give_ups, &mut draft.dice);
    draft.horizon_ms = draft.dice.between(500, 2500);
    if scenario == Scenario::Pair && draft.dice.chance(300) {
        add_wide_device(&mut draft);
    } else {
        draft.add_devices();
    }
    let pairs = add_pairs(&mut draft, scenario);
    if scenario == Scenario::Failover && Dice::new(seed, "behind").chance(BEHIND) {
        draft.pairs.iter_mut().for_each(|pair| pair.adaptive = true);
    }
    let handled = (scenario == Scenario::Failover && draft.dice.chance(300)).then(|| pairs[0].clone());
    let made = |name: &String| pairs.iter().any(|pair| pair.r1 == *name && pair.from == Site::B);
    let first: Vec<_> = draft.standard.iter().filter(|(name, _)| !made(name)).cloned().collect();
    if scenario != Scenario::Pair {
        // Hosts try either half.
        draft.standard.extend(draft.second.clone());
    }
    if let Some(pair) = &handled {
        add_handle(&mut draft, pair, &mix);
        draft.standard.retain(|(name, _)| *name != pair.r1 && *name != pair.r2);
    }
    if !draft.standard.is_empty() {
        draft.add_io_tasks(&mix);
    }
    draft.standard = first;
    add_operator(&mut draft, scenario, &pairs);
    if handled.is_some() {
        never_force(&mut draft);
    }
    if scenario != Scenario::Create {
        add_looks(&mut draft, &pairs);
    }
    remote_faults::add(&mut draft, scenario, &pairs, seed);
    // What hosts read and write through a handle has a check of its own.
    if handled.is_none() {
        remote_snapshots::add(&mut draft, scenario, &pairs, seed);
    }
    draft.finish()
}

/// One device of many regions, so that marks are made all the time (crash rule 5).
fn add_wide_device(draft: &mut Draft) {
    draft.track_bytes = 16 << 10;
    let tracks = draft.dice.between(130, 400);
    draft.standard.push(("d0".into(), tracks * draft.track_bytes));
}

/// A host that uses a pair's volume through a handle over both arrays.
fn add_handle(draft: &mut Draft, pair: &PairSpec, mix: &Mix) {
    let size = draft.standard.iter().find(|(name, _)| *name == pair.r1).map_or(0, |(_, size)| *size);
    let volume = (pair.name.clone(), size);
    let count = draft.dice.between(30, 90);
    let pause_ms = draft.horizon_ms / count;
    let ops = (0..count).map(|_| draft.io(mix, Some(&volume), pause_ms)).collect();
    draft.tasks.push(Task { host: 0, depth: 1, ops });
}

/// What a forced failover loses nobody can promise.
fn never_force(draft: &mut Draft) {
    for op in draft.tasks.iter_mut().flat_map(|task| &mut task.ops) {
        if let Act::Pair(PairAct::Failover { force, .. }) = &mut op.act {
            *force = false;
        }
    }
}

/// Pairs of all devices: from the beginning, or to be made.
fn add_pairs(draft: &mut Draft, scenario: Scenario) -> Vec<PairSpec> {
    let grouped = draft.dice.chance(500).then(|| "g".to_string());
    // The pairs of a group have one policy.
    let freeze = draft.dice.chance(250);
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
            freeze,
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

pub(super) fn op(array: Site, after_ms: u64, act: PairAct) -> Op {
    Op { array, after_ms, ..Op::now(Act::Pair(act)) }
}

pub(super) fn failover(pair: String, force: bool) -> PairAct {
    PairAct::Failover { pair, force, to_safety_copy: false }
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
                0..5 => ops.push(op(site, after_ms, failover(pair, false))),
                5..7 => ops.push(op(site, after_ms, failover(pair, true))),
                7 => ops.push(op(site, after_ms, PairAct::Suspend { pair, split: false })),
                8 => ops.push(op(site, after_ms, PairAct::Verify { pair, mark: false })),
                _ => ops.push(op(site, after_ms, PairAct::Resume { pair })),
            },
            Scenario::SplitBrain => match dice.below(10) {
                0..5 => ops.push(op(Site::B, after_ms, failover(pair, true))),
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
                    4 => ops.push(op(Site::A, after_ms, PairAct::Mode { pair, adaptive })),
                    5..7 => ops.push(op(Site::A, after_ms, PairAct::Resume { pair })),
                    7..9 => {
                        ops.push(op(Site::A, after_ms, PairAct::Verify { pair, mark: dice.chance(500) }));
                    }
                    _ => ops.push(op(site, after_ms, PairAct::Show { pair })),
                }
            }
        }
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops });
}

/// Somebody looks at the pairs all the time: so it is known what a failover may not lose.
pub(super) fn add_looks(draft: &mut Draft, pairs: &[PairSpec]) {
    let mut ops = Vec::new();
    for at_ms in (0..draft.horizon_ms).step_by(LOOK_MS as usize) {
        let pair = pairs[(at_ms / LOOK_MS) as usize % pairs.len()].name.clone();
        ops.push(Op { at_ms, ..Op::now(Act::Pair(PairAct::Show { pair })) });
    }
    draft.tasks.push(Task { host: 1, depth: 1, ops });
}
