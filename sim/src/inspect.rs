//! What lies on the disks while the array is down: the committed tables, looked at from outside.
//!
//! **The tables can be loaded after any crash, and agree with themselves** (crash rules 2 and 8): references and counts
//! fit, no overlay is empty or complete. **Beside each physical track that they refer to lies where it was born** (crash
//! rule 6, D17): the track, its owner or the standard device of the session that refers to it, and at least the blocks
//! that the entry says are valid. Where sectors tear, or a header is longer than one, a write may have taken it along.

use std::cell::RefCell;
use std::rc::Rc;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use twintrack_controller::shell::metadata::Metadata;
use twintrack_core::layout::{Header, StoreLayout};
use twintrack_core::{
    BLOCK_BYTES, BlockMask, DeviceId, EntryPlace, Kinship, Mode, Owner, PairRecord, PhysicalTrack, Place,
    RegionNo, Role, Stage, Tables, TrackNo,
};

use crate::disk::{Enclosure, SECTOR_BYTES};
use crate::hosts::{Array, Shared};
use crate::note;
use crate::oracle::{Half, Twin, Violation, check_covered, check_equal, check_owners};
use crate::plan::METADATA_DISK;
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
pub fn check_births(enclosure: &Enclosure, found: &Committed) -> Result<(), Violation> {
    let (tables, serial) = (&found.tables, found.serial);
    let full = tables.geometry().full();
    for (place, entry) in tables.entries() {
        let base = entry.base.map(|track| (track, full));
        let over = entry.over.map(|over| (over.track, over.mask));
        for (track, valid) in base.into_iter().chain(over) {
            check_birth(enclosure, tables, serial, place, track, valid)?;
        }
    }
    Ok(())
}

/// Holds the halves of all pairs against each other. `equal`: nobody writes, and everything was flushed.
pub fn check_pairs(shared: &Shared, equal: bool) -> Result<(), Violation> {
    let [a, b] = &shared.arrays[..] else { return Ok(()) };
    let (Some(first), Some(second)) = (committed(a)?, committed(b)?) else { return Ok(()) };
    let (first, second) = (&first.tables, &second.tables);
    for (id, here) in first.pairs() {
        let Some(there) = second.pair(id) else { continue };
        if [here, there].iter().any(|record| record.stage != Stage::Ready) {
            continue;
        }
        let name = id.to_string();
        let half = |record: &PairRecord| Half {
            owner: record.role == Role::Owner,
            forced: record.forced,
            alone: record.is_alone(),
        };
        let diverged = here.lineage.compare(&there.lineage) == Kinship::Diverged;
        check_owners(&name, [half(here), half(there)], diverged)?;
        let size_bytes = first.device(here.device).map_or(0, |device| device.size_bytes);
        for track in 0..first.geometry().tracks(size_bytes) {
            let track = TrackNo(track);
            let noted = [first, second].iter().any(|tables| {
                let marked =
                    tables.regions(id).is_some_and(|r| r.marked().any(|at| at == RegionNo::of(track)));
                marked || tables.is_owed(id, track) || tables.is_lacked(id, track)
            });
            if noted && !equal {
                continue;
            }
            let content = [
                content(&a.enclosure, first, here.device, track),
                content(&b.enclosure, second, there.device, track),
            ];
            let twin = Twin { pair: &name, track: track.0, content: [&content[0], &content[1]], noted };
            if equal && here.mode == Mode::Synchronous { check_equal(&twin)? } else { check_covered(&twin)? }
        }
    }
    Ok(())
}

/// What a track of a standard device holds.
fn content(enclosure: &Enclosure, tables: &Tables, device: DeviceId, track: TrackNo) -> Vec<u8> {
    let geometry = tables.geometry();
    let mut bytes = vec![0; geometry.track_bytes() as usize];
    let size_bytes = tables.device(device).map_or(0, |device| device.size_bytes);
    let Some(entry) = tables.entry(Place { owner: Owner::Device(device), track }) else { return bytes };
    for (block, out) in bytes.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        let Some((store, index)) = entry.place_of(block as u32).and_then(|track| tables.locate(track)) else {
            continue;
        };
        let Some(record) = tables.store(store) else { continue };
        let layout = StoreLayout::with_tracks(geometry, record.tracks);
        let offset = layout.track_offset(index) + block as u64 * u64::from(BLOCK_BYTES);
        out.copy_from_slice(&enclosure.peek(&record.name, offset, out.len() as u64).unwrap_or_default());
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
    enclosure: &Enclosure,
    tables: &Tables,
    serial: u64,
    place: EntryPlace,
    track: PhysicalTrack,
    valid: BlockMask,
) -> Result<(), Violation> {
    let wrong = |what: std::fmt::Arguments<'_>| {
        Violation::new("births", format_args!("{place} refers to {track}, and {what}"))
    };
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
    let header =
        Header::decode(&slot, tables.geometry(), serial).map_err(|error| wrong(format_args!("{error}")))?;
    let family = match place {
        EntryPlace::Device(id, _) | EntryPlace::Version(id, ..) => header.owner == Owner::Device(id),
        EntryPlace::Own(id, _) => {
            let standard = tables.session(id).map(|session| Owner::Device(session.standard));
            header.owner == Owner::Session(id) || Some(header.owner) == standard
        }
    };
    if !family || header.track != place.track() {
        return Err(wrong(format_args!("it was born as {}/{}", header.owner, header.track)));
    }
    if !header.mask.covers(valid) {
        return Err(wrong(format_args!("its header has the blocks {}, not {valid}", header.mask)));
    }
    Ok(())
}
