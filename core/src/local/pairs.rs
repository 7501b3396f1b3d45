//! The commands on pairs: *create pair*, *copy*, *re-synchronize*, *delete pair* (C1), with the transitions of Fig. 8.

use std::fmt;

use super::draft::Draft;
use super::{COPIES_MAX, CopyRecord, CopyStatus, Fill, Pace, Purpose};
use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::ids::{CopyId, DeviceId, TrackNo, UnitSeq};
use crate::records::{Change, DeviceRecord, Pinned};
use crate::tables::Tables;

/// What can be asked of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairCommand {
    /// The secondary becomes the primary as it is now.
    Copy,
    /// Back to *paired and not copied*, with what is unequal known.
    Resync,
    /// The primary becomes the secondary as it is now (D14: re-sync the other way).
    Restore,
    /// The pair ends; both volumes stay.
    Delete,
}

impl PairCommand {
    /// Fig. 8: the status that follows, if the command fits. *Restore* is ours: from *copied*, by the same copy. `None` for
    /// what follows: there is no pair any more.
    pub fn leads(self, from: CopyStatus) -> Option<Option<CopyStatus>> {
        match (self, from) {
            (Self::Delete, _) => Some(None),
            (Self::Copy, CopyStatus::Paired) | (Self::Restore, CopyStatus::Copied) => {
                Some(Some(CopyStatus::Copying))
            }
            (Self::Resync, CopyStatus::Copied) => Some(Some(CopyStatus::Paired)),
            _ => None,
        }
    }
}

impl PairCommand {
    /// What to do instead, where the command does not fit.
    pub(crate) fn advice(self, status: CopyStatus) -> &'static str {
        match (self, status) {
            (_, CopyStatus::Copying) => "wait until the copy has ended",
            (Self::Copy, _) => "re-synchronize it first (`twintrack pair resync`)",
            _ => "copy it first (`twintrack pair copy`)",
        }
    }
}

impl fmt::Display for PairCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copied",
            Self::Resync => "re-synchronized",
            Self::Restore => "restored from its secondary",
            Self::Delete => "deleted",
        })
    }
}

impl Tables {
    /// The copies within the array, by number.
    pub fn copies(&self) -> impl Iterator<Item = (CopyId, &CopyRecord)> {
        self.copies.iter().map(|(id, copy)| (*id, &copy.record))
    }

    /// One copy.
    pub fn copy(&self, id: CopyId) -> Option<&CopyRecord> {
        self.copies.get(&id).map(|copy| &copy.record)
    }

    /// The copies within the array that a device is in, by number.
    pub fn copies_of_device(&self, device: DeviceId) -> impl Iterator<Item = CopyId> {
        self.copies_of.get(&device).into_iter().flatten().copied()
    }

    /// The pair of a primary and a secondary.
    pub fn local_pair(&self, primary: DeviceId, secondary: DeviceId) -> Option<CopyId> {
        let of_primary = self.copies_of.get(&primary)?;
        of_primary.iter().copied().find(|id| {
            self.copy(*id)
                .is_some_and(|copy| copy.is_pair() && copy.primary == primary && copy.secondary == secondary)
        })
    }

    /// The lowest-numbered reserved volume that fits a primary as its secondary (C9).
    pub fn choose_secondary(&self, primary: DeviceId) -> Result<DeviceId, CommandError> {
        let wanted = self.standard(primary)?;
        let fits = |(id, record): &(DeviceId, &DeviceRecord)| {
            record.reserved
                && *id != primary
                && !record.is_deleting()
                && record.size_bytes == wanted.size_bytes
                && !self.copies_of.contains_key(id)
                && self.pair_of_device(*id).is_none()
        };
        let mut fitting = self.devices().filter(fits).map(|(id, _)| id);
        let chosen = if planted(Defect::HighestChosen) { fitting.last() } else { fitting.next() };
        chosen.ok_or_else(|| CommandError::NoneReserved {
            name: wanted.name.clone(),
            size_bytes: wanted.size_bytes,
        })
    }

    /// Whether hosts do not use a device because it is the secondary of a pair that is not copied, or is kept to become one.
    pub fn is_held_by_pair(&self, device: DeviceId) -> bool {
        let copies = self.copies_of.get(&device).into_iter().flatten().filter_map(|id| self.copy(*id));
        let mut to_it = copies.filter(|copy| copy.secondary == device).peekable();
        let is_reserved = self.device(device).is_some_and(|record| record.reserved);
        if is_reserved && to_it.peek().is_none() && !planted(Defect::ReservedServes) {
            return true;
        }
        to_it.any(|copy| copy.status == CopyStatus::Paired) && !planted(Defect::PairSecondaryOpen)
    }

