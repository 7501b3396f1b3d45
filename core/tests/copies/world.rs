//! The tables, a disk that keeps the sectors of physical tracks, and the model beside them.

use std::collections::BTreeMap;
use std::ops::Range;

use twintrack_core::{
    BLOCK_BYTES, BlockMask, Change, CommandError, DeviceId, Entry, Geometry, Owner, PhysicalTrack, Place,
    PoolId, SECTOR_BYTES, SessionId, SessionState, StoreId, Tables, TrackNo, UnitSeq,
};

use crate::common::{Durable, formatted};
use crate::model::{Model, State, sectors};

pub const POOL: PoolId = PoolId(0);
pub const SECTORS_PER_BLOCK: usize = (BLOCK_BYTES / SECTOR_BYTES) as usize;

/// See the module.
pub struct World {
    pub geometry: Geometry,
    pub tables: Tables,
    pub model: Model,
    pub durable: Durable,
    /// All that was ever made durable, in order.
    pub journal: Vec<Change>,
    disk: BTreeMap<PhysicalTrack, Vec<u32>>,
    pub discards: Vec<(StoreId, u32, u32)>,
    pub last_value: u32,
}

impl World {
    pub fn new(geometry: Geometry, stores: &[u32]) -> Self {
        let durable = formatted(stores);
        let journal = durable.changes();
        let tables = Tables::load(geometry, journal.iter().cloned()).expect("a formatted array loads");
        let (model, disk, discards) = Default::default();
        Self { geometry, tables, model, durable, journal, disk, discards, last_value: 0 }
    }

    pub fn sectors_per_track(&self) -> usize {
        (self.geometry.track_bytes() / SECTOR_BYTES) as usize
    }

    pub fn tracks(&self, size_bytes: u64) -> usize {
        self.geometry.tracks(size_bytes) as usize
    }

    // The disk.

    /// What a track that is new to its owner holds: nobody knows.
    pub fn junk(&mut self, track: PhysicalTrack) {
        self.last_value += 1;
        self.disk.insert(track, vec![0x8000_0000 | self.last_value; self.sectors_per_track()]);
    }

    fn block(&self, track: Option<PhysicalTrack>, block: u32) -> &[u32] {
        const ZEROS: &[u32] = &[0; SECTORS_PER_BLOCK];
        let at = block as usize * SECTORS_PER_BLOCK;
        track.map_or(ZEROS, |track| &self.disk[&track][at..at + SECTORS_PER_BLOCK])
    }

    fn put_block(&mut self, track: PhysicalTrack, block: u32, content: &[u32]) {
        let at = block as usize * SECTORS_PER_BLOCK;
        let track = self.disk.get_mut(&track).expect("a track that is written was allocated");
        track[at..at + SECTORS_PER_BLOCK].copy_from_slice(content);
    }

    /// Writes sectors of one track, as the firmware does: whole blocks, and parts of a block where it is in place.
    /// `false`: no space.
    pub fn write_part(
        &mut self,
        place: Place,
        from: usize,
        count: usize,
        value: u32,
    ) -> Result<bool, String> {
        let blocks = BlockMask::touched(from as u32 * SECTOR_BYTES, count as u32 * SECTOR_BYTES);
        let Ok(plan) = self.tables.plan_write(place, blocks) else { return Ok(false) };
        let (slot, old) = (plan.slot(), plan.old());
        if plan.fresh() {
            if self.tables.audit().is_err() {
                return Err("the tables do not agree while a write is in flight".into());
            }
            self.junk(slot);
        }
        for block in plan.carry().runs().flatten() {
            let content = self.block(old.over.map(|over| over.track), block).to_vec();
            self.put_block(slot, block, &content);
        }
        for block in blocks.runs().flatten() {
            let first = block as usize * SECTORS_PER_BLOCK;
            let (low, high) =
                (from.max(first) - first, (from + count).min(first + SECTORS_PER_BLOCK) - first);
            // The rest of a block written in part is where the present content is; in place that is here.
            let rest = if plan.in_place(block) { Some(slot) } else { old.place_of(block) };
            let mut content = self.block(rest, block).to_vec();
            content[low..high].fill(value);
            self.put_block(slot, block, &content);
        }
        self.tables.land_write(plan).map_err(|error| format!("{place} does not land: {error:?}"))?;
        Ok(true)
    }

    /// Completes an overlay, if it can be.
    pub fn merge(&mut self, place: Place) -> Result<(), String> {
        let Some(plan) = self.tables.plan_merge(place) else { return Ok(()) };
        for block in plan.blocks().runs().flatten() {
            let content = self.block(plan.old().base, block).to_vec();
            self.put_block(plan.slot(), block, &content);
        }
        let landed =
            self.tables.land_write(plan).map_err(|error| format!("{place} does not merge: {error:?}"))?;
        match self.tables.entry(place) {
            Some(Entry { base: Some(_), over: None }) if landed.is_some() => Ok(()),
            entry => Err(format!("{place} is {entry:?} after its merge")),
        }
    }

    // What is durable.

