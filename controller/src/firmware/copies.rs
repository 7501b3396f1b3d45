//! Copies within the array: entries are taken over in steps, and tracks are moved to the pool of their device.
//!
//! A move is an operation like any other, with the track to itself: read whole from the other pool, written into a track of
//! its own, landed. How many are under way is the pace of the copy (C6). One that fails is tried again, and says so
//! meanwhile; no session is failed for the room that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    CommandError, CopyId, CopyRecord, CopyStatus, Owner, Pace, Place, RestoreItem, SessionId, TrackNo,
};
use twintrack_link::manage::{Answer, PairCalled, PairInfo, PairPace, PairStage, Restore};

use super::Firmware;
use super::event::HostError;
use super::io::{Change, Parent};
use super::waits::{Load, Waits};

/// Between two attempts at what failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Tracks at a time (C6).
const SLOW: usize = 1;
const MEDIUM: usize = 3;
const FAST: usize = 15;

/// The copies whose tracks are being moved.
#[derive(Debug)]
pub(super) struct Moves {
    copies: BTreeMap<CopyId, Moving>,
    /// When copies are to be looked at: one has filled its target, or goes on.
    due: Option<Duration>,
    waits: Waits,
}

#[derive(Debug)]
struct Moving {
    /// Tracks before it are moved or under way.
    at: TrackNo,
    under_way: BTreeSet<TrackNo>,
    /// Why one failed, until another one succeeds.
    trouble: Option<HostError>,
    /// The first one that failed since they were last begun from the copy pointer on.
    failed: Option<TrackNo>,
    /// How many an adaptive copy has under way at most.
    window: usize,
    /// When what failed is tried again.
    again: Option<Duration>,
}

impl Default for Moves {
    /// Those of before are to be taken up.
    fn default() -> Self {
        let due = Some(Duration::ZERO);
        Self { copies: BTreeMap::new(), due, waits: Waits::default() }
    }
}

impl Moves {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// A host has its answer after so long.
    pub(super) fn host_waited(&mut self, now: Duration, waited: Duration) {
        let load = match self.copies.values().map(|moving| moving.under_way.len()).max() {
            None | Some(0) => Load::None,
            Some(SLOW) => Load::Least,
            Some(_) => Load::More,
        };
        self.waits.answered(now, waited, load);
    }
}

impl Firmware {
    /// One step of a copy that has entries to take over.
    pub(super) fn fill_some(&mut self) {
        if self.durability.is_broken() {
            return;
        }
        if let Some(id) = self.tables.next_filling()
            && self.tables.fill_step(id)
        {
            // The target has overlays that nobody wrote there.
            self.merge_all();
            self.moves.due = Some(self.now);
        }
    }

    /// Begins as many moves as each copy may have under way.
    pub(super) fn moves_timer(&mut self) {
        if self.moves.due.is_none_or(|due| due > self.now) {
            return;
        }
        self.moves.due = None;
        let copies: Vec<_> = self.tables.relocating().collect();
        self.moves.copies.retain(|id, _| copies.contains(id));
        copies.into_iter().for_each(|id| self.move_some(id));
    }

    fn move_some(&mut self, id: CopyId) {
        let Some((target, pace, moved_to)) =
            self.tables.copy(id).map(|copy| (copy.target(), copy.pace, copy.moved_to))
        else {
            return;
        };
        if self.durability.is_broken() {
            return;
        }
        let fresh = || Moving {
            at: moved_to,
            under_way: BTreeSet::new(),
            trouble: None,
            failed: None,
            window: MEDIUM,
            again: None,
        };
        let moving = self.moves.copies.entry(id).or_insert_with(fresh);
        if moving.again.is_some_and(|again| again > self.now) {
            self.moves.due = earlier(self.moves.due, moving.again);
            return;
        }
        moving.again = None;
        let most = tracks_at(pace).unwrap_or(moving.window);
        while let Some(moving) = self.moves.copies.get_mut(&id).filter(|moving| moving.under_way.len() < most)
        {
            match self.tables.next_foreign(id, moving.at) {
                Ok(track) => {
                    moving.at = TrackNo(track.0.saturating_add(1));
                    moving.under_way.insert(track);
                    let place = Place { owner: Owner::Device(target), track };
                    let whole = self.tables.geometry().track_bytes();
                    self.start_op(place, 0, whole, Change::Move, Parent::Move(id, track));
                }
                // The look is bounded: the rest comes with the next step.
                Err(Some(at)) => {
                    moving.at = at;
                    self.moves.due = earlier(self.moves.due, Some(self.now + Duration::from_millis(1)));
                    return;
                }
                Err(None) => {
                    self.pass_over(id);
                    return;
                }
            }
        }
    }

