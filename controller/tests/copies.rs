//! Copies within the array through a firmware: pairs (C1 to C7, C10, C13), restores (D8 to D14), and what stops them.

mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use rig::{Rig, geometry};
use twintrack_controller::firmware::{AttachError, Effect, Event, HostError, HostOp};
use twintrack_core::{CopyStatus, PoolId, TrackNo};
use twintrack_link::manage::{
    Answer, Command, DeviceInfo, PairCalled, PairInfo, PairPace, PairStage, Refusal, RefusalCode, Restore,
    SessionInfo,
};

const TRACK: u64 = 16 << 10;
const TRACKS: u64 = 4;

fn create(rig: &mut Rig, name: &str, conn: u64) {
    rig.command(Command::DeviceCreate { name: name.into(), size_bytes: TRACKS * TRACK, pool: None }).unwrap();
    rig.attach(conn, name);
}

/// A volume "d" as connection 1, and "e" as connection 2.
fn two() -> Rig {
    let mut rig = Rig::with_device(64, TRACKS * TRACK);
    create(&mut rig, "e", 2);
    rig
}

fn pair(rig: &mut Rig, command: Command) -> Result<PairInfo, Refusal> {
    rig.command(command).map(|answer| match answer {
        Answer::Pair(info) => *info,
        other => panic!("{other:?}"),
    })
}

fn names() -> (String, String) {
    ("d".into(), "e".into())
}

fn pair_create(rig: &mut Rig) -> PairInfo {
    let (primary, secondary) = names();
    pair(rig, Command::PairCreate { primary, secondary: Some(secondary), pace: PairPace::Medium }).unwrap()
}

fn pair_copy(rig: &mut Rig) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairCopy { primary, secondary, pace: None })
}

fn pair_resync(rig: &mut Rig) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairResync { primary, secondary, pace: None })
}

fn pair_restore(rig: &mut Rig, discard_before: bool) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairRestore { primary, secondary, discard_before, pace: None })
}

fn pair_show(rig: &mut Rig) -> PairInfo {
    let (primary, secondary) = names();
    pair(rig, Command::PairShow { primary, secondary }).unwrap()
}

fn restore(rig: &mut Rig, restores: Vec<Restore>) -> Result<Vec<DeviceInfo>, Refusal> {
    rig.command(Command::SessionRestore { restores }).map(|answer| match answer {
        Answer::Devices(devices) => devices,
        other => panic!("{other:?}"),
    })
}

fn back(session: u32, to: Option<&str>) -> Restore {
    let to = to.map(str::to_owned);
    Restore { session, to, keep: false, discard_before: false, name: None, offline: false, pace: None }
}

fn sessions(rig: &mut Rig) -> Vec<SessionInfo> {
    match rig.command(Command::SessionList { standard: None }).unwrap() {
        Answer::Sessions(infos) => infos,
        other => panic!("{other:?}"),
    }
}

/// Writes a whole track.
fn write(rig: &mut Rig, conn: u64, track: u64, fill: u8) {
    rig.write(conn, track * TRACK, TRACK as usize, fill);
    rig.settle();
}

/// The first byte of each track.
fn content(rig: &mut Rig, conn: u64) -> Vec<u8> {
    (0..TRACKS).map(|track| rig.read(conn, track * TRACK, 512).unwrap()[0]).collect()
}

