//! A dozen small plans, and what came of each: the timeline as a person reads it, without the pages of the metadata
//! file. A change of a snapshot is a change of what the array does, or of the order in which it does it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn timeline(name: &str) -> String {
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/{name}.plan"));
    let job = json!({ "run": { "plan": plan }, "keep": true });
    // In a process of its own, see `runs.rs`.
    let output =
        Command::new(env!("CARGO_BIN_EXE_twintrack-sim")).arg(job.to_string()).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let text = report["outcome"]["timeline"].as_str().expect("it was asked for");
    assert_eq!(report["outcome"]["violations"], json!([]), "{text}");
    let lines = text.lines().filter(|line| !line.contains(" metadata "));
    lines.map(str::trim_end).collect::<Vec<_>>().join("\n")
}

macro_rules! timelines {
    ($($test:ident $plan:literal $what:literal;)*) => {
        $(
            #[doc = $what]
            #[test]
            fn $test() {
                insta::assert_snapshot!($plan, timeline($plan));
            }
        )*
    };
}

timelines! {
    io_flush_cut "io-flush-cut" "Writes, a flush, and a power cut among the disk operations.";
    fua_and_kill "fua-and-kill" "A write with FUA to the partial last track; the program is killed.";
    trim_and_zero "trim-and-zero" "Trim and write zeroes of tracks whole and in part.";
    first_write "first-write-after-session" "D3: the first write after *Establish* goes elsewhere.";
    session_survives_cut "session-survives-cut" "D7: a power cut about *Activate*.";
    virtual_writes "virtual-writes" "D4, D5: two virtual devices of one instant, written to.";
    group_of_two "group-of-two" "D8: two devices at one instant, under load.";
    deactivate_and_read "deactivate-and-read" "D15: changed tracks told and read.";
    full_pool "full-pool" "A full pool fails the oldest session, not the write.";
    failed_sync "failed-sync" "Crash rule 9: a failed sync.";
    cut_while_formatting "cut-while-formatting" "Crash rule 8: formatted anew.";
    two_hosts "two-hosts-one-device" "Overlapping writes of two hosts, and broken connections.";
}
