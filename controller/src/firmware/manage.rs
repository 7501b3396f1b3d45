//! Management commands: names to numbers, rules of core, answers once durable.

use std::collections::VecDeque;

use twintrack_core::{
    ActivateSession, CommandError, DeviceId, DeviceKind, DeviceRecord, GroupId, PairCommand, PoolId,
    ScheduleId, SessionId, SessionState, TrackNo,
};
use twintrack_link::manage::{
    Activation, Answer, ArrayInfo, ChangedTracks, Command, DeviceInfo, DeviceInfoKind, GroupMode, PAGE_MAX,
    PoolInfo, Refusal, RefusalCode, SessionInfo, SessionInfoState, TrackRange, WhenFull,
};

use super::copies::core_pace;
use super::durability::Waiter;
use super::event::{CallId, Effect, HostError, Segment};
use super::points::{Caller, Point, What};
use super::reads::Reader;
use super::{Firmware, rounds};

/// What a command leads to.
enum Outcome {
    /// How the array is, whatever becomes of it: the answer, even if nothing can become durable any more.
    AtOnce(Answer),
    /// Nothing was changed: the answer.
    Now(Answer),
    /// Something was changed: the answer once it is durable.
    Durable(Answer),
    /// It waits for writes in flight.
    Later,
}

impl Firmware {
    pub(super) fn manage(&mut self, call: CallId, wall_ms: u64, command: Command, fx: &mut Vec<Effect>) {
        if is_remote(&command) {
            self.remote_command(call, command, fx);
            return;
        }
        match self.command(call, wall_ms, command) {
            Ok(Outcome::Later) => {}
            Ok(Outcome::AtOnce(answer)) => fx.push(Effect::Answer { call, result: Ok(answer) }),
            Ok(Outcome::Now(answer)) => self.answer(call, Ok(answer), fx),
            Ok(Outcome::Durable(answer)) => {
                self.command_unit = self.tables.last_unit();
                self.answer(call, Ok(answer), fx);
            }
            Err(error) => self.answer(call, Err(refusal(&error)), fx),
        }
    }

