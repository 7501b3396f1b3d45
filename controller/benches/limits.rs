//! The limits of one array, measured: `cargo bench -p twintrack-controller --bench limits`.
//!
//! Over stores that keep no data: memory of a 1 TiB device, unwritten and fully written; time to activate a session at
//! 1 GiB and at 1 TiB, with no other session and with 1,000, without the disk's own sync; start-up with 1 TiB mapped,
//! after a clean end and after a kill; the longest steps of a trim and a flush of 262,144 tracks, and of the end of the
//! last session on 1 TiB, which no host must notice; and the longest steps that look for something among 4,096 devices
//! with 1,024 sessions on one of them, each of which keeps tracks. Each figure stands beside what it must keep to, and
//! one that does not ends the run with an error.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::backends::FileBackend;
use twintrack_controller::firmware::{CallId, ConnId, Effect, Event, Firmware, HostOp, Identity, Reply, Tag};
use twintrack_controller::shell::metadata::{ArrayRecord, Metadata};
use twintrack_core::{
    Change, DeviceId, DeviceKind, DeviceRecord, Entry, Generation, Geometry, PhysicalTrack, PoolId,
    PoolRecord, SessionId, SessionRecord, SessionState, StoreId, StoreRecord, Tables, TrackNo, Victim,
    VictimSearch,
};
use twintrack_link::manage::{Activation, Answer, Command};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn main() -> ExitCode {
    let mut report = Report { failed: false };
    println!("{:52} {:>14} {:>14}", "", "measured", "at most");
    memory(&mut report);
    activation(&mut report);
    start_up(&mut report);
    many_tracks(&mut report);
    last_session(&mut report);
    many_sessions(&mut report);
    if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, what: &str, measured: f64, most: f64, unit: &str) {
        let over = if measured > most { "  TOO MUCH" } else { "" };
        println!("{what:52} {measured:>10.3} {unit:3} {most:>10.0} {unit:3}{over}");
        self.failed |= measured > most;
    }
}

fn memory(report: &mut Report) {
    let before = resident_mib();
    let tables = load(GIB / 16, 0);
    report.line("memory: array of a 64 MiB pool", resident_mib() - before, 5.0, "MiB");
    drop(tables);

    let before = resident_mib();
    let mut tables = Tables::load(Geometry::default(), small_pool()).expect("loads");
    tables.create_standard("thin", PoolId(0), TIB).expect("creates");
    report.line("memory: device of 1 TiB, unwritten", resident_mib() - before, 1.0, "MiB");
    drop(tables);

    let before = resident_mib();
    let tables = load(TIB, TIB);
    report.line("memory: device of 1 TiB, fully written", resident_mib() - before, 200.0, "MiB");
    drop(tables);
}

fn activation(report: &mut Report) {
    for (name, size) in [("1 GiB", GIB), ("1 TiB", TIB)] {
        for others in [0, 1000] {
            let identity = Identity { serial: 1, boot: 1 };
            let mut array = Rig { firmware: Firmware::new(identity, load(size, size)), calls: 0 };
            for n in 0..others {
                let session = array.relate(n);
                array.activate(session);
            }
            let mut times: Vec<Duration> = (others..others + 9)
                .map(|n| {
                    let session = array.relate(n);
                    array.activate(session)
                })
                .collect();
            times.sort();
            let median = times[times.len() / 2].as_secs_f64() * 1e3;
            report.line(&format!("activation: {name}, {others} other sessions"), median, 10.0, "ms");
        }
    }
}

