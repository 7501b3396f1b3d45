//! Points in time that two arrays have together (F3): prepared, decided, heard of, or given up, over crashes.

mod common;
#[path = "common/pairs.rs"]
mod halves;

use common::Durable;
use halves::{POOL, array, commit, load, pair, record};
use twintrack_core::remote::{SAGAS_MAX, SagaResult};
use twintrack_core::{
    ActivateSession, BlockMask, CommandError, Decision, DeviceId, NewPoint, Owner, PeerId, Place, SessionId,
    Tables, TrackNo,
};

const REQUEST: u64 = 9;

fn point(device: DeviceId, shown_by: &str) -> NewPoint {
    NewPoint { device, shown_by: shown_by.into(), online: true }
}

fn write(t: &mut Tables, device: DeviceId) {
    let place = Place { owner: Owner::Device(device), track: TrackNo(0) };
    let plan = t.plan_write(place, BlockMask::range(0, 1)).unwrap();
    t.land_write(plan).unwrap();
}

/// Two volumes with something on them, prepared.
fn prepared(by: impl Fn(PeerId) -> Option<PeerId>) -> (Tables, Durable, PeerId, Vec<SessionId>) {
    let (mut t, mut durable, there) = array();
    let (_, a) = pair(&mut t, record(there), "a", 10);
    let (_, b) = pair(&mut t, record(there), "b", 10);
    for device in [a, b] {
        write(&mut t, device);
    }
    let decision = Decision { by: by(there), request: REQUEST };
    let sessions = t.prepare(&[point(a, "a.x"), point(b, "b.x")], decision, 77).unwrap();
    for device in [a, b] {
        write(&mut t, device);
    }
    t.audit().unwrap();
    commit(&mut t, &mut durable);
    (t, durable, there, sessions)
}

/// Prepared, it keeps what it has, and neither fails nor ends by hand.
#[test]
fn what_is_undecided_stays() {
    let (mut t, durable, there, sessions) = prepared(Some);
    assert_eq!(t.oldest_failable(POOL), None);
    for session in &sessions {
        assert!(t.is_undecided(*session));
        assert_eq!(t.remove_session(*session), Err(CommandError::Undecided { session: *session }));
        assert!(t.fail_session(*session).is_err() && t.deactivate(*session).is_err());
        assert!(t.kept(*session, TrackNo(0)).is_some());
    }
    let again = load(&durable);
    assert_eq!(again.undecided().count(), 2);
    let pairs: Vec<_> = t.pairs().map(|(id, _)| id).collect();
    for pair in pairs {
        t.remove_pair(pair).unwrap();
    }
    t.remove_peer(there).unwrap();
    for session in sessions {
        t.remove_session(session).unwrap();
    }
    assert!(t.device_named("a.x").is_none());
    t.audit().unwrap();
}

/// Decided, it is one of many, for hosts, for the pool and for people.
#[test]
fn what_is_decided_is_a_session_like_any_other() {
    let (mut t, mut durable, there, sessions) = prepared(Some);
    assert!(t.decided(there, REQUEST + 1).is_none(), "another one");
    t.decided(there, REQUEST).unwrap();
    assert!(t.decided(there, REQUEST).is_none());
    t.audit().unwrap();
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    assert_eq!((t.undecided().count(), t.oldest_failable(POOL)), (0, Some(sessions[0])));
    t.deactivate(sessions[0]).unwrap();
    t.remove_session(sessions[1]).unwrap();
    assert!(t.device_named("b.x").is_some(), "as after any session");
    t.audit().unwrap();
}

/// Given up, it leaves nothing, and what it kept comes free.
#[test]
fn what_is_not_decided_goes() {
    let (mut t, mut durable, there, _) = prepared(Some);
    let used = t.used_tracks();
    assert!(t.drop_undecided(Decision { by: None, request: REQUEST }).is_none(), "not by this array");
    t.drop_undecided(Decision { by: Some(there), request: REQUEST }).unwrap();
    t.audit().unwrap();
    assert_eq!((t.sessions().count(), t.device_named("a.x")), (0, None));
    commit(&mut t, &mut durable);
    while t.has_reclaim() {
        t.reclaim();
    }
    commit(&mut t, &mut durable);
    assert_eq!(t.used_tracks(), used - 2);
    let t = load(&durable);
    t.audit().unwrap();
    assert_eq!((t.sessions().count(), t.used_tracks()), (0, used - 2));
}

/// The array that decides shows all of it and notes that the peer has yet to hear, in one unit; however many requests come
/// later, it does not forget that.
#[test]
fn the_peer_has_to_hear_of_it() {
    let (mut t, mut durable, there, _) = prepared(|_| None);
    let before = t.last_unit();
    t.decide(REQUEST, there);
    assert_eq!((t.last_unit(), t.undecided().count()), (before.next(), 0));
    for request in 1000..1000 + SAGAS_MAX as u64 {
        t.finish_saga(request, SagaResult::Done);
    }
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    assert_eq!((t.untold_to(there), durable.sagas.len()), (vec![REQUEST], SAGAS_MAX));
    t.told(REQUEST).unwrap();
    assert!(t.told(REQUEST).is_none() && t.untold_to(there).is_empty());
    t.finish_saga(5000, SagaResult::Done);
    assert_eq!(t.saga(REQUEST), None);
    for request in 0..SAGAS_MAX as u64 {
        t.check_decidable().unwrap();
        t.decide(request, there);
    }
    assert!(matches!(t.check_decidable(), Err(CommandError::Limit { .. })));
}

/// It is at one instant with whatever else there is, and refused where that cannot be.
#[test]
fn prepared_beside_others() {
    let (mut t, _, there) = array();
    let (id, a) = pair(&mut t, record(there), "a", 10);
    let (v, _) = t.create_virtual("v").unwrap();
    let (session, _) = t.register(a, None).unwrap();
    t.relate(session, v).unwrap();
    t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).unwrap();
    let decision = Decision { by: None, request: REQUEST };
    let before = t.last_unit();
    let mut refused = |points: &[NewPoint]| t.prepare(points, decision, 0).unwrap_err();
    assert_eq!(refused(&[]), CommandError::Nothing);
    assert_eq!(refused(&[point(a, "v")]), CommandError::Exists { name: "v".into() });
    assert_eq!(refused(&[point(a, "x"), point(a, "y")]), CommandError::Exists { name: "y".into() });
    assert!(matches!(refused(&[point(a, "")]), CommandError::Name { .. }));
    assert!(matches!(refused(&[point(v, "x")]), CommandError::NotStandard { .. }));
    assert_eq!(t.last_unit(), before);
    t.lack_all(id).unwrap();
    assert!(matches!(t.check_prepare(&[point(a, "x")]), Err(CommandError::Filling { .. })));
}
