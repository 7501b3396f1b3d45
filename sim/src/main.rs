//! One simulator process.
//!
//! ```text
//! twintrack-sim '{"run":{"seed":{"scenario":"io","seed":7}}}'     one job; prints its report, one line of JSON
//! twintrack-sim list                                              scenarios and defects, as JSON
//! ```
//!
//! `cargo xtask sim` runs many of them: one process a seed, so that nothing leaks from one to the next.

use std::process::ExitCode;

use serde_json::json;
use twintrack_core::defect::Defect;
use twintrack_sim::job::{Job, JobError, work};
use twintrack_sim::plan::Scenario;

fn main() -> ExitCode {
    let Some(argument) = std::env::args().nth(1) else {
        eprintln!("usage: twintrack-sim JOB | list      (see `cargo xtask sim --help`)");
        return ExitCode::from(2);
    };
    if argument == "list" {
        let scenarios: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        let of_pairs: Vec<_> = Scenario::ALL
            .iter()
            .filter(|scenario| scenario.is_remote())
            .map(|scenario| scenario.name())
            .collect();
        let all = if cfg!(debug_assertions) { Defect::ALL } else { &[] };
        let defects: Vec<_> =
            all.iter().map(|defect| json!({ "name": defect.name(), "breaks": defect.describe(), "of_pairs": defect.is_of_pairs(), "of_copies": defect.is_of_copies() })).collect();
        let of_copies = [Scenario::Local.name()];
        let known = json!({ "scenarios": scenarios, "of_pairs": of_pairs, "of_copies": of_copies, "defects": defects });
        println!("{known}");
        return ExitCode::SUCCESS;
    }
    let done = serde_json::from_str::<Job>(&argument).map_err(JobError::from).and_then(|job| work(&job));
    match done.and_then(|report| Ok((report.outcome.passed(), serde_json::to_string(&report)?))) {
        Ok((passed, report)) => {
            println!("{report}");
            if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("twintrack-sim: {error}");
            ExitCode::from(2)
        }
    }
}
