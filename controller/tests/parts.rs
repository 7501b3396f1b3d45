//! Virtual devices of parts of standard devices (D19), through the management commands and host I/O of a firmware.

mod rig;

use rig::Rig;
use twintrack_controller::firmware::{AttachError, Event, HostError, HostOp, Reply, StatusOf};
use twintrack_core::geometry::DEVICE_BYTES_MAX;
use twintrack_core::{SessionId, TrackNo};
use twintrack_link::manage::{
    Activation, Answer, Command, DeviceInfo, GroupMode, RefusalCode, Restore, SessionInfo, TrackRange,
};
use twintrack_link::nbd::{ContextQuestion, DIFF};

const TRACK: u64 = 16 << 10;

fn range(first: u32, last: u32) -> Option<TrackRange> {
    Some(TrackRange { first, last })
}

fn register(rig: &mut Rig, standard: &str, tracks: Option<TrackRange>) -> SessionInfo {
    let command = Command::SessionRegister { standard: standard.into(), group: None, tracks };
    match rig.command(command).unwrap() {
        Answer::Session(info) => info,
        other => panic!("{other:?}"),
    }
}

fn relate(rig: &mut Rig, session: u32) -> Result<Answer, RefusalCode> {
    let command = Command::SessionRelate { session, virtual_device: "v".into() };
    rig.command(command).map_err(|refusal| refusal.code)
}

fn activate(rig: &mut Rig, sessions: &[u32]) -> Result<Answer, RefusalCode> {
    let activation = |session: &u32| Activation { session: *session, name: None, offline: false };
    let sessions = sessions.iter().map(activation).collect();
    rig.command(Command::SessionActivate { sessions }).map_err(|refusal| refusal.code)
}

fn show(rig: &mut Rig) -> DeviceInfo {
    match rig.command(Command::DeviceShow { name: "v".into() }).unwrap() {
        Answer::Device(info) => info,
        other => panic!("{other:?}"),
    }
}

/// "d" with 4 tracks and a bit, each full of its number, as connection 1; "e" with 3 tracks, 11 and so on, as connection 2; "v",
/// which shows nothing.
fn rig() -> Rig {
    let mut rig = Rig::with_device(64, 4 * TRACK + 1024);
    let create = Command::DeviceCreate { name: "e".into(), size_bytes: 3 * TRACK, pool: None };
    rig.command(create).unwrap();
    rig.attach(2, "e");
    rig.command(Command::DeviceCreateVirtual { name: "v".into() }).unwrap();
    for track in 0..4 {
        rig.write(1, track * TRACK, TRACK as usize, 1 + track as u8);
    }
    rig.write(1, 4 * TRACK, 1024, 5);
    for track in 0..3 {
        rig.write(2, track * TRACK, TRACK as usize, 11 + track as u8);
    }
    rig.settle();
    rig
}

/// Tracks 1 and 2 of "e", then 3 and the rest of "d": the sessions.
fn established(rig: &mut Rig) -> [u32; 2] {
    let sessions = [("e", 1, 2), ("d", 3, 4)].map(|(name, first, last)| {
        let info = register(rig, name, range(first, last));
        assert_eq!(info.tracks, range(first, last));
        relate(rig, info.id).unwrap();
        info.id
    });
    activate(rig, &sessions).unwrap();
    rig.attach(3, "v");
    sessions
}

/// The first byte of each sector.
fn first(rig: &mut Rig, offset: u64, length: u64) -> Vec<u8> {
    let mut found = rig.read(3, offset, length as u32).unwrap();
    found.dedup();
    found
}

#[test]
fn parts_of_two_devices_are_one_virtual_device() {
    let mut rig = rig();
    established(&mut rig);
    let size_bytes = 3 * TRACK + 1024;
    assert_eq!(show(&mut rig).size_bytes, size_bytes);
    assert_eq!(first(&mut rig, 0, size_bytes), [12, 13, 4, 5]);
    // Beside what they show, the devices change as they like, and the parts do not.
    rig.write(1, 0, 4 * TRACK as usize + 1024, 50);
    rig.write(2, 0, 3 * TRACK as usize, 60);
    rig.settle();
    assert_eq!(first(&mut rig, 0, size_bytes), [12, 13, 4, 5]);
    // Across both.
    rig.do_host(3, HostOp::Write { offset: TRACK + 512, data: vec![9; TRACK as usize].into(), fua: true })
        .unwrap();
    assert_eq!(first(&mut rig, 0, size_bytes), [12, 13, 9, 4, 5]);
    rig.do_host(3, HostOp::Trim { offset: 0, length: TRACK as u32, fua: false }).unwrap();
    let of = [StatusOf::Allocation].into();
    let status = HostOp::BlockStatus { offset: 0, length: size_bytes as u32, one: false, of };
    let Ok(Reply::Status(told)) = rig.do_host(3, status) else { panic!("it is told") };
    let told: Vec<_> = told[0].iter().map(|extent| (u64::from(extent.length), extent.set)).collect();
    assert_eq!(told, [(TRACK, false), (size_bytes - TRACK, true)]);
    assert_eq!(rig.read(3, size_bytes, 512), Err(HostError::Invalid));

    rig.do_host(3, HostOp::Flush).unwrap();
    rig.restart();
    rig.attach(3, "v");
    assert_eq!(first(&mut rig, 0, size_bytes), [0, 13, 9, 4, 5]);
}

