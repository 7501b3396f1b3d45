//! The firmware of one array: a pure state machine. No I/O, no waiting, no lock, no clock but `now`.
//!
//! Events come in by [`Firmware::step`], effects go out, and the two lists in their order are the whole of what the
//! array does: tests compare them, and the argument for correctness is about them. `step` only routes; the parts are
//!
//! - `hosts`: connections and requests, cut into tracks; `status`: what they are told of blocks;
//! - `io`: writes of single tracks, `reads`: reads of them, which alone issue data I/O;
//! - `tracks`: who may write to which track, and the gate that a point in time closes;
//! - `durability` and `rounds`: which alone issue syncs and commits; `headers` go with them;
//! - `points`: activate, deactivate and remove, which wait for writes in flight;
//! - `manage`: the other commands; `jobs`: reclaim, discard, merge; `policy`: what a pool does when it is full;
//!   `starving`: who waits for room, and who is failed for it;
//! - `copies`: copies within the array, which take entries over and move tracks to other pools; `schedules`: by the clock;
//! - `joint`: points in time on both arrays;
//! - `safety`: what a half goes back to while a copy into it is under way;
//! - `links`: connections to other arrays; `accord`: how both agree on their pairs; `mirror`: the remote leg of a write;
//!   `standby`: its other end; `marks`: dirty regions; `resync`: what is owed or lacked is copied; `creation` and
//!   `pairs`: what spans both arrays; `failover`: who serves; `ending`: how that ends; `verify`: are both halves the same; `remotes`: how a person asks for all
//!   that, `infos`: what he is told; `link_test`: how fast a link is.

mod accord;
mod copies;
mod creation;
mod durability;
mod ending;
mod event;
mod failover;
mod headers;
mod hosts;
mod infos;
mod io;
mod jobs;
mod joint;
mod link_test;
mod links;
mod manage;
mod marks;
mod mirror;
mod pairs;
mod points;
mod policy;
mod reads;
mod remotes;
mod resync;
mod rounds;
mod safety;
mod schedules;
mod standby;
mod starving;
mod status;
mod told;
mod tracks;
mod verify;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
pub use event::{
    AttachError, CallId, ConnId, DiskError, Effect, Event, ExportInfo, Extent, HostError, HostOp, IoId,
    LinkId, Reply, Segment, StatusOf, Tag,
};
pub use policy::{PoolPolicy, Threshold};
use twintrack_core::{CopyId, PairId, PoolId, StoreId, Tables, TrackNo, UnitSeq};
use twintrack_link::remote::{Answer as PeerAnswer, PeerError, Timing};

/// What the array is called, and how often it was booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The serial number, given at format.
    pub serial: u64,
    /// The number of this boot: greater than any before.
    pub boot: u32,
}

/// The state of one array while it is up.
///
/// # How to use it
/// One caller at a time calls [`step`](Self::step) with each event as it happens, and then starts the effects in
/// their order; every [`Effect`] that says so ends in an event. Commits must become durable in the order in which
/// they were asked for. After [`Effect::Reload`] it must not be stepped again. The call costs the same at any size of
/// device and any number of sessions, but for listings.
#[derive(Debug)]
pub struct Firmware {
    identity: Identity,
    now: Duration,
    tables: Tables,
    conns: BTreeMap<ConnId, hosts::Conn>,
    requests: BTreeMap<hosts::RequestId, hosts::Request>,
    /// Requests with more parts to begin than one step may: they go on in steps of their own, one after the other.
    turns: VecDeque<hosts::RequestId>,
    /// Parts of requests that this step may still begin.
    parts_left: u32,
    tracks: tracks::Tracks,
    ops: BTreeMap<io::OpId, io::Op>,
    reads: BTreeMap<reads::ReadId, reads::Read>,
    io: BTreeMap<IoId, io::IoFor>,
    /// Operations that wait for a free physical track.
    starving: VecDeque<io::OpId>,
    /// What the pools do when they run full; those that are not there do as by default.
    policies: BTreeMap<PoolId, PoolPolicy>,
    searches: BTreeMap<PoolId, starving::Search>,
    /// The last unit, and the last that was committed, when all that a full pool keeps was last looked at for what nobody
    /// needs.
    looked_over: BTreeMap<PoolId, (UnitSeq, UnitSeq)>,
    /// Stores whose sync failed (crash rule 9).
    offline: BTreeSet<StoreId>,
    durability: durability::Durability,
    round: Option<rounds::Round>,
    headers: headers::Headers,
    points: points::Points,
    jobs: jobs::Jobs,
    links: links::Links,
    accords: BTreeMap<LinkId, accord::Accord>,
    standings: BTreeMap<PairId, resync::Standing>,
    /// Pairs that may have something to copy.
    copies: BTreeSet<PairId>,
    /// When copies are tried again, or pairs that the arrays have halted themselves.
    copies_due: Option<Duration>,
    mirror: mirror::Mirror,
    marks: marks::Marks,
    pairs: pairs::Pairs,
    verifies: verify::Verifies,
    returns: safety::Returns,
    joints: joint::Joints,
    moves: copies::Moves,
    schedules: schedules::Schedules,
    /// Wall time at an instant, as last told.
    wall: (Duration, u64),
    /// Measurements of links under way.
    tests: BTreeMap<CallId, link_test::LinkTest>,
    /// What is to be done before the step ends.
    work: VecDeque<Work>,
    numbers: u64,
    /// The last unit that a command made, or the failing of a session.
    command_unit: UnitSeq,
    /// In builds with debug assertions: steps until the tables are audited again.
    #[cfg(debug_assertions)]
    audit_in: u32,
    reloading: bool,
}

