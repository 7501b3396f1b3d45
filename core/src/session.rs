//! Commands on sessions and groups: each checks first, then changes everything in one unit (crash rule 2b).

use crate::command::CommandError;
use crate::extent::Extent;
use crate::ids::{DeviceId, Generation, GroupId, SessionId, TrackNo, UnitSeq};
use crate::records::{
    Change, Decision, DeviceKind, GROUPS_MAX, Pinned, SESSIONS_PER_DEVICE_MAX, SessionRecord, SessionState,
};
use crate::tables::Tables;

/// One session to activate, and what becomes of its virtual device (D9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivateSession {
    /// Which.
    pub session: SessionId,
    /// The virtual device's new name.
    pub name: Option<String>,
    /// Whether hosts may use the virtual device.
    pub online: bool,
}

/// Versions that one look at the changes passes over.
const CHANGED_LOOKS: usize = 1 << 16;

impl Tables {
    /// *Begin group* (D8).
    pub fn begin_group(&mut self) -> Result<(GroupId, UnitSeq), CommandError> {
        if self.groups.len() >= GROUPS_MAX {
            return Err(CommandError::Limit { what: "the number of open groups".into(), most: GROUPS_MAX });
        }
        let (number, next) = self.take_id()?;
        let id = GroupId(number);
        Ok((id, self.put(vec![next, Change::Group(id, true)], &[])))
    }

    /// *Register* (D7, Fig. 17).
    pub fn register(
        &mut self,
        standard: DeviceId,
        group: Option<GroupId>,
    ) -> Result<(SessionId, UnitSeq), CommandError> {
        self.register_extent(standard, group, None)
    }

    pub(crate) fn register_extent(
        &mut self,
        standard: DeviceId,
        group: Option<GroupId>,
        extent: Option<Extent>,
    ) -> Result<(SessionId, UnitSeq), CommandError> {
        let name = self.standard(standard)?.name.clone();
        if let Some(group) = group.filter(|group| !self.groups.contains(group)) {
            return Err(CommandError::NoGroup { group });
        }
        if self.devices[&standard].sessions.len() >= SESSIONS_PER_DEVICE_MAX {
            return Err(CommandError::Limit {
                what: format!("the number of sessions of device {name}"),
                most: SESSIONS_PER_DEVICE_MAX,
            });
        }
        let (number, next) = self.take_id()?;
        let id = SessionId(number);
        let state = SessionState::Registered { group };
        let record =
            SessionRecord { standard, extent, virtual_device: None, state, activated_ms: 0, pinned: None };
        Ok((id, self.put(vec![next, Change::Session(id, Some(record))], &[])))
    }

    /// *Relate* (D7, Fig. 18). The virtual device takes the standard device's size. A part of one (D19) may go behind others
    /// that are related already, in the same group.
    pub fn relate(&mut self, session: SessionId, virtual_device: DeviceId) -> Result<UnitSeq, CommandError> {
        let mut record = self.session(session).ok_or(CommandError::NoSession { session })?.clone();
        let SessionState::Registered { group } = record.state else {
            return Err(wrong_state(session, record.state, "registered", "related"));
        };
        let mut shows = self.live_device(virtual_device)?.clone();
        if shows.is_standard() {
            return Err(CommandError::NotVirtual { name: shows.name });
        }
        match (record.extent, self.sessions_shown_by(virtual_device)) {
            (Some(extent), others) => {
                let (extent, size_bytes) = self.place_part(&shows, others, &record, extent)?;
                (record.extent, shows.size_bytes) = (Some(extent), size_bytes);
            }
            (None, []) => shows.size_bytes = self.devices[&record.standard].record.size_bytes,
            (None, [session, ..]) => {
                return Err(CommandError::Shown { name: shows.name, session: *session });
            }
        }
        record.virtual_device = Some(virtual_device);
        record.state = SessionState::Related { group };
        let changes =
            vec![Change::Device(virtual_device, Some(shows)), Change::Session(session, Some(record))];
        Ok(self.put(changes, &[]))
    }

    /// The sessions of a group, by number; refused if it is not open.
    pub fn group_sessions(&self, group: GroupId) -> Result<Vec<SessionId>, CommandError> {
        if !self.groups.contains(&group) {
            return Err(CommandError::NoGroup { group });
        }
        Ok(self.waiting.get(&group).into_iter().flatten().copied().collect())
    }

    /// Ends a group without activating anything; its sessions stay, in no group.
    pub fn close_group(&mut self, group: GroupId) -> Result<UnitSeq, CommandError> {
        let sessions = self.group_sessions(group)?;
        let mut changes = vec![Change::Group(group, false)];
        for id in sessions {
            let mut record = self.sessions[&id].record.clone();
            record.state = match record.state {
                SessionState::Registered { .. } => SessionState::Registered { group: None },
                _ => SessionState::Related { group: None },
            };
            changes.push(Change::Session(id, Some(record)));
        }
        Ok(self.put(changes, &[]))
    }

