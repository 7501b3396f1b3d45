//! Commands on pairs: each checks first, then changes everything in one unit (crash rule 2b).

use crate::Generation;
use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::device::check_name;
use crate::ids::{DeviceId, PairGeneration, PairId, PeerId, PoolId, TrackNo, UnitSeq};
use crate::local::Pace;
use crate::pair_records::Records;
use crate::records::{Change, DeviceKind, DeviceRecord};
use crate::remote::axes::{Cause, CauseEvent};
use crate::remote::{
    Halt, Ledger, Lineage, Mode, PAIRS_MAX, PairRecord, Policy, Regions, Role, SagaResult, Stage,
};
use crate::tables::Tables;

/// One half of a pair: its record, what it owes and lacks, and its dirty regions.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) record: PairRecord,
    pub(crate) owed: Ledger,
    pub(crate) lacked: Ledger,
    pub(crate) regions: Regions,
    /// The unit that began the present generation; 0 after a restart.
    pub(crate) generation_unit: UnitSeq,
    /// The unit by which it is not frozen any more; 0 after a restart. A crash before its commit freezes it again, and then no
    /// write may have been answered.
    pub(crate) thaw_unit: UnitSeq,
    /// Of a half that is being put back: tracks before this one are.
    pub(crate) returned: TrackNo,
}

/// The volume of a new half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairDevice {
    /// One that is there.
    Existing(DeviceId),
    /// One that is made for the pair (A6), and goes if the creation is undone.
    New {
        /// Its name.
        name: String,
        /// Where its tracks lie.
        pool: PoolId,
        /// Its size.
        size_bytes: u64,
    },
}

impl Tables {
    /// Names this array in the generations that it begins. To be called once, before anything is done with pairs.
    #[must_use]
    pub fn of_array(mut self, serial: u64) -> Self {
        self.serial = serial;
        self
    }

    /// The halves here, by id; those being undone, too.
    pub fn pairs(&self) -> impl Iterator<Item = (PairId, &PairRecord)> {
        self.pairs.iter().map(|(id, pair)| (*id, &pair.record))
    }

    /// One half.
    pub fn pair(&self, id: PairId) -> Option<&PairRecord> {
        self.pairs.get(&id).map(|pair| &pair.record)
    }

    /// The pair of a device, unless it is being undone.
    pub fn pair_of_device(&self, device: DeviceId) -> Option<PairId> {
        self.paired.get(&device).copied()
    }

    /// The pairs with a peer; those being undone, too.
    pub fn pairs_of_peer(&self, peer: PeerId) -> impl Iterator<Item = PairId> {
        self.pairs().filter(move |(_, record)| record.peer == peer).map(|(id, _)| id)
    }

    /// The ready pairs of a consistency group. The empty name is no group: none.
    pub fn pairs_of_group<'a>(&'a self, peer: PeerId, group: &'a str) -> impl Iterator<Item = PairId> + 'a {
        let member = move |record: &PairRecord| {
            record.peer == peer && record.group == group && !group.is_empty() && record.stage == Stage::Ready
        };
        self.pairs().filter(move |(_, record)| member(record)).map(|(id, _)| id)
    }

    /// The pairs that suspend together with this one, itself included.
    pub fn group_of(&self, pair: PairId) -> Vec<PairId> {
        let Some(record) = self.pair(pair) else { return Vec::new() };
        let mut group: Vec<_> = self.pairs_of_group(record.peer, &record.group).collect();
        if !group.contains(&pair) {
            group.push(pair);
        }
        group
    }

    /// The id of the next pair whose creation begins here.
    pub fn next_pair_id(&self) -> PairId {
        PairId { serial: self.serial, number: self.next_id }
    }

