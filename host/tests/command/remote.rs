//! Links and remote pairs: what is asked, and what is printed.

use twintrack_host::manage::{
    Answer, LinkInfo, LinkInfoState, LinkTestInfo, PairCause, PairData, PairHalf, PairLink, PairMode,
    PairPace, PairPolicy, PairRole, PairStatusInfo, RefusalCode, RemoteInfo, RemoteSnapshotInfo,
    SafetyCopyInfo, SessionInfo, SessionInfoState, VerifyInfo,
};

use crate::array::{Act, Array, Asked, Ended};
use crate::commands::{device, run, session};

fn link() -> LinkInfo {
    LinkInfo {
        name: "tokyo".to_owned(),
        endpoint: Some("tcp:tokyo.example:7001".to_owned()),
        serial: None,
        state: LinkInfoState::Connecting,
        why: Some("it is being dialled".to_owned()),
        since_ms: 0,
        round_trip_us: None,
        pairs: 0,
    }
}

fn pair(status: PairStatusInfo) -> RemoteInfo {
    RemoteInfo {
        pair: "pair-771feb95a8845ebd-1".to_owned(),
        device: "db".to_owned(),
        peer: "tokyo".to_owned(),
        peer_device: "db-copy".to_owned(),
        half: PairHalf::R1,
        status,
        role: PairRole::Owner,
        link: PairLink::Up,
        data: PairData::Same,
        cause: PairCause::Moving,
        why: "both halves are the same".to_owned(),
        next: "nothing to do".to_owned(),
        mode: PairMode::Synchronous,
        pace: PairPace::Adaptive,
        policy: PairPolicy::Continue,
        group: None,
        size_bytes: 1 << 30,
        owed_bytes: 0,
        lacked_bytes: 0,
        copied_bytes: 5 << 20,
        copied_bytes_per_s: 0,
        left_s: None,
        since_ms: 0,
        lag_ms: Some(0),
        forced: None,
        diverged: None,
        safety_copy: None,
    }
}

fn one() -> Answer {
    Answer::Remote(Box::new(pair(PairStatusInfo::Synchronized)))
}

/// What is asked last.
fn asked(line: &str, answers: &[Answer]) -> String {
    run(line, answers).0.pop().unwrap()
}

