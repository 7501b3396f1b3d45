//! Metadata that do not fit together are refused, or make tables that work: loading never panics, whatever is lost or
//! changed. (The metadata store has checksums of its own; this is for what they miss, and for defects of ours.)

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Durable, Rng, cases, first_seed, formatted};
use twintrack_core::{
    ActivateSession, BlockMask, Change, DeviceId, Entry, Generation, Geometry, Owner, PhysicalTrack, Place,
    PoolId, SessionId, SessionState, Tables, TrackNo,
};

const POOL: PoolId = PoolId(0);

/// Some of everything: devices, sessions of every state, versions, own tracks, overlays.
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
    let last = t.last_unit();
    durable.apply(t.take_commit(last));
    durable
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
                Change::Store(_, record) => record.first = number,
                Change::NextId(next) => *next = number,
                _ => {}
            }
        }
    }
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
