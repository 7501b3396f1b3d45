//! Everything an array knows about its tracks, and how it changes: by units, in memory first, durably later.

use std::collections::{BTreeMap, BTreeSet};

use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::extent::Live;
use crate::geometry::Geometry;
use crate::ids::{
    CopyId, DeviceId, Generation, GroupId, Owner, PairId, PeerId, PhysicalTrack, Place, PoolId, ScheduleId,
    SessionId, StoreId, TrackNo, UnitSeq,
};
use crate::local::{Copy, ScheduleRecord};
use crate::pair::Pair;
use crate::records::{
    Change, DeviceKind, DeviceRecord, Pinned, PoolRecord, SessionRecord, SessionState, StoreRecord,
};
use crate::remote::{PeerRecord, SagaOutcome};
use crate::space::{PoolSpace, Space};
use crate::table::TrackTable;
use crate::unit::UnitLog;

/// The tables of one array.
///
/// # How to use it
/// Build it by [`Tables::load`] from what is durable. Host I/O asks where to read ([`Tables::entry`], with
/// [`Tables::pin`] around the read) and where to write ([`Tables::plan_write`], then [`Tables::land_write`] when the
/// disk has the blocks, or [`Tables::abandon_write`]). Commands are methods that check, change everything in one
/// unit, and return its number. Nothing is durable until the caller has done, in this order:
///
/// 1. noted [`Tables::last_unit`], 2. synced every store, 3. made durable what [`Tables::take_commit`] gives for that
///    number, 4. told so by [`Tables::committed`].
///
/// The caller orders what overlaps (crash rule 7): no trim, merge or activation while a write to the same track is
/// between its plan and its landing, and no two such writes to the same blocks, or where one of them is
/// [`fresh`](crate::WritePlan::fresh).
#[derive(Debug)]
pub struct Tables {
    pub(crate) geometry: Geometry,
    pub(crate) space: Space,
    pub(crate) pools: BTreeMap<PoolId, PoolRecord>,
    pub(crate) stores: BTreeMap<StoreId, StoreRecord>,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) groups: BTreeSet<GroupId>,
    /// The sessions that wait in a group.
    pub(crate) waiting: BTreeMap<GroupId, BTreeSet<SessionId>>,
    pub(crate) next_id: u32,
    pub(crate) log: UnitLog,
    /// Fresh physical tracks of writes between plan and landing: counted once, by the write.
    pub(crate) flying: BTreeSet<PhysicalTrack>,
    /// Sessions with own tracks to give back: those being removed, and failed ones.
    pub(crate) ended: BTreeSet<SessionId>,
    /// Devices with versions to look at or stamps to give back, or being deleted.
    pub(crate) reclaiming: BTreeSet<DeviceId>,
    /// Which session a virtual device shows, or which ones, each a part of it, in their order.
    pub(crate) shown: BTreeMap<DeviceId, Vec<SessionId>>,
    /// This array's: names the generations that it begins.
    pub(crate) serial: u64,
    pub(crate) peers: BTreeMap<PeerId, PeerRecord>,
    pub(crate) pairs: BTreeMap<PairId, Pair>,
    /// The pair of a device, but for those being undone.
    pub(crate) paired: BTreeMap<DeviceId, PairId>,
    /// The pairs whose halves here are being put back.
    pub(crate) returning: BTreeSet<PairId>,
    pub(crate) sagas: BTreeMap<u64, SagaOutcome>,
    /// Copies within the array.
    pub(crate) copies: BTreeMap<CopyId, Copy>,
    /// The copies that a device has part in.
    pub(crate) copies_of: BTreeMap<DeviceId, BTreeSet<CopyId>>,
    /// The copy by which tracks of a device are still to come.
    pub(crate) filling: BTreeMap<DeviceId, CopyId>,
    /// Schedules of copies.
    pub(crate) schedules: BTreeMap<ScheduleId, ScheduleRecord>,
    /// Tracks of pairs that a unit made unequal which is not committed: after a crash they are equal again, so nothing of them
    /// is written in place.
    pub(crate) undurable: BTreeMap<(CopyId, TrackNo), UnitSeq>,
    /// The unit that ended a pair of a device: until it is committed, the pair counts (crash rule 3a).
    pub(crate) unpaired: BTreeMap<DeviceId, UnitSeq>,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) record: DeviceRecord,
    pub(crate) table: TrackTable,
    /// The entry that sessions activated at or before the generation, and after that of the version before, see.
    pub(crate) versions: BTreeMap<(TrackNo, Generation), Entry>,
    /// Activations of sessions that are active, or would be again after a crash (crash rule 3a).
    pub(crate) live: BTreeMap<Generation, Live>,
    /// Sessions on this standard device, in whatever state.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// Those that are a point in time, by activation.
    pub(crate) points: BTreeSet<(Generation, SessionId)>,
    /// Those of them that are pinned.
    pub(crate) pinned: BTreeSet<(Generation, SessionId)>,
    /// Versions before this track were looked at since a session last ended; `None`: there is nothing to collect.
    pub(crate) collect: Option<TrackNo>,
    /// Stamps of tracks before this one were given back since the last session ended; `None`: there are none to give back.
    pub(crate) shrink: Option<TrackNo>,
    /// Of a device being deleted: tracks before this one have been given back.
    pub(crate) deleted: TrackNo,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) record: SessionRecord,
    pub(crate) own: BTreeMap<TrackNo, Entry>,
}

