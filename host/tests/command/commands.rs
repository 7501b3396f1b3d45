//! Every command: what it asks the array, and what it prints.

use twintrack_host::manage::{
    Answer, ArrayInfo, ByteRange, ChangedTracks, Command, DeviceInfo, DeviceInfoKind, Differences,
    PinnedInfo, PinnedKind, PoolInfo, SessionInfo, SessionInfoState, TrackRange, WhenFull,
};

use crate::array::{Act, Array, Asked, Ended, ended, twintrack};

pub fn device(name: &str) -> DeviceInfo {
    let kind = DeviceInfoKind::Standard { pool: "main".to_owned(), sessions: 1 };
    DeviceInfo {
        id: 1,
        name: name.to_owned(),
        size_bytes: 10 << 30,
        kind,
        online: true,
        reserved: false,
        copies: Vec::new(),
    }
}

fn virtual_device(name: &str) -> DeviceInfo {
    let kind = DeviceInfoKind::Virtual { shows: Vec::new() };
    DeviceInfo {
        id: 2,
        name: name.to_owned(),
        size_bytes: 0,
        kind,
        online: true,
        reserved: false,
        copies: Vec::new(),
    }
}

pub fn session(id: u32, state: SessionInfoState) -> SessionInfo {
    let is_related = state != SessionInfoState::Registered;
    SessionInfo {
        id,
        standard: "db".to_owned(),
        tracks: None,
        virtual_device: is_related.then(|| "db-monday".to_owned()),
        state,
        group: None,
        activated_ms: (state == SessionInfoState::Active).then_some(1_767_225_599_001),
        pinned: None,
    }
}

/// What is asked and printed for people; it has to end well, and say nothing on standard error.
pub fn run(line: &str, answers: &[Answer]) -> (Vec<String>, String) {
    let array = Array::answers(answers.to_vec());
    let Ended { code, stdout, stderr } = array.run(line);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}");
    (array.asked(), stdout)
}

/// What a command asks, when it gets this answer.
pub fn asked(line: &str, answer: Answer) -> String {
    let (asked, _) = run(line, &[answer]);
    asked.join("\n")
}

/// What a command prints, when it gets this answer.
pub fn printed(line: &str, answer: Answer) -> String {
    run(line, &[answer]).1
}

