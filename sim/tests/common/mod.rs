//! Runs, each in a process of its own: tokio numbers tasks through the whole process, and the order in which a crashed
//! array's tasks are dropped goes by these numbers.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Runs a job; its report.
pub fn work(job: &Value) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_twintrack-sim")).arg(job.to_string()).output().expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a plan of the folder `plans`, which has to pass; its timeline.
pub fn timeline(name: &str) -> String {
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/{name}.plan"));
    let outcome = work(&json!({ "run": { "plan": plan }, "keep": true }))["outcome"].take();
    let text = outcome["timeline"].as_str().expect("it was asked for");
    assert_eq!(outcome["violations"], json!([]), "{text}");
    text.into()
}