    /// Whether [`Self::activate`] would do it; the standard devices whose writes must have landed before.
    /// `group`: the group that is processed.
    pub fn check_activate(
        &self,
        list: &[ActivateSession],
        group: Option<GroupId>,
    ) -> Result<Vec<DeviceId>, CommandError> {
        let mut standards = Vec::new();
        if list.is_empty() {
            return Err(CommandError::Nothing);
        }
        for (at, item) in list.iter().enumerate() {
            let session = item.session;
            let record = self.session(session).ok_or(CommandError::NoSession { session })?;
            let SessionState::Related { group: waits_in } = record.state else {
                return Err(wrong_state(session, record.state, "related", "activated"));
            };
            if let Some(waits_in) = waits_in.filter(|waits_in| Some(*waits_in) != group) {
                return Err(CommandError::InGroup { session, group: waits_in });
            }
            if list[..at].iter().any(|other| other.session == session) {
                return Err(CommandError::Twice { session });
            }
            self.check_together(record, session, |part| list.iter().any(|item| item.session == part))?;
            if let Some(name) = &item.name {
                self.check_new_name(name, record.virtual_device)?;
                for other in list[..at].iter().filter(|other| other.name.is_some()) {
                    let shows = |item: &ActivateSession| self.session(item.session)?.virtual_device;
                    match (shows(other) == shows(item), other.name.as_ref() == Some(name)) {
                        (false, true) => return Err(CommandError::Exists { name: name.clone() }),
                        (true, false) => {
                            let shown = shows(item).and_then(|device| self.device(device));
                            let name = shown.map_or_else(String::new, |device| device.name.clone());
                            return Err(CommandError::TwiceInto { name });
                        }
                        _ => {}
                    }
                }
            }
            self.check_whole_half(record.standard)?;
            let generation = self.devices[&record.standard].record.generation();
            if generation.next().is_none() {
                let what = format!("the number of activations on {}", record.standard);
                return Err(CommandError::Limit { what, most: u32::MAX as usize });
            }
            standards.push(record.standard);
        }
        standards.sort();
        standards.dedup();
        Ok(standards)
    }

    /// *Activate* (D7, Fig. 19A): all sessions of the list begin at this instant, and `group`, if one is processed,
    /// is closed with the last session that waits in it. No write to the standard devices may be under way.
    ///
    /// Takes the same time whatever the size of the devices and however many sessions they have (F1).
    pub fn activate(
        &mut self,
        list: &[ActivateSession],
        group: Option<GroupId>,
        wall_ms: u64,
    ) -> Result<UnitSeq, CommandError> {
        let standards = self.check_activate(list, group)?;
        let mut changes = Vec::with_capacity(standards.len() + 2 * list.len() + 1);
        for id in standards {
            let mut record = self.devices[&id].record.clone();
            if let DeviceKind::Standard { generation, .. } = &mut record.kind {
                *generation = generation.next().expect("checked");
            }
            changes.push(Change::Device(id, Some(record)));
        }
        for item in list {
            let mut record = self.sessions[&item.session].record.clone();
            let standard = &self.devices[&record.standard].record;
            record.state = SessionState::Active { activated: standard.generation().next().expect("checked") };
            record.activated_ms = wall_ms;
            if let Some(id) = record.virtual_device {
                let mut shows = self.devices[&id].record.clone();
                if record.extent.is_none() {
                    shows.size_bytes = standard.size_bytes;
                }
                shows.online = item.online;
                if let Some(name) = &item.name {
                    shows.name.clone_from(name);
                }
                changes.push(Change::Device(id, Some(shows)));
            }
            changes.push(Change::Session(item.session, Some(record)));
        }
        if let Some(group) = group {
            let listed = |id: &SessionId| list.iter().any(|item| item.session == *id);
            if self.group_sessions(group)?.iter().all(listed) {
                changes.push(Change::Group(group, false));
            }
        }
        Ok(self.put(changes, &[]))
    }

    /// *Deactivate* (D15, Fig. 27). No write through its virtual device may be under way.
    pub fn deactivate(&mut self, session: SessionId) -> Result<UnitSeq, CommandError> {
        let mut record = self.session(session).ok_or(CommandError::NoSession { session })?.clone();
        let SessionState::Active { activated } = record.state else {
            return Err(wrong_state(session, record.state, "active", "deactivated"));
        };
        self.check_not_needed(session)?;
        let standard = record.standard;
        // What a copy has still to bring would be missing among the changes that are kept.
        self.check_filled(standard)?;
        let mut device = self.devices[&standard].record.clone();
        let DeviceKind::Standard { generation, .. } = &mut device.kind else {
            return Err(CommandError::NotStandard { name: device.name });
        };
        record.state = SessionState::Deactivated { activated, until: *generation };
        // Raised, so that later versions are told from those that it may see.
        *generation = generation.next().ok_or_else(|| CommandError::Limit {
            what: format!("generations of {standard}"),
            most: u32::MAX as usize,
        })?;
        let changes = vec![Change::Session(session, Some(record)), Change::Device(standard, Some(device))];
        Ok(self.put(changes, &[(standard, activated)]))
    }