    /// Creates this array's half (A1, A2, A6), in stage [`Stage::Creating`]. If the creation began here, `id` is
    /// [`Self::next_pair_id`]; otherwise what the peer says. Of the record, `device`, `stage` and `made_device` are
    /// filled in here; copy pointers beyond the device mean "no track".
    pub fn create_pair(
        &mut self,
        id: PairId,
        mut record: PairRecord,
        device: PairDevice,
    ) -> Result<(DeviceId, UnitSeq), CommandError> {
        self.known_peer(record.peer)?;
        check_mode(record.mode)?;
        let own = id.serial == self.serial;
        if self.pairs.contains_key(&id) || (own && id != self.next_pair_id()) {
            return Err(CommandError::PairExists { pair: id });
        }
        if self.pairs.len() >= PAIRS_MAX {
            return Err(CommandError::Limit { what: "the number of pairs".into(), most: PAIRS_MAX });
        }
        self.check_group(&record)?;
        let mut next_id = self.next_id;
        let mut take_id = || {
            let taken = next_id;
            next_id = next_id.checked_add(1).ok_or_else(too_many_ids)?;
            Ok::<_, CommandError>(taken)
        };
        if own {
            take_id()?;
        }
        let mut changes = Vec::with_capacity(3);
        let (device, size_bytes) = match device {
            PairDevice::Existing(device) => {
                let size_bytes = self.standard(device)?.size_bytes;
                self.check_unpaired(device)?;
                self.check_no_target(device)?;
                (device, size_bytes)
            }
            PairDevice::New { name, pool, size_bytes } => {
                self.geometry.check_device_size(size_bytes)?;
                if !self.pools.contains_key(&pool) {
                    return Err(CommandError::NoPool { pool });
                }
                self.check_new_device(&name)?;
                let device = DeviceId(take_id()?);
                let kind = DeviceKind::Standard { pool, generation: Generation(0), deleting: false };
                let made = DeviceRecord { name, kind, size_bytes, online: true, reserved: false };
                changes.push(Change::Device(device, Some(made)));
                (device, size_bytes)
            }
        };
        record.made_device = !changes.is_empty();
        let end = TrackNo(self.geometry.tracks(size_bytes));
        (record.device, record.stage) = (device, Stage::Creating);
        (record.owed_from, record.lacked_from) = (record.owed_from.min(end), record.lacked_from.min(end));
        if next_id != self.next_id {
            changes.push(Change::NextId(next_id));
        }
        changes.push(Change::Pair(id, Some(record)));
        Ok((device, self.put(changes, &[])))
    }

    /// Both halves exist (A4): from now on a crash completes the creation.
    pub fn ready_pair(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        let mut record = self.known_pair(id)?.clone();
        if record.stage != Stage::Creating {
            return Err(stage_error(id, &record, "made ready", "nothing is left to do"));
        }
        record.stage = Stage::Ready;
        let request = record.request;
        let mut changes = vec![Change::Pair(id, Some(record))];
        if id.serial == self.serial {
            // Who asks again when the pair is gone is told so.
            changes.extend(self.saga_changes(request, SagaResult::Done));
        }
        Ok(self.put(changes, &[]))
    }

    /// Undoes this half of a creation that failed (A7): a device that was made for it is deleted, another one is free.
    /// The record stays until the peer knows.
    pub fn undo_pair(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        let record = self.known_pair(id)?.clone();
        if record.stage != Stage::Creating {
            return Err(stage_error(id, &record, "undone", "delete the pair instead"));
        }
        let (mut changes, deleted) = self.delete_made(&record);
        changes.extend(self.leave(id, record, Stage::Undoing));
        let seq = self.put(changes, &[]);
        deleted.into_iter().for_each(|device| self.collect_anew(device));
        Ok(seq)
    }

    /// Deletes this half. The device stays, unless it was made for a pair that never got ready.
    pub fn remove_pair(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        let record = self.known_pair(id)?.clone();
        let (mut changes, deleted) = self.delete_made(&record);
        changes.push(Change::Pair(id, None));
        let seq = self.put(changes, &[]);
        deleted.into_iter().for_each(|device| self.collect_anew(device));
        Ok(seq)
    }

