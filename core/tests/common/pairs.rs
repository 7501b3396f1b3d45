//! Arrays with a peer, and halves of pairs on them.
#![allow(dead_code, reason = "each test program uses a part of it")]

use twintrack_core::remote::{Half, Lineage, Mode, PairRecord, Policy, Role, Stage};
use twintrack_core::{
    DeviceId, Geometry, Pace, PairDevice, PairGeneration, PairId, PeerId, PoolId, Tables, TrackNo,
};

use crate::common::{Durable, formatted};

/// The serial of the array itself, and of its peer.
pub const HERE: u64 = 0xa;
pub const THERE: u64 = 0xb;
pub const POOL: PoolId = PoolId(0);
pub const TRACK_BYTES: u64 = 16 << 10;

/// A generation that began there.
pub fn generation(number: u32) -> PairGeneration {
    PairGeneration { serial: THERE, number }
}

/// An array and what is durable of it, with a peer of the name `there`.
pub fn array() -> (Tables, Durable, PeerId) {
    let durable = formatted(&[40]);
    let mut tables = load(&durable);
    let (peer, _) = tables.add_peer("there", Some("unix:there"), Some(THERE)).expect("the first peer");
    (tables, durable, peer)
}

/// The array as a boot makes it.
pub fn load(durable: &Durable) -> Tables {
    let geometry = Geometry::new(TRACK_BYTES as u32).expect("a legal track size");
    Tables::load(geometry, durable.changes()).expect("what is durable loads").of_array(HERE)
}

/// Everything becomes durable.
pub fn commit(tables: &mut Tables, durable: &mut Durable) {
    let last = tables.last_unit();
    durable.apply(tables.take_commit(last));
    tables.committed(last);
}

/// The record of an owner's half that the peer has whole, with nothing owed.
pub fn record(peer: PeerId) -> PairRecord {
    PairRecord {
        peer,
        device: DeviceId(0),
        peer_device: "far".into(),
        request: 77,
        half: Half::R1,
        stage: Stage::Creating,
        role: Role::Owner,
        forced: false,
        mode: Mode::Synchronous,
        pace: Pace::Adaptive,
        policy: Policy::Continue,
        group: String::new(),
        lineage: Lineage::new(generation(1)),
        shared: Some(generation(1)),
        complete: true,
        halt: None,
        halted_ms: 0,
        had_all_ms: 0,
        peer_boot: 1,
        owed_from: TrackNo(u32::MAX),
        lacked_from: TrackNo(u32::MAX),
        made_device: false,
        kept: None,
    }
}

/// A ready pair with a device of so many tracks.
pub fn pair(tables: &mut Tables, record: PairRecord, name: &str, tracks: u64) -> (PairId, DeviceId) {
    let id = tables.next_pair_id();
    let size_bytes = tracks * TRACK_BYTES;
    let device = PairDevice::New { name: name.into(), pool: POOL, size_bytes };
    let (device, _) = tables.create_pair(id, record, device).expect("a legal pair");
    tables.ready_pair(id).expect("it was being created");
    (id, device)
}
