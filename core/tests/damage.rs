//! Metadata that do not fit together are refused, or make tables that work: loading never panics, whatever is lost or
//! changed. (The metadata store has checksums of its own; this is for what they miss, and for defects of ours.)

mod common;
#[path = "common/pairs.rs"]
mod halves;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Durable, Rng, cases, first_seed, formatted};
use twintrack_core::remote::{Halt, PairRecord, Role, SagaResult, Stage};
use twintrack_core::{
    ActivateSession, BlockMask, Change, DeviceId, Entry, Generation, Geometry, Owner, PairDevice, PairId,
    PeerId, PhysicalTrack, Place, PoolId, RegionNo, SessionId, SessionState, Tables, TrackNo,
};

const POOL: PoolId = PoolId(0);

/// Some of everything: devices, sessions of every state, versions, own tracks, overlays, peers, halves of pairs of
/// every stage with tracks owed, lacking and dirty.
fn sample() -> Durable {
    let mut durable = formatted(&[20, 30]);
    let mut t = Tables::load(Geometry::default(), durable.changes()).expect("a legal array");
    let write = |t: &mut Tables, owner, track, to| {
        let place = Place { owner, track: TrackNo(track) };
        let plan = t.plan_write(place, BlockMask::range(0, to)).expect("there is room");
        t.land_write(plan).expect("nothing is in its way");
    };
    for name in ["a", "b"] {
        let (dev, _) = t.create_standard(name, POOL, 300 << 10).expect("a legal device");
        for n in 0..4 {
            write(&mut t, Owner::Device(dev), n, 4 + 3 * n);
            let (session, _) = t.register(dev, None).expect("room for a session");
            let (shows, _) = t.create_virtual(&format!("{name}{n}")).expect("a free name");
            t.relate(session, shows).expect("a registered session");
            t.activate(&[ActivateSession { session, name: None, online: true }], None, 1).expect("related");
            write(&mut t, Owner::Device(dev), 0, 3);
            write(&mut t, Owner::Session(session), n, 16);
            let ended = match n {
                0 => t.deactivate(session),
                1 => t.fail_session(session),
                2 => t.remove_session(session),
                _ => continue,
            };
            ended.expect("an active session");
        }
        let (group, _) = t.begin_group().expect("room for a group");
        t.register(dev, Some(group)).expect("room for a session");
    }
    add_pairs(&mut t);
    let last = t.last_unit();
    durable.apply(t.take_commit(last));
    durable
}

fn add_pairs(t: &mut Tables) {
    let (peer, _) = t.add_peer("there", Some("there"), Some(halves::THERE)).expect("the first peer");
    t.add_peer("other", None, None).expect("the second peer");
    for stage in [Stage::Ready, Stage::Creating, Stage::Undoing, Stage::Ended] {
        let id = PairId { serial: halves::THERE, number: stage as u32 };
        let device = PairDevice::New { name: format!("p{stage}"), pool: POOL, size_bytes: 100 << 20 };
        let record = PairRecord { owed_from: TrackNo(300), ..halves::record(peer) };
        t.create_pair(id, record, device).expect("a legal pair");
        t.owe_words(id, &[(RegionNo(0), 5), (RegionNo(24), !0)]);
        t.lack_words(id, &[(RegionNo(3), 9)]);
        t.begin_write(id, RegionNo(2));
        match stage {
            Stage::Ready => drop(t.ready_pair(id)),
            Stage::Undoing => drop(t.undo_pair(id)),
            Stage::Ended => {
                t.ready_pair(id).expect("a pair that is being made");
                t.end_pair(id).expect("a pair that is ready");
            }
            Stage::Creating => {}
        }
    }
    t.finish_saga(5, SagaResult::Done);
}

fn damage(changes: &mut Vec<Change>, rng: &mut Rng) {
    let at = rng.below(changes.len());
    let other = changes[rng.below(changes.len())].clone();
    match rng.below(4) {
        0 => drop(changes.remove(at)),
        1 => changes.insert(at, other),
        2 => changes[at] = other,
        _ => {
            let (word, small) = (rng.word() as u32, rng.below(60) as u32);
            let number = if rng.chance(70) { small } else { word };
            match &mut changes[at] {
                Change::Entry(id, track, entry) => match rng.below(3) {
                    0 => *id = DeviceId(number % 24),
                    1 => *track = TrackNo(number),
                    _ => entry.base = PhysicalTrack::new(number),
                },
                Change::Version(id, track, upto, entry) => match rng.below(4) {
                    0 => *id = DeviceId(number % 24),
                    1 => *track = TrackNo(number),
                    2 => *upto = Generation(number),
                    _ => *entry = PhysicalTrack::new(number).map(Entry::whole),
                },
                Change::Own(id, track, entry) => match rng.below(3) {
                    0 => *id = SessionId(number % 24),
                    1 => *track = TrackNo(number),
                    _ => *entry = PhysicalTrack::new(number).map(Entry::whole),
                },
                Change::Session(id, record) => match (rng.below(4), record) {
                    (0, _) => *id = SessionId(number % 24),
                    (1, Some(record)) => record.standard = DeviceId(number % 24),
                    (2, Some(record)) => record.virtual_device = Some(DeviceId(number % 24)),
                    (_, Some(record)) => {
                        record.state = SessionState::Active { activated: Generation(number) }
                    }
                    (_, None) => {}
                },
                Change::Device(id, _) => *id = DeviceId(number % 24),
                Change::Pair(id, record) => damage_pair(id, record.as_mut(), number, rng),
                Change::Owed(id, region, bits) | Change::Lacked(id, region, bits) => match rng.below(3) {
                    0 => id.number = number % 4,
                    1 => *region = RegionNo(number),
                    _ => *bits = rng.word(),
                },
                Change::Dirty(id, region, marked) => match rng.below(3) {
                    0 => id.number = number % 4,
                    1 => *region = RegionNo(number),
                    _ => *marked = false,
                },
                Change::Peer(id, _) => *id = PeerId(number % 24),
                Change::Saga(_, Some(outcome)) => outcome.order = u64::MAX,
                Change::Store(_, record) => record.first = number,
                Change::NextId(next) => *next = number,
                _ => {}
            }
        }
    }
}

