//! The main flows of the firmware, event by event and effect by effect, as snapshots: their order is the argument.

mod rig;

use rig::Rig;
use std::time::Duration;
use twintrack_controller::firmware::{Effect, Event, HostError, HostOp, Reply, StatusOf};
use twintrack_link::manage::{Activation, Answer, Command, RefusalCode, SessionInfoState};

const TRACK: u64 = 16 << 10;

/// A thin write allocates; a second goes in place; FLUSH syncs before it commits; a FLUSH with nothing to commit
/// syncs only.
#[test]
fn write_and_flush() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.note("a block of an unwritten track");
    rig.write(1, 4096, 4096, 1);
    rig.settle();
    rig.note("the same block again");
    rig.write(1, 4096, 4096, 2);
    rig.settle();
    rig.note("flush: headers, sync, commit, reply");
    rig.host(1, HostOp::Flush);
    rig.settle();
    rig.note("in place, then a flush that commits nothing");
    rig.write(1, 4096, 512, 3);
    rig.settle();
    rig.host(1, HostOp::Flush);
    rig.settle();
    rig.note("FUA on a part of a block of another track");
    rig.host(1, HostOp::Write { offset: TRACK + 512, data: vec![4; 512].into(), fua: true });
    rig.settle();
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.read(1, 0, 8192).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 3, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(rig.read(1, TRACK, 1536).unwrap(), [0, 4, 0]);
}

/// D3, F1: the first write after an activation goes elsewhere, copies nothing, and the session keeps the old track.
#[test]
fn first_write_after_activation() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.quiet(|rig| {
        rig.write(1, 0, TRACK as usize, 1);
        rig.settle();
        rig.host(1, HostOp::Flush);
        rig.settle();
    });
    rig.note("register, relate, activate");
    rig.establish("v", 2);
    rig.note("the first write to the track");
    rig.write(1, 4096, 4096, 2);
    rig.settle();
    rig.note("the second");
    rig.write(1, 8192, 4096, 3);
    rig.settle();
    rig.note("flush");
    rig.host(1, HostOp::Flush);
    rig.settle();
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.read(1, 0, 12288).unwrap()[7..18], [1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3]);
    assert_eq!(rig.read(2, 0, TRACK as u32).unwrap(), [1; 32]);
    let before = rig.metadata.clone();
    rig.restart();
    rig.attach(1, "d");
    rig.attach(2, "v");
    assert_eq!(rig.metadata, before);
    assert_eq!(rig.read(2, 0, TRACK as u32).unwrap(), [1; 32]);
    assert_eq!(rig.read(1, 8192, 512).unwrap(), [3]);
}

/// D4: writes to a virtual device give it its own track.
#[test]
fn virtual_write() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.quiet(|rig| {
        rig.write(1, 0, TRACK as usize, 1);
        rig.settle();
        rig.establish("v", 2);
        rig.establish("w", 3);
    });
    rig.note("a part of a block of the virtual device");
    rig.write(2, 512, 512, 9);
    rig.settle();
    rig.note("a whole track of it: nothing is read or copied");
    rig.write(2, 0, TRACK as usize, 8);
    rig.settle();
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.read(1, 0, 1024).unwrap(), [1, 1]);
    assert_eq!(rig.read(2, 0, 1024).unwrap(), [8, 8]);
    assert_eq!(rig.read(3, 0, 1024).unwrap(), [1, 1]);
}

/// Fig. 19A: writes in flight land, new ones wait, the cut is told of once durable; hosts do not wait for that.
#[test]
fn activation_drains() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    let session = rig.quiet(|rig| {
        rig.command(Command::DeviceCreateVirtual { name: "v".into() }).unwrap();
        let answer = rig
            .command(Command::SessionRegister { standard: "d".into(), group: None, tracks: None })
            .unwrap();
        let Answer::Session(info) = answer else { panic!("{answer:?}") };
        rig.command(Command::SessionRelate { session: info.id, virtual_device: "v".into() }).unwrap();
        info.id
    });
    rig.note("a write in flight");
    rig.write(1, 0, 4096, 1);
    rig.note("activate: it waits for the write");
    let sessions = vec![Activation { session, name: Some("v1".into()), offline: false }];
    let call = rig.manage(Command::SessionActivate { sessions });
    rig.note("a new write: it waits for the cut");
    rig.write(1, 4096, 4096, 2);
    assert_eq!(rig.pending.len(), 1);
    rig.note("the first write lands; the other goes on before the activation is durable");
    rig.settle();
    insta::assert_snapshot!(rig.log);
    assert!(rig.answers.remove(&call).unwrap().is_ok());
    rig.attach(2, "v1");
    assert_eq!(rig.read(2, 0, 8192).unwrap(), [[1; 8], [0; 8]].concat());
    assert_eq!(rig.read(1, 0, 8192).unwrap(), [[1; 8], [2; 8]].concat());
}

