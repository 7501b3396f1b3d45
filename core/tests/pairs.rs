//! Commands on peers and pairs: what each changes, and what it refuses (A1 to A7, F2, F4, F5).

mod common;
#[path = "common/pairs.rs"]
mod halves;

use halves::{HERE, POOL, THERE, TRACK_BYTES, array, commit, generation, load, pair, record};
use twintrack_core::remote::{
    Half, Halt, Kinship, Mode, PAIRS_MAX, PEERS_MAX, PairRecord, Policy, Role, SAGAS_MAX, SagaResult, Stage,
};
use twintrack_core::{CommandError, DeviceId, Pace, PairDevice, PairId, RegionNo, Tables, TrackNo, UnitSeq};

fn said<T: std::fmt::Debug>(result: Result<T, CommandError>) -> String {
    result.expect_err("it is refused").to_string()
}

/// Nothing was changed by what was refused.
fn unchanged(tables: &Tables, before: UnitSeq) {
    assert_eq!(tables.last_unit(), before);
    tables.audit().unwrap();
}

#[test]
fn a_peer_is_pinned_to_its_serial() {
    let (mut t, _, there) = array();
    let (other, _) = t.add_peer("other", None, None).unwrap();
    let before = t.last_unit();
    assert_eq!(
        said(t.learn_serial(other, THERE)),
        "array 000000000000000b is known as peer there already: use that name, or remove that peer first"
    );
    assert_eq!(said(t.learn_serial(other, HERE)), "array 000000000000000a is this array: name another one");
    assert_eq!(
        said(t.learn_serial(there, 0xc)),
        "peer there is array 000000000000000b, and array 000000000000000c answered: correct the endpoint, or remove \
         the peer and add it again if the array was replaced"
    );
    assert_eq!(t.learn_serial(there, THERE), Ok(None));
    unchanged(&t, before);
    assert!(t.learn_serial(other, 0xc).unwrap().is_some());
    assert_eq!(t.peer_of_serial(0xc).map(|(id, _)| id), Some(other));
    assert_eq!(t.peer_named("other").map(|(id, _)| id), Some(other));
}

#[test]
fn peers_are_checked() {
    let (mut t, _, there) = array();
    let before = t.last_unit();
    assert_eq!(
        said(t.add_peer("there", None, None)),
        "a peer named there exists already: choose another name, or remove that peer first"
    );
    assert!(matches!(t.add_peer("-", None, None), Err(CommandError::Name { .. })));
    assert!(matches!(t.add_peer("x", Some(""), None), Err(CommandError::Endpoint { .. })));
    assert!(matches!(t.add_peer("x", Some(&"x".repeat(257)), None), Err(CommandError::Endpoint { .. })));
    assert!(matches!(t.add_peer("x", None, Some(HERE)), Err(CommandError::SelfLink { .. })));
    assert!(matches!(t.add_peer("x", None, Some(THERE)), Err(CommandError::PeerKnown { .. })));
    unchanged(&t, before);
    for n in t.peers().count()..PEERS_MAX {
        t.add_peer(&format!("p{n}"), None, None).unwrap();
    }
    assert!(matches!(t.add_peer("x", None, None), Err(CommandError::Limit { most: PEERS_MAX, .. })));
    let (id, _) = pair(&mut t, record(there), "db", 10);
    assert_eq!(said(t.remove_peer(there)), "peer there has 1 pairs: delete them first");
    t.remove_pair(id).unwrap();
    t.remove_peer(there).unwrap();
    assert!(matches!(t.remove_peer(there), Err(CommandError::NoPeer { .. })));
}