/// C1, C2, C4, C5, C10, C13: one pair through all that it can be.
#[test]
fn a_pair_from_its_creation_to_its_end() {
    let mut rig = two();
    (0..TRACKS).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
    let made = pair_create(&mut rig);
    assert_eq!((made.status, made.called), (PairStage::Paired, PairCalled::Pending));
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone), "hosts do not use the secondary");
    assert_eq!(rig.attach_error("e"), Some(AttachError::NotReady));
    let called_ms = rig.wall_ms();
    let copied = pair_copy(&mut rig).unwrap();
    assert_eq!((copied.status, copied.copied_ms), (PairStage::Copying, Some(called_ms)));
    // Both are used at once, and neither sees the other's writes.
    write(&mut rig, 1, 0, 50);
    write(&mut rig, 2, 1, 60);
    assert_eq!(content(&mut rig, 2), [10, 60, 12, 13]);
    assert_eq!(content(&mut rig, 1), [50, 11, 12, 13]);
    rig.wait(Duration::from_secs(3));
    let split = pair_show(&mut rig);
    assert_eq!((split.status, split.called, split.unequal_tracks), (PairStage::Copied, PairCalled::Split, 2));
    assert_eq!(rig.firmware.tables().used_tracks(), 6, "what is the same is there once");
    assert_eq!(pair_copy(&mut rig).unwrap_err().code, RefusalCode::WrongState);
    let resync = pair_resync(&mut rig).unwrap();
    assert_eq!((resync.called, resync.unequal_tracks), (PairCalled::Resync, 2));
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    assert_eq!(pair_copy(&mut rig).unwrap().to_copy_tracks, 2, "C5: what differs, and no more");
    rig.wait(Duration::from_secs(3));
    assert_eq!(content(&mut rig, 2), [50, 11, 12, 13]);
    assert_eq!(pair_show(&mut rig).called, PairCalled::Duplex);
    let (primary, secondary) = names();
    rig.command(Command::PairDelete { primary, secondary }).unwrap();
    assert_eq!(pair_copy(&mut rig).unwrap_err().code, RefusalCode::NotFound);
    assert_eq!(content(&mut rig, 2), [50, 11, 12, 13]);
    assert!(sessions(&mut rig).is_empty(), "what the copies were made from is gone");
}

/// D14: a mirror is a pair. What was written to the primary since the split is undone by the mirror, and that again by what is kept.
#[test]
fn a_mirror_undoes_what_came_after_the_split() {
    let mut rig = two();
    write(&mut rig, 1, 0, 1);
    pair_create(&mut rig);
    pair_copy(&mut rig).unwrap();
    rig.wait(Duration::from_secs(3));
    write(&mut rig, 1, 0, 2);
    write(&mut rig, 2, 3, 3);
    let restored = pair_restore(&mut rig, false).unwrap();
    assert!(restored.back && restored.to_copy_tracks == 2);
    assert_eq!(content(&mut rig, 1), [1, 0, 0, 3], "at once");
    rig.wait(Duration::from_secs(3));
    let kept = sessions(&mut rig);
    let shown = kept[0].virtual_device.clone().unwrap();
    assert_eq!((kept.len(), shown.as_str()), (1, "d.before-1"));
    restore(&mut rig, vec![back(kept[0].id, None)]).unwrap();
    assert_eq!(content(&mut rig, 1), [2, 0, 0, 0]);
    assert_eq!(content(&mut rig, 2), [1, 0, 0, 3], "the mirror stays as it is");
    rig.wait(Duration::from_secs(3));
    assert_eq!(sessions(&mut rig).len(), 1, "the state between the two");
    pair_resync(&mut rig).unwrap();
    pair_copy(&mut rig).unwrap();
    assert_eq!(content(&mut rig, 2), [2, 0, 0, 0]);
}

/// D10: restored in place, usable at once; other sessions stay as they are; a crash at any moment leaves it restored.
#[test]
fn restored_in_place() {
    for crash in [false, true] {
        let mut rig = Rig::with_device(64, TRACKS * TRACK);
        (0..TRACKS).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
        let other = rig.establish("older", 3);
        write(&mut rig, 1, 0, 20);
        let session = rig.establish("v", 2);
        write(&mut rig, 1, 1, 30);
        write(&mut rig, 2, 2, 40);
        restore(&mut rig, vec![back(session, None)]).unwrap();
        if crash {
            rig.restart();
            rig.attach(1, "d");
            rig.attach(3, "older");
        }
        write(&mut rig, 1, 3, 50);
        assert_eq!(content(&mut rig, 1), [20, 11, 40, 50]);
        assert_eq!(content(&mut rig, 3), [10, 11, 12, 13]);
        rig.wait(Duration::from_secs(3));
        assert_eq!(
            (content(&mut rig, 1), content(&mut rig, 3)),
            (vec![20, 11, 40, 50], vec![10, 11, 12, 13])
        );
        let left: Vec<_> =
            sessions(&mut rig).iter().map(|info| info.virtual_device.clone().unwrap()).collect();
        assert_eq!(left, ["older", "d.before-1"], "v is used up");
        let before = sessions(&mut rig)[1].clone();
        restore(&mut rig, vec![Restore { discard_before: true, ..back(before.id, None) }]).unwrap();
        assert_eq!(content(&mut rig, 1), [20, 30, 12, 13], "undone");
        rig.wait(Duration::from_secs(3));
        assert_eq!(sessions(&mut rig)[0].id, other);
        assert_eq!(sessions(&mut rig).len(), 1);
    }
}

