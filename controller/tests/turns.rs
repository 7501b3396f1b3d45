//! A request over many tracks goes on in many steps, and others come in between.

use std::time::Duration;

use bytes::Bytes;
use twintrack_controller::firmware::{
    ConnId, Effect, Event, Firmware, HostError, HostOp, Identity, Reply, Tag,
};
use twintrack_core::{
    Change, DeviceId, DeviceKind, DeviceRecord, Entry, Generation, Geometry, PhysicalTrack, PoolId,
    PoolRecord, StoreId, StoreRecord, Tables, TrackNo,
};

const TRACK: u64 = 64 << 10;
const TRACKS: u32 = 1 << 16;
const NOW: Duration = Duration::ZERO;
/// What one step begins at most, and some for what else it does.
const UNITS_A_STEP_MAX: u64 = 512 + 8;

/// Two devices of 4 GiB: "a" is written, "b" is not. Each is attached, as connection 1 and 2.
fn array() -> Firmware {
    let device = |name: &str| DeviceRecord {
        name: name.into(),
        kind: DeviceKind::Standard { pool: PoolId(0), generation: Generation(0), deleting: false },
        size_bytes: u64::from(TRACKS) * TRACK,
        online: true,
    };
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: TRACKS + 1024 };
    let head = [
        Change::Pool(PoolId(0), PoolRecord { name: "p".into() }),
        Change::Store(StoreId(0), store),
        Change::NextId(3),
        Change::Device(DeviceId(1), Some(device("a"))),
        Change::Device(DeviceId(2), Some(device("b"))),
    ];
    let entry = |track| Entry::whole(PhysicalTrack::new(track + 1).unwrap());
    let entries = (0..TRACKS).map(|track| Change::Entry(DeviceId(1), TrackNo(track), entry(track)));
    let tables = Tables::load(Geometry::default(), head.into_iter().chain(entries)).unwrap();
    let mut firmware = Firmware::new(Identity { serial: 1, boot: 1 }, tables);
    for (conn, export) in [(1, "a"), (2, "b")] {
        step(&mut firmware, Event::Attach { conn: ConnId(conn), export: export.into() });
    }
    firmware
}

/// Steps; no step makes more of the tables than it may.
fn step(firmware: &mut Firmware, event: Event) -> Vec<Effect> {
    let (before, mut effects) = (firmware.tables().last_unit().0, Vec::new());
    firmware.step(NOW, event, &mut effects);
    let units = firmware.tables().last_unit().0 - before;
    assert!(units <= UNITS_A_STEP_MAX, "{units} units in one step");
    effects
}

fn host(firmware: &mut Firmware, conn: u64, tag: u64, op: HostOp) -> Vec<Effect> {
    step(firmware, Event::Host { conn: ConnId(conn), tag: Tag(tag), op })
}

/// The requests that were answered, and how.
fn replies(effects: &[Effect]) -> Vec<(u64, &Result<Reply, HostError>)> {
    let reply = |effect| match effect {
        &Effect::Reply { tag, ref result, .. } => Some((tag.0, result)),
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

fn whole_trim() -> HostOp {
    HostOp::Trim { offset: 0, length: u32::MAX - (TRACK as u32 - 1), fua: false }
}

/// 4 GiB but for a track: no step holds up the others for long, and who comes in between is answered at once.
#[test]
fn a_large_trim_goes_on_in_many_steps() {
    let mut firmware = array();
    assert_eq!(replies(&host(&mut firmware, 1, 1, whole_trim())), []);
    let mut steps = 1;
    loop {
        assert_eq!(firmware.next_deadline(), Some(NOW), "it waits for nothing");
        let effects = step(&mut firmware, Event::Timer);
        steps += 1;
        if let [(1, result)] = replies(&effects)[..] {
            assert_eq!(*result, Ok(Reply::Done));
            break;
        }
        let effects = host(&mut firmware, 2, 1000 + steps, HostOp::Read { offset: 0, length: 4096 });
        assert!(matches!(replies(&effects)[..], [(_, Ok(Reply::Data(_)))]), "{effects:?}");
        let write = HostOp::Write { offset: steps * TRACK, data: Bytes::from(vec![1; 4096]), fua: false };
        let effects = host(&mut firmware, 2, 2000 + steps, write);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Write { .. })), "{effects:?}");
    }
    assert_eq!(steps, u64::from(TRACKS) / 512);
}

/// Two of them go on side by side.
#[test]
fn large_requests_take_turns() {
    let mut firmware = array();
    host(&mut firmware, 1, 1, whole_trim());
    let zeros = HostOp::WriteZeroes { offset: 0, length: 1 << 30, no_hole: false, fua: false };
    host(&mut firmware, 2, 2, zeros);
    // The second has a quarter of the tracks: with every other step it is over after half of the first one's.
    let mut steps = 0;
    while replies(&step(&mut firmware, Event::Timer)).is_empty() {
        steps += 1;
    }
    let quarter = TRACKS / 512 / 4;
    assert!((2 * quarter - 4..2 * quarter + 4).contains(&steps), "{steps}");
}