    /// *Remove* (D6, Fig. 14). The virtual device is free at once; that of a pinned session, which the array has made, goes with
    /// it. Refused while a pair may have to go back to the session. [`Self::reclaim`] gives back what nobody else
    /// needs. No write through the virtual device may be under way.
    pub fn remove_session(&mut self, session: SessionId) -> Result<UnitSeq, CommandError> {
        let record = self.session(session).ok_or(CommandError::NoSession { session })?;
        if record.state == SessionState::Removing {
            return Err(CommandError::NoSession { session });
        }
        self.check_not_needed(session)?;
        Ok(self.end_session(session, SessionState::Removing))
    }

    /// Out of log space: the session loses its old tracks, visibly. Whatever reads it from now on fails.
    pub fn fail_session(&mut self, session: SessionId) -> Result<UnitSeq, CommandError> {
        let record = self.session(session).ok_or(CommandError::NoSession { session })?;
        if record.state.window().is_none() {
            return Err(wrong_state(session, record.state, "active or deactivated", "failed"));
        }
        if record.pinned.is_some() {
            return Err(CommandError::Pinned { session });
        }
        Ok(self.end_session(session, SessionState::Failed))
    }

    /// The tracks that a session has of its own or kept, from `from` on, at most `most` (at least 1); and where to go on.
    pub fn changed(
        &self,
        session: SessionId,
        from: TrackNo,
        most: usize,
    ) -> Result<(Vec<TrackNo>, Option<TrackNo>), CommandError> {
        let found = self.sessions.get(&session).ok_or(CommandError::NoSession { session })?;
        if found.record.state.window().is_none() {
            return Err(wrong_state(
                session,
                found.record.state,
                "active or deactivated",
                "asked for its changes",
            ));
        }
        let device = &self.devices[&found.record.standard];
        let mut tracks = Vec::new();
        let mut at = Some(from);
        for _ in 0..CHANGED_LOOKS {
            let Some(track) = at else { break };
            let own = found.own.range(track..).next().map(|(track, _)| *track);
            let kept = device.versions.range((track, Generation(0))..).next().map(|((track, _), _)| *track);
            let coming = self.next_filled_after(session, track);
            let Some(next) = own.into_iter().chain(kept).chain(coming).min() else {
                at = None;
                break;
            };
            if self.kept(session, next).is_some() || self.differs_by_fill(session, next) {
                if tracks.len() == most.max(1) {
                    at = Some(next);
                    break;
                }
                tracks.push(next);
            }
            at = next.0.checked_add(1).map(TrackNo);
        }
        Ok((tracks, at))
    }

    fn check_not_needed(&self, session: SessionId) -> Result<(), CommandError> {
        if let Some(pair) = self.needed_for(session) {
            return Err(CommandError::Needed { session, pair });
        }
        match self.session(session).and_then(|record| record.pinned) {
            Some(Pinned::Source(_)) => Err(CommandError::InUse { session }),
            // Once its pairs have ended, a person may give it up.
            Some(Pinned::Undecided(Decision { by: Some(peer), .. }))
                if self.pairs_of_peer(peer).next().is_none() =>
            {
                Ok(())
            }
            Some(Pinned::Undecided(_)) => Err(CommandError::Undecided { session }),
            _ => Ok(()),
        }
    }

    fn end_session(&mut self, session: SessionId, state: SessionState) -> UnitSeq {
        let mut lapses = Vec::new();
        let pinned = self.session(session).and_then(|record| record.pinned);
        let changes = self.end_changes(session, state, pinned, &mut lapses);
        let standard = self.session(session).map(|record| record.standard);
        let seq = self.put(changes, &lapses);
        standard.into_iter().for_each(|standard| self.collect_anew(standard));
        seq
    }

    /// The changes that end a session which is pinned for that, and whose protection they end.
    pub(crate) fn end_changes(
        &self,
        session: SessionId,
        state: SessionState,
        pinned: Option<Pinned>,
        lapses: &mut Vec<(DeviceId, Generation)>,
    ) -> Vec<Change> {
        let Some(found) = self.sessions.get(&session) else { return Vec::new() };
        let mut record = found.record.clone();
        if let SessionState::Active { activated } = record.state {
            lapses.push((record.standard, activated));
        }
        (record.state, record.pinned) = (state, pinned);
        let mut made = None;
        if state == SessionState::Removing {
            made = record.virtual_device.take().filter(|_| pinned.is_some());
        }
        let gone = state == SessionState::Removing && found.own.is_empty();
        let mut changes = vec![Change::Session(session, (!gone).then_some(record))];
        changes.extend(made.map(|device| Change::Device(device, None)));
        changes
    }
}

fn wrong_state(
    session: SessionId,
    state: SessionState,
    wanted: &'static str,
    verb: &'static str,
) -> CommandError {
    CommandError::SessionState { session, state, wanted, verb }
}
