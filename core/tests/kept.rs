//! What a half goes back to while a copy into it is under way: pinned sessions, who may end them, and the way back.

mod common;
#[path = "common/pairs.rs"]
mod halves;
#[path = "kept/world.rs"]
mod world;

use common::{Failure, Rng, campaign, cases, formatted};
use halves::{array, commit, generation, load, pair, record};
use twintrack_core::remote::{Halt, Kinship, PairRecord, Role};
use twintrack_core::{CommandError, Owner, PairId, Pinned, Place, SessionId, SessionState, Tables, TrackNo};
use world::World;

fn standby(peer: twintrack_core::PeerId) -> PairRecord {
    PairRecord { role: Role::Standby, ..record(peer) }
}

fn only_session(t: &Tables) -> SessionId {
    t.sessions().next().expect("there is one").0
}

/// A session that a pair may have to go back to neither fails nor ends, for whatever anybody asks.
#[test]
fn what_is_needed_stays() {
    let (mut t, mut durable, there) = array();
    let (id, device) = pair(&mut t, standby(there), "db", 10);
    t.begin_copy(id, &[id], Pinned::SafetyCopy, 77).unwrap();
    let session = only_session(&t);
    assert!(!t.pair(id).unwrap().complete && t.has_pinned(device));
    let shown_by = t.session(session).unwrap().virtual_device.unwrap();
    let shown = t.device(shown_by).unwrap();
    assert_eq!((shown.name.as_str(), shown.online), ("db.safe-1", false));
    let before = t.last_unit();
    let needed = Err(CommandError::Needed { session, pair: id });
    assert_eq!((t.remove_session(session), t.deactivate(session)), (needed.clone(), needed));
    assert_eq!(t.fail_session(session), Err(CommandError::Pinned { session }));
    assert!(matches!(t.delete_device(shown_by), Err(CommandError::Shown { .. })));
    let place = Place { owner: Owner::Session(session), track: TrackNo(0) };
    assert!(t.plan_write(place, t.geometry().full()).is_err(), "what it shows is not written to");
    assert_eq!((t.last_unit(), t.left_safety_copies()), (before, vec![]));
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    t.audit().unwrap();
    let lineage = t.pair(id).unwrap().lineage.clone();
    assert_eq!(t.end_copy(id, &lineage, &[id]), Ok(vec![session]));
    assert_eq!(t.left_safety_copies(), [session]);
    t.remove_session(session).unwrap();
    assert_eq!((t.sessions().count(), t.device(shown_by)), (0, None), "what the array made goes with it");
    t.audit().unwrap();
}

/// What was given up stays after the copy, until a person removes it; so does a safety copy whose pair has ended.
#[test]
fn what_nobody_needs_a_person_removes() {
    let (mut t, _, there) = array();
    let (loser, _) = pair(&mut t, standby(there), "a", 10);
    let (ended, _) = pair(&mut t, standby(there), "b", 10);
    t.begin_copy(loser, &[loser], Pinned::Loser, 0).unwrap();
    t.begin_copy(ended, &[ended], Pinned::SafetyCopy, 0).unwrap();
    let lineage = t.pair(loser).unwrap().lineage.clone();
    t.end_copy(loser, &lineage, &[loser]).unwrap();
    t.end_pair(ended).unwrap();
    t.audit().unwrap();
    assert_eq!(t.left_safety_copies(), []);
    t.remove_pair(ended).unwrap();
    assert_eq!(t.left_safety_copies(), []);
    let sessions: Vec<_> = t.sessions().map(|(id, _)| id).collect();
    for session in sessions {
        assert!(t.fail_session(session).is_err());
        t.remove_session(session).unwrap();
    }
    t.audit().unwrap();
}

/// Of sessions that keep the same track, none is failed while a pinned one is among them: it would free nothing.
#[test]
fn no_session_fails_for_what_a_pinned_one_keeps() {
    let mut world = World::new();
    let [p, ..] = world.pairs;
    let d = world.device(p);
    world.write(Owner::Device(d), 0, 0..4).unwrap();
    let before = world.establish(d);
    world.begin_copy(p);
    world.write(Owner::Device(d), 0, 0..4).unwrap();
    assert_eq!(world.t.oldest_failable(halves::POOL), None);
    world.write(Owner::Device(d), 1, 0..4).unwrap();
    world.end_copy(p);
    world.write(Owner::Device(d), 1, 0..4).unwrap();
    world.remove_left();
    world.reclaim();
    assert_eq!(world.t.oldest_failable(halves::POOL), Some(before));
    world.check().unwrap();
}

