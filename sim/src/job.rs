//! What one simulator process is asked to do, and what it answers: one JSON object each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ledger::Counts;
use crate::oracle::Violation;
use crate::plan::{Plan, PlanError, Scenario, generate, generate_from_trace};
use crate::shrink::shrink;
use crate::trace::{Trace, TraceError};
use crate::world::{self, Outcome};

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A seed of a scenario.
    Seed {
        /// The scenario's name.
        scenario: String,
        /// The seed.
        seed: u64,
    },
    /// A plan, in a file.
    Plan(String),
    /// A recorded trace, in a file, with a seed for all else.
    Trace {
        /// The file.
        file: String,
        /// The seed.
        seed: u64,
    },
}

/// A run, or with `shrink` many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What is run.
    pub run: Source,
    /// Whether the answer has the timeline.
    #[serde(default)]
    pub keep: bool,
    /// Whether the answer has the plan.
    #[serde(default)]
    pub plan: bool,
    /// If the run fails: the most runs to spend on a smaller plan that fails, too. The answer is that plan's.
    #[serde(default)]
    pub shrink: usize,
    /// A defect to plant.
    #[serde(default)]
    pub defect: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// The plan, if it was asked for or shrunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// A job that cannot be done.
#[derive(Debug, Error)]
pub enum JobError {
    /// The job is no job.
    #[error("not a job: {0}")]
    Job(#[from] serde_json::Error),
    /// There is no such scenario.
    #[error("there is no scenario {name}; there are: {}", names())]
    Scenario {
        /// The name.
        name: String,
    },
    /// There is no such defect, or this build cannot have any.
    #[error("there is no defect {name} in this build")]
    Defect {
        /// The name.
        name: String,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read: {error}")]
    File {
        /// Which.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// The plan is none.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The trace is none.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

fn names() -> String {
    Scenario::ALL.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ")
}

/// Does a job.
pub fn work(job: &Job) -> Result<Report, JobError> {
    let plan = plan(&job.run)?;
    if let Some(name) = &job.defect {
        plant(name)?;
    }
    std::panic::set_hook(Box::new(|info| {
        let mut last = LAST_PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The first is the cause; others are its consequences.
        last.get_or_insert_with(|| info.to_string());
    }));
    let outcome = attempt(&plan, job.keep);
    if outcome.passed() || job.shrink == 0 {
        return Ok(Report { outcome, plan: job.plan.then(|| plan.to_string()) });
    }
    let oracle = outcome.violations[0].oracle.clone();
    let small = shrink(&plan, job.shrink, &mut |plan| {
        attempt(plan, false).violations.first().is_some_and(|violation| violation.oracle == oracle)
    });
    Ok(Report { outcome: attempt(&small, job.keep), plan: Some(small.to_string()) })
}

/// The plan of a job.
fn plan(source: &Source) -> Result<Plan, JobError> {
    let read =
        |file: &String| std::fs::read(file).map_err(|error| JobError::File { file: file.clone(), error });
    match source {
        Source::Seed { scenario, seed } => {
            let found = Scenario::from_name(scenario);
            Ok(generate(found.ok_or_else(|| JobError::Scenario { name: scenario.clone() })?, *seed))
        }
        Source::Plan(file) => Ok(String::from_utf8_lossy(&read(file)?).parse()?),
        Source::Trace { file, seed } => {
            Ok(generate_from_trace("trace", &Trace::from_bytes(&read(file)?)?, *seed))
        }
    }
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// A run; a panic in it is a violation.
fn attempt(plan: &Plan, keep: bool) -> Outcome {
    LAST_PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    catch_unwind(AssertUnwindSafe(|| world::run(plan, keep))).unwrap_or_else(|_| {
        let last = LAST_PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let what = last.unwrap_or_else(|| "something panicked".into()).replace('\n', " ");
        Outcome {
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            simulated_ms: 0,
            counts: Counts::default(),
            crashes: 0,
            faults: 0,
            hash: 0,
            violations: vec![Violation { oracle: "panic".into(), what }],
            timeline: String::new(),
        }
    })
}

#[cfg(debug_assertions)]
fn plant(name: &str) -> Result<(), JobError> {
    use twintrack_core::defect::{Defect, plant};
    let found = Defect::from_name(name);
    plant(found.ok_or_else(|| JobError::Defect { name: name.into() })?);
    Ok(())
}

#[cfg(not(debug_assertions))]
fn plant(name: &str) -> Result<(), JobError> {
    Err(JobError::Defect { name: name.into() })
}