/// A half made with its device, or with one that was there (A6); a second pair of a device is refused.
#[test]
fn a_half_is_created() {
    let (mut t, mut durable, there) = array();
    let (device, _) = t.create_standard("old", POOL, 10 * TRACK_BYTES).unwrap();
    let id = t.next_pair_id();
    let (same, _) = t.create_pair(id, record(there), PairDevice::Existing(device)).unwrap();
    assert_eq!((same, t.pair_of_device(device)), (device, Some(id)));
    let half = t.pair(id).unwrap();
    assert_eq!((half.stage, half.made_device, half.owed_from), (Stage::Creating, false, TrackNo(10)));
    let before = t.last_unit();
    let next = t.next_pair_id();
    assert_ne!(next, id);
    assert_eq!(
        said(t.create_pair(next, record(there), PairDevice::Existing(device))),
        "device old is paired with far of peer there: delete the pair first (`twintrack remote delete old`)"
    );
    let new = |name: &str, size_bytes| PairDevice::New { name: name.into(), pool: POOL, size_bytes };
    assert!(matches!(t.create_pair(next, record(there), new("old", 512)), Err(CommandError::Exists { .. })));
    assert!(matches!(t.create_pair(next, record(there), new("x", 1)), Err(CommandError::Size(_))));
    // A number that this array gave out before, or did not give out.
    assert!(matches!(t.create_pair(id, record(there), new("x", 512)), Err(CommandError::PairExists { .. })));
    let far = PairId { number: next.number + 9, ..next };
    assert!(matches!(t.create_pair(far, record(there), new("x", 512)), Err(CommandError::PairExists { .. })));
    let nobody = PairRecord { peer: twintrack_core::PeerId(999), ..record(there) };
    assert!(matches!(t.create_pair(next, nobody, new("x", 512)), Err(CommandError::NoPeer { .. })));
    unchanged(&t, before);
    // One that the peer began, with everything still to come from there.
    let theirs = PairId { serial: THERE, number: 5 };
    let lacking = PairRecord { lacked_from: TrackNo(0), complete: false, ..record(there) };
    let (made, _) = t.create_pair(theirs, lacking, new("new", 10 * TRACK_BYTES)).unwrap();
    assert_eq!(t.lacked(theirs).unwrap().count(), 10);
    assert_eq!(t.device(made).unwrap().name, "new");
    assert_eq!(t.pairs_of_peer(there).count(), 2);
    t.audit().unwrap();
    commit(&mut t, &mut durable);
    let again = load(&durable);
    assert_eq!(again.lacked(theirs).unwrap().count(), 10);
    assert_eq!(again.pair(theirs), t.pair(theirs));
    assert_eq!(again.pair_of_device(device), Some(id));
}

#[test]
fn a_paired_device_stays_as_it_is() {
    let (mut t, _, there) = array();
    let (id, device) = pair(&mut t, record(there), "db", 10);
    let before = t.last_unit();
    assert!(matches!(t.delete_device(device), Err(CommandError::Paired { .. })));
    assert!(matches!(t.grow(device, 20 * TRACK_BYTES), Err(CommandError::Paired { .. })));
    unchanged(&t, before);
    t.rename(device, "other").unwrap();
    // The device stays when the pair goes (it was ready).
    t.remove_pair(id).unwrap();
    t.grow(device, 20 * TRACK_BYTES).unwrap();
    t.delete_device(device).unwrap();
    t.audit().unwrap();
}

/// A creation that failed leaves nothing but a note for the peer (A7), at whatever step the power fails.
#[test]
fn a_creation_is_undone() {
    let (mut t, mut durable, there) = array();
    let id = t.next_pair_id();
    let device = PairDevice::New { name: "db".into(), pool: POOL, size_bytes: 100 * TRACK_BYTES };
    let owing = PairRecord { owed_from: TrackNo(0), ..record(there) };
    let (device, _) = t.create_pair(id, owing, device).unwrap();
    t.begin_write(id, RegionNo(1));
    t.pay(id, TrackNo(70));
    t.settle_owed(id);
    commit(&mut t, &mut durable);
    assert_eq!(durable.owed.len() + durable.dirty.len(), 2);
    let mut t = load(&durable);
    assert_eq!(t.pair(id).unwrap().stage, Stage::Creating);
    t.undo_pair(id).unwrap();
    t.audit().unwrap();
    assert!(t.device(device).unwrap().is_deleting());
    assert!(t.device_named("db").is_none());
    assert_eq!((t.pair(id).unwrap().stage, t.pair_of_device(device)), (Stage::Undoing, None));
    assert!(matches!(t.undo_pair(id), Err(CommandError::PairState { .. })));
    assert!(matches!(t.ready_pair(id), Err(CommandError::PairState { .. })));
    while t.has_reclaim() {
        t.reclaim();
    }
    commit(&mut t, &mut durable);
    assert_eq!(durable.owed.len() + durable.dirty.len() + durable.devices.len(), 0);
    let mut t = load(&durable);
    t.audit().unwrap();
    assert_eq!(t.pair(id).unwrap().stage, Stage::Undoing);
    t.remove_pair(id).unwrap();
    assert!(t.pair(id).is_none());
    // Nobody gets its number again.
    assert_ne!(t.next_pair_id(), id);
}

