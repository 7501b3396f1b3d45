//! One step of a history, on the tables and on the model.

use twintrack_core::{
    ActivateSession, CommandError, DeviceId, GroupId, Owner, PhysicalTrack, Place, SECTOR_BYTES, SessionId,
    TrackNo, UnitSeq,
};

use crate::model::{Device, Image, Part, Refused, Session, State};
use crate::ops::Op;
use crate::world::{POOL, World};

/// Names that may be given, some of which are none.
const NAMES: [&str; 12] = ["a", "b", "c", "d-1", "e_2", "f.3", "G", "7", "-x", "", "a b", "ä"];
/// Tracks that a device may have here.
const TRACKS_MAX: u64 = 5;

impl World {
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Write { who, at, sectors } => self.write(*who, *at, *sectors),
            Op::Trim { who, track } => self.trim(*who, *track),
            Op::Merge { who, track, most } => self.merges(*who, *track, *most),
            Op::CreateStandard { name, sectors } => self.create_standard(NAMES[*name as usize], *sectors),
            Op::CreateVirtual { name } => self.create_virtual(NAMES[*name as usize]),
            Op::Delete { device } => self.delete(self.device(*device)),
            Op::Rename { device, name } => self.rename(self.device(*device), NAMES[*name as usize]),
            Op::Online { device, online } => self.set_online(self.device(*device), *online),
            Op::Grow { device, sectors } => self.grow(self.device(*device), *sectors),
            Op::BeginGroup => {
                let (group, _) = self.tables.begin_group().map_err(|error| error.to_string())?;
                self.model.groups.insert(group);
                Ok(())
            }
            Op::CloseGroup { group } => self.close_group(self.group(*group)),
            Op::Register { device, group } => {
                self.register(self.device(*device), group.map(|group| self.group(group))).map(|_| ())
            }
            Op::Relate { session, device } => self.relate(self.session(*session), self.device(*device)),
            Op::Establish { device, count } => self.establish(self.device(*device), *count),
            Op::EstablishParts { parts } => self.establish_parts(parts),
            Op::Activate { sessions, name } => {
                let name = |at: usize| name.filter(|_| at == 0).map(|name| NAMES[name as usize].to_owned());
                let list = sessions.iter().enumerate().map(|(at, n)| (self.session(*n), name(at))).collect();
                self.activate(list, None)
            }
            Op::ProcessGroup { group, one_by_one } => self.process_group(self.group(*group), *one_by_one),
            Op::Deactivate { session } => self.deactivate(self.session(*session)),
            Op::Remove { session } => self.remove(self.session(*session)),
            Op::Fail { session } => self.fail(self.session(*session)),
            Op::Reclaim { steps } => {
                for _ in 0..*steps {
                    self.tables.reclaim();
                }
                Ok(())
            }
            Op::Victim => self.check_victim(),
            Op::Commit { part } => {
                let (done, last) = (self.tables.committed_unit().0, self.tables.last_unit().0);
                self.commit(UnitSeq(done + ((last - done) * (u64::from(*part) + 1)).div_ceil(256)));
                Ok(())
            }
            Op::Restart => self.restart(),
            Op::Discard { most } => self.discard(u32::from(*most)),
            Op::Discarded { which } => self.discarded(*which),
        }
    }

    // Which one: those that are there, and now and then one that is not.

    fn device(&self, number: u8) -> DeviceId {
        let at = number as usize % (self.model.devices.len() + 1);
        self.model.devices.keys().nth(at).copied().unwrap_or(DeviceId(999_999))
    }

    fn session(&self, number: u8) -> SessionId {
        let at = number as usize % (self.model.sessions.len() + 1);
        self.model.sessions.keys().nth(at).copied().unwrap_or(SessionId(999_999))
    }

    fn group(&self, number: u8) -> GroupId {
        let at = number as usize % (self.model.groups.len() + 1);
        self.model.groups.iter().nth(at).copied().unwrap_or(GroupId(999_999))
    }

    /// One that takes writes: a standard device, or an active session.
    fn owner(&self, number: u8) -> Option<Owner> {
        let devices = self.model.devices.iter().filter(|(_, device)| device.standard);
        let sessions = self.model.sessions.iter().filter(|(_, session)| session.state == State::Active);
        let mut all: Vec<_> = devices.map(|(id, _)| Owner::Device(*id)).collect();
        all.extend(sessions.map(|(id, _)| Owner::Session(*id)));
        (!all.is_empty()).then(|| all[number as usize % all.len()])
    }

    fn image(&mut self, owner: Owner) -> Option<&mut Image> {
        match owner {
            Owner::Device(id) => self.model.devices.get_mut(&id).map(|device| &mut device.image),
            Owner::Session(id) => self.model.sessions.get_mut(&id).map(|session| &mut session.image),
        }
    }

    fn mark_changed(&mut self, owner: Owner, track: u32) {
        match owner {
            Owner::Device(id) => self.model.mark_changed(id, track),
            Owner::Session(id) => {
                let session = self.model.sessions.get_mut(&id);
                session.map(|session| session.changed.insert(track));
            }
        }
    }

    // Data.

    fn write(&mut self, who: u8, at: u32, count: u32) -> Result<(), String> {
        let Some(owner) = self.owner(who) else { return Ok(()) };
        let all = self.writable(owner).unwrap_or(0..1);
        let first = all.start + at as usize % all.len();
        let count = (count as usize).min(all.end - first);
        self.last_value += 1;
        let (value, bytes) = (self.last_value, u64::from(SECTOR_BYTES));
        let parts: Vec<_> = self.geometry.split(first as u64 * bytes, count as u64 * bytes).collect();
        for (track, within, length) in parts {
            let (from, count) = ((within / SECTOR_BYTES) as usize, (length / SECTOR_BYTES) as usize);
            if !self.write_part(Place { owner, track }, from, count, value)? {
                let space = self.tables.pool_space(POOL);
                return if space.free == 0 { Ok(()) } else { Err(format!("no space is found in {space:?}")) };
            }
            let per_track = self.sectors_per_track();
            let first = track.0 as usize * per_track + from;
            self.image(owner).expect("it takes writes").write(first, count, value, per_track);
            self.mark_changed(owner, track.0);
        }
        Ok(())
    }

    fn trim(&mut self, who: u8, track: u32) -> Result<(), String> {
        let Some(owner) = self.owner(who) else { return Ok(()) };
        let per_track = self.sectors_per_track();
        let all = self.writable(owner).unwrap_or(0..1);
        let tracks = all.len().div_ceil(per_track) as u32;
        let track = (all.start / per_track) as u32 + track % tracks;
        let place = Place { owner, track: TrackNo(track) };
        let cleared = self.tables.clear(place).map_err(|error| format!("{error:?}"))?;
        self.last_value += 1;
        let value = self.last_value;
        let image = self.image(owner).expect("it takes writes");
        if cleared.is_some() != image.allocated[track as usize] {
            return Err(format!("a trim of {place} says {cleared:?}"));
        }
        if cleared.is_some() {
            image.trim(track as usize, value, per_track);
            self.mark_changed(owner, track);
        }
        Ok(())
    }

    fn merges(&mut self, who: u8, track: u32, most: u8) -> Result<(), String> {
        let Some(Owner::Device(id)) = self.owner(who) else { return Ok(()) };
        let mut from = TrackNo(track % TRACKS_MAX as u32);
        for _ in 0..most {
            let Some(track) = self.tables.next_overlaid(id, from) else { break };
            self.merge(Place { owner: Owner::Device(id), track })?;
            from = TrackNo(track.0 + 1);
        }
        Ok(())
    }

    fn discard(&mut self, most: u32) -> Result<(), String> {
        let Some((store, start, count)) = self.tables.take_discardable(most) else { return Ok(()) };
        if count == 0 || count > most {
            return Err(format!("{count} tracks to discard, of at most {most}"));
        }
        self.discards.push((store, start, count));
        Ok(())
    }

    fn discarded(&mut self, which: u8) -> Result<(), String> {
        if self.discards.is_empty() {
            return Ok(());
        }
        let (store, start, count) = self.discards.swap_remove(which as usize % self.discards.len());
        let first = self.durable.stores[&store].first;
        for number in first + start..first + start + count {
            self.junk(PhysicalTrack::new(number).expect("a store begins at 1 or later"));
        }
        self.tables.discarded(store, start, count);
        Ok(())
    }

    // Commands: refused as the model says, and then nothing has changed.

    fn agree<T>(
        &self,
        before: UnitSeq,
        wanted: Result<(), Refused>,
        found: Result<T, CommandError>,
    ) -> Result<Option<T>, String> {
        match (wanted, found) {
            (Ok(()), Ok(value)) => Ok(Some(value)),
            (Err(wanted), Err(found)) => {
                let kind = format!("{found:?}");
                let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                if kind == wanted && self.tables.last_unit() == before {
                    Ok(None)
                } else {
                    Err(format!("refused with {found:?}, which should have been {wanted}"))
                }
            }
            (wanted, found) => Err(format!("{:?} where {wanted:?} was due", found.map(|_| ()))),
        }
    }

    fn create_standard(&mut self, name: &str, sectors: u32) -> Result<(), String> {
        let before = self.tables.last_unit();
        let most = TRACKS_MAX * u64::from(self.geometry.track_bytes() / SECTOR_BYTES);
        let size_bytes = u64::from(sectors) % (most + 1) * u64::from(SECTOR_BYTES);
        let wanted = if size_bytes == 0 { Err("Size") } else { self.model.check_name(name, None) };
        let made = self.tables.create_standard(name, POOL, size_bytes);
        if let Some((id, _)) = self.agree(before, wanted, made)? {
            let mut image = Image::default();
            image.resize(self.tracks(size_bytes), self.sectors_per_track());
            let device = Device { name: name.into(), standard: true, size_bytes, online: true, image };
            self.add_device(id, device)?;
        }
        Ok(())
    }

    fn create_virtual(&mut self, name: &str) -> Result<(), String> {
        let (before, wanted) = (self.tables.last_unit(), self.model.check_name(name, None));
        let made = self.tables.create_virtual(name);
        if let Some((id, _)) = self.agree(before, wanted, made)? {
            let (standard, image) = (false, Image::default());
            self.add_device(id, Device { name: name.into(), standard, size_bytes: 0, online: true, image })?;
        }
        Ok(())
    }

    fn add_device(&mut self, id: DeviceId, device: Device) -> Result<(), String> {
        match self.model.devices.insert(id, device) {
            None => Ok(()),
            Some(_) => Err(format!("{id} was given twice")),
        }
    }

    fn delete(&mut self, id: DeviceId) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = if !self.model.devices.contains_key(&id) {
            Err("NoDevice")
        } else if self.model.session_of(id).is_some() {
            Err("Shown")
        } else if self.tables.sessions_of(id).next().is_some() {
            // Those being removed count, too.
            Err("HasSessions")
        } else {
            Ok(())
        };
        let deleted = self.tables.delete_device(id);
        if self.agree(before, wanted, deleted)?.is_some() {
            self.model.devices.remove(&id);
        }
        Ok(())
    }

    fn rename(&mut self, id: DeviceId, name: &str) -> Result<(), String> {
        let before = self.tables.last_unit();
        let there = if self.model.devices.contains_key(&id) { Ok(()) } else { Err("NoDevice") };
        let wanted = self.model.check_name(name, Some(id)).and(there);
        let renamed = self.tables.rename(id, name);
        if self.agree(before, wanted, renamed)?.is_some() {
            self.model.devices.get_mut(&id).expect("it was renamed").name = name.into();
        }
        Ok(())
    }

    fn set_online(&mut self, id: DeviceId, online: bool) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = if self.model.devices.contains_key(&id) { Ok(()) } else { Err("NoDevice") };
        let set = self.tables.set_online(id, online);
        if self.agree(before, wanted, set)?.is_some() {
            self.model.devices.get_mut(&id).expect("it was set").online = online;
        }
        Ok(())
    }

    fn grow(&mut self, id: DeviceId, sectors: u32) -> Result<(), String> {
        let before = self.tables.last_unit();
        let most = TRACKS_MAX * u64::from(self.geometry.track_bytes() / SECTOR_BYTES);
        let to_bytes = (1 + u64::from(sectors) % most) * u64::from(SECTOR_BYTES);
        let wanted = self
            .model
            .standard(id)
            .and_then(|device| if to_bytes < device.size_bytes { Err("Shrink") } else { Ok(()) });
        let grown = self.tables.grow(id, to_bytes);
        if self.agree(before, wanted, grown)?.is_some() {
            let (tracks, per_track) = (self.tracks(to_bytes), self.sectors_per_track());
            let device = self.model.devices.get_mut(&id).expect("it grew");
            device.size_bytes = to_bytes;
            device.image.resize(tracks, per_track);
        }
        Ok(())
    }

    fn close_group(&mut self, group: GroupId) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = if self.model.groups.contains(&group) { Ok(()) } else { Err("NoGroup") };
        let closed = self.tables.close_group(group);
        if self.agree(before, wanted, closed)?.is_some() {
            self.model.groups.remove(&group);
            let of_group = self.model.sessions.values_mut().filter(|session| session.group == Some(group));
            of_group.for_each(|session| session.group = None);
        }
        Ok(())
    }

    fn register(&mut self, standard: DeviceId, group: Option<GroupId>) -> Result<Option<SessionId>, String> {
        let before = self.tables.last_unit();
        let open = group.is_none_or(|group| self.model.groups.contains(&group));
        let wanted = self.model.standard(standard).and(if open { Ok(()) } else { Err("NoGroup") });
        let registered = self.tables.register(standard, group);
        let Some((id, _)) = self.agree(before, wanted, registered)? else { return Ok(None) };
        self.registered(id, standard, group, None)
    }

    /// Some tracks of a device; some of the numbers mean tracks that it does not have.
    fn register_part(
        &mut self,
        standard: DeviceId,
        first: u8,
        more: u8,
    ) -> Result<Option<SessionId>, String> {
        let size_bytes = self.model.devices.get(&standard).map_or(0, |device| device.size_bytes);
        let tracks = self.tracks(size_bytes) as u32;
        let first = u32::from(first) % (tracks + 1);
        let last = first + u32::from(more) % TRACKS_MAX as u32;
        let wanted = self.model.standard(standard).and(if last < tracks { Ok(()) } else { Err("Extent") });
        let before = self.tables.last_unit();
        let registered = self.tables.register_part(standard, None, TrackNo(first), TrackNo(last));
        let Some((id, _)) = self.agree(before, wanted, registered)? else { return Ok(None) };
        let behind = |track: u32| u64::from(track) * u64::from(self.geometry.track_bytes());
        let size_bytes = behind(last + 1).min(size_bytes) - behind(first);
        self.registered(id, standard, None, Some(Part { first, last, size_bytes, end: 0 }))
    }

    fn registered(
        &mut self,
        id: SessionId,
        standard: DeviceId,
        group: Option<GroupId>,
        part: Option<Part>,
    ) -> Result<Option<SessionId>, String> {
        let session = Session {
            standard,
            part,
            shown_by: None,
            group,
            state: State::Registered,
            size_bytes: 0,
            image: Image::default(),
            changed: Default::default(),
        };
        match self.model.sessions.insert(id, session) {
            None => Ok(Some(id)),
            Some(_) => Err(format!("{id} was given twice")),
        }
    }

    fn relate(&mut self, session: SessionId, device: DeviceId) -> Result<(), String> {
        let wanted = self.model.relate(session, device, self.geometry.track_bytes());
        let (before, begin) = (self.tables.last_unit(), self.model.parts_end(device));
        let related = self.tables.relate(session, device);
        if self.agree(before, wanted, related)?.is_some() {
            let session = self.model.sessions.get_mut(&session).expect("it was related");
            (session.shown_by, session.state) = (Some(device), State::Related);
            let mut size_bytes = self.model.devices[&session.standard].size_bytes;
            if let Some(part) = &mut session.part {
                size_bytes = begin + part.size_bytes;
                part.end = size_bytes;
            }
            self.model.devices.get_mut(&device).expect("it was related").size_bytes = size_bytes;
        }
        Ok(())
    }

    fn establish_parts(&mut self, parts: &[(u8, u8, u8)]) -> Result<(), String> {
        let idle =
            |(id, device): &(&DeviceId, &Device)| !device.standard && self.model.session_of(**id).is_none();
        let Some(shows) = self.model.devices.iter().find(idle).map(|(id, _)| *id) else { return Ok(()) };
        for (device, first, more) in parts {
            if let Some(session) = self.register_part(self.device(*device), *first, *more)? {
                self.relate(session, shows)?;
            }
        }
        let related = |(_, session): &(&SessionId, &Session)| session.shown_by == Some(shows);
        let list: Vec<_> = self.model.sessions.iter().filter(related).map(|(id, _)| (*id, None)).collect();
        self.activate(list, None)?;
        self.check_parts(shows)
    }

    /// Each byte of a virtual device of parts is that of the part it is in, and they are all there.
    fn check_parts(&self, shows: DeviceId) -> Result<(), String> {
        let shown = self.model.sessions.iter().filter(|(_, session)| session.shown_by == Some(shows));
        let Some((first, _)) = shown.clone().next() else { return Ok(()) };
        for (id, session) in shown {
            let Some(part) = session.part else { continue };
            let begin = part.end - part.size_bytes;
            let there = u64::from(part.first) * u64::from(self.geometry.track_bytes());
            for within in [0, part.size_bytes / 2, part.size_bytes - 1] {
                let found = self.tables.part_at(Owner::Session(*first), begin + within);
                if found != (Owner::Session(*id), there + within, part.size_bytes - within) {
                    return Err(format!("byte {} of {shows} is {found:?}, not of {id}", begin + within));
                }
            }
        }
        if !self.tables.is_shown_whole(shows) {
            return Err(format!("{shows} is not whole"));
        }
        Ok(())
    }

    fn establish(&mut self, standard: DeviceId, count: u8) -> Result<(), String> {
        let mut list = Vec::new();
        for _ in 0..count {
            let idle = self
                .model
                .devices
                .iter()
                .find(|(id, device)| !device.standard && self.model.session_of(**id).is_none());
            let Some(device) = idle.map(|(id, _)| *id) else {
                let unused = |name: &&&str| self.model.check_name(name, None).is_ok();
                let name = NAMES.iter().find(unused).copied();
                return name.map_or(Ok(()), |name| self.create_virtual(name));
            };
            let Some(session) = self.register(standard, None)? else { return Ok(()) };
            self.relate(session, device)?;
            list.push((session, None));
        }
        self.activate(list, None)
    }

    fn activate(
        &mut self,
        list: Vec<(SessionId, Option<String>)>,
        group: Option<GroupId>,
    ) -> Result<(), String> {
        let (before, wanted) = (self.tables.last_unit(), self.model.activate(&list, group));
        let items: Vec<_> = list
            .iter()
            .map(|(session, name)| ActivateSession { session: *session, name: name.clone(), online: true })
            .collect();
        let activated = self.tables.activate(&items, group, u64::from(self.last_value));
        if self.agree(before, wanted, activated)?.is_some() {
            self.model.cut(&list);
        }
        Ok(())
    }

    fn process_group(&mut self, group: GroupId, one_by_one: bool) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = if self.model.groups.contains(&group) { Ok(()) } else { Err("NoGroup") };
        let listed = self.tables.group_sessions(group);
        let Some(sessions) = self.agree(before, wanted, listed)? else { return Ok(()) };
        let mut list: Vec<_> = sessions.into_iter().map(|session| (session, None)).collect();
        let (count, wanted) = (list.len(), self.model.activate(&list, Some(group)));
        if one_by_one && wanted.is_ok() {
            for (left, item) in list.drain(..).rev().enumerate() {
                if left > 0 && !self.model.groups.contains(&group) {
                    return Err(format!("{group} is closed before its last session is active"));
                }
                self.activate(vec![item], Some(group))?;
                let open = self.tables.groups().any(|open| open == group);
                if open == (left + 1 == count) {
                    return Err(format!("{group} is open: {open}, after {left} sessions of {count}"));
                }
            }
        } else {
            self.activate(list, Some(group))?;
        }
        if wanted.is_ok() {
            self.model.groups.remove(&group);
        }
        Ok(())
    }

    fn deactivate(&mut self, id: SessionId) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = match self.model.sessions.get(&id) {
            None => Err("NoSession"),
            Some(session) if session.state != State::Active => Err("SessionState"),
            Some(_) => Ok(()),
        };
        let deactivated = self.tables.deactivate(id);
        if self.agree(before, wanted, deactivated)?.is_some() {
            self.model.sessions.get_mut(&id).expect("it was deactivated").state = State::Deactivated;
        }
        Ok(())
    }

    fn remove(&mut self, id: SessionId) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = if self.model.sessions.contains_key(&id) { Ok(()) } else { Err("NoSession") };
        let removed = self.tables.remove_session(id);
        if self.agree(before, wanted, removed)?.is_some() {
            self.model.sessions.remove(&id);
        }
        Ok(())
    }

    fn fail(&mut self, id: SessionId) -> Result<(), String> {
        let before = self.tables.last_unit();
        let wanted = match self.model.sessions.get(&id) {
            None => Err("NoSession"),
            Some(session) if !session.state.is_point() => Err("SessionState"),
            Some(_) => Ok(()),
        };
        let failed = self.tables.fail_session(id);
        if self.agree(before, wanted, failed)?.is_some() {
            self.model.sessions.get_mut(&id).expect("it failed").state = State::Failed;
        }
        Ok(())
    }
}
