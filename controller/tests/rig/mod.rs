//! A firmware with disks in memory and nothing else: events go in one by one, every effect is written down and
//! carried out when the test says so.

#![allow(dead_code)] // Each test uses a part of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use twintrack_controller::firmware::{
    AttachError, CallId, ConnId, DiskError, Effect, Event, Firmware, HostError, HostOp, Identity, PoolPolicy,
    Reply, Segment, Tag,
};
use twintrack_core::layout::StoreLayout;
use twintrack_core::{
    Change, Geometry, Halt, PairId, PhysicalTrack, Place, PoolId, PoolRecord, Role, Stage, StoreId,
    StoreRecord, Tables, UnitSeq,
};
use twintrack_link::manage::{Answer, Command, Refusal};

/// How a pair stood, for the first time or anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stood {
    pub pair: PairId,
    pub role: Role,
    pub halt: Option<Halt>,
    pub boot: u32,
}

pub struct Rig {
    pub firmware: Firmware,
    serial: u64,
    boots: u32,
    pub now: Duration,
    /// What is durable.
    pub metadata: Vec<Change>,
    /// The store; what nothing was written to is junk.
    pub disk: Vec<u8>,
    /// The store of the second pool, if there is one.
    pub second: Vec<u8>,
    /// Effects not carried out.
    pub pending: VecDeque<Effect>,
    pub log: String,
    pub commits: usize,
    pub answers: BTreeMap<u64, Result<Answer, Refusal>>,
    pub replies: BTreeMap<u64, Result<Reply, HostError>>,
    pub tracks_read: BTreeMap<u64, Result<Vec<Segment>, Refusal>>,
    pub fail_next_sync: bool,
    pub fail_next_write: bool,
    /// Whether the tables are audited after each step: their size, each time.
    pub audit: bool,
    /// What the pool does when it is full.
    pub policy: PoolPolicy,
    /// How the pairs that are ready stood, step by step.
    pub stood: Vec<Stood>,
    next: u64,
}

pub fn geometry() -> Geometry {
    Geometry::new(16 << 10).unwrap()
}

impl Rig {
    /// An array with one pool of one store of so many tracks of 16 KiB.
    pub fn new(tracks: u32) -> Self {
        Self::with_serial(0x1234, tracks)
    }

    /// So, of this serial number.
    pub fn with_serial(serial: u64, tracks: u32) -> Self {
        Self::with_metadata(serial, tracks, pool(0, "p", 1, tracks), 0)
    }

    /// So, with a second pool "q" of one store of so many tracks.
    pub fn with_second_pool(tracks: u32, second: u32) -> Self {
        let mut metadata = pool(0, "p", 1, tracks);
        metadata.extend(pool(1, "q", 1 + tracks, second));
        Self::with_metadata(0x1234, tracks, metadata, second)
    }

    fn with_metadata(serial: u64, tracks: u32, metadata: Vec<Change>, second: u32) -> Self {
        let junk = |tracks| vec![0xEE; StoreLayout::with_tracks(geometry(), tracks).size_bytes() as usize];
        let mut rig = Self {
            firmware: boot(serial, &metadata, 1, PoolPolicy::default()),
            serial,
            boots: 1,
            now: Duration::ZERO,
            metadata,
            disk: junk(tracks),
            second: junk(second),
            pending: VecDeque::new(),
            log: String::new(),
            commits: 0,
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            tracks_read: BTreeMap::new(),
            fail_next_sync: false,
            fail_next_write: false,
            audit: true,
            policy: PoolPolicy::default(),
            stood: Vec::new(),
            next: 0,
        };
        rig.quiet(|rig| rig.settle());
        rig
    }

    /// Power fails and comes back; what the disk has is what it has.
    pub fn restart(&mut self) {
        self.pending.clear();
        self.boots += 1;
        self.firmware = boot(self.serial, &self.metadata, self.boots, self.policy);
        writeln!(self.log, "restart").unwrap();
    }

