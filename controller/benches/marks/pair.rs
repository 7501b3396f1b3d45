//! Two arrays with a pair, or one with a device that is in none: their firmwares, and what goes to and fro between them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use twintrack_controller::firmware::{ConnId, Effect, Event, Firmware, HostOp, Identity, LinkId, Tag};
use twintrack_core::{
    Change, DeviceId, DeviceKind, DeviceRecord, Entry, Generation, Geometry, Half, Lineage, Mode, Pace,
    PairGeneration, PairId, PairRecord, PeerId, PeerRecord, PhysicalTrack, Policy, PoolId, PoolRecord, Role,
    Stage, StoreId, StoreRecord, Tables, TrackNo,
};
use twintrack_link::remote::{Message, Request};

const TRACK: u64 = 64 << 10;
/// Tracks, and bytes, of a region.
pub const REGION_TRACKS: u64 = 64;
pub const REGION: u64 = REGION_TRACKS * TRACK;
const PAIR: PairId = PairId { serial: 1, number: 3 };

/// What went over the link.
#[derive(Default)]
pub struct Sent {
    /// Tracks of which something was sent to be written.
    pub written: BTreeSet<u32>,
    /// Tracks whose check sums were asked for.
    pub compared: BTreeSet<u32>,
}

/// The arrays, with a fully written device each.
pub struct Pair {
    pub size: u64,
    /// R1's array, and R2's, if the device is in a pair.
    sides: Vec<Side>,
    queue: VecDeque<(usize, Event)>,
    effects: Vec<Effect>,
    /// The link that there is.
    link: Option<LinkId>,
    links: u64,
    now: Duration,
    writes: u64,
    state: u64,
    messages: u64,
    operations: u64,
    answered: bool,
    /// What was sent is noted.
    notes: bool,
    sent: Sent,
}

struct Side {
    firmware: Firmware,
    boot: u32,
    /// What was committed beside what it began with.
    durable: Vec<Change>,
    commits: u64,
}

impl Pair {
    pub fn new(size: u64, paired: bool) -> Self {
        let halves = if paired { vec![Half::R1, Half::R2] } else { vec![Half::R1] };
        let side = |half| {
            let changes =
                changes(size, half).filter(|it| paired || !matches!(it, Change::Pair(..) | Change::Peer(..)));
            Side { firmware: boot(half, 1, changes), boot: 1, durable: Vec::new(), commits: 0 }
        };
        let mut pair = Self {
            size,
            sides: halves.into_iter().map(side).collect(),
            queue: VecDeque::new(),
            effects: Vec::new(),
            link: None,
            links: 0,
            now: Duration::ZERO,
            writes: 0,
            state: 88_172_645_463_325_252,
            messages: 0,
            operations: 0,
            answered: false,
            notes: false,
            sent: Sent::default(),
        };
        (0..300).for_each(|_| pair.pass(Duration::from_millis(100)));
        pair.attach();
        pair
    }

    fn attach(&mut self) {
        self.queue.push_back((0, Event::Attach { conn: ConnId(1), export: "d".into() }));
        self.run();
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in 0..self.sides.len() {
            while self.sides[side].firmware.next_deadline().is_some_and(|at| at <= self.now) {
                self.queue.push_back((side, Event::Timer));
                self.run();
            }
        }
    }