impl Tables {
    /// The array's track size.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The pools.
    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &PoolRecord)> {
        self.pools.iter().map(|(id, record)| (*id, record))
    }

    /// The stores.
    pub fn stores(&self) -> impl Iterator<Item = (StoreId, &StoreRecord)> {
        self.stores.iter().map(|(id, record)| (*id, record))
    }

    /// One store.
    pub fn store(&self, id: StoreId) -> Option<&StoreRecord> {
        self.stores.get(&id)
    }

    /// Space of a pool.
    pub fn pool_space(&self, pool: PoolId) -> PoolSpace {
        self.space.pool_space(pool)
    }

    /// Physical tracks that the present content of a pool's standard devices takes.
    pub fn data_tracks(&self, pool: PoolId) -> u64 {
        let of_pool = self.devices.values().filter(|device| device.pool() == Some(pool));
        of_pool.map(|device| device.table.references()).sum()
    }

    /// The devices, by number.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, &DeviceRecord)> {
        self.devices.iter().map(|(id, device)| (*id, &device.record))
    }

    /// One device.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceRecord> {
        self.devices.get(&id).map(|device| &device.record)
    }

    /// The device of that name; not one that is being deleted.
    pub fn device_named(&self, name: &str) -> Option<(DeviceId, &DeviceRecord)> {
        self.devices().find(|(_, record)| record.name == name && !record.is_deleting())
    }

    /// The sessions, by number.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionRecord)> {
        self.sessions.iter().map(|(id, session)| (*id, &session.record))
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&SessionRecord> {
        self.sessions.get(&id).map(|session| &session.record)
    }

    /// Sessions on a standard device, in whatever state.
    pub fn sessions_of(&self, device: DeviceId) -> impl Iterator<Item = SessionId> {
        self.devices.get(&device).into_iter().flat_map(|device| device.sessions.iter().copied())
    }

    /// Whether a session is a point in time of two arrays that is not decided: nobody reads it.
    pub fn is_undecided(&self, id: SessionId) -> bool {
        self.session(id).is_some_and(|record| matches!(record.pinned, Some(Pinned::Undecided(_))))
    }

    /// Whether a session of a device is pinned: what it keeps takes room until a person or the array removes it.
    pub fn has_pinned(&self, device: DeviceId) -> bool {
        self.devices.get(&device).is_some_and(|device| !device.pinned.is_empty())
    }

    /// The session that a virtual device shows; the first one, if several make it up ([`Self::sessions_shown_by`]).
    pub fn session_shown_by(&self, device: DeviceId) -> Option<SessionId> {
        self.sessions_shown_by(device).first().copied()
    }

    /// The open groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().copied()
    }

    /// Where the content of a track lies. For a session: its own track, else the first version at or after its
    /// activation and not after its end, else the standard device. `None`: a deactivated session has no such track,
    /// or there is no such table.
    pub fn entry(&self, place: Place) -> Option<Entry> {
        match place.owner {
            Owner::Device(id) => self.present(id, place.track),
            Owner::Session(id) => {
                let session = self.sessions.get(&id)?;
                if session.record.extent.is_some_and(|extent| !extent.covers(self.geometry, place.track)) {
                    return None;
                }
                match self.kept(id, place.track) {
                    Some(entry) => Some(entry),
                    None => match session.record.state {
                        SessionState::Active { activated } => {
                            self.present_since(session.record.standard, place.track, activated)
                        }
                        _ => None,
                    },
                }
            }
        }
    }

    /// The entry that a session has of its own or kept for it; `None`: it has none, and sees the standard device's if
    /// it is active.
    pub fn kept(&self, id: SessionId, track: TrackNo) -> Option<Entry> {
        let session = self.sessions.get(&id)?;
        // A session that failed or is being removed has own tracks until they are given back, and shows none of them.
        let (activated, until) = session.record.state.window()?;
        // The standard device may have grown since; the virtual device has not.
        let shown = session.record.virtual_device.and_then(|shows| self.device(shows));
        let inside = match session.record.extent {
            Some(extent) => extent.covers(self.geometry, track),
            None => shown.is_none_or(|shown| track.0 < self.geometry.tracks(shown.size_bytes)),
        };
        if !inside {
            return None;
        }
        if let Some(own) = session.own.get(&track) {
            return Some(*own);
        }
        let device = self.devices.get(&session.record.standard)?;
        let ((_, upto), entry) =
            device.versions.range((track, activated)..=(track, Generation(u32::MAX))).next()?;
        let seen = until.is_none_or(|until| *upto <= until) || planted(Defect::WindowEndIgnored);
        seen.then_some(*entry)
    }

    /// The first track of a standard device with an overlay, from `from` on: what [`Self::plan_merge`] is for.
    pub fn next_overlaid(&self, device: DeviceId, from: TrackNo) -> Option<TrackNo> {
        self.devices.get(&device)?.table.next_overlaid(from)
    }

    /// Where a physical track lies: its store, and its place among the tracks of that store.
    pub fn locate(&self, track: PhysicalTrack) -> Option<(StoreId, u32)> {
        self.space.locate(track)
    }

    /// A read begins on the tracks of an entry (crash rule 7).
    pub fn pin(&mut self, owner: Owner, entry: Entry) {
        if !planted(Defect::ReadUnpinned) {
            entry.tracks().for_each(|track| self.space.pin(track, owner));
        }
    }

    /// That read has ended.
    pub fn unpin(&mut self, owner: Owner, entry: Entry) {
        if !planted(Defect::ReadUnpinned) {
            entry.tracks().for_each(|track| self.space.unpin(track, owner));
        }
    }

    /// The last unit made: what a sync that begins now will cover.
    pub fn last_unit(&self) -> UnitSeq {
        self.log.last()
    }

    /// Every unit up to this one is durable.
    pub fn committed_unit(&self) -> UnitSeq {
        self.log.committed()
    }

    /// Units that no commit has taken.
    pub fn uncommitted_units(&self) -> usize {
        self.log.waiting()
    }

    /// Whether a commit would free physical tracks.
    pub fn owes_space(&self) -> bool {
        self.space.owes()
    }

    /// How far a commit goes that is to carry units up to `upto`, at least one, and no more changes than `most` unless that
    /// one has.
    pub fn last_fitting(&self, upto: UnitSeq, most: usize) -> UnitSeq {
        self.log.last_fitting(upto, most)
    }

    /// Takes the changes of the units up to `upto`, to be made durable together. A sync that began when `upto` was
    /// made, or later, must have ended well; the next call may come before this commit has ended, but the commits
    /// must become durable in order.
    pub fn take_commit(&mut self, upto: UnitSeq) -> Vec<Change> {
        self.log.take(upto)
    }

    /// The units up to `upto` are durable: what they dropped is free, what they ended no longer protects.
    pub fn committed(&mut self, upto: UnitSeq) {
        let (tracks, lapsed) = self.log.settle(upto);
        self.unpaired.retain(|_, unit| *unit > upto);
        self.undurable.retain(|_, unit| *unit > upto);
        for track in tracks {
            self.space.settle_owed(track);
        }
        for (device, activated) in lapsed {
            self.end_live(device, activated);
            // What was kept only in case a crash brought the session back.
            self.collect_anew(device);
        }
    }

    /// Takes up to `most` adjacent free physical tracks out of use, for their room to be given back to the store:
    /// the store, the place of the first, how many. End with [`Self::discarded`].
    pub fn take_discardable(&mut self, most: u32) -> Option<(StoreId, u32, u32)> {
        self.space.take_discardable(most)
    }

    /// What [`Self::take_discardable`] gave is free again.
    pub fn discarded(&mut self, store: StoreId, start: u32, count: u32) {
        self.space.discarded(store, start, count);
    }

    /// Changes the tables and logs the unit. `lapses`: activations whose protection it ends.
    pub(crate) fn put(&mut self, changes: Vec<Change>, lapses: &[(DeviceId, Generation)]) -> UnitSeq {
        let seq = if planted(Defect::UnitTorn) && changes.len() > 1 {
            self.log.next().next()
        } else {
            self.log.next()
        };
        for change in &changes {
            let new = change_entry(change);
            if let Some(old) = self.apply(change.clone()) {
                // What the same place still refers to is not dropped: it goes on in place.
                let mut kept: Vec<_> = new.iter().flat_map(|entry| entry.tracks()).collect();
                for track in old.tracks() {
                    match kept.iter().position(|t| *t == track) {
                        Some(at) => {
                            kept.swap_remove(at);
                            self.space.release(track);
                        }
                        None => {
                            self.space.owe(track);
                            self.log.owe(seq, track);
                        }
                    }
                }
            }
        }
        for (device, activated) in lapses {
            if planted(Defect::LapseForgotten) {
                self.end_live(*device, *activated);
            } else {
                self.log.lapse(seq, *device, *activated);
            }
        }
        self.log.push(changes)
    }

    /// Changes the tables, holding what is referred to from now on; returns the entry that was replaced, whose
    /// references still count.
    pub(crate) fn apply(&mut self, change: Change) -> Option<Entry> {
        if let Some(entry) = change_entry(&change) {
            entry.tracks().for_each(|track| {
                self.space.hold(track);
            });
        }
        match change {
            Change::Pool(id, record) => {
                self.pools.insert(id, record);
            }
            Change::Store(id, record) => {
                self.space.add_store(id, &record);
                self.stores.insert(id, record);
            }
            Change::NextId(next) => self.next_id = next,
            Change::Device(id, Some(record)) => {
                if record.is_deleting() {
                    self.reclaiming.insert(id);
                }
                match self.devices.get_mut(&id) {
                    Some(device) => device.record = record,
                    None => {
                        self.devices.insert(id, Device::new(record));
                    }
                }
            }
            Change::Device(id, None) => {
                self.devices.remove(&id);
                self.reclaiming.remove(&id);
            }
            Change::Session(id, record) => self.apply_session(id, record),
            Change::Group(id, true) => {
                self.groups.insert(id);
            }
            Change::Group(id, false) => {
                self.groups.remove(&id);
            }
            Change::Entry(id, track, entry) => {
                return self.devices.get_mut(&id).map(|device| device.table.set(track, entry));
            }
            Change::Version(id, track, upto, entry) => {
                let versions = &mut self.devices.get_mut(&id)?.versions;
                return match entry {
                    Some(entry) => versions.insert((track, upto), entry),
                    None => versions.remove(&(track, upto)),
                };
            }
            Change::Own(id, track, entry) => {
                let own = &mut self.sessions.get_mut(&id)?.own;
                return match entry {
                    Some(entry) => own.insert(track, entry),
                    None => own.remove(&track),
                };
            }
            Change::Peer(..)
            | Change::Pair(..)
            | Change::Owed(..)
            | Change::Lacked(..)
            | Change::Dirty(..)
            | Change::Saga(..) => self.apply_remote(change),
            Change::Copy(id, record) => self.apply_copy(id, record),
            Change::Schedule(id, Some(record)) => drop(self.schedules.insert(id, record)),
            Change::Schedule(id, None) => drop(self.schedules.remove(&id)),
            Change::ToCopy(id, region, word) => {
                if let Some(copy) = self.copies.get_mut(&id) {
                    copy.to_copy.apply(region, word);
                }
            }
            Change::Unequal(id, region, word) => {
                if let Some(copy) = self.copies.get_mut(&id) {
                    copy.unequal.apply(region, word);
                }
            }
        }
        None
    }

    fn apply_session(&mut self, id: SessionId, record: Option<SessionRecord>) {
        if let Some(shows) = self.sessions.get(&id).and_then(|session| session.record.virtual_device)
            && let Some(parts) = self.shown.get_mut(&shows)
        {
            parts.retain(|part| *part != id);
            if parts.is_empty() {
                self.shown.remove(&shows);
            }
        }
        if let Some(record) = &record
            && let Some(shows) = record.virtual_device
        {
            let at = |id: &SessionId| self.sessions.get(id).and_then(|part| Some(part.record.extent?.at));
            let parts = self.shown.entry(shows).or_default();
            let before = parts.partition_point(|part| at(part) < record.extent.map(|extent| extent.at));
            parts.insert(before, id);
        }
        let before = self.sessions.get(&id).map(|session| (session.record.standard, session.record.state));
        if let Some(group) = before.and_then(|(_, state)| state.group())
            && let Some(waiting) = self.waiting.get_mut(&group)
        {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.waiting.remove(&group);
            }
        }
        if let Some(group) = record.as_ref().and_then(|record| record.state.group()) {
            self.waiting.entry(group).or_default().insert(id);
        }
        let window = |state: SessionState| state.window().map(|(activated, _)| activated);
        if let Some((standard, state)) = before
            && let Some(device) = self.devices.get_mut(&standard)
        {
            device.sessions.remove(&id);
            if let Some(activated) = window(state) {
                device.points.remove(&(activated, id));
                device.pinned.remove(&(activated, id));
            }
        }
        let ended = |state| matches!(state, SessionState::Failed | SessionState::Removing);
        match &record {
            Some(record) if ended(record.state) => self.ended.insert(id),
            _ => self.ended.remove(&id),
        };
        let Some(record) = record else {
            self.sessions.remove(&id);
            return;
        };
        if let Some(device) = self.devices.get_mut(&record.standard) {
            device.sessions.insert(id);
            if let Some(activated) = window(record.state) {
                device.points.insert((activated, id));
                if record.pinned.is_some() {
                    device.pinned.insert((activated, id));
                }
            }
            let was_active = matches!(before, Some((_, SessionState::Active { .. })));
            if let SessionState::Active { activated } = record.state
                && !was_active
            {
                // Its end is noted when the unit that ends it is committed: `end_live`.
                device.live.entry(activated).or_default().begin(&record);
            }
        }
        match self.sessions.get_mut(&id) {
            Some(session) => session.record = record,
            None => {
                self.sessions.insert(id, Session { record, own: BTreeMap::new() });
            }
        }
    }

    pub(crate) fn end_live(&mut self, id: DeviceId, activated: Generation) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.live.get_mut(&activated).is_some_and(Live::end) {
            device.live.remove(&activated);
        }
        if device.live.is_empty() {
            device.shrink = Some(TrackNo(0));
            self.shrink(id);
        }
    }
}

