//! What a target shows, how it takes the entries over, and how its tracks get into its own pool.

use super::{CopyRecord, CopyStatus, Fill, Purpose};
use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::ids::{CopyId, DeviceId, Generation, Owner, Place, PoolId, SessionId, TrackNo, UnitSeq};
use crate::records::{Change, SessionRecord, SessionState};
use crate::remote::Ledger;
use crate::tables::Tables;

/// Tracks that one step takes over, or looks at.
const LOOKS: usize = 4096;

/// A copy within the array: its record, what is to copy and what is unequal.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) record: CopyRecord,
    pub(crate) to_copy: Ledger,
    pub(crate) unequal: Ledger,
}

impl Tables {
    // What is shown.

    /// What a standard device shows of a track: its own table, or what is still to come.
    pub(crate) fn present(&self, device: DeviceId, track: TrackNo) -> Option<Entry> {
        match self.to_come(device, track) {
            Some((_, fill)) if !planted(Defect::FillServedHere) => Some(self.filled_entry(fill, track)),
            _ => Some(self.devices.get(&device)?.table.entry(track)),
        }
    }

    /// The same for a session that was activated at a generation and keeps nothing of the track.
    pub(crate) fn present_since(
        &self,
        device: DeviceId,
        track: TrackNo,
        activated: Generation,
    ) -> Option<Entry> {
        match self.to_come(device, track) {
            Some((_, fill)) if activated > fill.until || planted(Defect::OtherSessionRestored) => {
                Some(self.filled_entry(fill, track))
            }
            _ => Some(self.devices.get(&device)?.table.entry(track)),
        }
    }

    /// The copy that a track of a device is still to come by.
    pub(crate) fn to_come(&self, device: DeviceId, track: TrackNo) -> Option<(CopyId, Fill)> {
        let id = self.filling.get(&device)?;
        let copy = self.copies.get(id)?;
        let fill = copy.record.fill.filter(|_| copy.to_copy.set.contains(track))?;
        Some((*id, fill))
    }

    /// What the session of a fill has of a track. Its device is filled by nobody, or was later than the session began.
    fn filled_entry(&self, fill: Fill, track: TrackNo) -> Entry {
        match self.kept(fill.session, track) {
            Some(entry) => entry,
            None => {
                let standard = self.session(fill.session).map(|record| record.standard);
                let device = standard.and_then(|standard| self.devices.get(&standard));
                device.map_or(Entry::ZEROS, |device| device.table.entry(track))
            }
        }
    }

    /// The next track from `from` on that is still to come to a session's device, by a fill that the session was there
    /// before: to be asked [`Self::differs_by_fill`].
    pub(crate) fn next_filled_after(&self, session: SessionId, from: TrackNo) -> Option<TrackNo> {
        let record = self.session(session)?;
        let SessionState::Active { activated } = record.state else { return None };
        let copy = self.copies.get(self.filling.get(&record.standard)?)?;
        copy.record.fill.filter(|fill| activated <= fill.until)?;
        copy.to_copy.set.next(from)
    }

    /// Whether a session's device shows something else than the session, by a fill that has not got to the track yet.
    pub(crate) fn differs_by_fill(&self, session: SessionId, track: TrackNo) -> bool {
        self.next_filled_after(session, track) == Some(track) && {
            let standard = self.session(session).map(|record| record.standard);
            let own = self.entry(Place { owner: Owner::Session(session), track });
            // A session of a part has nothing of the other tracks.
            own.is_some() && standard.and_then(|standard| self.present(standard, track)) != own
        }
    }

    // Taking over.

