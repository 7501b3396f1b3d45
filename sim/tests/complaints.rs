//! What users of other replicated storage suffer from, each as a small plan that is run here: see the table in
//! `docs/simulator.md`. The oracles look on as in every run; a test says besides that the plan came to what it is about.

mod common;

use common::timeline;

/// The part of it in which faults strike.
fn while_faults_strike(timeline: &str) -> &str {
    timeline.split_once("no more faults").expect("they end").0
}

/// What follows a piece of text in each line that has it, up to the next space or the end.
fn told<'a>(timeline: &'a str, piece: &str) -> Vec<&'a str> {
    let after = |line: &'a str| Some(line.split_once(piece)?.1);
    timeline.lines().filter_map(after).map(|rest| rest.split(' ').next().unwrap_or(rest)).collect()
}

/// How often the second follows the first.
fn turns(statuses: &[&str], from: &str, to: &str) -> usize {
    statuses.windows(2).filter(|both| **both == [from, to]).count()
}

/// Resync that sticks, loops, runs backwards (LINBIT/drbd #40, #46, #143; crucible #837, #968): one that is broken off by
/// the link, by a crash of the one side and of the other, goes on by itself each time, and ends.
#[test]
fn a_resync_that_is_broken_off_ends() {
    let timeline = timeline("pair-resync-broken-off");
    let statuses = told(while_faults_strike(&timeline), "p0 at a: ");
    assert!(turns(&statuses, "SyncInProg", "Partitioned") >= 3, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"Synchronized"));
}

/// "Healthy" and wrong, and a verify that cries wolf (drbd #30, #68; longhorn #13139, #1298): comparisons while hosts write
/// find nothing, until a sector of one half becomes another one; that one they find, and set right.
#[test]
fn a_comparison_finds_what_differs_and_nothing_else() {
    let timeline = timeline("pair-verify-while-writing");
    let found = told(while_faults_strike(&timeline), "12 tracks compared, differing ");
    assert_eq!(found, ["[]", "[]", "[]", "[]", "[5]", "[]"]);
}

/// Split brain that is spurious (ceph-csi #3209): links that break and arrays that crash, the one that serves last of all,
/// make none.
#[test]
fn without_force_there_is_no_split_brain() {
    let timeline = timeline("pair-cut-without-force");
    assert!(turns(&told(&timeline, "p0 at a: "), "Synchronized", "Partitioned") >= 2);
    assert!(!timeline.contains("Diverged"));
}

/// Split brain that is resolved automatically into data loss (drbd #37): whatever breaks and comes back, nothing moves until
/// a person has chosen, and what the other half had is kept.
#[test]
fn a_split_brain_waits_for_a_person() {
    let timeline = timeline("pair-split-brain");
    let (before, after) = timeline.split_once("Resolve {").expect("somebody chooses");
    let (_, split) = before.split_once("p0 at a: Diverged").expect("it is told");
    for site in ["p0 at a: ", "p0 at b: "] {
        assert!(told(split, site).iter().all(|status| *status == "Diverged"), "{split}");
    }
    assert!(after.contains("p0: what lost is kept as e0.lost-"));
    assert!(told(after, "p0 at a: ").contains(&"Synchronized"));
}

/// I/O that hangs for ever and cannot be stopped (drbd #100, #109, #120, #140; crucible #993): a link that falls silent for
/// fifty seconds holds writes up for five. Then the one pair goes on alone, and the frozen one gives errors.
#[test]
fn a_silent_link_holds_nothing_up_for_long() {
    let timeline = timeline("pair-silent-link");
    let struck = while_faults_strike(&timeline);
    let (_, silent) = struck.split_once("OneWay").expect("it falls silent");
    assert_eq!(silent.matches("done").count(), 3, "{silent}");
    assert_eq!(silent.matches("d1: the server refused: input/output error").count(), 3, "{silent}");
    let ends_ms: u64 =
        struck.lines().last().and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap();
    assert!(ends_ms < 6000, "{ends_ms}");
}

/// Corruption when block size and copy unit do not align during a rebuild (longhorn #4354): sectors are written, trimmed and
/// zeroed at odd places, across the ends of tracks and at the end of a device that is no whole number of blocks, while
/// its tracks are copied.
#[test]
fn sectors_written_during_a_resync() {
    let timeline = timeline("pair-odd-resync");
    let struck = while_faults_strike(&timeline);
    let (_, copying) = struck.split_once("p0 at a: SyncInProg").expect("it is copied");
    let (copying, _) = copying.split_once("link is down").expect("the link breaks");
    assert!(copying.matches(" write d0 ").count() > 20, "{copying}");
    let statuses = told(struck, "p0 at a: ");
    assert_eq!(turns(&statuses, "SyncInProg", "Synchronized"), 1, "{statuses:?}");
    assert!(timeline.contains("p0: 0 tracks differ, found []"));
}
