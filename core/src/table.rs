//! The track table of a standard device: an entry and a stamp a track, sparse.

use std::collections::BTreeMap;

use crate::entry::{Entry, Overlay};
use crate::ids::{Generation, PhysicalTrack, TrackNo};

/// Tracks of a chunk.
const CHUNK: u32 = 256;
/// Chunks that one step gives back stamps of.
const SHRINK_CHUNKS: usize = 4096;

/// Entries and stamps of one device. What was never written takes no memory; a whole track takes 4 bytes, and 4 more
/// once its stamp matters.
#[derive(Debug, Default)]
pub(crate) struct TrackTable {
    chunks: BTreeMap<u32, Chunk>,
    /// References to physical tracks from all entries.
    references: u64,
}

#[derive(Debug)]
struct Chunk {
    /// 0: zeros.
    bases: Box<[u32; CHUNK as usize]>,
    overs: BTreeMap<u8, Overlay>,
    /// Entries that are not zeros.
    mapped: u16,
    stamps: Option<Box<[u32; CHUNK as usize]>>,
}

impl TrackTable {
    pub(crate) fn entry(&self, track: TrackNo) -> Entry {
        let Some(chunk) = self.chunks.get(&(track.0 / CHUNK)) else { return Entry::ZEROS };
        let index = (track.0 % CHUNK) as u8;
        Entry {
            base: PhysicalTrack::new(chunk.bases[index as usize]),
            over: chunk.overs.get(&index).copied(),
        }
    }

    /// Replaces an entry and returns the old one.
    pub(crate) fn set(&mut self, track: TrackNo, entry: Entry) -> Entry {
        if entry.is_zeros() && !self.chunks.contains_key(&(track.0 / CHUNK)) {
            return entry;
        }
        let index = (track.0 % CHUNK) as u8;
        let chunk = self.chunk(track);
        let base =
            std::mem::replace(&mut chunk.bases[index as usize], entry.base.map_or(0, PhysicalTrack::get));
        let over = match entry.over {
            Some(over) => chunk.overs.insert(index, over),
            None => chunk.overs.remove(&index),
        };
        let old = Entry { base: PhysicalTrack::new(base), over };
        chunk.mapped += u16::from(!entry.is_zeros());
        chunk.mapped -= u16::from(!old.is_zeros());
        if chunk.mapped == 0 && chunk.stamps.is_none() {
            self.chunks.remove(&(track.0 / CHUNK));
        }
        self.references += entry.tracks().count() as u64;
        self.references -= old.tracks().count() as u64;
        old
    }

    /// The generation of a track's last write, as far as it matters: 0 if no session could tell.
    pub(crate) fn stamp(&self, track: TrackNo) -> Generation {
        let chunk = self.chunks.get(&(track.0 / CHUNK));
        let stamps = chunk.and_then(|chunk| chunk.stamps.as_ref());
        Generation(stamps.map_or(0, |stamps| stamps[(track.0 % CHUNK) as usize]))
    }

    pub(crate) fn set_stamp(&mut self, track: TrackNo, stamp: Generation) {
        let stamps = self.chunk(track).stamps.get_or_insert_with(|| Box::new([0; CHUNK as usize]));
        stamps[(track.0 % CHUNK) as usize] = stamp.0;
    }

    /// Physical tracks that entries refer to, one that two refer to counted twice.
    pub(crate) fn references(&self) -> u64 {
        self.references
    }

    /// Entries that are not zeros, from `from` on.
    pub(crate) fn mapped(&self, from: TrackNo) -> impl Iterator<Item = (TrackNo, Entry)> {
        let chunks = self.chunks.range(from.0 / CHUNK..);
        let tracks = chunks.flat_map(|(number, _)| (number * CHUNK)..=(number * CHUNK + (CHUNK - 1)));
        tracks
            .map(TrackNo)
            .filter(move |track| *track >= from)
            .map(|track| (track, self.entry(track)))
            .filter(|(_, entry)| !entry.is_zeros())
    }

    /// The first track with an overlay from `from` on.
    pub(crate) fn next_overlaid(&self, from: TrackNo) -> Option<TrackNo> {
        let (first, index) = (from.0 / CHUNK, (from.0 % CHUNK) as u8);
        self.chunks.range(first..).find_map(|(number, chunk)| {
            let least = if *number == first { index } else { 0 };
            chunk.overs.range(least..).next().map(|(index, _)| TrackNo(number * CHUNK + u32::from(*index)))
        })
    }

    /// Gives back the stamps, which matter only while a session is active, and the memory of chunks that hold nothing: a
    /// bounded step, from a track on. Where to go on; `None`: that was all.
    pub(crate) fn shrink(&mut self, from: TrackNo) -> Option<TrackNo> {
        let mut empty = Vec::new();
        let mut chunks = self.chunks.range_mut(from.0 / CHUNK..);
        for (number, chunk) in chunks.by_ref().take(SHRINK_CHUNKS) {
            chunk.stamps = None;
            if chunk.mapped == 0 {
                empty.push(*number);
            }
        }
        let next = chunks.next().map(|(number, _)| TrackNo(number * CHUNK));
        for number in empty {
            self.chunks.remove(&number);
        }
        next
    }

    fn chunk(&mut self, track: TrackNo) -> &mut Chunk {
        self.chunks.entry(track.0 / CHUNK).or_insert_with(|| Chunk {
            bases: Box::new([0; CHUNK as usize]),
            overs: BTreeMap::new(),
            mapped: 0,
            stamps: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::BlockMask;

    #[test]
    fn sparse_at_the_far_end() {
        let mut table = TrackTable::default();
        let last = TrackNo((1 << 30) - 1);
        let p = PhysicalTrack::new(7);
        let entry = Entry { base: p, over: None };
        assert_eq!(table.set(last, entry), Entry::ZEROS);
        assert_eq!(table.entry(last), entry);
        assert_eq!(table.mapped(TrackNo(0)).collect::<Vec<_>>(), [(last, entry)]);
        assert_eq!(table.references(), 1);
        table.set(last, Entry::ZEROS);
        table.shrink(TrackNo(0));
        assert!(table.chunks.is_empty());
    }

    #[test]
    fn a_large_table_shrinks_in_steps() {
        let mut table = TrackTable::default();
        let track = |chunk: usize| TrackNo(chunk as u32 * CHUNK + 7);
        let whole = Entry { base: PhysicalTrack::new(1), over: None };
        for chunk in 0..SHRINK_CHUNKS + 2 {
            table.set_stamp(track(chunk), Generation(3));
        }
        table.set(track(1), whole);
        let next = table.shrink(TrackNo(0));
        assert_eq!((next, table.chunks.len()), (Some(TrackNo(SHRINK_CHUNKS as u32 * CHUNK)), 3));
        assert_eq!((table.stamp(track(1)), table.entry(track(1))), (Generation(0), whole));
        assert_eq!(table.stamp(track(SHRINK_CHUNKS)), Generation(3));
        assert_eq!((table.shrink(next.unwrap()), table.chunks.len()), (None, 1));
    }

    #[test]
    fn overlaid_tracks_are_found_in_order() {
        let mut table = TrackTable::default();
        let over = Overlay { track: PhysicalTrack::new(1).unwrap(), mask: BlockMask::range(0, 1) };
        for track in [3, 256, 700] {
            table.set(TrackNo(track), Entry { base: None, over: Some(over) });
        }
        let mut found = Vec::new();
        let mut at = TrackNo(0);
        while let Some(track) = table.next_overlaid(at) {
            found.push(track.0);
            at = TrackNo(track.0 + 1);
        }
        assert_eq!(found, [3, 256, 700]);
    }
}
