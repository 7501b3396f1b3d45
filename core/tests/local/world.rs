//! An array with two pools and some volumes, beside what each was. What is written to a physical track is there after a power cut; what was
//! not committed is not known any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use twintrack_core::{
    ActivateSession, BlockMask, Change, CopyId, CopyStatus, DeviceId, DeviceKind, EntryPlace, Geometry, Look,
    Moment, Owner, Pace, PairCommand, PhysicalTrack, Place, PoolId, PoolRecord, RestoreItem, SessionId,
    SessionState, StoreId, StoreRecord, Tables, TrackNo, UnitSeq, WriteError, WritePlan,
};

use crate::common::{Durable, Rng, formatted};

const TRACK_BYTES: u32 = 1 << 14;
const TRACKS: u32 = 5;
const BLOCKS: u32 = 4;
const DEVICES: usize = 4;
const SESSIONS_MAX: usize = 7;
const POOLS: [PoolId; 2] = [PoolId(0), PoolId(1)];

type Content = Vec<u64>;

/// What everything is, after some unit.
#[derive(Debug, Clone, Default)]
struct Model {
    devices: BTreeMap<DeviceId, Content>,
    sessions: BTreeMap<SessionId, Content>,
    /// Tracks written on either side of a pair since they were last equal.
    touched: BTreeMap<CopyId, BTreeSet<u32>>,
}

