//! Background work: reclaim what ended sessions and deleted devices leave, give free room back to the stores, complete
//! overlays while the array is idle, and commit what nobody waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use twintrack_core::{DeviceId, Owner, Place, StoreId, Tables, TrackNo};

use super::Firmware;
use super::durability::Waiter;
use super::event::Effect;
use super::io::{Change, IoFor, Parent, layout_of};

/// Between two steps of background work, so that hosts come in between.
const PACE: Duration = Duration::from_millis(1);
/// How long no host must have written before overlays are merged.
const IDLE: Duration = Duration::from_millis(500);
/// How long a unit waits for a commit at most, if nobody asks for one.
const COMMIT_AFTER: Duration = Duration::from_secs(1);
/// With so many units waiting, a commit is asked for. It is no limit: they go on coming until it has begun.
const UNITS_BEFORE_COMMIT: usize = 4096;
/// Adjacent tracks of one discard.
const DISCARD_TRACKS_MAX: u32 = 256;

#[derive(Debug)]
pub(super) struct Jobs {
    /// When [`Firmware::run_jobs`] is due.
    due: Option<Duration>,
    /// When a host last asked for a change.
    last_write: Duration,
    /// Since when units wait for a commit.
    uncommitted_since: Option<Duration>,
    /// The discard under way.
    discarding: bool,
    discardable: bool,
    /// Devices that may have overlays to merge, and where to go on.
    merge: BTreeMap<DeviceId, TrackNo>,
    merging: bool,
    hurry: bool,
}

impl Jobs {
    pub(super) fn new(tables: &Tables) -> Self {
        let standard = tables.devices().filter(|(_, record)| record.is_standard());
        Self {
            due: Some(Duration::ZERO),
            last_write: Duration::ZERO,
            uncommitted_since: None,
            discarding: false,
            discardable: true,
            merge: standard.map(|(id, _)| (id, TrackNo(0))).collect(),
            merging: false,
            hurry: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// A host changes something.
    pub(super) fn busy(&mut self, now: Duration) {
        self.last_write = now;
    }

    /// Somebody waits for space: work at once.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Whether there may be overlays to merge, which frees what lies below them.
    pub(super) fn is_merging(&self) -> bool {
        self.merging || !self.merge.is_empty()
    }

    /// A track of a standard device has an overlay.
    pub(super) fn overlaid(&mut self, owner: Owner) {
        if let Owner::Device(id) = owner {
            self.merge.insert(id, TrackNo(0));
        }
    }

    /// The merge under way is over.
    pub(super) fn merged(&mut self) {
        self.merging = false;
    }

    /// Sets the next due time from what there is to do.
    pub(super) fn look(&mut self, now: Duration, tables: &Tables, starving: bool, broken: bool) {
        if broken {
            self.due = None;
            return;
        }
        let uncommitted = tables.last_unit() != tables.committed_unit();
        self.uncommitted_since = uncommitted.then(|| self.uncommitted_since.unwrap_or(now));
        let soon = now + PACE;
        let mut due: Option<Duration> = None;
        let mut by = |at: Duration| due = Some(due.map_or(at, |due| due.min(at)));
        if tables.has_reclaim()
            || tables.next_returning().is_some()
            || tables.next_filling().is_some()
            || self.hurry
            || starving
            || (self.discardable && !self.discarding)
        {
            by(soon);
        }
        if let Some(since) = self.uncommitted_since {
            by(if tables.uncommitted_units() > UNITS_BEFORE_COMMIT { soon } else { since + COMMIT_AFTER });
        }
        if !self.merge.is_empty() && !self.merging {
            by(if starving { soon } else { soon.max(self.last_write + IDLE) });
        }
        // A time that is set stays, so that steady work cannot put it off.
        self.due = match (self.due, due) {
            (Some(set), Some(due)) if set > now => Some(set.min(due)),
            (_, due) => due,
        };
    }
}

impl Firmware {
    /// One step of each job that has something to do.
    pub(super) fn run_jobs(&mut self, fx: &mut Vec<Effect>) {
        self.jobs.due = None;
        self.return_some();
        self.fill_some();
        self.search_victims();
        if self.tables.has_reclaim() && self.tables.reclaim().is_some() {
            self.jobs.discardable = true;
            // Overlays that were shared may be a device's own now.
            self.merge_all();
        }
        let old = self.jobs.uncommitted_since.is_some_and(|since| self.now >= since + COMMIT_AFTER);
        if old
            || self.jobs.hurry
            || !self.starving.is_empty()
            || self.tables.uncommitted_units() > UNITS_BEFORE_COMMIT
        {
            self.durability.wait(&self.tables, Waiter::Background);
            self.jobs.uncommitted_since = None;
        }
        if std::mem::take(&mut self.jobs.hurry) || !self.tables.owes_space() {
            self.feed_starving();
        }
        self.discard(fx);
        if self.now >= self.jobs.last_write + IDLE || !self.starving.is_empty() {
            self.merge();
        }
    }

    /// One discard at a time; the tracks are out of use until it has ended (crash rule 7).
    fn discard(&mut self, fx: &mut Vec<Effect>) {
        if self.jobs.discarding || !self.starving.is_empty() {
            return;
        }
        let Some((store, start, count)) = self.tables.take_discardable(DISCARD_TRACKS_MAX) else {
            self.jobs.discardable = false;
            return;
        };
        self.jobs.discarding = true;
        let layout = layout_of(&self.tables, store);
        let (offset, end) = (layout.track_offset(start), layout.track_offset(start + count));
        if let Some(io) = self.begin_io(IoFor::Discard(store, start, count), store) {
            fx.push(Effect::Discard { io, store, offset, length: end - offset });
        }
    }

    pub(super) fn discard_done(&mut self, store: StoreId, start: u32, count: u32) {
        // A store that cannot give room back keeps it; the tracks are free all the same.
        self.jobs.discarding = false;
        self.tables.discarded(store, start, count);
        self.feed_starving();
    }

    fn merge(&mut self) {
        if self.jobs.merging {
            return;
        }
        while let Some((device, from)) = self.jobs.merge.pop_first() {
            if let Some(track) = self.tables.next_overlaid(device, from) {
                self.jobs.merge.insert(device, TrackNo(track.0 + 1));
                self.jobs.merging = true;
                let place = Place { owner: Owner::Device(device), track };
                let whole = self.tables.geometry().track_bytes();
                self.start_op(place, 0, whole, Change::Merge, Parent::Merge);
                return;
            }
        }
    }

    /// All overlays are to be looked at.
    pub(super) fn merge_all(&mut self) {
        let standard = self.tables.devices().filter(|(_, record)| record.is_standard());
        self.jobs.merge = standard.map(|(id, _)| (id, TrackNo(0))).collect();
    }

    pub(super) fn note_free(&mut self) {
        self.jobs.discardable = true;
    }
}
