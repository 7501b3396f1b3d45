//! What lies on the disks while the array is down: the committed tables, looked at from outside.
//!
//! **The tables can be loaded after any crash, and agree with themselves** (crash rules 2 and 8): references and counts
//! fit, no overlay is empty or complete. **Beside each physical track that they refer to lies where it was born** (crash
//! rule 6, D17): the track, its owner or the standard device of the session that refers to it, and at least the blocks
//! that the entry says are valid. **Each track lies in the pool of its device** (C7), but for what a copy in progress is to move. What a copy brought was born as the same track of its source. Where sectors tear, or a header is longer than one, a write may have taken it along.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use twintrack_controller::shell::metadata::Metadata;
use twintrack_core::layout::{Header, StoreLayout};
use twintrack_core::{
    BLOCK_BYTES, BlockMask, CopyStatus, DeviceId, DeviceKind, DeviceRecord, EntryPlace, Kinship, Owner,
    PairId, PairRecord, PhysicalTrack, Place, RegionNo, Role, Stage, Tables, TrackNo,
};

use crate::disk::{Enclosure, SECTOR_BYTES};
use crate::hosts::{Array, Shared};
use crate::ledger::Birthplace;
use crate::note;
use crate::oracle::{Half, Twin, Violation, check_covered, check_equal, check_owners};
use crate::plan::METADATA_DISK;
use crate::site::Site;
use crate::timeline::Timeline;

/// What an array's metadata was last found to say, and in which version of it: most looks find nothing new.
#[derive(Debug, Default)]
pub struct Seen(RefCell<Option<(u64, Rc<Committed>)>>);

/// The committed tables of an array.
#[derive(Debug)]
pub struct Committed {
    /// They themselves.
    pub tables: Tables,
    /// The array's serial number.
    pub serial: u64,
}

/// The committed tables; `None`: nothing is formatted yet. Changes no disk.
pub fn committed(array: &Array) -> Result<Option<Rc<Committed>>, Violation> {
    let enclosure = &array.enclosure;
    if !enclosure.is_marked() {
        return Ok(None);
    }
    let version = enclosure.version(METADATA_DISK);
    if let Some((seen, known)) = &*array.seen.0.borrow()
        && *seen == version
    {
        return Ok(Some(known.clone()));
    }
    let found = Rc::new(read_committed(enclosure)?);
    *array.seen.0.borrow_mut() = Some((version, found.clone()));
    Ok(Some(found))
}

fn read_committed(enclosure: &Enclosure) -> Result<Committed, Violation> {
    let wrong = |what: &dyn std::fmt::Display| Violation::new("committed", format_args!("{what}"));
    let length = enclosure.length(METADATA_DISK);
    let bytes = enclosure.peek(METADATA_DISK, 0, length).unwrap_or_default();
    // A restart may have to repair the file; here a copy is repaired.
    let copy = InMemoryBackend::new();
    copy.set_len(length).and_then(|()| copy.write(0, &bytes)).map_err(|error| wrong(&error))?;
    let metadata = Metadata::open(copy).map_err(|error| wrong(&error))?;
    let changes: Result<Vec<_>, _> = metadata.load().map_err(|error| wrong(&error))?.collect();
    let array = metadata.array();
    let tables = Tables::load(array.geometry, changes.map_err(|error| wrong(&error))?);
    let tables = tables.map_err(|error| wrong(&error))?;
    tables.audit().map_err(|error| wrong(&error))?;
    Ok(Committed { tables, serial: array.serial })
}

/// Holds the headers beside the tracks against the tables.
pub fn check_births(shared: &Shared, site: Site, found: &Committed) -> Result<(), Violation> {
    let tables = &found.tables;
    let full = tables.geometry().full();
    for (place, entry) in tables.entries() {
        let base = entry.base.map(|track| (track, full));
        let over = entry.over.map(|over| (over.track, over.mask));
        for (track, valid) in base.into_iter().chain(over) {
            check_birth((shared, site), found, place, track, valid)?;
        }
    }
    Ok(())
}

/// What no copy is in progress to lies in the pool of its device (C7).
pub fn check_pools(found: &Committed) -> Result<(), Violation> {
    let tables = &found.tables;
    let copied_to =
        |id| tables.copies().any(|(_, copy)| copy.status == CopyStatus::Copying && copy.target() == id);
    for (place, entry) in tables.entries() {
        let EntryPlace::Device(id, _) = place else { continue };
        let Some(DeviceKind::Standard { pool, .. }) = tables.device(id).map(|device| device.kind) else {
            continue;
        };
        let lies_in =
            |track| tables.locate(track).and_then(|(store, _)| tables.store(store)).map(|store| store.pool);
        if entry.tracks().any(|track| lies_in(track) != Some(pool)) && !copied_to(id) {
            let what =
                format_args!("{place} lies in another pool ({entry}), and no copy to it is in progress");
            return Err(Violation::new("pools", what));
        }
    }
    Ok(())
}