fn damage_pair(id: &mut PairId, record: Option<&mut PairRecord>, number: u32, rng: &mut Rng) {
    let Some(record) = record else { return };
    match rng.below(7) {
        0 => id.number = number % 4,
        1 => record.device = DeviceId(number % 60),
        2 => record.peer = PeerId(number % 60),
        3 => record.owed_from = TrackNo(number),
        4 => record.lacked_from = TrackNo(number),
        5 => record.stage = [Stage::Creating, Stage::Ready, Stage::Undoing][rng.below(3)],
        _ => record.role = Role::ALL[rng.below(3)],
    }
}

fn use_pairs(t: &mut Tables) {
    let pairs: Vec<_> = t.pairs().map(|(id, _)| id).collect();
    for id in &pairs {
        for track in [0, 2, 130, 1600, u32::MAX] {
            t.begin_write(*id, RegionNo::of(TrackNo(track)));
            t.end_write(*id, RegionNo::of(TrackNo(track)));
            t.owe(*id, TrackNo(track));
            t.fetched(*id, TrackNo(track));
        }
        for _ in 0..100 {
            if let Some(track) = t.next_owed(*id, TrackNo(0)) {
                t.pay(*id, track);
            }
        }
        let _ = t.halt_group(&t.group_of(*id), Halt::Link, 1, &[(*id, TrackNo(0))]);
        let _ = t.set_roles(&[*id], Role::Released, false);
        let _ = t.set_roles(&[*id], Role::Owner, true);
        let flush = t.begin_flush(*id).expect("the pair is there");
        t.marks_told(*id);
        t.clean(*id, &t.cleanable(*id, flush, 100));
        t.settle_owed(*id);
    }
    for id in pairs {
        let _ = t.undo_pair(id);
        let _ = t.remove_pair(id);
    }
    t.finish_saga(6, SagaResult::Done);
}

/// Loads, and if that went well does some of everything and removes it all.
fn use_it(changes: &[Change]) {
    let Ok(mut t) = Tables::load(Geometry::default(), changes.iter().cloned()) else { return };
    let devices: Vec<_> = t.devices().map(|(id, _)| id).collect();
    let sessions: Vec<_> = t.sessions().map(|(id, _)| id).collect();
    let owners =
        devices.iter().map(|id| Owner::Device(*id)).chain(sessions.iter().map(|id| Owner::Session(*id)));
    for owner in owners {
        for track in 0..5 {
            let place = Place { owner, track: TrackNo(track) };
            if let Ok(plan) = t.plan_write(place, BlockMask::range(1, 2)) {
                let _ = t.land_write(plan);
            }
            if let Some(plan) = t.plan_merge(place) {
                let _ = t.land_write(plan);
            }
            let _ = t.clear(place);
        }
    }
    t.oldest_failable(POOL);
    use_pairs(&mut t);
    for session in sessions {
        let _ = t.changed(session, TrackNo(0), 10);
        let _ = t.deactivate(session);
        let _ = t.fail_session(session);
        let _ = t.remove_session(session);
    }
    for device in devices {
        let _ = t.delete_device(device);
    }
    for _ in 0..100 {
        let last = t.last_unit();
        t.take_commit(last);
        t.committed(last);
        t.reclaim();
    }
}

#[test]
fn damaged_metadata_do_no_harm() {
    let whole = sample().changes();
    use_it(&whole);
    let mut refused = 0;
    let first = first_seed();
    for seed in first..first + cases(3000) {
        let (mut rng, mut changes) = (Rng::new(seed), whole.clone());
        for _ in 0..1 + rng.below(3) {
            damage(&mut changes, &mut rng);
        }
        refused += u64::from(Tables::load(Geometry::default(), changes.iter().cloned()).is_err());
        let used = catch_unwind(AssertUnwindSafe(|| use_it(&changes)));
        assert!(used.is_ok(), "seed {seed}: {changes:#?}");
    }
    assert!(refused > 0);
}
