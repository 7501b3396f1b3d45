//! Copies by the clock (C8).

use std::time::Duration;

use twintrack_controller::firmware::{HostError, HostOp};
use twintrack_link::manage::{Answer, Command, PairPace, RefusalCode};

use crate::rig::Rig;
use crate::{content, create, first, pair, pair_create, two, write};

/// C8: at a time, then every period, by turns.
#[test]
fn copies_by_the_clock() {
    let mut rig = two();
    create(&mut rig, "f", 4);
    for name in ["e", "f"] {
        let (primary, secondary) = ("d".into(), Some(name.into()));
        pair(&mut rig, Command::PairCreate { primary, secondary, pace: PairPace::Fast }).unwrap();
    }
    let secondaries = vec!["e".into(), "f".into()];
    let (at_ms, every_ms) = (Some(61_000), Some(60_000));
    let add = Command::ScheduleAdd { primary: "d".into(), secondaries, at_ms, every_ms };
    // Commands say that it is 1 s after the beginning of time, and the rig's clock began then.
    rig.command(add).unwrap();
    write(&mut rig, 1, 0, 1);
    rig.wait(Duration::from_secs(59));
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone), "not yet");
    rig.wait(Duration::from_secs(2));
    assert_eq!((content(&mut rig, 2), rig.read(4, 0, 512)), (vec![1, 0, 0, 0], Err(HostError::Gone)));
    write(&mut rig, 1, 0, 2);
    rig.wait(Duration::from_secs(60));
    assert_eq!((content(&mut rig, 2)[0], content(&mut rig, 4)[0]), (1, 2));
    write(&mut rig, 1, 0, 3);
    rig.wait(Duration::from_secs(60));
    assert_eq!((content(&mut rig, 2)[0], content(&mut rig, 4)[0]), (3, 2), "re-synchronized by itself");
    let listed = match rig.command(Command::ScheduleList {}).unwrap() {
        Answer::Schedules(infos) => infos[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((listed.next.as_str(), listed.next_ms, listed.trouble), ("f", 241_000, None));
    rig.command(Command::ScheduleRemove { schedule: listed.number }).unwrap();
    assert_eq!(
        rig.command(Command::ScheduleRemove { schedule: listed.number }).unwrap_err().code,
        RefusalCode::NotFound
    );
}

/// C8: what was missed while the array was out of service is made up for once, for the secondary whose turn it was.
#[test]
fn missed_copies_are_made_up_for_once() {
    let mut rig = two();
    create(&mut rig, "f", 4);
    for name in ["e", "f"] {
        let (primary, secondary) = ("d".into(), Some(name.into()));
        pair(&mut rig, Command::PairCreate { primary, secondary, pace: PairPace::Fast }).unwrap();
    }
    let secondaries = vec!["e".into(), "f".into()];
    let (at_ms, every_ms) = (Some(61_000), Some(60_000));
    rig.command(Command::ScheduleAdd { primary: "d".into(), secondaries, at_ms, every_ms }).unwrap();
    write(&mut rig, 1, 0, 7);
    rig.wait(Duration::from_secs(1));
    rig.do_host(1, HostOp::Flush).unwrap();
    // Out of service over five runs.
    rig.now += Duration::from_secs(320);
    rig.restart();
    let listed = |rig: &mut Rig| match rig.command(Command::ScheduleList {}).unwrap() {
        Answer::Schedules(infos) => (infos[0].next.clone(), infos[0].next_ms),
        other => panic!("{other:?}"),
    };
    listed(&mut rig);
    rig.wait(Duration::from_secs(5));
    [(1, "d"), (2, "e"), (4, "f")].into_iter().for_each(|(conn, name)| rig.attach(conn, name));
    assert_eq!(first(&mut rig, 2, 0), 7);
    assert_eq!(rig.read(4, 0, 512), Err(HostError::Gone), "one run, and not five");
    assert_eq!(listed(&mut rig), ("f".to_owned(), 361_000));
}

/// A half of a remote pair is not reserved; a schedule is one.
#[test]
fn what_makes_no_sense_is_refused() {
    let mut rig = two();
    pair_create(&mut rig);
    let add = |rig: &mut Rig, secondaries: Vec<String>, every_ms| {
        let (primary, at_ms) = ("d".into(), None);
        rig.command(Command::ScheduleAdd { primary, secondaries, at_ms, every_ms }).unwrap_err().code
    };
    assert_eq!(add(&mut rig, vec![], Some(60_000)), RefusalCode::BadRequest);
    assert_eq!(add(&mut rig, vec!["e".into()], Some(999)), RefusalCode::BadRequest);
    assert_eq!(add(&mut rig, vec!["d".into()], Some(60_000)), RefusalCode::NotFound);
}