    /// Halts pairs together, in one unit, with the tracks that a failed write leaves owed: to be committed before any
    /// host has its answer. An owner that goes on alone begins a generation; a frozen one does not, so that nothing
    /// diverges while it waits. A pair that is halted for a stronger reason keeps that, and the rest is done.
    pub fn halt_group(
        &mut self,
        pairs: &[PairId],
        halt: Halt,
        wall_ms: u64,
        owes: &[(PairId, TrackNo)],
    ) -> Result<UnitSeq, CommandError> {
        pairs
            .iter()
            .chain(owes.iter().map(|(pair, _)| pair))
            .try_for_each(|pair| self.known_pair(*pair).map(drop))?;
        let mut unit = Records::new(self);
        for id in pairs {
            let record = unit.record(self, *id);
            if let Some(Cause::Halted(halt)) = Cause::from(record.halt).next(event_of(halt)) {
                // Both halves went their own ways when the first of it happened.
                let has_parted = halt == Halt::Diverged && record.halt.is_some();
                let since_ms = if has_parted { record.halted_ms } else { wall_ms };
                (record.halt, record.halted_ms) = (Some(halt), since_ms);
            }
            if record.role == Role::Owner && record.halt != Some(Halt::Frozen) {
                unit.begin_if_shared(self, *id)?;
            }
        }
        let mut changes = unit.changes();
        changes.extend(self.owe_changes(owes));
        Ok(self.put_records(changes))
    }

    /// Lets a pair move again. After an agreement: once both sides have committed it, and not before, for a write that
    /// finds no link meanwhile halts the pair again.
    pub fn resume(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        self.end_halt(id, CauseEvent::Resume, None)
    }

    /// Both arrays have agreed in a new epoch: what they had noticed themselves no longer holds it up. `None`: nothing did, or
    /// it takes more than that.
    pub fn agreed(&mut self, id: PairId) -> Option<UnitSeq> {
        let halt = self.pair(id)?.halt?;
        let moves = Cause::Halted(halt).next(CauseEvent::Agreed) == Some(Cause::Moving);
        moves.then(|| self.end_halt(id, CauseEvent::Agreed, None).ok()).flatten()
    }

    /// The other array owes this half's tracks from now on, durably: here they are forgotten.
    pub fn forget_owed(&mut self, id: PairId) -> Option<UnitSeq> {
        let end = self.end_of(id);
        let mut record = self.pair(id)?.clone();
        if self.owed(id)?.is_empty() {
            return None;
        }
        let mut changes = self.forget_owed_tracks(id);
        record.owed_from = end;
        changes.push(Change::Pair(id, Some(record)));
        Some(self.put_records(changes))
    }

    /// A pair that was ready ends here: the device stays, free. The record stays until the peer knows.
    pub fn end_pair(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        let record = self.known_pair(id)?.clone();
        let changes = self.leave(id, record, Stage::Ended);
        Ok(self.put(changes, &[]))
    }

    /// What makes of a half a note for the peer.
    fn leave(&mut self, id: PairId, record: PairRecord, stage: Stage) -> Vec<Change> {
        let mut changes = self.forget_tracks(id);
        let marked = self.regions(id).into_iter().flat_map(Regions::marked);
        changes.extend(marked.map(|region| Change::Dirty(id, region, false)));
        let end = TrackNo(0);
        let note =
            PairRecord { stage, made_device: false, owed_from: end, lacked_from: end, kept: None, ..record };
        changes.push(Change::Pair(id, Some(note)));
        changes
    }