    /// *Create pair* (C1): all is unequal, and nothing is copied. A primary may have several secondaries, each a pair of its own
    /// (C7); a secondary has one primary, and is none.
    pub fn create_local_pair(
        &mut self,
        primary: DeviceId,
        secondary: DeviceId,
        pace: Pace,
    ) -> Result<(CopyId, UnitSeq), CommandError> {
        let (first, second) = (self.standard(primary)?, self.standard(secondary)?);
        let name = |id| self.device(id).map_or_else(String::new, |device| device.name.clone());
        if primary == secondary {
            return Err(CommandError::SameVolume { name: name(primary) });
        }
        if first.size_bytes != second.size_bytes {
            return Err(CommandError::SizesDiffer {
                name: name(secondary),
                size_bytes: second.size_bytes,
                other: name(primary),
                other_bytes: first.size_bytes,
            });
        }
        // What is only moved to the volume's own pool, for a copy that has no pair any more, is in nobody's way.
        let is_moved =
            |copy: &CopyRecord| !copy.is_pair() && copy.fill.is_none() && copy.target() == secondary;
        let mut of_secondary = self.copies_of.get(&secondary).into_iter().flatten().copied();
        if let Some(copy) = of_secondary.find(|id| !self.copy(*id).is_some_and(is_moved)) {
            return Err(CommandError::InCopy { name: name(secondary), copy });
        }
        let is_secondary = |copy: &CopyRecord| copy.is_pair() && copy.secondary == primary;
        let of_primary = self.copies_of.get(&primary).into_iter().flatten();
        if let Some(copy) = of_primary.copied().find(|id| self.copy(*id).is_some_and(is_secondary)) {
            return Err(CommandError::InCopy { name: name(primary), copy });
        }
        self.check_unpaired(secondary)?;
        self.check_more_copies(1)?;
        let end = TrackNo(self.geometry.tracks(first.size_bytes));
        let (number, next) = self.take_id()?;
        let id = CopyId(number);
        let record = CopyRecord {
            purpose: Purpose::Pair,
            primary,
            secondary,
            status: CopyStatus::Paired,
            back: false,
            fill: None,
            pace,
            copied_ms: 0,
            to_copy_from: end,
            unequal_from: TrackNo(0),
            moved_to: TrackNo(0),
        };
        Ok((id, self.put(vec![next, Change::Copy(id, Some(record))], &[])))
    }

    /// Whether a command fits a pair as it is (Fig. 8), and the devices to which no write may be under way then.
    pub fn check_pair_command(
        &self,
        id: CopyId,
        command: PairCommand,
    ) -> Result<Vec<DeviceId>, CommandError> {
        let record = self.known_local_pair(id)?;
        if command.leads(record.status).is_none() {
            return Err(CommandError::CopyState { copy: id, state: record.status, verb: command });
        }
        if matches!(command, PairCommand::Resync | PairCommand::Delete) {
            return Ok(Vec::new());
        }
        for device in [record.primary, record.secondary] {
            self.check_filled(device)?;
        }
        if command == PairCommand::Restore {
            self.check_whole_half(record.secondary)?;
            self.check_unpaired(record.primary)?;
        } else {
            self.check_whole_half(record.primary)?;
        }
        Ok(vec![record.primary, record.secondary])
    }

    /// *Copy* (C4), or *restore* from the secondary, which keeps the primary as it was as a session if `keep_before`: at this
    /// instant. What is to be copied is what is unequal (C5). No write to the two devices may be under way.
    pub fn begin_local_copy(
        &mut self,
        id: CopyId,
        command: PairCommand,
        keep_before: bool,
        wall_ms: u64,
    ) -> Result<UnitSeq, CommandError> {
        self.check_pair_command(id, command)?;
        let changes = self.copy_changes(id, command, keep_before, wall_ms)?;
        Ok(self.put(changes, &[]))
    }

    /// The changes of a copy that may begin, from *copied*, too.
    pub(super) fn copy_changes(
        &mut self,
        id: CopyId,
        command: PairCommand,
        keep_before: bool,
        wall_ms: u64,
    ) -> Result<Vec<Change>, CommandError> {
        let mut record = self.known_local_pair(id)?.clone();
        record.back = command == PairCommand::Restore;
        let mut draft = Draft::new(self);
        if record.back && keep_before {
            draft.session(record.primary, None, Pinned::Before, Some("before"), wall_ms)?;
        }
        let session = draft.session(record.source(), None, Pinned::Source(id), None, wall_ms)?;
        let until = draft.raise(record.target())?;
        let mut changes = draft.changes();
        record.status = CopyStatus::Copying;
        record.fill = Some(Fill { session, until });
        (record.copied_ms, record.moved_to) = (wall_ms, TrackNo(0));
        // What was unequal is to copy, and nothing is unequal.
        let Some(copy) = self.copies.get_mut(&id) else { return Err(CommandError::NoCopy { copy: id }) };
        let unequal = copy.unequal.set.clone();
        let (from, words) = copy.unequal.clear();
        changes.extend(words.into_iter().map(|(region, word)| Change::Unequal(id, region, word)));
        record.unequal_from = from;
        let (from, words) = copy.to_copy.become_set(unequal);
        changes.extend(words.into_iter().map(|(region, word)| Change::ToCopy(id, region, word)));
        record.to_copy_from = from;
        // The record refers to its session, which comes before it.
        changes.push(Change::Copy(id, Some(record)));
        Ok(changes)
    }