/// D8, D9, D11 to D13: to another device, to a split mirror and to another virtual device, at one instant, renamed and offline.
#[test]
fn restored_elsewhere() {
    let mut rig = two();
    create(&mut rig, "f", 4);
    (0..TRACKS).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
    pair_create(&mut rig);
    pair_copy(&mut rig).unwrap();
    rig.wait(Duration::from_secs(3));
    let [first, second] = [("v", 5), ("w", 6)].map(|(name, conn)| rig.establish(name, conn));
    write(&mut rig, 1, 0, 20);
    write(&mut rig, 2, 1, 30);
    write(&mut rig, 5, 2, 40);
    rig.command(Command::DeviceCreateVirtual { name: "x".into() }).unwrap();
    let to_mirror = Restore { keep: true, discard_before: true, ..back(first, Some("e")) };
    let to_new = Restore { name: Some("g".into()), offline: true, ..back(second, Some("f")) };
    let devices = restore(&mut rig, vec![to_mirror, to_new]).unwrap();
    let told: Vec<_> = devices.iter().map(|info| (info.name.as_str(), info.online)).collect();
    assert_eq!(told, [("e", true), ("g", false)]);
    assert_eq!(content(&mut rig, 2), [10, 11, 40, 13], "the mirror's own writes are undone");
    assert_eq!(content(&mut rig, 1), [20, 11, 12, 13], "the standard device stays in use");
    assert_eq!(rig.read(4, 0, 512), Err(HostError::Gone));
    rig.wait(Duration::from_secs(3));
    rig.command(Command::DeviceOnline { name: "g".into(), online: true }).unwrap();
    assert_eq!(content(&mut rig, 4), [10, 11, 12, 13]);
    restore(&mut rig, vec![back(first, Some("x"))]).unwrap();
    rig.attach(7, "x");
    write(&mut rig, 1, 3, 70);
    write(&mut rig, 7, 0, 80);
    assert_eq!(content(&mut rig, 7), [80, 11, 40, 13]);
    assert_eq!(rig.do_host(5, HostOp::Flush), Err(HostError::Gone), "v is used up");
}

/// What cannot be restored is refused, and changes nothing.
#[test]
fn what_cannot_be_restored() {
    let mut rig = two();
    let session = rig.establish("v", 3);
    rig.command(Command::DeviceCreate { name: "small".into(), size_bytes: TRACK, pool: None }).unwrap();
    rig.command(Command::DeviceCreateVirtual { name: "x".into() }).unwrap();
    let before = rig.metadata.len();
    let code = |rig: &mut Rig, restores| restore(rig, restores).unwrap_err().code;
    assert_eq!(code(&mut rig, vec![]), RefusalCode::BadRequest);
    assert_eq!(code(&mut rig, vec![back(999, None)]), RefusalCode::NotFound);
    assert_eq!(code(&mut rig, vec![back(session, Some("nothing"))]), RefusalCode::NotFound);
    assert_eq!(code(&mut rig, vec![back(session, Some("small"))]), RefusalCode::WrongState);
    assert_eq!(code(&mut rig, vec![back(session, Some("v"))]), RefusalCode::WrongState, "it shows a session");
    let twice = vec![back(session, Some("d")), back(session, Some("e"))];
    assert_eq!(code(&mut rig, twice), RefusalCode::BadRequest);
    let named = Restore { name: Some("e".into()), ..back(session, None) };
    assert_eq!(code(&mut rig, vec![named]), RefusalCode::Exists);
    assert_eq!(rig.metadata.len(), before);
    pair_create(&mut rig);
    assert_eq!(
        code(&mut rig, vec![back(session, Some("e"))]),
        RefusalCode::WrongState,
        "it is held by a pair"
    );
    assert_eq!(geometry().track_bytes() as u64, TRACK);
}