    /// A write to a track that is still to come: its entry is taken over first. The unit may be committed whenever, for it
    /// changes nothing of what anybody sees.
    pub(crate) fn take_over(&mut self, device: DeviceId, track: TrackNo) {
        let Some((id, fill)) = self.to_come(device, track) else { return };
        let mut changes = self.take_over_changes(id, fill, device, track);
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.to_copy.remove(track);
            changes.extend(copy.settle_to_copy(id));
        }
        if !changes.is_empty() {
            self.put(changes, &[]);
        }
    }

    /// A device with tracks still to come.
    pub fn next_filling(&self) -> Option<CopyId> {
        self.filling.values().next().copied()
    }

    /// Takes over some tracks in one unit; after the last one, in a unit of its own, what the session was needed for ends.
    /// `true`: nothing is to come any more. No write to the target may be under way on a track that is still to come: there
    /// is none, for it would have taken it over.
    pub fn fill_step(&mut self, id: CopyId) -> bool {
        let Some((device, fill)) = self.copy(id).and_then(|copy| Some((copy.target(), copy.fill?))) else {
            return true;
        };
        let (mut changes, mut at) = (Vec::new(), TrackNo(0));
        for _ in 0..LOOKS {
            let Some(track) = self.copies.get(&id).and_then(|copy| copy.to_copy.set.next(at)) else { break };
            changes.extend(self.take_over_changes(id, fill, device, track));
            if let Some(copy) = self.copies.get_mut(&id) {
                copy.to_copy.remove(track);
            }
            at = TrackNo(track.0.saturating_add(1));
        }
        let Some(copy) = self.copies.get_mut(&id) else { return true };
        let empty = copy.to_copy.set.is_empty() || planted(Defect::FillEndsEarly);
        changes.extend(copy.settle_to_copy(id));
        if !changes.is_empty() {
            self.put(changes, &[]);
        }
        if empty {
            self.end_fill(id);
        }
        empty
    }

    /// The changes by which a track of a target gets its entry; what it had is kept for the sessions that see it.
    fn take_over_changes(&mut self, id: CopyId, fill: Fill, device: DeviceId, track: TrackNo) -> Vec<Change> {
        let new = self.filled_entry(fill, track);
        let mut changes = Vec::new();
        let Some(found) = self.devices.get_mut(&device) else { return changes };
        let old = found.table.entry(track);
        if new == old {
            return changes;
        }
        if found.protects_until(self.geometry, track, fill.until) && !planted(Defect::FillKeepsNothing) {
            changes.push(Change::Version(device, track, fill.until, Some(old)));
        }
        if !found.live.is_empty() {
            found.table.set_stamp(track, fill.until);
        }
        changes.push(Change::Entry(device, track, new));
        if !planted(Defect::RestoreUnnoted) {
            changes.extend(self.unequal_changes(device, track, Some(id)));
        }
        changes
    }

    /// Nothing is to come any more: the session goes, unless it is to be kept, and so does the copy, unless tracks have to be
    /// moved, or it is a pair.
    fn end_fill(&mut self, id: CopyId) {
        let Some(mut record) = self.copy(id).cloned() else { return };
        let Some(fill) = record.fill.take() else { return };
        let is_part = self.session(fill.session).is_some_and(|session| session.extent.is_some());
        let end = self.tracks_of(record.secondary);
        if is_part && let Some(copy) = self.copies.get_mut(&id) {
            // The pointer is about all of the device from now on.
            record.to_copy_from = TrackNo(end);
            copy.to_copy = Ledger::new(end, record.to_copy_from);
        }
        let mut lapses = Vec::new();
        let mut changes = match record.purpose {
            Purpose::Once { keep, pinned } if keep || planted(Defect::RestoredSessionShown) => {
                let session = self.session(fill.session).cloned();
                let kept = session.map(|session| SessionRecord { pinned, ..session });
                vec![Change::Session(fill.session, kept)]
            }
            Purpose::Once { pinned, .. } => {
                self.end_changes(fill.session, SessionState::Removing, pinned, &mut lapses)
            }
            Purpose::Pair => self.end_changes(fill.session, SessionState::Removing, None, &mut lapses),
        };
        // What was taken over may lie anywhere: the source's tracks may be on their way from another pool themselves.
        let foreign = self.pools.len() > 1;
        changes.insert(0, Change::Copy(id, after_copying(record, foreign)));
        self.put(changes, &lapses);
        lapses.into_iter().for_each(|(standard, _)| self.collect_anew(standard));
    }

    // Moving to the target's own pool.

    /// The copies whose targets may have tracks in other pools.
    pub fn relocating(&self) -> impl Iterator<Item = CopyId> {
        let moving = |copy: &CopyRecord| copy.status == CopyStatus::Copying && copy.fill.is_none();
        self.copies().filter(move |(_, copy)| moving(copy)).map(|(id, _)| id)
    }

    /// The first track of the target from `from` on that lies in another pool, if a bounded look finds one; else where to go
    /// on; else there is none.
    pub fn next_foreign(&self, id: CopyId, from: TrackNo) -> Result<TrackNo, Option<TrackNo>> {
        let Some(device) = self.copy(id).map(CopyRecord::target) else { return Err(None) };
        let (Some(found), Some(pool)) = (self.devices.get(&device), self.pool_of(device)) else {
            return Err(None);
        };
        let mut last = None;
        for (track, entry) in found.table.mapped(from).take(LOOKS) {
            if self.is_foreign(entry, pool) {
                return Ok(track);
            }
            last = Some(track);
        }
        let at = last.map_or(0, |track| track.0.saturating_add(1));
        let more = found.table.mapped(TrackNo(at)).next().is_some();
        Err(last.filter(|_| more).map(|_| TrackNo(at)))
    }

    /// Tracks of the target before this one lie in its own pool: noted after the units that moved them, so that a crash resumes
    /// there (C3, Fig. 6 step 607).
    pub fn moved_to(&mut self, id: CopyId, to: TrackNo) -> Option<UnitSeq> {
        let mut record = self.copy(id)?.clone();
        if planted(Defect::MovedPointerAhead) {
            record.moved_to = TrackNo(self.tracks_of(record.target()));
            return Some(self.put(vec![Change::Copy(id, Some(record))], &[]));
        }
        if to <= record.moved_to {
            return None;
        }
        record.moved_to = to;
        Some(self.put(vec![Change::Copy(id, Some(record))], &[]))
    }

    /// All tracks of the target lie in its own pool: the copy has ended.
    pub fn end_relocation(&mut self, id: CopyId) -> Option<UnitSeq> {
        let record = self.copy(id).filter(|copy| copy.fill.is_none())?.clone();
        Some(self.put(vec![Change::Copy(id, after_copying(record, false))], &[]))
    }

    pub(crate) fn is_foreign(&self, entry: Entry, pool: PoolId) -> bool {
        entry.tracks().any(|track| self.pool_of_track(track) != Some(pool))
    }

    fn pool_of_track(&self, track: crate::PhysicalTrack) -> Option<PoolId> {
        let (store, _) = self.space.locate(track)?;
        self.stores.get(&store).map(|store| store.pool)
    }

    fn pool_of(&self, device: DeviceId) -> Option<PoolId> {
        self.devices.get(&device)?.pool()
    }

    // What is unequal.

    /// Whether a track of a device is equal in some pair, or may be after a crash, so that a write has to note that it is not
    /// any more, or to leave it as it is.
    pub(crate) fn is_equal_in_a_pair(&self, device: DeviceId, track: TrackNo) -> bool {
        if self.unpaired.contains_key(&device) {
            return true;
        }
        let Some(copies) = self.copies_of.get(&device) else { return false };
        let undurable = |id| self.undurable.contains_key(&(id, track)) && !planted(Defect::BitNotAwaited);
        let copies = copies.iter().filter_map(|id| Some((*id, self.copies.get(id)?)));
        copies
            .filter(|(_, copy)| copy.record.is_pair())
            .any(|(id, copy)| !copy.unequal.set.contains(track) || undurable(id))
    }

    /// The changes that note a track as unequal in the pairs of its device, but for the one that makes it equal.
    pub(crate) fn unequal_changes(
        &mut self,
        device: DeviceId,
        track: TrackNo,
        by: Option<CopyId>,
    ) -> Vec<Change> {
        let Some(copies) = self.copies_of.get(&device) else { return Vec::new() };
        let (mut changes, unit) = (Vec::new(), self.log.next());
        for id in copies.iter().filter(|id| Some(**id) != by) {
            let Some(copy) = self.copies.get_mut(id).filter(|copy| copy.record.is_pair()) else { continue };
            if copy.unequal.insert(track) && !planted(Defect::UnequalUnnoted) {
                let region = crate::RegionNo::of(track);
                let word = copy.unequal.word(region, copy.record.unequal_from);
                self.undurable.insert((*id, track), unit);
                changes.extend(word.map(|word| Change::Unequal(*id, region, word)));
            }
        }
        changes
    }

    // What is kept durably.

    pub(crate) fn apply_copy(&mut self, id: CopyId, record: Option<CopyRecord>) {
        if let Some(before) = self.copies.get(&id).map(|copy| copy.record.clone()) {
            for device in [before.primary, before.secondary] {
                if let Some(copies) = self.copies_of.get_mut(&device) {
                    copies.remove(&id);
                    if copies.is_empty() {
                        self.copies_of.remove(&device);
                    }
                }
                if self.filling.get(&device) == Some(&id) {
                    self.filling.remove(&device);
                }
            }
        }
        let Some(record) = record else {
            self.copies.remove(&id);
            return;
        };
        for device in [record.primary, record.secondary] {
            self.copies_of.entry(device).or_default().insert(id);
        }
        if record.fill.is_some() {
            self.filling.insert(record.target(), id);
        }
        match self.copies.get_mut(&id) {
            Some(copy) => copy.record = record,
            None => {
                let tracks = (self.tracks_to_copy(&record), self.tracks_of(record.secondary));
                self.copies.insert(id, Copy::new(record, tracks));
            }
        }
    }

    pub(crate) fn settle_loaded_copies(&mut self) {
        let tracks = |record: &CopyRecord| (self.tracks_to_copy(record), self.tracks_of(record.secondary));
        let tracks: Vec<_> = self.copies.values().map(|copy| tracks(&copy.record)).collect();
        for (copy, (to_copy, all)) in self.copies.values_mut().zip(tracks) {
            copy.to_copy.settle_loaded(to_copy, copy.record.to_copy_from);
            copy.unequal.settle_loaded(all, copy.record.unequal_from);
        }
    }
}