pub struct World {
    t: Tables,
    durable: Durable,
    disk: BTreeMap<(PhysicalTrack, u32), u64>,
    model: Model,
    /// The model as it was after each unit that is not committed, and which.
    then: Vec<(UnitSeq, Model)>,
    /// Writes in place since the last commit.
    in_place: Vec<(Place, PhysicalTrack, u32, u64)>,
    last_value: u64,
    pub trace: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        let mut durable = formatted(&[60]);
        let second = PoolRecord { name: "second".into() };
        let store = StoreRecord { name: "s".into(), pool: POOLS[1], first: 100, tracks: 60 };
        durable.apply(vec![Change::Pool(POOLS[1], second), Change::Store(StoreId(7), store)]);
        let mut t = load(&durable);
        let mut model = Model::default();
        for n in 0..DEVICES {
            let size = u64::from(TRACKS * TRACK_BYTES) - 1024;
            let (id, _) = t.create_standard(&format!("d{n}"), POOLS[n / 3], size).expect("a device");
            model.devices.insert(id, vec![0; (TRACKS * BLOCKS) as usize]);
        }
        let mut world = Self {
            t,
            durable,
            disk: BTreeMap::new(),
            model,
            then: Vec::new(),
            in_place: Vec::new(),
            last_value: 0,
            trace: Vec::new(),
        };
        world.commit(world.t.last_unit());
        world
    }

    pub fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        let devices: Vec<_> = self.model.devices.keys().copied().collect();
        let device = rng.pick(&devices).expect("there are some");
        let track = rng.below(TRACKS as usize) as u32;
        let from = rng.below(BLOCKS as usize) as u32;
        let blocks = if rng.chance(30) { 0..BLOCKS } else { from..from + 1 };
        let copies: Vec<_> = self.t.copies().map(|(id, _)| id).collect();
        match rng.below(100) {
            0..=33 if !self.t.is_held_by_pair(device) => self.write(Owner::Device(device), track, blocks),
            34..=39 => {
                if let Some(session) = rng.pick(&self.active()) {
                    let tracks = self.tracks_of(session);
                    let track = tracks.start + track % (tracks.end - tracks.start);
                    self.write(Owner::Session(session), track, blocks);
                }
            }
            40..=42 if !self.t.is_held_by_pair(device) => self.clear(device, track),
            43..=46 => {
                let (other, pace) = (rng.pick(&devices).expect("some"), Pace::Fast);
                if let Ok((id, _)) = self.t.create_local_pair(device, other, pace) {
                    self.model.touched.insert(id, (0..TRACKS).collect());
                    self.say(format!("{id} {device} {other}"));
                }
            }
            47..=58 => {
                if let Some(id) = rng.pick(&copies) {
                    self.pair_command(id, rng);
                }
            }
            59..=64 => self.restore(device, rng),
            65..=70 => self.establish(device, rng),
            71..=74 => {
                if let Some(session) = rng.pick(&self.sessions()) {
                    self.end(session, rng.chance(60));
                }
            }
            75..=79 => {
                if let Some(id) = self.t.next_filling() {
                    self.t.fill_step(id);
                    self.say(format!("{id} filled"));
                }
            }
            80..=84 => {
                if let Some(id) = rng.pick(&copies) {
                    self.relocate(id, rng.chance(50));
                }
            }
            85..=88 => self.merge(device, track),
            89..=91 => drop(self.t.reclaim()),
            92..=95 => {
                let (done, last) = (self.t.committed_unit().0, self.t.last_unit().0);
                self.commit(UnitSeq(done + rng.below((last - done) as usize + 1) as u64));
            }
            96..=97 => self.commit(self.t.last_unit()),
            98 => self.power_cut(),
            _ => {}
        }
        self.then.push((self.t.last_unit(), self.model.clone()));
        Ok(())
    }

    fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    fn active(&self) -> Vec<SessionId> {
        let writable = |id: &SessionId| {
            let record = self.t.session(*id).expect("it is there");
            matches!(record.state, SessionState::Active { .. }) && record.pinned.is_none()
        };
        self.sessions().into_iter().filter(writable).collect()
    }

    fn sessions(&self) -> Vec<SessionId> {
        self.model.sessions.keys().copied().collect()
    }

    /// What a session is of (D19).
    fn tracks_of(&self, session: SessionId) -> Range<u32> {
        let part = self.t.session(session).and_then(|record| record.extent);
        part.map_or(0..TRACKS, |part| part.first.0..part.last(self.t.geometry()).0 + 1)
    }

    fn write(&mut self, owner: Owner, track: u32, blocks: Range<u32>) {
        let place = Place { owner, track: TrackNo(track) };
        let plan = match self.t.plan_write(place, BlockMask::range(blocks.start, blocks.end)) {
            Ok(plan) => plan,
            Err(WriteError::NoSpace(_)) => return self.commit(self.t.last_unit()),
            Err(WriteError::Gone) => panic!("{place} takes no writes"),
        };
        self.copy_blocks(&plan, plan.carry());
        for block in blocks {
            self.last_value += 1;
            self.disk.insert((plan.slot(), block), self.last_value);
            if !plan.fresh() {
                self.in_place.push((place, plan.slot(), block, self.last_value));
            }
            let at = (track * BLOCKS + block) as usize;
            match owner {
                Owner::Device(id) => self.model.devices.get_mut(&id).expect("known")[at] = self.last_value,
                Owner::Session(id) => self.model.sessions.get_mut(&id).expect("known")[at] = self.last_value,
            }
        }
        self.say(format!("write {place} up to {} in {}", self.last_value, plan.slot()));
        self.t.land_write(plan).expect("its owner is there");
        self.touch(owner, track);
    }

    fn clear(&mut self, device: DeviceId, track: u32) {
        let place = Place { owner: Owner::Device(device), track: TrackNo(track) };
        self.say(format!("clear {place}"));
        self.t.clear(place).expect("it is there");
        let at = (track * BLOCKS) as usize;
        self.model.devices.get_mut(&device).expect("known")[at..at + BLOCKS as usize].fill(0);
        self.touch(place.owner, track);
    }

    fn touch(&mut self, owner: Owner, track: u32) {
        for (id, copy) in self.t.copies() {
            if owner == Owner::Device(copy.primary) || owner == Owner::Device(copy.secondary) {
                self.model.touched.entry(id).or_default().insert(track);
            }
        }
    }

    fn touch_all(&mut self, device: DeviceId) {
        (0..TRACKS).for_each(|track| self.touch(Owner::Device(device), track));
    }

    fn pair_command(&mut self, id: CopyId, rng: &mut Rng) {
        let all = [
            PairCommand::Copy,
            PairCommand::Copy,
            PairCommand::Resync,
            PairCommand::Restore,
            PairCommand::Delete,
        ];
        let command = rng.pick(&all).expect("some");
        let keep = rng.chance(50) && self.t.sessions().count() < SESSIONS_MAX;
        let known: BTreeSet<_> = self.t.sessions().map(|(id, _)| id).collect();
        let done = match command {
            PairCommand::Copy | PairCommand::Restore => self.t.begin_local_copy(id, command, keep, 7),
            PairCommand::Resync => self.t.resync_local_pair(id),
            PairCommand::Delete if rng.chance(50) => return,
            PairCommand::Delete => self.t.delete_local_pair(id),
        };
        if done.is_err() {
            return;
        }
        self.say(format!("{id} is {command}"));
        if matches!(command, PairCommand::Copy | PairCommand::Restore) {
            let (from, to) = self.t.copy(id).map(|copy| (copy.source(), copy.target())).expect("it is there");
            self.note_new(&known);
            let content = self.model.devices[&from].clone();
            self.model.devices.insert(to, content);
            self.touch_all(to);
            self.model.touched.insert(id, BTreeSet::new());
        }
    }

    /// Sessions that the array has made itself.
    fn note_new(&mut self, known: &BTreeSet<SessionId>) {
        let new =
            self.t.sessions().filter(|(id, record)| !known.contains(id) && record.virtual_device.is_some());
        let new: Vec<_> =
            new.map(|(id, record)| (id, self.model.devices[&record.standard].clone())).collect();
        self.model.sessions.extend(new);
    }

    fn restore(&mut self, device: DeviceId, rng: &mut Rng) {
        let Some(session) = rng.pick(&self.sessions()) else { return };
        let virtuals =
            self.t.devices().filter(|(id, it)| !it.is_standard() && self.t.session_shown_by(*id).is_none());
        let free = virtuals.map(|(id, _)| id).next();
        let standard = self.t.session(session).map_or(device, |record| record.standard);
        let to = match rng.below(4) {
            0 => free.unwrap_or(device),
            1 => device,
            _ => standard,
        };
        let keep_before = rng.chance(50) && self.t.sessions().count() < SESSIONS_MAX;
        let item = RestoreItem {
            session,
            to,
            keep: rng.chance(50),
            keep_before,
            name: None,
            online: true,
            pace: Pace::Fast,
        };
        let (known, content) =
            (self.t.sessions().map(|(id, _)| id).collect(), self.model.sessions[&session].clone());
        let tracks = self.tracks_of(session);
        if let Err(error) = self.t.restore(std::slice::from_ref(&item), 9) {
            return self.say(format!("{session} not restored: {error}"));
        }
        self.say(format!("{session} is restored to {to}, {item:?}"));
        if self.t.device(to).is_some_and(|it| it.is_standard()) {
            self.note_new(&known);
            let blocks = blocks_of(&tracks);
            let device = self.model.devices.get_mut(&to).expect("known");
            device[blocks.clone()].copy_from_slice(&content[blocks]);
            tracks.for_each(|track| self.touch(Owner::Device(to), track));
        } else {
            let new = self.t.session_shown_by(to).expect("it shows one");
            self.model.sessions.insert(new, content);
        }
        self.forget_ended();
    }

    /// Of all of a device, or of a part of it.
    fn establish(&mut self, device: DeviceId, rng: &mut Rng) {
        if self.t.sessions().count() >= SESSIONS_MAX {
            return;
        }
        let first = rng.below(TRACKS as usize) as u32;
        let last = first + rng.below((TRACKS - first) as usize) as u32;
        let registered = match rng.chance(40) {
            true => self.t.register_part(device, None, TrackNo(first), TrackNo(last)),
            false => self.t.register(device, None),
        };
        let (session, _) = registered.expect("there is room");
        let (shows, _) = self.t.create_virtual(&format!("v{}", session.0)).expect("a new name");
        self.t.relate(session, shows).expect("it fits");
        self.t.activate(&[ActivateSession { session, name: None, online: true }], None, 5).expect("it fits");
        self.model.sessions.insert(session, self.model.devices[&device].clone());
        self.say(format!("{session} of {device}, tracks {:?}", self.tracks_of(session)));
    }

    fn end(&mut self, session: SessionId, remove: bool) {
        let done = if remove { self.t.remove_session(session) } else { self.t.deactivate(session) };
        if done.is_ok() {
            self.say(format!("{session} is {}", if remove { "removed" } else { "deactivated" }));
            self.model.sessions.remove(&session);
        }
    }

    /// Restored sessions go with their fills.
    fn forget_ended(&mut self) {
        let ended = |id: &SessionId| {
            self.t.session(*id).is_none_or(|record| !matches!(record.state, SessionState::Active { .. }))
        };
        let ended: Vec<_> = self.model.sessions.keys().copied().filter(ended).collect();
        ended.iter().for_each(|id| drop(self.model.sessions.remove(id)));
    }

    /// A move of a track, at times with a step of a fill in the midst of it.
    fn relocate(&mut self, id: CopyId, fills: bool) {
        if !self.t.relocating().any(|it| it == id) {
            return;
        }
        let target = self.t.copy(id).expect("it is there").target();
        match self.t.next_foreign(id, TrackNo(0)) {
            Ok(track) => {
                let place = Place { owner: Owner::Device(target), track };
                let fills_it =
                    |copy: &twintrack_core::CopyRecord| copy.target() == target && copy.fill.is_some();
                let by = self.t.copies().find(|(_, copy)| fills_it(copy)).map(|(id, _)| id);
                match self.t.plan_relocate(place) {
                    Ok(Some(plan)) => {
                        self.copy_blocks(&plan, plan.blocks());
                        self.say(format!("{place} is moved"));
                        if let Some(filling) = by.filter(|_| fills) {
                            self.t.fill_step(filling);
                            self.say(format!("{filling} filled meanwhile"));
                        }
                        self.t.land_write(plan).expect("it is there");
                    }
                    // It was still to come, and what has come lies in its pool.
                    Ok(None) => assert!(by.is_some(), "{place} lies in its pool"),
                    Err(_) => self.commit(self.t.last_unit()),
                }
            }
            Err(None) => {
                self.say(format!("{id} is over"));
                self.t.end_relocation(id);
            }
            Err(Some(_)) => {}
        }
    }

    fn merge(&mut self, device: DeviceId, track: u32) {
        let place = Place { owner: Owner::Device(device), track: TrackNo(track) };
        if let Some(plan) = self.t.plan_merge(place) {
            self.copy_blocks(&plan, plan.blocks());
            self.say(format!("merge {place}"));
            self.t.land_write(plan).expect("it is there");
        }
    }

    fn copy_blocks(&mut self, plan: &WritePlan, blocks: BlockMask) {
        for block in blocks.runs().flatten() {
            let value = self.value(plan.old().place_of(block), block);
            self.disk.insert((plan.slot(), block), value);
        }
    }

    fn value(&self, track: Option<PhysicalTrack>, block: u32) -> u64 {
        track.and_then(|track| self.disk.get(&(track, block)).copied()).unwrap_or(0)
    }

    fn commit(&mut self, upto: UnitSeq) {
        let changes = self.t.take_commit(upto);
        self.durable.apply(changes);
        self.t.committed(upto);
        let older = self.then.iter().rposition(|(unit, _)| *unit <= upto).unwrap_or(0);
        self.then.drain(..older);
    }

    /// What was written in place is there, if the track is still where it was written.
    fn power_cut(&mut self) {
        let committed = self.t.committed_unit();
        let whole = self.then.iter().rposition(|(unit, _)| *unit <= committed);
        // A step with several units may be there in part: such a cut is left to others.
        let Some((unit, model)) = whole.map(|at| self.then[at].clone()) else { return };
        if unit != committed {
            return;
        }
        self.say("power cut".into());
        self.t = load(&self.durable);
        self.model = model;
        for (place, slot, block, value) in std::mem::take(&mut self.in_place) {
            let there = self.t.entry(place).and_then(|entry| entry.place_of(block));
            let at = (place.track.0 * BLOCKS + block) as usize;
            if there == Some(slot) && self.disk.get(&(slot, block)) == Some(&value) {
                let content = match place.owner {
                    Owner::Device(id) => self.model.devices.get_mut(&id),
                    Owner::Session(id) => self.model.sessions.get_mut(&id),
                };
                if let Some(content) = content {
                    content[at] = value;
                }
                self.touch(place.owner, place.track.0);
            }
        }
        // Units count from the beginning again.
        self.then = vec![(self.t.last_unit(), self.model.clone())];
    }

    pub fn check(&mut self) -> Result<(), String> {
        self.t.audit().map_err(|error| error.to_string())?;
        self.forget_ended();
        for (id, content) in &self.model.devices {
            self.check_content(Owner::Device(*id), 0..TRACKS, content)?;
        }
        for (id, content) in &self.model.sessions {
            self.check_content(Owner::Session(*id), self.tracks_of(*id), content)?;
            self.check_changed(*id, content)?;
            self.check_differs(*id, content)?;
        }
        self.check_pools()?;
        for (id, copy) in self.t.copies().filter(|(_, copy)| copy.is_pair()) {
            let (to_copy, unequal) = self.t.copy_counts(id);
            let touched = self.model.touched.get(&id).map_or(0, BTreeSet::len) as u32;
            if unequal > touched {
                return Err(format!("{id}: {unequal} tracks are unequal, and {touched} were written"));
            }
            if copy.status != CopyStatus::Copying && to_copy > 0 {
                return Err(format!("{id} is not being copied, and {to_copy} tracks are to come"));
            }
            let (p, s) = (&self.model.devices[&copy.primary], &self.model.devices[&copy.secondary]);
            // What another copy is still to bring is noted when it comes; until then there is no copy of this pair.
            let by_another = self.t.copies().any(|(other, another)| {
                let to = another.target();
                other != id && another.fill.is_some() && (to == copy.primary || to == copy.secondary)
            });
            if by_another {
                continue;
            }
            let differ = (0..TRACKS).filter(|track| {
                let range = blocks_of(&(*track..track + 1));
                p[range.clone()] != s[range] && !self.t.is_unequal(id, TrackNo(*track))
            });
            if let Some(track) = differ.into_iter().next() {
                return Err(format!("{id}: track {track} differs, and is not noted"));
            }
        }
        Ok(())
    }

    fn check_content(&self, owner: Owner, tracks: Range<u32>, content: &Content) -> Result<(), String> {
        for track in tracks {
            let place = Place { owner, track: TrackNo(track) };
            let entry = self.t.entry(place).ok_or_else(|| format!("{place} is not there"))?;
            for block in 0..BLOCKS {
                let (has, wants) =
                    (self.value(entry.place_of(block), block), content[(track * BLOCKS + block) as usize]);
                if has != wants {
                    return Err(format!("{place} block {block} is {has}, not {wants} ({entry})"));
                }
            }
        }
        Ok(())
    }

    /// What no copy is under way to lies in its own pool.
    fn check_pools(&self) -> Result<(), String> {
        let under_way =
            |id| self.t.copies().any(|(_, copy)| copy.status == CopyStatus::Copying && copy.target() == id);
        for (place, entry) in self.t.entries() {
            let EntryPlace::Device(id, _) = place else { continue };
            let Some(DeviceKind::Standard { pool, .. }) = self.t.device(id).map(|device| device.kind) else {
                continue;
            };
            let foreign = entry.tracks().find(|track| {
                let store = self.t.locate(*track).map(|(store, _)| store);
                store.and_then(|store| self.t.store(store)).map(|store| store.pool) != Some(pool)
            });
            if let Some(track) = foreign.filter(|_| !under_way(id)) {
                return Err(format!("{place} lies in another pool, in {track}, and no copy is under way"));
            }
        }
        Ok(())
    }

    /// A change report misses nothing (D15).
    fn check_changed(&self, id: SessionId, content: &Content) -> Result<(), String> {
        let standard = self.t.session(id).expect("it is there").standard;
        let (changed, _) = self.t.changed(id, TrackNo(0), 99).map_err(|error| error.to_string())?;
        let tracks = self.tracks_of(id);
        if let Some(other) = changed.iter().find(|track| !tracks.contains(&track.0)) {
            return Err(format!("{id} tells of {other}, which is none of its own"));
        }
        for track in tracks {
            let range = blocks_of(&(track..track + 1));
            let differs = content[range.clone()] != self.model.devices[&standard][range];
            if differs && !changed.contains(&TrackNo(track)) {
                return Err(format!("{id} does not tell that track {track} changed"));
            }
        }
        Ok(())
    }

    /// What differs from the device, and from any other session of it, is told, also while tracks are still to come (F7).
    fn check_differs(&self, id: SessionId, content: &Content) -> Result<(), String> {
        let a = Moment::Session(id);
        let standard = self.t.session(id).expect("it is there").standard;
        let sessions = self.model.sessions.iter().map(|(id, content)| (Moment::Session(*id), content));
        for (b, other) in sessions.chain([(Moment::Now(standard), &self.model.devices[&standard])]) {
            let Ok(comparison) = self.t.compare(a, b) else { continue };
            let tracks = match b {
                Moment::Session(other) if self.t.part_of(a).is_none() => self.tracks_of(other),
                _ => self.tracks_of(id),
            };
            let (mut at, mut told) = (0, BTreeSet::new());
            while let Look::Differs(range) = comparison.next(at, &mut 99) {
                let block = u64::from(TRACK_BYTES / BLOCKS);
                told.extend((range.start / block) as usize..range.end.div_ceil(block) as usize);
                at = range.end;
            }
            let mut compared = blocks_of(&tracks);
            if let Some(beyond) = told.iter().find(|block| !compared.contains(block)) {
                return Err(format!("{a:?} and {b:?}: block {beyond} is not compared, and is told"));
            }
            let missed = compared.find(|n| content[*n] != other[*n] && !told.contains(n));
            if let Some(block) = missed {
                return Err(format!("{a:?} and {b:?} differ in block {block}, which is not told"));
            }
        }
        Ok(())
    }

    /// When all is gone, nothing is left.
    pub fn wind_up(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            while let Some(id) = self.t.next_filling() {
                self.t.fill_step(id);
            }
            let copies: Vec<_> = self.t.copies().map(|(id, copy)| (id, copy.is_pair())).collect();
            for (id, pair) in copies {
                if pair { drop(self.t.delete_local_pair(id)) } else { self.relocate(id, false) }
            }
            self.commit(self.t.last_unit());
        }
        self.check()?;
        let sessions: Vec<_> = self.t.sessions().map(|(id, _)| id).collect();
        sessions.into_iter().for_each(|id| drop(self.t.remove_session(id)));
        while self.t.has_reclaim() {
            self.t.reclaim();
        }
        let devices: Vec<_> = self.t.devices().map(|(id, _)| id).collect();
        devices.into_iter().for_each(|id| drop(self.t.delete_device(id)));
        while self.t.has_reclaim() {
            self.t.reclaim();
        }
        self.commit(self.t.last_unit());
        if !self.durable.is_bare() || self.t.used_tracks() > 0 {
            return Err(format!("something is left: {:?}", self.durable));
        }
        Ok(())
    }
}

fn blocks_of(tracks: &Range<u32>) -> Range<usize> {
    (tracks.start * BLOCKS) as usize..(tracks.end * BLOCKS) as usize
}

fn load(durable: &Durable) -> Tables {
    Tables::load(Geometry::new(TRACK_BYTES).expect("legal"), durable.changes()).expect("it fits together")
}
