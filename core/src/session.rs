//! Commands on devices, sessions and groups: each checks first, then changes everything in one unit (crash rule 2b).

use thiserror::Error;

use crate::entry::Entry;
use crate::geometry::GeometryError;
use crate::ids::{DeviceId, Generation, GroupId, PoolId, SessionId, TrackNo, UnitSeq};
use crate::records::{
    Change, DEVICES_MAX, DeviceKind, DeviceRecord, GROUPS_MAX, NAME_BYTES_MAX, SESSIONS_PER_DEVICE_MAX,
    SessionRecord, SessionState,
};
use crate::tables::Tables;

/// Why a command was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Not a name.
    #[error(
        "{name:?} is not a name: use 1 to {NAME_BYTES_MAX} of the letters a-z and A-Z, digits, '-', '_' and '.', and begin with a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Not a size.
    #[error(transparent)]
    Size(#[from] GeometryError),
    /// A device cannot shrink.
    #[error("device {name} has {size_bytes} bytes and cannot shrink to {to_bytes}: choose a larger size")]
    Shrink {
        /// Which device.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// What was asked for.
        to_bytes: u64,
    },
    /// The name is taken.
    #[error("a device named {name} exists already: choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// No such device.
    #[error("there is no device {device}")]
    NoDevice {
        /// Its number or name.
        device: String,
    },
    /// No such session.
    #[error("there is no {session}: it was never registered, or it was removed")]
    NoSession {
        /// Its number.
        session: SessionId,
    },
    /// No such group.
    #[error("there is no open {group}: begin a group first")]
    NoGroup {
        /// Its number.
        group: GroupId,
    },
    /// No such pool.
    #[error("there is no {pool}")]
    NoPool {
        /// Which.
        pool: PoolId,
    },
    /// A standard device is wanted.
    #[error("device {name} is virtual: name a standard device")]
    NotStandard {
        /// Which.
        name: String,
    },
    /// A virtual device is wanted.
    #[error("device {name} is not virtual: name a virtual device")]
    NotVirtual {
        /// Which.
        name: String,
    },
    /// The virtual device is taken.
    #[error(
        "virtual device {name} shows {session} already: remove that session, or name another virtual device"
    )]
    Shown {
        /// Which device.
        name: String,
        /// Its session.
        session: SessionId,
    },
    /// The device has sessions.
    #[error("device {name} has {sessions} sessions: remove them first")]
    HasSessions {
        /// Which device.
        name: String,
        /// How many.
        sessions: usize,
    },
    /// The session's state does not allow it.
    #[error("{session} is {state}, and only a session that is {wanted} can be {verb}")]
    SessionState {
        /// Which.
        session: SessionId,
        /// Its state.
        state: SessionState,
        /// The state it would need.
        wanted: &'static str,
        /// What was asked for.
        verb: &'static str,
    },
    /// The session is activated with its group.
    #[error("{session} waits in {group}: process the group to activate it")]
    InGroup {
        /// Which session.
        session: SessionId,
        /// Its group.
        group: GroupId,
    },
    /// The session waits in no group, or in another.
    #[error("{session} does not wait in {group}: register it with the group")]
    NotInGroup {
        /// Which session.
        session: SessionId,
        /// The group.
        group: GroupId,
    },
    /// The session has no such track.
    #[error("{session} has no changed track {track}: ask which tracks changed")]
    NotChanged {
        /// Which session.
        session: SessionId,
        /// Which track.
        track: TrackNo,
    },
    /// No pool of that name.
    #[error("there is no pool named {name}")]
    NoPoolNamed {
        /// The name.
        name: String,
    },
    /// A session is named twice.
    #[error("{session} is named twice")]
    Twice {
        /// Which.
        session: SessionId,
    },
    /// There is nothing to activate.
    #[error("no session is named: name at least one")]
    Nothing,
    /// A limit.
    #[error("{what} is limited to {most}: remove one first")]
    Limit {
        /// What has the limit.
        what: String,
        /// The limit.
        most: usize,
    },
}

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

/// Versions or own tracks that one background step looks at.
const RECLAIM_LOOKS: usize = 4096;
/// Versions that one look at the changes passes over.
const CHANGED_LOOKS: usize = 1 << 16;