    pub fn note(&mut self, text: &str) {
        writeln!(self.log, "# {text}").unwrap();
    }

    /// Does something that the log does not show.
    pub fn quiet<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.log.len();
        let result = act(self);
        self.log.truncate(length);
        result
    }

    pub fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        match &event {
            Event::Disk { io, result } => {
                let what = match result {
                    Ok(bytes) if bytes.is_empty() => "ok".to_owned(),
                    Ok(bytes) => format!("{} bytes", bytes.len()),
                    Err(error) => format!("{error:?}"),
                };
                writeln!(self.log, "> disk io{} {what}", io.0).unwrap();
            }
            Event::Host { conn, tag, op } => {
                let text = match op {
                    HostOp::Write { offset, data, fua } => {
                        format!("write {offset}+{}{}", data.len(), if *fua { " fua" } else { "" })
                    }
                    HostOp::Read { offset, length } => format!("read {offset}+{length}"),
                    other => format!("{other:?}"),
                };
                writeln!(self.log, "> host conn{} #{} {text}", conn.0, tag.0).unwrap();
            }
            Event::Manage { call, command, .. } => {
                writeln!(self.log, "> manage call{} {command:?}", call.0).unwrap();
            }
            other => writeln!(self.log, "> {other:?}").unwrap(),
        }
        self.firmware.step(self.now, event, &mut effects);
        if self.audit {
            self.firmware.tables().audit().unwrap();
        }
        self.look_at_pairs();
        for effect in effects {
            writeln!(self.log, "    {}", shorten(&effect)).unwrap();
            match effect {
                Effect::Answer { call, result } => {
                    self.answers.insert(call.0, result);
                }
                Effect::Reply { tag, result, .. } => {
                    self.replies.insert(tag.0, result);
                }
                Effect::TrackRead { call, result } => {
                    self.tracks_read.insert(call.0, result);
                }
                Effect::Attached { .. } | Effect::Reload => {}
                other => self.pending.push_back(other),
            }
        }
    }

    fn look_at_pairs(&mut self) {
        for (pair, record) in
            self.firmware.tables().pairs().filter(|(_, record)| record.stage == Stage::Ready)
        {
            let (role, halt, boot) = (record.role, record.halt, self.boots);
            let stands = Stood { pair, role, halt, boot };
            if self.stood.iter().rfind(|stood| stood.pair == pair) != Some(&stands) {
                self.stood.push(stands);
            }
        }
    }

    /// Carries out the oldest effect; `false`: there is none.
    pub fn carry_out(&mut self) -> bool {
        let Some(effect) = self.pending.pop_front() else { return false };
        self.carry_out_this(effect);
        true
    }

    pub fn carry_out_this(&mut self, effect: Effect) {
        let event = match effect {
            Effect::Read { io, store, offset, length } => {
                let bytes = &self.store(store)[offset as usize..offset as usize + length as usize];
                Event::Disk { io, result: Ok(Bytes::copy_from_slice(bytes)) }
            }
            Effect::Write { io, .. } if std::mem::take(&mut self.fail_next_write) => {
                Event::Disk { io, result: Err(DiskError::Failed) }
            }
            Effect::Write { io, store, offset, data } => {
                let bytes = data.concat();
                self.store(store)[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                Event::Disk { io, result: Ok(Bytes::new()) }
            }
            Effect::Discard { io, store, offset, length } => {
                self.store(store)[offset as usize..(offset + length) as usize].fill(0xEE);
                Event::Disk { io, result: Ok(Bytes::new()) }
            }
            Effect::Sync { io, .. } => {
                let failed = std::mem::take(&mut self.fail_next_sync);
                Event::Disk { io, result: if failed { Err(DiskError::Failed) } else { Ok(Bytes::new()) } }
            }
            Effect::Commit { upto, changes } => {
                self.metadata.extend(changes);
                self.commits += 1;
                Event::Committed { upto, result: Ok(()) }
            }
            other => panic!("not carried out: {other:?}"),
        };
        self.step(event);
    }

    fn store(&mut self, store: StoreId) -> &mut [u8] {
        if store == StoreId(0) { &mut self.disk } else { &mut self.second }
    }

    /// Carries out everything, timers that are due at once included.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.carry_out() {
                continue;
            }
            match self.firmware.next_deadline() {
                Some(at) if at <= self.now + Duration::from_millis(2) => {
                    self.now = self.now.max(at);
                    self.step(Event::Timer);
                }
                _ => return,
            }
        }
        panic!("it does not settle");
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(at) = self.firmware.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Event::Timer);
            self.settle();
        }
        self.now = end;
    }

    pub fn host(&mut self, conn: u64, op: HostOp) -> u64 {
        self.next += 1;
        self.step(Event::Host { conn: ConnId(conn), tag: Tag(self.next), op });
        self.next
    }

    pub fn write(&mut self, conn: u64, offset: u64, length: usize, fill: u8) -> u64 {
        self.host(conn, HostOp::Write { offset, data: vec![fill; length].into(), fua: false })
    }

    pub fn manage(&mut self, command: Command) -> u64 {
        self.next += 1;
        let wall_ms = self.wall_ms();
        self.step(Event::Manage { call: CallId(self.next), wall_ms, command });
        self.next
    }

    /// The time of day.
    pub fn wall_ms(&self) -> u64 {
        1_000 + self.now.as_millis() as u64
    }

    /// A command, carried out whole.
    pub fn command(&mut self, command: Command) -> Result<Answer, Refusal> {
        let call = self.manage(command);
        self.settle();
        self.answers.remove(&call).expect("every call is answered")
    }

    /// Whether hosts may attach to a device.
    pub fn vouches(&self, export: &str) -> bool {
        self.firmware.exports().iter().any(|name| name == export)
    }

    /// Why a connection cannot be attached.
    pub fn attach_error(&mut self, export: &str) -> Option<AttachError> {
        let mut effects = Vec::new();
        let conn = ConnId(u64::MAX);
        self.firmware.step(self.now, Event::Attach { conn, export: export.into() }, &mut effects);
        self.pending
            .extend(effects.iter().filter(|effect| !matches!(effect, Effect::Attached { .. })).cloned());
        let error = effects.into_iter().find_map(|effect| match effect {
            Effect::Attached { result, .. } => Some(result.err()),
            _ => None,
        });
        self.step(Event::Detach { conn });
        error.expect("an attach is answered")
    }

    /// What lies on the disk of a track: the first byte of each sector.
    pub fn track(&self, place: Place) -> Vec<u8> {
        let tables = self.firmware.tables();
        let entry = tables.entry(place).unwrap();
        let sectors = u64::from(geometry().track_bytes() / 512);
        let byte = |sector: u64| match entry.place_of((sector / 8) as u32) {
            None => 0,
            Some(track) => self.disk[self.offset_of(track) + sector as usize * 512],
        };
        (0..sectors).map(byte).collect()
    }

    /// Where a physical track begins on the disk.
    pub fn offset_of(&self, track: PhysicalTrack) -> usize {
        let tables = self.firmware.tables();
        let (store, index) = tables.locate(track).unwrap();
        StoreLayout::with_tracks(geometry(), tables.store(store).unwrap().tracks).track_offset(index) as usize
    }

    /// Attaches a connection.
    pub fn attach(&mut self, conn: u64, export: &str) {
        self.step(Event::Attach { conn: ConnId(conn), export: export.into() });
    }

    /// Reads, carried out whole: the first byte of each sector.
    pub fn read(&mut self, conn: u64, offset: u64, length: u32) -> Result<Vec<u8>, HostError> {
        let tag = self.host(conn, HostOp::Read { offset, length });
        self.settle();
        match self.replies.remove(&tag).expect("every request is answered")? {
            Reply::Data(segments) => Ok(sectors(&segments)),
            other => panic!("{other:?}"),
        }
    }

    /// A request, carried out whole.
    pub fn do_host(&mut self, conn: u64, op: HostOp) -> Result<Reply, HostError> {
        let tag = self.host(conn, op);
        self.settle();
        self.replies.remove(&tag).expect("every request is answered")
    }

    /// A standard device "d" of so many bytes, attached as connection 1.
    pub fn with_device(tracks: u32, size_bytes: u64) -> Self {
        let mut rig = Self::new(tracks);
        rig.quiet(|rig| {
            rig.command(Command::DeviceCreate { name: "d".into(), size_bytes, pool: None }).unwrap();
            rig.attach(1, "d");
        });
        rig
    }

    /// A session on "d", active, shown by a new virtual device, attached as a connection: its number.
    pub fn establish(&mut self, name: &str, conn: u64) -> u32 {
        self.command(Command::DeviceCreateVirtual { name: name.into() }).unwrap();
        let session = match self
            .command(Command::SessionRegister { standard: "d".into(), group: None, tracks: None })
            .unwrap()
        {
            Answer::Session(info) => info.id,
            other => panic!("{other:?}"),
        };
        self.command(Command::SessionRelate { session, virtual_device: name.into() }).unwrap();
        let sessions = vec![twintrack_link::manage::Activation { session, name: None, offline: false }];
        self.command(Command::SessionActivate { sessions }).unwrap();
        self.attach(conn, name);
        session
    }
}