/// Trim and write zeroes of whole tracks give the space back, after the commit, by a discard.
#[test]
fn trim_gives_space_back() {
    let mut rig = Rig::with_device(64, 2 * TRACK + 512);
    rig.quiet(|rig| {
        rig.write(1, 0, 2 * TRACK as usize + 512, 1);
        rig.settle();
        rig.host(1, HostOp::Flush);
        rig.settle();
    });
    assert_eq!(rig.firmware.tables().used_tracks(), 3);
    rig.note("trim of a track and a half");
    rig.host(1, HostOp::Trim { offset: 0, length: 24 << 10, fua: true });
    rig.settle();
    rig.note("write zeroes of the rest, to the end of the partial last track");
    rig.host(1, HostOp::WriteZeroes { offset: TRACK + 4096, length: 12288 + 512, no_hole: false, fua: true });
    rig.settle();
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.firmware.tables().used_tracks(), 1);
    let status = rig
        .do_host(
            1,
            HostOp::BlockStatus {
                offset: 0,
                length: 2 * TRACK as u32 + 512,
                one: false,
                of: [StatusOf::Allocation].into(),
            },
        )
        .unwrap();
    let Reply::Status(lists) = status else { panic!("{status:?}") };
    let lengths: Vec<_> = lists[0].iter().map(|extent| (extent.length, extent.set)).collect();
    assert_eq!(lengths, [(16384, false), (16384, true), (512, false)]);
    assert_eq!(rig.read(1, TRACK, 8192).unwrap(), [[1; 8], [0; 8]].concat());
}

/// D15: a deactivated session takes no I/O; its changed tracks are told and read, any other is refused.
#[test]
fn deactivate_and_read_changed_tracks() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    let session = rig.quiet(|rig| {
        rig.write(1, 0, 4 * TRACK as usize, 1);
        rig.settle();
        let session = rig.establish("v", 2);
        rig.write(1, 512, 512, 2);
        rig.write(2, 3 * TRACK, 512, 3);
        rig.settle();
        session
    });
    rig.note("deactivate");
    rig.command(Command::SessionDeactivate { session }).unwrap();
    rig.write(1, TRACK, 512, 4);
    rig.settle();
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    let answer = rig.command(Command::SessionChanged { session, from_track: 0 }).unwrap();
    let Answer::Changed(changed) = answer else { panic!("{answer:?}") };
    assert_eq!((changed.tracks, changed.next), (vec![0, 3], None));
    for (track, expect) in
        [(0, Ok(1)), (1, Err(RefusalCode::NotFound)), (3, Ok(3)), (9, Err(RefusalCode::NotFound))]
    {
        let call = twintrack_controller::firmware::CallId(9000 + u64::from(track));
        rig.step(Event::ReadTrack { call, session, track });
        rig.settle();
        let read = rig.tracks_read.remove(&call.0).unwrap();
        assert_eq!(read.map(|segments| rig::sectors(&segments)[0]).map_err(|refusal| refusal.code), expect);
    }
    assert_eq!(rig.firmware.check_tracks(session, &[3, 0, 3]), Ok(()));
    let refused = |asked: &[u32]| rig.firmware.check_tracks(session, asked).unwrap_err();
    assert_eq!(refused(&[1]).code, RefusalCode::NotFound);
    let reasons = [refused(&[3, 1, 0]), refused(&(0..12).collect::<Vec<_>>())].map(|it| it.reason);
    let reason = |what| format!("ses-{session} has no changed {what}: ask which tracks changed");
    assert_eq!(reasons, ["track t1", "tracks t1, t2, t4, t5, t6, t7, t8, t9 and others"].map(reason));
    rig.note("remove: its tracks come free");
    rig.command(Command::SessionRemove { session }).unwrap();
    rig.wait(Duration::from_secs(3));
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.firmware.tables().used_tracks(), 4);
    assert_eq!(rig.firmware.check_tracks(session, &[0]).unwrap_err().code, RefusalCode::NotFound);
}