impl Tables {
    /// A standard device.
    pub fn create_standard(
        &mut self,
        name: &str,
        pool: PoolId,
        size_bytes: u64,
    ) -> Result<(DeviceId, UnitSeq), CommandError> {
        self.geometry.check_device_size(size_bytes)?;
        if !self.pools.contains_key(&pool) {
            return Err(CommandError::NoPool { pool });
        }
        let kind = DeviceKind::Standard { pool, generation: Generation(0), deleting: false };
        self.create(DeviceRecord { name: name.to_owned(), kind, size_bytes, online: true })
    }

    /// A virtual device: shows nothing yet (Fig. 8: accessible once established).
    pub fn create_virtual(&mut self, name: &str) -> Result<(DeviceId, UnitSeq), CommandError> {
        let kind = DeviceKind::Virtual;
        self.create(DeviceRecord { name: name.to_owned(), kind, size_bytes: 0, online: true })
    }

    fn create(&mut self, record: DeviceRecord) -> Result<(DeviceId, UnitSeq), CommandError> {
        self.check_new_name(&record.name, None)?;
        if self.devices.len() >= DEVICES_MAX {
            return Err(CommandError::Limit { what: "the number of devices".into(), most: DEVICES_MAX });
        }
        let (number, next) = self.take_id()?;
        let id = DeviceId(number);
        Ok((id, self.put(vec![next, Change::Device(id, Some(record))], &[])))
    }

