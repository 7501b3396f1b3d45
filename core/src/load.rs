//! Tables from what is durable. What does not fit together is damage, and said to be.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::defect::{Defect, planted};
use crate::extent::Extent;
use crate::geometry::{Geometry, GeometryError};
use crate::ids::{CopyId, DeviceId, PairId, RegionNo, SessionId, StoreId, TrackNo};
use crate::local::{CopyRecord, CopyStatus};
use crate::records::{Change, DeviceKind, Pinned, SessionState};
use crate::remote::{PairRecord, SagaOutcome, SagaResult};
use crate::space::Space;
use crate::tables::{Device, Tables, change_entry};
use crate::unit::UnitLog;

/// What was loaded does not fit together: the metadata is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A store's range of physical tracks is empty, too high, or another's.
    #[error("{store} has an impossible range of physical tracks: the metadata is damaged")]
    Store {
        /// Which.
        store: StoreId,
    },
    /// Something refers to a thing that is not there.
    #[error("{what} refers to {to}, which does not exist: the metadata is damaged")]
    Dangling {
        /// What refers.
        what: String,
        /// To what.
        to: String,
    },
    /// A device has an impossible size.
    #[error("{device}: {source}: the metadata is damaged")]
    Size {
        /// Which.
        device: DeviceId,
        /// Why.
        source: GeometryError,
    },
    /// A session of tracks that its device does not have.
    #[error("{session} is of tracks that its device does not have: the metadata is damaged")]
    Extent {
        /// Which.
        session: SessionId,
    },
    /// A copy within the array that cannot be.
    #[error("{copy} {what}: the metadata is damaged")]
    Copy {
        /// Which.
        copy: CopyId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A half of a pair that cannot be.
    #[error("{pair} {what}: the metadata is damaged")]
    Pair {
        /// Which.
        pair: PairId,
        /// What is wrong with it.
        what: String,
    },
}

impl Tables {
    /// From everything that is durable: pools, stores, devices, sessions, then what refers to them. The latest of
    /// several changes of one thing counts.
    pub fn load(geometry: Geometry, changes: impl IntoIterator<Item = Change>) -> Result<Self, LoadError> {
        let mut tables = Self {
            geometry,
            space: Space::default(),
            pools: BTreeMap::new(),
            stores: BTreeMap::new(),
            devices: BTreeMap::new(),
            sessions: BTreeMap::new(),
            groups: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_id: 1,
            log: UnitLog::default(),
            flying: BTreeSet::new(),
            ended: BTreeSet::new(),
            reclaiming: BTreeSet::new(),
            shown: BTreeMap::new(),
            serial: 0,
            peers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            paired: BTreeMap::new(),
            returning: BTreeSet::new(),
            sagas: BTreeMap::new(),
            copies: BTreeMap::new(),
            copies_of: BTreeMap::new(),
            filling: BTreeMap::new(),
            schedules: BTreeMap::new(),
            undurable: BTreeMap::new(),
            unpaired: BTreeMap::new(),
        };
        for change in changes {
            tables.check(&change)?;
            if let Some(old) = tables.apply(change) {
                old.tracks().for_each(|track| tables.space.release(track));
            }
        }
        tables.settle_loaded();
        tables.settle_loaded_pairs();
        tables.settle_loaded_copies();
        Ok(tables)
    }

    /// After a restart a track's stamp is its newest version's generation: had it been written since, without a
    /// version, then for no session that is still there.
    fn settle_loaded(&mut self) {
        for (id, device) in &mut self.devices {
            let Device { versions, table, live, .. } = device;
            // Of several changes of a session only the last counts: what ended among them protects nothing.
            live.clear();
            for session in device.sessions.iter().filter_map(|session| self.sessions.get(session)) {
                if let SessionState::Active { activated } = session.record.state {
                    live.entry(activated).or_default().begin(&session.record);
                }
            }
            for (track, upto) in versions.keys() {
                table.set_stamp(*track, *upto);
            }
            if planted(Defect::StampFromDevice) {
                let tracks: Vec<_> = table.mapped(TrackNo(0)).map(|(track, _)| track).collect();
                for track in tracks {
                    table.set_stamp(track, device.record.generation());
                }
            }
            // A removal may have been under way.
            if !device.versions.is_empty() {
                device.collect = Some(TrackNo(0));
                self.reclaiming.insert(*id);
            }
        }
    }