    /// Nothing is left to begin: the copy has ended, or what failed is tried again.
    fn pass_over(&mut self, id: CopyId) {
        let Some(moving) = self.moves.copies.get_mut(&id) else { return };
        if !moving.under_way.is_empty() {
            return;
        }
        if moving.failed.take().is_some() {
            moving.at = self.tables.copy(id).map_or(TrackNo(0), |copy| copy.moved_to);
            moving.again = Some(self.now + RETRY_AFTER);
            self.moves.due = earlier(self.moves.due, moving.again);
            return;
        }
        self.moves.copies.remove(&id);
        self.tables.end_relocation(id);
    }

    pub(super) fn track_moved(&mut self, id: CopyId, track: TrackNo, result: Result<(), HostError>) {
        let slow = self.moves.waits.are_long(self.now);
        let Some(moving) = self.moves.copies.get_mut(&id) else { return };
        moving.under_way.remove(&track);
        moving.window = if slow { (moving.window / 2).max(SLOW) } else { (moving.window + 1).min(FAST) };
        match result {
            Ok(()) => {
                let undone = moving.under_way.first().copied().into_iter().chain(moving.failed);
                let to = undone.min().unwrap_or(moving.at);
                if moving.failed.is_none() {
                    moving.trouble = None;
                }
                self.tables.moved_to(id, to);
            }
            Err(error) => {
                moving.trouble = Some(error);
                moving.failed = Some(moving.failed.map_or(track, |first| first.min(track)));
            }
        }
        self.move_some(id);
    }

    // What people ask and are told.

    pub(super) fn local_pair(&self, primary: &str, secondary: &str) -> Result<CopyId, CommandError> {
        let (first, second) = (self.device(primary)?, self.device(secondary)?);
        self.tables.local_pair(first, second).ok_or_else(|| CommandError::NotPaired {
            primary: primary.to_owned(),
            secondary: secondary.to_owned(),
        })
    }

    /// The pair of two volumes, or else the copies of them that end by themselves; at least one.
    pub(super) fn copies_between(&self, primary: &str, secondary: &str) -> Result<Vec<CopyId>, CommandError> {
        let (first, second) = (self.device(primary)?, self.device(secondary)?);
        if let Some(pair) = self.tables.local_pair(first, second) {
            return Ok(vec![pair]);
        }
        let of_both = |copy: &CopyRecord| (copy.primary, copy.secondary) == (first, second);
        let copies: Vec<_> =
            self.tables.copies().filter(|(_, copy)| of_both(copy)).map(|(id, _)| id).collect();
        if copies.is_empty() {
            let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
            return Err(CommandError::NotPaired { primary, secondary });
        }
        Ok(copies)
    }

    pub(super) fn restore_items(&self, restores: Vec<Restore>) -> Result<Vec<RestoreItem>, CommandError> {
        let item = |restore: Restore| {
            let session = SessionId(restore.session);
            let record = self.tables.session(session).ok_or(CommandError::NoSession { session })?;
            let to = restore.to.map_or(Ok(record.standard), |name| self.device(&name))?;
            Ok(RestoreItem {
                session,
                to,
                keep: restore.keep,
                keep_before: !restore.discard_before,
                name: restore.name,
                online: !restore.offline,
                pace: restore.pace.map_or(Pace::Fast, core_pace),
            })
        };
        restores.into_iter().map(item).collect()
    }