fn start_up(report: &mut Report) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, killed) = (folder.path().join("metadata"), folder.path().join("killed"));
    let array = ArrayRecord { serial: 1, geometry: Geometry::default() };
    let mut metadata = Metadata::create(backend(&path), array).expect("creates");
    let changes: Vec<_> = full_device(TIB, TIB).collect();
    for part in changes.chunks(1 << 20) {
        metadata.commit(part).expect("commits");
    }
    drop(changes);
    // What a kill leaves: the file as it is while the daemon is up.
    std::fs::copy(&path, &killed).expect("copies");
    drop(metadata);
    for (name, path) in [("clean end", &path), ("kill", &killed)] {
        let start = now();
        let metadata = Metadata::open(backend(path)).expect("opens");
        let changes = metadata.load().expect("loads").map(|change| change.expect("is sound"));
        let tables = Tables::load(Geometry::default(), changes).expect("fits");
        report.line(
            &format!("start-up: 1 TiB mapped, after a {name}"),
            start.elapsed().as_secs_f64(),
            5.0,
            "s",
        );
        assert_eq!(tables.used_tracks(), TIB >> 16);
    }
}

/// Requests that concern 262,144 tracks, with their commits: no host must notice them. The smallest tracks; as many of
/// them as 16 GiB are of the size that `full_device` counts in.
fn many_tracks(report: &mut Report) {
    const TRACK: u32 = 16 << 10;
    let geometry = Geometry::new(TRACK).expect("a size of tracks");
    let tables = Tables::load(geometry, full_device(2 * 16 * GIB, 16 * GIB)).expect("loads");
    let mut host = Host::attach(Firmware::new(Identity { serial: 1, boot: 1 }, tables));
    let length = (4 * GIB - u64::from(TRACK)) as u32;
    host.carry_out(report, "trim of 4 GiB", Host::asks(HostOp::Trim { offset: 0, length, fua: true }));
    host.write((0..4 * GIB).step_by(TRACK as usize));
    host.carry_out(report, "flush of 262,144 first writes", Host::asks(HostOp::Flush));
}

/// The end of the only session on 1 TiB, for which something is kept in each part of the table.
fn last_session(report: &mut Report) {
    let firmware = Firmware::new(Identity { serial: 1, boot: 1 }, load(TIB + GIB * 8, TIB));
    let mut array = Rig { firmware, calls: 0 };
    let session = array.relate(0);
    array.activate(session);
    let call = CallId(array.calls + 1);
    let mut host = Host::attach(array.firmware);
    host.write((0..TIB).step_by(16 << 20));
    host.carry_out(report, "flush of 65,536 first writes", Host::asks(HostOp::Flush));
    let command = Command::SessionRemove { session };
    host.carry_out(report, "last session of 1 TiB removed", Event::Manage { call, wall_ms: 1, command });
}

/// A host, and a disk and metadata that take no time and keep nothing.
struct Host {
    firmware: Firmware,
    time: Duration,
    events: VecDeque<Event>,
}

impl Host {
    const CONN: ConnId = ConnId(1);

    fn attach(mut firmware: Firmware) -> Self {
        let mut effects = Vec::new();
        firmware.step(Duration::ZERO, Event::Attach { conn: Self::CONN, export: "d".into() }, &mut effects);
        assert!(matches!(effects[..], [Effect::Attached { result: Ok(_), .. }]));
        Self { firmware, time: Duration::ZERO, events: VecDeque::new() }
    }

    fn asks(op: HostOp) -> Event {
        Event::Host { conn: Self::CONN, tag: Tag(1), op }
    }

    /// Blocks, with no commit in between.
    fn write(&mut self, offsets: impl Iterator<Item = u64>) {
        let data = Bytes::from(vec![1; 4096]);
        for offset in offsets {
            let write = HostOp::Write { offset, data: data.clone(), fua: false };
            let mut effects = Vec::new();
            self.firmware.step(self.time, Self::asks(write), &mut effects);
            for event in effects.into_iter().filter_map(ended) {
                self.firmware.step(self.time, event, &mut Vec::new());
            }
        }
    }

