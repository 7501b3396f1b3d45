//! Whole runs, each in a process of its own: tokio numbers tasks through the whole process, and the order in which a
//! crashed array's tasks are dropped goes by these numbers.

use std::process::Command;

use serde_json::{Value, json};
use twintrack_sim::plan::Scenario;

/// Runs a job; its report.
fn work(job: &Value) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_twintrack-sim")).arg(job.to_string()).output().expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_scenario_passes() {
    for scenario in Scenario::ALL {
        let report = work(&json!({ "run": { "seed": { "scenario": scenario.name(), "seed": 0 } } }));
        let outcome = &report["outcome"];
        assert_eq!(outcome["violations"], json!([]), "{}", scenario.name());
        assert!(outcome["counts"]["done"].as_u64() > Some(0) && outcome["simulated_ms"].as_u64() > Some(0));
    }
}

/// F6: one plan makes one run, byte for byte, also when it was printed and read back.
#[test]
fn a_plan_makes_one_run() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..3 {
        let run = json!({ "seed": { "scenario": "sessions", "seed": seed } });
        let first = work(&json!({ "run": run, "keep": true, "plan": true }));
        let file = folder.path().join("plan");
        std::fs::write(&file, first["plan"].as_str().expect("it was asked for")).expect("written");
        let second = work(&json!({ "run": { "plan": file }, "keep": true }));
        let unkept = work(&json!({ "run": { "plan": file } }));
        assert_eq!(first["outcome"], second["outcome"]);
        assert_eq!(first["outcome"]["hash"], unkept["outcome"]["hash"]);
    }
}