/// A device that was there before stays, free for others; so does one that somebody has taken a snapshot of.
#[test]
fn undoing_takes_no_more_than_was_made() {
    let (mut t, _, there) = array();
    let (device, _) = t.create_standard("old", POOL, 10 * TRACK_BYTES).unwrap();
    let id = t.next_pair_id();
    t.create_pair(id, record(there), PairDevice::Existing(device)).unwrap();
    t.undo_pair(id).unwrap();
    let next = t.next_pair_id();
    t.create_pair(next, record(there), PairDevice::Existing(device)).unwrap();
    assert_eq!(t.pair_of_device(device), Some(next));
    t.remove_pair(id).unwrap();
    assert_eq!(t.pair_of_device(device), Some(next));
    let id = t.next_pair_id();
    let made = PairDevice::New { name: "made".into(), pool: POOL, size_bytes: 512 };
    let (made, _) = t.create_pair(id, record(there), made).unwrap();
    t.register(made, None).unwrap();
    t.undo_pair(id).unwrap();
    assert!(!t.device(made).unwrap().is_deleting());
    t.audit().unwrap();
}

/// So does one that is the primary of a pair within the array. Once it was deleted, and at the next start the metadata counted as
/// damaged, for a copy had a device that was not there.
#[test]
fn undoing_leaves_what_is_copied_from() {
    let (mut t, mut durable, there) = array();
    let id = t.next_pair_id();
    let made = PairDevice::New { name: "made".into(), pool: POOL, size_bytes: 512 };
    let (made, _) = t.create_pair(id, record(there), made).unwrap();
    let (secondary, _) = t.create_standard("copy", POOL, 512).unwrap();
    t.create_local_pair(made, secondary, Pace::Fast).unwrap();
    t.undo_pair(id).unwrap();
    assert!(!t.device(made).unwrap().is_deleting());
    commit(&mut t, &mut durable);
    load(&durable).audit().unwrap();
}

#[test]
fn a_group_is_of_one_kind() {
    let (mut t, _, there) = array();
    let member = |group: &str| PairRecord { group: group.into(), ..record(there) };
    let (a, _) = pair(&mut t, member("g"), "a", 10);
    let (b, _) = pair(&mut t, member("g"), "b", 10);
    let (alone, _) = pair(&mut t, member(""), "alone", 10);
    assert_eq!(t.group_of(a), [a, b]);
    assert_eq!(t.group_of(alone), [alone]);
    assert_eq!(t.pairs_of_group(there, "").count(), 0);
    let id = t.next_pair_id();
    let device = |name: &str| PairDevice::New { name: name.into(), pool: POOL, size_bytes: 512 };
    let frozen = PairRecord { policy: Policy::Freeze, ..member("g") };
    assert_eq!(
        said(t.create_pair(id, frozen, device("c"))),
        "the pairs of group g have policy continue, and the new one freeze: use another group, or the same policy"
    );
    let mirrored = PairRecord { half: Half::R2, ..member("g") };
    assert!(matches!(t.create_pair(id, mirrored, device("c")), Err(CommandError::GroupDiffers { .. })));
    assert!(matches!(t.create_pair(id, member("a b"), device("c")), Err(CommandError::Name { .. })));
    // One that is being created does not suspend with the others.
    t.create_pair(id, member("g"), device("c")).unwrap();
    assert_eq!(t.group_of(a), [a, b]);
}

