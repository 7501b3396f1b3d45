//! What lies on the disks while the array is down: the committed tables, looked at from outside.
//!
//! **The tables can be loaded after any crash, and agree with themselves** (crash rules 2 and 8): references and counts
//! fit, no overlay is empty or complete. **Beside each physical track that they refer to lies where it was born** (crash
//! rule 6, D17): the track, its owner or the standard device of the session that refers to it, and at least the blocks
//! that the entry says are valid. Where sectors tear, or a header is longer than one, a write may have taken it along.

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use twintrack_controller::shell::metadata::Metadata;
use twintrack_core::layout::{Header, StoreLayout};
use twintrack_core::{BlockMask, EntryPlace, Owner, PhysicalTrack, Tables};

use crate::disk::{Enclosure, SECTOR_BYTES};
use crate::note;
use crate::oracle::Violation;
use crate::plan::METADATA_DISK;
use crate::timeline::Timeline;

/// The committed tables; `None`: nothing is formatted yet. Changes no disk.
pub fn committed(enclosure: &Enclosure) -> Result<Option<(Tables, u64)>, Violation> {
    if !enclosure.is_marked() {
        return Ok(None);
    }
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
    Ok(Some((tables, array.serial)))
}

/// Holds the headers beside the tracks against the tables.
pub fn check_births(enclosure: &Enclosure, tables: &Tables, serial: u64) -> Result<(), Violation> {
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
