//! Which steps a history takes, and how often.

use crate::common::Rng;

/// What a step may be.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Write,
    Land,
    Abandon,
    Read,
    EndRead,
    Trim,
    Flush,
    Fua,
    Sync,
    EndSync,
    Commit,
    EndCommit,
    Round,
    Activate,
    Deactivate,
    Remove,
    Fail,
    Retire,
    Reclaim,
    Merge,
    Discard,
    EndDiscard,
    Create,
    Delete,
    PowerCut,
}

/// How often each step is taken. Every history has a mix of its own: some kinds are rare in it, some are all over.
#[derive(Debug)]
pub struct Mix {
    steps: Vec<(Step, usize)>,
    /// The most sessions of a device that are points in time.
    pub sessions: usize,
    /// How much more often the first track is meant.
    pub hot_percent: u64,
}

impl Mix {
    pub fn new(rng: &mut Rng) -> Self {
        let usual = [
            (Step::Write, 260),
            (Step::Land, 140),
            (Step::Abandon, 10),
            (Step::Read, 55),
            (Step::EndRead, 45),
            (Step::Trim, 35),
            (Step::Flush, 25),
            (Step::Fua, 20),
            (Step::Sync, 30),
            (Step::EndSync, 30),
            (Step::Commit, 30),
            (Step::EndCommit, 30),
            (Step::Round, 30),
            (Step::Activate, 70),
            (Step::Deactivate, 30),
            (Step::Remove, 40),
            (Step::Fail, 7),
            (Step::Retire, 15),
            (Step::Reclaim, 45),
            (Step::Merge, 25),
            (Step::Discard, 15),
            (Step::EndDiscard, 15),
            (Step::Create, 6),
            (Step::Delete, 4),
            (Step::PowerCut, 20),
        ];
        let sessions = 1 + rng.below(5);
        let steps = usual.map(|(step, often)| (step, often * [1, 4, 4, 12][rng.below(4)] / 4)).to_vec();
        Self { steps, sessions, hot_percent: [0, 50, 90][rng.below(3)] }
    }

    pub fn pick(&self, rng: &mut Rng) -> Step {
        let mut at = rng.below(self.steps.iter().map(|(_, often)| often).sum());
        let found = self.steps.iter().find(|(_, often)| {
            let here = at < *often;
            at = at.saturating_sub(*often);
            here
        });
        found.map_or(Step::Write, |(step, _)| *step)
    }
}