/// The whole group halts in one unit, with the write that could not be sent, and in new generations.
#[test]
fn a_group_halts_together() {
    let (mut t, mut durable, there) = array();
    let member = || PairRecord { group: "g".into(), ..record(there) };
    let (a, _) = pair(&mut t, member(), "a", 100);
    let (b, _) = pair(&mut t, member(), "b", 100);
    commit(&mut t, &mut durable);
    let before = t.last_unit();
    let unit = t.halt_group(&[a, b], Halt::Link, 5, &[(b, TrackNo(70))]).unwrap();
    assert_eq!(unit, before.next());
    for id in [a, b] {
        let half = t.pair(id).unwrap();
        assert_eq!((half.halt, half.halted_ms), (Some(Halt::Link), 5));
        assert_eq!(half.lineage.compare(&record(there).lineage), Kinship::Ahead);
        assert!(half.is_alone() && !t.may_write_alone(id));
    }
    assert_ne!(t.pair(a).unwrap().lineage.current(), t.pair(b).unwrap().lineage.current());
    assert_eq!((t.is_owed(b, TrackNo(70)), t.is_owed(a, TrackNo(70))), (true, false));
    // A crash before the commit: nothing of it.
    assert_eq!(load(&durable).pair(a).unwrap().halt, None);
    commit(&mut t, &mut durable);
    assert!(t.may_write_alone(a) && t.may_write_alone(b));
    let mut t = load(&durable);
    assert!(t.may_write_alone(a) && t.is_owed(b, TrackNo(70)));
    // A second halt begins no generation again, and the operator's will outlasts the link's.
    let current = t.pair(a).unwrap().lineage.current();
    t.halt_group(&[a], Halt::Operator, 6, &[]).unwrap();
    t.halt_group(&[a], Halt::Link, 7, &[(a, TrackNo(1))]).unwrap();
    let half = t.pair(a).unwrap();
    assert_eq!((half.halt, half.halted_ms, half.lineage.current()), (Some(Halt::Operator), 6, current));
    assert!(t.is_owed(a, TrackNo(1)));
    t.resume(a).unwrap();
    assert_eq!(t.pair(a).unwrap().halt, None);
    assert_eq!(said(t.resume(a)), format!("{a} is not halted and cannot be resumed: it is not suspended"));
}

/// A frozen owner does not diverge while it waits; once it is let go on alone it is a generation further.
#[test]
fn a_frozen_pair_begins_no_generation() {
    let (mut t, _, there) = array();
    let (id, _) = pair(&mut t, PairRecord { policy: Policy::Freeze, ..record(there) }, "a", 10);
    t.halt_group(&[id], Halt::Frozen, 1, &[]).unwrap();
    assert_eq!(t.pair(id).unwrap().lineage.current(), generation(1));
    t.halt_group(&[id], Halt::Operator, 2, &[]).unwrap();
    let half = t.pair(id).unwrap();
    assert_eq!((half.halt, half.lineage.current().serial), (Some(Halt::Operator), HERE));
}

/// A crash before that is durable freezes it again: then R1 must not have answered a write (`pair` 960 had).
#[test]
fn a_frozen_pair_takes_writes_once_it_is_durable_that_it_thawed() {
    let (mut t, mut durable, there) = array();
    let (id, _) = pair(&mut t, PairRecord { policy: Policy::Freeze, ..record(there) }, "a", 10);
    t.begin_write(id, RegionNo(0));
    t.end_write(id, RegionNo(0));
    for thaw in [
        |t: &mut Tables, id| t.halt_group(&[id], Halt::Operator, 2, &[]),
        |t: &mut Tables, id| t.resume(id),
        |t: &mut Tables, id| Ok(t.agreed(id).expect("nothing else holds it up")),
    ] {
        t.halt_group(&[id], Halt::Frozen, 1, &[]).unwrap();
        commit(&mut t, &mut durable);
        let unit = thaw(&mut t, id).unwrap();
        assert_eq!(t.begin_write(id, RegionNo(0)), Some(unit));
        commit(&mut t, &mut durable);
        assert_eq!(t.begin_write(id, RegionNo(0)), None);
        if t.pair(id).is_some_and(|half| half.halt.is_some()) {
            t.resume(id).unwrap();
        }
    }
}