    /// Answers once everything that commands have changed is durable: neither a list nor a refusal may tell of what a
    /// crash could still undo (crash rule 4).
    pub(super) fn answer(&mut self, call: CallId, answer: Result<Answer, Refusal>, fx: &mut Vec<Effect>) {
        if self.tables.committed_unit() >= self.command_unit {
            fx.push(Effect::Answer { call, result: answer });
        } else if !self.durability.wait(&self.tables, Waiter::Call(call, Box::new(answer))) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    fn command(&mut self, call: CallId, wall_ms: u64, command: Command) -> Result<Outcome, CommandError> {
        let later = |what| Point { caller: Caller::Call(call), wall_ms, what };
        Ok(match command {
            Command::ArrayShow {} => Outcome::AtOnce(Answer::Array(self.array_info())),
            Command::PoolList {} => Outcome::AtOnce(Answer::Pools(self.pool_infos())),
            Command::DeviceCreate { name, size_bytes, pool } => {
                let pool = self.pool(pool.as_deref())?;
                let (id, _) = self.tables.create_standard(&name, pool, size_bytes)?;
                self.device_answer(id)
            }
            Command::DeviceCreateVirtual { name } => {
                let (id, _) = self.tables.create_virtual(&name)?;
                self.device_answer(id)
            }
            Command::DeviceList {} => {
                let mut devices: Vec<_> =
                    self.tables.devices().filter(|(_, record)| !record.is_deleting()).collect();
                devices.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
                let infos = devices.into_iter().map(|(id, record)| self.device_info(id, record));
                Outcome::Now(Answer::Devices(infos.collect()))
            }
            Command::DeviceShow { name } => {
                let id = self.device(&name)?;
                let info = self.tables.device(id).map(|record| self.device_info(id, record));
                Outcome::Now(info.map_or(Answer::Done, Answer::Device))
            }
            Command::DeviceDelete { name } => {
                let id = self.device(&name)?;
                self.tables.delete_device(id)?;
                self.jobs.hurry();
                Outcome::Durable(Answer::Done)
            }
            Command::DeviceRename { name, to } => {
                let id = self.device(&name)?;
                self.tables.rename(id, &to)?;
                self.device_answer(id)
            }
            Command::DeviceResize { name, size_bytes } => {
                let id = self.device(&name)?;
                self.tables.grow(id, size_bytes)?;
                self.device_answer(id)
            }
            Command::DeviceOnline { name, online } => {
                let id = self.device(&name)?;
                self.tables.set_online(id, online)?;
                self.device_answer(id)
            }
            Command::DeviceReserve { name, reserved } => {
                let id = self.device(&name)?;
                self.tables.set_reserved(id, reserved)?;
                self.device_answer(id)
            }
            Command::SessionRegister { standard, group, tracks } => {
                let (id, group) = (self.device(&standard)?, group.map(GroupId));
                let (session, _) = match tracks {
                    None => self.tables.register(id, group)?,
                    Some(part) => {
                        self.tables.register_part(id, group, TrackNo(part.first), TrackNo(part.last))?
                    }
                };
                self.session_answer(session)
            }
            Command::SessionRelate { session, virtual_device } => {
                let id = self.device(&virtual_device)?;
                self.tables.relate(SessionId(session), id)?;
                self.session_answer(SessionId(session))
            }
            Command::SessionActivate { sessions } => {
                let list: Vec<_> = sessions.into_iter().map(activation).collect();
                self.tables.check_activate(&list, None)?;
                self.start_point(later(What::Activate {
                    lists: [list].into(),
                    group: None,
                    done: Vec::new(),
                }));
                Outcome::Later
            }
            Command::SessionDeactivate { session } => {
                self.start_point(later(What::Deactivate(SessionId(session))));
                Outcome::Later
            }
            Command::SessionRemove { session } => {
                self.start_point(later(What::Remove(SessionId(session))));
                Outcome::Later
            }
            Command::SessionList { standard } => {
                let of = standard.map(|name| self.device(&name)).transpose()?;
                let sessions =
                    self.tables.sessions().filter(|(_, session)| of.is_none_or(|of| session.standard == of));
                let ids: Vec<_> = sessions.map(|(id, _)| id).collect();
                Outcome::Now(Answer::Sessions(
                    ids.into_iter().filter_map(|id| self.session_info(id)).collect(),
                ))
            }
            Command::SessionChanged { session, from_track } => {
                let (tracks, next) =
                    self.tables.changed(SessionId(session), TrackNo(from_track), PAGE_MAX)?;
                let tracks = tracks.into_iter().map(|track| track.0).collect();
                Outcome::Now(Answer::Changed(ChangedTracks { tracks, next: next.map(|track| track.0) }))
            }
            Command::SessionDiff { session, other, from_byte } => {
                let other = other.map(SessionId);
                Outcome::Now(Answer::Differences(self.differing(SessionId(session), other, from_byte)?))
            }
            Command::GroupBegin {} => {
                let (group, _) = self.tables.begin_group()?;
                Outcome::Durable(Answer::Group(group.0))
            }
            Command::GroupProcess { group, mode, options } => {
                return self.process_group(call, wall_ms, GroupId(group), mode, options);
            }
            Command::GroupCancel { group } => {
                let sessions = self.tables.group_sessions(GroupId(group))?;
                self.tables.close_group(GroupId(group))?;
                let infos = sessions.into_iter().filter_map(|id| self.session_info(id));
                Outcome::Durable(Answer::Sessions(infos.collect()))
            }
            Command::GroupList {} => {
                Outcome::Now(Answer::Groups(self.tables.groups().map(|group| group.0).collect()))
            }
            Command::SessionRestore { restores } => {
                let list = self.restore_items(restores)?;
                self.tables.check_restore(&list)?;
                self.start_point(later(What::Restore(list)));
                Outcome::Later
            }
            Command::PairCreate { primary, secondary, pace } => {
                let first = self.device(&primary)?;
                let chosen = secondary.map(|name| self.device(&name)).transpose()?;
                let second = chosen.map_or_else(|| self.tables.choose_secondary(first), Ok)?;
                let (id, _) = self.tables.create_local_pair(first, second, core_pace(pace))?;
                Outcome::Durable(self.pair_answer(id))
            }
            Command::PairList {} => Outcome::Now(Answer::Pairs(self.local_pair_infos())),
            Command::PairShow { primary, secondary } => {
                let copies = self.copies_between(&primary, &secondary)?;
                Outcome::Now(copies.first().map_or(Answer::Done, |id| self.pair_answer(*id)))
            }
            Command::PairCopy { primary, secondary, pace } => {
                let (id, command) = (self.local_pair(&primary, &secondary)?, PairCommand::Copy);
                self.tables.check_pair_command(id, command)?;
                let pace = pace.map(core_pace);
                self.start_point(later(What::PairCopy { id, command, keep_before: false, pace }));
                Outcome::Later
            }
            Command::PairRestore { primary, secondary, discard_before, pace } => {
                let (id, command) = (self.local_pair(&primary, &secondary)?, PairCommand::Restore);
                self.tables.check_pair_command(id, command)?;
                let (keep_before, pace) = (!discard_before, pace.map(core_pace));
                self.start_point(later(What::PairCopy { id, command, keep_before, pace }));
                Outcome::Later
            }
            Command::PairResync { primary, secondary, pace } => {
                let id = self.local_pair(&primary, &secondary)?;
                self.tables.resync_local_pair(id)?;
                pace.map(|pace| self.tables.set_pace(id, core_pace(pace))).transpose()?;
                Outcome::Durable(self.pair_answer(id))
            }
            Command::PairPace { primary, secondary, pace } => {
                let copies = self.copies_between(&primary, &secondary)?;
                copies.iter().try_for_each(|id| self.tables.set_pace(*id, core_pace(pace)).map(|_| ()))?;
                Outcome::Durable(copies.first().map_or(Answer::Done, |id| self.pair_answer(*id)))
            }
            Command::PairDelete { primary, secondary } => {
                let id = self.local_pair(&primary, &secondary)?;
                self.tables.delete_local_pair(id)?;
                Outcome::Durable(Answer::Done)
            }
            Command::ScheduleAdd { primary, secondaries, at_ms, every_ms } => {
                let first = self.device(&primary)?;
                let to = secondaries.iter().map(|name| self.device(name)).collect::<Result<_, _>>()?;
                let (id, _) = self.tables.add_schedule(first, to, at_ms.unwrap_or(wall_ms), every_ms)?;
                Outcome::Durable(self.schedule_answer(id))
            }
            Command::ScheduleList {} => Outcome::Now(Answer::Schedules(self.schedule_infos())),
            Command::ScheduleRemove { schedule } => {
                self.tables.remove_schedule(ScheduleId(schedule))?;
                Outcome::Durable(Answer::Done)
            }
            // Those about other arrays have gone another way.
            _ => Outcome::Now(Answer::Done),
        })
    }

    /// *Process group* (D8): its sessions at one instant, or one by one. An empty group is closed.
    fn process_group(
        &mut self,
        call: CallId,
        wall_ms: u64,
        group: GroupId,
        mode: GroupMode,
        options: Vec<Activation>,
    ) -> Result<Outcome, CommandError> {
        let sessions = self.tables.group_sessions(group)?;
        let mut options: Vec<_> = options.into_iter().map(activation).collect();
        if let Some(stranger) = options.iter().find(|option| !sessions.contains(&option.session)) {
            return Err(CommandError::NotInGroup { session: stranger.session, group });
        }
        if sessions.is_empty() {
            self.tables.close_group(group)?;
            return Ok(Outcome::Durable(Answer::Sessions(Vec::new())));
        }
        let mut list = Vec::with_capacity(sessions.len());
        for session in sessions {
            let given = options.iter().position(|option| option.session == session);
            list.push(given.map_or_else(
                || ActivateSession { session, name: None, online: true },
                |at| options.swap_remove(at),
            ));
        }
        if let Some(twice) = options.first() {
            return Err(CommandError::Twice { session: twice.session });
        }
        self.tables.check_activate(&list, Some(group))?;
        let lists: VecDeque<_> = match mode {
            GroupMode::Synchronous => [list].into(),
            GroupMode::OneByOne => list.into_iter().map(|item| vec![item]).collect(),
        };
        let what = What::Activate { lists, group: Some(group), done: Vec::new() };
        self.start_point(Point { caller: Caller::Call(call), wall_ms, what });
        Ok(Outcome::Later)
    }

    /// Whether these are changed tracks of a deactivated session, all of them (D15, Fig. 28): they stay so until it is
    /// removed. Each is then read by [`Event::ReadTrack`](super::Event::ReadTrack).
    pub fn check_tracks(&self, session: u32, tracks: &[u32]) -> Result<(), Refusal> {
        let session = SessionId(session);
        let mut missing = Vec::new();
        for track in tracks.iter().copied().map(TrackNo) {
            match self.changed_track(session, track) {
                Ok(_) => {}
                Err(CommandError::NotChanged { .. }) => missing.push(track),
                Err(error) => return Err(refusal(&error)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(refusal(&CommandError::NotChanged { session, tracks: missing }))
    }

    /// Reads one changed track of a session.
    pub(super) fn read_track(&mut self, call: CallId, session: u32, track: u32, fx: &mut Vec<Effect>) {
        match self.changed_track(SessionId(session), TrackNo(track)) {
            Ok((entry, bytes)) => {
                let owner = twintrack_core::Owner::Session(SessionId(session));
                self.start_read(owner, entry, 0..bytes, Reader::Call(call), 0, fx);
            }
            Err(error) => fx.push(Effect::TrackRead { call, result: Err(refusal(&error)) }),
        }
    }

    fn changed_track(
        &self,
        session: SessionId,
        track: TrackNo,
    ) -> Result<(twintrack_core::Entry, u32), CommandError> {
        let record = self.tables.session(session).ok_or(CommandError::NoSession { session })?;
        if !matches!(record.state, SessionState::Deactivated { .. }) {
            let (wanted, verb) = ("deactivated", "read track by track");
            return Err(CommandError::SessionState { session, state: record.state, wanted, verb });
        }
        let size = self.size_of(twintrack_core::Owner::Session(session));
        let geometry = self.tables.geometry();
        let entry = self.tables.kept(session, track).filter(|_| track.0 < geometry.tracks(size));
        let entry = entry.ok_or_else(|| CommandError::NotChanged { session, tracks: vec![track] })?;
        let rest = size - geometry.offset_of(track);
        Ok((entry, rest.min(u64::from(geometry.track_bytes())) as u32))
    }

    pub(super) fn track_read_done(
        &mut self,
        call: CallId,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map_err(|_| Refusal {
            code: RefusalCode::Unavailable,
            reason: "the store failed to read the track: look at the store's disk".into(),
        });
        fx.push(Effect::TrackRead { call, result });
    }

    pub(super) fn device(&self, name: &str) -> Result<DeviceId, CommandError> {
        let found = self.tables.device_named(name).map(|(id, _)| id);
        found.ok_or_else(|| CommandError::NoDevice { device: name.chars().take(64).collect() })
    }

    pub(super) fn pool(&self, name: Option<&str>) -> Result<PoolId, CommandError> {
        let mut pools = self.tables.pools();
        let found = match name {
            None => pools.next(),
            Some(name) => pools.find(|(_, record)| record.name == name),
        };
        found
            .map(|(id, _)| id)
            .ok_or_else(|| CommandError::NoPoolNamed { name: name.unwrap_or("").chars().take(64).collect() })
    }

    fn device_answer(&self, id: DeviceId) -> Outcome {
        let info = self.tables.device(id).map(|record| self.device_info(id, record));
        Outcome::Durable(info.map_or(Answer::Done, Answer::Device))
    }

    fn session_answer(&self, id: SessionId) -> Outcome {
        Outcome::Durable(self.session_info(id).map_or(Answer::Done, Answer::Session))
    }

    pub(super) fn device_info(&self, id: DeviceId, record: &DeviceRecord) -> DeviceInfo {
        let kind = match record.kind {
            DeviceKind::Standard { pool, .. } => DeviceInfoKind::Standard {
                pool: self
                    .tables
                    .pools()
                    .find(|(id, _)| *id == pool)
                    .map_or_else(String::new, |(_, p)| p.name.clone()),
                sessions: self.tables.sessions_of(id).count() as u32,
            },
            DeviceKind::Virtual => {
                let shows = self.tables.sessions_shown_by(id).iter().map(|session| session.0).collect();
                DeviceInfoKind::Virtual { shows }
            }
        };
        DeviceInfo {
            id: id.0,
            name: record.name.clone(),
            size_bytes: record.size_bytes,
            kind,
            online: record.online,
            reserved: record.reserved,
            copies: self.tables.copies_of_device(id).map(|copy| copy.0).collect(),
        }
    }

    pub(super) fn session_info(&self, id: SessionId) -> Option<SessionInfo> {
        let record = self.tables.session(id)?;
        let name = |id: DeviceId| self.tables.device(id).map(|record| record.name.clone());
        let state = match record.state {
            SessionState::Registered { .. } => SessionInfoState::Registered,
            SessionState::Related { .. } => SessionInfoState::Related,
            SessionState::Active { .. } if self.tables.is_undecided(id) => SessionInfoState::Prepared,
            SessionState::Active { .. } => SessionInfoState::Active,
            SessionState::Deactivated { .. } => SessionInfoState::Deactivated,
            SessionState::Failed => SessionInfoState::Failed,
            SessionState::Removing => SessionInfoState::Removing,
        };
        Some(SessionInfo {
            id: id.0,
            standard: name(record.standard).unwrap_or_default(),
            tracks: record.extent.map(|extent| TrackRange {
                first: extent.first.0,
                last: extent.last(self.tables.geometry()).0,
            }),
            virtual_device: record.virtual_device.and_then(name),
            state,
            group: record.state.group().map(|group| group.0),
            activated_ms: (record.activated_ms > 0).then_some(record.activated_ms),
            pinned: record.pinned.and_then(|pinned| self.pinned_info(id, pinned)),
        })
    }

    fn pool_infos(&self) -> Vec<PoolInfo> {
        let track = u64::from(self.tables.geometry().track_bytes());
        let info = |(id, record): (PoolId, &twintrack_core::PoolRecord)| {
            let space = self.tables.pool_space(id);
            let used = space.tracks - space.free;
            // Content that two devices share is data once for each, and never more than what is used.
            let data = self.tables.data_tracks(id).min(used);
            let policy = self.policy(id);
            PoolInfo {
                name: record.name.clone(),
                when_full: policy.when_full,
                warn_below_bytes: policy.warn_below.of(space.tracks * track),
                size_bytes: space.tracks * track,
                data_bytes: data * track,
                log_bytes: (used - data) * track,
                free_bytes: space.free * track,
            }
        };
        self.tables.pools().map(info).collect()
    }

    fn array_info(&self) -> ArrayInfo {
        let mut warnings = Vec::new();
        for pool in self.pool_infos() {
            if pool.free_bytes < pool.warn_below_bytes {
                let before = match pool.when_full {
                    WhenFull::FailSessions => "the oldest sessions fail and writes find no space",
                    WhenFull::RefuseWrites => "writes are refused",
                };
                warnings.push(format!(
                    "pool {} has {} of {} bytes free: add a store, or remove sessions or devices, before {before}",
                    pool.name, pool.free_bytes, pool.size_bytes
                ));
            }
        }
        for (id, session) in self.tables.sessions() {
            if session.state == SessionState::Failed {
                warnings.push(format!(
                    "{id} failed: the pool was full and its old tracks were given up; remove it"
                ));
            }
        }
        for store in &self.offline {
            warnings.push(format!(
                "{store} is offline: it failed to make data durable; hosts can change nothing on the whole array \
                 until a restart: look at the store's disk, then restart the array"
            ));
        }
        ArrayInfo {
            serial: format!("{:016x}", self.identity.serial),
            version: env!("CARGO_PKG_VERSION").into(),
            track_bytes: self.tables.geometry().track_bytes(),
            devices: self.tables.devices().filter(|(_, record)| !record.is_deleting()).count() as u32,
            sessions: self.tables.sessions().count() as u32,
            warnings,
        }
    }
}

/// Whether a command is about other arrays.
fn is_remote(command: &Command) -> bool {
    matches!(
        command,
        Command::LinkAdd { .. }
            | Command::LinkList {}
            | Command::LinkTest { .. }
            | Command::LinkRemove { .. }
            | Command::RemoteCreate { .. }
            | Command::RemoteList {}
            | Command::RemoteShow { .. }
            | Command::RemoteSuspend { .. }
            | Command::RemoteResume { .. }
            | Command::RemoteMode { .. }
            | Command::RemotePace { .. }
            | Command::RemoteFailover { .. }
            | Command::RemoteGoBack { .. }
            | Command::RemoteSnapshot { .. }
            | Command::RemoteResolve { .. }
            | Command::RemoteVerify { .. }
            | Command::RemoteDelete { .. }
    )
}

fn activation(item: Activation) -> ActivateSession {
    ActivateSession { session: SessionId(item.session), name: item.name, online: !item.offline }
}

/// A refusal for people and programs.
pub(super) fn refusal(error: &CommandError) -> Refusal {
    let code = match error {
        CommandError::Name { .. }
        | CommandError::Size(_)
        | CommandError::Twice { .. }
        | CommandError::Nothing
        | CommandError::Endpoint { .. }
        | CommandError::SameVolume { .. }
        | CommandError::TwiceInto { .. }
        | CommandError::Schedule
        | CommandError::Extent { .. }
        | CommandError::SelfLink { .. } => RefusalCode::BadRequest,
        CommandError::NoDevice { .. }
        | CommandError::NoSession { .. }
        | CommandError::NoGroup { .. }
        | CommandError::NoPool { .. }
        | CommandError::NoPoolNamed { .. }
        | CommandError::NoPeer { .. }
        | CommandError::NoPair { .. }
        | CommandError::NoCopy { .. }
        | CommandError::NotPaired { .. }
        | CommandError::NoSchedule { .. }
        | CommandError::NotChanged { .. } => RefusalCode::NotFound,
        CommandError::Exists { .. }
        | CommandError::PeerExists { .. }
        | CommandError::PeerKnown { .. }
        | CommandError::PairExists { .. } => RefusalCode::Exists,
        CommandError::Limit { .. } => RefusalCode::Limit,
        CommandError::Shrink { .. }
        | CommandError::NotStandard { .. }
        | CommandError::NotVirtual { .. }
        | CommandError::Shown { .. }
        | CommandError::PartialTrack { .. }
        | CommandError::Apart { .. }
        | CommandError::OfPart { .. }
        | CommandError::PartsDiffer { .. }
        | CommandError::HasSessions { .. }
        | CommandError::SessionState { .. }
        | CommandError::InGroup { .. }
        | CommandError::NotInGroup { .. }
        | CommandError::NotOfDevice { .. }
        | CommandError::OtherArray { .. }
        | CommandError::HasPairs { .. }
        | CommandError::Paired { .. }
        | CommandError::GroupDiffers { .. }
        | CommandError::PairState { .. }
        | CommandError::Incomplete { .. }
        | CommandError::Pinned { .. }
        | CommandError::Needed { .. }
        | CommandError::Undecided { .. }
        | CommandError::SizesDiffer { .. }
        | CommandError::InCopy { .. }
        | CommandError::HeldByPair { .. }
        | CommandError::NoneReserved { .. }
        | CommandError::CopyState { .. }
        | CommandError::InUse { .. }
        | CommandError::Filling { .. } => RefusalCode::WrongState,
        CommandError::NoAsynchronous => RefusalCode::BadRequest,
    };
    Refusal { code, reason: error.to_string() }
}
