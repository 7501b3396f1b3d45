//! What a half can go back to: before a copy changes a half that is one point of its lineage, a pinned session keeps that
//! state. It costs what any session costs.
//!
//! A group keeps its halves at one instant, before the copy into the first of them begins, and goes back as a whole; so
//! what is kept is given up only when the copies into all of them are complete.

use std::collections::BTreeSet;

use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::ids::{DeviceId, Generation, Owner, PairId, Place, SessionId, TrackNo, UnitSeq};
use crate::joint::NewPoint;
use crate::pair_records::Records;
use crate::records::{Pinned, SessionRecord, SessionState};
use crate::remote::{Halt, Kept, Lineage, Role, Stage};
use crate::tables::Tables;

/// Tracks that one step of going back looks at.
const LOOKS: usize = 4096;

impl Tables {
    /// A copy into a half begins: from now on it is no point of the lineage. What the halves of these pairs are now is kept
    /// first, in the same unit, each as a session that a virtual device shows, offline. No write to their devices may be
    /// under way; and what follows of the copy may reach a disk only once the unit is committed (crash rule 2a).
    ///
    /// The sessions count towards no limit: there is one for each pair, or a person asked for it.
    pub fn begin_copy(
        &mut self,
        into: PairId,
        keep: &[PairId],
        pin: fn(PairId) -> Pinned,
        wall_ms: u64,
    ) -> Result<UnitSeq, CommandError> {
        self.known_pair(into)?;
        let mut unit = Records::new(self);
        let (mut changes, mut names) = (Vec::with_capacity(3 * keep.len()), BTreeSet::new());
        for id in keep {
            let record = self.known_pair(*id)?;
            let (device, lineage, pinned) = (record.device, record.lineage.clone(), pin(*id));
            let shown_by = self.name_kept(device, pinned, &names);
            let point = NewPoint { device, shown_by: shown_by.clone(), online: false };
            let session = self.point_changes(&point, pinned, wall_ms, &mut unit, &mut changes)?;
            names.insert(shown_by);
            unit.record(self, *id).kept = Some(Kept { session, lineage, returning: false });
        }
        unit.record(self, into).complete = false;
        // What a record refers to comes before it.
        changes.extend(unit.changes());
        Ok(self.put(changes, &[]))
    }

    /// The copy into a half is complete: it has the peer's data, and takes its lineage. It owes and lacks nothing any more. The
    /// peer is told once the unit is committed, which is after a sync of all that was copied (crash rule 2). The halves of
    /// `forget` need not go back any more: the sessions that they kept, of which those of a safety copy are to be removed
    /// ([`Self::left_safety_copies`] finds them after a crash).
    pub fn end_copy(
        &mut self,
        into: PairId,
        lineage: &Lineage,
        forget: &[PairId],
    ) -> Result<Vec<SessionId>, CommandError> {
        forget.iter().chain([&into]).try_for_each(|id| self.known_pair(*id).map(drop))?;
        let (mut unit, end) = (Records::new(self), self.end_of(into));
        let record = unit.record(self, into);
        record.lineage.adopt(lineage);
        record.shared = Some(lineage.current());
        record.complete = true;
        (record.owed_from, record.lacked_from) = (end, end);
        let kept = forget.iter().filter_map(|id| unit.record(self, *id).kept.take());
        let sessions = kept.map(|kept| kept.session).collect();
        let mut changes = self.forget_tracks(into);
        changes.extend(unit.changes());
        self.put_records(changes);
        Ok(sessions)
    }

    /// The pair that may have to go back to a session.
    pub fn needed_for(&self, session: SessionId) -> Option<PairId> {
        let pair = self.session(session)?.pinned?.pair()?;
        let kept = self.pair(pair)?.kept.as_ref()?;
        (kept.session == session).then_some(pair)
    }

    /// Safety copies of pairs that do not need them any more. Of a pair that has ended it stays: nothing else may have that
    /// state, and a person looks at it.
    pub fn left_safety_copies(&self) -> Vec<SessionId> {
        let left = |(id, record): &(SessionId, &SessionRecord)| match record.pinned {
            Some(Pinned::SafetyCopy(pair)) => {
                let ready = self.pair(pair).is_some_and(|pair| pair.stage == Stage::Ready);
                ready && self.needed_for(*id).is_none() && record.state.window().is_some()
            }
            _ => false,
        };
        self.sessions().filter(left).map(|(id, _)| id).collect()
    }

    /// The devices of [`Self::go_back`], or why it would be refused: each half goes back to what it kept, or is one point of
    /// the lineage; and one of them does go back.
    pub fn check_go_back(&self, pairs: &[PairId]) -> Result<Vec<DeviceId>, CommandError> {
        for id in pairs {
            let record = self.known_pair(*id)?;
            if record.stage != Stage::Ready || record.is_returning() {
                let state =
                    if record.is_returning() { "being put back".into() } else { record.stage.to_string() };
                let (verb, advice) = ("put back to what was kept of it", "wait until that has ended");
                return Err(CommandError::PairState { pair: *id, state, verb, advice });
            }
            if record.kept.is_none() && !record.complete {
                return Err(CommandError::Incomplete { pair: *id });
            }
        }
        let kept = |id: &PairId| self.pair(*id).filter(|record| record.kept.is_some());
        let devices: Vec<_> = pairs.iter().filter_map(kept).map(|record| record.device).collect();
        match pairs.first() {
            Some(pair) if devices.is_empty() => {
                let (state, verb) = ("one state of the volume".into(), "put back to what was kept of it");
                Err(CommandError::PairState {
                    pair: *pair,
                    state,
                    verb,
                    advice: "nothing was kept, nor is needed",
                })
            }
            _ => Ok(devices),
        }
    }