/// Holds the halves of all pairs against each other. `equal`: nobody writes, everything was flushed, and all of them are
/// said to be the same.
pub fn check_pairs(shared: &Shared, equal: bool) -> Result<(), Violation> {
    for twins in twins(shared)? {
        let name = twins.id.to_string();
        let half = |record: &PairRecord| Half {
            owner: record.role == Role::Owner,
            forced: record.forced,
            alone: record.is_alone(),
        };
        let [here, there] = [0, 1].map(|at| twins.record(at));
        let diverged = here.lineage.compare(&there.lineage) == Kinship::Diverged;
        check_owners(&name, [half(here), half(there)], diverged)?;
        let spoiled = shared.ledger().spoiled(&twins.device(0).name);
        for track in twins.tracks() {
            let noted = twins.is_noted(track);
            if (noted && !equal) || spoiled.contains(&track.0) {
                continue;
            }
            let content = twins.content(shared, track);
            let twin = Twin { pair: &name, track: track.0, content: [&content[0], &content[1]], noted };
            if equal { check_equal(&twin)? } else { check_covered(&twin)? }
        }
    }
    Ok(())
}

/// The tracks in which both halves of a device's pair differ.
pub fn differing(shared: &Shared, site: Site, device: &str) -> Result<BTreeSet<u32>, Violation> {
    let twins = twins(shared)?;
    let Some(twins) = twins.iter().find(|twins| twins.device(site.index()).name == device) else {
        return Ok(BTreeSet::new());
    };
    let differs = |track: &TrackNo| {
        let content = twins.content(shared, *track);
        content[0] != content[1]
    };
    Ok(twins.tracks().filter(differs).map(|track| track.0).collect())
}

/// Changes a sector of a half that stands by on an array, if there is one that is as the other half has it, and notes that
/// in the ledger. `pick`: which, a random number.
pub fn spoil(shared: &Shared, site: Site, pick: u64) -> Result<bool, Violation> {
    let at = site.index();
    let twins = twins(shared)?;
    let mut found = Vec::new();
    for twins in twins.iter().filter(|twins| twins.record(at).role == Role::Standby) {
        for track in twins.tracks().filter(|track| !twins.is_noted(*track)) {
            let content = twins.content(shared, track);
            let place = Place { owner: Owner::Device(twins.record(at).device), track };
            let entry = twins.found[at].tables.entry(place).filter(|_| content[0] == content[1]);
            let kept = entry.and_then(|entry| entry.place_of(0));
            found.extend(kept.map(|kept| (twins, track, kept)));
        }
    }
    if found.is_empty() {
        return Ok(false);
    }
    let (twins, track, kept) = found[pick as usize % found.len()];
    if let Some((store, offset)) = place_of(&twins.found[at].tables, kept) {
        shared.array(site).enclosure.spoil(&store, offset);
        shared.ledger().pair_spoiled(&twins.device(at).name, track.0);
    }
    Ok(true)
}

/// Both halves of a pair that is ready, as the committed tables have them.
struct Twins {
    id: PairId,
    found: [Rc<Committed>; 2],
}

/// Those that there are.
fn twins(shared: &Shared) -> Result<Vec<Twins>, Violation> {
    let [a, b] = &shared.arrays[..] else { return Ok(Vec::new()) };
    let (Some(first), Some(second)) = (committed(a)?, committed(b)?) else { return Ok(Vec::new()) };
    let ready = |found: &Committed, id| found.tables.pair(id).is_some_and(|half| half.stage == Stage::Ready);
    let both = first.tables.pairs().map(|(id, _)| id).filter(|id| ready(&first, *id) && ready(&second, *id));
    Ok(both.map(|id| Twins { id, found: [first.clone(), second.clone()] }).collect())
}

impl Twins {
    fn record(&self, at: usize) -> &PairRecord {
        self.found[at].tables.pair(self.id).expect("both have it")
    }

    fn device(&self, at: usize) -> &DeviceRecord {
        self.found[at].tables.device(self.record(at).device).expect("a half has its volume")
    }

    fn tracks(&self) -> impl Iterator<Item = TrackNo> {
        let tracks = self.found[0].tables.geometry().tracks(self.device(0).size_bytes);
        (0..tracks).map(TrackNo)
    }