/// What is not in the part costs nothing.
#[test]
fn only_the_part_is_kept() {
    let mut rig = rig();
    let used = |rig: &Rig| rig.firmware.tables().used_tracks();
    established(&mut rig);
    let before = used(&rig);
    rig.write(1, 0, 3 * TRACK as usize, 50);
    rig.write(2, 0, TRACK as usize, 60);
    rig.settle();
    assert_eq!(used(&rig), before);
    rig.write(1, 3 * TRACK, TRACK as usize, 50);
    rig.settle();
    assert_eq!(used(&rig), before + 1);
}

#[test]
fn parts_belong_together() {
    let mut rig = rig();
    for tracks in [range(2, 1), range(0, 5), range(u32::MAX, u32::MAX)] {
        let command = Command::SessionRegister { standard: "d".into(), group: None, tracks };
        assert_eq!(rig.command(command).unwrap_err().code, RefusalCode::BadRequest, "{tracks:?}");
    }
    let [a, b, last] =
        [range(0, 0), range(2, 3), range(4, 4)].map(|tracks| register(&mut rig, "d", tracks).id);
    let whole = register(&mut rig, "e", None).id;
    relate(&mut rig, a).unwrap();
    assert_eq!(relate(&mut rig, whole), Err(RefusalCode::WrongState));
    relate(&mut rig, b).unwrap();
    relate(&mut rig, last).unwrap();
    // What follows would not begin with a track.
    let more = register(&mut rig, "e", range(0, 0)).id;
    assert_eq!(relate(&mut rig, more), Err(RefusalCode::WrongState));
    assert_eq!(activate(&mut rig, &[a, b]), Err(RefusalCode::WrongState));
    assert_eq!(rig.attach_error("v"), Some(AttachError::NotReady));
    activate(&mut rig, &[last, a, b]).unwrap();
    rig.attach(3, "v");
    assert_eq!(first(&mut rig, 0, 3 * TRACK + 1024), [1, 3, 4, 5]);
    // One instant has been: nothing joins them now.
    let more = register(&mut rig, "e", range(0, 0)).id;
    assert_eq!(relate(&mut rig, more), Err(RefusalCode::WrongState));
    // Not where it would lie elsewhere.
    let restore = Restore { to: Some("e".into()), ..back(a) };
    let refused = rig.command(Command::SessionRestore { restores: vec![restore] });
    assert_eq!(refused.unwrap_err().code, RefusalCode::WrongState);
    let refused = rig.command(Command::SessionDiff { session: a, other: Some(b), from_byte: 0 });
    assert_eq!(refused.unwrap_err().code, RefusalCode::WrongState);
    // Without one of them there is no device.
    rig.command(Command::SessionRemove { session: b }).unwrap();
    assert_eq!(rig.read(3, 0, 512), Err(HostError::Gone));
    assert_eq!(rig.attach_error("v"), Some(AttachError::NotReady));
}

/// One by one they would not be of one instant.
#[test]
fn a_group_takes_its_parts_at_one_instant() {
    for (mode, done) in [(GroupMode::OneByOne, false), (GroupMode::Synchronous, true)] {
        let mut rig = rig();
        let Ok(Answer::Group(group)) = rig.command(Command::GroupBegin {}) else { panic!("a group") };
        for (name, tracks) in [("d", range(0, 0)), ("e", range(1, 1))] {
            let command = Command::SessionRegister { standard: name.into(), group: Some(group), tracks };
            let Ok(Answer::Session(info)) = rig.command(command) else { panic!("a session") };
            relate(&mut rig, info.id).unwrap();
        }
        let processed = rig.command(Command::GroupProcess { group, mode, options: Vec::new() });
        assert_eq!(processed.is_ok(), done, "{mode:?}");
        assert_eq!(rig.attach_error("v").is_none(), done);
    }
}

fn back(session: u32) -> Restore {
    Restore { session, to: None, keep: false, discard_before: false, name: None, offline: false, pace: None }
}

fn restore(rig: &mut Rig, restores: Vec<Restore>) {
    rig.command(Command::SessionRestore { restores }).unwrap();
}

