//! Dirty-region marks (crash rule 5), measured: `cargo bench -p twintrack-controller --bench marks`.
//!
//! Random writes of 4 KiB to a paired device, over a working set of 1 GiB and of 64 GiB, through the firmware, with a store
//! that keeps no data: once each region has been marked, nothing is committed any more, and what a pair adds to the cost of
//! a write is the same, whatever the size; there is no cliff. (A write to a random track of many costs more than to one of few,
//! paired or not: the tables do not fit the processor's cache.) And what a crash leaves to be sent: the dirty regions, not the device. Each
//! figure stands beside what it must keep to, and one that does not ends the run with an error.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use twintrack_controller::firmware::{CallId, ConnId, Effect, Event, Firmware, HostOp, Identity, Tag};
use twintrack_core::{
    Change, DeviceId, DeviceKind, DeviceRecord, Entry, Generation, Geometry, Half, Lineage, Mode, Pace,
    PairGeneration, PairId, PairRecord, PeerId, PeerRecord, PhysicalTrack, Policy, PoolId, PoolRecord, Role,
    Stage, StoreId, StoreRecord, Tables, TrackNo,
};
use twintrack_link::manage::Command;

const GIB: u64 = 1 << 30;
const TRACK: u64 = 64 << 10;
/// Bytes of a region.
const REGION: u64 = 64 * TRACK;
const PAIR: PairId = PairId { serial: 1, number: 3 };
/// Timed writes of one round, and rounds.
const WRITES: u64 = 40_000;
const ROUNDS: usize = 9;
/// The same within so many percent.
const ALIKE_PERCENT: f64 = 10.0;

fn main() -> ExitCode {
    let mut arrays = [GIB, 64 * GIB].map(|size| [true, false].map(|paired| Array::new(size, paired)));
    for [array, _] in &mut arrays {
        let commits = array.mark_all();
        println!(
            "{:3} GiB: {:6} regions marked with {commits} commits",
            array.size / GIB,
            array.size / REGION
        );
    }
    println!("ns a write, in the firmware alone       1 GiB: paired, not      64 GiB: paired, not");
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let [[small, small_plain], [large, large_plain]] =
            [0, 1].map(|at| [0, 1].map(|paired| arrays[at][paired].timed_writes()));
        ratios.push((large / large_plain) / (small / small_plain));
        println!("{:32} {small:13.0} {small_plain:8.0} {large:15.0} {large_plain:8.0}", "");
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    let most = 1.0 + ALIKE_PERCENT / 100.0;
    let commits: u64 = arrays.iter().flatten().map(|array| array.commits).sum();
    println!("what a pair adds, 64 GiB to 1 GiB: {ratio:.3} (at most {most:.3}); commits: {commits}");
    let (regions, owed, of) = after_a_crash();
    println!("after a crash with {regions} dirty regions: {owed} of {of} tracks are sent");
    let failed = ratio > most || commits > 0 || u64::from(owed) > regions * 64;
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An array with one fully written device; if it is paired, its peer is away.
struct Array {
    firmware: Firmware,
    size: u64,
    commits: u64,
    next: u64,
    state: u64,
    effects: Vec<Effect>,
}

impl Array {
    fn new(size: u64, paired: bool) -> Self {
        let changes = changes(size, TrackNo(0), &[]);
        let changes = changes.filter(|change| paired || !matches!(change, Change::Pair(..)));
        let tables = Tables::load(Geometry::default(), changes).expect("loads");
        let firmware = Firmware::new(Identity { serial: 1, boot: 2 }, tables);
        let mut array =
            Self { firmware, size, commits: 0, next: 0, state: 88172645463325252, effects: Vec::new() };
        let command = Command::RemoteFailover { device: "d".into(), force: true };
        array.step(Event::Manage { call: CallId(1), wall_ms: 1, command });
        array.step(Event::Attach { conn: ConnId(1), export: "d".into() });
        array
    }

    /// A write to each region: how many commits that takes.
    fn mark_all(&mut self) -> u64 {
        for region in 0..self.size / REGION {
            self.write(region * REGION);
        }
        std::mem::take(&mut self.commits)
    }

    /// Nanoseconds a write.
    fn timed_writes(&mut self) -> f64 {
        let start = now();
        for _ in 0..WRITES {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.write(self.state % (self.size / 4096) * 4096);
        }
        start.elapsed().as_secs_f64() * 1e9 / WRITES as f64
    }

    fn write(&mut self, offset: u64) {
        static BLOCK: [u8; 4096] = [1; 4096];
        self.next += 1;
        let op = HostOp::Write { offset, data: Bytes::from_static(&BLOCK), fua: false };
        self.step(Event::Host { conn: ConnId(1), tag: Tag(self.next), op });
    }

    /// Steps, and carries out what comes of it.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.firmware.step(Duration::from_millis(1), event, &mut self.effects);
            for effect in self.effects.drain(..) {
                let result = Ok(Bytes::new());
                events.extend(match effect {
                    Effect::Read { io, length, .. } => {
                        Some(Event::Disk { io, result: Ok(Bytes::from(vec![0; length as usize])) })
                    }
                    Effect::Write { io, .. } | Effect::Sync { io, .. } | Effect::Discard { io, .. } => {
                        Some(Event::Disk { io, result })
                    }
                    Effect::Commit { upto, .. } => {
                        self.commits += 1;
                        Some(Event::Committed { upto, result: Ok(()) })
                    }
                    _ => None,
                });
            }
        }
    }
}

