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

/// A planned failover of a group whose pairs were made on the link that is up, while hosts write: all of them go on, and
/// nobody is told that the other array has no such pair (failover 4925).
#[test]
fn a_group_that_changes_hands_goes_on_as_one() {
    let timeline = common::timeline("pair-group-takeover");
    assert!(!timeline.contains("was removed there"), "{timeline}");
    let (_, after) = timeline.split_once("RemoteFailover { device: \"d0\"").expect("it is taken back");
    assert!(after.contains("p0 at a: Synchronized"), "{after}");
}

/// F3: snapshots of a group on both arrays, while hosts write. When the other array loses its power before it has its part,
/// there is none, and who asks again hears the same (F2).
#[test]
fn a_snapshot_is_on_both_arrays_or_on_neither() {
    let timeline = common::timeline("pair-snapshot");
    for device in ["d0", "d1", "e0", "e1"] {
        let is_read = |name: &str| timeline.contains(&format!("read {device}.{name} 0+65536"));
        assert_eq!(["s0", "s1", "s2"].map(is_read), [true, false, true], "{timeline}");
    }
    let refused = " refused: the other array: the link to the other array is down";
    assert_eq!(timeline.matches(refused).count(), 2, "{timeline}");
}
