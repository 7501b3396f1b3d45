//! Copies within the array beside volumes that are copied whole (C1 to C5, C7, C10, D8 to D13, D15): random histories of
//! writes on all sides, pairs, restores, sessions, merges and power cuts; after every step each volume and each session is
//! as it should be, what differs in a pair is noted, and what is noted was written.
//!
//! `TWINTRACK_CASES` sets how many histories run, `TWINTRACK_SEED` the first seed.

mod common;
#[path = "local/world.rs"]
mod world;

use common::{Durable, Failure, Rng, campaign, cases};
use twintrack_core::{
    ActivateSession, Change, CommandError, DeviceId, Geometry, Owner, Pace, PairCommand, Place, PoolId,
    PoolRecord, RestoreItem, StoreId, StoreRecord, Tables, TrackNo,
};
use world::World;

const STEPS: usize = 200;

fn history(words: &[u64]) -> Result<(), Failure> {
    let mut world = World::new();
    for (step, word) in words.iter().enumerate() {
        let done = world.step(&mut Rng::new(*word)).and_then(|()| world.check());
        done.map_err(|what| Failure { step, what, trace: std::mem::take(&mut world.trace) })?;
    }
    let end = world.wind_up();
    end.map_err(|what| Failure { step: words.len(), what, trace: std::mem::take(&mut world.trace) })
}

#[test]
fn copies_are_as_if_they_were_whole() {
    campaign(&history, cases(400), STEPS);
}

/// What cannot be paired is refused, and says why (C1, C7).
#[test]
fn what_cannot_be_paired() {
    let (mut t, [p, s]) = array();
    let small = t.create_standard("small", PoolId(0), 512).unwrap().0;
    assert!(matches!(t.create_local_pair(p, p, Pace::Fast), Err(CommandError::SameVolume { .. })));
    assert!(matches!(t.create_local_pair(p, small, Pace::Fast), Err(CommandError::SizesDiffer { .. })));
    let (id, _) = t.create_local_pair(p, s, Pace::Fast).unwrap();
    let in_copy = |result| matches!(result, Err(CommandError::InCopy { copy, .. }) if copy == id);
    let third = t.create_standard("third", PoolId(0), 1 << 20).unwrap().0;
    assert!(in_copy(t.create_local_pair(third, s, Pace::Fast)), "a secondary has one primary");
    assert!(in_copy(t.create_local_pair(s, third, Pace::Fast)), "and is none");
    t.create_local_pair(p, third, Pace::Fast).unwrap();
    assert!(matches!(t.delete_device(p), Err(CommandError::InCopy { .. })));
    assert!(matches!(t.grow(s, 2 << 20), Err(CommandError::InCopy { .. })));
}

/// Of a large volume, the instant of a copy is one unit of a few changes, and so is the way to the next one.
#[test]
fn the_instant_costs_nothing() {
    let (mut t, _) = array();
    let [p, s] = ["large", "larger"].map(|name| t.create_standard(name, PoolId(0), 1 << 40).unwrap().0);
    let (id, _) = t.create_local_pair(p, s, Pace::Fast).unwrap();
    let last = t.last_unit();
    t.take_commit(last);
    let copied = t.begin_local_copy(id, PairCommand::Copy, false, 7).unwrap();
    assert!(t.take_commit(copied).len() <= 8);
    assert!(t.fill_step(id) || t.copy_counts(id).0 > 0);
}

