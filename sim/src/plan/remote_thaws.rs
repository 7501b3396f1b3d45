//! A course of events of two arrays: a person lets a frozen pair go on, and the power goes before that is durable.

use super::build::Draft;
use super::remote::{add_looks, op};
use super::remote_courses::{CUT_MS, add_nth_pair, part, partition, whole};
use super::{Act, Fault, Op, PairAct, Scenario, Task};
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
    let times = [CUT_MS + 20].into_iter().chain(thaw_ms..thaw_ms + 40);
    let tries = times.map(|at_ms| Op { at_ms, ..Op::now(part(&volume, &volume.r1(), dice)) });
    draft.tasks.push(Task { host: 1, depth: 4, ops: tries.collect() });
    let (after_ops, down_ms) = (dice.below(6), dice.between(1, 20));
    let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed]);
    let fault = Fault::CommitCut { command: "suspend p0".into(), after_ops, down_ms, survival };
    draft.faults.push(fault.into());
    draft.horizon_ms = thaw_ms + 400;
    let pairs = draft.pairs.clone();
    add_looks(draft, &pairs);
}