/// A full pool: a host's write to a standard device never fails because of sessions; the oldest fails, visibly.
#[test]
fn full_pool_fails_the_oldest_session() {
    let mut rig = Rig::with_device(6, 4 * TRACK);
    rig.quiet(|rig| {
        rig.write(1, 0, 4 * TRACK as usize, 1);
        rig.settle();
    });
    let (old, new) = rig.quiet(|rig| {
        let old = rig.establish("old", 2);
        rig.write(1, 0, TRACK as usize, 2);
        rig.settle();
        let new = rig.establish("new", 3);
        rig.write(1, 0, TRACK as usize, 3);
        rig.settle();
        (old, new)
    });
    assert_eq!(rig.firmware.tables().used_tracks(), 6);
    rig.note("no track is free");
    let tag = rig.write(1, TRACK, TRACK as usize, 4);
    rig.settle();
    assert_eq!(rig.replies.remove(&tag).unwrap(), Ok(Reply::Done));
    let state = |rig: &mut Rig, session| {
        let answer = rig.command(Command::SessionList { standard: None }).unwrap();
        let Answer::Sessions(infos) = answer else { panic!("{answer:?}") };
        infos.iter().find(|info| info.id == session).unwrap().state
    };
    insta::assert_snapshot!(rig.log);
    assert_eq!(state(&mut rig, old), SessionInfoState::Failed);
    assert_eq!(state(&mut rig, new), SessionInfoState::Active);
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    assert_eq!(rig.read(3, 0, 512).unwrap(), [2]);
    assert_eq!(rig.read(3, TRACK, 512).unwrap(), [1]);
    let Answer::Array(info) = rig.command(Command::ArrayShow {}).unwrap() else { panic!() };
    assert_eq!(info.warnings.len(), 2, "{:?}", info.warnings);
}

/// fio found, with eight requests in flight on a disk that takes 10 ms for a sync: a write that waited for space looked
/// again each ms, took each look for a commit, and gave up after five. So several writes failed session after session
/// for space that the first one's failure was about to give, and the next write got "no space". Here two writes find
/// the pool full, and syncs and commits take up to 50 ms.
#[test]
fn a_slow_commit_fails_no_session_more() {
    let mut rig = Rig::with_device(8, 4 * TRACK);
    let fill = |rig: &mut Rig, track: u64, with: u8| {
        rig.write(1, track * TRACK, 2 * TRACK as usize, with);
        rig.settle();
    };
    fill(&mut rig, 0, 1);
    rig.establish("old", 2);
    fill(&mut rig, 0, 2);
    rig.establish("new", 3);
    fill(&mut rig, 0, 3);
    fill(&mut rig, 2, 3);
    rig.establish("newest", 4);
    rig.command(Command::ArrayShow {}).unwrap();
    assert_eq!(rig.firmware.tables().used_tracks(), 8);

    let tags = [0, 1].map(|track| rig.write(1, track * TRACK, TRACK as usize, 4));
    let slow = |effect: &Effect| matches!(effect, Effect::Sync { .. } | Effect::Commit { .. });
    for ms in 1..=500 {
        while let Some(at) = rig.pending.iter().position(|effect| !slow(effect) || ms % 50 == 0) {
            let effect = rig.pending.remove(at).unwrap();
            rig.carry_out_this(effect);
        }
        rig.now += Duration::from_millis(1);
        rig.step(Event::Timer);
    }
    for tag in tags {
        assert_eq!(rig.replies.remove(&tag), Some(Ok(Reply::Done)));
    }
    let answer = rig.command(Command::SessionList { standard: None }).unwrap();
    let Answer::Sessions(infos) = answer else { panic!("{answer:?}") };
    let states: Vec<_> = infos.iter().map(|info| info.state).collect();
    assert_eq!(states, [SessionInfoState::Failed, SessionInfoState::Active, SessionInfoState::Active]);
    assert_eq!([3, 4].map(|conn| rig.read(conn, 0, 512)), [Ok(vec![2]), Ok(vec![3])]);
}

/// Without sessions to fail, a full pool is an error for the write that finds no room, and for nobody else.
#[test]
fn full_pool_without_sessions() {
    let mut rig = Rig::with_device(2, 4 * TRACK);
    let tag = rig.write(1, 0, 3 * TRACK as usize, 1);
    rig.settle();
    assert_eq!(rig.replies.remove(&tag).unwrap(), Err(HostError::NoSpace));
    assert_eq!(rig.do_host(1, HostOp::Flush), Ok(Reply::Done));
    let free = rig.do_host(1, HostOp::Trim { offset: 0, length: TRACK as u32, fua: false });
    assert_eq!(free, Ok(Reply::Done));
    let tag = rig.write(1, 3 * TRACK, 512, 2);
    rig.settle();
    assert_eq!(
        rig.replies.remove(&tag).unwrap(),
        Ok(Reply::Done),
        "the trimmed track is committed free first"
    );
}