    pub fn commit(&mut self, upto: UnitSeq) {
        let changes = self.tables.take_commit(upto);
        self.journal.extend(changes.iter().cloned());
        self.durable.apply(changes);
        self.tables.committed(upto);
    }

    /// Commits all, and loads from what is durable: alternately the latest of each thing, and all changes in order.
    pub fn restart(&mut self) -> Result<(), String> {
        self.commit(self.tables.last_unit());
        let journal = Tables::load(self.geometry, self.journal.iter().cloned());
        let latest = Tables::load(self.geometry, self.durable.changes());
        let journal = journal.map_err(|error| format!("the journal does not load: {error}"))?;
        let latest = latest.map_err(|error| format!("the durable tables do not load: {error}"))?;
        self.last_value += 1;
        self.tables = if self.last_value.is_multiple_of(2) { journal } else { latest };
        self.discards.clear();
        Ok(())
    }

    // What must hold.

    pub fn check(&self) -> Result<(), String> {
        self.tables.audit().map_err(|error| error.to_string())?;
        self.check_records()?;
        let mut data_tracks = 0;
        for (id, device) in self.model.devices.iter().filter(|(_, device)| device.standard) {
            let (owner, mut overlaid) = (Owner::Device(*id), Vec::new());
            for track in 0..self.tracks(device.size_bytes) as u32 {
                let entry = self.check_track(owner, track, &device.image)?;
                data_tracks += entry.tracks().count() as u64;
                overlaid.extend(entry.over.map(|_| track));
            }
            let (mut told, mut from) = (Vec::new(), 0);
            while let Some(track) = self.tables.next_overlaid(*id, TrackNo(from)) {
                told.push(track.0);
                from = track.0 + 1;
            }
            if told != overlaid {
                return Err(format!("{id} has overlays on {overlaid:?}, told are {told:?}"));
            }
        }
        if !self.tables.devices().any(|(_, record)| record.is_deleting())
            && data_tracks != self.tables.data_tracks(POOL)
        {
            return Err(format!("{data_tracks} tracks of data, told are {}", self.tables.data_tracks(POOL)));
        }
        self.model.sessions.iter().try_for_each(|(id, _)| self.check_session(*id))?;
        self.check_differences()
    }

    fn check_track(&self, owner: Owner, track: u32, image: &crate::model::Image) -> Result<Entry, String> {
        let place = Place { owner, track: TrackNo(track) };
        let entry = self.tables.entry(place).ok_or_else(|| format!("{place} has no entry"))?;
        if entry.is_zeros() == image.allocated[track as usize] {
            return Err(format!("{place} is {entry}, and the model says otherwise"));
        }
        let first = track as usize * self.sectors_per_track();
        for block in 0..self.geometry.blocks() {
            let at = first + block as usize * SECTORS_PER_BLOCK;
            let (found, wanted) =
                (self.block(entry.place_of(block), block), &image.sectors[at..at + SECTORS_PER_BLOCK]);
            if found != wanted {
                return Err(format!("{place} block {block} of {entry} is {found:x?}, not {wanted:x?}"));
            }
        }
        Ok(entry)
    }

    fn check_session(&self, id: SessionId) -> Result<(), String> {
        let session = &self.model.sessions[&id];
        let tracks = session.image.allocated.len() as u32;
        let told = self.tables.changed(id, TrackNo(0), usize::MAX);
        if !session.state.is_point() {
            let shown = (0..8).find(|track| {
                self.tables.entry(Place { owner: Owner::Session(id), track: TrackNo(*track) }).is_some()
            });
            return match (told, shown) {
                (Err(CommandError::SessionState { .. }), None) => Ok(()),
                (told, shown) => Err(format!("{id} is no point in time, tells {told:?} and shows {shown:?}")),
            };
        }
        let (told, more) = told.map_err(|error| error.to_string())?;
        if more.is_some() || !told.iter().map(|track| track.0).eq(session.changed.iter().copied()) {
            return Err(format!("{id} tells changes {told:?}, not {:?}", session.changed));
        }
        for track in 0..tracks {
            let owner = Owner::Session(id);
            if session.shows(track) && (session.state == State::Active || session.changed.contains(&track)) {
                self.check_track(owner, track, &session.image)?;
            } else if self.tables.entry(Place { owner, track: TrackNo(track) }).is_some() {
                return Err(format!("{id} shows {track}, which did not change, or is not its own"));
            }
        }
        Ok(())
    }

