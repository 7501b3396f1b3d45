//! What may happen next: one step of a history.

use twintrack_core::{
    ActivateSession, BlockMask, DeviceId, Owner, Place, PoolId, SessionId, SessionState, TrackNo, WriteError,
};

use crate::array::{Break, Flight, Reading};
use crate::common::Rng;
use crate::mix::Step;
use crate::world::{BLOCKS, Flush, Key, TRACK_BYTES, TRACKS, World};

const POOL: PoolId = PoolId(0);

impl World {
    pub fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        match rng.pick(&self.standards()) {
            Some(device) => self.step_with(device, rng)?,
            None => self.create_standard(rng)?,
        }
        self.note();
        self.answer();
        self.check()
    }

    fn step_with(&mut self, device: DeviceId, rng: &mut Rng) -> Result<(), String> {
        let live = self.sessions(Some(device), true);
        let session = rng.pick(&live);
        let owner = match session {
            Some(id) if rng.chance(35) => Owner::Session(id),
            _ => Owner::Device(device),
        };
        let track = if rng.chance(self.mix.hot_percent) { 0 } else { rng.below(TRACKS as usize) as u32 };
        match self.mix.pick(rng) {
            Step::Write => self.start_write(owner, track, rng),
            Step::Land if self.array.writes.is_empty() => Ok(()),
            Step::Land => self.land(rng.below(self.array.writes.len())),
            Step::Abandon => self.abandon(rng),
            Step::Read => self.start_read(owner, track, rng),
            Step::EndRead => self.end_read(rng),
            Step::Trim => self.trim(owner, track),
            Step::Flush => {
                self.flush(None)?;
                self.answer();
                // What was promised is worth most just before a power cut.
                if rng.chance(10) { self.power_cut(rng) } else { Ok(()) }
            }
            Step::Fua => self.fua(owner, track, rng),
            Step::Sync => self.array.begin_sync(),
            Step::EndSync if self.array.syncs.is_empty() => Ok(()),
            Step::EndSync => self.array.end_sync(rng.below(self.array.syncs.len())),
            Step::Commit => self.array.begin_commit(rng),
            Step::EndCommit => self.array.end_commit(),
            Step::Round => self.round(rng),
            Step::Activate => self.activate(device, rng),
            Step::Deactivate => self.deactivate(session),
            Step::Remove => {
                let all: Vec<_> = self.array.tables.sessions().map(|(id, _)| id).collect();
                self.remove(rng.pick(&all), rng)
            }
            Step::Fail => {
                let all = self.sessions(None, false);
                self.fail(rng.pick(&all))
            }
            Step::Retire => self.retire(rng),
            Step::Reclaim => self.reclaim(),
            Step::Merge => self.merge(device, track, rng),
            Step::Discard => self.start_discard(rng),
            Step::EndDiscard => self.end_discard(rng),
            Step::Create => self.create_standard(rng),
            Step::Delete => self.delete(device),
            Step::PowerCut => self.power_cut(rng),
        }
    }

    // Host I/O takes time.

    fn start_write(&mut self, owner: Owner, track: u32, rng: &mut Rng) -> Result<(), String> {
        let from = rng.below(BLOCKS as usize) as u32;
        let (from, to) = match rng.below(4) {
            0 => (0, BLOCKS),
            1 => (from, from + 1 + rng.below((BLOCKS - from) as usize) as u32),
            _ => (from, from + 1),
        };
        let blocks = BlockMask::range(from, to);
        let place = Place { owner, track: TrackNo(track) };
        if self.array.has_to_wait(place, blocks) {
            return Ok(());
        }
        let plan = match self.array.tables.plan_write(place, blocks) {
            Ok(plan) => plan,
            Err(WriteError::NoSpace(_)) => return self.out_of_space(rng),
            Err(WriteError::Gone) => return Err(format!("{place} takes no writes")),
        };
        if self.array.fresh_has_to_wait(&plan) {
            self.array.tables.abandon_write(plan);
            return Ok(());
        }
        let mut values = Vec::new();
        for block in blocks.runs().flatten() {
            self.last_value += 1;
            self.might((owner, track, block), self.last_value);
            // The disk may be quick.
            let there = rng.chance(25);
            if there {
                self.array.disk.write(plan.slot(), block, self.last_value);
            }
            values.push((block, self.last_value, there));
        }
        self.say(format!("write {place} {blocks:?} from {} in {}: {values:?}", plan.old(), plan.slot()));
        self.array.writes.push(Flight { plan, values, merge: false });
        // The background goes on meanwhile, below a session's write, too.
        match self.standard_of(owner) {
            Some(standard) if rng.chance(20) => self.merge(standard, track, rng),
            _ => Ok(()),
        }
    }

    fn standard_of(&self, owner: Owner) -> Option<DeviceId> {
        match owner {
            Owner::Device(_) => None,
            Owner::Session(id) => self.array.tables.session(id).map(|record| record.standard),
        }
    }

    fn land(&mut self, at: usize) -> Result<(), String> {
        let flight = self.array.writes.remove(at);
        let place = flight.plan.place();
        self.array.finish_blocks(&flight);
        let landed = self.array.tables.land_write(flight.plan);
        self.say(format!("land {place}: {landed:?}, {:?}", self.array.tables.entry(place)));
        if landed.is_err() || flight.merge {
            // A session that failed meanwhile, or a device that was deleted, takes no write any more.
            return Ok(());
        }
        for (block, value, _) in flight.values {
            self.become_value((place.owner, place.track.0, block), value);
        }
        self.mark_changed(place.owner, place.track.0);
        Ok(())
    }

    /// The disk answers with an error.
    fn abandon(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.array.writes.is_empty() {
            return Ok(());
        }
        let flight = self.array.writes.remove(rng.below(self.array.writes.len()));
        let place = flight.plan.place();
        for (block, value, there) in &flight.values {
            if !there && rng.chance(30) {
                self.array.disk.write(flight.plan.slot(), *block, *value);
            } else if !there {
                continue;
            }
            if flight.plan.in_place(*block) && !flight.merge {
                self.become_value((place.owner, place.track.0, *block), *value);
            }
        }
        self.say(format!("abandon {place}"));
        self.array.tables.abandon_write(flight.plan);
        Ok(())
    }

    /// Lands the writes in flight to a place, or to all of a track table.
    fn drain(&mut self, owner: Owner, track: Option<u32>) -> Result<(), String> {
        let of = |flight: &Flight| {
            let place = flight.plan.place();
            place.owner == owner && track.is_none_or(|track| place.track.0 == track)
        };
        while let Some(at) = self.array.writes.iter().position(of) {
            self.land(at)?;
            self.note();
        }
        Ok(())
    }

    fn start_read(&mut self, owner: Owner, track: u32, rng: &mut Rng) -> Result<(), String> {
        let key = (owner, track, rng.below(BLOCKS as usize) as u32);
        if !self.readable(key) {
            return Ok(());
        }
        let entry = self.array.tables.entry(Place { owner, track: TrackNo(track) });
        let entry = entry.ok_or_else(|| format!("{key:?} has no entry"))?;
        self.array.tables.pin(owner, entry);
        self.say(format!("read {key:?} on {entry}"));
        let legal = self.legal(key);
        self.array.reads.push(Reading { owner, key, entry, legal });
        Ok(())
    }

    fn end_read(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.array.reads.is_empty() {
            return Ok(());
        }
        let read = self.array.reads.swap_remove(rng.below(self.array.reads.len()));
        let value = self.array.read(read.entry, read.key.2);
        self.array.tables.unpin(read.owner, read.entry);
        self.say(format!("end of read {:?}: {value}", read.key));
        // It holds its tracks: even if its session has ended meanwhile, it shows what was there.
        if !read.legal.contains(&value) {
            return Err(format!("a read of {:?} returned {value}, not one of {:?}", read.key, read.legal));
        }
        Ok(())
    }

    fn trim(&mut self, owner: Owner, track: u32) -> Result<(), String> {
        if !self.array.breaks(Break::TrimUndrained) {
            self.drain(owner, Some(track))?;
        }
        let cleared = self.array.tables.clear(Place { owner, track: TrackNo(track) });
        self.say(format!("trim {owner}/{track}: {cleared:?}"));
        match cleared {
            Ok(Some(_)) => self.mark_changed(owner, track),
            Ok(None) => {}
            Err(error) => return Err(format!("a trim of {owner}/{track} was refused: {error:?}")),
        }
        for block in 0..BLOCKS {
            self.become_value((owner, track, block), 0);
        }
        Ok(())
    }

    // What becomes durable.

    /// A FLUSH of everything, or what FUA does for one track.
    fn flush(&mut self, only: Option<(Owner, u32)>) -> Result<(), String> {
        let fits = |key: &Key| only.is_none_or(|only| only == (key.0, key.1));
        let legal = self.now.keys().filter(|key| fits(key)).map(|key| (*key, self.legal(*key))).collect();
        let flush = Flush { unit: self.array.tables.last_unit(), mark: self.array.disk.mark(), legal };
        self.say(format!("flush of {only:?} at {}", flush.unit));
        self.flushes.push(flush);
        Ok(())
    }

    fn fua(&mut self, owner: Owner, track: u32, rng: &mut Rng) -> Result<(), String> {
        self.drain(owner, Some(track))?;
        self.flush(Some((owner, track)))?;
        if rng.chance(50) { self.round(rng) } else { Ok(()) }
    }

    /// Sync and commit, all of it in this step.
    fn round(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.array.begin_sync()?;
        self.array.end_sync(self.array.syncs.len() - 1)?;
        self.array.begin_commit(rng)?;
        while !self.array.commits.is_empty() {
            self.array.end_commit()?;
        }
        self.say(format!("round up to {}", self.array.durable_unit));
        Ok(())
    }

    // Commands.

    fn create_standard(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.standards().len() < 2 {
            self.names += 1;
            let size = u64::from(TRACKS * TRACK_BYTES) - 512 * rng.below(8) as u64;
            let name = format!("d{}", self.names);
            let made = self.array.tables.create_standard(&name, POOL, size);
            let (id, unit) = made.map_err(|e| e.to_string())?;
            self.say(format!("create {id}: {unit}"));
            self.waiting.push(unit);
            for track in 0..TRACKS {
                (0..BLOCKS).for_each(|block| self.begin((Owner::Device(id), track, block), 0));
            }
        }
        Ok(())
    }

    /// Only a device that has no sessions; its writes in flight may land in vain.
    fn delete(&mut self, device: DeviceId) -> Result<(), String> {
        if self.array.tables.sessions_of(device).next().is_none() {
            let unit = self.array.tables.delete_device(device).map_err(|e| e.to_string())?;
            self.say(format!("delete {device}: {unit}"));
            self.waiting.push(unit);
        }
        Ok(())
    }

    /// Registers, relates and activates sessions of one device or of all, several of one instant.
    fn activate(&mut self, device: DeviceId, rng: &mut Rng) -> Result<(), String> {
        let standards = if rng.chance(40) { self.standards() } else { vec![device] };
        let mut list = Vec::new();
        for id in &standards {
            let room = self.mix.sessions.saturating_sub(self.sessions(Some(*id), false).len());
            for _ in 0..room.min(1 + rng.below(4) / 3) {
                list.push((*id, self.related(*id)?));
            }
        }
        if list.is_empty() {
            return Ok(());
        }
        if !self.array.breaks(Break::ActivateUndrained) {
            for id in &standards {
                self.drain(Owner::Device(*id), None)?;
            }
        }
        let items: Vec<_> = list
            .iter()
            .map(|(_, session)| ActivateSession { session: *session, name: None, online: true })
            .collect();
        let unit = self
            .array
            .tables
            .activate(&items, None, u64::from(self.last_value))
            .map_err(|e| e.to_string())?;
        self.say(format!("activate {list:?}: {unit}"));
        for (id, session) in list {
            self.begin_session(session, id);
        }
        self.waiting.push(unit);
        if self.array.breaks(Break::PointToldEarly) {
            self.note();
            self.array.sync_new_tracks();
            self.array.begin_commit(rng)?;
            while !self.array.commits.is_empty() {
                self.array.end_commit()?;
            }
        }
        Ok(())
    }

    fn related(&mut self, device: DeviceId) -> Result<SessionId, String> {
        let (session, _) = self.array.tables.register(device, None).map_err(|e| e.to_string())?;
        self.note();
        let tables = &mut self.array.tables;
        let idle = tables
            .devices()
            .find(|(id, record)| !record.is_standard() && tables.session_shown_by(*id).is_none());
        let shows = match idle.map(|(id, _)| id) {
            Some(id) => id,
            None => {
                self.names += 1;
                tables.create_virtual(&format!("v{}", self.names)).map_err(|e| e.to_string())?.0
            }
        };
        self.note();
        self.array.tables.relate(session, shows).map_err(|e| e.to_string())?;
        self.note();
        Ok(session)
    }

    fn deactivate(&mut self, session: Option<SessionId>) -> Result<(), String> {
        let Some(session) = session else { return Ok(()) };
        if !self.array.breaks(Break::DeactivateUndrained) {
            self.drain(Owner::Session(session), None)?;
        }
        let unit = self.array.tables.deactivate(session).map_err(|e| e.to_string())?;
        self.say(format!("deactivate {session}: {unit}"));
        self.waiting.push(unit);
        Ok(())
    }

    fn remove(&mut self, session: Option<SessionId>, rng: &mut Rng) -> Result<(), String> {
        let state = |id| self.array.tables.session(id).map(|record| record.state);
        let Some(session) = session.filter(|id| state(*id) != Some(SessionState::Removing)) else {
            return Ok(());
        };
        self.drain(Owner::Session(session), None)?;
        let unit = self.array.tables.remove_session(session).map_err(|e| e.to_string())?;
        self.say(format!("remove {session}: {unit}"));
        self.waiting.push(unit);
        self.note();
        if rng.chance(30) { self.reclaim() } else { Ok(()) }
    }

    /// The end of a backup: a deactivated session is removed, and hosts go on writing the tracks that it had.
    fn retire(&mut self, rng: &mut Rng) -> Result<(), String> {
        let mut ended = self.sessions(None, false);
        ended.retain(|id| !self.sessions(None, true).contains(id));
        let Some(session) = rng.pick(&ended) else { return Ok(()) };
        let standard = self.array.tables.session(session).map(|record| record.standard);
        let tracks = self.changed_tracks(session);
        self.remove(Some(session), rng)?;
        self.reclaim()?;
        self.note();
        let (Some(standard), Some(track)) = (standard, rng.pick(&tracks)) else { return Ok(()) };
        self.start_write(Owner::Device(standard), track, rng)
    }

    /// Nobody waits for a session's writes before it fails.
    fn fail(&mut self, session: Option<SessionId>) -> Result<(), String> {
        if let Some(session) = session {
            let unit = self.array.tables.fail_session(session).map_err(|e| e.to_string())?;
            self.say(format!("fail {session}: {unit}"));
            self.waiting.push(unit);
        }
        Ok(())
    }

    // Space.

    fn out_of_space(&mut self, rng: &mut Rng) -> Result<(), String> {
        if self.array.tables.pool_space(POOL).free > 0 {
            return Err("there is free space, and none is found".into());
        }
        self.say("out of space".into());
        match rng.below(3) {
            0 => self.fail(self.array.tables.oldest_failable(POOL)),
            1 => self.round(rng),
            _ => self.reclaim(),
        }
    }

    fn reclaim(&mut self) -> Result<(), String> {
        if let Some(unit) = self.array.tables.reclaim() {
            self.say(format!("reclaim: {unit}"));
            self.note();
        }
        Ok(())
    }

    fn start_discard(&mut self, rng: &mut Rng) -> Result<(), String> {
        let taken = self.array.tables.take_discardable(1 + rng.below(4) as u32);
        if let Some((store, start, count)) = taken {
            self.say(format!("discard {count} from {start} of {store}"));
            self.array.discards.push((store, start, count));
        }
        Ok(())
    }

    fn end_discard(&mut self, rng: &mut Rng) -> Result<(), String> {
        if !self.array.discards.is_empty() {
            let discard = self.array.discards.swap_remove(rng.below(self.array.discards.len()));
            self.array.junk(discard);
            let (store, start, count) = discard;
            self.array.tables.discarded(store, start, count);
            self.say(format!("discarded {count} from {start} of {store}"));
        }
        Ok(())
    }

    /// The background copy that completes an overlay.
    fn merge(&mut self, device: DeviceId, track: u32, rng: &mut Rng) -> Result<(), String> {
        let Some(track) = self.array.tables.next_overlaid(device, TrackNo(track)) else { return Ok(()) };
        let place = Place { owner: Owner::Device(device), track };
        if !self.array.breaks(Break::MergeUndrained) {
            self.drain(place.owner, Some(track.0))?;
        }
        let Some(plan) = self.array.tables.plan_merge(place) else { return Ok(()) };
        let read = |block| (block, self.array.read(plan.old(), block), false);
        let values: Vec<_> = plan.blocks().runs().flatten().map(read).collect();
        self.say(format!("merge {place} of {}", plan.old()));
        self.array.writes.push(Flight { plan, values, merge: true });
        if rng.chance(50) { self.land(self.array.writes.len() - 1) } else { Ok(()) }
    }

    /// Ends everything under way, removes everything, and sees that nothing is left.
    pub fn wind_up(&mut self, rng: &mut Rng) -> Result<(), String> {
        while !self.array.writes.is_empty() {
            self.land(0)?;
        }
        while !self.array.reads.is_empty() {
            self.end_read(rng)?;
        }
        while !self.array.discards.is_empty() {
            self.end_discard(rng)?;
        }
        let sessions: Vec<_> = self.array.tables.sessions().map(|(id, record)| (id, record.state)).collect();
        for (id, state) in sessions {
            if state != SessionState::Removing {
                self.array.tables.remove_session(id).map_err(|e| e.to_string())?;
            }
        }
        self.settle(rng)?;
        self.note();
        self.check()?;
        for id in self.array.tables.devices().map(|(id, _)| id).collect::<Vec<_>>() {
            if self.array.tables.device(id).is_some_and(|record| !record.is_deleting()) {
                self.array.tables.delete_device(id).map_err(|e| e.to_string())?;
            }
        }
        self.settle(rng)?;
        let (used, space) = (self.array.tables.used_tracks(), self.array.tables.pool_space(POOL));
        if used > 0 || space.free != space.tracks || !self.array.durable.is_bare() {
            return Err(format!("{used} tracks are used, {space:?}, and left is {:?}", self.array.durable));
        }
        Ok(())
    }

    /// Commits and reclaims until there is nothing to do.
    fn settle(&mut self, rng: &mut Rng) -> Result<(), String> {
        for _ in 0..1000 {
            self.round(rng)?;
            let idle = self.array.tables.uncommitted_units() == 0 && !self.array.tables.owes_space();
            if idle && !self.array.tables.has_reclaim() {
                return Ok(());
            }
            self.array.tables.reclaim();
        }
        Err("reclaiming does not end".into())
    }
}