/// A bit that is not durable does not stand for a write in place, nor does a pair whose end is not durable let one go by. After a
/// power cut the bit was gone, or the pair was back, and what had been written in place was equal to nobody's knowledge. The
/// histories found both.
#[test]
fn nothing_is_written_in_place_that_a_crash_makes_equal() {
    let first = |t: &mut Tables, device, blocks| {
        let place = Place { owner: Owner::Device(device), track: TrackNo(3) };
        let plan = t.plan_write(place, blocks).unwrap();
        let fresh = plan.fresh();
        t.land_write(plan).unwrap();
        fresh
    };
    let commit = |t: &mut Tables| {
        let last = t.last_unit();
        t.take_commit(last);
        t.committed(last);
    };
    let (mut t, [p, s]) = array();
    let full = t.geometry().full();
    let (id, _) = t.create_local_pair(p, s, Pace::Medium).unwrap();
    t.begin_local_copy(id, PairCommand::Copy, false, 7).unwrap();
    assert!(t.fill_step(id));
    commit(&mut t);
    assert!(first(&mut t, p, full) && t.is_unequal(id, TrackNo(3)));
    // Unequal, but not durably.
    assert!(first(&mut t, p, full) && first(&mut t, s, full) && first(&mut t, s, full));
    commit(&mut t);
    assert!(!first(&mut t, p, full) && !first(&mut t, s, full));
    t.resync_local_pair(id).unwrap();
    t.begin_local_copy(id, PairCommand::Copy, false, 8).unwrap();
    assert!(t.fill_step(id));
    assert!(first(&mut t, p, full));
    commit(&mut t);
    t.resync_local_pair(id).unwrap();
    t.begin_local_copy(id, PairCommand::Copy, false, 9).unwrap();
    assert!(t.fill_step(id));
    assert!(first(&mut t, s, full), "it is the primary's");
    commit(&mut t);
    t.delete_local_pair(id).unwrap();
    assert!(first(&mut t, s, full), "the pair may come back");
    commit(&mut t);
    assert!(!first(&mut t, s, full));
}

/// Each stood against a rule when the change was read again: a session that ended within a restore lost what the restore had yet
/// to bring from its report; a new name could be the one that the array was about to give; what lay in a third pool stayed
/// there; and what is kept before a restore was beyond the limit of sessions.
#[test]
fn what_a_restore_must_not_break() {
    let durable = common::formatted(&[64]);
    let mut t = Tables::load(Geometry::new(1 << 14).unwrap(), durable.changes()).unwrap();
    let [p, q] = ["p", "q"].map(|name| t.create_standard(name, PoolId(0), 1 << 20).unwrap().0);
    let establish = |t: &mut Tables, device, name: &str| {
        let (session, shows) = (t.register(device, None).unwrap().0, t.create_virtual(name).unwrap().0);
        t.relate(session, shows).unwrap();
        t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).unwrap();
        session
    };
    let write = |t: &mut Tables, device| {
        let (place, full) = (Place { owner: Owner::Device(device), track: TrackNo(3) }, t.geometry().full());
        let plan = t.plan_write(place, full).unwrap();
        t.land_write(plan).unwrap();
    };
    let restore = |session, to, name: Option<&str>| RestoreItem {
        session,
        to,
        keep: false,
        keep_before: true,
        name: name.map(str::to_owned),
        online: true,
        pace: Pace::Fast,
    };
    let [older, session] = ["a", "b"].map(|name| establish(&mut t, p, name));
    write(&mut t, p);
    t.restore(&[restore(session, p, Some("p.before-1"))], 2).unwrap();
    let mut names: Vec<_> = t.devices().map(|(_, device)| device.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), t.devices().count(), "{names:?}");
    assert!(matches!(t.deactivate(older), Err(CommandError::InCopy { .. })));
    let filling = t.next_filling().unwrap();
    assert!(t.fill_step(filling));
    t.deactivate(older).unwrap();
    let other = establish(&mut t, q, "c");
    while t.register(q, None).is_ok() {}
    let limit = t.restore(&[restore(other, q, None)], 3);
    assert!(matches!(limit, Err(CommandError::Limit { .. })), "{limit:?}");
    let refused = RestoreItem { keep_before: false, ..restore(other, q, None) };
    t.restore(&[refused], 3).unwrap();
    t.audit().unwrap();
}

/// An array with a second pool, and of two devices one in each.
fn two_pools() -> (Tables, [DeviceId; 2]) {
    let mut t = Tables::load(Geometry::new(1 << 14).unwrap(), formatted_with_two().changes()).unwrap();
    let devices = [("p", PoolId(0)), ("s", PoolId(1))]
        .map(|(name, pool)| t.create_standard(name, pool, 1 << 20).unwrap().0);
    (t, devices)
}

