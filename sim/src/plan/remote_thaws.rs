//! A course of events of two arrays: a person lets a frozen pair go on, and the power goes before that is durable.

use super::build::Draft;
use super::remote::{add_looks, op};
use super::remote_courses::{CUT_MS, add_nth_pair, part, partition, whole};
use super::{Act, Fault, METADATA_DISK, Op, PairAct, Scenario, Task};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How many plans are it, per mille.
const COURSES: u32 = 120;

/// Whether a plan is the course.
pub(super) fn is_course(scenario: Scenario, seed: u64) -> bool {
    scenario == Scenario::Pair && Dice::new(seed, "thaws").chance(COURSES)
}

/// The link goes, and the pair is frozen, for so its policy says. A person suspends it: it takes writes again, which hosts try all
/// the time. About then the power of the array that serves goes. Somebody looks at the pair before and after: whether it is frozen
/// still, and what was written meanwhile.
pub(super) fn add_course(draft: &mut Draft) {
    let volume = add_nth_pair(draft, 0, 2, 6);
    for pair in &mut draft.pairs {
        pair.freeze = true;
    }
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    io.push(Op::now(Act::Flush { device: volume.r1() }));
    partition(draft, CUT_MS, 5000);
    let dice = &mut draft.dice;
    let thaw_ms = CUT_MS + dice.between(200, 400);
    let suspend = PairAct::Suspend { pair: "p0".into(), split: false };
    draft.tasks.push(Task { host: 0, depth: 4, ops: io });
    draft.tasks.push(Task { host: 0, depth: 1, ops: vec![Op { at_ms: thaw_ms, ..op(Site::A, 0, suspend) }] });
    // Before the link goes nobody writes any more; one write finds it gone.
    let times = [CUT_MS + 20].into_iter().chain((thaw_ms..thaw_ms + 20).flat_map(|ms| [ms; 2]));
    let tries = times.map(|at_ms| Op { at_ms, ..Op::now(part(&volume, &volume.r1(), dice)) });
    draft.tasks.push(Task { host: 1, depth: 8, ops: tries.collect() });
    let (after_ops, down_ms) = (dice.between(1, 6), dice.between(1, 20));
    let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed]);
    let fault = Fault::CommitCut { command: "suspend p0".into(), after_ops, down_ms, survival };
    draft.faults.push(fault.into());
    // Until it is durable there is time enough to write.
    let disk = METADATA_DISK.to_owned();
    draft.faults.push(Fault::Slow { at_ms: thaw_ms - 1, disk, writes: 40, take_ms: 8 }.into());
    draft.horizon_ms = thaw_ms + 400;
    // What R2 has not whole when the link goes: to let the pair go on takes no new generation then, whose commit would have to
    // be awaited anyway.
    let at_ms = CUT_MS - draft.dice.between(5, 25);
    // The last one changes nothing: its answer is that all of before is durable, that the pair is frozen, too.
    let modes = [(at_ms, true), (at_ms, false), (CUT_MS + 80, false)];
    let modes = modes.map(|(at_ms, adaptive)| Op {
        at_ms,
        ..op(Site::A, 0, PairAct::Mode { pair: "p0".into(), adaptive })
    });
    draft.tasks.push(Task { host: 0, depth: 1, ops: modes.into() });
    let pairs = draft.pairs.clone();
    add_looks(draft, &pairs);
}
