//! Whole runs.

mod common;

use serde_json::json;
use twintrack_sim::plan::Scenario;

use common::work;

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