/// The first byte of each track of "d" and of "e".
fn both(rig: &mut Rig) -> [Vec<u8>; 2] {
    let track = |rig: &mut Rig, conn, track| rig.read(conn, track * TRACK, 512).unwrap()[0];
    [(0..5).map(|n| track(rig, 1, n)).collect(), (0..3).map(|n| track(rig, 2, n)).collect()]
}

/// D10: each part goes back to where it lies, with what was written through the virtual device, all at one instant; the other
/// tracks stay what they are. What the parts were before is kept, part by part, and puts that back.
#[test]
fn parts_are_restored_in_place_and_that_is_undone() {
    let mut rig = rig();
    let sessions = established(&mut rig);
    rig.write(1, 0, 4 * TRACK as usize + 1024, 50);
    rig.write(2, 0, 3 * TRACK as usize, 60);
    rig.write(3, TRACK, 512, 9);
    rig.settle();
    restore(&mut rig, sessions.map(back).into());
    let restored = [vec![50, 50, 50, 4, 5], vec![60, 12, 9]];
    assert_eq!(both(&mut rig), restored, "at once");
    rig.write(1, 0, 512, 70);
    rig.write(2, 2 * TRACK, 512, 71);
    rig.settle();
    let Ok(Answer::Sessions(made)) = rig.command(Command::SessionList { standard: None }) else {
        panic!("they are told")
    };
    let made: Vec<_> = made.iter().filter(|info| !sessions.contains(&info.id)).collect();
    let of: Vec<_> = made.iter().map(|info| (info.standard.as_str(), info.tracks)).collect();
    assert_eq!(of, [("e", range(1, 2)), ("d", range(3, 4))]);
    let made = [made[0].id, made[1].id];
    rig.wait(std::time::Duration::from_secs(3));
    rig.restart();
    rig.attach(1, "d");
    rig.attach(2, "e");
    assert_eq!(both(&mut rig), [vec![70, 50, 50, 4, 5], vec![60, 12, 71]]);
    restore(&mut rig, made.map(back).into());
    rig.wait(std::time::Duration::from_secs(3));
    assert_eq!(both(&mut rig), [vec![70, 50, 50, 50, 50], vec![60, 60, 60]]);
    assert_eq!(rig.attach_error("v"), Some(AttachError::NotReady), "it shows nothing any more");
    let Ok(Answer::Sessions(left)) = rig.command(Command::SessionList { standard: Some("e".into()) }) else {
        panic!("they are told")
    };
    assert_eq!(left.iter().map(|info| info.tracks).collect::<Vec<_>>(), [range(1, 2)], "that is undone, too");
}

/// While a part of it is restored from, a virtual device takes no writes.
#[test]
fn what_a_part_is_restored_from_is_not_written() {
    let mut rig = rig();
    let [first, _] = established(&mut rig);
    rig.write(2, TRACK, TRACK as usize, 60);
    rig.settle();
    rig.manage(Command::SessionRestore { restores: vec![Restore { keep: true, ..back(first) }] });
    let mut refused = 0;
    while refused == 0 || rig.firmware.tables().copies().next().is_some() {
        if rig.firmware.tables().copies().next().is_some() {
            // At its other part.
            let write = HostOp::Write { offset: 2 * TRACK, data: vec![9; 512].into(), fua: false };
            let tag = rig.host(3, write);
            assert_eq!(rig.replies.remove(&tag), Some(Err(HostError::ReadOnly)));
            refused += 1;
        }
        if !rig.carry_out() {
            rig.step(Event::Timer);
        }
    }
    assert_eq!(first_bytes(&mut rig), [12, 13, 4]);
    rig.do_host(3, HostOp::Write { offset: 2 * TRACK, data: vec![9; 512].into(), fua: false }).unwrap();
    assert_eq!(first_bytes(&mut rig), [12, 13, 9]);
}

/// The first byte of each whole track of "v".
fn first_bytes(rig: &mut Rig) -> Vec<u8> {
    (0..3).map(|track| rig.read(3, track * TRACK, 512).unwrap()[0]).collect()
}