    /// Somebody chose whose data are kept: a diverged pair may move again. The half that is kept is given the other's
    /// lineage and begins a generation that takes its place ([`Lineage::supersede`]); the other half gets `None`. In
    /// this order: the loser is [`Role::Standby`], committed; what it owed or had marked is owed here; then this.
    pub fn resolve(&mut self, id: PairId, loser: Option<&Lineage>) -> Result<UnitSeq, CommandError> {
        self.end_halt(id, CauseEvent::Resolve, loser)
    }

    /// Refuses a half that lacks tracks.
    pub(crate) fn check_lacks_nothing(&self, device: DeviceId) -> Result<(), CommandError> {
        match self.pair_of_device(device).and_then(|pair| self.next_lacked(pair, TrackNo(0))) {
            Some(_) => Err(self.filling(device)),
            None => Ok(()),
        }
    }

    /// Refuses to take what a half has for a point in time if it lacks tracks, or if a copy into it is not complete: that is no
    /// state that the volume ever had.
    pub(crate) fn check_whole_half(&self, device: DeviceId) -> Result<(), CommandError> {
        let pair = self.pair_of_device(device).and_then(|pair| self.pair(pair));
        if pair.is_some_and(|record| !record.complete) {
            return Err(self.filling(device));
        }
        self.check_lacks_nothing(device)
    }

    fn filling(&self, device: DeviceId) -> CommandError {
        let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
        CommandError::Filling { name }
    }

    /// An event after which a pair moves again.
    fn end_halt(
        &mut self,
        id: PairId,
        event: CauseEvent,
        loser: Option<&Lineage>,
    ) -> Result<UnitSeq, CommandError> {
        let halt = self.known_pair(id)?.halt;
        if Cause::from(halt).next(event) != Some(Cause::Moving) {
            let (verb, advice) = match event {
                CauseEvent::Resolve => ("resolved", "only diverged pairs need that"),
                _ if halt == Some(Halt::Diverged) => {
                    ("resumed", "choose whose data are kept (`twintrack remote resolve`)")
                }
                _ => ("resumed", "it is not suspended"),
            };
            let state = halt.map_or("not halted".into(), |halt| format!("halted ({})", Cause::Halted(halt)));
            return Err(CommandError::PairState { pair: id, state, verb, advice });
        }
        let mut unit = Records::new(self);
        unit.record(self, id).halt = None;
        if let Some(loser) = loser {
            let generation = unit.new_generation(self)?;
            unit.record(self, id).lineage.supersede(generation, loser);
        }
        Ok(self.put_records(unit.changes()))
    }

    /// Moves the role of pairs, in one unit: the whole group of a failover. By force a new generation begins, so that
    /// what the other side does from now on shows; and a half whose copy was not complete is refused.
    pub fn set_roles(&mut self, pairs: &[PairId], role: Role, forced: bool) -> Result<UnitSeq, CommandError> {
        let mut unit = Records::new(self);
        for id in pairs {
            let known = self.known_pair(*id)?;
            if known.stage != Stage::Ready {
                return Err(stage_error(*id, known, "failed over", "wait until its creation has ended"));
            }
            if !known.role.may_become(role, forced) {
                let (state, verb) = (format!("{} here", known.role), "failed over");
                let advice = "ask the other array";
                return Err(CommandError::PairState { pair: *id, state, verb, advice });
            }
            if forced && !known.complete && !planted(Defect::HalfCopiedServes) {
                return Err(CommandError::Incomplete { pair: *id });
            }
            let record = unit.record(self, *id);
            (record.role, record.forced) = (role, forced);
            if role == Role::Owner {
                // Who serves goes back to nothing.
                record.kept = None;
            }
            if forced && !planted(Defect::ForcedUnnoted) {
                unit.begin(self, *id)?;
            }
        }
        let seq = self.put_records(unit.changes());
        if role == Role::Owner {
            pairs.iter().for_each(|id| self.owe_untold(*id));
        }
        Ok(seq)
    }

