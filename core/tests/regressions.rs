//! Defects that were found, each with its story.

mod common;

use common::{Durable, formatted};
use twintrack_core::{
    ActivateSession, BlockMask, DeviceId, Geometry, Owner, Place, PoolId, SessionId, Tables, TrackNo,
};

const POOL: PoolId = PoolId(0);
const TRACK: u64 = 64 << 10;

struct Array {
    tables: Tables,
    durable: Durable,
    dev: DeviceId,
}

impl Array {
    fn new(tracks: u64) -> Self {
        let durable = formatted(&[50]);
        let mut tables = Tables::load(Geometry::default(), durable.changes()).expect("a legal array");
        let (dev, _) = tables.create_standard("dev", POOL, tracks * TRACK).expect("a legal device");
        Self { tables, durable, dev }
    }

    fn place(&self, track: u32) -> Place {
        Place { owner: Owner::Device(self.dev), track: TrackNo(track) }
    }

    fn session(&mut self, wall_ms: u64) -> SessionId {
        let (session, _) = self.tables.register(self.dev, None).expect("room for a session");
        let (shows, _) = self.tables.create_virtual(&format!("v{session}")).expect("a free name");
        self.tables.relate(session, shows).expect("a registered session");
        let item = ActivateSession { session, name: None, online: true };
        self.tables.activate(&[item], None, wall_ms).expect("a related session");
        session
    }

    fn write(&mut self, place: Place, blocks: BlockMask) {
        let plan = self.tables.plan_write(place, blocks).expect("there is room");
        self.tables.land_write(plan).expect("nothing is in its way");
    }

    fn commit(&mut self) {
        let last = self.tables.last_unit();
        self.durable.apply(self.tables.take_commit(last));
        self.tables.committed(last);
    }

    fn settle(&mut self) {
        self.commit();
        while self.tables.has_reclaim() {
            self.tables.reclaim();
            self.commit();
        }
    }
}

fn one_block() -> BlockMask {
    BlockMask::range(0, 1)
}

/// A merge completes an overlay and changes no content. It stamped the track with the device's generation all the
/// same, and from then on the track counted as written since the last activation: the next write went in place, below
/// a session that still saw it. Found by the histories of `crash.rs` in their first seed.
#[test]
fn a_merge_does_not_end_protection() {
    let mut a = Array::new(1);
    a.write(a.place(0), one_block());
    let session = a.session(1);
    let plan = a.tables.plan_merge(a.place(0)).expect("an overlay of its own");
    a.tables.land_write(plan).expect("nothing is in its way");
    assert!(!a.tables.writes_in_place(a.place(0)));
    a.write(a.place(0), one_block());
    let (changed, _) = a.tables.changed(session, TrackNo(0), 9).expect("an active session");
    assert_eq!(changed, [TrackNo(0)]);
}

/// A session was removed, its versions were given back, and only then was the unit of its removal committed. In
/// between, a write still kept the old track for it (crash rule 3a), and nobody ever looked at that version again: its
/// track was lost until the next session ended. If the device was deleted, the version stayed in the metadata without
/// its device, and the array did not load any more.
#[test]
fn a_version_kept_for_a_lapsed_session_is_given_back() {
    let mut a = Array::new(1);
    a.write(a.place(0), one_block());
    let session = a.session(1);
    a.commit();
    a.tables.remove_session(session).expect("it is there");
    while a.tables.has_reclaim() {
        a.tables.reclaim();
    }
    a.write(a.place(0), one_block());
    a.settle();
    assert_eq!(a.durable.versions.len(), 0);

    // The same, with the device gone before the commit.
    let session = a.session(2);
    a.tables.remove_session(session).expect("it is there");
    a.write(a.place(0), one_block());
    a.tables.delete_device(a.dev).expect("it has no sessions");
    while a.tables.has_reclaim() {
        a.tables.reclaim();
    }
    a.settle();
    assert_eq!(a.tables.used_tracks(), 0);
    Tables::load(Geometry::default(), a.durable.changes()).expect("nothing refers to what is gone");
}

/// A write was planned while a session still saw the track, and landed when the session was gone for good: it kept a
/// version that nobody needed.
#[test]
fn a_write_that_lands_late_keeps_nothing_for_who_is_gone() {
    let mut a = Array::new(1);
    a.write(a.place(0), one_block());
    let session = a.session(1);
    let plan = a.tables.plan_write(a.place(0), one_block()).expect("there is room");
    a.tables.remove_session(session).expect("it is there");
    a.settle();
    a.tables.land_write(plan).expect("nothing is in its way");
    a.commit();
    assert_eq!(a.durable.versions.len(), 0);
}

/// A session that had failed still showed the tracks that it had of its own, until they were given back: some of its
/// content, where a host was to get an error (D6).
#[test]
fn a_failed_session_shows_nothing() {
    let mut a = Array::new(2);
    let session = a.session(1);
    let place = Place { owner: Owner::Session(session), track: TrackNo(0) };
    a.write(place, one_block());
    assert!(a.tables.entry(place).is_some());
    a.tables.fail_session(session).expect("an active session");
    assert_eq!(a.tables.entry(place), None);
}

/// A device grew after an activation, and a write to its new part was told as a change of the session, whose device
/// does not reach so far (D15).
#[test]
fn changes_end_where_the_session_ends() {
    let mut a = Array::new(1);
    let session = a.session(1);
    a.tables.grow(a.dev, 3 * TRACK).expect("room to grow");
    a.write(a.place(2), one_block());
    assert_eq!(a.tables.changed(session, TrackNo(0), 9), Ok((vec![], None)));
}

/// The oldest session was the first to need something alone, but what it needed was zeros, or a track that its device
/// needs, too: it failed for nothing, and the one after it failed as well.
#[test]
fn only_a_session_that_frees_something_fails_first() {
    let mut a = Array::new(3);
    let full = a.tables.geometry().full();
    a.write(a.place(1), full);
    let oldest = a.session(1);
    // Zeros are kept, and a base that the device goes on using.
    a.write(a.place(0), one_block());
    a.write(a.place(1), one_block());
    let second = a.session(2);
    a.write(a.place(0), one_block());
    a.settle();
    assert_eq!(a.tables.oldest_failable(POOL), Some(second));
    let used = a.tables.used_tracks();
    a.tables.fail_session(second).expect("an active session");
    a.settle();
    assert!(a.tables.used_tracks() < used);
    // Next is the one that needs a track together with others: its device's.
    assert_eq!(a.tables.oldest_failable(POOL), Some(oldest));
    a.tables.fail_session(oldest).expect("an active session");
    a.settle();
    assert_eq!(a.tables.oldest_failable(POOL), None);
}

/// Of several changes of a session the last one counts when tables are loaded. Its protection was counted once for each
/// time that it became active, and never again taken back.
#[test]
fn a_loaded_journal_protects_only_what_is_active() {
    let mut a = Array::new(1);
    a.write(a.place(0), a.tables.geometry().full());
    let session = a.session(1);
    let mut journal = a.durable.changes();
    let last = a.tables.last_unit();
    journal.extend(a.tables.take_commit(last));
    a.tables.deactivate(session).expect("an active session");
    let last = a.tables.last_unit();
    journal.extend(a.tables.take_commit(last));
    let tables = Tables::load(Geometry::default(), journal).expect("a legal journal");
    assert!(tables.writes_in_place(a.place(0)));
}