    /// A request, or a command, to the end of all that follows from it.
    fn carry_out(&mut self, report: &mut Report, name: &str, event: Event) {
        self.events.push_back(event);
        let (mut longest, mut steps, whole) = (Duration::ZERO, 0, now());
        let mut answered = false;
        while !answered || !self.events.is_empty() || !self.firmware.is_quiet() {
            let event = self.events.pop_front().unwrap_or_else(|| {
                self.time = self.time.max(self.firmware.next_deadline().expect("it goes on"));
                Event::Timer
            });
            let (start, mut effects) = (now(), Vec::new());
            self.firmware.step(self.time, event, &mut effects);
            longest = longest.max(start.elapsed());
            steps += 1;
            for effect in effects {
                match effect {
                    Effect::Reply { result, .. } => {
                        assert_eq!(result, Ok(Reply::Done));
                        answered = true;
                    }
                    Effect::Answer { result, .. } => answered = result.is_ok(),
                    other => self.events.extend(ended(other)),
                }
            }
        }
        report.line(&format!("{name}: longest of {steps} steps"), longest.as_secs_f64() * 1e3, 10.0, "ms");
        report.line(&format!("{name}: all steps"), whole.elapsed().as_secs_f64() * 1e3, 10_000.0, "ms");
    }
}

/// The end of what disk and metadata were asked for, as if at once.
fn ended(effect: Effect) -> Option<Event> {
    match effect {
        Effect::Read { io, length, .. } => {
            Some(Event::Disk { io, result: Ok(vec![0; length as usize].into()) })
        }
        Effect::Write { io, .. } | Effect::Discard { io, .. } | Effect::Sync { io, .. } => {
            Some(Event::Disk { io, result: Ok(Bytes::new()) })
        }
        Effect::Commit { upto, .. } => Some(Event::Committed { upto, result: Ok(()) }),
        _ => None,
    }
}

/// What looks for a session must not look at all of them within a step.
fn many_sessions(report: &mut Report) {
    const SESSIONS: u32 = 1024;
    const TRACKS: u32 = 1024;
    let mut tables = Tables::load(Geometry::default(), crowd(SESSIONS, TRACKS)).expect("loads");
    let group = tables.begin_group().expect("a group").0;
    let waiting = tables.register(DeviceId(2), Some(group)).expect("a session").0;
    let start = now();
    assert_eq!(tables.group_sessions(group), Ok(vec![waiting]));
    report.line("sessions of a group, among 1,024", start.elapsed().as_secs_f64() * 1e3, 1.0, "ms");
    let mut search = VictimSearch::new(PoolId(0));
    let (mut longest, mut steps, whole) = (Duration::ZERO, 0, now());
    let found = loop {
        let start = now();
        let found = tables.find_victim(&mut search);
        longest = longest.max(start.elapsed());
        steps += 1;
        if found != Victim::Looking {
            break found;
        }
    };
    assert_eq!(found, Victim::Session(SessionId(5000)), "the oldest");
    let name = format!("session to fail: longest of {steps} steps");
    report.line(&name, longest.as_secs_f64() * 1e3, 10.0, "ms");
    report.line("session to fail: all steps", whole.elapsed().as_secs_f64() * 1e3, 10_000.0, "ms");
}

