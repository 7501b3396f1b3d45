//! Copies within the array: pairs (C1, C2, C5 to C9, C13), schedules and restores (D9 to D13).

use twintrack_host::manage::{Answer, PairCalled, PairInfo, PairPace, PairStage, ScheduleInfo};

use crate::array::{Array, ended, twintrack};
use crate::commands::{asked, device, printed};

fn pair() -> PairInfo {
    PairInfo {
        number: 1,
        primary: "db".to_owned(),
        secondary: "db-night".to_owned(),
        status: PairStage::Paired,
        called: PairCalled::Pending,
        back: false,
        pace: PairPace::Medium,
        tracks: 1024,
        to_copy_tracks: 0,
        moved_to_track: None,
        unequal_tracks: 1024,
        copied_ms: None,
        trouble: None,
    }
}

fn schedule() -> ScheduleInfo {
    ScheduleInfo {
        number: 3,
        primary: "db".to_owned(),
        secondaries: vec!["db-even".to_owned(), "db-odd".to_owned()],
        next: "db-odd".to_owned(),
        next_ms: 1_796_090_400_000,
        every_ms: Some(86_400_000),
        trouble: None,
    }
}

#[test]
fn commands_on_pairs_are_sent() {
    let one = || Answer::Pair(Box::new(pair()));
    for (line, expected) in [
        (
            "pair create db db-night",
            r#"{"command":"pair-create","primary":"db","secondary":"db-night","pace":"medium"}"#,
        ),
        (
            "pair create db --pace adaptive",
            r#"{"command":"pair-create","primary":"db","secondary":null,"pace":"adaptive"}"#,
        ),
        ("pair show db db-night", r#"{"command":"pair-show","primary":"db","secondary":"db-night"}"#),
        (
            "pair copy db db-night",
            r#"{"command":"pair-copy","primary":"db","secondary":"db-night","pace":null}"#,
        ),
        (
            "pair copy db db-night --pace slow",
            r#"{"command":"pair-copy","primary":"db","secondary":"db-night","pace":"slow"}"#,
        ),
        (
            "pair resync db db-night --pace fast",
            r#"{"command":"pair-resync","primary":"db","secondary":"db-night","pace":"fast"}"#,
        ),
        (
            "pair restore db db-night",
            r#"{"command":"pair-restore","primary":"db","secondary":"db-night","discard_before":false,"pace":null}"#,
        ),
        (
            "pair restore db db-night --discard-before --pace medium",
            r#"{"command":"pair-restore","primary":"db","secondary":"db-night","discard_before":true,"pace":"medium"}"#,
        ),
        (
            "pair pace db db-night fast",
            r#"{"command":"pair-pace","primary":"db","secondary":"db-night","pace":"fast"}"#,
        ),
    ] {
        assert_eq!(asked(line, one()), expected, "{line}");
    }
    assert_eq!(asked("pair list", Answer::Pairs(vec![])), r#"{"command":"pair-list"}"#);
    assert_eq!(
        asked("pair delete db db-night", Answer::Done),
        r#"{"command":"pair-delete","primary":"db","secondary":"db-night"}"#
    );
}

#[test]
fn commands_on_schedules_are_sent() {
    for (line, expected) in [
        (
            "pair schedule add db db-even db-odd --at 2026-12-01T02:00:00Z --every 1day",
            r#"{"command":"schedule-add","primary":"db","secondaries":["db-even","db-odd"],"at_ms":1796090400000,"every_ms":86400000}"#,
        ),
        (
            "pair schedule add db db-even",
            r#"{"command":"schedule-add","primary":"db","secondaries":["db-even"],"at_ms":null,"every_ms":null}"#,
        ),
        ("pair schedule list", r#"{"command":"schedule-list"}"#),
    ] {
        assert_eq!(asked(line, Answer::Schedules(vec![])), expected, "{line}");
    }
    assert_eq!(
        asked("pair schedule remove sch-3", Answer::Done),
        r#"{"command":"schedule-remove","schedule":3}"#
    );
}

#[test]
fn commands_on_restores_are_sent() {
    let one = || Answer::Devices(vec![device("db")]);
    for (line, expected) in [
        (
            "session restore 4",
            r#"{"command":"session-restore","restores":[{"session":4,"to":null,"keep":false,"discard_before":false,"name":null,"offline":false,"pace":"fast"}]}"#,
        ),
        (
            "session restore ses-4=other 5 --keep --discard-before --offline --name a --name b --pace slow",
            r#"{"command":"session-restore","restores":[{"session":4,"to":"other","keep":true,"discard_before":true,"name":"a","offline":true,"pace":"slow"},{"session":5,"to":null,"keep":true,"discard_before":true,"name":"b","offline":true,"pace":"slow"}]}"#,
        ),
    ] {
        assert_eq!(asked(line, one()), expected, "{line}");
    }
}

#[test]
fn answers_are_tables_for_people() {
    let copying = PairInfo {
        number: 2,
        secondary: "other".to_owned(),
        status: PairStage::Copying,
        called: PairCalled::SpPending,
        moved_to_track: Some(512),
        unequal_tracks: 7,
        copied_ms: Some(1_796_090_400_000),
        ..pair()
    };
    let back = PairInfo {
        number: 3,
        called: PairCalled::Resync,
        back: true,
        to_copy_tracks: 40,
        moved_to_track: None,
        ..copying.clone()
    };
    insta::assert_snapshot!(printed("pair list", Answer::Pairs(vec![pair(), copying, back])), @r#"
    PAIR    PRIMARY  SECONDARY  CALLED      STATUS                  PROGRESS                       UNEQUAL  PACE    AS OF
    copy-1  db       db-night   pending     paired and not copied   -                         1024 of 1024  medium  -
    copy-2  db       other      SP-pending  copy in progress        512 of 1024 tracks moved     7 of 1024  medium  2026-12-01T02:00:00.000Z
    copy-3  db       other      re-sync     copy in progress, back  40 tracks to copy            7 of 1024  medium  2026-12-01T02:00:00.000Z
    "#);
    let stuck = PairInfo {
        status: PairStage::Copying,
        called: PairCalled::Suspend,
        trouble: Some("the pool of the target is full: add a store".to_owned()),
        ..pair()
    };
    insta::assert_snapshot!(printed("pair show db db-night", Answer::Pair(Box::new(stuck))), @r#"
    PAIR    PRIMARY  SECONDARY  CALLED   STATUS            PROGRESS       UNEQUAL  PACE    AS OF
    copy-1  db       db-night   suspend  copy in progress  -         1024 of 1024  medium  -
    It does not go on: the pool of the target is full: add a store.
    "#);
    let schedules = Answer::Schedules(vec![schedule(), ScheduleInfo { every_ms: None, ..schedule() }]);
    insta::assert_snapshot!(printed("pair schedule list", schedules), @r#"
    SCHEDULE  PRIMARY  SECONDARIES      EVERY  NEXT                      TO      TROUBLE
    sch-3     db       db-even, db-odd  1day   2026-12-01T02:00:00.000Z  db-odd  -
    sch-3     db       db-even, db-odd  once   2026-12-01T02:00:00.000Z  db-odd  -
    "#);
    insta::assert_snapshot!(printed("session restore 4", Answer::Devices(vec![device("db")])), @r#"
    NAME  KIND        SIZE  POOL  SESSIONS  HOSTS
    db    standard  10 GiB  main  1         online
    "#);
}

#[test]
fn answers_are_json_for_programs() {
    insta::assert_snapshot!(printed("pair list --json", Answer::Pairs(vec![pair()])), @r#"
    [{"number":1,"primary":"db","secondary":"db-night","status":"paired and not copied","called":"pending","back":false,"pace":"medium","tracks":1024,"to_copy_tracks":0,"moved_to_track":null,"unequal_tracks":1024,"copied_ms":null,"trouble":null}]
    "#);
    insta::assert_snapshot!(printed("pair schedule list --json", Answer::Schedules(vec![schedule()])), @r#"
    [{"number":3,"primary":"db","secondaries":["db-even","db-odd"],"next":"db-odd","next_ms":1796090400000,"every_ms":86400000,"trouble":null}]
    "#);
}

/// What cannot be meant is said before anything is asked.
#[test]
fn nothing_is_asked_of_what_cannot_be_meant() {
    for line in [
        "pair create db x --pace quick",
        "pair schedule add db",
        "pair schedule add db x --every 0s",
        "pair schedule add db x --every soon",
        "pair schedule add db x --at tomorrow",
        "pair schedule remove ses-4",
        "session restore",
        "session restore x",
        "session restore 4 --name a --name b",
    ] {
        let array = Array::answers([]);
        let mut process = twintrack(line);
        process.env("TWINTRACK_ARRAY", array.folder());
        let end = ended(process);
        assert_eq!((end.code, array.asked().len()), (Some(2), 0), "{line}: {}", end.stderr);
        assert!(end.stderr.starts_with("error: "), "{line}: {}", end.stderr);
    }
}