/// C9: the lowest-numbered reserved volume that fits is chosen, and hosts keep off what is reserved.
#[test]
fn a_secondary_is_chosen() {
    let mut rig = two();
    rig.command(Command::DeviceCreate { name: "small".into(), size_bytes: TRACK, pool: None }).unwrap();
    create(&mut rig, "f", 4);
    let choose = |rig: &mut Rig| {
        pair(rig, Command::PairCreate { primary: "d".into(), secondary: None, pace: PairPace::Fast })
    };
    assert_eq!(choose(&mut rig).unwrap_err().code, RefusalCode::WrongState);
    for name in ["small", "f", "e"] {
        rig.command(Command::DeviceReserve { name: name.into(), reserved: true }).unwrap();
    }
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    assert_eq!([choose(&mut rig), choose(&mut rig)].map(|made| made.unwrap().secondary), ["e", "f"]);
    assert_eq!(choose(&mut rig).unwrap_err().code, RefusalCode::WrongState, "none is left");
    pair_copy(&mut rig).unwrap();
    assert_eq!(content(&mut rig, 2), [0; 4], "copied to, it is used");
    let (primary, secondary) = names();
    rig.command(Command::PairDelete { primary, secondary }).unwrap();
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    rig.command(Command::DeviceReserve { name: "e".into(), reserved: false }).unwrap();
    assert_eq!(content(&mut rig, 2), [0; 4]);
    rig.command(Command::DeviceReserve { name: "d".into(), reserved: true }).unwrap();
    assert_eq!(rig.read(1, 0, 512), Err(HostError::Gone), "f is copied from it, and nothing to it");
}

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

/// "d" in the first pool, written whole, and "e" in the second, paired.
fn two_pools(tracks: u64, second: u32, pace: PairPace) -> Rig {
    let mut rig = Rig::with_second_pool(200, second);
    for (name, pool, conn) in [("d", "p", 1), ("e", "q", 2)] {
        let (name, pool, size_bytes) = (name.to_owned(), Some(pool.to_owned()), tracks * TRACK);
        rig.command(Command::DeviceCreate { name: name.clone(), size_bytes, pool }).unwrap();
        rig.attach(conn, &name);
    }
    (0..tracks).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
    let (primary, secondary) = names();
    pair(&mut rig, Command::PairCreate { primary, secondary: Some(secondary), pace }).unwrap();
    rig
}

fn under_way(rig: &Rig) -> usize {
    let moves = |effect: &&Effect| matches!(effect, Effect::Read { .. } | Effect::Write { .. });
    rig.pending.iter().filter(moves).count()
}

/// Goes on until tracks are being moved: how many at a time.
fn moves_under_way(rig: &mut Rig) -> usize {
    for _ in 0..10_000 {
        if rig.pending.iter().any(|effect| matches!(effect, Effect::Read { .. })) {
            return under_way(rig);
        }
        if !go_on(rig) {
            break;
        }
    }
    panic!("nothing is moved");
}

/// A timer that is due, or one effect, or else the next timer.
fn go_on(rig: &mut Rig) -> bool {
    let next = rig.firmware.next_deadline();
    if next.is_none_or(|at| at > rig.now) && rig.carry_out() {
        return true;
    }
    let Some(at) = next else { return false };
    rig.now = rig.now.max(at);
    rig.step(Event::Timer);
    true
}

/// C6: so many tracks at a time, and another number while it runs.
#[test]
fn the_pace_is_kept_and_changed() {
    for (pace, tracks) in [(PairPace::Slow, 1), (PairPace::Medium, 3), (PairPace::Fast, 15)] {
        let mut rig = two_pools(40, 100, pace);
        let (primary, secondary) = names();
        rig.manage(Command::PairCopy { primary, secondary, pace: None });
        assert_eq!(moves_under_way(&mut rig), tracks, "{pace:?}");
        let (primary, secondary) = names();
        rig.manage(Command::PairPace { primary, secondary, pace: PairPace::Fast });
        while rig.carry_out() && rig.pending.iter().any(|effect| matches!(effect, Effect::Read { .. })) {}
        assert_eq!(moves_under_way(&mut rig), 15, "{pace:?}, then fast");
        rig.wait(Duration::from_secs(3));
        assert_eq!(pair_show(&mut rig).called, PairCalled::Duplex);
    }
}