    /// Begins a generation of this half's alone, before it first acknowledges a write that the peer lacks. `None`: the
    /// present one is.
    pub fn begin_generation(&mut self, id: PairId) -> Result<Option<UnitSeq>, CommandError> {
        if self.known_pair(id)?.is_alone() {
            return Ok(None);
        }
        let mut unit = Records::new(self);
        unit.begin_if_shared(self, id)?;
        Ok(Some(self.put_records(unit.changes())))
    }

    /// Whether a write that the peer lacks may be acknowledged: the present generation is this half's alone, durably.
    pub fn may_write_alone(&self, id: PairId) -> bool {
        let committed = self.log.committed();
        self.pairs.get(&id).is_some_and(|pair| pair.record.is_alone() && pair.generation_unit <= committed)
    }

    /// Takes the peer's lineage, as [`Self::end_copy`] does; what is kept stays.
    pub fn adopt(&mut self, id: PairId, lineage: &Lineage) -> Result<UnitSeq, CommandError> {
        self.end_copy(id, lineage, &[])?;
        Ok(self.last_unit())
    }

    /// When the peer gets a write. An owner begins a generation before it leaves the peer behind.
    pub fn set_mode(&mut self, id: PairId, mode: Mode) -> Result<UnitSeq, CommandError> {
        self.known_pair(id)?;
        check_mode(mode)?;
        let mut unit = Records::new(self);
        let record = unit.record(self, id);
        record.mode = mode;
        if mode == Mode::Adaptive && record.role == Role::Owner {
            unit.begin_if_shared(self, id)?;
        }
        Ok(self.put_records(unit.changes()))
    }

