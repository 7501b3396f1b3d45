//! A course of events of two arrays: a half is made to serve by force while the last writes that the other one has sent it are on
//! their way to a slow disk.

use super::build::Draft;
use super::remote::{add_looks, failover, op};
use super::remote_courses::{CUT_MS, add_nth_pair, part, partition, whole};
use super::{Act, Fault, Op, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::site::Site;

/// How many plans are it, per mille.
const COURSES: u32 = 60;

/// Whether a plan is the course.
pub(super) fn is_course(scenario: Scenario, seed: u64) -> bool {
    scenario == Scenario::Failover && Dice::new(seed, "landing").chance(COURSES)
}

/// R2's disk becomes slow; hosts write; the link goes. R2 is made to serve before it has written all of that, and read at once, and
/// again when it has: it stays what it was.
pub(super) fn add_course(draft: &mut Draft) {
    let volume = add_nth_pair(draft, 0, 1, 4);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    io.push(Op::now(Act::Flush { device: volume.r1() }));
    let dice = &mut draft.dice;
    let take_ms = dice.between(200, 600);
    let disk = "store0".to_owned();
    let fault = Fault::Slow { at_ms: CUT_MS - 30, disk, writes: 40, take_ms };
    draft.faults.push(Strike { array: Site::B, fault });
    let last: Vec<Op> = (0..dice.between(2, 8))
        .map(|_| Op { at_ms: CUT_MS - dice.between(8, 25), ..Op::now(part(&volume, &volume.r1(), dice)) })
        .collect();
    let at_ms = CUT_MS + dice.between(10, 80);
    partition(draft, CUT_MS, 5000);
    let mut there = vec![Op { at_ms, ..op(Site::B, 0, failover("p0".into(), true)) }];
    there.extend(volume.reads(volume.r2()));
    let again = volume.reads(volume.r2()).map(|read| Op { at_ms: at_ms + take_ms + 100, ..read });
    there.extend(again);
    draft.tasks.push(Task { host: 0, depth: 1, ops: io });
    draft.tasks.push(Task { host: 1, depth: 8, ops: last });
    draft.tasks.push(Task { host: 0, depth: 1, ops: there });
    draft.horizon_ms = at_ms + take_ms + 500;
    let pairs = draft.pairs.clone();
    add_looks(draft, &pairs);
}
