//! More of everything than the random histories have: tracks, sessions, versions, references to one track.

mod common;

use common::{Durable, Rng, formatted};
use twintrack_core::{
    ActivateSession, BlockMask, DeviceId, Geometry, Owner, Place, PoolId, SESSIONS_PER_DEVICE_MAX, SessionId,
    Tables, TrackNo, Victim, VictimSearch,
};

const POOL: PoolId = PoolId(0);

struct Array {
    tables: Tables,
    durable: Durable,
}

impl Array {
    fn new(tracks: u32) -> Self {
        let durable = formatted(&[tracks]);
        let tables = Tables::load(geometry(), durable.changes()).expect("a legal array");
        Self { tables, durable }
    }

    fn device(&mut self, tracks: u32) -> DeviceId {
        let size = u64::from(tracks) * u64::from(geometry().track_bytes());
        self.tables.create_standard("dev", POOL, size).expect("a legal device").0
    }

    fn session(&mut self, device: DeviceId) -> SessionId {
        let (session, _) = self.tables.register(device, None).expect("room for a session");
        let (shows, _) = self.tables.create_virtual(&format!("v{session}")).expect("a free name");
        self.tables.relate(session, shows).expect("a registered session");
        let item = ActivateSession { session, name: None, online: true };
        self.tables.activate(&[item], None, u64::from(session.0)).expect("a related session");
        session
    }

    fn write(&mut self, owner: Owner, track: u32, blocks: BlockMask) {
        let place = Place { owner, track: TrackNo(track) };
        let plan = self.tables.plan_write(place, blocks).expect("there is room");
        self.tables.land_write(plan).expect("nothing is in its way");
    }

    fn commit(&mut self) {
        let last = self.tables.last_unit();
        self.durable.apply(self.tables.take_commit(last));
        self.tables.committed(last);
    }

    fn restart(&mut self) {
        self.tables = Tables::load(geometry(), self.durable.changes()).expect("what is durable loads");
    }

    /// Reclaims to the end; how many steps it took. None of them is large.
    fn reclaim(&mut self, rng: &mut Rng) -> usize {
        for step in 0..10_000 {
            if !self.tables.has_reclaim() {
                self.commit();
                if !self.tables.has_reclaim() {
                    return step;
                }
            }
            let last = self.tables.last_unit();
            self.commit();
            self.tables.reclaim();
            let next = self.tables.last_unit();
            assert!(next.0 <= last.0 + 1, "one unit a step");
            let changes = self.tables.take_commit(next);
            assert!(changes.len() <= 5200, "{} changes in one step", changes.len());
            self.durable.apply(changes);
            self.tables.committed(next);
            // A removal goes on where it was after a restart.
            if rng.chance(10) {
                self.restart();
            }
        }
        panic!("reclaiming does not end");
    }

    fn used(&self) -> u64 {
        self.tables.used_tracks()
    }
}

fn geometry() -> Geometry {
    Geometry::new(16 << 10).expect("a legal track size")
}

fn block(number: u32) -> BlockMask {
    BlockMask::range(number, number + 1)
}

/// Reclaiming a large session, many versions and a large device goes in bounded steps, restarts in between, and leaves
/// nothing. The tracks reach over many chunks of the table.
#[test]
fn reclaim_is_bounded_and_complete() {
    const TRACKS: u32 = 9_000;
    let (mut rng, full) = (Rng::new(1), geometry().full());
    let mut a = Array::new(4 * TRACKS);
    let dev = a.device(100 * TRACKS);
    let at = |n: u32| n * 97 % (100 * TRACKS);
    (0..TRACKS).for_each(|n| a.write(Owner::Device(dev), at(n), full));
    let (first, second) = (a.session(dev), a.session(dev));
    (0..TRACKS).for_each(|n| a.write(Owner::Device(dev), at(n), full));
    (0..TRACKS).for_each(|n| a.write(Owner::Session(second), at(n), full));
    a.commit();
    assert_eq!(a.used(), 3 * u64::from(TRACKS));

    let mut told = Vec::new();
    let mut from = Some(TrackNo(0));
    while let Some(at) = from {
        let (tracks, next) = a.tables.changed(first, at, 1000).expect("an active session");
        assert!(tracks.len() <= 1000);
        told.extend(tracks);
        from = next;
    }
    let mut wanted: Vec<_> = (0..TRACKS).map(|n| TrackNo(at(n))).collect();
    wanted.sort();
    assert_eq!(told, wanted);

    a.tables.remove_session(second).expect("it is there");
    assert!(a.reclaim(&mut rng) > 2);
    assert_eq!(a.used(), 2 * u64::from(TRACKS));
    a.tables.remove_session(first).expect("it is there");
    assert!(a.reclaim(&mut rng) > 2);
    assert_eq!(a.used(), u64::from(TRACKS));
    a.tables.delete_device(dev).expect("it has no sessions");
    assert!(a.reclaim(&mut rng) > 2);
    assert_eq!(a.used(), 0);
    assert_eq!(a.tables.pool_space(POOL).free, u64::from(4 * TRACKS));
    assert!(a.durable.sessions.is_empty() && a.durable.versions.is_empty() && a.durable.own.is_empty());
}