/// What is owed once an array with a pair that was synchronized, and some dirty regions, is up again: the regions, the
/// tracks, and the tracks of the device.
fn after_a_crash() -> (u64, u32, u64) {
    let (size, dirty) = (64 * GIB, [3u32, 77, 5000, 16_000]);
    let tables = Tables::load(Geometry::default(), changes(size, TrackNo((size / TRACK) as u32), &dirty));
    let tables = tables.expect("loads");
    (dirty.len() as u64, tables.owed(PAIR).expect("is there").count(), size / TRACK)
}

/// What is durable of an array with one paired, fully written device of that size.
fn changes(size_bytes: u64, owed_from: TrackNo, dirty: &[u32]) -> impl Iterator<Item = Change> {
    let tracks = (size_bytes / TRACK) as u32;
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: tracks + 1024 };
    let kind = DeviceKind::Standard { pool: PoolId(0), generation: Generation(0), deleting: false };
    let device = DeviceRecord { name: "d".into(), kind, size_bytes, online: true, reserved: false };
    let lineage = Lineage::new(PairGeneration { serial: 1, number: 3 });
    let pair = PairRecord {
        peer: PeerId(2),
        device: DeviceId(1),
        peer_device: "e".into(),
        request: 1,
        half: Half::R1,
        stage: Stage::Ready,
        role: Role::Owner,
        forced: false,
        mode: Mode::Synchronous,
        pace: Pace::Adaptive,
        policy: Policy::Continue,
        group: String::new(),
        shared: None,
        lineage,
        complete: true,
        halt: None,
        halted_ms: 0,
        had_all_ms: 0,
        peer_boot: 1,
        owed_from,
        lacked_from: TrackNo(tracks),
        made_device: false,
        kept: None,
    };
    let peer = PeerRecord { name: "b".into(), endpoint: None, serial: Some(2) };
    let records = [
        Change::NextId(4),
        Change::Pool(PoolId(0), PoolRecord { name: "p".into() }),
        Change::Store(StoreId(0), store),
        Change::Device(DeviceId(1), Some(device)),
        Change::Peer(PeerId(2), Some(peer)),
        Change::Pair(PAIR, Some(pair)),
    ];
    let whole = |track: u32| Entry::whole(PhysicalTrack::new(track + 1).expect("not 0"));
    let entries = (0..tracks).map(move |track| Change::Entry(DeviceId(1), TrackNo(track), whole(track)));
    let marks: Vec<_> =
        dirty.iter().map(|n| Change::Dirty(PAIR, twintrack_core::RegionNo(*n), true)).collect();
    records.into_iter().chain(entries).chain(marks)
}

/// The clock, which library crates do without.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