/// C6: a pace can be given with each command, and is the pair's from then on; without one it stays what it was.
#[test]
fn a_pace_with_a_command() {
    let mut rig = two_pools(40, 100, PairPace::Slow);
    let both = |at: fn(String, String) -> Command| {
        let (primary, secondary) = names();
        at(primary, secondary)
    };
    rig.manage(both(|primary, secondary| Command::PairCopy {
        primary,
        secondary,
        pace: Some(PairPace::Fast),
    }));
    assert_eq!(moves_under_way(&mut rig), 15);
    rig.wait(Duration::from_secs(3));
    // What a command that is refused says of a pace changes nothing.
    let again =
        both(|primary, secondary| Command::PairCopy { primary, secondary, pace: Some(PairPace::Slow) });
    assert_eq!(pair(&mut rig, again).unwrap_err().code, RefusalCode::WrongState);
    assert_eq!(pair_show(&mut rig).pace, PairPace::Fast);
    (0..40).for_each(|track| write(&mut rig, 2, track, 90));
    let resync =
        both(|primary, secondary| Command::PairResync { primary, secondary, pace: Some(PairPace::Slow) });
    assert_eq!(pair(&mut rig, resync).unwrap().pace, PairPace::Slow);
    rig.manage(both(|primary, secondary| Command::PairCopy { primary, secondary, pace: None }));
    assert_eq!(moves_under_way(&mut rig), 1);
    rig.wait(Duration::from_secs(5));
    (0..40).for_each(|track| write(&mut rig, 2, track, 91));
    rig.manage(both(|primary, secondary| Command::PairRestore {
        primary,
        secondary,
        discard_before: true,
        pace: Some(PairPace::Medium),
    }));
    assert_eq!(moves_under_way(&mut rig), 3);
    rig.restart();
    assert_eq!(pair_show(&mut rig).pace, PairPace::Medium);
}

/// C6: a restore, and a copy whose pair was deleted, have a pace, too, and get another one by the names of their volumes.
#[test]
fn the_pace_of_what_ends_by_itself() {
    let mut rig = two_pools(40, 100, PairPace::Slow);
    let (primary, secondary) = names();
    rig.manage(Command::PairCopy { primary, secondary, pace: None });
    assert_eq!(moves_under_way(&mut rig), 1);
    let (primary, secondary) = names();
    rig.manage(Command::PairDelete { primary, secondary });
    let faster = |rig: &mut Rig, pace| {
        let (primary, secondary) = names();
        rig.manage(Command::PairPace { primary, secondary, pace });
        while rig.carry_out() && rig.pending.iter().any(|effect| matches!(effect, Effect::Read { .. })) {}
        moves_under_way(rig)
    };
    assert_eq!(faster(&mut rig, PairPace::Fast), 15);
    assert_eq!(pair_show(&mut rig).called, PairCalled::Once);
    rig.wait(Duration::from_secs(3));
    let session = rig.establish("v", 3);
    let restore = Restore { pace: Some(PairPace::Medium), discard_before: true, ..back(session, Some("e")) };
    (0..40).for_each(|track| write(&mut rig, 2, track, 90));
    rig.manage(Command::SessionRestore { restores: vec![restore] });
    assert_eq!(moves_under_way(&mut rig), 3);
    assert_eq!(faster(&mut rig, PairPace::Slow), 1);
    rig.wait(Duration::from_secs(5));
    let (primary, secondary) = names();
    let over = rig.command(Command::PairPace { primary, secondary, pace: PairPace::Fast }).unwrap_err();
    assert_eq!(over.code, RefusalCode::NotFound);
    assert_eq!(content(&mut rig, 1), content(&mut rig, 2));
}