#[test]
fn a_diverged_pair_waits_for_a_choice() {
    let (mut t, _, there) = array();
    let (id, _) = pair(&mut t, record(there), "a", 10);
    t.halt_group(&[id], Halt::Diverged, 1, &[]).unwrap();
    assert_eq!(
        said(t.resume(id)),
        format!(
            "{id} is halted (diverged) and cannot be resumed: choose whose data are kept (`twintrack remote resolve`)"
        )
    );
    t.halt_group(&[id], Halt::Operator, 1, &[]).unwrap();
    assert_eq!(t.pair(id).unwrap().halt, Some(Halt::Diverged));
    t.resolve(id, None).unwrap();
    let half = t.pair(id).unwrap();
    assert_eq!((half.halt, half.is_alone()), (None, true));
    assert!(matches!(t.resolve(id, None), Err(CommandError::PairState { .. })));
    // The half that is kept takes the other's place.
    let mut other = record(there).lineage;
    other.begin(generation(9));
    t.halt_group(&[id], Halt::Diverged, 1, &[]).unwrap();
    assert_eq!(t.pair(id).unwrap().lineage.compare(&other), Kinship::Diverged);
    t.resolve(id, Some(&other)).unwrap();
    assert_eq!(t.pair(id).unwrap().lineage.compare(&other), Kinship::Ahead);
}

#[test]
fn roles_move_as_the_table_says() {
    let (mut t, _, there) = array();
    let (id, _) = pair(&mut t, PairRecord { role: Role::Standby, ..record(there) }, "a", 10);
    let before = t.last_unit();
    assert_eq!(
        said(t.set_roles(&[id], Role::Released, false)),
        format!("{id} is standby here and cannot be failed over: ask the other array")
    );
    assert!(matches!(t.set_roles(&[id], Role::Standby, false), Err(CommandError::PairState { .. })));
    unchanged(&t, before);
    // A planned failover: the same data, so the same generation, until it writes alone.
    t.set_roles(&[id], Role::Owner, false).unwrap();
    assert_eq!(
        (t.pair(id).unwrap().is_owner(), t.pair(id).unwrap().lineage.current()),
        (true, generation(1))
    );
    assert!(t.begin_generation(id).unwrap().is_some());
    assert_eq!(t.begin_generation(id).unwrap(), None);
    t.set_roles(&[id], Role::Released, false).unwrap();
    t.set_roles(&[id], Role::Standby, false).unwrap();
    // By force: a generation that the other side does not know, even if the present one is its own already.
    let alone = t.pair(id).unwrap().lineage.current();
    t.set_roles(&[id], Role::Owner, true).unwrap();
    let half = t.pair(id).unwrap();
    assert!(half.forced && half.lineage.current() != alone);
    t.clear_forced(id).unwrap();
    // An owner that was restarted may be forced, too.
    assert!(matches!(t.set_roles(&[id], Role::Owner, false), Err(CommandError::PairState { .. })));
    t.set_roles(&[id], Role::Owner, true).unwrap();
    t.set_roles(&[id], Role::Standby, false).unwrap();
    t.set_complete(id, false).unwrap();
    assert!(matches!(t.set_roles(&[id], Role::Owner, true), Err(CommandError::Incomplete { .. })));
    // Its owner lets it: it has the list of what it lacks.
    t.lack_words(id, &[(RegionNo(0), 1)]).unwrap();
    t.set_roles(&[id], Role::Owner, false).unwrap();
    t.audit().unwrap();
}

/// A half whose copy is complete is the same as its source, and owes and lacks nothing, after a restart too.
#[test]
fn a_complete_copy_is_adopted() {
    let (mut t, mut durable, there) = array();
    let standby = PairRecord { role: Role::Standby, complete: false, ..record(there) };
    let (id, _) = pair(&mut t, standby, "a", 1000);
    t.owe_words(id, &[(RegionNo(3), 7), (RegionNo(9), 1)]).unwrap();
    t.lack_all(id).unwrap();
    t.fetched(id, TrackNo(500)).unwrap();
    let mut lineage = record(there).lineage;
    lineage.begin(generation(9));
    t.adopt(id, &lineage).unwrap();
    t.audit().unwrap();
    commit(&mut t, &mut durable);
    assert_eq!((durable.owed.len(), durable.lacked.len()), (0, 0));
    let t = load(&durable);
    let half = t.pair(id).unwrap();
    assert_eq!(
        (half.lineage.compare(&lineage), half.complete, half.is_alone()),
        (Kinship::Same, true, false)
    );
    assert!(t.owed(id).unwrap().is_empty() && t.lacked(id).unwrap().is_empty());
}

