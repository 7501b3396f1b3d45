//! Copies to another pool: their pace (C6), their pointer (C3), and what stops them.

use std::collections::BTreeSet;
use std::time::Duration;

use twintrack_controller::firmware::{Effect, HostOp};
use twintrack_core::{CopyStatus, PoolId, TrackNo};
use twintrack_link::manage::{Command, PairCalled, PairPace, PairStage, RefusalCode, Restore};

use crate::rig::Rig;
use crate::{TRACK, back, content, go_on, names, pair, pair_copy, pair_show, two_pools, write};

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
        let in_second = 100 - rig.firmware.tables().pool_space(PoolId(1)).free;
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
    assert_eq!(stuck.moved_to_track, Some(30), "as far as the room went, each time that it is tried again");
    assert_eq!(rig.read(2, 39 * TRACK, 512).unwrap(), [49]);
    rig.do_host(2, HostOp::Trim { offset: 0, length: 20 * TRACK as u32, fua: true }).unwrap();
    rig.wait(Duration::from_secs(5));
    assert_eq!(pair_show(&mut rig).status, PairStage::Copied);
    assert_eq!(rig.read(2, 39 * TRACK, 512).unwrap(), [49]);
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