pub fn sectors(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(data) => bytes.extend_from_slice(data),
            Segment::Zeros(length) => bytes.resize(bytes.len() + *length as usize, 0),
        }
    }
    bytes.chunks(512).map(|sector| sector[0]).collect()
}

fn pool(number: u16, name: &str, first: u32, tracks: u32) -> Vec<Change> {
    let (pool, record) = (PoolId(number), PoolRecord { name: name.into() });
    let store = StoreRecord { name: format!("s{number}"), pool, first, tracks };
    vec![Change::Pool(pool, record), Change::Store(StoreId(number), store)]
}

fn boot(serial: u64, metadata: &[Change], boot: u32, policy: PoolPolicy) -> Firmware {
    let tables = Tables::load(geometry(), metadata.iter().cloned()).unwrap();
    assert_eq!(tables.last_unit(), UnitSeq::ZERO);
    Firmware::new(Identity { serial, boot }, tables).with_policies([("p", policy)])
}

/// Offsets in tracks where they are in the track area, so that a snapshot can be read.
fn shorten(effect: &Effect) -> String {
    let layout = StoreLayout::with_tracks(geometry(), 64);
    let first = layout.track_offset(0);
    let place = |offset: u64| match offset.checked_sub(first) {
        Some(within) => format!("p{}+{}", within / 16384 + 1, within % 16384),
        None => format!("headers+{offset}"),
    };
    match effect {
        Effect::Read { io, offset, length, .. } => {
            format!("read io{} {} {length} bytes", io.0, place(*offset))
        }
        Effect::Write { io, offset, data, .. } => {
            let length: usize = data.iter().map(Bytes::len).sum();
            format!("write io{} {} {length} bytes", io.0, place(*offset))
        }
        Effect::Discard { io, offset, length, .. } => {
            format!("discard io{} {} {length} bytes", io.0, place(*offset))
        }
        Effect::Reply { conn, tag, result: Ok(Reply::Data(segments)) } => {
            let parts: Vec<_> = segments
                .iter()
                .map(|segment| match segment {
                    Segment::Bytes(bytes) => format!("{} bytes", bytes.len()),
                    Segment::Zeros(length) => format!("{length} zeros"),
                })
                .collect();
            format!("reply conn{} #{} {}", conn.0, tag.0, parts.join(", "))
        }
        other => format!("{other:?}"),
    }
}
