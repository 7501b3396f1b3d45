//! Snapshots on both arrays (F3): in plans of two arrays that are about other things, and a course of their own. What they show is
//! read on both arrays.

use super::build::Draft;
use super::remote::op;
use super::remote_courses::{add_nth_pair, part, partition};
use super::{Act, Fault, LinkTrouble, Op, PairAct, PairSpec, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How many plans have some, and how many are the course, per mille.
const PLANS: u32 = 350;
const COURSES: u32 = 100;
/// Bytes of one read.
const READ_BYTES: u64 = 128 << 10;

/// Adds some to a plan, of dice of its own, so that the rest of it is what it was.
pub(super) fn add(draft: &mut Draft, scenario: Scenario, pairs: &[PairSpec], seed: u64) {
    let mut dice = Dice::new(seed, &format!("snapshots {}", scenario.name()));
    // What somebody changed behind an array's back is in its snapshot, and not in the other one.
    let spoiled = draft.faults.iter().any(|strike| matches!(strike.fault, Fault::Spoil { .. }));
    if scenario == Scenario::Create || spoiled || !dice.chance(PLANS) {
        return;
    }
    let volumes: Vec<(PairSpec, u64)> =
        pairs.iter().map(|pair| (pair.clone(), size_of(draft, &pair.r1))).collect();
    let mut times: Vec<u64> = (0..dice.between(2, 5)).map(|_| dice.below(draft.horizon_ms)).collect();
    times.sort_unstable();
    let mut ops = Vec::new();
    for (n, at_ms) in times.into_iter().enumerate() {
        let site = if scenario == Scenario::Pair || dice.chance(700) { Site::A } else { Site::B };
        add_snapshot(&mut ops, n, (site, at_ms), &volumes, &mut dice);
    }
    draft.tasks.push(Task { host: dice.below(2) as u8, depth: 1, ops });
    for _ in 0..dice.below(3) {
        let pair = dice.pick(pairs).name.clone();
        draft.faults.push(cut_at(&pair, &mut dice));
    }
}

/// Whether a plan is the course.
pub(super) fn is_course(scenario: Scenario, seed: u64) -> bool {
    scenario != Scenario::Create && Dice::new(seed, &format!("instants {}", scenario.name())).chance(COURSES)
}

/// Two volumes of one group, which both hosts write all the time over a slow link, and snapshots of them, one after the other;
/// now and then the power of one array goes at one of the commits, or the link does.
pub(super) fn add_course(draft: &mut Draft) {
    let volumes = [0, 1].map(|n| add_nth_pair(draft, n, 1, 6));
    for pair in &mut draft.pairs {
        pair.group = Some("g".into());
    }
    let dice = &mut draft.dice;
    let (count, apart_ms, by_ms) = (dice.between(2, 4), dice.between(150, 350), dice.between(1, 25));
    draft.horizon_ms = 100 + (count + 1) * apart_ms;
    for site in Site::ALL {
        let trouble = LinkTrouble::Delay { for_ms: draft.horizon_ms, by_ms };
        draft.faults.push(Strike { array: site, fault: Fault::Link { at_ms: 1, trouble } });
    }
    for host in 0..2 {
        let mut io = Vec::new();
        for at_ms in (1..draft.horizon_ms).step_by(9) {
            let volume = dice.pick(&volumes);
            let count = dice.between(1, 3);
            io.extend((0..count).map(|_| Op { at_ms, ..Op::now(part(volume, &volume.r1(), dice)) }));
            if dice.chance(100) {
                io.push(Op::now(Act::Flush { device: volume.r1() }));
            }
        }
        draft.tasks.push(Task { host, depth: *dice.pick(&[2, 8]), ops: io });
    }
    let specs = [0, 1].map(|n| (draft.pairs[n].clone(), volumes[n].size));
    let mut ops = Vec::new();
    let mut cuts = Vec::new();
    for n in 0..count {
        let at_ms = 100 + n * apart_ms + dice.below(apart_ms);
        add_snapshot(&mut ops, n as usize, (Site::A, at_ms), &specs, dice);
        // There and back, and there again: one of the steps of the protocol, or the writes before it.
        let (array, then_ms) = (*dice.pick(&Site::ALL), at_ms + dice.below(8 * by_ms));
        let trouble = match dice.below(8) {
            0 => LinkTrouble::Hold { for_ms: dice.between(20, 600) },
            1 => LinkTrouble::Reset { after_bytes: dice.below(4000) },
            2..5 => {
                cuts.push((then_ms, dice.between(20, 2000)));
                continue;
            }
            _ => continue,
        };
        draft.faults.push(Strike { array, fault: Fault::Link { at_ms: then_ms, trouble } });
    }
    for pair in ["p0", "p1"] {
        if dice.chance(600) {
            draft.faults.push(cut_at(pair, dice));
        }
    }
    cuts.into_iter().for_each(|(at_ms, for_ms)| partition(draft, at_ms, for_ms));
    draft.tasks.push(Task { host: 1, depth: 1, ops });
}

/// The power of an array goes at one of the commits of a snapshot.
fn cut_at(pair: &str, dice: &mut Dice) -> Strike {
    let fault = Fault::CommitCut {
        command: format!("snapshot {pair}"),
        after_ops: dice.below(16),
        down_ms: if dice.chance(500) { dice.between(1, 30) } else { dice.between(30, 1500) },
        survival: *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]),
    };
    Strike { array: *dice.pick(&Site::ALL), fault }
}

/// A snapshot, and what is done with it on both arrays. An earlier one may end then.
fn add_snapshot(
    ops: &mut Vec<Op>,
    n: usize,
    (site, at_ms): (Site, u64),
    volumes: &[(PairSpec, u64)],
    dice: &mut Dice,
) {
    let (pair, _) = dice.pick(volumes);
    let snapshot = PairAct::Snapshot { pair: pair.name.clone(), name: format!("s{n}") };
    ops.push(Op { at_ms, ..op(site, 0, snapshot) });
    for (pair, size) in volumes {
        for device in Site::ALL.map(|site| format!("{}.s{n}", pair.device(site))) {
            if dice.chance(250) {
                let offset = dice.below(size / 512) * 512;
                ops.push(Op::now(Act::Write {
                    device: device.clone(),
                    offset,
                    length: 512,
                    fua: dice.chance(300),
                }));
            }
            for offset in (0..*size).step_by(READ_BYTES as usize) {
                let length = READ_BYTES.min(size - offset) as u32;
                ops.push(Op::now(Act::Read { device: device.clone(), offset, length }));
            }
            if n > 0 && dice.chance(400) {
                let session = format!("{}.s{}", device.split('.').next().unwrap_or_default(), n - 1);
                ops.push(Op { after_ms: dice.below(20), ..Op::now(Act::Remove { session }) });
            }
        }
    }
}

fn size_of(draft: &Draft, device: &str) -> u64 {
    draft.standard.iter().find(|(name, _)| name == device).map_or(0, |(_, size)| *size)
}