#[test]
fn commands_on_links_are_sent() {
    let added = [Answer::Links(vec![link()])];
    assert_eq!(
        asked("link add tokyo tcp:tokyo.example:7001", &added),
        r#"{"command":"link-add","name":"tokyo","endpoint":"tcp:tokyo.example:7001","serial":null}"#
    );
    assert_eq!(
        asked("link add tokyo --serial 771f", &added),
        r#"{"command":"link-add","name":"tokyo","endpoint":null,"serial":"771f"}"#
    );
    let tested =
        LinkTestInfo { name: "tokyo".to_owned(), round_trip_us: 87, size_bytes: 1 << 20, took_us: 9000 };
    assert_eq!(
        asked("link test tokyo --size 1M", &[Answer::LinkTest(tested)]),
        r#"{"command":"link-test","name":"tokyo","size_bytes":1048576}"#
    );
    assert_eq!(asked("link list", &added), r#"{"command":"link-list"}"#);
    assert_eq!(asked("link remove tokyo", &[Answer::Done]), r#"{"command":"link-remove","name":"tokyo"}"#);
}

#[test]
fn a_pair_is_asked_for_from_either_side() {
    let create = |line: &str| asked(&format!("remote create --request 7 {line}"), &[one()]);
    assert_eq!(
        create("db db-copy@tokyo"),
        r#"{"command":"remote-create","request":7,"device":"db","peer":"tokyo","peer_device":"db-copy","half":"r1","from":"r1","create_local":null,"create_peer":null,"mode":"synchronous","policy":"continue","group":null}"#
    );
    assert_eq!(
        create("db@tokyo db-copy@ --mode adaptive --policy freeze --group g --from r2"),
        r#"{"command":"remote-create","request":7,"device":"db-copy","peer":"tokyo","peer_device":"db","half":"r2","from":"r2","create_local":null,"create_peer":null,"mode":"adaptive","policy":"freeze","group":"g"}"#
    );
    // Both are made; then each in turn, and the content is the other's.
    assert_eq!(
        create("db db@tokyo --create-r1 --create-r2 --size 1G --pool-r2 fast"),
        r#"{"command":"remote-create","request":7,"device":"db","peer":"tokyo","peer_device":"db","half":"r1","from":"r1","create_local":{"pool":null,"size_bytes":1073741824},"create_peer":{"pool":"fast","size_bytes":1073741824},"mode":"synchronous","policy":"continue","group":null}"#
    );
    assert_eq!(
        create("db db@tokyo --create-r1 --size 1G"),
        r#"{"command":"remote-create","request":7,"device":"db","peer":"tokyo","peer_device":"db","half":"r1","from":"r2","create_local":{"pool":null,"size_bytes":1073741824},"create_peer":null,"mode":"synchronous","policy":"continue","group":null}"#
    );
    // The one there is as large as the one here.
    let answers = [Answer::Device(device("db")), one()];
    assert_eq!(
        asked("remote create --request 7 db db@tokyo --create-r2", &answers),
        r#"{"command":"remote-create","request":7,"device":"db","peer":"tokyo","peer_device":"db","half":"r1","from":"r1","create_local":null,"create_peer":{"pool":null,"size_bytes":10737418240},"mode":"synchronous","policy":"continue","group":null}"#
    );
}

#[test]
fn a_pair_that_makes_no_sense_is_not_asked_for() {
    for line in [
        "db db",
        "db@tokyo db@osaka",
        "db db@tokyo --size 1G",
        "db db@tokyo --create-r1",
        "db db@tokyo --pool-r2 fast",
        "db @tokyo",
        "db db@tokyo --mode fast",
        "db db@tokyo --create-r2 --size 1G",
    ] {
        let array = Array::answers([Answer::Device(device("db"))]);
        let Ended { code, stdout, .. } = array.run(&format!("remote create {line}"));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{line}");
        assert!(array.asked().iter().all(|asked| !asked.contains("remote-create")), "{line}");
    }
}

/// F2: the number of the call whose outcome is not known is told; and it is another one each time.
#[test]
fn an_unknown_outcome_can_be_asked_for() {
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let array = Array::start(|_| Act::Cut);
        let Ended { code, stderr, .. } = array.run("remote create db db@tokyo");
        assert_eq!(code, Some(3));
        let asked: serde_json::Value = serde_json::from_str(&array.asked()[0]).unwrap();
        let number = asked["request"].as_u64().unwrap();
        assert!(stderr.contains(&format!("--request {number}")), "{stderr}");
        numbers.push(number);
    }
    assert_ne!(numbers[0], numbers[1]);
    let array = Array::refuses(RefusalCode::WrongState, "db is in a pair already");
    let Ended { code, stderr, .. } = array.run("remote create db db@tokyo");
    assert_eq!(code, Some(1));
    assert!(!stderr.contains("--request"), "{stderr}");
}

#[test]
fn commands_on_pairs_are_sent() {
    for (line, expected) in [
        ("remote show db", r#"{"command":"remote-show","device":"db"}"#),
        (
            "remote suspend db",
            r#"{"command":"remote-suspend","device":"db","whole_group":false,"split":false}"#,
        ),
        (
            "remote suspend db --whole-group --split",
            r#"{"command":"remote-suspend","device":"db","whole_group":true,"split":true}"#,
        ),
        ("remote resume db --whole-group", r#"{"command":"remote-resume","device":"db","whole_group":true}"#),
        ("remote pace db slow", r#"{"command":"remote-pace","device":"db","pace":"slow"}"#),
        ("remote mode db adaptive", r#"{"command":"remote-mode","device":"db","mode":"adaptive"}"#),
        ("remote resolve db --keep R2", r#"{"command":"remote-resolve","device":"db","keep":"r2"}"#),
    ] {
        assert_eq!(asked(line, &[one()]), expected, "{line}");
    }
    let pairs = Answer::Remotes(vec![pair(PairStatusInfo::Synchronized)]);
    assert_eq!(asked("remote list", std::slice::from_ref(&pairs)), r#"{"command":"remote-list"}"#);
    assert_eq!(
        asked("remote failover db --force", std::slice::from_ref(&pairs)),
        r#"{"command":"remote-failover","device":"db","force":true}"#
    );
    let (failback, _) = run("remote failback db", &[one(), pairs]);
    assert_eq!(
        failback,
        [
            r#"{"command":"remote-show","device":"db"}"#,
            r#"{"command":"remote-failover","device":"db","force":false}"#
        ]
    );
    assert_eq!(
        asked("remote delete db --force", &[Answer::Done]),
        r#"{"command":"remote-delete","device":"db","force":true}"#
    );
}

/// What a failover without the other array may have cost is told with it; a planned one costs nothing.
#[test]
fn a_forced_failover_says_what_it_cost() {
    let mut forced = pair(PairStatusInfo::FailedOver);
    forced.why = "a person forced it: what is lost".to_owned();
    let answers = [Answer::Remotes(vec![forced])];
    let array = Array::answers(answers.clone());
    let said = array.run("remote failover db --force").stdout;
    assert!(said.ends_with("\ndb: a person forced it: what is lost\n"), "{said}");
    let array = Array::answers(answers);
    let said = array.run("remote failover db").stdout;
    assert!(!said.contains("what is lost"), "{said}");
}

/// The state of before the copy is chosen by one word more, and never without force.
#[test]
fn a_failover_to_the_safety_copy_is_sent() {
    assert_eq!(
        asked("remote failover db --force --to-safety-copy", &[Answer::Remotes(vec![])]),
        r#"{"command":"remote-go-back","device":"db"}"#
    );
    let array = Array::answers([]);
    let Ended { code, stderr, .. } = array.run("remote failover db --to-safety-copy");
    assert_eq!((code, array.asked().len()), (Some(2), 0));
    assert!(stderr.contains("--force"), "{stderr}");
    let kept = SafetyCopyInfo { session: 9, device: "db.safe-1".to_owned(), since_ms: 1_767_225_599_001 };
    let copying = RemoteInfo { safety_copy: Some(kept), ..pair(PairStatusInfo::SyncInProg) };
    let (_, shown) = run("remote show db", &[Answer::Remote(Box::new(copying))]);
    let line = shown.lines().find(|line| line.starts_with("safety copy")).unwrap();
    assert_eq!(line, "safety copy  ses-9 (db.safe-1), of 2025-12-31T23:59:59.001Z");
}

/// F3: one command, and what it made on both arrays.
#[test]
fn a_snapshot_on_both_arrays_is_sent() {
    let here = SessionInfo { id: 4, standard: "db".to_owned(), ..session(4, SessionInfoState::Active) };
    let made = RemoteSnapshotInfo {
        here,
        peer: "tokyo".to_owned(),
        there: Some(7),
        virtual_device_there: "db-copy.monday".to_owned(),
        shown_there: true,
    };
    let later = RemoteSnapshotInfo { there: None, shown_there: false, ..made.clone() };
    let answer = [Answer::RemoteSnapshots(vec![made, later])];
    let line = "remote snapshot db log --name monday --whole-group --request 77";
    let (mut asked, shown) = run(line, &answer);
    assert_eq!(
        asked.pop().unwrap(),
        r#"{"command":"remote-snapshot","request":77,"devices":["db","log"],"whole_group":true,"name":"monday","offline":false}"#
    );
    insta::assert_snapshot!(shown, @r#"
    DEVICE  SESSION  VIRTUAL    OTHER ARRAY  SESSION  VIRTUAL         SHOWN THERE
    db      ses-4    db-monday  tokyo        ses-7    db-copy.monday  yes
    db      ses-4    db-monday  tokyo        -        db-copy.monday  at the next contact
    "#);
    let array = Array::answers([]);
    let Ended { code, stderr, .. } = array.run("remote snapshot db --name monday --request 77");
    assert_eq!(code, Some(3));
    assert!(stderr.contains("once more with --request 77"), "{stderr}");
    assert_eq!(array.run("remote snapshot --name monday").code, Some(2));
}

#[test]
fn the_way_back_leads_to_r1() {
    let r2 = RemoteInfo { half: PairHalf::R2, ..pair(PairStatusInfo::FailedOver) };
    let array = Array::answers([Answer::Remote(Box::new(r2))]);
    let Ended { code, stderr, .. } = array.run("remote failback db");
    assert_eq!((code, array.asked().len()), (Some(1), 1));
    insta::assert_snapshot!(stderr.replace(&array.folder().display().to_string(), "ARRAY"), @r#"
    error: db is R2, and failback makes R1 serve: ask the array that tokyo is here, for db-copy
      next: see `twintrack remote show db`
    "#);
}

#[test]
fn pairs_are_tables_for_people() {
    let syncing = RemoteInfo {
        device: "log".to_owned(),
        half: PairHalf::R2,
        role: PairRole::Standby,
        group: Some("night".to_owned()),
        lacked_bytes: 3 << 20,
        ..pair(PairStatusInfo::SyncInProg)
    };
    let (_, list) = run("remote list", &[Answer::Remotes(vec![pair(PairStatusInfo::Synchronized), syncing])]);
    insta::assert_snapshot!(list, @r#"
    DEVICE  HALF  STATUS        HOSTS  MODE         OTHER HALF     GROUP  OWED  LACKED
    db      r1    Synchronized  here   synchronous  db-copy@tokyo  -       0 B     0 B
    log     r2    SyncInProg    there  synchronous  db-copy@tokyo  night   0 B   3 MiB
    "#);
    let (_, shown) = run("remote show db", &[one()]);
    insta::assert_snapshot!(shown, @r#"
    status      Synchronized
    why         both halves are the same
    next        nothing to do
    pair        pair-771feb95a8845ebd-1
    device      db (r1)
    other half  db-copy@tokyo
    role        owner
    link        up
    data        same
    cause       moving
    mode        synchronous
    pace        adaptive
    policy      continue
    group       -
    size        1 GiB
    owed        0 B
    lacked      0 B
    copied      5 MiB
    lag         none
    "#);
}

fn verified(differing: Vec<u32>, marked: bool) -> Answer {
    let differing_tracks = differing.len() as u64;
    let device = "db".to_owned();
    let (compared_tracks, passed_over_tracks) = (16384, 3);
    Answer::Verified(VerifyInfo {
        device,
        compared_tracks,
        passed_over_tracks,
        differing,
        differing_tracks,
        marked,
    })
}

#[test]
fn halves_that_differ_are_no_good_end() {
    assert_eq!(
        asked("remote verify db", &[verified(vec![], false)]),
        r#"{"command":"remote-verify","device":"db","mark":false}"#
    );
    let array = Array::answers([verified(vec![3, 4, 5, 9], false)]);
    let Ended { code, stdout, stderr } = array.run("remote verify db");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(stdout, @r#"
    device       db
    compared     16384 tracks
    passed over  3 tracks
    differing    4 tracks
    which        3-5, 9
    "#);
    assert!(
        stderr.starts_with(
            "error: the halves of db differ in 4 tracks\n  next: `twintrack remote verify db --mark`"
        ),
        "{stderr}"
    );
    let (_, marked) = run("remote verify db --mark", &[verified(vec![3], true)]);
    assert!(marked.ends_with("marked       yes: they are copied again\n"), "{marked}");
}

#[test]
fn a_copy_is_followed_to_its_end() {
    let steps = [300, 200, 100, 0].map(|mib: u64| {
        let status = if mib > 0 { PairStatusInfo::SyncInProg } else { PairStatusInfo::Synchronized };
        Answer::Remote(Box::new(RemoteInfo { owed_bytes: mib << 20, ..pair(status) }))
    });
    let (asked, lines) = run("remote watch db --interval-ms 10", &steps);
    assert_eq!(asked.len(), 4);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!((lines[0], lines[3]), ("SyncInProg  300 MiB left", "Synchronized"));
    assert!(lines[1].starts_with("SyncInProg  200 MiB left  "), "{lines:?}");
    let (_, json) = run("remote watch db --interval-ms 10 --json", &steps);
    let owed = json.lines().map(|line| serde_json::from_str::<RemoteInfo>(line).unwrap().owed_bytes);
    assert_eq!(owed.collect::<Vec<_>>(), [300 << 20, 200 << 20, 100 << 20, 0]);
    // What goes wrong meanwhile is told.
    let mut first = true;
    let array = Array::start(move |_: Asked| {
        let away = RemoteInfo { why: "there is no link".to_owned(), ..pair(PairStatusInfo::Partitioned) };
        let answer = Act::Answer(Answer::Remote(Box::new(away)));
        if std::mem::take(&mut first) { answer } else { Act::Refuse(RefusalCode::NotFound, "it is gone") }
    });
    let Ended { code, stdout, .. } = array.run("remote watch db --interval-ms 10");
    assert_eq!((code, stdout.as_str()), (Some(1), "Partitioned  there is no link\n"));
}