/// The entry that a change installs.
pub(crate) fn change_entry(change: &Change) -> Option<Entry> {
    match change {
        Change::Entry(_, _, entry) => Some(*entry),
        Change::Version(_, _, _, entry) | Change::Own(_, _, entry) => *entry,
        _ => None,
    }
}

impl Device {
    pub(crate) fn new(record: DeviceRecord) -> Self {
        Self {
            record,
            table: TrackTable::default(),
            versions: BTreeMap::new(),
            live: BTreeMap::new(),
            sessions: BTreeSet::new(),
            points: BTreeSet::new(),
            pinned: BTreeSet::new(),
            collect: None,
            shrink: None,
            deleted: TrackNo(0),
        }
    }

    pub(crate) fn pool(&self) -> Option<PoolId> {
        match self.record.kind {
            DeviceKind::Standard { pool, .. } => Some(pool),
            DeviceKind::Virtual => None,
        }
    }

    /// Does a session, or one that a crash would bring back, still see the track as it is? May say yes too often.
    pub(crate) fn protects(&self, geometry: Geometry, track: TrackNo) -> bool {
        self.protects_until(geometry, track, Generation(u32::MAX))
    }

    /// The same of the sessions activated up to a generation.
    pub(crate) fn protects_until(&self, geometry: Geometry, track: TrackNo, until: Generation) -> bool {
        let stamp = self.table.stamp(track);
        let newer = self.live.range(..=until).rev().take_while(|(activated, _)| **activated > stamp);
        newer.into_iter().any(|(_, live)| live.covers(geometry, track))
    }
}

impl DeviceRecord {
    /// The generation of a standard device; 0 for a virtual one.
    pub fn generation(&self) -> Generation {
        match self.kind {
            DeviceKind::Standard { generation, .. } => generation,
            DeviceKind::Virtual => Generation(0),
        }
    }

    /// Whether it was deleted and its tracks are being given back.
    pub fn is_deleting(&self) -> bool {
        matches!(self.kind, DeviceKind::Standard { deleting: true, .. })
    }

    /// Whether it is a standard device.
    pub fn is_standard(&self) -> bool {
        matches!(self.kind, DeviceKind::Standard { .. })
    }
}
