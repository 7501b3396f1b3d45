//! Background work: what ended sessions and deleted devices leave is given back, a bounded step at a time.

use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::ids::{DeviceId, Generation, PoolId, SessionId, TrackNo, UnitSeq};
use crate::records::{Change, SessionState};
use crate::tables::{Device, Tables};

/// Versions or own tracks that one step looks at.
const RECLAIM_LOOKS: usize = 4096;

impl Tables {
    /// Whether [`Self::reclaim`] has something to do.
    pub fn has_reclaim(&self) -> bool {
        !self.ended.is_empty() || !self.reclaiming.is_empty()
    }

    /// One bounded step of background work: gives back own tracks of ended sessions, versions that no session's
    /// look-up ends at, tracks of deleted devices. `None`: there was nothing to give back in this step; ask
    /// [`Self::has_reclaim`] whether to go on.
    pub fn reclaim(&mut self) -> Option<UnitSeq> {
        while let Some(id) = self.ended.first().copied() {
            if let Some(unit) = self.reclaim_session(id) {
                return Some(unit);
            }
        }
        let id = self.reclaiming.first().copied()?;
        match self.devices.get(&id)? {
            Device { collect: Some(from), .. } => self.collect(id, *from),
            Device { shrink: Some(_), .. } => {
                self.shrink(id);
                None
            }
            _ => self.reclaim_device(id),
        }
    }

    /// Versions may have become needless while their sessions went on, by tracks that those took of their own: all of
    /// a pool are looked at by the next steps of [`Self::reclaim`].
    pub fn collect_all(&mut self, pool: PoolId) {
        let devices: Vec<_> =
            self.devices.iter().filter(|(_, d)| d.pool() == Some(pool)).map(|(id, _)| *id).collect();
        devices.into_iter().for_each(|id| self.collect_anew(id));
    }

    /// Versions may have become needless: all of a device are looked at again.
    pub(crate) fn collect_anew(&mut self, standard: DeviceId) {
        if let Some(device) = self.devices.get_mut(&standard)
            && !device.versions.is_empty()
        {
            device.collect = Some(TrackNo(0));
            self.reclaiming.insert(standard);
        }
    }

    fn reclaim_session(&mut self, id: SessionId) -> Option<UnitSeq> {
        let session = &self.sessions[&id];
        let forget = planted(Defect::OwnNotReturned);
        let tracks = session.own.keys().take(if forget { 0 } else { RECLAIM_LOOKS });
        let mut changes: Vec<_> = tracks.map(|track| Change::Own(id, *track, None)).collect();
        if changes.len() == session.own.len() || forget {
            match session.record.state {
                SessionState::Removing => changes.push(Change::Session(id, None)),
                _ => {
                    self.ended.remove(&id);
                }
            }
        }
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    fn collect(&mut self, id: DeviceId, from: TrackNo) -> Option<UnitSeq> {
        let device = &self.devices[&id];
        let mut changes = Vec::new();
        let (mut before, mut next) = (None, None);
        for (looked, ((track, upto), _)) in device.versions.range((from, Generation(0))..).enumerate() {
            let after = match before {
                Some((same, upto)) if same == *track => upto,
                _ if looked >= RECLAIM_LOOKS => {
                    next = Some(*track);
                    break;
                }
                _ => Generation(0),
            };
            if self.needed_by(id, *track, after, *upto).next().is_none() {
                changes.push(Change::Version(id, *track, *upto, None));
            }
            before = Some((*track, *upto));
        }
        let device = self.devices.get_mut(&id)?;
        device.collect = next;
        self.reclaim_while_needed(id);
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    /// No session is active, nor would be after a crash: one step of giving back what only their protection needs. One
    /// that was activated since needs it again.
    pub(crate) fn shrink(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if let Some(from) = device.shrink.take().filter(|_| device.live.is_empty()) {
            device.shrink = device.table.shrink(from);
        }
        self.reclaim_while_needed(id);
    }

    fn reclaim_while_needed(&mut self, id: DeviceId) {
        let needed = |device: &Device| {
            device.collect.is_some() || device.shrink.is_some() || device.record.is_deleting()
        };
        if self.devices.get(&id).is_some_and(needed) {
            self.reclaiming.insert(id);
        } else {
            self.reclaiming.remove(&id);
        }
    }

    /// The sessions whose look-up of the track ends at the version up to `upto`, the one before it being up to `after`.
    fn needed_by(
        &self,
        id: DeviceId,
        track: TrackNo,
        after: Generation,
        upto: Generation,
    ) -> impl Iterator<Item = SessionId> {
        let sessions = self.activated_between(id, after, upto);
        sessions.filter(move |session| self.ends_at(*session, track, upto))
    }

    /// The sessions activated after one generation and not after another.
    pub(crate) fn activated_between(
        &self,
        id: DeviceId,
        after: Generation,
        upto: Generation,
    ) -> impl Iterator<Item = SessionId> {
        // `after` is less than `upto`, unless the metadata are damaged.
        let first = Generation(after.0.saturating_add(1).min(upto.0));
        let points = self.devices[&id].points.range((first, SessionId(0))..=(upto, SessionId(u32::MAX)));
        points.map(|(_, session)| *session)
    }

    /// Whether a session's look-up of the track, if it gets to the version up to `upto`, ends there.
    pub(crate) fn ends_at(&self, session: SessionId, track: TrackNo, upto: Generation) -> bool {
        let session = &self.sessions[&session];
        let until = session.record.state.window().and_then(|(_, until)| until);
        session.record.extent.is_none_or(|extent| extent.covers(self.geometry, track))
            && !session.own.contains_key(&track)
            && until.is_none_or(|until| upto <= until)
    }

    fn reclaim_device(&mut self, id: DeviceId) -> Option<UnitSeq> {
        let device = self.devices.get_mut(&id)?;
        let tracks: Vec<_> =
            device.table.mapped(device.deleted).take(RECLAIM_LOOKS).map(|(track, _)| track).collect();
        let last = tracks.len() < RECLAIM_LOOKS;
        if let Some(track) = tracks.last() {
            device.deleted = *track;
        }
        let mut changes: Vec<_> =
            tracks.into_iter().map(|track| Change::Entry(id, track, Entry::ZEROS)).collect();
        if last {
            changes.push(Change::Device(id, None));
        }
        Some(self.put(changes, &[]))
    }
}