/// 4,096 devices; on the first so many sessions, for each of which each of so many tracks has a version.
fn crowd(sessions: u32, tracks: u32) -> impl Iterator<Item = Change> {
    let device = move |id: u32| {
        let generation = Generation(if id == 1 { sessions } else { 0 });
        let kind = DeviceKind::Standard { pool: PoolId(0), generation, deleting: false };
        let record =
            DeviceRecord { name: format!("d{id}"), kind, size_bytes: GIB, online: true, reserved: false };
        Change::Device(DeviceId(id), Some(record))
    };
    let session = |n: u32| {
        let state = SessionState::Active { activated: Generation(n + 1) };
        let record = SessionRecord {
            extent: None,
            standard: DeviceId(1),
            virtual_device: None,
            state,
            activated_ms: n.into(),
            pinned: None,
        };
        Change::Session(SessionId(5000 + n), Some(record))
    };
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: sessions * tracks + 1 };
    let head = [
        Change::Pool(PoolId(0), PoolRecord { name: "p".into() }),
        Change::Store(StoreId(0), store),
        Change::NextId(10_000),
    ];
    let versions = (0..tracks).flat_map(move |track| {
        (0..sessions).map(move |n| {
            let physical = PhysicalTrack::new(track * sessions + n + 1).expect("not 0");
            let entry = Some(Entry::whole(physical));
            Change::Version(DeviceId(1), TrackNo(track), Generation(n + 1), entry)
        })
    });
    head.into_iter().chain((1..=4095).map(device)).chain((0..sessions).map(session)).chain(versions)
}

/// A firmware whose disk and metadata take no time and keep nothing.
struct Rig {
    firmware: Firmware,
    calls: u64,
}

impl Rig {
    fn relate(&mut self, n: u32) -> u32 {
        let name = format!("v{n}");
        self.command(Command::DeviceCreateVirtual { name: name.clone() });
        let Answer::Session(info) =
            self.command(Command::SessionRegister { standard: "d".into(), group: None, tracks: None })
        else {
            panic!("not a session");
        };
        self.command(Command::SessionRelate { session: info.id, virtual_device: name });
        info.id
    }

    fn activate(&mut self, session: u32) -> Duration {
        let start = now();
        let activation = Activation { session, name: None, offline: false };
        self.command(Command::SessionActivate { sessions: vec![activation] });
        start.elapsed()
    }

    fn command(&mut self, command: Command) -> Answer {
        self.calls += 1;
        let call = CallId(self.calls);
        let mut effects = Vec::new();
        self.firmware.step(Duration::ZERO, Event::Manage { call, wall_ms: 1, command }, &mut effects);
        let mut answer = None;
        while let Some(effect) = effects.pop() {
            let event = match effect {
                Effect::Answer { result, .. } => {
                    answer = Some(result.expect("accepted"));
                    continue;
                }
                other => ended(other).expect("an effect that ends"),
            };
            self.firmware.step(Duration::ZERO, event, &mut effects);
        }
        answer.expect("answered")
    }
}

fn load(pool_bytes: u64, written_bytes: u64) -> Tables {
    Tables::load(Geometry::default(), full_device(pool_bytes, written_bytes)).expect("loads")
}

/// A device "d" of which so much is written, and merged.
fn full_device(pool_bytes: u64, written_bytes: u64) -> impl Iterator<Item = Change> {
    let tracks = (written_bytes >> 16) as u32;
    let kind = DeviceKind::Standard { pool: PoolId(0), generation: Generation(0), deleting: false };
    let record = DeviceRecord {
        name: "d".into(),
        kind,
        size_bytes: written_bytes.max(GIB),
        online: true,
        reserved: false,
    };
    let store =
        StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: (pool_bytes >> 16) as u32 + 64 };
    [
        Change::Pool(PoolId(0), PoolRecord { name: "p".into() }),
        Change::Store(StoreId(0), store),
        Change::NextId(2),
        Change::Device(DeviceId(1), Some(record)),
    ]
    .into_iter()
    .chain((0..tracks).map(|track| {
        let physical = PhysicalTrack::new(track + 1).expect("not 0");
        Change::Entry(DeviceId(1), TrackNo(track), Entry::whole(physical))
    }))
}

fn small_pool() -> Vec<Change> {
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: 64 };
    vec![Change::Pool(PoolId(0), PoolRecord { name: "p".into() }), Change::Store(StoreId(0), store)]
}

fn backend(path: &Path) -> FileBackend {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    FileBackend::new(file.expect("opens")).expect("is a file")
}

/// Resident memory of this process.
fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096.0 / 1048576.0
}

/// A benchmark may ask what time it is.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
