//! A plan as text: one JSON object a line, one item a line, so that two plans can be compared, and one be edited, with
//! what is there for text.
//!
//! ```text
//! {"plan":{"scenario":"io","seed":7,"world":{…}}}
//! {"device":{"name":"d0","size_bytes":1048576}}
//! {"task":{"host":0,"depth":4}}
//! {"op":{"write":{"device":"d0","offset":0,"length":4096}}}      of the task above
//! {"fault":{"crash":{"at_ms":300,"down_ms":20,"survival":"mixed"}}}
//! ```
//!
//! What goes to the second of two arrays says so: `{"fault":{"array":"b","crash":{…}}}`. Empty lines and lines that begin with `#` are passed over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{DeviceSpec, Op, PairSpec, Plan, Strike, Task, WorldSpec};

/// A text that is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A line that says nothing a plan has.
    #[error("line {line} of the plan: {error}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The first line does not say what the plan is.
    #[error("the plan does not begin with a line {{\"plan\": …}}")]
    NoHead,
    /// An operation before the first task.
    #[error("line {line} of the plan: an operation without a task before it")]
    NoTask {
        /// Which, from 1.
        line: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Plan { scenario: String, seed: u64, world: WorldSpec },
    Device(DeviceSpec),
    Pair(PairSpec),
    Task { host: u8, depth: u8 },
    Op(Op),
    Fault(Strike),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut put = |line: Line| {
            let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
            writeln!(f, "{line}")
        };
        let Self { scenario, seed, world, .. } = self;
        put(Line::Plan { scenario: scenario.clone(), seed: *seed, world: world.clone() })?;
        for device in &self.devices {
            put(Line::Device(device.clone()))?;
        }
        for pair in &self.pairs {
            put(Line::Pair(pair.clone()))?;
        }
        for task in &self.tasks {
            put(Line::Task { host: task.host, depth: task.depth })?;
            for op in &task.ops {
                put(Line::Op(op.clone()))?;
            }
        }
        for fault in &self.faults {
            put(Line::Fault(fault.clone()))?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan: Option<Self> = None;
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let number = at + 1;
            let line = serde_json::from_str(line).map_err(|error| PlanError::Line { line: number, error })?;
            match (line, &mut plan) {
                (Line::Plan { scenario, seed, world }, None) => {
                    let (devices, pairs, tasks, faults) = Default::default();
                    plan = Some(Self { scenario, seed, world, devices, pairs, tasks, faults });
                }
                (_, None) | (Line::Plan { .. }, Some(_)) => return Err(PlanError::NoHead),
                (Line::Device(device), Some(plan)) => plan.devices.push(device),
                (Line::Pair(pair), Some(plan)) => plan.pairs.push(pair),
                (Line::Task { host, depth }, Some(plan)) => {
                    plan.tasks.push(Task { host: host.min(1), depth: depth.max(1), ops: Vec::new() });
                }
                (Line::Op(op), Some(plan)) => match plan.tasks.last_mut() {
                    Some(task) => task.ops.push(op),
                    None => return Err(PlanError::NoTask { line: number }),
                },
                (Line::Fault(fault), Some(plan)) => plan.faults.push(fault),
            }
        }
        plan.ok_or(PlanError::NoHead)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Scenario, generate};
    use super::*;

    #[test]
    fn every_plan_prints_and_parses() {
        for scenario in Scenario::ALL {
            for seed in 0..5 {
                let plan = generate(*scenario, seed);
                assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan, "{scenario:?} {seed}");
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert!(matches!("".parse::<Plan>(), Err(PlanError::NoHead)));
        assert!(matches!("{\"task\":{\"host\":0,\"depth\":1}}".parse::<Plan>(), Err(PlanError::NoHead)));
        assert!(matches!("# a\nnonsense".parse::<Plan>(), Err(PlanError::Line { line: 2, .. })));
    }
}