/// What a part asks of another, within one step.
#[derive(Debug)]
enum Work {
    /// An operation has its turn.
    Op(io::OpId),
    /// A read that needs no disk is over.
    ReadOver(reads::ReadId),
    /// A request's part is over.
    Advance(hosts::RequestId),
    /// A disk operation on a store that is offline.
    Offline(IoId),
    /// A comparison of a track is over.
    Compared(PairId),
    /// A track was moved to another pool, or could not be.
    Moved(CopyId, TrackNo, Result<(), HostError>),
    /// A peer's operation is over.
    Served(links::Served, Result<(), HostError>),
    /// A peer cannot be asked.
    Told(links::Asked, Result<PeerAnswer, PeerError>),
}

impl Firmware {
    /// Over what the metadata store held. Nothing is under way; the first [`Event::Timer`] (due at once, see
    /// [`Self::next_deadline`]) takes up the background work of before.
    pub fn new(identity: Identity, tables: Tables) -> Self {
        let tables = tables.of_array(identity.serial);
        let headers = headers::Headers::new(tables.geometry(), identity.serial, identity.boot);
        let mut firmware = Self {
            identity,
            now: Duration::ZERO,
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            turns: VecDeque::new(),
            parts_left: 0,
            tracks: tracks::Tracks::default(),
            ops: BTreeMap::new(),
            reads: BTreeMap::new(),
            io: BTreeMap::new(),
            starving: VecDeque::new(),
            policies: BTreeMap::new(),
            searches: BTreeMap::new(),
            looked_over: BTreeMap::new(),
            offline: BTreeSet::new(),
            durability: durability::Durability::new(&tables),
            round: None,
            headers,
            points: points::Points::default(),
            jobs: jobs::Jobs::new(&tables),
            links: links::Links::default(),
            accords: BTreeMap::new(),
            standings: BTreeMap::new(),
            copies: BTreeSet::new(),
            copies_due: None,
            mirror: mirror::Mirror::default(),
            marks: marks::Marks::default(),
            pairs: pairs::Pairs::default(),
            verifies: verify::Verifies::default(),
            returns: safety::Returns::default(),
            joints: joint::Joints::default(),
            moves: copies::Moves::default(),
            schedules: schedules::Schedules::default(),
            wall: (Duration::ZERO, 0),
            tests: BTreeMap::new(),
            work: VecDeque::new(),
            numbers: 0,
            command_unit: UnitSeq::ZERO,
            #[cfg(debug_assertions)]
            audit_in: 0,
            reloading: false,
            tables,
        };
        firmware.look_at_peers();
        firmware.remove_safety_copies(firmware.tables.left_safety_copies());
        firmware.give_up_undecided();
        firmware
    }

    /// With the wall time at which `now` is zero, in ms since 1970.
    pub fn with_wall_ms(mut self, wall_ms: u64) -> Self {
        self.wall = (Duration::ZERO, wall_ms);
        self
    }

    /// With how long things may take on links: a simulation has it shorter.
    pub fn with_link_timing(mut self, timing: Timing) -> Self {
        self.links.set_timing(timing);
        self.look_at_peers();
        self
    }

