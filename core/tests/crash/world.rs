//! The array beside what its users may expect: of every block what it shows now, and what it might show after a power
//! cut; of every command whether it was told of.

use std::collections::{BTreeMap, BTreeSet};

use twintrack_core::{
    DeviceId, DeviceRecord, Geometry, GroupId, Owner, Place, SessionId, SessionRecord, SessionState, TrackNo,
    UnitSeq,
};

use crate::array::{Array, Break};
use crate::common::Rng;
use crate::mix::Mix;

/// Tracks of a standard device, the last of them partial.
pub const TRACKS: u32 = 3;
pub const TRACK_BYTES: u32 = 16 << 10;
pub const BLOCKS: u32 = 4;

/// A block of a track table.
pub type Key = (Owner, u32, u32);

/// A FLUSH, or a write with FUA, that is not answered yet.
#[derive(Debug)]
pub struct Flush {
    pub unit: UnitSeq,
    pub mark: u64,
    /// What the blocks that it is about may show once it was answered.
    pub legal: BTreeMap<Key, Vec<u32>>,
}

/// All records, as of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    devices: BTreeMap<DeviceId, DeviceRecord>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    groups: BTreeSet<GroupId>,
}

/// See the module.
pub struct World {
    pub array: Array,
    pub now: BTreeMap<Key, u32>,
    may: BTreeMap<Key, Vec<u32>>,
    /// Tracks that changed since the activation of a session, until its deactivation.
    changed: BTreeMap<SessionId, BTreeSet<u32>>,
    pub flushes: Vec<Flush>,
    records: BTreeMap<UnitSeq, Records>,
    /// Units of commands whose callers wait; the last one that was told of.
    pub waiting: Vec<UnitSeq>,
    told: UnitSeq,
    pub last_value: u32,
    pub names: u32,
    pub mix: Mix,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(stores: &[u32], mix: Mix, broken: Option<Break>) -> Self {
        let geometry = Geometry::new(TRACK_BYTES).expect("a legal track size");
        let mut world = Self {
            array: Array::new(geometry, stores, broken),
            now: BTreeMap::new(),
            may: BTreeMap::new(),
            changed: BTreeMap::new(),
            flushes: Vec::new(),
            records: BTreeMap::new(),
            waiting: Vec::new(),
            told: UnitSeq::ZERO,
            last_value: 0,
            names: 0,
            mix,
            trace: Vec::new(),
        };
        world.note();
        world
    }

    pub fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    // What there is.

    pub fn standards(&self) -> Vec<DeviceId> {
        let live =
            self.array.tables.devices().filter(|(_, record)| record.is_standard() && !record.is_deleting());
        live.map(|(id, _)| id).collect()
    }

    /// Sessions that are a point in time, of a device or of all; active ones only, or deactivated ones too.
    pub fn sessions(&self, of: Option<DeviceId>, only_active: bool) -> Vec<SessionId> {
        let fits = |record: &SessionRecord| {
            record.state.window().is_some_and(|(_, until)| until.is_none() || !only_active)
                && of.is_none_or(|of| record.standard == of)
        };
        self.array.tables.sessions().filter(|(_, record)| fits(record)).map(|(id, _)| id).collect()
    }

    fn lives(&self, owner: Owner) -> bool {
        match owner {
            Owner::Device(id) => self.array.tables.device(id).is_some_and(|record| !record.is_deleting()),
            Owner::Session(id) => {
                self.array.tables.session(id).is_some_and(|record| record.state.window().is_some())
            }
        }
    }

    /// Whether the block can be read: a deactivated session has its changed tracks only.
    pub fn readable(&self, (owner, track, _): Key) -> bool {
        self.lives(owner)
            && match owner {
                Owner::Device(_) => true,
                Owner::Session(id) => {
                    let state = self.array.tables.session(id).map(|record| record.state);
                    matches!(state, Some(SessionState::Active { .. })) || self.changed[&id].contains(&track)
                }
            }
    }

    fn shown(&self, (owner, track, block): Key) -> Option<u32> {
        let entry = self.array.tables.entry(Place { owner, track: TrackNo(track) })?;
        Some(self.array.read(entry, block))
    }

    /// The changed tracks as core tells them, in pages of one to three.
    fn changed_in_core(&self, session: SessionId) -> Result<BTreeSet<u32>, String> {
        let (mut all, mut from) = (BTreeSet::new(), Some(TrackNo(0)));
        while let Some(at) = from {
            let page = 1 + session.0 as usize % 3;
            let (tracks, next) = self.array.tables.changed(session, at, page).map_err(|e| e.to_string())?;
            all.extend(tracks.iter().map(|track| track.0));
            from = next;
        }
        Ok(all)
    }

    // What becomes of a block.

    /// What a read or a flush that begins now may show: writes in flight may be there already.
    pub fn legal(&self, key: Key) -> Vec<u32> {
        let (owner, track, block) = key;
        let mut legal = vec![self.now[&key]];
        let place = Place { owner, track: TrackNo(track) };
        for flight in self.array.writes.iter().filter(|f| !f.merge && f.plan.place() == place) {
            legal.extend(flight.values.iter().filter(|(b, ..)| *b == block).map(|(_, value, _)| *value));
        }
        legal
    }

    pub fn might(&mut self, key: Key, value: u32) {
        let flushes = self.flushes.iter_mut().filter_map(|flush| flush.legal.get_mut(&key));
        let reads = self.array.reads.iter_mut().filter(|read| read.key == key).map(|read| &mut read.legal);
        for legal in self.may.get_mut(&key).into_iter().chain(flushes).chain(reads) {
            if !legal.contains(&value) {
                legal.push(value);
            }
        }
    }