/// An owner that leaves its peer behind on purpose is a generation further before it does.
#[test]
fn adaptive_mode_begins_a_generation() {
    let (mut t, _, there) = array();
    let (id, _) = pair(&mut t, record(there), "a", 10);
    t.set_mode(id, Mode::Adaptive).unwrap();
    let half = t.pair(id).unwrap();
    assert!(half.is_alone());
    let current = half.lineage.current();
    t.set_mode(id, Mode::Synchronous).unwrap();
    t.set_shared(id, current).unwrap();
    assert!(!t.pair(id).unwrap().is_alone() && !t.may_write_alone(id));
    t.set_peer_boot(id, 8).unwrap();
    t.set_policy(&[id], Policy::Freeze).unwrap();
    let half = t.pair(id).unwrap();
    assert_eq!((half.peer_boot, half.policy), (8, Policy::Freeze));
}

#[test]
fn results_are_kept_and_the_oldest_forgotten() {
    let (mut t, mut durable, _) = array();
    for request in 0..SAGAS_MAX as u64 + 2 {
        t.finish_saga(1000 - request, SagaResult::Done);
    }
    let refused = SagaResult::Refused { code: 3, reason: "é".repeat(1000) };
    t.finish_saga(900, refused);
    assert!(t.saga(1000).is_none() && t.saga(999).is_none() && t.saga(998).is_some());
    let SagaResult::Refused { reason, .. } = &t.saga(900).unwrap().result else { panic!("it was refused") };
    assert_eq!(reason.len(), 1024);
    commit(&mut t, &mut durable);
    assert_eq!(durable.sagas.len(), SAGAS_MAX);
    assert_eq!(load(&durable).saga(900), t.saga(900));
}

/// Commands on what is not there change nothing.
#[test]
fn no_such_pair() {
    let (mut t, _, _) = array();
    let (before, id) = (t.last_unit(), PairId { serial: 1, number: 1 });
    let gone =
        |result: Result<UnitSeq, CommandError>| assert_eq!(result, Err(CommandError::NoPair { pair: id }));
    gone(t.ready_pair(id));
    gone(t.undo_pair(id));
    gone(t.remove_pair(id));
    gone(t.halt_group(&[id], Halt::Link, 0, &[]));
    gone(t.halt_group(&[], Halt::Link, 0, &[(id, TrackNo(0))]));
    gone(t.resume(id));
    gone(t.set_roles(&[id], Role::Owner, true));
    gone(t.set_mode(id, Mode::Adaptive));
    gone(t.set_policy(&[id], Policy::Freeze));
    gone(t.set_complete(id, true));
    assert_eq!(t.owe(id, TrackNo(0)), None);
    assert_eq!(t.pay(id, TrackNo(0)), None);
    assert_eq!(t.fetched(id, TrackNo(0)), None);
    assert_eq!(t.begin_write(id, RegionNo(0)), None);
    assert_eq!(t.begin_flush(id), None);
    assert!(!t.is_owed(id, TrackNo(0)) && !t.is_marked(id, RegionNo(0)) && !t.may_write_alone(id));
    t.clean(id, &[RegionNo(0)]);
    unchanged(&t, before);
}

/// As many pairs as devices, those being undone included.
#[test]
fn pairs_are_limited() {
    let (mut t, _, there) = array();
    for number in 0..PAIRS_MAX {
        let id = PairId { serial: THERE, number: number as u32 };
        let device = PairDevice::New { name: "d".into(), pool: POOL, size_bytes: 512 };
        t.create_pair(id, record(there), device).unwrap();
        t.undo_pair(id).unwrap();
        while t.has_reclaim() {
            t.reclaim();
        }
    }
    let device = PairDevice::New { name: "d".into(), pool: POOL, size_bytes: 512 };
    let refused = t.create_pair(t.next_pair_id(), record(there), device);
    assert!(matches!(refused, Err(CommandError::Limit { most: PAIRS_MAX, .. })), "{refused:?}");
    assert_eq!(t.device(DeviceId(1)), None);
}