    fn check_records(&self) -> Result<(), String> {
        let live = self.tables.devices().filter(|(_, record)| !record.is_deleting());
        let devices: Vec<_> =
            live.map(|(id, r)| (id, r.name.clone(), r.is_standard(), r.size_bytes, r.online)).collect();
        let wanted: Vec<_> = self
            .model
            .devices
            .iter()
            .map(|(id, d)| (*id, d.name.clone(), d.standard, d.size_bytes, d.online))
            .collect();
        if devices != wanted {
            return Err(format!("the devices are {devices:?}, not {wanted:?}"));
        }
        let live = self.tables.sessions().filter(|(_, record)| record.state != SessionState::Removing);
        let sessions: Vec<_> = live
            .map(|(id, r)| (id, r.standard, r.virtual_device, r.state.group(), r.state.to_string()))
            .collect();
        let wanted: Vec<_> = self
            .model
            .sessions
            .iter()
            .map(|(id, s)| (*id, s.standard, s.shown_by, s.group, s.state.name().to_owned()))
            .collect();
        if sessions != wanted {
            return Err(format!("the sessions are {sessions:?}, not {wanted:?}"));
        }
        if !self.tables.groups().eq(self.model.groups.iter().copied()) {
            return Err(format!("the groups are {:?}", self.tables.groups().collect::<Vec<_>>()));
        }
        let shown = |id: &DeviceId| self.tables.session_shown_by(*id) == self.model.session_of(*id);
        self.model.devices.keys().all(shown).then_some(()).ok_or_else(|| "who shows what is wrong".into())
    }

    // The end.

    /// Commits and reclaims until there is nothing to do.
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..1000 {
            self.commit(self.tables.last_unit());
            if !self.tables.has_reclaim() && self.tables.uncommitted_units() == 0 {
                return Ok(());
            }
            self.tables.reclaim();
        }
        Err("reclaiming does not end".into())
    }

    /// Out of log space: the oldest session fails of those that would free something; if none would, one that needs
    /// tracks together with others; if there is none of these either, none.
    pub fn check_victim(&mut self) -> Result<(), String> {
        // After a restart all versions are looked at: those of tracks that a session has of its own by now go.
        self.restart()?;
        self.settle()?;
        let points: Vec<_> = self.model.sessions.iter().filter(|(_, s)| s.state.is_point()).collect();
        let mut by_age: Vec<_> =
            points.iter().map(|(id, _)| (self.tables.session(**id).map(|r| r.activated_ms), **id)).collect();
        by_age.sort();
        let by_age: Vec<_> = by_age.into_iter().map(|(_, id)| id).collect();
        let frees = |ids: &[SessionId]| self.used_without(ids).map(|used| used < self.tables.used_tracks());
        let mut wanted = None;
        for id in &by_age {
            if frees(&[*id])? {
                wanted = Some(*id);
                break;
            }
        }
        let found = self.tables.oldest_failable(POOL);
        let well = match (wanted, found) {
            (Some(wanted), found) => found == Some(wanted),
            (None, Some(found)) => by_age.contains(&found),
            (None, None) => !frees(&by_age)?,
        };
        if well { Ok(()) } else { Err(format!("{found:?} would fail, where {wanted:?} should")) }
    }

    /// Tracks that would be in use had these sessions failed.
    fn used_without(&self, sessions: &[SessionId]) -> Result<u64, String> {
        let tables =
            Tables::load(self.geometry, self.durable.changes()).map_err(|error| error.to_string())?;
        let (model, disk, discards) = Default::default();
        let (durable, journal) = (self.durable.clone(), Vec::new());
        let mut other =
            Self { geometry: self.geometry, tables, model, durable, journal, disk, discards, last_value: 0 };
        for session in sessions {
            other.tables.fail_session(*session).map_err(|error| error.to_string())?;
        }
        other.settle()?;
        Ok(other.tables.used_tracks())
    }

    /// Removes everything: nothing is left.
    pub fn wind_up(&mut self) -> Result<(), String> {
        for discard in std::mem::take(&mut self.discards) {
            self.tables.discarded(discard.0, discard.1, discard.2);
        }
        for (id, _) in std::mem::take(&mut self.model.sessions) {
            self.tables.remove_session(id).map_err(|error| error.to_string())?;
        }
        for group in std::mem::take(&mut self.model.groups) {
            self.tables.close_group(group).map_err(|error| error.to_string())?;
        }
        self.settle()?;
        self.check()?;
        // Without sessions, what is used is what the devices refer to.
        let data = self.tables.data_tracks(POOL);
        if self.tables.used_tracks() != data {
            return Err(format!("{} tracks are used, {data} hold data", self.tables.used_tracks()));
        }
        for (id, _) in std::mem::take(&mut self.model.devices) {
            self.tables.delete_device(id).map_err(|error| error.to_string())?;
        }
        self.settle()?;
        let space = self.tables.pool_space(POOL);
        if self.tables.used_tracks() > 0 || space.free != space.tracks || !self.durable.is_bare() {
            return Err(format!("{space:?} is left of everything, and {:?}", self.durable));
        }
        self.restart()?;
        self.check()
    }

    /// Sectors that a device or session may be written at; `None`: it takes no writes.
    pub fn writable(&self, owner: Owner) -> Option<Range<usize>> {
        let size_bytes = match owner {
            Owner::Device(id) => self.model.devices.get(&id).filter(|device| device.standard)?.size_bytes,
            Owner::Session(id) => {
                let session = self.model.sessions.get(&id).filter(|it| it.state == State::Active)?;
                if let Some(part) = session.part {
                    let first = part.first as usize * self.sectors_per_track();
                    return Some(first..first + sectors(part.size_bytes));
                }
                session.size_bytes
            }
        };
        Some(0..sectors(size_bytes))
    }
}