    /// Another name.
    pub fn rename(&mut self, id: DeviceId, to: &str) -> Result<UnitSeq, CommandError> {
        self.check_new_name(to, Some(id))?;
        let mut record = self.live_device(id)?.clone();
        record.name = to.to_owned();
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// More room at the end of a standard device, reading as zeros. Its sessions keep their size.
    pub fn grow(&mut self, id: DeviceId, to_bytes: u64) -> Result<UnitSeq, CommandError> {
        self.geometry.check_device_size(to_bytes)?;
        let mut record = self.standard(id)?.clone();
        if to_bytes < record.size_bytes {
            return Err(CommandError::Shrink { name: record.name, size_bytes: record.size_bytes, to_bytes });
        }
        record.size_bytes = to_bytes;
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// Lets hosts use a device, or stops them.
    pub fn set_online(&mut self, id: DeviceId, online: bool) -> Result<UnitSeq, CommandError> {
        let mut record = self.live_device(id)?.clone();
        record.online = online;
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// Removes a device that no session uses. A standard device's tracks are given back by [`Self::reclaim`]; its
    /// name is free at once.
    pub fn delete_device(&mut self, id: DeviceId) -> Result<UnitSeq, CommandError> {
        let mut record = self.live_device(id)?.clone();
        if let Some(session) = self.session_shown_by(id) {
            return Err(CommandError::Shown { name: record.name, session });
        }
        let device = &self.devices[&id];
        if !device.sessions.is_empty() {
            return Err(CommandError::HasSessions { name: record.name, sessions: device.sessions.len() });
        }
        let change = match &mut record.kind {
            DeviceKind::Standard { deleting, .. } => {
                *deleting = true;
                Change::Device(id, Some(record))
            }
            DeviceKind::Virtual => Change::Device(id, None),
        };
        let seq = self.put(vec![change], &[]);
        // A session that ended may have left versions behind that were kept after they were last looked at.
        self.collect_anew(id);
        Ok(seq)
    }

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
        let record = SessionRecord { standard, virtual_device: None, state, activated_ms: 0 };
        Ok((id, self.put(vec![next, Change::Session(id, Some(record))], &[])))
    }

    /// *Relate* (D7, Fig. 18). The virtual device takes the standard device's size.
    pub fn relate(&mut self, session: SessionId, virtual_device: DeviceId) -> Result<UnitSeq, CommandError> {
        let mut record = self.session(session).ok_or(CommandError::NoSession { session })?.clone();
        let SessionState::Registered { group } = record.state else {
            return Err(wrong_state(session, record.state, "registered", "related"));
        };
        let mut shows = self.live_device(virtual_device)?.clone();
        if shows.is_standard() {
            return Err(CommandError::NotVirtual { name: shows.name });
        }
        if let Some(session) = self.session_shown_by(virtual_device) {
            return Err(CommandError::Shown { name: shows.name, session });
        }
        shows.size_bytes = self.devices[&record.standard].record.size_bytes;
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
            if let Some(name) = &item.name {
                self.check_new_name(name, record.virtual_device)?;
                if list[..at].iter().any(|other| other.name.as_ref() == Some(name)) {
                    return Err(CommandError::Exists { name: name.clone() });
                }
            }
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
                shows.size_bytes = standard.size_bytes;
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
        let standard = record.standard;
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

    /// *Remove* (D6, Fig. 14). The virtual device is free at once; [`Self::reclaim`] gives back what nobody else
    /// needs. No write through the virtual device may be under way.
    pub fn remove_session(&mut self, session: SessionId) -> Result<UnitSeq, CommandError> {
        let record = self.session(session).ok_or(CommandError::NoSession { session })?;
        if record.state == SessionState::Removing {
            return Err(CommandError::NoSession { session });
        }
        Ok(self.end_session(session, SessionState::Removing))
    }

    /// Out of log space: the session loses its old tracks, visibly. Whatever reads it from now on fails.
    pub fn fail_session(&mut self, session: SessionId) -> Result<UnitSeq, CommandError> {
        let record = self.session(session).ok_or(CommandError::NoSession { session })?;
        if record.state.window().is_none() {
            return Err(wrong_state(session, record.state, "active or deactivated", "failed"));
        }
        Ok(self.end_session(session, SessionState::Failed))
    }

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
        match self.devices.get(&id)?.collect {
            Some(from) => self.collect(id, from),
            None => self.reclaim_device(id),
        }
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
            let Some(next) = own.into_iter().chain(kept).min() else {
                at = None;
                break;
            };
            if self.kept(session, next).is_some() {
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

    fn end_session(&mut self, session: SessionId, state: SessionState) -> UnitSeq {
        let found = &self.sessions[&session];
        let mut record = found.record.clone();
        let standard = record.standard;
        let lapses = match record.state {
            SessionState::Active { activated } => vec![(standard, activated)],
            _ => Vec::new(),
        };
        record.state = state;
        if state == SessionState::Removing {
            record.virtual_device = None;
        }
        let gone = state == SessionState::Removing && found.own.is_empty();
        let seq = self.put(vec![Change::Session(session, (!gone).then_some(record))], &lapses);
        self.collect_anew(standard);
        seq
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
        use crate::defect::{Defect, planted};
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
        if next.is_none() && !device.record.is_deleting() {
            self.reclaiming.remove(&id);
        }
        (!changes.is_empty()).then(|| self.put(changes, &[]))
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
        !session.own.contains_key(&track) && until.is_none_or(|until| upto <= until)
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

    fn live_device(&self, id: DeviceId) -> Result<&DeviceRecord, CommandError> {
        self.device(id)
            .filter(|record| !record.is_deleting())
            .ok_or_else(|| CommandError::NoDevice { device: id.to_string() })
    }

    fn standard(&self, id: DeviceId) -> Result<&DeviceRecord, CommandError> {
        let record = self.live_device(id)?;
        if record.is_standard() {
            Ok(record)
        } else {
            Err(CommandError::NotStandard { name: record.name.clone() })
        }
    }

    fn check_new_name(&self, name: &str, holder: Option<DeviceId>) -> Result<(), CommandError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if name.len() > NAME_BYTES_MAX || !begins || !name.chars().all(plain) {
            return Err(CommandError::Name { name: name.chars().take(2 * NAME_BYTES_MAX).collect() });
        }
        match self.device_named(name) {
            Some((id, _)) if Some(id) != holder => Err(CommandError::Exists { name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    fn take_id(&self) -> Result<(u32, Change), CommandError> {
        let next = self.next_id.checked_add(1).ok_or_else(|| CommandError::Limit {
            what: "the number of devices, sessions and groups that ever were".into(),
            most: u32::MAX as usize,
        })?;
        Ok((self.next_id, Change::NextId(next)))
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
