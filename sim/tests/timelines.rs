//! A dozen small plans, and what came of each: the timeline as a person reads it, without the pages of the metadata
//! file. A change of a snapshot is a change of what the array does, or of the order in which it does it.

mod common;

fn timeline(name: &str) -> String {
    let text = common::timeline(name);
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
    parts_over_a_cut "parts-over-a-cut" "D19: one virtual device of three parts of two devices, over a power cut.";
    deactivate_and_read "deactivate-and-read" "D15: changed tracks told and read.";
    full_pool "full-pool" "A full pool fails the oldest session, not the write.";
    failed_sync "failed-sync" "Crash rule 9: a failed sync.";
    cut_while_formatting "cut-while-formatting" "Crash rule 8: formatted anew.";
    two_hosts "two-hosts-one-device" "Overlapping writes of two hosts, and broken connections.";
}
