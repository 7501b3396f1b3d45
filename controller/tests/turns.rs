//! A request over many tracks goes on in many steps, and others come in between.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use twintrack_controller::firmware::{
    ConnId, Effect, Event, Firmware, HostError, HostOp, Identity, Reply, Tag,
};
use twintrack_core::{
    Change, DeviceId, DeviceKind, DeviceRecord, Entry, Generation, Geometry, PhysicalTrack, PoolId,
    PoolRecord, StoreId, StoreRecord, Tables, TrackNo, UnitSeq,
};

const TRACK: u64 = 64 << 10;
const TRACKS: u32 = 1 << 16;
const NOW: Duration = Duration::ZERO;
/// What one step begins at most, and some for what else it does.
const UNITS_A_STEP_MAX: u64 = 512 + 8;
/// What one commit carries at most: its changes are handed on, and settled, in a step each.
const COMMIT_CHANGES_MAX: usize = 8192;
/// Header blocks of one step.
const HEADER_BLOCKS_MAX: usize = 64;

/// Two devices of so many tracks: "a" is written, "b" is not. Each is attached, as connection 1 and 2.
fn array(tracks: u32) -> Firmware {
    let device = |name: &str| DeviceRecord {
        name: name.into(),
        kind: DeviceKind::Standard { pool: PoolId(0), generation: Generation(0), deleting: false },
        size_bytes: u64::from(tracks) * TRACK,
        online: true,
        reserved: false,
    };
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: tracks + 4096 };
    let head = [
        Change::Pool(PoolId(0), PoolRecord { name: "p".into() }),
        Change::Store(StoreId(0), store),
        Change::NextId(3),
        Change::Device(DeviceId(1), Some(device("a"))),
        Change::Device(DeviceId(2), Some(device("b"))),
    ];
    let entry = |track| Entry::whole(PhysicalTrack::new(track + 1).unwrap());
    let entries = (0..tracks).map(|track| Change::Entry(DeviceId(1), TrackNo(track), entry(track)));
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
    for effect in &effects {
        if let Effect::Commit { changes, .. } = effect {
            assert!(changes.len() <= COMMIT_CHANGES_MAX, "{} changes in one commit", changes.len());
        }
    }
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
    let mut firmware = array(TRACKS);
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

/// What a flush has to make durable it does in parts, each in a step: the units go on being a prefix, and it is
/// answered after the last.
#[test]
fn a_large_flush_goes_on_in_many_steps() {
    const TRIMMED: u32 = 12_000;
    const WRITE: usize = 32 << 20;
    let mut firmware = array(TRIMMED);
    let trim = HostOp::Trim { offset: 0, length: TRIMMED * TRACK as u32, fua: false };
    let mut effects = host(&mut firmware, 1, 1, trim);
    while replies(&effects).is_empty() {
        effects = step(&mut firmware, Event::Timer);
    }
    for offset in (0..5 * WRITE).step_by(WRITE) {
        let data = Bytes::from(vec![1; WRITE]);
        let mut pending =
            host(&mut firmware, 2, 2, HostOp::Write { offset: offset as u64, data, fua: false });
        while let Some(effect) = pending.pop() {
            if let Effect::Write { io, .. } = effect {
                pending.extend(step(&mut firmware, Event::Disk { io, result: Ok(Bytes::new()) }));
            }
        }
    }
    let last = firmware.tables().last_unit();
    let mut pending = VecDeque::from(host(&mut firmware, 1, 3, HostOp::Flush));
    let (mut commits, mut reached) = (0, UnitSeq::ZERO);
    while let Some(effect) = pending.pop_front() {
        let event = match effect {
            Effect::Read { io, length, .. } => {
                Event::Disk { io, result: Ok(vec![0; length as usize].into()) }
            }
            Effect::Write { io, .. } | Effect::Sync { io, .. } => {
                Event::Disk { io, result: Ok(Bytes::new()) }
            }
            Effect::Commit { upto, .. } => {
                assert!(upto > reached);
                (commits, reached) = (commits + 1, upto);
                Event::Committed { upto, result: Ok(()) }
            }
            Effect::Reply { tag, result, .. } => {
                assert_eq!((tag, result, reached, pending.len()), (Tag(3), Ok(Reply::Done), last, 0));
                break;
            }
            other => panic!("{other:?}"),
        };
        let effects = step(&mut firmware, event);
        assert!(effects.len() <= HEADER_BLOCKS_MAX, "{} effects of one step", effects.len());
        pending.extend(effects);
    }
    assert_eq!(commits, (last.0 as usize).div_ceil(COMMIT_CHANGES_MAX));
    assert_eq!(firmware.tables().committed_unit(), last);
}

/// Two of them go on side by side.
#[test]
fn large_requests_take_turns() {
    let mut firmware = array(TRACKS);
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