    /// Somewhere, the same everywhere in the long run.
    pub fn write_anywhere(&mut self) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.write(self.state % (self.size / 4096) * 4096);
    }

    /// A write of 4 KiB, to its answer.
    pub fn write(&mut self, offset: u64) {
        static BLOCK: [u8; 4096] = [1; 4096];
        self.writes += 1;
        let op = HostOp::Write { offset, data: Bytes::from_static(&BLOCK), fua: false };
        self.answered = false;
        self.queue.push_back((0, Event::Host { conn: ConnId(1), tag: Tag(self.writes), op }));
        self.run();
        assert!(self.answered, "a write is answered");
    }

    /// Steps, and carries out what comes of it.
    fn run(&mut self) {
        while let Some((side, event)) = self.queue.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.sides[side].firmware.step(self.now, event, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(side, effect);
            }
            self.effects = effects;
        }
    }

    fn carry_out(&mut self, side: usize, effect: Effect) {
        let done = |io, bytes| (side, Event::Disk { io, result: Ok(bytes) });
        let event = match effect {
            Effect::Read { io, length, .. } => {
                self.operations += 1;
                done(io, zeros(length))
            }
            Effect::Write { io, .. } | Effect::Sync { io, .. } | Effect::Discard { io, .. } => {
                self.operations += 1;
                done(io, Bytes::new())
            }
            Effect::Commit { upto, changes } => {
                self.sides[side].commits += 1;
                self.sides[side].durable.extend(changes);
                (side, Event::Committed { upto, result: Ok(()) })
            }
            Effect::Dial { peer, .. } => {
                self.links += 1;
                let link = LinkId(self.links);
                self.link = Some(link);
                self.queue.push_back((1 - side, Event::LinkOpened { link, peer: None }));
                (side, Event::LinkOpened { link, peer: Some(peer) })
            }
            Effect::Send { link, message } if self.link == Some(link) => {
                self.messages += 1;
                if self.notes {
                    self.note(&message);
                }
                (1 - side, Event::LinkMessage { link, message })
            }
            Effect::CloseLink { link } if self.link == Some(link) => {
                self.link = None;
                (1 - side, Event::LinkClosed { link, why: "it was closed".into() })
            }
            Effect::Reply { result, .. } => {
                result.expect("a write succeeds");
                self.answered = true;
                return;
            }
            Effect::Attached { result, .. } => {
                result.expect("the device is served");
                return;
            }
            _ => return,
        };
        self.queue.push_back(event);
    }

    fn note(&mut self, message: &Message) {
        match message {
            Message::Request {
                what: Request::Write { track, .. } | Request::Zeros { track, .. }, ..
            } => {
                self.sent.written.insert(track.0);
            }
            Message::Request { what: Request::Clear { track, count, .. }, .. } => {
                self.sent.written.extend(track.0..track.0 + count);
            }
            Message::Request { what: Request::Sums { track, .. }, .. } => {
                self.sent.compared.insert(track.0);
            }
            _ => {}
        }
    }

    /// The regions that are dirty at R1.
    pub fn dirty(&self) -> Vec<u32> {
        let regions = self.sides[0].firmware.tables().regions(PAIR);
        regions.into_iter().flat_map(|regions| regions.marked()).map(|region| region.0).collect()
    }

    /// Both halves exist, nothing is owed, and nothing holds it up.
    pub fn is_synchronized(&self) -> bool {
        let tables = self.sides[0].firmware.tables();
        let moves = tables.pair(PAIR).is_some_and(|record| record.halt.is_none());
        let complete = self.sides[1].firmware.tables().pair(PAIR).is_some_and(|record| record.complete);
        moves && complete && tables.next_owed(PAIR, TrackNo(0)).is_none()
    }

    /// R1's array loses what is not durable.
    pub fn crash(&mut self) {
        if let Some(link) = self.link.take() {
            self.queue.push_back((1, Event::LinkClosed { link, why: "the peer is gone".into() }));
            self.run();
        }
    }

    /// And is up again.
    pub fn start(&mut self) {
        self.notes = true;
        let (size, side) = (self.size, &mut self.sides[0]);
        side.boot += 1;
        let durable = changes(size, Half::R1).chain(side.durable.iter().cloned());
        side.firmware = boot(Half::R1, side.boot, durable);
        self.queue.push_back((0, Event::Timer));
        self.run();
    }

    pub fn take_commits(&mut self) -> [u64; 2] {
        let mut taken = [0; 2];
        for (taken, side) in taken.iter_mut().zip(&mut self.sides) {
            *taken = std::mem::take(&mut side.commits);
        }
        taken
    }

    pub fn take_operations(&mut self) -> u64 {
        std::mem::take(&mut self.operations)
    }

    pub fn take_messages(&mut self) -> u64 {
        std::mem::take(&mut self.messages)
    }

    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }
}

fn zeros(length: u32) -> Bytes {
    static ZEROS: [u8; TRACK as usize] = [0; TRACK as usize];
    ZEROS.get(..length as usize).map_or_else(|| Bytes::from(vec![0; length as usize]), Bytes::from_static)
}

fn boot(half: Half, boot: u32, changes: impl Iterator<Item = Change>) -> Firmware {
    let tables = Tables::load(Geometry::default(), changes).expect("loads");
    Firmware::new(Identity { serial: serial(half), boot }, tables)
}

fn serial(half: Half) -> u64 {
    match half {
        Half::R1 => 1,
        Half::R2 => 2,
    }
}

/// What is durable of an array with one half of a pair, fully written, which both arrays have whole.
fn changes(size_bytes: u64, half: Half) -> impl Iterator<Item = Change> {
    let tracks = (size_bytes / TRACK) as u32;
    // What a copy into R2 overwrites is kept, as long as its pool does not become low.
    let store = StoreRecord { name: "s".into(), pool: PoolId(0), first: 1, tracks: tracks / 2 * 3 };
    let kind = DeviceKind::Standard { pool: PoolId(0), generation: Generation(0), deleting: false };
    let device = DeviceRecord { name: "d".into(), kind, size_bytes, online: true, reserved: false };
    let generation = PairGeneration { serial: 1, number: 3 };
    let (role, endpoint) = match half {
        Half::R1 => (Role::Owner, Some("tcp:127.0.0.1:1".into())),
        Half::R2 => (Role::Standby, None),
    };
    let pair = PairRecord {
        peer: PeerId(2),
        device: DeviceId(1),
        peer_device: "d".into(),
        request: 1,
        half,
        stage: Stage::Ready,
        role,
        forced: false,
        mode: Mode::Synchronous,
        pace: Pace::Adaptive,
        policy: Policy::Continue,
        group: String::new(),
        shared: Some(generation),
        lineage: Lineage::new(generation),
        complete: true,
        halt: None,
        halted_ms: 0,
        had_all_ms: 0,
        peer_boot: 1,
        owed_from: TrackNo(tracks),
        lacked_from: TrackNo(tracks),
        made_device: false,
        kept: None,
    };
    let peer = PeerRecord { name: "other".into(), endpoint, serial: Some(serial(half.other())) };
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
    records.into_iter().chain(entries)
}