fn formatted_with_two() -> Durable {
    let mut durable = common::formatted(&[64]);
    let (pool, store) = (PoolId(1), StoreId(7));
    let record = StoreRecord { name: "far".into(), pool, first: 100, tracks: 64 };
    durable.apply(vec![Change::Pool(pool, PoolRecord { name: "far".into() }), Change::Store(store, record)]);
    durable
}

fn write_whole(t: &mut Tables, device: DeviceId, track: u32) {
    let (place, full) = (Place { owner: Owner::Device(device), track: TrackNo(track) }, t.geometry().full());
    let plan = t.plan_write(place, full).unwrap();
    t.land_write(plan).unwrap();
}

/// A volume in another pool was copied to, and restored to what a session showed while its tracks were still moved there. What
/// was to come took over a track amid its move, and the move then put back what the copy had brought. Found by `local` 338.
#[test]
fn a_move_does_not_go_over_what_is_still_to_come() {
    let (mut t, [p, s]) = two_pools();
    write_whole(&mut t, p, 3);
    let (session, shows) = (t.register(p, None).unwrap().0, t.create_virtual("v").unwrap().0);
    t.relate(session, shows).unwrap();
    t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).unwrap();
    write_whole(&mut t, p, 3);
    let place = Place { owner: Owner::Device(s), track: TrackNo(3) };
    let wanted = t.entry(Place { owner: Owner::Session(session), track: TrackNo(3) });
    let (id, _) = t.create_local_pair(p, s, Pace::Fast).unwrap();
    t.begin_local_copy(id, PairCommand::Copy, true, 2).unwrap();
    assert!(t.fill_step(id));
    let item = RestoreItem {
        session,
        to: s,
        keep: false,
        keep_before: false,
        name: None,
        online: true,
        pace: Pace::Fast,
    };
    t.restore(&[item], 3).unwrap();
    let filling = t.next_filling().unwrap();
    let plan = t.plan_relocate(place).unwrap().expect("it lies in the other pool");
    assert!(t.fill_step(filling));
    assert_eq!(plan.old(), wanted.unwrap(), "what is moved is what has come");
    t.land_write(plan).unwrap();
    t.audit().unwrap();
}

/// For what a copy has to move there may never be room. Who does not want it any more deletes the volume (F5).
#[test]
fn a_copy_that_only_moves_ends_with_its_target() {
    let (mut t, [p, s]) = two_pools();
    write_whole(&mut t, p, 0);
    let (id, _) = t.create_local_pair(p, s, Pace::Fast).unwrap();
    t.begin_local_copy(id, PairCommand::Copy, true, 2).unwrap();
    let held = |t: &mut Tables, device| matches!(t.delete_device(device), Err(CommandError::InCopy { .. }));
    assert!(held(&mut t, p) && held(&mut t, s));
    t.delete_local_pair(id).unwrap();
    assert!(held(&mut t, s), "entries are still to come");
    assert!(t.fill_step(id));
    assert!(held(&mut t, p));
    t.delete_device(s).unwrap();
    assert_eq!(t.copies().count(), 0);
    t.delete_device(p).unwrap();
    t.audit().unwrap();
}

