//! Pairs: their statuses, mirrors, and secondaries that are chosen.

use std::time::Duration;

use twintrack_controller::firmware::{AttachError, HostError};
use twintrack_link::manage::{Command, PairCalled, PairPace, PairStage, RefusalCode};

use crate::rig::Rig;
use crate::{
    TRACK, TRACKS, back, content, copies_of, create, names, pair, pair_copy, pair_create, pair_restore,
    pair_resync, pair_show, restore, sessions, two, write,
};

/// C1, C2, C4, C5, C10, C13: one pair through all that it can be.
#[test]
fn a_pair_from_its_creation_to_its_end() {
    let mut rig = two();
    (0..TRACKS).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
    assert_eq!(copies_of(&mut rig, "d"), [0; 0], "simplex");
    let made = pair_create(&mut rig);
    assert_eq!((made.status, made.called), (PairStage::Paired, PairCalled::Pending));
    assert_eq!(["d", "e"].map(|name| copies_of(&mut rig, name)), [[made.number], [made.number]]);
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone), "hosts do not use the secondary");
    assert_eq!(rig.attach_error("e"), Some(AttachError::NotReady));
    let called_ms = rig.wall_ms();
    let copied = pair_copy(&mut rig).unwrap();
    assert_eq!((copied.status, copied.copied_ms), (PairStage::Copying, Some(called_ms)));
    assert_eq!(copied.called, PairCalled::SpPending);
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
    assert_eq!(copies_of(&mut rig, "d"), [0; 0], "simplex");
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