/// Crash rule 9: after a failed sync nothing is promised until a restart.
#[test]
fn failed_sync_is_not_retried() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.write(1, 0, 4096, 1);
    rig.settle();
    rig.fail_next_sync = true;
    assert_eq!(rig.do_host(1, HostOp::Flush), Err(HostError::Io));
    assert_eq!(rig.do_host(1, HostOp::Flush), Err(HostError::Io));
    assert_eq!(rig.read(1, 0, 512), Err(HostError::Io));
    let refused = rig.command(Command::DeviceCreateVirtual { name: "v".into() }).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Unavailable);
    // What changes only the tables would need no disk; but they would be kept for a commit that never comes.
    let before = rig.firmware.tables().last_unit();
    for op in [
        HostOp::Write { offset: TRACK, data: vec![1; 512].into(), fua: false },
        HostOp::Trim { offset: 0, length: TRACK as u32, fua: false },
        HostOp::WriteZeroes { offset: 0, length: TRACK as u32, no_hole: false, fua: false },
    ] {
        assert_eq!(rig.do_host(1, op), Err(HostError::Io));
    }
    assert_eq!(rig.firmware.tables().last_unit(), before);
    assert_eq!(rig.read(1, TRACK, 512).unwrap(), [0], "what needs no disk is read");
    rig.restart();
    rig.attach(1, "d");
    assert_eq!(rig.read(1, 0, 512).unwrap(), [0], "the write was never promised");
    assert_eq!(rig.do_host(1, HostOp::Flush), Ok(Reply::Done));
}

/// Crash rule 9: a commit that failed may have happened. Nobody is answered any more.
#[test]
fn failed_commit_reloads() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.write(1, 0, 4096, 1);
    rig.settle();
    let flush = rig.host(1, HostOp::Flush);
    loop {
        match rig.pending.pop_front().expect("a flush commits") {
            Effect::Commit { upto, .. } => {
                let result = Err(twintrack_controller::firmware::DiskError::Failed);
                rig.step(Event::Committed { upto, result });
                break;
            }
            other => rig.carry_out_this(other),
        }
    }
    assert!(rig.log.ends_with("    reload\n"), "{}", rig.log);
    rig.host(1, HostOp::Read { offset: 0, length: 512 });
    rig.settle();
    assert!(!rig.replies.contains_key(&flush));
}

/// Idle, the array completes overlays.
#[test]
fn overlays_are_merged_when_idle() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.quiet(|rig| {
        rig.write(1, 0, 4096, 1);
        rig.settle();
        rig.host(1, HostOp::Flush);
        rig.settle();
    });
    rig.note("half a second without a write");
    rig.wait(Duration::from_secs(3));
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.read(1, 0, TRACK as u32).unwrap()[6..10], [1, 1, 0, 0]);
}

/// The simulator found: a program that is killed leaves its writes in the operating system's cache, where reads find
/// them. The next one had written nothing itself, so a flush synced nothing, and a power cut took what it promised.
#[test]
fn the_first_flush_after_a_restart_syncs() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.do_host(1, HostOp::Flush).unwrap();
    rig.restart();
    rig.attach(1, "d");
    rig.host(1, HostOp::Flush);
    let syncs = rig.pending.iter().filter(|effect| matches!(effect, Effect::Sync { .. })).count();
    assert_eq!((syncs, rig.replies.len()), (1, 0));
}

/// The simulator found: a session was registered while a store failed, so never durably; a list, and a refusal to
/// relate it, told of it all the same, and a restart took it back (crash rule 4). How the array is can still be asked.
#[test]
fn nothing_is_told_that_a_crash_could_undo() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.write(1, 0, 4096, 1);
    rig.settle();
    rig.fail_next_sync = true;
    let unavailable = |result: Result<Answer, twintrack_link::manage::Refusal>| {
        result.is_err_and(|refusal| refusal.code == RefusalCode::Unavailable)
    };
    assert!(unavailable(rig.command(Command::SessionRegister {
        standard: "d".into(),
        group: None,
        tracks: None
    })));
    assert!(unavailable(rig.command(Command::SessionList { standard: None })));
    assert!(unavailable(rig.command(Command::SessionRelate { session: 2, virtual_device: "d".into() })));
    let Answer::Array(info) = rig.command(Command::ArrayShow {}).unwrap() else { panic!() };
    assert_eq!(info.warnings.len(), 1, "{:?}", info.warnings);
    rig.restart();
    assert_eq!(rig.command(Command::SessionList { standard: None }).unwrap(), Answer::Sessions(vec![]));
}