/// D19: a part goes back to where it lies and to no other device, and its copy is over when that is done, also after a power cut
/// while tracks might yet have to be moved.
#[test]
fn a_part_is_restored_where_it_lies() {
    let (mut t, [p, s]) = two_pools();
    (0..6).for_each(|track| write_whole(&mut t, p, track));
    let (session, _) = t.register_part(p, None, TrackNo(2), TrackNo(3)).unwrap();
    let (shows, _) = t.create_virtual("v").unwrap();
    t.relate(session, shows).unwrap();
    t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).unwrap();
    let entry = |t: &Tables, track| t.entry(Place { owner: Owner::Device(p), track: TrackNo(track) });
    let before: Vec<_> = (0..6).map(|track| entry(&t, track)).collect();
    (0..6).for_each(|track| write_whole(&mut t, p, track));
    let after: Vec<_> = (0..6).map(|track| entry(&t, track)).collect();
    let to = |to| RestoreItem {
        session,
        to,
        keep: false,
        keep_before: true,
        name: None,
        online: true,
        pace: Pace::Fast,
    };
    for other in [s, shows] {
        let refused = t.restore(&[to(other)], 2).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("{session} is of a part of device p: it is restored there, and to no other device")
        );
    }
    let (ids, _) = t.restore(&[to(p)], 2).unwrap();
    assert_eq!(t.copy_counts(ids[0].unwrap()).0, 2);
    let is = |t: &Tables| (0..6).map(|track| entry(t, track)).collect::<Vec<_>>();
    let wanted = [&after[..2], &before[2..4], &after[4..]].concat();
    assert_eq!(is(&t), wanted, "at once");
    let made = t.sessions().find(|(_, record)| record.virtual_device.is_some_and(|it| it != shows)).unwrap();
    let kept = made.1.extent.unwrap();
    assert_eq!((made.0 != session, kept.first, kept.at), (true, TrackNo(2), TrackNo(0)));
    let kept = made.0;
    // It is filled, and what it may have to move is yet to be looked at.
    assert!(t.fill_step(ids[0].unwrap()));
    t.audit().unwrap();
    let mut durable = formatted_with_two();
    let upto = t.last_unit();
    durable.apply(t.take_commit(upto));
    t.committed(upto);
    let mut t = Tables::load(t.geometry(), durable.changes()).unwrap();
    t.audit().unwrap();
    assert_eq!(is(&t), wanted);
    let moving: Vec<_> = t.relocating().collect();
    assert_eq!(moving.len(), 1);
    t.end_relocation(moving[0]);
    assert_eq!(t.copies().count(), 0);
    // And back.
    let undo = RestoreItem {
        session: kept,
        to: p,
        keep: false,
        keep_before: false,
        name: None,
        online: true,
        pace: Pace::Fast,
    };
    t.restore(&[undo], 3).unwrap();
    assert_eq!(is(&t), after);
    t.audit().unwrap();
}

/// A part that ends with its device has nothing of what that grows by, in the same track either.
#[test]
fn a_part_that_ends_within_a_track_is_not_restored_to_a_larger_device() {
    let durable = common::formatted(&[64]);
    let mut t = Tables::load(Geometry::new(1 << 14).unwrap(), durable.changes()).unwrap();
    let (p, _) = t.create_standard("p", PoolId(0), 3 * (1 << 14) + 512).unwrap();
    let parts = [(0, 1), (2, 3)].map(|(first, last)| {
        let (session, _) = t.register_part(p, None, TrackNo(first), TrackNo(last)).unwrap();
        let (shows, _) = t.create_virtual(&format!("v{first}")).unwrap();
        t.relate(session, shows).unwrap();
        t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).unwrap();
        RestoreItem {
            session,
            to: p,
            keep: true,
            keep_before: false,
            name: None,
            online: true,
            pace: Pace::Fast,
        }
    });
    t.grow(p, 4 * (1 << 14)).unwrap();
    assert!(matches!(t.restore(&parts[1..], 2), Err(CommandError::SizesDiffer { .. })));
    assert!(matches!(t.restore(&parts, 2), Err(CommandError::TwiceInto { .. })), "one after the other");
    t.restore(&parts[..1], 2).unwrap();
    t.audit().unwrap();
}

fn array() -> (Tables, [DeviceId; 2]) {
    let durable = common::formatted(&[64]);
    let mut t = Tables::load(Geometry::new(1 << 14).unwrap(), durable.changes()).unwrap();
    let devices = ["p", "s"].map(|name| t.create_standard(name, PoolId(0), 1 << 20).unwrap().0);
    (t, devices)
}

/// The far end of the hunts below.
#[cfg(debug_assertions)]
#[test]
fn hunted() {
    common::hunt::hunted(&history, STEPS);
}

#[cfg(debug_assertions)]
mod planted {
    use crate::common::hunt::found;

    found! {
        fill_keeps_nothing FillKeepsNothing 50;
        fill_served_here FillServedHere 50;
        unequal_unnoted UnequalUnnoted 50;
        resync_forgets ResyncForgets 50;
        other_session_restored OtherSessionRestored 50;
        restore_unnoted RestoreUnnoted 50;
        move_untaken MoveUntaken 1000;
    }
}