/// C6: after a restart in the middle of an adaptive copy it is not known how long hosts wait usually. It is learnt at the slowest
/// pace, and the copy goes on faster: it once stayed at one track for as long as a host used a disk that was not quick.
#[test]
fn an_adaptive_copy_learns_what_is_usual() {
    let mut rig = two_pools(120, 200, PairPace::Adaptive);
    let (primary, secondary) = names();
    rig.manage(Command::PairCopy { primary, secondary, pace: None });
    moves_under_way(&mut rig);
    let flush = rig.host(1, HostOp::Flush);
    while !rig.replies.contains_key(&flush) {
        assert!(rig.carry_out());
    }
    rig.restart();
    rig.attach(1, "d");
    let mut seen = Vec::new();
    let copying = |rig: &Rig| {
        let (id, copy) = rig.firmware.tables().copies().next().unwrap();
        copy.status == CopyStatus::Copying && rig.firmware.tables().next_foreign(id, TrackNo(0)).is_ok()
    };
    for _ in 0..500 {
        if !copying(&rig) {
            break;
        }
        let tag = rig.host(1, HostOp::Read { offset: 0, length: 512 });
        rig.now += Duration::from_millis(5);
        while !rig.replies.contains_key(&tag) {
            assert!(go_on(&mut rig));
        }
        seen.push(under_way(&rig));
    }
    let slowest = seen.iter().position(|tracks| *tracks <= 1);
    let faster = seen.iter().rposition(|tracks| *tracks > 5);
    assert!(slowest.is_some() && faster > slowest, "{seen:?}");
}

/// C6: an adaptive copy has fewer tracks under way while hosts wait longer than usual for it.
#[test]
fn an_adaptive_copy_backs_off() {
    let mut rig = two_pools(120, 200, PairPace::Adaptive);
    let (primary, secondary) = names();
    rig.manage(Command::PairCopy { primary, secondary, pace: None });
    assert_eq!(moves_under_way(&mut rig), 3);
    let mut most = 0;
    for _ in 0..60 {
        rig.carry_out();
        most = most.max(under_way(&rig));
    }
    assert!(most > 10, "nobody waits: {most} at a time");
    // A host waits a long time for its answer, again and again.
    for _ in 0..12 {
        let tag = rig.host(1, HostOp::Read { offset: 0, length: 512 });
        rig.now += Duration::from_millis(200);
        while !rig.replies.contains_key(&tag) {
            assert!(rig.carry_out());
        }
    }
    assert!(under_way(&rig) <= 2, "{} at a time", under_way(&rig));
    rig.wait(Duration::from_secs(5));
    assert_eq!(pair_show(&mut rig).called, PairCalled::Duplex);
}

/// C3, C4, C7: the secondary is the primary of that instant from the first moment, wherever its tracks lie; a crash goes on at
/// the copy pointer.
#[test]
fn a_copy_to_another_pool() {
    let mut rig = two_pools(40, 100, PairPace::Slow);
    let (primary, secondary) = names();
    rig.manage(Command::PairCopy { primary, secondary, pace: None });
    moves_under_way(&mut rig);
    rig.write(1, 39 * TRACK, TRACK as usize, 1);
    rig.write(2, 38 * TRACK + 512, 512, 2);
    for _ in 0..30 {
        rig.carry_out();
    }
    let flushes = [1, 2].map(|conn| rig.host(conn, HostOp::Flush));
    while flushes.iter().any(|tag| !rig.replies.contains_key(tag)) {
        assert!(rig.carry_out());
    }
    rig.restart();
    let moved = 100 - rig.firmware.tables().pool_space(PoolId(1)).free;
    assert!((1..39).contains(&moved), "the crash came in the middle: {moved} tracks are in the second pool");
    rig.attach(1, "d");
    rig.attach(2, "e");
    let first = |rig: &mut Rig, conn, track: u64| rig.read(conn, track * TRACK, 1024).unwrap();
    assert_eq!((first(&mut rig, 1, 39), first(&mut rig, 2, 39)), (vec![1, 1], vec![49, 49]));
    assert_eq!((first(&mut rig, 1, 38), first(&mut rig, 2, 38)), (vec![48, 48], vec![48, 2]));
    rig.wait(Duration::from_secs(5));
    let copied = pair_show(&mut rig);
    assert_eq!((copied.status, copied.unequal_tracks), (PairStage::Copied, 2));
    let tables = rig.firmware.tables();
    assert!(tables.data_tracks(PoolId(1)) >= 40);
    let free = tables.pool_space(PoolId(0)).free;
    assert_eq!(free, 160, "the first pool has what the primary needs, and no more");
}