/// F1: 1,024 sessions, each of which keeps the one track as it was. Every version refers to the same base: far more
/// than a byte can count, and every overlay carries what the one below it had.
#[test]
fn a_thousand_versions_of_one_track() {
    let (mut rng, dev_blocks) = (Rng::new(2), geometry().blocks());
    let mut a = Array::new(3000);
    let dev = a.device(1);
    a.write(Owner::Device(dev), 0, geometry().full());
    let base =
        a.tables.entry(Place { owner: Owner::Device(dev), track: TrackNo(0) }).expect("it is there").base;
    let mut sessions = Vec::new();
    for n in 0..SESSIONS_PER_DEVICE_MAX as u32 {
        sessions.push(a.session(dev));
        // The last block is never written: no overlay becomes complete.
        a.write(Owner::Device(dev), 0, block(n % (dev_blocks - 1)));
        if n % 100 == 0 {
            a.commit();
            a.restart();
        }
    }
    a.commit();
    assert_eq!(a.tables.audit(), Ok(()));
    // The base, and an overlay for each write.
    assert_eq!(a.used(), 1 + SESSIONS_PER_DEVICE_MAX as u64);
    for session in &sessions {
        let entry = a.tables.entry(Place { owner: Owner::Session(*session), track: TrackNo(0) });
        assert_eq!(entry.expect("it is there").base, base);
    }
    // Removed in any order, each gives back its own overlay; the first one's version is the base alone.
    let first = sessions[0];
    while !sessions.is_empty() {
        let session = sessions.swap_remove(rng.below(sessions.len()));
        a.tables.remove_session(session).expect("it is there");
        if sessions.len().is_multiple_of(64) {
            a.reclaim(&mut rng);
            let overlays = sessions.iter().filter(|session| **session != first).count();
            assert_eq!(a.used(), 2 + overlays as u64);
            assert_eq!(a.tables.audit(), Ok(()));
        }
    }
    assert_eq!(a.used(), 2);
}

/// D5: sessions of one instant, and sessions between which nothing was written, share one version.
#[test]
fn sessions_share_versions() {
    let mut a = Array::new(100);
    let dev = a.device(2);
    a.write(Owner::Device(dev), 0, geometry().full());
    for _ in 0..50 {
        a.session(dev);
    }
    a.write(Owner::Device(dev), 0, geometry().full());
    a.write(Owner::Device(dev), 0, geometry().full());
    a.commit();
    assert_eq!(a.durable.versions.len(), 1);
    assert_eq!(a.used(), 2);
}

/// D3, F1: however many sessions there are, the first write after an activation is one unit of two changes, copies
/// nothing, and the next is in place.
#[test]
fn the_first_write_is_one_small_unit() {
    let mut a = Array::new(100);
    let dev = a.device(1);
    a.write(Owner::Device(dev), 0, geometry().full());
    for _ in 0..100 {
        a.session(dev);
    }
    a.commit();
    let place = Place { owner: Owner::Device(dev), track: TrackNo(0) };
    let plan = a.tables.plan_write(place, block(1)).expect("there is room");
    assert!(plan.fresh() && plan.carry().is_empty() && !plan.in_place(1));
    a.tables.land_write(plan).expect("nothing is in its way");
    let last = a.tables.last_unit();
    assert_eq!(a.tables.take_commit(last).len(), 2);
    let plan = a.tables.plan_write(place, block(1)).expect("it is in place");
    assert!(!plan.fresh() && plan.in_place(1) && !plan.in_place(0));
    assert_eq!(a.tables.land_write(plan), Ok(None));
}

/// The search for a session to fail goes in steps, and between them the session it had found may be removed.
#[test]
fn a_search_outlives_what_it_found() {
    // More than one step looks at.
    const TRACKS: u32 = 6 << 13;
    let mut a = Array::new(2 * TRACKS);
    let device = a.device(TRACKS);
    let block = BlockMask::range(0, 1);
    for track in 0..TRACKS {
        a.write(Owner::Device(device), track, block);
    }
    let (first, second) = (a.session(device), a.session(device));
    for track in 0..TRACKS {
        a.write(Owner::Device(device), track, block);
    }
    let whole = a.tables.oldest_failable(POOL);
    assert_eq!(whole, Some(first));
    let mut search = VictimSearch::new(POOL);
    assert_eq!(a.tables.find_victim(&mut search), Victim::Looking);
    a.tables.remove_session(first).expect("an active session");
    let mut steps = 0;
    let found = loop {
        match a.tables.find_victim(&mut search) {
            Victim::Looking => steps += 1,
            found => break found,
        }
    };
    assert_eq!(found, Victim::Session(second));
    assert!(steps > 1, "it began anew");
    assert_eq!(a.tables.oldest_failable(POOL), Some(second));
}