    pub fn become_value(&mut self, key: Key, value: u32) {
        self.might(key, value);
        self.now.insert(key, value);
    }

    /// A new block, with one value that it has for certain.
    pub fn begin(&mut self, key: Key, value: u32) {
        self.now.insert(key, value);
        self.may.insert(key, vec![value]);
    }

    /// A track was written or trimmed: the sessions that can tell.
    pub fn mark_changed(&mut self, owner: Owner, track: u32) {
        let sessions = match owner {
            Owner::Device(id) => self.sessions(Some(id), true),
            Owner::Session(id) => vec![id],
        };
        for session in sessions {
            self.changed.entry(session).or_default().insert(track);
        }
    }

    pub fn changed_tracks(&self, session: SessionId) -> Vec<u32> {
        self.changed.get(&session).into_iter().flatten().copied().collect()
    }

    /// A session was activated: it shows what its device shows.
    pub fn begin_session(&mut self, session: SessionId, standard: DeviceId) {
        for track in 0..TRACKS {
            for block in 0..BLOCKS {
                let value = self.now[&(Owner::Device(standard), track, block)];
                self.begin((Owner::Session(session), track, block), value);
            }
        }
        self.changed.insert(session, BTreeSet::new());
    }

    // What is told.

    /// Takes down the records, if a unit changed them.
    pub fn note(&mut self) {
        let tables = &self.array.tables;
        let records = Records {
            devices: tables.devices().map(|(id, record)| (id, record.clone())).collect(),
            sessions: tables.sessions().map(|(id, record)| (id, record.clone())).collect(),
            groups: tables.groups().collect(),
        };
        if self.records.last_key_value().is_none_or(|(_, last)| *last != records) {
            self.records.insert(tables.last_unit(), records);
        }
    }

    /// Answers what has waited for what is durable now.
    pub fn answer(&mut self) {
        let a = &self.array;
        let reached = if a.breaks(Break::ReplyBeforeCommit) { a.synced } else { a.tables.committed_unit() };
        let eager = a.breaks(Break::FlushWithoutSync);
        let idle = |flush: &Flush| eager && flush.unit <= a.tables.committed_unit();
        let done = |flush: &Flush| flush.unit <= reached && (flush.mark <= a.synced_mark || idle(flush));
        let (answered, left) = std::mem::take(&mut self.flushes).into_iter().partition(done);
        self.flushes = left;
        let answered: Vec<Flush> = answered;
        for (key, legal) in answered.iter().flat_map(|flush| &flush.legal) {
            if let Some(may) = self.may.get_mut(key) {
                may.retain(|value| legal.contains(value));
            }
        }
        let told = self.waiting.iter().copied().filter(|unit| *unit <= reached).max();
        self.told = self.told.max(told.unwrap_or(UnitSeq::ZERO));
        self.waiting.retain(|unit| *unit > reached);
    }

    // What must hold.

    /// While the array is up.
    pub fn check(&self) -> Result<(), String> {
        self.array.tables.audit().map_err(|error| error.to_string())?;
        for (key, now) in self.now.iter().filter(|(key, _)| self.readable(**key)) {
            let shown = self.shown(*key);
            if shown != Some(*now) && !shown.is_some_and(|shown| self.legal(*key).contains(&shown)) {
                return Err(format!("{key:?} shows {shown:?}, not {now}, while up"));
            }
        }
        for session in self.sessions(None, false) {
            let told = self.changed_in_core(session)?;
            if told != self.changed[&session] {
                return Err(format!("{session} tells changes {told:?}, not {:?}", self.changed[&session]));
            }
        }
        Ok(())
    }

    /// The power fails; the array comes up again.
    pub fn power_cut(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.array.power_cut(rng)?;
        let durable = std::mem::replace(&mut self.array.durable_unit, UnitSeq::ZERO);
        self.say(format!("power cut at {durable}, told {}", self.told));
        if durable < self.told {
            return Err(format!("{} was told of, and only {durable} is durable", self.told));
        }
        let expected = self.records.range(..=durable).next_back().map(|(_, records)| records.clone());
        self.records.clear();
        self.note();
        let found = self.records.pop_first().map(|(_, records)| records);
        if found != expected {
            return Err(format!("the records are {found:?}, not {expected:?}"));
        }
        self.records.extend(found.map(|found| (UnitSeq::ZERO, found)));
        (self.told, self.waiting, self.flushes) = (UnitSeq::ZERO, Vec::new(), Vec::new());
        self.changes_after_a_cut()?;
        self.contents_after_a_cut()?;
        self.check()
    }

    fn changes_after_a_cut(&mut self) -> Result<(), String> {
        let before = std::mem::take(&mut self.changed);
        for (session, tracks) in before {
            if !self.lives(Owner::Session(session)) {
                continue;
            }
            let shows = self.changed_in_core(session)?;
            let state = self.array.tables.session(session).map(|record| record.state);
            let ended = matches!(state, Some(SessionState::Deactivated { .. }));
            if !shows.is_subset(&tracks) || (ended && shows != tracks) {
                return Err(format!("{session} tells changes {shows:?} after a power cut, not {tracks:?}"));
            }
            self.changed.insert(session, shows);
        }
        Ok(())
    }

    fn contents_after_a_cut(&mut self) -> Result<(), String> {
        let before = std::mem::take(&mut self.may);
        self.now.clear();
        for (key, legal) in before {
            if !self.readable(key) {
                // What is gone, and a deactivated session's unchanged tracks: nobody will read them.
                continue;
            }
            let shown = self.shown(key);
            let Some(value) = shown.filter(|shown| legal.contains(shown)) else {
                return Err(format!("{key:?} shows {shown:?} after a power cut, not one of {legal:?}"));
            };
            self.begin(key, value);
        }
        Ok(())
    }
}
