//! Virtual devices of parts of standard devices (D19): a session may be of some tracks of its device only, and several such
//! sessions, activated together, make up one virtual device.

use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::geometry::Geometry;
use crate::ids::{DeviceId, GroupId, Owner, SessionId, TrackNo, UnitSeq};
use crate::records::{DeviceRecord, SessionRecord, SessionState};
use crate::tables::Tables;

/// Parts of one virtual device.
pub const EXTENTS_MAX: usize = 64;

/// The tracks of its standard device that a session is of, and where its virtual device shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The first one.
    pub first: TrackNo,
    /// Bytes from there on. Whole tracks, unless the standard device ends within the last one.
    pub size_bytes: u64,
    /// Its first track in the virtual device; 0 until the session is related.
    pub at: TrackNo,
}

/// The sessions of a device that were activated at one generation, and are active or would be again after a crash.
#[derive(Debug, Default)]
pub(crate) struct Live {
    sessions: u32,
    whole: bool,
    extents: Vec<Extent>,
}

impl Extent {
    /// Whether a track of the standard device is in it.
    pub fn covers(self, geometry: Geometry, track: TrackNo) -> bool {
        track >= self.first && track.0 - self.first.0 < geometry.tracks(self.size_bytes)
    }

    /// Its last track of the standard device.
    pub fn last(self, geometry: Geometry) -> TrackNo {
        TrackNo(self.first.0 + geometry.tracks(self.size_bytes).saturating_sub(1))
    }

    /// The byte of the standard device behind it.
    pub fn end(self, geometry: Geometry) -> u64 {
        geometry.offset_of(self.first) + self.size_bytes
    }
}

impl Live {
    pub(crate) fn begin(&mut self, record: &SessionRecord) {
        self.sessions += 1;
        match record.extent {
            None => self.whole = true,
            Some(extent) => self.extents.push(extent),
        }
    }

    /// One of them has ended; `true`: none is left. Until then the others are taken to see what it saw.
    pub(crate) fn end(&mut self) -> bool {
        self.sessions -= 1;
        self.sessions == 0
    }

    pub(crate) fn covers(&self, geometry: Geometry, track: TrackNo) -> bool {
        let count = if planted(Defect::SecondPartLost) { 1 } else { self.extents.len() };
        self.whole || self.extents.iter().take(count).any(|extent| extent.covers(geometry, track))
    }
}

impl Tables {
    /// *Register* (D7) for some tracks of a standard device, from a first to a last one.
    pub fn register_part(
        &mut self,
        standard: DeviceId,
        group: Option<GroupId>,
        first: TrackNo,
        last: TrackNo,
    ) -> Result<(SessionId, UnitSeq), CommandError> {
        let (geometry, device) = (self.geometry, self.standard(standard)?);
        let tracks = geometry.tracks(device.size_bytes);
        if first > last || last.0 >= tracks {
            return Err(CommandError::Extent { name: device.name.clone(), tracks });
        }
        let end = device.size_bytes.min(geometry.offset_of(last) + u64::from(geometry.track_bytes()));
        let size_bytes = end - geometry.offset_of(first);
        self.register_extent(standard, group, Some(Extent { first, size_bytes, at: TrackNo(0) }))
    }

    /// The sessions that a virtual device shows, in the order of its tracks; more than one: each shows a part.
    pub fn sessions_shown_by(&self, device: DeviceId) -> &[SessionId] {
        self.shown.get(&device).map_or(&[], Vec::as_slice)
    }

    /// Whether no part of a virtual device has been removed.
    pub fn is_shown_whole(&self, device: DeviceId) -> bool {
        let mut end = 0;
        let joined = self.sessions_shown_by(device).iter().all(|id| {
            let Some(extent) = self.session(*id).and_then(|record| record.extent) else { return true };
            let begin = self.geometry.offset_of(extent.at);
            let joins = begin == end;
            end = begin + extent.size_bytes;
            joins
        });
        joined && (end == 0 || self.device(device).is_some_and(|record| record.size_bytes == end))
    }

    /// Where a byte of what an owner shows to hosts lies: whose it is, at which byte of the standard device, and how many
    /// bytes follow there. The owner of several parts goes by the first of them.
    pub fn part_at(&self, owner: Owner, offset: u64) -> (Owner, u64, u64) {
        let whole = (owner, offset, u64::MAX);
        let Owner::Session(id) = owner else { return whole };
        let Some(record) = self.session(id).filter(|record| record.extent.is_some()) else { return whole };
        let sessions = record.virtual_device.map_or(&[][..], |device| self.sessions_shown_by(device));
        let at = TrackNo((offset / u64::from(self.geometry.track_bytes())) as u32);
        let extent = |id: &SessionId| Some((*id, self.session(*id)?.extent?));
        let part = sessions.iter().rev().filter_map(extent).find(|(_, extent)| extent.at <= at);
        part.map_or(whole, |(id, extent)| {
            let within = offset - self.geometry.offset_of(extent.at);
            let rest = extent.size_bytes.saturating_sub(within);
            (Owner::Session(id), self.geometry.offset_of(extent.first) + within, rest)
        })
    }

    /// Where a part goes in a virtual device that may have others, and the size of that with it.
    pub(crate) fn place_part(
        &self,
        shows: &DeviceRecord,
        others: &[SessionId],
        record: &SessionRecord,
        extent: Extent,
    ) -> Result<(Extent, u64), CommandError> {
        let mut end = 0;
        for session in others {
            let other = self.session(*session).filter(|other| other.state.group() == record.state.group());
            let related = other.filter(|other| matches!(other.state, SessionState::Related { .. }));
            let Some(before) = related.and_then(|other| other.extent) else {
                return Err(CommandError::Shown { name: shows.name.clone(), session: *session });
            };
            end = self.geometry.offset_of(before.at) + before.size_bytes;
        }
        if others.len() == EXTENTS_MAX {
            let what = format!("the number of parts of device {}", shows.name);
            return Err(CommandError::Limit { what, most: EXTENTS_MAX });
        }
        if end % u64::from(self.geometry.track_bytes()) != 0 {
            return Err(CommandError::PartialTrack { name: shows.name.clone() });
        }
        let size_bytes = end + extent.size_bytes;
        self.geometry.check_device_size(size_bytes)?;
        Ok((Extent { at: TrackNo(self.geometry.tracks(end)), ..extent }, size_bytes))
    }

    /// All parts of a virtual device begin at one instant.
    pub(crate) fn check_together(
        &self,
        record: &SessionRecord,
        session: SessionId,
        listed: impl Fn(SessionId) -> bool,
    ) -> Result<(), CommandError> {
        let parts = record.virtual_device.map_or(&[][..], |device| self.sessions_shown_by(device));
        match parts.iter().find(|part| !listed(**part)) {
            Some(other) => Err(CommandError::Apart { session, other: *other }),
            None => Ok(()),
        }
    }
}
