//! Restores, in place and elsewhere.

use std::time::Duration;

use twintrack_controller::firmware::{HostError, HostOp};
use twintrack_link::manage::{Activation, Answer, Command, PairCalled, PairPace, RefusalCode, Restore};

use crate::rig::{Rig, geometry};
use crate::{
    TRACK, TRACKS, back, content, create, first, go_on, names, pair_copy, pair_create, restore, sessions,
    two, two_pools, write,
};

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

/// D8, D9, D11, D12, D13: to another device, to a split mirror and to another virtual device, at one instant, renamed and offline.
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

/// D8: devices in two pools are restored at one instant: a host that writes to one and then to the other never finds the later
/// write without the earlier one, wherever the crash.
#[test]
fn restored_in_two_pools_at_one_instant() {
    for effects in (0..60).step_by(3) {
        let mut rig = two_pools(2, 40, PairPace::Fast);
        let (primary, secondary) = names();
        rig.command(Command::PairDelete { primary, secondary }).unwrap();
        rig.attach(2, "e");
        (0..2).for_each(|track| write(&mut rig, 2, track, 20 + track as u8));
        let both = establish_all(&mut rig, &[("d", "v"), ("e", "w")]);
        (0..2).for_each(|track| [1, 2].map(|conn| write(&mut rig, conn, track, 90)).into_iter().collect());
        let call = rig.manage(Command::SessionRestore { restores: both.map(|id| back(id, None)).into() });
        (0..effects).for_each(|_| _ = go_on(&mut rig));
        let answered = rig.answers.contains_key(&call);
        rig.restart();
        rig.attach(1, "d");
        rig.attach(2, "e");
        let is = [1, 2].map(|conn| (0..2).map(|track| first(&mut rig, conn, track)).collect::<Vec<_>>());
        let (before, after) = ([vec![90, 90], vec![90, 90]], [vec![10, 11], vec![20, 21]]);
        assert!(is == after || (!answered && is == before), "{effects}: {is:?}");
        rig.wait(Duration::from_secs(3));
        let still = [1, 2].map(|conn| (0..2).map(|track| first(&mut rig, conn, track)).collect::<Vec<_>>());
        assert_eq!(still, is);
    }
}

/// Sessions of several devices, activated at one instant (D8).
fn establish_all<const N: usize>(rig: &mut Rig, pairs: &[(&str, &str); N]) -> [u32; N] {
    let sessions = pairs.map(|(standard, shows)| {
        let id = match rig.command(Command::SessionRegister {
            standard: standard.into(),
            group: None,
            tracks: None,
        }) {
            Ok(Answer::Session(info)) => info.id,
            other => panic!("{other:?}"),
        };
        rig.command(Command::DeviceCreateVirtual { name: shows.into() }).unwrap();
        rig.command(Command::SessionRelate { session: id, virtual_device: shows.into() }).unwrap();
        id
    });
    let activation = |session| Activation { session, name: None, offline: false };
    rig.command(Command::SessionActivate { sessions: sessions.map(activation).into() }).unwrap();
    sessions
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
