//! Restore: a device becomes what a session shows (D10 to D12), or another virtual device shows the same (D13).

use std::collections::BTreeSet;

use super::draft::Draft;
use super::{CopyRecord, CopyStatus, Fill, Pace, Purpose};
use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::extent::Extent;
use crate::ids::{CopyId, DeviceId, SessionId, TrackNo, UnitSeq};
use crate::records::{Change, Pinned, SESSIONS_PER_DEVICE_MAX, SessionRecord, SessionState};
use crate::tables::Tables;

/// One session to restore. That of a part of a device (D19) is restored to that part; the other tracks stay what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreItem {
    /// Which.
    pub session: SessionId,
    /// The device that becomes what the session shows: its own standard device (D10), another one (D11, D12), or a virtual
    /// device that shows nothing (D13).
    pub to: DeviceId,
    /// The session stays; otherwise it is used up (Fig. 20B).
    pub keep: bool,
    /// What a standard device was before is kept as a session.
    pub keep_before: bool,
    /// The device's new name (D9).
    pub name: Option<String>,
    /// Whether hosts may use the device then (D9).
    pub online: bool,
    /// How many tracks are moved at a time if the session's are in another pool (C6).
    pub pace: Pace,
}

impl Tables {
    /// Whether [`Self::restore`] would do it; the sessions and devices to which no write may be under way then.
    pub fn check_restore(
        &self,
        list: &[RestoreItem],
    ) -> Result<(Vec<SessionId>, Vec<DeviceId>), CommandError> {
        if list.is_empty() {
            return Err(CommandError::Nothing);
        }
        let (mut sessions, mut targets, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for item in list {
            let session = item.session;
            let record = self.session(session).ok_or(CommandError::NoSession { session })?;
            if !matches!(record.state, SessionState::Active { .. }) {
                let (wanted, verb) = ("active", "restored");
                return Err(CommandError::SessionState { session, state: record.state, wanted, verb });
            }
            self.check_place_of_part(session, record, item.to)?;
            match record.pinned {
                None | Some(Pinned::Before | Pinned::Loser(_)) => {}
                Some(Pinned::Undecided(_)) => return Err(CommandError::Undecided { session }),
                Some(_) => return Err(CommandError::InUse { session }),
            }
            self.check_filled(record.standard)?;
            let target = self.live_device(item.to)?;
            if !sessions.insert(session) {
                return Err(CommandError::Twice { session });
            }
            if !targets.insert(item.to) {
                return Err(CommandError::TwiceInto { name: target.name.clone() });
            }
            if let Some(name) = &item.name {
                self.check_new_name(name, Some(item.to))?;
                if !names.insert(name.clone()) {
                    return Err(CommandError::Exists { name: name.clone() });
                }
            }
            if target.is_standard() {
                self.check_target(item, record)?;
            } else {
                self.check_virtual_target(item.to, record.standard)?;
            }
        }
        let standards = targets.into_iter().filter(|id| self.device(*id).is_some_and(|it| it.is_standard()));
        Ok((sessions.into_iter().collect(), standards.collect()))
    }

    /// All of the list at this instant (D8). No write to the sessions and devices that [`Self::check_restore`] names may be under
    /// way. The numbers of the copies that follow, in the order of the list; `None` for a virtual device, which is all done.
    pub fn restore(
        &mut self,
        list: &[RestoreItem],
        wall_ms: u64,
    ) -> Result<(Vec<Option<CopyId>>, UnitSeq), CommandError> {
        self.check_restore(list)?;
        self.check_more_copies(list.len())?;
        let mut draft = Draft::new(self).with_names(list.iter().filter_map(|item| item.name.as_ref()));
        let (mut changes, mut ids, mut lapses) = (Vec::new(), Vec::with_capacity(list.len()), Vec::new());
        for item in list {
            let source =
                self.session(item.session).ok_or(CommandError::NoSession { session: item.session })?;
            let shown = source.virtual_device.and_then(|shows| self.device(shows));
            let device = draft.device(item.to)?;
            device.online = item.online;
            let is_standard = device.is_standard();
            if !is_standard {
                device.size_bytes = shown.map_or(0, |shows| shows.size_bytes);
            }
            if is_standard {
                let id = CopyId(draft.take_id()?);
                if item.keep_before && !planted(Defect::RestoreBeforeLost) {
                    draft.session(item.to, source.extent, Pinned::Before, Some("before"), wall_ms)?;
                }
                let until = draft.raise(item.to)?;
                if let Some(name) = &item.name {
                    draft.device(item.to)?.name.clone_from(name);
                }
                let restored = SessionRecord { pinned: Some(Pinned::Source(id)), ..source.clone() };
                changes.push(Change::Session(item.session, Some(restored)));
                let end = TrackNo(self.tracks_of(item.to));
                let record = CopyRecord {
                    purpose: Purpose::Once { keep: item.keep, pinned: source.pinned },
                    primary: source.standard,
                    secondary: item.to,
                    status: CopyStatus::Copying,
                    back: false,
                    fill: Some(Fill { session: item.session, until }),
                    pace: item.pace,
                    copied_ms: wall_ms,
                    to_copy_from: source.extent.map_or(TrackNo(0), first_of),
                    unequal_from: end,
                    moved_to: TrackNo(0),
                };
                changes.push(Change::Copy(id, Some(record)));
                ids.push(Some(id));
            } else {
                if let Some(name) = &item.name {
                    draft.device(item.to)?.name.clone_from(name);
                }
                let id = SessionId(draft.take_id()?);
                let another = SessionRecord { virtual_device: Some(item.to), pinned: None, ..source.clone() };
                changes.push(Change::Session(id, Some(another)));
                let own = self.sessions.get(&item.session).into_iter().flat_map(|session| &session.own);
                changes.extend(own.map(|(track, entry)| Change::Own(id, *track, Some(*entry))));
                if !item.keep {
                    changes.extend(self.end_changes(
                        item.session,
                        SessionState::Removing,
                        source.pinned,
                        &mut lapses,
                    ));
                }
                ids.push(None);
            }
        }
        let mut unit = draft.changes();
        unit.extend(changes);
        let seq = self.put(unit, &lapses);
        lapses.iter().for_each(|(standard, _)| self.collect_anew(*standard));
        Ok((ids, seq))
    }

    /// A session of a part (D19) is restored where that lies: what its tracks are is told by their numbers (D17).
    fn check_place_of_part(
        &self,
        session: SessionId,
        record: &SessionRecord,
        to: DeviceId,
    ) -> Result<(), CommandError> {
        if record.extent.is_none() || to == record.standard {
            return Ok(());
        }
        let name = self.device(record.standard).map_or_else(String::new, |device| device.name.clone());
        Err(CommandError::OfPart { session, name })
    }

    fn check_target(&self, item: &RestoreItem, source: &SessionRecord) -> Result<(), CommandError> {
        let target = self.standard(item.to)?;
        let shown = source.virtual_device.and_then(|shows| self.device(shows));
        // A part that ends within a track is one of a device that ends there: what that has grown by is not in the part.
        let size_bytes = match source.extent.map(|part| part.end(self.geometry)) {
            Some(end) if end % u64::from(self.geometry.track_bytes()) == 0 => target.size_bytes,
            Some(end) => end,
            None => shown.map_or(0, |shows| shows.size_bytes),
        };
        if target.size_bytes != size_bytes {
            return Err(CommandError::SizesDiffer {
                name: target.name.clone(),
                size_bytes: target.size_bytes,
                other: shown.map_or_else(String::new, |shows| shows.name.clone()),
                other_bytes: size_bytes,
            });
        }
        if self.is_held_by_pair(item.to) {
            return Err(CommandError::HeldByPair { name: target.name.clone() });
        }
        self.check_filled(item.to)?;
        self.check_unpaired(item.to)
    }

    fn check_virtual_target(&self, to: DeviceId, standard: DeviceId) -> Result<(), CommandError> {
        if let Some(session) = self.session_shown_by(to) {
            let name = self.device(to).map_or_else(String::new, |device| device.name.clone());
            return Err(CommandError::Shown { name, session });
        }
        if self.devices[&standard].sessions.len() >= SESSIONS_PER_DEVICE_MAX {
            return Err(CommandError::Limit {
                what: format!("the number of sessions of {standard}"),
                most: SESSIONS_PER_DEVICE_MAX,
            });
        }
        Ok(())
    }

    pub(super) fn tracks_of(&self, device: DeviceId) -> u32 {
        self.device(device).map_or(0, |device| self.geometry.tracks(device.size_bytes))
    }

    /// The tracks before which all lie that a copy may still have to take over: those of the part that is restored, or all.
    pub(super) fn tracks_to_copy(&self, record: &CopyRecord) -> u32 {
        let part = record.fill.and_then(|fill| self.session(fill.session)?.extent);
        part.map_or_else(
            || self.tracks_of(record.secondary),
            |part| self.geometry.tracks(part.end(self.geometry)),
        )
    }
}

/// The first track that the restore of a part puts back.
fn first_of(part: Extent) -> TrackNo {
    if planted(Defect::PartBeginsLate) { TrackNo(part.first.0 + 1) } else { part.first }
}