    /// With what the pools are to do when they run full, by name. Pools that are not named do as by default. Nothing of it
    /// is durable, so that it may be another at each start: it says which of two things happens, and each is one unit or
    /// none.
    pub fn with_policies<'a>(mut self, policies: impl IntoIterator<Item = (&'a str, PoolPolicy)>) -> Self {
        let named: BTreeMap<_, _> = policies.into_iter().collect();
        let of = |(id, record): (PoolId, &twintrack_core::PoolRecord)| {
            named.get(record.name.as_str()).map(|policy| (id, *policy))
        };
        self.policies = self.tables.pools().filter_map(of).collect();
        self
    }

    /// Takes one event, appends what is to be done. `now` is time since any fixed instant and never goes back.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        if self.reloading {
            return;
        }
        self.now = now;
        self.parts_left = hosts::PARTS_A_STEP;
        match event {
            Event::Attach { conn, export } => self.attach(conn, &export, effects),
            Event::Detach { conn } => self.detach(conn),
            Event::Host { conn, tag, op } => self.host(conn, tag, op, effects),
            Event::Disk { io, result } => self.disk_done(io, result, effects),
            Event::Committed { upto, result } => self.commit_ended(upto, result, effects),
            Event::Manage { call, wall_ms, command } => {
                self.wall = (now, wall_ms);
                self.manage(call, wall_ms, command, effects);
                self.look_at_schedules();
            }
            Event::ReadTrack { call, session, track } => self.read_track(call, session, track, effects),
            Event::Timer => self.timer(effects),
            Event::LinkOpened { link, peer } => self.link_opened(link, peer, effects),
            Event::LinkMessage { link, message } => self.link_message(link, message, effects),
            Event::LinkClosed { link, why } => self.link_closed(link, why, effects),
            Event::DialFailed { peer, why } => self.dial_failed(peer, why),
            Event::Stop => {
                if !self.durability.wait(&self.tables, durability::Waiter::Stop) {
                    effects.push(Effect::Stopped { result: Err(DiskError::Failed) });
                }
            }
        }
        if !self.reloading {
            self.settle(effects);
        }
        #[cfg(debug_assertions)]
        self.audit();
    }

    /// Every so many steps: counts equal references, what is free is referred to by nobody. The simulator takes the
    /// panic for what it is.
    #[cfg(debug_assertions)]
    fn audit(&mut self) {
        const EVERY_STEPS: u32 = 32;
        self.audit_in = self.audit_in.checked_sub(1).unwrap_or(EVERY_STEPS);
        if self.audit_in == 0
            && let Err(error) = self.tables.audit()
        {
            panic!("the tables contradict themselves: {error}");
        }
    }

    /// When [`Event::Timer`] is due, in the time of `now`. Ask again after each step.
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(self.now);
        }
        let due = [
            self.jobs.deadline(),
            self.links.deadline(),
            self.marks.deadline(),
            self.mirror.deadline(),
            self.pairs.deadline(),
            self.copies_due,
            self.moves.deadline(),
            self.schedules.deadline(),
        ];
        due.into_iter().flatten().min()
    }

    /// The tables, to look at.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Whether every write has landed, every unit is committed, and no background work is left but merging.
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty()
            && self.ops.is_empty()
            && self.io.is_empty()
            && self.tables.uncommitted_units() == 0
            && self.tables.committed_unit() == self.tables.last_unit()
            && !self.tables.has_reclaim()
    }

    /// Does what follows from the event, until nothing does.
    fn settle(&mut self, fx: &mut Vec<Effect>) {
        loop {
            if let Some(work) = self.work.pop_front() {
                match work {
                    Work::Op(op) => self.run_op(op, fx),
                    Work::ReadOver(read) => self.read_over(read, fx),
                    Work::Advance(request) => self.advance(request, fx),
                    Work::Compared(pair) => self.compared(pair, fx),
                    Work::Moved(copy, track, result) => self.track_moved(copy, track, result),
                    Work::Served(served, result) => self.served(served, result, fx),
                    Work::Told(asked, result) => self.told(asked, result, fx),
                    Work::Offline(io) => self.disk_done(io, Err::<Bytes, _>(DiskError::Failed), fx),
                }
            } else if !self.advance_points(fx)
                && !self.advance_releases(fx)
                && !self.advance_entering(fx)
                && !self.advance_leaving()
                && !self.advance_copies(fx)
                && !self.pump_durability(fx)
            {
                break;
            }
        }
        self.jobs.look(self.now, &self.tables, !self.starving.is_empty(), self.durability.is_broken());
    }

    fn timer(&mut self, fx: &mut Vec<Effect>) {
        let for_turns = !self.turns.is_empty();
        self.take_turns(fx);
        self.links_timer(fx);
        self.copies_timer();
        self.moves_timer();
        self.schedules_timer();
        if self.mirror.deadline().is_some_and(|due| due <= self.now) {
            self.crowd_again();
        }
        self.clean_marks(fx);
        // Their pace is their own.
        if !for_turns || self.jobs.deadline().is_some_and(|due| due <= self.now) {
            self.run_jobs(fx);
        }
    }

    /// Wall time now in ms since 1970, as far as it was ever told; else 0.
    fn wall_ms(&self) -> u64 {
        let (then, wall_ms) = self.wall;
        if wall_ms == 0 { 0 } else { wall_ms + (self.now - then).as_millis() as u64 }
    }

    /// The wall time of a moment before now; 0: it is not known.
    fn wall_ms_at(&self, at: Duration) -> u64 {
        self.wall_ms().saturating_sub(self.now.saturating_sub(at).as_millis() as u64)
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
