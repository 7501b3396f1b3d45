//! A course of events of two arrays: a half goes back to its safety copy, by force, for the copy into it was not complete when the
//! other array went.

use super::build::Draft;
use super::remote::{add_looks, op};
use super::remote_courses::{CLEAN_MS, CUT_MS, add_nth_pair, part, part_of, partition, slow_copy, whole};
use super::{Act, Fault, Op, PairAct, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How many plans are it, per mille.
const COURSES: u32 = 90;

/// Whether a plan is the course.
pub(super) fn is_course(scenario: Scenario, seed: u64) -> bool {
    let about = matches!(scenario, Scenario::Failover | Scenario::SplitBrain);
    about && Dice::new(seed, &format!("returns {}", scenario.name())).chance(COURSES)
}

/// The link goes for a while, and hosts write the volumes of a group; while what the other halves lack is copied to them, more
/// than a slow link takes at a time, the link goes again. Those halves go back to what they were before, and are read at once,
/// and written; now and then their array loses its power on the way.
pub(super) fn add_course(draft: &mut Draft) {
    draft.track_bytes = 256 << 10;
    let count = draft.dice.between(1, 2);
    let volumes: Vec<_> = (0..count).map(|n| add_nth_pair(draft, n, 8 / count, 20 / count)).collect();
    for pair in &mut draft.pairs {
        pair.group = Some("g".into());
    }
    let mut io: Vec<Op> = volumes.iter().flat_map(whole).map(Op::now).collect();
    let back_ms = CUT_MS + draft.dice.between(200, 500);
    partition(draft, CUT_MS, back_ms - CUT_MS);
    let dice = &mut draft.dice;
    let mut tracks: Vec<_> =
        volumes.iter().flat_map(|v| (0..v.tracks()).map(move |track| (v, track))).collect();
    while !tracks.is_empty() {
        let (volume, track) = tracks.swap_remove(dice.below(tracks.len() as u64) as usize);
        io.push(Op { at_ms: CUT_MS + 5, ..Op::now(part_of(volume, &volume.r1(), track, dice)) });
    }
    let again_ms = slow_copy(draft, back_ms);
    let dice = &mut draft.dice;
    // Marks of what was copied would hide that something is not owed.
    let rest_ms = if dice.chance(500) { CLEAN_MS + dice.between(1000, 2500) } else { 0 };
    let for_ms = rest_ms + dice.between(2000, 5000);
    partition(draft, again_ms, for_ms);
    draft.tasks.push(Task { host: 0, depth: 1, ops: io });
    let (at_ms, dice) = (again_ms + 100 + rest_ms, &mut draft.dice);
    let back = PairAct::Failover { pair: "p0".into(), force: true, to_safety_copy: true };
    let mut there = vec![Op { at_ms, ..op(Site::B, 0, back) }];
    there.extend(volumes.iter().flat_map(|volume| volume.reads(volume.r2())));
    // Hosts try all the while.
    let tries = (0..dice.between(20, 60)).map(|n| {
        let volume = dice.pick(&volumes);
        let act = match part(volume, &volume.r2(), dice) {
            Act::Write { device, offset, length, .. } if dice.chance(600) => {
                Act::Read { device, offset, length }
            }
            act => act,
        };
        Op { at_ms: at_ms + n * 3, ..Op::now(act) }
    });
    draft.tasks.push(Task { host: 1, depth: 2, ops: tries.collect() });
    if dice.chance(400) {
        let (after_ops, down_ms) = (dice.below(20), dice.between(1, 30));
        let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
        let fault = Fault::CommitCut { command: "failover p0".into(), after_ops, down_ms, survival };
        draft.faults.push(Strike { array: Site::B, fault });
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops: there });
    draft.horizon_ms = at_ms + 600;
    let pairs = draft.pairs.clone();
    add_looks(draft, &pairs);
}