    pub(super) fn restored_answer(&self, list: &[RestoreItem]) -> Answer {
        let device = |item: &RestoreItem| Some(self.device_info(item.to, self.tables.device(item.to)?));
        Answer::Devices(list.iter().filter_map(device).collect())
    }

    pub(super) fn pair_answer(&self, id: CopyId) -> Answer {
        self.tables
            .copy(id)
            .map_or(Answer::Done, |copy| Answer::Pair(Box::new(self.local_pair_info(id, copy))))
    }

    pub(super) fn local_pair_infos(&self) -> Vec<PairInfo> {
        self.tables.copies().map(|(id, copy)| self.local_pair_info(id, copy)).collect()
    }

    fn local_pair_info(&self, id: CopyId, copy: &CopyRecord) -> PairInfo {
        let (to_copy_tracks, unequal_tracks) = self.tables.copy_counts(id);
        let device = |id| self.tables.device(id);
        let name = |id| device(id).map_or_else(String::new, |device| device.name.clone());
        let tracks =
            device(copy.primary).map_or(0, |device| self.tables.geometry().tracks(device.size_bytes));
        let trouble = self.moves.copies.get(&id).and_then(|moving| moving.trouble).map(|error| match error {
            HostError::NoSpace => {
                "the pool of the target is full: add a store, or remove sessions or devices"
            }
            _ => "a store failed to read or write: look at its disk",
        });
        let moving = copy.status == CopyStatus::Copying && copy.fill.is_none();
        let called = match copy.status {
            _ if trouble.is_some() => PairCalled::Suspend,
            _ if !copy.is_pair() => PairCalled::Once,
            CopyStatus::Paired if copy.copied_ms == 0 => PairCalled::Pending,
            CopyStatus::Paired => PairCalled::Resync,
            CopyStatus::Copying if copy.back => PairCalled::Resync,
            CopyStatus::Copying => PairCalled::SpPending,
            CopyStatus::Copied if unequal_tracks == 0 || planted(Defect::SplitCalledDuplex) => {
                PairCalled::Duplex
            }
            CopyStatus::Copied => PairCalled::Split,
        };
        PairInfo {
            number: id.0,
            primary: name(copy.primary),
            secondary: name(copy.secondary),
            status: match copy.status {
                CopyStatus::Paired => PairStage::Paired,
                CopyStatus::Copying => PairStage::Copying,
                CopyStatus::Copied => PairStage::Copied,
            },
            called,
            back: copy.back,
            pace: shown_pace(copy.pace),
            tracks,
            to_copy_tracks,
            moved_to_track: moving.then_some(copy.moved_to.0),
            unequal_tracks,
            copied_ms: (copy.copied_ms > 0).then_some(copy.copied_ms),
            trouble: trouble.map(str::to_owned),
        }
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// How many tracks are copied at a time; `None`: as many as hosts leave room for.
pub(super) fn tracks_at(pace: Pace) -> Option<usize> {
    match pace {
        Pace::Slow => Some(SLOW),
        Pace::Medium => Some(MEDIUM),
        Pace::Fast => Some(FAST),
        Pace::Adaptive => None,
    }
}

pub(super) fn shown_pace(pace: Pace) -> PairPace {
    match pace {
        Pace::Slow => PairPace::Slow,
        Pace::Medium => PairPace::Medium,
        Pace::Fast => PairPace::Fast,
        Pace::Adaptive => PairPace::Adaptive,
    }
}

pub(super) fn core_pace(pace: PairPace) -> Pace {
    match pace {
        PairPace::Slow => Pace::Slow,
        PairPace::Medium => Pace::Medium,
        PairPace::Fast => Pace::Fast,
        PairPace::Adaptive => Pace::Adaptive,
    }
}