    /// A person says that the peer is out of order, and chooses what was kept: these halves serve by force, in one unit. Those
    /// that kept something are put back by [`Self::go_back_step`], and serve no host before that has ended. No write to
    /// their devices may be under way, nor begin before then.
    pub fn go_back(&mut self, pairs: &[PairId], wall_ms: u64) -> Result<UnitSeq, CommandError> {
        self.check_go_back(pairs)?;
        let mut unit = Records::new(self);
        for id in pairs {
            let generation = unit.new_generation(self)?;
            let record = unit.record(self, *id);
            (record.role, record.forced) = (Role::Owner, true);
            // What was kept is of before the copy; since when it lacks something was not noted with it.
            record.had_all_ms = 0;
            if record.halt.is_none() {
                // The peer has what this half is about to lose.
                (record.halt, record.halted_ms) = (Some(Halt::Link), wall_ms);
            }
            match &mut record.kept {
                Some(kept) => {
                    kept.returning = true;
                    record.lineage = kept.lineage.fallen_back(generation);
                    record.complete = false;
                }
                None => record.lineage.begin(generation),
            }
        }
        let seq = self.put_records(unit.changes());
        pairs.iter().for_each(|id| self.owe_untold(*id));
        Ok(seq)
    }

    /// A half that is being put back.
    pub fn next_returning(&self) -> Option<PairId> {
        self.returning.first().copied()
    }

    /// Puts some tracks of a half back, and owes them to the peer, in one unit. `true`: all are, and the half is one point of
    /// its lineage again. After a crash it begins anew, and passes over those that are back.
    pub fn go_back_step(&mut self, id: PairId) -> bool {
        let Some((device, session)) = self.goes_back_to(id) else { return true };
        let from = self.pairs.get(&id).map_or(TrackNo(0), |pair| pair.returned);
        let (mut back, next) = self.changed_since(device, session, from);
        if planted(Defect::ReturnInPart) {
            back.truncate(back.len() / 2);
        }
        let mut changes = Vec::with_capacity(3 * back.len());
        for (track, now, then) in &back {
            let place = Place { owner: Owner::Device(device), track: *track };
            let keep = self.devices.get(&device).is_some_and(|device| device.protects(self.geometry, *track));
            changes.extend(self.replace(place, *now, *then, keep));
        }
        let owes = back.iter().filter(|_| !planted(Defect::ReturnNotOwed));
        let owes: Vec<_> = owes.map(|(track, ..)| (id, *track)).collect();
        changes.extend(self.owe_changes(&owes));
        if !changes.is_empty() {
            self.put(changes, &[]);
        }
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.returned = next.unwrap_or(TrackNo(0));
        }
        if next.is_some() {
            return false;
        }
        let mut unit = Records::new(self);
        let record = unit.record(self, id);
        (record.kept, record.complete) = (None, true);
        self.put_records(unit.changes());
        true
    }

    /// Whether a session has what a half can go back to.
    pub(crate) fn is_kept_for(&self, session: SessionId, pair: PairId, device: DeviceId) -> bool {
        self.session(session).is_some_and(|record| {
            record.standard == device
                && record.pinned.and_then(Pinned::pair) == Some(pair)
                && matches!(record.state, SessionState::Active { .. })
        })
    }

    /// A name for the virtual device that shows what a device keeps, that no other has.
    fn name_kept(&self, device: DeviceId, pinned: Pinned, taken: &BTreeSet<String>) -> String {
        let name = self.device(device).map_or("", |device| &device.name);
        let what = if matches!(pinned, Pinned::Loser(_)) { "lost" } else { "safe" };
        let mut names = (1u32..).map(|n| format!("{name:.48}.{what}-{n}"));
        let free = names.find(|name| !taken.contains(name) && self.device_named(name).is_none());
        free.unwrap_or_default()
    }

    fn goes_back_to(&self, id: PairId) -> Option<(DeviceId, SessionId)> {
        let record = self.pair(id)?;
        let kept = record.kept.as_ref().filter(|kept| kept.returning)?;
        Some((record.device, kept.session))
    }

    /// Some tracks from `from` on that are not as a session has them: each with what it is now and what it was. And where to
    /// go on.
    fn changed_since(
        &self,
        device: DeviceId,
        session: SessionId,
        from: TrackNo,
    ) -> (Vec<(TrackNo, Entry, Entry)>, Option<TrackNo>) {
        let (mut changed, mut at) = (Vec::new(), from);
        let Some(found) = self.devices.get(&device) else { return (changed, None) };
        for _ in 0..LOOKS {
            let Some(((track, _), _)) = found.versions.range((at, Generation(0))..).next() else {
                return (changed, None);
            };
            let now = found.table.entry(*track);
            changed.extend(
                self.kept(session, *track).filter(|then| *then != now).map(|then| (*track, now, then)),
            );
            at = TrackNo(track.0.saturating_add(1));
        }
        (changed, Some(at))
    }
}