    /// Whether a half notes that a track may differ.
    fn is_noted(&self, track: TrackNo) -> bool {
        self.found.iter().any(|found| {
            let tables = &found.tables;
            let regions = tables.regions(self.id);
            let marked = regions.is_some_and(|r| r.marked().any(|at| at == RegionNo::of(track)));
            marked || tables.is_owed(self.id, track) || tables.is_lacked(self.id, track)
        })
    }

    /// What each array holds of a track.
    fn content(&self, shared: &Shared, track: TrackNo) -> [Vec<u8>; 2] {
        [0, 1].map(|at| {
            let enclosure = &shared.arrays[at].enclosure;
            content(enclosure, &self.found[at].tables, self.record(at).device, track)
        })
    }
}

/// Where a physical track lies: the store, and the offset in it.
fn place_of(tables: &Tables, track: PhysicalTrack) -> Option<(String, u64)> {
    let (store, index) = tables.locate(track)?;
    let record = tables.store(store)?;
    let layout = StoreLayout::with_tracks(tables.geometry(), record.tracks);
    Some((record.name.clone(), layout.track_offset(index)))
}
/// What a track of a standard device holds.
fn content(enclosure: &Enclosure, tables: &Tables, device: DeviceId, track: TrackNo) -> Vec<u8> {
    let geometry = tables.geometry();
    let mut bytes = vec![0; geometry.track_bytes() as usize];
    let size_bytes = tables.device(device).map_or(0, |device| device.size_bytes);
    let Some(entry) = tables.entry(Place { owner: Owner::Device(device), track }) else { return bytes };
    for (block, out) in bytes.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        let place = entry.place_of(block as u32).and_then(|track| place_of(tables, track));
        let Some((store, offset)) = place else { continue };
        let offset = offset + block as u64 * u64::from(BLOCK_BYTES);
        out.copy_from_slice(&enclosure.peek(&store, offset, out.len() as u64).unwrap_or_default());
    }
    // What lies behind the device's end is nobody's.
    let begin = u64::from(track.0) * bytes.len() as u64;
    bytes.truncate(size_bytes.saturating_sub(begin).min(bytes.len() as u64) as usize);
    bytes
}

/// The entries of all tracks, for who reads the timeline.
pub fn show(timeline: &Timeline, tables: &Tables) {
    for (place, entry) in tables.entries() {
        note!(timeline, "table", "{place} = {entry}");
    }
}

fn check_birth(
    (shared, site): (&Shared, Site),
    found: &Committed,
    place: EntryPlace,
    track: PhysicalTrack,
    valid: BlockMask,
) -> Result<(), Violation> {
    let wrong = |what: std::fmt::Arguments<'_>| {
        Violation::new("births", format_args!("{place} refers to {track}, and {what}"))
    };
    let (tables, enclosure) = (&found.tables, &shared.array(site).enclosure);
    let Some((store, index)) = tables.locate(track) else {
        return Err(wrong(format_args!("no store has it")));
    };
    let Some(record) = tables.store(store) else { return Err(wrong(format_args!("{store} is unknown"))) };
    let layout = StoreLayout::with_tracks(tables.geometry(), record.tracks);
    let length = u64::from(layout.header_bytes());
    if length > SECTOR_BYTES {
        return Ok(());
    }
    let slot = enclosure.peek(&record.name, layout.header_offset(index), length).unwrap_or_default();
    let header = Header::decode(&slot, tables.geometry(), found.serial)
        .map_err(|error| wrong(format_args!("{error}")))?;
    let (device, session) = match place {
        EntryPlace::Device(id, _) | EntryPlace::Version(id, ..) => (Some(id), None),
        EntryPlace::Own(id, _) => (tables.session(id).map(|session| session.standard), Some(id)),
    };
    let born = match header.owner {
        Owner::Device(id) => Birthplace::Device(id.0),
        Owner::Session(id) => Birthplace::Session(id.0),
    };
    let own = session.is_some_and(|id| header.owner == Owner::Session(id));
    let family = own
        || device.is_some_and(|id| {
            header.owner == Owner::Device(id) || shared.ledger().may_have_come(site, born, id.0)
        });
    if !family || header.track != place.track() {
        return Err(wrong(format_args!("it was born as {}/{}", header.owner, header.track)));
    }
    if !header.mask.covers(valid) {
        return Err(wrong(format_args!("its header has the blocks {}, not {valid}", header.mask)));
    }
    Ok(())
}
