//! Makes a failing plan small: takes away operations, faults and devices, and makes what is left simpler, as long as it
//! still fails.

use crate::plan::{Act, Plan};

/// Reduces a plan. `fails` runs one and says whether it still fails; at most `runs` plans are tried.
pub fn shrink(plan: &Plan, runs: usize, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { best: plan.clone(), left: runs, fails };
    loop {
        let before = search.best.clone();
        search.drop_faults();
        search.drop_tasks();
        search.drop_ops();
        search.drop_pairs();
        search.drop_devices();
        search.simplify();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search<'a> {
    best: Plan,
    left: usize,
    fails: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Search<'_> {
    /// Keeps a candidate that still fails.
    fn offer(&mut self, candidate: Plan) -> bool {
        if self.left == 0 || candidate == self.best {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    /// Takes away chunks of `count(plan)` things, large ones first. `keep` removes the range from a plan.
    fn drop_chunks(
        &mut self,
        count: impl Fn(&Plan) -> usize,
        remove: impl Fn(&mut Plan, std::ops::Range<usize>),
    ) {
        let mut size = count(&self.best);
        while size > 0 {
            let mut at = 0;
            while at < count(&self.best) {
                let end = (at + size).min(count(&self.best));
                let mut candidate = self.best.clone();
                remove(&mut candidate, at..end);
                if !self.offer(candidate) {
                    at = end;
                }
                if self.left == 0 {
                    return;
                }
            }
            size /= 2;
        }
    }

    fn drop_faults(&mut self) {
        self.drop_chunks(|plan| plan.faults.len(), |plan, range| drop(plan.faults.drain(range)));
    }

    fn drop_tasks(&mut self) {
        self.drop_chunks(|plan| plan.tasks.len(), |plan, range| drop(plan.tasks.drain(range)));
    }

    /// Operations, counted through all tasks.
    fn drop_ops(&mut self) {
        self.drop_chunks(Plan::operations, |plan, range| {
            let mut at = 0;
            for task in &mut plan.tasks {
                task.ops.retain(|_| {
                    at += 1;
                    !range.contains(&(at - 1))
                });
            }
            plan.tasks.retain(|task| !task.ops.is_empty());
        });
    }

    fn drop_pairs(&mut self) {
        self.drop_chunks(|plan| plan.pairs.len(), |plan, range| drop(plan.pairs.drain(range)));
    }

    fn drop_devices(&mut self) {
        self.drop_chunks(|plan| plan.devices.len(), |plan, range| drop(plan.devices.drain(range)));
    }

    fn simplify(&mut self) {
        let changes: [fn(&mut Plan); 6] = [
            |plan| plan.world.tears = false,
            |plan| plan.world.chop_bytes = 0,
            |plan| plan.tasks.iter_mut().for_each(|task| task.depth = 1),
            |plan| plan.tasks.iter_mut().for_each(|task| task.host = 0),
            |plan| plan.tasks.iter_mut().flat_map(|task| &mut task.ops).for_each(|op| op.give_up_ms = 0),
            |plan| plan.tasks.iter_mut().flat_map(|task| &mut task.ops).for_each(|op| op.after_ms /= 2),
        ];
        for change in changes {
            let mut candidate = self.best.clone();
            change(&mut candidate);
            self.offer(candidate);
        }
        for task in 0..self.best.tasks.len() {
            for op in 0..self.best.tasks[task].ops.len() {
                let mut candidate = self.best.clone();
                if shorten(&mut candidate.tasks[task].ops[op].act) {
                    self.offer(candidate);
                }
            }
        }
    }
}

/// Halves the length of an operation, in whole sectors.
fn shorten(act: &mut Act) -> bool {
    match act {
        Act::Read { length, .. }
        | Act::Write { length, .. }
        | Act::Trim { length, .. }
        | Act::Zero { length, .. }
        | Act::Status { length, .. }
            if *length > 512 =>
        {
            *length = (*length / 2).next_multiple_of(512);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, Scenario, generate};

    #[test]
    fn only_what_matters_is_left() {
        let plan = (0..)
            .map(|seed| generate(Scenario::Io, seed))
            .find(|plan| {
                plan.faults.len() > 2 && plan.faults.iter().any(|f| matches!(f.fault, Fault::PowerCut { .. }))
            })
            .unwrap();
        let mut runs = 0;
        let small = shrink(&plan, 2000, &mut |plan| {
            runs += 1;
            let flushes =
                plan.tasks.iter().flat_map(|task| &task.ops).filter(|op| matches!(op.act, Act::Write { .. }));
            flushes.count() > 0
                && plan.faults.iter().any(|fault| matches!(fault.fault, Fault::PowerCut { .. }))
        });
        assert_eq!((small.operations(), small.faults.len()), (1, 1), "after {runs} runs");
        assert!(small.devices.is_empty());
    }
}