/// C3: the copy pointer is durable with the tracks that it has passed, so that after a crash at whatever effect it stands where it
/// stood, and each track is moved once.
#[test]
fn a_crash_resumes_at_the_copy_pointer() {
    const TRACKS: u64 = 40;
    let mut seen = BTreeSet::new();
    for effects in (0..120).step_by(3) {
        let mut rig = two_pools(TRACKS, 100, PairPace::Medium);
        let (primary, secondary) = names();
        rig.manage(Command::PairCopy { primary, secondary, pace: None });
        // Disks that take their time, so that what is moved is committed now and then.
        (0..effects).for_each(|_| {
            rig.now += Duration::from_millis(40);
            go_on(&mut rig);
        });
        rig.restart();
        let (_, copy) = rig.firmware.tables().copies().next().unwrap();
        let (status, pointer) = (copy.status, u64::from(copy.moved_to.0));
        let in_second = 100 - u64::from(rig.firmware.tables().pool_space(PoolId(1)).free);
        assert!(pointer <= in_second, "{effects}: {pointer} is ahead of {in_second} moved tracks");
        if status != CopyStatus::Copying {
            continue;
        }
        // Three at a time end in their order here: what is beyond the pointer was under way.
        assert!(
            in_second - pointer <= 3,
            "{effects}: {in_second} are moved, and the pointer is at {pointer}"
        );
        let shown = pair_show(&mut rig).moved_to_track;
        assert!(shown.is_none_or(|shown| u64::from(shown) >= pointer), "{effects}: {shown:?} of {pointer}");
        let moved = rig.log.len();
        rig.wait(Duration::from_secs(5));
        let read = rig.log[moved..].matches("read io").count() as u64;
        assert!(read <= TRACKS - pointer, "{effects}: {read} tracks are read from {pointer} on");
        assert_eq!(pair_show(&mut rig).called, PairCalled::Duplex);
        seen.insert(pointer);
    }
    assert!(seen.len() > 3 && seen.last() > Some(&30), "{seen:?}");
}

/// A target whose pool is full says so, shows what it should all the same, and goes on by itself.
#[test]
fn a_copy_into_a_full_pool_waits() {
    let mut rig = two_pools(40, 30, PairPace::Fast);
    pair_copy(&mut rig).unwrap();
    rig.wait(Duration::from_secs(3));
    let stuck = pair_show(&mut rig);
    assert_eq!((stuck.status, stuck.called), (PairStage::Copying, PairCalled::Suspend));
    assert!(stuck.trouble.unwrap().contains("full"));
    assert_eq!(rig.read(2, 39 * TRACK, 512).unwrap(), [49]);
    rig.do_host(2, HostOp::Trim { offset: 0, length: 20 * TRACK as u32, fua: true }).unwrap();
    rig.wait(Duration::from_secs(5));
    assert_eq!(pair_show(&mut rig).status, PairStage::Copied);
    assert_eq!(rig.read(2, 39 * TRACK, 512).unwrap(), [49]);
}

/// What a restore has still to do is listed until it ends (it once was not, and errors said to look there).
#[test]
fn a_restore_is_listed() {
    let mut rig = Rig::with_device(64, TRACKS * TRACK);
    write(&mut rig, 1, 0, 1);
    let session = rig.establish("v", 2);
    write(&mut rig, 1, 0, 2);
    let listed = |rig: &mut Rig| match rig.command(Command::PairList {}).unwrap() {
        Answer::Pairs(infos) => infos,
        other => panic!("{other:?}"),
    };
    let call = rig.manage(Command::SessionRestore { restores: vec![back(session, None)] });
    while !rig.answers.contains_key(&call) {
        assert!(rig.carry_out());
    }
    let refused = rig.manage(Command::SessionDeactivate { session });
    let list = rig.manage(Command::PairList {});
    assert_eq!(rig.answers[&refused].clone().unwrap_err().code, RefusalCode::WrongState);
    match rig.answers[&list].clone().unwrap() {
        Answer::Pairs(infos) => assert_eq!((infos.len(), infos[0].called), (1, PairCalled::Once)),
        other => panic!("{other:?}"),
    }
    rig.wait(Duration::from_secs(2));
    assert!(listed(&mut rig).is_empty());
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