    /// Whether a loaded change refers only to what is there.
    fn check(&self, change: &Change) -> Result<(), LoadError> {
        let dangling = |what: String, to: String| Err(LoadError::Dangling { what, to });
        if let Some(entry) = change_entry(change)
            && let Some(track) = entry.tracks().find(|track| self.space.locate(*track).is_none())
        {
            return dangling(format!("{change:?}"), track.to_string());
        }
        match change {
            Change::Store(id, record) => {
                let end = record.first.checked_add(record.tracks);
                let clash = self.stores.values().any(|other| {
                    end.is_none_or(|end| other.first < end && record.first < other.first + other.tracks)
                });
                if record.first == 0 || record.tracks == 0 || end.is_none() || clash {
                    return Err(LoadError::Store { store: *id });
                }
                if !self.pools.contains_key(&record.pool) {
                    return dangling(id.to_string(), record.pool.to_string());
                }
            }
            Change::Device(id, Some(record)) => {
                if let DeviceKind::Standard { pool, .. } = record.kind {
                    self.geometry
                        .check_device_size(record.size_bytes)
                        .map_err(|source| LoadError::Size { device: *id, source })?;
                    if !self.pools.contains_key(&pool) {
                        return dangling(id.to_string(), pool.to_string());
                    }
                }
            }
            Change::Session(id, Some(record)) => {
                let device = |id: DeviceId| self.devices.get(&id);
                if device(record.standard).is_none_or(|device| device.pool().is_none()) {
                    return dangling(id.to_string(), record.standard.to_string());
                }
                let (geometry, size_bytes) =
                    (self.geometry, device(record.standard).map_or(0, |device| device.record.size_bytes));
                let fits = |extent: Extent| {
                    let begin = geometry.offset_of(extent.first);
                    let end = begin.checked_add(extent.size_bytes);
                    extent.size_bytes > 0 && end.is_some_and(|end| end <= size_bytes)
                };
                if record.extent.is_some_and(|extent| !fits(extent)) {
                    return Err(LoadError::Extent { session: *id });
                }
                if let Some(shown) = record.virtual_device
                    && device(shown).is_none_or(|device| device.pool().is_some())
                {
                    return dangling(id.to_string(), shown.to_string());
                }
            }
            Change::Entry(id, ..) | Change::Version(id, ..) if !self.devices.contains_key(id) => {
                return dangling(format!("{change:?}"), id.to_string());
            }
            Change::Own(id, ..) if !self.sessions.contains_key(id) => {
                return dangling(format!("{change:?}"), id.to_string());
            }
            Change::Pair(id, Some(record)) => self.check_pair(*id, record)?,
            Change::Copy(id, Some(record)) => self.check_copy(*id, record)?,
            Change::ToCopy(id, region, word) | Change::Unequal(id, region, word) => {
                let Some(copy) = self.copies.get(id) else {
                    return dangling(region.to_string(), id.to_string());
                };
                if word & !copy.unequal.set.within(*region) != 0 {
                    return Err(LoadError::Copy { copy: *id, what: "has tracks beyond its devices" });
                }
            }
            Change::Owed(id, region, word) | Change::Lacked(id, region, word) => {
                self.check_words(*id, *region, *word)?;
            }
            Change::Dirty(id, region, _) => self.check_words(*id, *region, 1)?,
            Change::Saga(request, Some(SagaOutcome { result: SagaResult::Untold { peer }, .. }))
                if !self.peers.contains_key(peer) =>
            {
                return dangling(format!("request {request}"), peer.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    fn check_copy(&self, id: CopyId, record: &CopyRecord) -> Result<(), LoadError> {
        let wrong = |what| Err(LoadError::Copy { copy: id, what });
        let size =
            |id| self.device(id).filter(|it| it.is_standard() && !it.is_deleting()).map(|it| it.size_bytes);
        let (Some(first), Some(second)) = (size(record.primary), size(record.secondary)) else {
            return wrong("has a device that is not there");
        };
        let tracks = self.geometry.tracks(second);
        if record.is_pair() && (first != second || record.primary == record.secondary) {
            return wrong("pairs what cannot be paired");
        }
        if record.to_copy_from.0.max(record.unequal_from.0) > tracks {
            return wrong("has a copy pointer beyond its devices");
        }
        if record.status != CopyStatus::Copying && record.fill.is_some() {
            return wrong("is filled, and not being copied");
        }
        if let Some(fill) = record.fill
            && self.session(fill.session).is_none_or(|session| session.pinned != Some(Pinned::Source(id)))
        {
            return wrong("is made from a session that is not there");
        }
        if self.filling.get(&record.target()).is_some_and(|other| *other != id && record.fill.is_some()) {
            return wrong("fills a device that another one fills");
        }
        Ok(())
    }

    fn check_pair(&self, id: PairId, record: &PairRecord) -> Result<(), LoadError> {
        if !self.peers.contains_key(&record.peer) {
            return Err(LoadError::Dangling { what: id.to_string(), to: record.peer.to_string() });
        }
        let wrong = |what: String| Err(LoadError::Pair { pair: id, what });
        if self.pair(id).is_some_and(|known| known.device != record.device) {
            return wrong("changes its device".into());
        }
        if record.stage.is_over() {
            return Ok(());
        }
        if self.pair_of_device(record.device).is_some_and(|other| other != id) {
            return wrong(format!("shares {} with another pair", record.device));
        }
        if let Some(kept) = &record.kept
            && !self.is_kept_for(kept.session, id, record.device)
        {
            return wrong(format!("goes back to {}, which does not keep it", kept.session));
        }
        match self.device(record.device) {
            Some(device) if device.is_standard() && !device.is_deleting() => {
                let tracks = self.geometry.tracks(device.size_bytes);
                if record.owed_from.0.max(record.lacked_from.0) > tracks {
                    return wrong("has a copy pointer beyond its device".into());
                }
                Ok(())
            }
            _ => Err(LoadError::Dangling { what: id.to_string(), to: record.device.to_string() }),
        }
    }

    /// Whether the tracks of a region that a word names are of a pair's device.
    fn check_words(&self, id: PairId, region: RegionNo, word: u64) -> Result<(), LoadError> {
        let Some(owed) = self.owed(id) else {
            return Err(LoadError::Dangling { what: region.to_string(), to: id.to_string() });
        };
        if word & !owed.within(region) != 0 {
            return Err(LoadError::Pair {
                pair: id,
                what: format!("has tracks in {region} beyond its device"),
            });
        }
        Ok(())
    }
}