impl Copy {
    /// With so many tracks that may be to come, of so many that may be unequal.
    fn new(record: CopyRecord, (to_copy, all): (u32, u32)) -> Self {
        Self {
            to_copy: Ledger::new(to_copy, record.to_copy_from),
            unequal: Ledger::new(all, record.unequal_from),
            record,
        }
    }

    /// The changes that make what is to copy durable as it is.
    fn settle_to_copy(&mut self, id: CopyId) -> Vec<Change> {
        let logged = self.record.to_copy_from;
        let (from, words) = self.to_copy.settle(logged);
        let mut changes = Vec::with_capacity(words.len() + 1);
        if from != logged {
            let record = CopyRecord { to_copy_from: from, ..self.record.clone() };
            changes.push(Change::Copy(id, Some(record)));
        }
        changes.extend(words.into_iter().map(|(region, word)| Change::ToCopy(id, region, word)));
        changes
    }
}

/// The record once nothing is to come; `None`: it has ended.
fn after_copying(record: CopyRecord, foreign: bool) -> Option<CopyRecord> {
    match (record.purpose, foreign) {
        (_, true) => Some(record),
        (Purpose::Pair, false) => Some(CopyRecord { status: CopyStatus::Copied, back: false, ..record }),
        (Purpose::Once { .. }, false) => None,
    }
}