/// F7: two sessions of the same part, or one and now, by the bytes of the standard device; nothing is told of the rest of it, nor
/// to hosts, who would take the rest for the same.
#[test]
fn parts_are_compared_where_they_lie() {
    let mut rig = rig();
    let [session, last] = established(&mut rig);
    rig.write(2, 0, 3 * TRACK as usize, 60);
    rig.settle();
    let diff = |rig: &mut Rig, session, other| match rig.command(Command::SessionDiff {
        session,
        other,
        from_byte: 0,
    }) {
        Ok(Answer::Differences(told)) => {
            assert_eq!(told.next, None);
            told.ranges.iter().map(|range| (range.offset, range.length)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(diff(&mut rig, session, None), [(TRACK, 2 * TRACK)]);
    assert_eq!(diff(&mut rig, last, None), []);
    rig.command(Command::DeviceCreateVirtual { name: "w".into() }).unwrap();
    let later = register(&mut rig, "e", range(1, 2)).id;
    rig.command(Command::SessionRelate { session: later, virtual_device: "w".into() }).unwrap();
    activate(&mut rig, &[later]).unwrap();
    rig.write(2, 2 * TRACK, 4096, 61);
    rig.settle();
    assert_eq!(diff(&mut rig, session, Some(later)), [(TRACK, 2 * TRACK)]);
    assert_eq!(diff(&mut rig, later, None), [(2 * TRACK, 4096)]);
    rig.write(3, 0, 512, 62);
    rig.settle();
    assert_eq!(diff(&mut rig, later, Some(session)), [(TRACK, 2 * TRACK)]);
    let whole = rig.establish("whole", 8);
    assert_eq!(diff(&mut rig, last, Some(whole)), []);
    for export in ["e", "v", "w"] {
        let question = ContextQuestion {
            export: export.into(),
            queries: vec![format!("{DIFF}{later}/now")],
            select: true,
        };
        assert_eq!(rig.firmware.contexts(&question), Ok(vec![]), "{export}");
    }
}

/// D15: the changed tracks of each part, by their numbers on the standard device.
#[test]
fn a_part_is_deactivated() {
    let mut rig = rig();
    let [_, session] = established(&mut rig);
    rig.write(1, 2 * TRACK, 2 * TRACK as usize, 50);
    rig.settle();
    rig.command(Command::SessionDeactivate { session }).unwrap();
    let Ok(Answer::Changed(changed)) = rig.command(Command::SessionChanged { session, from_track: 0 }) else {
        panic!("it is told")
    };
    assert_eq!(changed.tracks, [3]);
    assert_eq!(rig.read(3, 0, 512), Err(HostError::Gone));
}

/// While a device is being restored, what is still to come to its other tracks is no change of a part.
#[test]
fn a_part_tells_only_of_its_own_tracks() {
    let mut rig = rig();
    let whole = rig.establish("w", 7);
    rig.write(1, 0, 3 * TRACK as usize, 50);
    rig.settle();
    let [_, session] = established(&mut rig);
    rig.write(1, 3 * TRACK, TRACK as usize, 51);
    rig.settle();
    let restore = Restore { discard_before: true, ..back(whole) };
    rig.manage(Command::SessionRestore { restores: vec![restore] });
    let mut looks = 0;
    while rig.firmware.tables().copies().next().is_some() {
        let (tracks, _) = rig.firmware.tables().changed(SessionId(session), TrackNo(0), usize::MAX).unwrap();
        assert_eq!(tracks, [TrackNo(3)]);
        looks += 1;
        if !rig.carry_out() {
            rig.step(Event::Timer);
        }
    }
    assert!(looks > 0, "the restore was looked at");
    assert_eq!(first(&mut rig, 2 * TRACK, TRACK), [4]);
}

/// D9: the parts of one device take one name.
#[test]
fn parts_are_named_together() {
    for (names, code) in [
        ([Some("x"), Some("x")], None),
        ([None, Some("x")], None),
        ([Some("x"), Some("y")], Some(RefusalCode::BadRequest)),
    ] {
        let mut rig = rig();
        let sessions = names.map(|name| {
            let session = register(&mut rig, "d", range(0, 0)).id;
            relate(&mut rig, session).unwrap();
            Activation { session, name: name.map(str::to_owned), offline: false }
        });
        let refused = rig.command(Command::SessionActivate { sessions: sessions.to_vec() }).err();
        assert_eq!(refused.map(|refusal| refusal.code), code, "{names:?}");
        assert_eq!(rig.attach_error("x"), code.map(|_| AttachError::Unknown), "{names:?}");
    }
}

/// A virtual device is no larger than others. (It once could be, and then the metadata could not be loaded.)
#[test]
fn parts_are_no_more_than_a_device() {
    let mut rig = Rig::with_device(64, DEVICE_BYTES_MAX);
    rig.command(Command::DeviceCreateVirtual { name: "v".into() }).unwrap();
    let last = (DEVICE_BYTES_MAX / TRACK) as u32 - 1;
    let [all, more] = [range(0, last), range(0, 0)].map(|tracks| register(&mut rig, "d", tracks).id);
    relate(&mut rig, all).unwrap();
    assert_eq!(relate(&mut rig, more), Err(RefusalCode::BadRequest));
    rig.restart();
    assert_eq!(show(&mut rig).size_bytes, DEVICE_BYTES_MAX);
}