#[test]
fn commands_on_devices_are_sent() {
    let answer = || Answer::Device(device("db"));
    for (line, expected) in [
        (
            "device create db 10G",
            r#"{"command":"device-create","name":"db","size_bytes":10737418240,"pool":null}"#,
        ),
        (
            "device create db 64MiB --pool fast",
            r#"{"command":"device-create","name":"db","size_bytes":67108864,"pool":"fast"}"#,
        ),
        ("device create v --virtual", r#"{"command":"device-create-virtual","name":"v"}"#),
        ("device show db", r#"{"command":"device-show","name":"db"}"#),
        ("device rename db log", r#"{"command":"device-rename","name":"db","to":"log"}"#),
        ("device resize db 1TiB", r#"{"command":"device-resize","name":"db","size_bytes":1099511627776}"#),
        ("device online db", r#"{"command":"device-online","name":"db","online":true}"#),
        ("device offline db", r#"{"command":"device-online","name":"db","online":false}"#),
        ("device reserve db", r#"{"command":"device-reserve","name":"db","reserved":true}"#),
        ("device unreserve db", r#"{"command":"device-reserve","name":"db","reserved":false}"#),
    ] {
        assert_eq!(asked(line, answer()), expected, "{line}");
    }
    assert_eq!(asked("device delete db", Answer::Done), r#"{"command":"device-delete","name":"db"}"#);
    assert_eq!(asked("device list", Answer::Devices(vec![])), r#"{"command":"device-list"}"#);
}

#[test]
fn commands_on_sessions_are_sent() {
    let one = || Answer::Session(session(4, SessionInfoState::Related));
    for (line, expected) in [
        (
            "session register db",
            r#"{"command":"session-register","standard":"db","group":null,"tracks":null}"#,
        ),
        (
            "session register db --group grp-2",
            r#"{"command":"session-register","standard":"db","group":2,"tracks":null}"#,
        ),
        (
            "session register db:0/2-1/14",
            r#"{"command":"session-register","standard":"db","group":null,"tracks":{"first":2,"last":29}}"#,
        ),
        ("session relate 4 v", r#"{"command":"session-relate","session":4,"virtual_device":"v"}"#),
        ("session relate ses-4 v", r#"{"command":"session-relate","session":4,"virtual_device":"v"}"#),
        ("session deactivate ses-4", r#"{"command":"session-deactivate","session":4}"#),
    ] {
        assert_eq!(asked(line, one()), expected, "{line}");
    }
    assert_eq!(asked("session remove 4", Answer::Done), r#"{"command":"session-remove","session":4}"#);
    let some = || Answer::Sessions(vec![session(4, SessionInfoState::Active)]);
    for (line, expected) in [
        ("session list", r#"{"command":"session-list","standard":null}"#),
        ("session list db", r#"{"command":"session-list","standard":"db"}"#),
        (
            "session activate 4 ses-5 --offline",
            r#"{"command":"session-activate","sessions":[{"session":4,"name":null,"offline":true},{"session":5,"name":null,"offline":true}]}"#,
        ),
        (
            "session activate 4 5 --name a --name b",
            r#"{"command":"session-activate","sessions":[{"session":4,"name":"a","offline":false},{"session":5,"name":"b","offline":false}]}"#,
        ),
    ] {
        assert_eq!(asked(line, some()), expected, "{line}");
    }
}

#[test]
fn commands_on_groups_are_sent() {
    assert_eq!(asked("group begin", Answer::Group(2)), r#"{"command":"group-begin"}"#);
    assert_eq!(asked("group list", Answer::Groups(vec![])), r#"{"command":"group-list"}"#);
    assert_eq!(asked("group cancel 2", Answer::Sessions(vec![])), r#"{"command":"group-cancel","group":2}"#);
    for (line, expected) in [
        ("group process 2", r#"{"command":"group-process","group":2,"mode":"synchronous","options":[]}"#),
        (
            "group process grp-2 --one-by-one --name ses-4=new --offline 5",
            r#"{"command":"group-process","group":2,"mode":"one-by-one","options":[{"session":4,"name":"new","offline":false},{"session":5,"name":null,"offline":true}]}"#,
        ),
    ] {
        assert_eq!(asked(line, Answer::Sessions(vec![])), expected, "{line}");
    }
}

#[test]
fn answers_are_tables_for_people() {
    let devices = Answer::Devices(vec![device("db"), virtual_device("db-monday")]);
    insta::assert_snapshot!(printed("device list", devices), @r#"
    NAME       KIND        SIZE  POOL  SESSIONS  HOSTS
    db         standard  10 GiB  main  1         online
    db-monday  virtual        -  -     -         online
    "#);
    insta::assert_snapshot!(printed("device show db", Answer::Device(device("db"))), @r#"
    name      db
    id        dev-1
    kind      standard
    pool      main
    sessions  1
    pairs     simplex
    size      10 GiB (10737418240 bytes)
    hosts     online
    "#);
    insta::assert_snapshot!(printed("device create v --virtual", Answer::Device(virtual_device("v"))), @r#"
    NAME  KIND     SIZE  POOL  SESSIONS  HOSTS
    v     virtual     -  -     -         online
    "#);
    let sessions = [SessionInfoState::Registered, SessionInfoState::Active, SessionInfoState::Failed];
    let sessions = sessions.into_iter().zip(1..).map(|(state, id)| session(id, state)).collect();
    insta::assert_snapshot!(printed("session list", Answer::Sessions(sessions)), @r#"
    SESSION  STANDARD  VIRTUAL    STATE       GROUP  ACTIVATED
    ses-1    db        -          registered  -      -
    ses-2    db        db-monday  active      -      2025-12-31T23:59:59.001Z
    ses-3    db        db-monday  failed      -      -
    "#);
    let pair = "pair-771feb95a8845ebd-1".to_owned();
    let pinned = Some(PinnedInfo { what: PinnedKind::SafetyCopy, pair, needed: true });
    let kept = SessionInfo { pinned, ..session(9, SessionInfoState::Active) };
    let sessions = vec![session(4, SessionInfoState::Active), kept];
    insta::assert_snapshot!(printed("session list db", Answer::Sessions(sessions)), @r#"
    SESSION  STANDARD  VIRTUAL    STATE   GROUP  ACTIVATED                 PINNED
    ses-4    db        db-monday  active  -      2025-12-31T23:59:59.001Z  -
    ses-9    db        db-monday  active  -      2025-12-31T23:59:59.001Z  safety copy of pair-771feb95a8845ebd-1
    "#);
    let tracks = Some(TrackRange { first: 2, last: 29 });
    let part = SessionInfo { tracks, ..session(4, SessionInfoState::Active) };
    insta::assert_snapshot!(printed("session list db", Answer::Sessions(vec![part])), @r#"
    SESSION  STANDARD     VIRTUAL    STATE   GROUP  ACTIVATED
    ses-4    db:0/2-1/14  db-monday  active  -      2025-12-31T23:59:59.001Z
    "#);
    let registered = Answer::Session(session(4, SessionInfoState::Registered));
    assert_eq!(printed("session register db", registered), "ses-4\n");
    assert_eq!(printed("group begin", Answer::Group(2)), "grp-2\n");
    assert_eq!(printed("group list", Answer::Groups(vec![2, 5])), "grp-2\ngrp-5\n");
    assert_eq!(printed("device delete db", Answer::Done), "");
}

fn pool() -> PoolInfo {
    PoolInfo {
        name: "main".to_owned(),
        size_bytes: 100 << 30,
        data_bytes: 10 << 30,
        log_bytes: 3 << 29,
        free_bytes: (100 << 30) - (10 << 30) - (3 << 29),
        when_full: WhenFull::RefuseWrites,
        warn_below_bytes: 10 << 30,
    }
}

fn array_info() -> ArrayInfo {
    ArrayInfo {
        serial: "0123456789abcdef".to_owned(),
        version: "0.1.0".to_owned(),
        track_bytes: 65536,
        devices: 3,
        sessions: 2,
        warnings: vec!["ses-2 failed: remove it".to_owned()],
    }
}

#[test]
fn the_array_and_its_space_are_shown() {
    insta::assert_snapshot!(printed("pool list", Answer::Pools(vec![pool()])), @r#"
    NAME     SIZE    DATA      LOG      FREE  WARN BELOW  WHEN FULL
    main  100 GiB  10 GiB  1.5 GiB  88.5 GiB      10 GiB  refuse-writes
    "#);
    let (asked, printed) = run("array show", &[Answer::Array(array_info()), Answer::Pools(vec![pool()])]);
    assert_eq!(asked, [r#"{"command":"array-show"}"#, r#"{"command":"pool-list"}"#]);
    insta::assert_snapshot!(printed, @r#"
    serial     0123456789abcdef
    version    0.1.0
    track      64 KiB
    devices    3
    sessions   2
    size       100 GiB
    data       10 GiB
    log        1.5 GiB
    free       88.5 GiB
    when full  refuse-writes
    warning    ses-2 failed: remove it
    "#);
}

/// Programs rely on it: the library's own types, one line.
#[test]
fn json_is_that_of_the_library() {
    let related = session(4, SessionInfoState::Related);
    for (line, answer, expected) in [
        (
            "device list --json",
            Answer::Devices(vec![device("db"), virtual_device("v")]),
            r#"[{"id":1,"name":"db","size_bytes":10737418240,"kind":{"kind":"standard","pool":"main","sessions":1},"online":true},{"id":2,"name":"v","size_bytes":0,"kind":{"kind":"virtual","shows":[]},"online":true}]"#,
        ),
        (
            "--json session register db",
            Answer::Session(related),
            r#"{"id":4,"standard":"db","tracks":null,"virtual_device":"db-monday","state":"related","group":null,"activated_ms":null,"pinned":null}"#,
        ),
        (
            "pool list --json",
            Answer::Pools(vec![pool()]),
            r#"[{"name":"main","size_bytes":107374182400,"data_bytes":10737418240,"log_bytes":1610612736,"free_bytes":95026151424,"when_full":"refuse-writes","warn_below_bytes":10737418240}]"#,
        ),
        (
            "array show --json",
            Answer::Array(array_info()),
            r#"{"serial":"0123456789abcdef","version":"0.1.0","track_bytes":65536,"devices":3,"sessions":2,"warnings":["ses-2 failed: remove it"]}"#,
        ),
        (
            "session changed 4 --json",
            Answer::Changed(ChangedTracks { tracks: vec![3, 4], next: None }),
            r#"{"tracks":[3,4],"next":null}"#,
        ),
        ("group begin --json", Answer::Group(2), "2"),
        ("group list --json", Answer::Groups(vec![2, 5]), "[2,5]"),
        ("device delete db --json", Answer::Done, "null"),
    ] {
        assert_eq!(printed(line, answer), format!("{expected}\n"), "{line}");
    }
}

/// The array can be named in three ways; the option is stronger than the environment.
#[test]
fn the_array_is_named_by_folder_endpoint_or_environment() {
    let array = Array::start(|_| Act::Answer(Answer::Group(2)));
    let folder = array.folder().display();
    for line in [
        format!("-a {folder} group begin"),
        format!("group begin --array {folder}"),
        format!("group -a unix:{folder}/control.sock begin"),
    ] {
        let mut process = twintrack(&line);
        process.env("TWINTRACK_ARRAY", "/nonexistent");
        let Ended { code, stdout, stderr } = ended(process);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "grp-2\n", ""), "{line}");
    }
    assert_eq!(array.run("group begin").code, Some(0));
}

/// An array that knows three commands of *Establish* and more; what it was told is in `asked`.
#[test]
fn establish_does_all_of_it() {
    let mut last = 6;
    let array = Array::start(move |asked| {
        let Asked::Command(command) = asked else { return Act::Cut };
        Act::Answer(match command {
            Command::GroupBegin {} => Answer::Group(1),
            Command::DeviceShow { name } => Answer::Device(virtual_device(&name)),
            Command::SessionRegister { .. } => {
                last += 1;
                Answer::Session(session(last, SessionInfoState::Registered))
            }
            Command::SessionRelate { session: id, .. } => {
                Answer::Session(session(id, SessionInfoState::Related))
            }
            Command::GroupProcess { options, .. } => Answer::Sessions(
                options.iter().map(|option| session(option.session, SessionInfoState::Active)).collect(),
            ),
            _ => return Act::Cut,
        })
    });
    let ended = array.run("session establish db=v log=w --name a --name b --offline --one-by-one");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(ended.stdout, @r#"
    SESSION  STANDARD  VIRTUAL    STATE   GROUP  ACTIVATED
    ses-7    db        db-monday  active  -      2025-12-31T23:59:59.001Z
    ses-8    db        db-monday  active  -      2025-12-31T23:59:59.001Z
    "#);
    insta::assert_snapshot!(array.asked().join("\n"), @r#"
    {"command":"group-begin"}
    {"command":"device-show","name":"v"}
    {"command":"session-register","standard":"db","group":1,"tracks":null}
    {"command":"session-relate","session":7,"virtual_device":"v"}
    {"command":"device-show","name":"w"}
    {"command":"session-register","standard":"log","group":1,"tracks":null}
    {"command":"session-relate","session":8,"virtual_device":"w"}
    {"command":"group-process","group":1,"mode":"one-by-one","options":[{"session":7,"name":"a","offline":true},{"session":8,"name":"b","offline":true}]}
    "#);
}

#[test]
fn relating_checks_the_group_if_one_is_named() {
    let mut waiting = session(4, SessionInfoState::Registered);
    waiting.group = Some(2);
    let related = session(4, SessionInfoState::Related);
    let answers = [Answer::Sessions(vec![waiting.clone()]), Answer::Session(related)];
    let (asked, _) = run("session relate 4 v --group 2", &answers);
    assert_eq!(asked.len(), 2);

    let array = Array::answers([Answer::Sessions(vec![waiting])]);
    let ended = array.run("session relate 4 v --group 3");
    assert_eq!((ended.code, array.asked().len()), (Some(1), 1));
    assert!(ended.stderr.starts_with("error: ses-4 does not wait in grp-3: register it"), "{}", ended.stderr);
}

#[test]
fn changed_tracks_are_paged_through() {
    let pages = || {
        [
            Answer::Changed(ChangedTracks { tracks: vec![0, 1, 2, 9], next: Some(10) }),
            Answer::Changed(ChangedTracks { tracks: vec![10, 11], next: Some(4096) }),
            Answer::Changed(ChangedTracks { tracks: vec![5000], next: None }),
        ]
    };
    let (asked, printed) = run("session changed ses-4", &pages());
    assert_eq!(printed, "0-2\n9-11\n5000\n");
    assert_eq!(asked[2], r#"{"command":"session-changed","session":4,"from_track":4096}"#);
    let (_, printed) = run("session changed ses-4 --json", &pages());
    assert_eq!(printed, "{\"tracks\":[0,1,2,9,10,11,5000],\"next\":null}\n");
}

#[test]
fn differences_are_paged_through() {
    let range = |offset, length| ByteRange { offset, length };
    let pages = || {
        [
            Answer::Differences(Differences { ranges: vec![range(4096, 4096)], next: Some(8192) }),
            Answer::Differences(Differences { ranges: vec![range(8192, 512)], next: Some(65536) }),
            Answer::Differences(Differences { ranges: vec![range(1 << 43, 65536)], next: None }),
        ]
    };
    let (asked, printed) = run("session diff ses-4", &pages());
    let expected = [
        "        OFFSET           BYTES",
        "          4096            4608",
        " 8796093022208           65536",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(asked[1], r#"{"command":"session-diff","session":4,"other":null,"from_byte":8192}"#);
    let (asked, printed) = run("session diff 4 ses-6 --json", &pages());
    let expected =
        r#"{"ranges":[{"offset":4096,"length":4608},{"offset":8796093022208,"length":65536}],"next":null}"#;
    assert_eq!(printed, format!("{expected}\n"));
    assert_eq!(asked[0], r#"{"command":"session-diff","session":4,"other":6,"from_byte":0}"#);
}

#[test]
fn tracks_are_written_as_they_are() {
    let tracks: Vec<u8> = (0..3 * 65536u32).map(|n| (n % 251) as u8).collect();
    let array = Array::start({
        let tracks = tracks.clone();
        move |_| Act::Bytes(tracks.clone())
    });
    let mut process = twintrack("session read ses-4 9 1-2");
    let output = process.env("TWINTRACK_ARRAY", array.folder()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == tracks);

    let file = array.folder().join("tracks");
    for (json, said) in [("", ""), ("--json", "null\n")] {
        let ended = array.run(&format!("session read 4 9 -o {} {json}", file.display()));
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), said, ""));
        assert!(std::fs::read(&file).unwrap() == tracks);
        std::fs::remove_file(&file).unwrap();
    }
    assert_eq!(
        array.asked(),
        ["/v1/session/4/track/9,1-2", "/v1/session/4/track/9", "/v1/session/4/track/9"]
    );
}