/// Who goes back serves, by force, with a generation that shows that the past was chosen: to the peer that went on, and to
/// one that has no more than the half had.
#[test]
fn who_goes_back_has_diverged() {
    let (mut t, mut durable, there) = array();
    let (id, _) = pair(&mut t, standby(there), "db", 10);
    let theirs = t.pair(id).unwrap().lineage.clone();
    assert!(matches!(t.check_go_back(&[id]), Err(CommandError::PairState { .. })), "nothing was kept");
    t.begin_copy(id, &[id], Pinned::SafetyCopy, 0).unwrap();
    assert_eq!(t.set_roles(&[id], Role::Owner, true), Err(CommandError::Incomplete { pair: id }));
    t.go_back(&[id], 1).unwrap();
    assert!(matches!(t.go_back(&[id], 1), Err(CommandError::PairState { .. })), "it is on its way");
    let half = t.pair(id).unwrap();
    assert!(half.is_returning() && half.is_owner() && half.forced && !half.complete);
    let mut ahead = theirs.clone();
    ahead.begin(generation(9));
    for peer in [&theirs, &ahead] {
        assert_eq!(half.lineage.compare(peer), Kinship::Diverged);
    }
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    assert_eq!(t.next_returning(), Some(id));
    assert!(t.go_back_step(id));
    let half = t.pair(id).unwrap();
    assert!(half.complete && half.kept.is_none() && t.next_returning().is_none());
    assert_eq!(t.left_safety_copies(), [only_session(&t)]);
    t.halt_group(&[id], Halt::Diverged, 0, &[]).unwrap();
    t.audit().unwrap();
}

/// A group goes back as a whole, or not at all.
#[test]
fn a_group_goes_back_together() {
    let (mut t, _, there) = array();
    let member = || PairRecord { group: "g".into(), ..standby(there) };
    let (a, _) = pair(&mut t, member(), "a", 10);
    let (b, _) = pair(&mut t, member(), "b", 10);
    let (new, _) = pair(&mut t, PairRecord { complete: false, ..member() }, "new", 10);
    t.begin_copy(a, &[a, b], Pinned::SafetyCopy, 0).unwrap();
    let generations: Vec<_> = t
        .sessions()
        .map(|(_, session)| match session.state {
            SessionState::Active { activated } => activated.0,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(generations, [1, 1]);
    let lineage = t.pair(a).unwrap().lineage.clone();
    t.end_copy(a, &lineage, &[]).unwrap();
    assert!(t.pair(a).unwrap().kept.is_some(), "the copy into b may be still to come");
    assert_eq!(t.go_back(&[a, b, new], 1), Err(CommandError::Incomplete { pair: new }));
    t.adopt(new, &lineage).unwrap();
    t.go_back(&[a, b, new], 1).unwrap();
    let roles = [a, b, new].map(|id: PairId| (t.pair(id).unwrap().role, t.pair(id).unwrap().is_returning()));
    assert_eq!(roles, [(Role::Owner, true), (Role::Owner, true), (Role::Owner, false)]);
    t.audit().unwrap();
}

/// A large half goes back in steps, and a crash between them costs no more than to begin anew.
#[test]
fn a_large_half_goes_back_in_steps() {
    const TRACKS: u32 = 5000;
    let mut durable = formatted(&[3 * TRACKS]);
    let mut t = load(&durable);
    let (there, _) = t.add_peer("there", None, Some(halves::THERE)).unwrap();
    let (id, device) = pair(&mut t, standby(there), "db", TRACKS.into());
    let place = |track| Place { owner: Owner::Device(device), track: TrackNo(track) };
    let write_all = |t: &mut Tables| {
        for track in 0..TRACKS {
            let plan = t.plan_write(place(track), t.geometry().full()).unwrap();
            t.land_write(plan).unwrap();
        }
        (0..TRACKS).map(|track| t.entry(place(track)).unwrap()).collect::<Vec<_>>()
    };
    let before = write_all(&mut t);
    t.begin_copy(id, &[id], Pinned::SafetyCopy, 0).unwrap();
    assert!(write_all(&mut t).iter().zip(&before).all(|(now, then)| now != then));
    t.go_back(&[id], 1).unwrap();
    assert!(!t.go_back_step(id));
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    assert!(!t.go_back_step(id) && t.go_back_step(id));
    let back: Vec<_> = (0..TRACKS).map(|track| t.entry(place(track)).unwrap()).collect();
    assert_eq!(back, before);
    assert_eq!(t.owed(id).unwrap().count(), TRACKS);
    t.audit().unwrap();
}

fn history(words: &[u64]) -> Result<(), Failure> {
    let mut world = World::new();
    for (step, word) in words.iter().enumerate() {
        let result = world.step(&mut Rng::new(*word)).and_then(|()| world.check());
        result.map_err(|what| Failure { step, what, trace: std::mem::take(&mut world.trace) })?;
    }
    Ok(())
}

/// Whatever else is written, kept, given up for room or interrupted: a half goes back to what it was, and owes the peer all
/// that it goes back in.
#[test]
fn halves_go_back_to_what_they_were() {
    campaign(&history, cases(120), 200);
}