    /// How many tracks this half copies at a time.
    pub fn set_pair_pace(&mut self, id: PairId, pace: Pace) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.pace = pace)
    }

    /// What the owner does when a write cannot reach the peer; for all pairs of a group together.
    pub fn set_policy(&mut self, pairs: &[PairId], policy: Policy) -> Result<UnitSeq, CommandError> {
        pairs.iter().try_for_each(|pair| self.known_pair(*pair).map(drop))?;
        let mut unit = Records::new(self);
        pairs.iter().for_each(|id| unit.record(self, *id).policy = policy);
        Ok(self.put_records(unit.changes()))
    }

    /// The peer may have the present generation whole from now on: see [`PairRecord::shared`].
    pub fn set_shared(&mut self, id: PairId, shared: PairGeneration) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.shared = Some(shared))
    }

    /// Whether the content here is one point of the lineage: not while a copy into this half is under way.
    pub fn set_complete(&mut self, id: PairId, complete: bool) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.complete = complete)
    }

    /// The peer's boot at the agreement that was just made.
    pub fn set_peer_boot(&mut self, id: PairId, boot: u32) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.peer_boot = boot)
    }

    /// Until when a half surely has what the other one had answered hosts: see [`PairRecord::had_all_ms`].
    pub fn note_had_all(&mut self, id: PairId, wall_ms: u64) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.had_all_ms = wall_ms)
    }

    /// Whoever was forced has been obeyed: the peer stopped serving.
    pub fn clear_forced(&mut self, id: PairId) -> Result<UnitSeq, CommandError> {
        self.change_pair(id, |record| record.forced = false)
    }

    fn change_pair(
        &mut self,
        id: PairId,
        change: impl FnOnce(&mut PairRecord),
    ) -> Result<UnitSeq, CommandError> {
        let mut record = self.known_pair(id)?.clone();
        change(&mut record);
        Ok(self.put(vec![Change::Pair(id, Some(record))], &[]))
    }

    pub(crate) fn known_pair(&self, id: PairId) -> Result<&PairRecord, CommandError> {
        self.pair(id).ok_or(CommandError::NoPair { pair: id })
    }

    pub(crate) fn check_unpaired(&self, device: DeviceId) -> Result<(), CommandError> {
        let Some(record) = self.pair_of_device(device).and_then(|id| self.pair(id)) else { return Ok(()) };
        Err(CommandError::Paired {
            name: self.device(device).map_or_else(|| device.to_string(), |record| record.name.clone()),
            peer_device: record.peer_device.clone(),
            peer: self.peer(record.peer).map_or_else(|| record.peer.to_string(), |peer| peer.name.clone()),
        })
    }

    /// The pairs of a group have one policy, and fail over the same way.
    fn check_group(&self, new: &PairRecord) -> Result<(), CommandError> {
        if new.group.is_empty() {
            return Ok(());
        }
        check_name(&new.group)?;
        let member = self.pairs().find(|(_, record)| {
            record.peer == new.peer && record.group == new.group && !record.stage.is_over()
        });
        let Some((_, member)) = member else { return Ok(()) };
        let differs = |what, has: String, wants: String| {
            Err(CommandError::GroupDiffers { group: new.group.clone(), what, has, wants })
        };
        if member.policy != new.policy {
            return differs("policy", member.policy.to_string(), new.policy.to_string());
        }
        if member.half != new.half {
            return differs("half", member.half.to_string(), new.half.to_string());
        }
        Ok(())
    }

    /// Deletes the device that was made for a pair which never got ready, if nobody has made a session on it, or a copy of it.
    fn delete_made(&self, record: &PairRecord) -> (Vec<Change>, Option<DeviceId>) {
        let made = record.made_device && record.stage == Stage::Creating;
        let copied = self.copies_of.get(&record.device).is_some_and(|copies| !copies.is_empty());
        let device = self.devices.get(&record.device);
        let device = device.filter(|device| made && !copied && device.sessions.is_empty());
        let Some(mut gone) = device.map(|device| device.record.clone()) else { return (Vec::new(), None) };
        if let DeviceKind::Standard { deleting, .. } = &mut gone.kind {
            *deleting = true;
        }
        (vec![Change::Device(record.device, Some(gone))], Some(record.device))
    }

    /// Logs a unit with records that [`Records`] made, and notes which generations begin with it, and which pairs thaw.
    pub(crate) fn put_records(&mut self, changes: Vec<Change>) -> UnitSeq {
        let before = |change: &Change| match change {
            Change::Pair(id, Some(_)) => {
                let record = self.pair(*id)?;
                Some((*id, record.lineage.current(), record.halt))
            }
            _ => None,
        };
        let before: Vec<_> = changes.iter().filter_map(before).collect();
        let seq = self.put(changes, &[]);
        for (id, generation, halt) in before {
            let Some(pair) = self.pairs.get_mut(&id) else { continue };
            if pair.record.lineage.current() != generation {
                pair.generation_unit = seq;
            }
            if halt == Some(Halt::Frozen) && pair.record.halt != halt && !planted(Defect::ThawsEarly) {
                pair.thaw_unit = seq;
            }
        }
        seq
    }
}

fn event_of(halt: Halt) -> CauseEvent {
    match halt {
        Halt::Operator => CauseEvent::Suspend,
        Halt::Link => CauseEvent::LinkLost,
        Halt::Peer => CauseEvent::PeerFailed,
        Halt::Space => CauseEvent::NoSpace,
        Halt::Split => CauseEvent::Split,
        Halt::Frozen => CauseEvent::Freeze,
        Halt::Diverged => CauseEvent::Diverge,
    }
}

fn check_mode(mode: Mode) -> Result<(), CommandError> {
    if mode == Mode::Asynchronous { Err(CommandError::NoAsynchronous) } else { Ok(()) }
}

pub(crate) fn too_many_ids() -> CommandError {
    let what = "the number of devices, sessions, groups, pairs and generations that ever were".into();
    CommandError::Limit { what, most: u32::MAX as usize }
}

fn stage_error(pair: PairId, record: &PairRecord, verb: &'static str, advice: &'static str) -> CommandError {
    CommandError::PairState { pair, state: record.stage.to_string(), verb, advice }
}