    /// *Re-synchronize*: hosts leave the secondary, and what is unequal stays noted (C5).
    pub fn resync_local_pair(&mut self, id: CopyId) -> Result<UnitSeq, CommandError> {
        self.check_pair_command(id, PairCommand::Resync)?;
        let mut record = self.known_local_pair(id)?.clone();
        record.status = CopyStatus::Paired;
        let mut changes = Vec::new();
        if planted(Defect::ResyncForgets)
            && let Some(copy) = self.copies.get_mut(&id)
        {
            let (from, words) = copy.unequal.clear();
            record.unequal_from = from;
            changes.extend(words.into_iter().map(|(region, word)| Change::Unequal(id, region, word)));
        }
        changes.push(Change::Copy(id, Some(record)));
        Ok(self.put(changes, &[]))
    }

    /// *Delete pair*: the volumes stay. Of a copy in progress the secondary still becomes what it was to become.
    pub fn delete_local_pair(&mut self, id: CopyId) -> Result<UnitSeq, CommandError> {
        let mut record = self.known_local_pair(id)?.clone();
        let devices = [record.primary, record.secondary];
        let change = if record.status == CopyStatus::Copying {
            record.purpose = Purpose::Once { keep: false, pinned: None };
            Some(record)
        } else {
            None
        };
        let seq = self.put(vec![Change::Copy(id, change)], &[]);
        if !planted(Defect::UnpairedEarly) {
            // After a crash the pair is back, and must not miss what was written meanwhile.
            self.unpaired.extend(devices.map(|device| (device, seq)));
        }
        Ok(seq)
    }

    /// Another pace, also while a copy is in progress (C6).
    pub fn set_pace(&mut self, id: CopyId, pace: Pace) -> Result<UnitSeq, CommandError> {
        let mut record = self.copy(id).ok_or(CommandError::NoCopy { copy: id })?.clone();
        record.pace = pace;
        Ok(self.put(vec![Change::Copy(id, Some(record))], &[]))
    }

    /// How many tracks a copy has still to take over, and how many are unequal.
    pub fn copy_counts(&self, id: CopyId) -> (u32, u32) {
        self.copies.get(&id).map_or((0, 0), |copy| (copy.to_copy.set.count(), copy.unequal.set.count()))
    }

    /// Whether the inequality bit of a track of a pair is set (C3).
    pub fn is_unequal(&self, id: CopyId, track: TrackNo) -> bool {
        self.copies.get(&id).is_some_and(|copy| copy.unequal.set.contains(track))
    }

    /// Refuses while a device is still being filled: it cannot be the source or target of another copy.
    pub(crate) fn check_filled(&self, device: DeviceId) -> Result<(), CommandError> {
        if let Some(copy) = self.filling.get(&device).copied() {
            let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
            return Err(CommandError::InCopy { name, copy });
        }
        self.check_lacks_nothing(device)
    }

    /// The copies that end with a device that is deleted: those into it that are no pair's any more and have only tracks to move
    /// into its own pool, for which there may never be room. Refused while others know it.
    pub(crate) fn copies_that_end(&self, device: DeviceId) -> Result<Vec<CopyId>, CommandError> {
        let copies = self.copies_of.get(&device).into_iter().flatten().copied();
        let ends =
            |record: &CopyRecord| record.fill.is_none() && !record.is_pair() && record.target() == device;
        let end = |copy| match self.copy(copy).filter(|record| ends(record)) {
            Some(_) => Ok(copy),
            None => {
                let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
                Err(CommandError::InCopy { name, copy })
            }
        };
        copies.map(end).collect()
    }

    /// Refuses what a device must not suffer while copies know it: to change its size.
    pub(crate) fn check_uncopied(&self, device: DeviceId) -> Result<(), CommandError> {
        match self.copies_of.get(&device).and_then(|copies| copies.first().copied()) {
            Some(copy) => {
                let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
                Err(CommandError::InCopy { name, copy })
            }
            None => Ok(()),
        }
    }

    /// Refuses a half of a remote pair that hosts may not use, or that would be changed behind the pair's back.
    pub(crate) fn check_no_target(&self, device: DeviceId) -> Result<(), CommandError> {
        if self.is_held_by_pair(device) {
            let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
            return Err(CommandError::HeldByPair { name });
        }
        let mut copies = self.copies_of.get(&device).into_iter().flatten().copied();
        let target = |copy: &CopyRecord| copy.secondary == device || copy.target() == device;
        match copies.find(|id| self.copy(*id).is_some_and(target)) {
            Some(copy) => {
                let name = self.device(device).map_or_else(String::new, |device| device.name.clone());
                Err(CommandError::InCopy { name, copy })
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_more_copies(&self, more: usize) -> Result<(), CommandError> {
        if self.copies.len() + more > COPIES_MAX {
            return Err(CommandError::Limit { what: "the number of pairs".into(), most: COPIES_MAX });
        }
        Ok(())
    }

    pub(super) fn known_local_pair(&self, id: CopyId) -> Result<&CopyRecord, CommandError> {
        self.copy(id).filter(|copy| copy.is_pair()).ok_or(CommandError::NoCopy { copy: id })
    }
}
